//! Answers about the node itself.

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::identity::PublicKey;
use megatorrent_core::limits::RATE_LIMIT_MIN;
use megatorrent_core::node::{Command, Target};

use super::LISTED_MAX;
use crate::api::{
    self, AddPeer, Answers, ApiError, Ban, Bans, ChannelId, Counts, CreateLoginLink, Doctor, Done, Events,
    GetBans, GetDoctor, GetEvents, GetLimits, GetOptions, GetPeers, GetRates, GetSettings, GetStatus, Limits,
    LoginLink, Mode, NodeOptions, NodeStatus, Peer, Peers, RateHistory, RemoveBan, RotateToken, SetLimits,
    SetSettings, Settings, Shutdown,
};
use crate::exit::{Exit, Failure};
use crate::service::{Changes, Service, doctor, refused};

impl Answers<GetStatus> for Service {
    async fn answer(&self, _: GetStatus) -> Result<NodeStatus, ApiError> {
        let it = &self.0;
        let status = it.node.status();
        let (receive_bytes_per_sec, send_bytes_per_sec) = it.rates.borrow().bytes_per_sec();
        let mut channels = Counts::default();
        for channel in it.channels.borrow().values() {
            if !channel.record.preview {
                channels.add(channel.info().state);
            }
        }
        Ok(NodeStatus {
            version: env!("CARGO_PKG_VERSION").into(),
            started_unix_ms: it.started_unix_ms,
            mode: Mode::Direct,
            home: it.home.display().to_string(),
            p2p: it.node.local_addr().map(|addr| addr.to_string()),
            dht: it.node.dht_addr().map(|addr| addr.to_string()),
            api: it.api.get().map(|addr| addr.to_string()),
            dht_nodes: it.node.dht_nodes() as u64,
            dht_late: status.dht_late as u64,
            dht_lag_secs: status.dht_lag_secs,
            inbound: status.inbound as u64,
            outbound: status.outbound as u64,
            peers_known: status.peers_known as u64,
            bans: status.bans as u64,
            bytes_received: status.bytes_received,
            bytes_sent: status.bytes_sent,
            bytes_duplicate: status.bytes_duplicate,
            receive_bytes_per_sec,
            send_bytes_per_sec,
            free_bytes: doctor::free_bytes(&it.home),
            channels,
            jobs: it.jobs.borrow().active() as u64,
            told_nothing: !it.has_told.get(),
            last_event: it.log.last(),
        })
    }
}

impl Answers<GetDoctor> for Service {
    async fn answer(&self, _: GetDoctor) -> Result<Doctor, ApiError> {
        Ok(Doctor { checks: doctor::look(&self.0.node) })
    }
}

impl Answers<GetEvents> for Service {
    async fn answer(&self, call: GetEvents) -> Result<Events, ApiError> {
        let limit = call.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LISTED_MAX);
        let after = self.0.log.after(call.after, limit.min(LISTED_MAX));
        Ok(Events {
            events: after.events,
            missed: after.missed,
            restarted: after.restarted,
            last: self.0.log.last(),
        })
    }
}

impl Answers<GetPeers> for Service {
    async fn answer(&self, _: GetPeers) -> Result<Peers, ApiError> {
        let peers = self.0.node.peers().into_iter().map(|peer| Peer {
            address: peer.address.to_string(),
            outbound: peer.outbound,
            connected_secs: peer.open_for.as_secs(),
            bytes_received: peer.bytes_received,
            bytes_sent: peer.bytes_sent,
            channels: peer.shared.iter().filter_map(channel).map(ChannelId).collect(),
            found: peer.found.map(Into::into),
            ready: peer.is_keyed,
            wanted_of_it: peer.wanted_of_it as u64,
            wanted_of_us: peer.wanted_of_us as u64,
        });
        Ok(Peers { peers: peers.collect() })
    }
}

fn channel(target: &Target) -> Option<PublicKey> {
    if let Target::Channel(channel) = target { Some(*channel) } else { None }
}

impl Answers<GetRates> for Service {
    async fn answer(&self, call: GetRates) -> Result<RateHistory, ApiError> {
        Ok(self.0.rates.borrow().history(call.day))
    }
}

impl Answers<GetBans> for Service {
    async fn answer(&self, _: GetBans) -> Result<Bans, ApiError> {
        let bans = self.0.node.bans().into_iter().map(|ban| Ban {
            address: ban.peer.to_string(),
            why: ban.violation.map(|violation| violation.to_string()),
            until_unix_ms: ban.until.0,
        });
        Ok(Bans { bans: bans.collect() })
    }
}

fn peer_addr(text: &str) -> Result<PeerAddr, ApiError> {
    text.parse().map_err(|_| Failure::usage(format!("{text:?} is no HOST:PORT")).into())
}

impl Answers<RemoveBan> for Service {
    async fn answer(&self, call: RemoveBan) -> Result<Done, ApiError> {
        self.command(Command::Unban(peer_addr(&call.address)?)).await?;
        Ok(Done {})
    }
}

impl Answers<AddPeer> for Service {
    async fn answer(&self, call: AddPeer) -> Result<Done, ApiError> {
        let added = self.0.node.add_bootstrap(peer_addr(&call.address)?).await;
        added.map_err(|refusal| refused(&refusal))?;
        Ok(Done {})
    }
}

impl Answers<GetOptions> for Service {
    async fn answer(&self, _: GetOptions) -> Result<NodeOptions, ApiError> {
        let it = &self.0;
        let (limits, settings) = (self.limits(), self.settings());
        Ok(NodeOptions {
            host: it.asked.host.map(|host| host.to_string()),
            p2p_port: it.node.local_addr().map(|addr| addr.port()),
            dht_port: it.node.dht_addr().map(|addr| addr.port()),
            dht: it.asked.dht,
            upload_bytes_per_sec: limits.upload_bytes_per_sec,
            download_bytes_per_sec: limits.download_bytes_per_sec,
            whole: settings.whole,
            gateway: settings.gateway,
        })
    }
}

impl Answers<GetLimits> for Service {
    async fn answer(&self, _: GetLimits) -> Result<Limits, ApiError> {
        Ok(self.limits())
    }
}

impl Answers<SetLimits> for Service {
    async fn answer(&self, call: SetLimits) -> Result<Limits, ApiError> {
        let given = [call.upload_bytes_per_sec, call.download_bytes_per_sec];
        if given.into_iter().flatten().filter_map(|limit| limit.0).any(|rate| rate < RATE_LIMIT_MIN) {
            let message = format!("the lowest limit is {RATE_LIMIT_MIN} bytes a second; null lifts it");
            return Err(Failure::new(Exit::Usage, message).into());
        }
        let rate = |limit: api::Limit| Changes::rate(limit.0);
        let change = Changes {
            upload_bytes_per_sec: call.upload_bytes_per_sec.map(rate),
            download_bytes_per_sec: call.download_bytes_per_sec.map(rate),
            ..Changes::default()
        };
        self.configure(change).await?;
        Ok(self.limits())
    }
}

impl Answers<GetSettings> for Service {
    async fn answer(&self, _: GetSettings) -> Result<Settings, ApiError> {
        Ok(self.settings())
    }
}

impl Answers<SetSettings> for Service {
    async fn answer(&self, call: SetSettings) -> Result<Settings, ApiError> {
        self.configure(Changes { gateway: call.gateway, whole: call.whole, ..Changes::default() }).await?;
        Ok(self.settings())
    }
}

impl Answers<Shutdown> for Service {
    async fn answer(&self, _: Shutdown) -> Result<Done, ApiError> {
        self.0.is_ending.set(true);
        self.0.ending.notify(usize::MAX);
        Ok(Done {})
    }
}

impl Answers<RotateToken> for Service {
    async fn answer(&self, _: RotateToken) -> Result<Done, ApiError> {
        self.access()?.rotate()?;
        self.0.links.borrow_mut().clear();
        Ok(Done {})
    }
}

impl Answers<CreateLoginLink> for Service {
    async fn answer(&self, _: CreateLoginLink) -> Result<LoginLink, ApiError> {
        Ok(self.access()?.login_link()?)
    }
}

//! The dispatcher's part for settings, which change while the node runs.

use alloc::collections::BTreeMap;

use super::Dispatcher;
use crate::error::CloseReason;
use crate::node::api::Config;
use crate::suite::Suite;

impl<S: Suite> Dispatcher<S> {
    /// Hands each setting to the leaf that keeps it.
    pub(super) fn configure(&mut self, config: Config) {
        let Config {
            listen_port,
            own_address,
            private_dht,
            gateway,
            takes_all,
            upload_bytes_per_sec,
            download_bytes_per_sec,
        } = config;
        self.listen_on(listen_port);
        if self.gossip.set_own(&mut self.cx, own_address) {
            self.announce_own();
        }
        for conn in self.peers.set_private_dht(private_dht) {
            self.close(conn, CloseReason::Disallowed);
        }
        self.gateway.set_on(&mut self.cx, gateway);
        self.downloads.set_takes_all(&mut self.cx, takes_all);
        self.throttles.set(&mut self.cx, upload_bytes_per_sec, download_bytes_per_sec);
    }

    /// Announces another port, and tells the peers that we have dialled.
    fn listen_on(&mut self, port: Option<u16>) {
        self.dht.set_port(port, self.cx.now());
        let told = self.conns.set_listen_port(port);
        if told.is_empty() {
            return;
        }
        let to_v6 = self.conns.hello(BTreeMap::new());
        let to_v5 = self.conns.hello(self.channels.heads().public_sequences());
        for conn in told {
            let names_channels = self.conns.has_said_hello(conn) && !self.conns.speaks_v6(conn);
            self.conns.push(conn, if names_channels { &to_v5 } else { &to_v6 });
        }
    }
}

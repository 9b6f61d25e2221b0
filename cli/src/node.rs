//! What the commands that run a node have in common.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use megatorrent_runtime_smol::dht::DhtMode;
use megatorrent_runtime_smol::home::{self, Home};
use megatorrent_runtime_smol::{Handle, Options, Runtime};
use serde_json::{Value, json};
use smol::LocalExecutor;

use crate::args::{DataArgs, Dht, LimitArgs, ListenArgs, NetworkArgs};
use crate::events::count;
use crate::exit::Failure;
use crate::output::{News, Output};

/// The executor that nodes and their helpers run on.
pub(crate) type Executor = Rc<LocalExecutor<'static>>;

/// Runs `work` on this thread, with an executor for the nodes it starts.
pub(crate) fn block_on<T>(work: impl AsyncFnOnce(&Executor) -> T) -> T {
    let executor = Executor::default();
    smol::block_on(executor.run(work(&executor)))
}

/// Makes the node's folder one where that was asked for.
pub(crate) fn prepare(data: &DataArgs) -> Result<&Path, Failure> {
    if data.new {
        home::make(&data.dir)?;
    }
    Ok(&data.dir)
}

/// The options of a node in its folder, which it holds from here on.
pub(crate) fn options(data: &DataArgs, network: &NetworkArgs) -> Result<Options, Failure> {
    let mut options = Options::new(Home::open(prepare(data)?)?);
    options.bootstrap.clone_from(&network.bootstrap);
    options.dht = match network.dht {
        Dht::Auto => DhtMode::Auto,
        Dht::Off => DhtMode::Off,
        Dht::Server => DhtMode::Server,
        Dht::Client => DhtMode::Client,
    };
    Ok(options)
}

/// Takes over what the user allows of the line.
pub(crate) fn limit(options: &mut Options, limits: &LimitArgs) {
    options.upload_bytes_per_sec = limits.upload;
    options.download_bytes_per_sec = limits.download;
    options.takes_all = limits.whole;
}

/// Allows this process as many open files as the system lets it have: each connection is one, and what is usually allowed
/// at first is too few for all that a node may take. Where the system refuses, the node does with less.
fn raise_file_limit() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Starts a node that listens, and says so.
pub(crate) async fn start_listening(
    executor: &Executor,
    mut options: Options,
    listen: &ListenArgs,
    default_port: u16,
    output: Output,
) -> Result<Handle, Failure> {
    raise_file_limit();
    let ip = listen.host.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    options.listen = Some(SocketAddr::new(ip, listen.p2p_port.unwrap_or(default_port)));
    options.dht_port = listen.dht_port;
    let node = Runtime::start(executor, options).await?;
    let (members, text) = ready(&node);
    output.event(News::Ready, members, &text)?;
    Ok(node)
}

fn ready(node: &Handle) -> (Value, String) {
    let p2p = node.local_addr().map(|addr| addr.to_string());
    let dht = node.dht_addr().map(|addr| addr.to_string());
    let channels = node.channels().len();
    let text = format!(
        "ready: peers on TCP {}, DHT {}, following {}",
        p2p.as_deref().unwrap_or("none"),
        dht.as_ref().map_or("off or not yet there".into(), |addr| format!("on UDP {addr}")),
        count(channels, "channel"),
    );
    (json!({ "p2p": p2p, "dht": dht, "channels": channels }), text)
}

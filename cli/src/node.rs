//! What the commands that run a node have in common.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use megatorrent_runtime_smol::Options;
use megatorrent_runtime_smol::dht::DhtMode;
use megatorrent_runtime_smol::home::{self, Home};
use smol::LocalExecutor;

use crate::args::{DataArgs, Dht, LimitArgs, ListenArgs, NetworkArgs};
use crate::exit::{Exit, Failure};

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

/// Lets the node listen.
pub(crate) fn listen(options: &mut Options, listen: &ListenArgs, default_port: u16) {
    raise_file_limit();
    let ip = listen.host.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    options.listen = Some(SocketAddr::new(ip, listen.p2p_port.unwrap_or(default_port)));
    options.dht_port = listen.dht_port;
}

/// A path as the node is told it, which may run in another folder.
pub(crate) fn absolute(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| Failure::file("cannot find", path, &error))?;
    absolute.into_os_string().into_string().map_err(|path| {
        let message = format!("{} is not UTF-8: name another path", Path::new(&path).display());
        Failure::new(Exit::Usage, message)
    })
}

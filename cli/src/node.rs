//! What the commands that run a node have in common.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;

use megatorrent_runtime_smol::dht::DhtMode;
use megatorrent_runtime_smol::egress::Egress;
use megatorrent_runtime_smol::home::{self, Home};
use megatorrent_runtime_smol::{Handle, Options};
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

/// Lets the node listen; at any port where none is named.
pub(crate) fn listen(options: &mut Options, listen: &ListenArgs) {
    raise_file_limit();
    let ip = listen.host.unwrap_or(Ipv6Addr::UNSPECIFIED.into());
    options.listen = Some(SocketAddr::new(ip, listen.p2p_port.unwrap_or(0)));
    options.dht_port = listen.dht_port;
}

/// The TCP port that a node keeps from its first run on, so that it can be forwarded, and that others find it again.
pub(crate) struct OwnPort {
    port: u16,
    /// Whether it was chosen for this run, and is to be kept.
    is_new: bool,
}

/// The record of it in the node's state.
const OWN_PORT: &str = "p2p-port";

impl OwnPort {
    /// Lets the node listen at its own port. `None`: the user names another.
    pub(crate) fn take(options: &mut Options, listen: &ListenArgs) -> Result<Option<Self>, Failure> {
        if listen.p2p_port.is_some() {
            return Ok(None);
        }
        let Some(addr) = &mut options.listen else { return Ok(None) };
        let kept = options.home.state.application(OWN_PORT)?.pop();
        let kept = kept.and_then(|(_, port)| str::from_utf8(&port).ok()?.parse().ok());
        let own = match kept {
            Some(port) => Self { port, is_new: false },
            None => Self { port: Egress::direct(None).lasting_port(addr.ip()), is_new: true },
        };
        addr.set_port(own.port);
        Ok(Some(own))
    }

    /// Keeps it.
    pub(crate) fn keep(&self, node: &Handle) -> Result<(), Failure> {
        let addr = node.local_addr().filter(|_| self.is_new);
        let Some(addr) = addr else { return Ok(()) };
        Ok(node.state().set_application(OWN_PORT, Some(addr.port().to_string().as_bytes()))?)
    }

    /// What to do where another program has it.
    pub(crate) fn explain(&self, mut failure: Failure) -> Failure {
        if !self.is_new && failure.exit == Exit::Network {
            failure.message = format!(
                "{}. Port {} is the one that this node keeps since its first run; -T, or p2p-port in the configuration file, names \
                 another",
                failure.message, self.port
            );
        }
        failure
    }
}

/// A path as the node is told it, which may run in another folder.
pub(crate) fn absolute(path: &Path) -> Result<String, Failure> {
    let absolute = std::path::absolute(path).map_err(|error| Failure::file("cannot find", path, &error))?;
    absolute.into_os_string().into_string().map_err(|path| {
        let message = format!("{} is not UTF-8: name another path", Path::new(&path).display());
        Failure::new(Exit::Usage, message)
    })
}

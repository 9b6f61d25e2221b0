//! Where the API listens: an address of this machine, and the control socket in the node's folder.
//!
//! These sockets lead to no peer: they take callers of this machine, or those that a user asked for by naming an address. So they are
//! made here, and not where a node's way to the network is (`egress`).

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use smol::Async;

use super::token::is_absent;
use crate::exit::{Exit, Failure};
use crate::files;

/// The port where none is given, if it is free.
pub(crate) const PORT: u16 = 3000;
/// The control socket, in the node's folder.
pub(crate) const CONTROL_SOCKET: &str = "control.sock";
/// The file that says where the API listens, in the node's folder: `ADDRESS:PORT`, one a line.
pub(crate) const ADDRESS_FILE: &str = "api-address";
/// Connections that the system completes before they are accepted.
const BACKLOG: i32 = 1024;
/// Longest path of a Unix socket, without the NUL at its end.
const SOCKET_PATH_LEN_MAX: usize = 107;

/// What takes callers.
pub(crate) enum Listener {
    Tcp(Async<TcpListener>),
    /// Whoever connects must be this user, or root.
    Unix(Async<UnixListener>),
}

impl Listener {
    /// Listens on TCP: at 127.0.0.1 where no address is given; where no port is, at 3000 if it is free, or else at a free one.
    pub(crate) fn bind(host: Option<IpAddr>, port: Option<u16>) -> Result<Self, Failure> {
        let ip = host.unwrap_or(Ipv4Addr::LOCALHOST.into());
        let bound = match port {
            Some(port) => bind_tcp(ip, port),
            None => bind_tcp(ip, PORT).or_else(|error| match error.kind() {
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied => bind_tcp(ip, 0),
                _ => Err(error),
            }),
        };
        bound.map(Self::Tcp).map_err(|error| {
            let addr = SocketAddr::new(ip, port.unwrap_or(PORT));
            let message =
                format!("the API cannot listen at {addr}: {error}; name another port (-P), or none");
            Failure::new(Exit::Network, message)
        })
    }

    /// Takes a socket that listens already, as a service manager hands it over.
    pub(crate) fn adopt(socket: OwnedFd) -> io::Result<Self> {
        match rustix::net::getsockname(&socket)?.address_family() {
            AddressFamily::INET | AddressFamily::INET6 => {
                Async::new(TcpListener::from(socket)).map(Self::Tcp)
            }
            AddressFamily::UNIX => Async::new(UnixListener::from(socket)).map(Self::Unix),
            _ => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    /// Its address; `None`: a Unix socket.
    pub(crate) fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.get_ref().local_addr().ok(),
            Self::Unix(_) => None,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the API's own listener, which takes no peers")]
fn bind_tcp(ip: IpAddr, port: u16) -> io::Result<Async<TcpListener>> {
    let listener = TcpListener::bind((ip, port))?;
    rustix::net::listen(&listener, BACKLOG)?;
    Async::new(listener)
}

/// The control socket of a node's folder. It is removed when this is dropped.
pub(crate) struct ControlSocket {
    path: PathBuf,
}

impl ControlSocket {
    /// Listens there, for this user alone. Only for whoever holds the folder: a socket that lies there is one that a killed node
    /// left, and makes room.
    pub(crate) fn bind(dir: &Path) -> Result<(Self, Listener), Failure> {
        let path = dir.join(CONTROL_SOCKET);
        let listener =
            bind_control(dir, &path).map_err(|error| Failure::file("cannot listen at", &path, &error))?;
        Ok((Self { path }, Listener::Unix(listener)))
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // The next node replaces it if this fails.
        let _ = fs::remove_file(&self.path);
    }
}

#[expect(clippy::disallowed_methods, reason = "a socket of this machine alone")]
fn bind_control(dir: &Path, path: &Path) -> io::Result<Async<UnixListener>> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // The file of a socket is made with the mode of the socket: there is no moment at which others could connect.
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    let reached = Reached::new(dir)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(&reached.path)?)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Async::new(UnixListener::from(socket))
}

/// Connects to the control socket of a node's folder; `None`: no node listens there.
pub(super) async fn connect_control(dir: &Path) -> io::Result<Option<Async<UnixStream>>> {
    match try_connect(dir).await {
        Err(error) if is_absent(&error) => Ok(None),
        connected => connected.map(Some),
    }
}

#[expect(clippy::disallowed_methods, reason = "a socket of this machine alone")]
async fn try_connect(dir: &Path) -> io::Result<Async<UnixStream>> {
    let reached = Reached::new(dir)?;
    Async::<UnixStream>::connect(&reached.path).await
}

/// A path of the control socket that fits into a socket's address: one that is too long leads through a descriptor of its folder.
struct Reached {
    path: PathBuf,
    _dir: Option<File>,
}

impl Reached {
    fn new(dir: &Path) -> io::Result<Self> {
        let path = dir.join(CONTROL_SOCKET);
        if path.as_os_str().len() <= SOCKET_PATH_LEN_MAX {
            return Ok(Self { path, _dir: None });
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let flags = i32::try_from(flags.bits()).map_err(io::Error::other)?;
        let dir = File::options().read(true).custom_flags(flags).open(dir)?;
        let path = format!("/proc/self/fd/{}/{CONTROL_SOCKET}", dir.as_raw_fd()).into();
        Ok(Self { path, _dir: Some(dir) })
    }
}

/// Whether the process at the other end of a Unix socket is this user's, or root's.
pub(super) fn is_own_user(socket: impl AsFd) -> bool {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    {
        let own = rustix::process::geteuid().as_raw();
        super::credentials::Credentials::of(socket).is_ok_and(|peer| peer.uid == own || peer.uid == 0)
    }
    // Elsewhere the file's mode alone decides.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    {
        let _ = socket;
        true
    }
}

/// The file in the node's folder that says where the API listens. It is removed when this is dropped.
pub(crate) struct AddressFile {
    path: PathBuf,
}

impl AddressFile {
    /// Writes it.
    pub(crate) fn write(dir: &Path, listeners: &[Listener]) -> Result<Self, Failure> {
        let path = dir.join(ADDRESS_FILE);
        let addrs = listeners.iter().filter_map(Listener::local_addr);
        let lines: Vec<String> = addrs.map(|addr| format!("{addr}\n")).collect();
        files::replace_fleeting(&path, &lines.concat())
            .map_err(|error| Failure::file("cannot write", &path, &error))?;
        Ok(Self { path })
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        // A killed node leaves it too: that it lies there proves nothing.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn without_a_port_some_port_is_found_and_a_given_one_that_is_taken_is_refused() {
        let first = Listener::bind(None, None).expect("it listens");
        let second = Listener::bind(None, None).expect("it listens");
        let (first, second_addr) = (first.local_addr().expect("TCP"), second.local_addr().expect("TCP"));
        assert!(first.ip().is_loopback() && first != second_addr);
        let refused = Listener::bind(None, Some(second_addr.port())).err().expect("it is taken");
        assert_eq!(refused.exit, Exit::Network);
    }

    #[test]
    fn the_control_socket_is_its_owners_replaces_a_stale_one_and_goes() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(CONTROL_SOCKET);
        smol::block_on(async {
            assert!(connect_control(dir.path()).await.expect("it is looked for").is_none());
            let (socket, listener) = ControlSocket::bind(dir.path()).expect("it listens");
            let mode = fs::metadata(&path).expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let there = connect_control(dir.path()).await.expect("it connects").expect("it is there");
            assert!(is_own_user(&there));
            // A killed node leaves its socket behind.
            std::mem::forget(socket);
            drop(listener);
            assert!(connect_control(dir.path()).await.expect("it is looked for").is_none());
            let (socket, _listener) = ControlSocket::bind(dir.path()).expect("it listens again");
            drop(socket);
            assert!(!path.exists());
        });
    }

    #[test]
    fn a_long_path_is_reached_through_its_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let dir = root.path().join("x".repeat(120));
        fs::create_dir(&dir).expect("a folder");
        smol::block_on(async {
            let (_socket, _listener) = ControlSocket::bind(&dir).expect("it listens");
            assert!(dir.join(CONTROL_SOCKET).exists());
            assert!(connect_control(&dir).await.expect("it connects").is_some());
        });
    }

    #[test]
    fn sockets_are_taken_over_by_their_kind() {
        let dir = tempfile::tempdir().expect("a folder");
        let Listener::Tcp(tcp) = Listener::bind(None, Some(0)).expect("it listens") else { panic!("TCP") };
        let addr = tcp.get_ref().local_addr().expect("an address");
        let tcp = OwnedFd::from(tcp.into_inner().expect("the socket"));
        let adopted = Listener::adopt(tcp).expect("it is taken over");
        assert_eq!(adopted.local_addr(), Some(addr));
        let (_socket, unix) = ControlSocket::bind(dir.path()).expect("it listens");
        let Listener::Unix(unix) = unix else { panic!("Unix") };
        let adopted = Listener::adopt(OwnedFd::from(unix.into_inner().expect("the socket")));
        assert!(matches!(adopted, Ok(Listener::Unix(_))));
        let file = AddressFile::write(dir.path(), &[Listener::bind(None, Some(0)).expect("it listens")])
            .expect("it is written");
        let text = fs::read_to_string(dir.path().join(ADDRESS_FILE)).expect("it reads");
        assert!(text.trim().parse::<SocketAddr>().is_ok(), "{text}");
        drop(file);
        assert!(!dir.path().join(ADDRESS_FILE).exists());
    }
}

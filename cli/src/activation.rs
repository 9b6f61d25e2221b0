//! Listeners that a service manager opened and handed over (systemd's socket activation): `LISTEN_PID`, `LISTEN_FDS`,
//! `LISTEN_FDNAMES`.

use std::net::TcpListener;
use std::os::fd::OwnedFd;

use crate::exit::{Exit, Failure};

/// The listener's name in the unit, `FileDescriptorName=`. One without a name is taken for it too.
pub(crate) const API: &str = "api";
/// What systemd calls a socket that its unit gives no name.
const UNNAMED: [&str; 2] = ["", "unknown"];

/// Takes the listeners for the API, non-blocking and closed on exec. To be called once, before anything else opens files: it takes
/// the descriptors by number.
pub(crate) fn take() -> Result<Vec<TcpListener>, Failure> {
    let handed = sd_listen_fds::get().map_err(|error| refused(&error.to_string()))?;
    let handed = handed.into_iter().map(|(name, fd)| (name.unwrap_or_default(), fd.into_std()));
    listeners(handed)
}

fn listeners(handed: impl Iterator<Item = (String, OwnedFd)>) -> Result<Vec<TcpListener>, Failure> {
    handed.map(|(name, fd)| listener(&name, fd)).collect()
}

fn listener(name: &str, fd: OwnedFd) -> Result<TcpListener, Failure> {
    // systemd names a socket after its unit where the unit has no name for it.
    let is_ours = name == API || UNNAMED.contains(&name) || name.ends_with(".socket");
    if !is_ours {
        return Err(refused(&format!("it has the name {name:?}; what this program takes is {API:?}")));
    }
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)
        .map_err(|error| refused(&error.to_string()))?;
    let is_listening =
        rustix::net::sockopt::socket_acceptconn(&fd).map_err(|error| refused(&error.to_string()))?;
    let listener = TcpListener::from(fd);
    // A Unix socket has no address of the Internet.
    if !is_listening || listener.local_addr().is_err() {
        return Err(refused("it is no TCP socket that listens"));
    }
    listener.set_nonblocking(true).map_err(|error| refused(&error.to_string()))?;
    Ok(listener)
}

fn refused(why: &str) -> Failure {
    Failure::new(Exit::Other, format!("cannot take a socket that the service manager handed over: {why}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
mod tests {
    use std::net::TcpStream;
    use std::os::unix::net::UnixListener;
    use std::process::{Command, Stdio};

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "plays the service manager")]
    fn tcp() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").unwrap()
    }

    fn take_one(name: &str, fd: impl Into<OwnedFd>) -> Result<Vec<TcpListener>, Failure> {
        listeners([(name.to_owned(), fd.into())].into_iter())
    }

    #[test]
    fn a_tcp_listener_is_taken_under_its_name_and_without_one() {
        for name in [API, "", "unknown", "megatorrent.socket"] {
            let (given, at) = (tcp(), |l: &TcpListener| l.local_addr().unwrap());
            let address = at(&given);
            let taken = take_one(name, given).unwrap();
            assert_eq!(taken.iter().map(at).collect::<Vec<_>>(), [address]);
            assert_eq!(taken[0].accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
            assert!(rustix::io::fcntl_getfd(&taken[0]).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "plays the service manager")]
    fn what_is_no_tcp_listener_is_refused_in_words() {
        let folder = tempfile::tempdir().unwrap();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        let listener = tcp();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let file = std::fs::File::open(folder.path()).unwrap();
        for (name, fd) in
            [(API, OwnedFd::from(unix)), (API, stream.into()), (API, file.into()), ("p2p", tcp().into())]
        {
            let failure = take_one(name, fd).unwrap_err();
            assert!(failure.message.contains("handed over"), "{failure}");
        }
    }

    /// Run by the test below as a process of its own, with a listener as its fourth descriptor.
    #[test]
    #[ignore = "is the child of another test"]
    fn child() {
        let taken = take().unwrap();
        println!(
            "taken: {}",
            taken.iter().map(|it| it.local_addr().unwrap().to_string()).collect::<String>()
        );
    }

    #[test]
    fn the_environment_says_what_was_handed_over() {
        let run = |pid: &str| {
            let given = tcp();
            let address = given.local_addr().unwrap();
            let script = format!(
                "exec 3<&0 </dev/null; LISTEN_PID={pid} exec \"$0\" --ignored --exact --nocapture activation::tests::child"
            );
            let output = Command::new("sh")
                .args(["-c", &script])
                .arg(std::env::current_exe().unwrap())
                .envs([("LISTEN_FDS", "1"), ("LISTEN_FDNAMES", API)])
                .stdin(Stdio::from(OwnedFd::from(given)))
                .output()
                .unwrap();
            (String::from_utf8(output.stdout).unwrap(), address)
        };
        let (said, address) = run("$$");
        assert!(said.contains(&format!("taken: {address}\n")), "{said}");
        let (said, _) = run("1");
        assert!(said.contains("taken: \n"), "of another process: {said}");
    }
}

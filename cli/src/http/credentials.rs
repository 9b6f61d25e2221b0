//! Who is at the other end of a Unix socket.
//!
//! rustix has the call too, but not for a process of another PID namespace, such as one outside this one's container: its number is 0
//! then, which rustix's type cannot hold.

#![cfg(any(target_os = "linux", target_os = "android"))]

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// A process, as it was when it connected or began to listen.
pub(super) struct Credentials {
    /// `None`: it cannot be seen from here.
    pub(super) pid: Option<rustix::process::Pid>,
    pub(super) uid: u32,
}

impl Credentials {
    pub(super) fn of(socket: impl AsFd) -> io::Result<Self> {
        let mut found = libc::ucred { pid: 0, uid: u32::MAX, gid: u32::MAX };
        let mut length = libc::socklen_t::try_from(size_of_val(&found)).map_err(io::Error::other)?;
        // SAFETY: the kernel writes at most `length` bytes, which are those of `found`, of whose type any bytes are a value.
        let code = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERCRED,
                (&raw mut found).cast(),
                &raw mut length,
            )
        };
        if code != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { pid: rustix::process::Pid::from_raw(found.pid), uid: found.uid })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_other_end_is_known() {
        let (near, _far) = UnixStream::pair().expect("two sockets");
        let peer = Credentials::of(&near).expect("it is connected");
        assert_eq!(peer.pid, Some(rustix::process::getpid()));
        assert_eq!(peer.uid, rustix::process::geteuid().as_raw());
        assert!(Credentials::of(std::fs::File::open("/dev/null").expect("it opens")).is_err());
    }
}

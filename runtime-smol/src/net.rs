//! The only place that makes TCP sockets: the listener and the dialler.
//!
//! Goals: each socket option is set for a stated reason; a port is chosen that TCP and UDP share. Non-goals: which
//! peers to dial or to refuse (core), proxies.
//!
//! Options left at the system's default, on purpose: buffer sizes (Linux tunes them, and setting them turns that
//! off) and TCP keep-alive (core closes a connection on which nothing moved).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::Duration;

use async_io::{Async, Timer};
use futures_lite::FutureExt;
use megatorrent_core::addr::{DnsName, PeerAddr};
use smol::Task;
use socket2::{Domain, Protocol, Socket, Type};

use crate::StartError;

/// How long a dial may take, name resolution and every address of the name included.
pub(crate) const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes that a socket takes beyond those on their way.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_MAX: u32 = 256 * 1024;
/// Addresses of one name that are tried, in the resolver's order.
const ADDRESSES_PER_NAME_MAX: usize = 4;
/// Connections that the system completes before we accept them; more wait for the dialler's retry. The system may
/// cut it (`net.core.somaxconn`).
const BACKLOG: i32 = 1024;
/// Ports tried until one is free for both TCP and UDP.
const PORT_TRIES_MAX: usize = 64;

/// What the runtime listens on, and where its DHT shall be.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The listener, non-blocking.
    pub(crate) listener: Option<TcpListener>,
    /// Its address.
    pub(crate) local_addr: Option<SocketAddr>,
    /// The UDP port for the DHT; 0 where any will do.
    pub(crate) dht_port: u16,
}

/// All addresses of this machine, IPv6 included where the machine has it: where to listen if nothing else is said.
pub fn every_address() -> IpAddr {
    match TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)) {
        Ok(_) => Ipv6Addr::UNSPECIFIED.into(),
        Err(_) => Ipv4Addr::UNSPECIFIED.into(),
    }
}

/// Opens the listener, and finds the DHT's UDP port: `dht_port`, or else the listener's number. Where `listen` has
/// port 0 and the numbers shall be the same, one is chosen that is free for both.
///
/// `udp_ip` is where the DHT binds; `None`: there is no DHT. The UDP port is only tried, not held: the DHT client
/// opens it itself a moment later.
pub(crate) fn bind(
    listen: Option<SocketAddr>,
    udp_ip: Option<Ipv4Addr>,
    dht_port: Option<u16>,
) -> Result<Bound, StartError> {
    let Some(addr) = listen else {
        let dht_port = dht_port.unwrap_or(0);
        probe_udp(udp_ip, dht_port)?;
        return Ok(Bound { listener: None, local_addr: None, dht_port });
    };
    let shared = addr.port() == 0 && dht_port.is_none() && udp_ip.is_some();
    let mut tries = if shared { PORT_TRIES_MAX } else { 1 };
    loop {
        tries -= 1;
        let (listener, local_addr) = listen_tcp(addr).map_err(|error| StartError::Listen { addr, error })?;
        let dht_port = dht_port.unwrap_or(local_addr.port());
        match probe_udp(udp_ip, dht_port) {
            Ok(()) => return Ok(Bound { listener: Some(listener), local_addr: Some(local_addr), dht_port }),
            Err(error) if tries == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

fn listen_tcp(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    // A restart must not wait for the old connections' TIME_WAIT. On Windows the option would let another process
    // take the port away.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    if let IpAddr::V6(ip) = addr.ip() {
        // `[::]` means every address, IPv4 included, whatever the system's default is; another address means itself.
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    let listener = TcpListener::from(socket);
    let local_addr = listener.local_addr()?;
    Ok((listener, local_addr))
}

fn probe_udp(ip: Option<Ipv4Addr>, port: u16) -> Result<(), StartError> {
    let Some(ip) = ip else { return Ok(()) };
    let addr = SocketAddr::from((ip, port));
    UdpSocket::bind(addr).map(drop).map_err(|error| StartError::DhtPort { addr, error })
}

/// Sets what every connection needs. A failure is no reason to drop it.
pub(crate) fn prepare(stream: &TcpStream) {
    // Requests and answers are small and waited for; core hands out frames whole, so there is nothing to coalesce.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY not set");
    }
    // What the kernel has taken cannot be taken back: without a bound, a peer's turn would end, and a message would
    // wait, behind megabytes that the line has still to carry.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_notsent_lowat(UNSENT_MAX) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT not set");
    }
}

/// Connects to `peer` within [`DIAL_TIMEOUT`].
pub(crate) async fn dial(peer: &PeerAddr) -> io::Result<Async<TcpStream>> {
    let late = async {
        Timer::after(DIAL_TIMEOUT).await;
        Err(io::ErrorKind::TimedOut.into())
    };
    dial_any(peer).or(late).await
}

async fn dial_any(peer: &PeerAddr) -> io::Result<Async<TcpStream>> {
    let addrs = match peer {
        PeerAddr::Ip(addr) => vec![*addr],
        PeerAddr::Dns(host, port) => resolve(host, *port).await?,
        PeerAddr::Onion(..) | PeerAddr::I2p(..) => {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "reachable through a proxy only"));
        }
    };
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for addr in addrs {
        match Async::<TcpStream>::connect(addr).await {
            // Dialling a free local port may, by the rules of TCP, connect a socket with itself.
            Ok(stream) if stream.get_ref().local_addr()? == addr => {
                last = io::ErrorKind::ConnectionRefused.into();
            }
            Ok(stream) => {
                prepare(stream.get_ref());
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Looks a DNS name up, on another thread, which begins at once.
pub(crate) fn resolve(host: &DnsName, port: u16) -> Task<io::Result<Vec<SocketAddr>>> {
    let host = host.clone();
    smol::unblock(move || Ok((host.as_str(), port).to_socket_addrs()?.take(ADDRESSES_PER_NAME_MAX).collect()))
}

/// Whether an address belongs to this machine or a private network, where the public DHT has no business.
pub(crate) fn is_local(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_private() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use megatorrent_core::addr::{I2pAddr, OnionAddr};

    const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

    #[test]
    fn port_0_becomes_one_number_for_tcp_and_udp() {
        let bound = bind(Some((LOOPBACK, 0).into()), Some(LOOPBACK), None).expect("a port is free");
        let port = bound.local_addr.expect("listens").port();
        assert_eq!(bound.dht_port, port);
        let udp = UdpSocket::bind((LOOPBACK, port)).expect("the UDP port is free");

        // Taken for UDP, the same number is refused when asked for, and not chosen when it is free to choose.
        drop(bound);
        let error = bind(Some((LOOPBACK, port).into()), Some(LOOPBACK), None).expect_err("UDP port is taken");
        assert!(error.to_string().contains(&udp.local_addr().expect("bound").to_string()), "{error}");
        let other =
            bind(Some((LOOPBACK, port).into()), None, None).expect("without a DHT the TCP port will do");
        assert_eq!(other.local_addr.map(|a| a.port()), Some(port));
    }

    #[test]
    fn a_taken_port_is_named() {
        let bound = bind(Some((LOOPBACK, 0).into()), None, None).expect("a port is free");
        let addr = bound.local_addr.expect("listens");
        let error = bind(Some(addr), None, None).expect_err("taken").to_string();
        assert!(error.contains(&addr.to_string()) && error.contains("in use"), "{error}");
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let bound = match bind(Some(any), Some(LOOPBACK), None) {
            Err(StartError::Listen { error, .. }) if error.kind() == io::ErrorKind::Unsupported => return, // No IPv6 here.
            bound => bound.expect("a port is free"),
        };
        let port = bound.local_addr.expect("listens").port();
        let peer = PeerAddr::from(SocketAddr::from((LOOPBACK, port)));
        let stream = smol::block_on(dial(&peer)).expect("accepted");
        assert!(stream.get_ref().nodelay().expect("an option of TCP"));
    }

    #[test]
    fn local_networks_are_told_from_the_public() {
        for local in [
            "127.0.0.1",
            "10.1.2.3",
            "192.168.0.1",
            "169.254.1.1",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.0.0.1",
        ] {
            assert!(is_local(local.parse().expect("an address")), "{local}");
        }
        for public in ["9.9.9.9", "0.0.0.0", "100.64.0.1", "2001:db8::1", "::"] {
            assert!(!is_local(public.parse().expect("an address")), "{public}");
        }
    }

    #[test]
    fn what_only_a_proxy_reaches_is_never_resolved() {
        for peer in [
            PeerAddr::Onion(OnionAddr::from_public_key([7; 32]), 1),
            PeerAddr::I2p(I2pAddr::from_hash([7; 32]), 1),
        ] {
            let error = smol::block_on(dial(&peer)).expect_err("no proxy");
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
    }
}

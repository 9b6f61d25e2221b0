//! The only place that makes sockets and looks names up: the TCP listener and the dialler, and UDP for the DHT.
//!
//! Goals: every way to the network is a method of one value, [`Egress`], so that what a node can reach is decided where
//! that value is made; each socket option is set for a stated reason; a port is chosen that TCP and UDP share. Non-goals:
//! which peers to dial or to refuse (core), proxies.
//!
//! clippy's `disallowed-methods` (`clippy.toml`) refuses sockets and look-ups everywhere else; each exception here is one
//! function. One socket is made out of its sight: the `mainline` crate binds the DHT's UDP socket itself. So it is
//! started here (`Egress::open_dht`), with its address, its port and its first nodes, whose names are resolved before:
//! left to itself it binds 0.0.0.0, and looks up the names of the public network's nodes.
//!
//! Options left at the system's default, on purpose: buffer sizes (Linux tunes them, and setting them turns that
//! off) and TCP keep-alive (core closes a connection on which nothing moved).

use std::io;
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
};
use std::time::Duration;

use async_io::{Async, Timer};
use futures_lite::FutureExt;
use mainline::DhtBuilder;
use megatorrent_core::addr::{DnsName, PeerAddr};
use rustix::io::Errno;
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
/// The ports among which a node chooses one for good. Above them the system takes those of its dials, which might hold it at the
/// node's next start.
const LASTING_PORTS: std::ops::Range<u16> = 20_000..32_768;
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

/// A node's way to the network. Whatever needs a socket, or the address of a name, takes it and has no other.
#[derive(Clone, Copy, Debug)]
pub struct Egress {
    /// Where the node listens; `None`: nowhere.
    listen: Option<SocketAddr>,
}

#[expect(clippy::unused_self, reason = "the value is the permission to do it")]
impl Egress {
    /// The network as this machine has it, for a node that listens at `listen`. Where that is one address, and
    /// not of loopback, dials go out from it, and reach only what can be reached from it: peers look for the node at the
    /// address that they see, and the user who names one address may not want the others seen.
    pub fn direct(listen: Option<SocketAddr>) -> Self {
        Self { listen }
    }

    // --- TCP ------------------------------------------------------------------------------------------------

    /// Opens the listener, and finds the DHT's UDP port: `dht_port`, or else the listener's number. Where the node listens at
    /// port 0 and the numbers shall be the same, one is chosen that is free for both.
    ///
    /// `udp_ip` is where the DHT binds; `None`: there is no DHT. The UDP port is only tried, not held: the DHT client
    /// opens it itself a moment later.
    pub(crate) fn bind(&self, udp_ip: Option<Ipv4Addr>, dht_port: Option<u16>) -> Result<Bound, StartError> {
        let probe = |port: u16| {
            let Some(ip) = udp_ip else { return Ok(()) };
            let addr = SocketAddrV4::new(ip, port);
            self.try_udp(addr).map(drop).map_err(|error| StartError::DhtPort { addr: addr.into(), error })
        };
        let Some(addr) = self.listen else {
            let dht_port = dht_port.unwrap_or(0);
            probe(dht_port)?;
            return Ok(Bound { listener: None, local_addr: None, dht_port });
        };
        let shared = addr.port() == 0 && dht_port.is_none() && udp_ip.is_some();
        let mut tries = if shared { PORT_TRIES_MAX } else { 1 };
        loop {
            tries -= 1;
            let (listener, local_addr) =
                listen_tcp(addr).map_err(|error| StartError::Listen { addr, error })?;
            let dht_port = dht_port.unwrap_or(local_addr.port());
            match probe(dht_port) {
                Ok(()) => {
                    return Ok(Bound { listener: Some(listener), local_addr: Some(local_addr), dht_port });
                }
                Err(error) if tries == 0 => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// A port that is free at `ip`, for TCP and UDP, and likely to be free at the next start too; 0 where none of some that were
    /// tried is. It is not kept.
    pub fn lasting_port(&self, ip: IpAddr) -> u16 {
        let udp_ip = if let IpAddr::V4(ip) = ip { ip } else { Ipv4Addr::UNSPECIFIED };
        let is_free = |port: &u16| {
            listen_tcp((ip, *port).into()).is_ok() && self.try_udp(SocketAddrV4::new(udp_ip, *port)).is_ok()
        };
        (0..PORT_TRIES_MAX).filter_map(|_| random_port()).find(is_free).unwrap_or(0)
    }

    /// Connects to `peer` within [`DIAL_TIMEOUT`].
    pub(crate) async fn dial(&self, peer: &PeerAddr) -> io::Result<Async<TcpStream>> {
        let late = async {
            Timer::after(DIAL_TIMEOUT).await;
            Err(io::ErrorKind::TimedOut.into())
        };
        self.dial_any(peer).or(late).await
    }

    async fn dial_any(&self, peer: &PeerAddr) -> io::Result<Async<TcpStream>> {
        let addrs = match peer {
            PeerAddr::Ip(addr) => vec![*addr],
            PeerAddr::Dns(host, port) => self.resolve(host, *port).await?,
            PeerAddr::Onion(..) | PeerAddr::I2p(..) => {
                return Err(io::Error::new(io::ErrorKind::Unsupported, "reachable through a proxy only"));
            }
        };
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for addr in addrs {
            match self.connect(addr).await {
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

    async fn connect(&self, addr: SocketAddr) -> io::Result<Async<TcpStream>> {
        let socket = tcp_socket(addr)?;
        socket.set_nonblocking(true)?;
        if let Some(source) = self.source(addr.ip()) {
            if source.is_ipv4() != addr.is_ipv4() {
                let why = "not reachable from the one address that the node has";
                return Err(io::Error::new(io::ErrorKind::AddrNotAvailable, why));
            }
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        match socket.connect(&addr.into()) {
            Err(error) if Errno::from_io_error(&error) != Some(Errno::INPROGRESS) => return Err(error),
            _ => {}
        }
        let stream = Async::new_nonblocking(TcpStream::from(socket))?;
        stream.writable().await?;
        match stream.get_ref().take_error()? {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    /// The address that dials to `ip` go out from; `None`: whichever the system chooses.
    fn source(&self, ip: IpAddr) -> Option<IpAddr> {
        let own = self.listen?.ip().to_canonical();
        // No way leads out of the machine from its loopback: who listens there says who may come, and no more.
        let leads_there = !own.is_loopback() || (ip.is_loopback() && own.is_ipv4() == ip.is_ipv4());
        (!own.is_unspecified() && leads_there).then_some(own)
    }

    // --- names ----------------------------------------------------------------------------------------------

    /// Looks a DNS name up, on another thread, which begins at once.
    #[expect(clippy::disallowed_methods, reason = "the one look-up of names")]
    pub(crate) fn resolve(&self, host: &DnsName, port: u16) -> Task<io::Result<Vec<SocketAddr>>> {
        let host = host.clone();
        smol::unblock(move || {
            Ok((host.as_str(), port).to_socket_addrs()?.take(ADDRESSES_PER_NAME_MAX).collect())
        })
    }

    // --- UDP ------------------------------------------------------------------------------------------------

    /// Whether a UDP socket can be bound to `addr`, and to which port; it is not kept.
    #[expect(clippy::disallowed_methods, reason = "the probe of a port")]
    pub(crate) fn try_udp(&self, addr: SocketAddrV4) -> io::Result<u16> {
        Ok(UdpSocket::bind(addr)?.local_addr()?.port())
    }

    /// A UDP socket that exchanges datagrams with `to` alone, from any port of `ip`. Making it sends nothing.
    #[expect(clippy::disallowed_methods, reason = "the one UDP socket of ours")]
    pub(crate) fn connect_udp(&self, ip: Ipv4Addr, to: SocketAddrV4) -> io::Result<Async<UdpSocket>> {
        let socket = UdpSocket::bind((ip, 0))?;
        socket.connect(to)?;
        Async::new(socket)
    }

    /// Starts a DHT client, which binds `at` and begins with `nodes`; with none of them it begins a network of its own.
    #[expect(clippy::disallowed_methods, reason = "the client makes its own socket")]
    pub(crate) async fn open_dht(
        &self,
        at: SocketAddrV4,
        nodes: &[SocketAddrV4],
        mut settings: DhtBuilder,
    ) -> io::Result<mainline::Dht> {
        settings.bind_address(*at.ip()).port(at.port());
        if nodes.is_empty() {
            settings.no_bootstrap();
        } else {
            settings.bootstrap(nodes);
        }
        smol::unblock(move || settings.build()).await
    }
}

fn random_port() -> Option<u16> {
    let mut bytes = [0; 2];
    getrandom::fill(&mut bytes).ok()?;
    Some(LASTING_PORTS.start + u16::from_ne_bytes(bytes) % (LASTING_PORTS.end - LASTING_PORTS.start))
}

#[expect(clippy::disallowed_methods, reason = "the socket of the listener and of each dial")]
fn tcp_socket(addr: SocketAddr) -> io::Result<Socket> {
    Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))
}

fn listen_tcp(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let taken = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied)
    };
    match listen_tcp_at(addr) {
        // Without IPv6, every address of the machine is IPv4's.
        Err(error) if addr.ip() == Ipv6Addr::UNSPECIFIED && !taken(&error) => {
            listen_tcp_at((Ipv4Addr::UNSPECIFIED, addr.port()).into())
        }
        done => done,
    }
}

fn listen_tcp_at(addr: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = tcp_socket(addr)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use megatorrent_core::addr::{I2pAddr, OnionAddr};

    const LOOPBACK: Ipv4Addr = Ipv4Addr::LOCALHOST;

    #[expect(clippy::disallowed_methods, reason = "another program's socket")]
    fn hold_udp(addr: SocketAddrV4) -> UdpSocket {
        UdpSocket::bind(addr).expect("the UDP port is free")
    }

    fn at(port: u16) -> Egress {
        Egress::direct(Some((LOOPBACK, port).into()))
    }

    #[test]
    fn port_0_becomes_one_number_for_tcp_and_udp() {
        let bound = at(0).bind(Some(LOOPBACK), None).expect("a port is free");
        let port = bound.local_addr.expect("listens").port();
        assert_eq!(bound.dht_port, port);
        let taken = SocketAddrV4::new(LOOPBACK, port);
        let _held = hold_udp(taken);

        // Taken for UDP, the same number is refused when asked for, and not chosen when it is free to choose.
        drop(bound);
        let error = at(port).bind(Some(LOOPBACK), None).expect_err("UDP port is taken");
        assert!(error.to_string().contains(&taken.to_string()), "{error}");
        let other = at(port).bind(None, None).expect("without a DHT the TCP port will do");
        assert_eq!(other.local_addr.map(|a| a.port()), Some(port));
    }

    #[test]
    fn a_port_for_good_is_free_and_none_of_the_systems_own() {
        let egress = Egress::direct(None);
        for ip in [IpAddr::V4(LOOPBACK), Ipv6Addr::UNSPECIFIED.into()] {
            let port = egress.lasting_port(ip);
            assert!(LASTING_PORTS.contains(&port), "{port}");
        }
    }

    #[test]
    fn a_taken_port_is_named() {
        let bound = at(0).bind(None, None).expect("a port is free");
        let addr = bound.local_addr.expect("listens");
        let error = Egress::direct(Some(addr)).bind(None, None).expect_err("taken").to_string();
        assert!(error.contains(&addr.to_string()) && error.contains("in use"), "{error}");
    }

    #[test]
    fn the_unspecified_ipv6_address_takes_ipv4_too() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let egress = Egress::direct(Some(any));
        let bound =
            egress.bind(Some(LOOPBACK), None).expect("a port is free, on IPv4 where there is no IPv6");
        let port = bound.local_addr.expect("listens").port();
        let peer = PeerAddr::from(SocketAddr::from((LOOPBACK, port)));
        let stream = smol::block_on(egress.dial(&peer)).expect("accepted");
        assert!(stream.get_ref().nodelay().expect("an option of TCP"));
    }

    #[test]
    #[cfg(target_os = "linux")] // Elsewhere the loopback interface has one IPv4 address.
    fn a_dial_goes_out_from_the_one_address_that_the_node_has() {
        let bound = at(0).bind(None, None).expect("a port is free");
        let listener = Async::new(bound.listener.expect("listens")).expect("it is watched");
        let addr = bound.local_addr.expect("listens");
        let accepted = |listen: Option<&str>| {
            let egress = Egress::direct(listen.map(|text| text.parse().expect("an address")));
            let stream = smol::block_on(egress.dial(&addr.into())).expect("accepted");
            let (_, peer) = smol::block_on(listener.accept()).expect("it is connected");
            assert_eq!(Ok(peer), stream.get_ref().local_addr().map_err(drop));
            peer.ip().to_string()
        };
        assert_eq!(accepted(Some("127.0.0.79:5")), "127.0.0.79");
        assert_eq!(accepted(Some("[::ffff:127.0.0.79]:5")), "127.0.0.79");
        assert_eq!(accepted(Some("0.0.0.0:0")), "127.0.0.1");
        assert_eq!(accepted(Some("[::]:0")), "127.0.0.1");
        assert_eq!(accepted(None), "127.0.0.1");

        assert_eq!(accepted(Some("[::1]:0")), "127.0.0.1", "a loopback address keeps nobody in");

        let other = Egress::direct(Some("[2001:db8::1]:0".parse().expect("an address")));
        let error = smol::block_on(other.dial(&addr.into())).expect_err("of another family");
        assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
        for ip in ["9.9.9.9", "2001:db8::1", "::1"] {
            assert_eq!(at(0).source(ip.parse().expect("an address")), None, "{ip}");
        }
    }

    #[test]
    fn a_port_that_is_taken_is_an_error_of_the_dht_each_time() {
        let bound = at(0).bind(Some(LOOPBACK), None).expect("a port is free");
        let taken = SocketAddrV4::new(LOOPBACK, bound.dht_port);
        let _held = hold_udp(taken);
        // Its thread fails before or after it is asked whether it could open its socket.
        for _ in 0..200 {
            let opened = smol::block_on(at(0).open_dht(taken, &[], DhtBuilder::default()));
            assert_eq!(opened.err().map(|error| error.kind()), Some(io::ErrorKind::AddrInUse));
        }
    }

    #[test]
    fn a_refused_dial_is_an_error() {
        let bound = at(0).bind(None, None).expect("a port is free");
        let addr = bound.local_addr.expect("listens");
        drop(bound);
        for egress in [Egress::direct(None), at(0)] {
            let error = smol::block_on(egress.dial(&addr.into())).expect_err("nobody listens");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
    }

    #[test]
    fn what_only_a_proxy_reaches_is_never_resolved() {
        for peer in [
            PeerAddr::Onion(OnionAddr::from_public_key([7; 32]), 1),
            PeerAddr::I2p(I2pAddr::from_hash([7; 32]), 1),
        ] {
            let error = smol::block_on(Egress::direct(None).dial(&peer)).expect_err("no proxy");
            assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        }
    }
}

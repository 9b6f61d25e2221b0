//! Where a peer can be reached, by kind of network (`docs/protocol.md` §7).

mod i2p;
mod onion;

use alloc::string::{String, ToString};
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;

use crate::error::ParseError;

pub use i2p::I2pAddr;
pub use onion::OnionAddr;

/// Longest host name that is accepted (RFC 1035 §2.3.4).
const HOST_LEN_MAX: usize = 253;

/// A peer's address. A connection's peer need not be an IP address (design §6).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerAddr {
    /// An IPv4 or IPv6 socket address.
    Ip(SocketAddr),
    /// An onion service, which only Tor reaches, and a port.
    Onion(OnionAddr, u16),
    /// An I2P destination, which only I2P reaches, and a port.
    I2p(I2pAddr, u16),
    /// A host name, which a resolver looks up, and a port.
    Dns(DnsName, u16),
}

impl PeerAddr {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(addr) => addr.port(),
            Self::Onion(_, port) | Self::I2p(_, port) | Self::Dns(_, port) => *port,
        }
    }

    /// The same host's address with another port.
    pub fn with_port(&self, port: u16) -> Self {
        match self {
            Self::Ip(addr) => Self::Ip(SocketAddr::new(addr.ip(), port)),
            Self::Onion(host, _) => Self::Onion(*host, port),
            Self::I2p(host, _) => Self::I2p(*host, port),
            Self::Dns(host, _) => Self::Dns(host.clone(), port),
        }
    }

    /// Whether the address means the same everywhere: a name does; see [`is_public`] for IP addresses.
    pub fn is_public(&self) -> bool {
        match self {
            Self::Ip(addr) => is_public(addr.ip()),
            Self::Onion(..) | Self::I2p(..) | Self::Dns(..) => true,
        }
    }

    /// Whether peers may exchange this address: an IP literal that is neither unspecified, multicast nor broadcast, an
    /// onion service or an I2P destination; never a DNS name, never port 0.
    pub fn is_exchangeable(&self) -> bool {
        self.port() != 0
            && match self {
                Self::Ip(addr) => {
                    let ip = addr.ip().to_canonical();
                    !ip.is_unspecified()
                        && !ip.is_multicast()
                        && !matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
                }
                Self::Onion(..) | Self::I2p(..) => true,
                Self::Dns(..) => false,
            }
    }
}

/// Whether an IP address means the same everywhere: it is specified, and not of this machine, a link, a private network
/// or a carrier's shared address space (RFC 6598). IPv4 mapped into IPv6 counts as IPv4.
pub fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && b & 0xc0 == 64;
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared)
        }
        IpAddr::V6(ip) => {
            !(ip.is_unspecified() || ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local())
        }
    }
}

impl FromStr for PeerAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        // A zone means something on one machine only.
        if let Some(addr) = text.parse::<SocketAddr>().ok().filter(|_| !text.contains('%')) {
            return Ok(Self::from(addr));
        }
        let (host, port) = text.rsplit_once(':').ok_or(ParseError::PeerAddr)?;
        let is_digits = port.bytes().all(|b| b.is_ascii_digit());
        let port = port.parse().ok().filter(|_| is_digits).ok_or(ParseError::PeerAddr)?;
        match top_label(host).to_ascii_lowercase().as_str() {
            "onion" => host.parse().map(|host| Self::Onion(host, port)),
            "i2p" => host.parse().map(|host| Self::I2p(host, port)),
            _ => host.parse().map(|host| Self::Dns(host, port)),
        }
    }
}

impl From<SocketAddr> for PeerAddr {
    /// An IPv4 address mapped into IPv6 becomes plain IPv4, so that one peer has one address.
    fn from(addr: SocketAddr) -> Self {
        Self::Ip(SocketAddr::new(addr.ip().to_canonical(), addr.port()))
    }
}

impl fmt::Display for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(addr) => addr.fmt(f),
            Self::Onion(host, port) => write!(f, "{host}:{port}"),
            Self::I2p(host, port) => write!(f, "{host}:{port}"),
            Self::Dns(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Debug for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string())
    }
}

/// A lowercase host name that may go to a resolver: never one of Tor's or I2P's, valid or not.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DnsName(String);

impl DnsName {
    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = ParseError;

    fn from_str(host: &str) -> Result<Self, ParseError> {
        let host = host.to_ascii_lowercase();
        let label = |l: &str| {
            !l.is_empty()
                && l.len() <= 63
                && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        let top = top_label(&host);
        // A last label of digits would be an IPv4 literal that did not parse, such as 1.2.3.999.
        let is_numeric = top.bytes().all(|b| b.is_ascii_digit());
        let is_elsewhere = matches!(top, "onion" | "i2p");
        let is_name = host.len() <= HOST_LEN_MAX && host.split('.').all(label);
        (is_name && !is_numeric && !is_elsewhere).then_some(Self(host)).ok_or(ParseError::PeerAddr)
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The last label of a host, which says which network it belongs to.
fn top_label(host: &str) -> &str {
    host.rsplit('.').next().unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    fn parse(text: &str) -> Result<PeerAddr, ParseError> {
        text.parse()
    }

    #[test]
    fn addresses_parse_to_one_form() {
        let parse = |t: &str| parse(t).map(|a| a.to_string());
        assert_eq!(parse("127.0.0.1:80").as_deref(), Ok("127.0.0.1:80"));
        assert_eq!(parse("[::ffff:1.2.3.4]:80").as_deref(), Ok("1.2.3.4:80"));
        assert_eq!(parse("[::1]:9").as_deref(), Ok("[::1]:9"));
        assert_eq!(parse("LocalHost:9").as_deref(), Ok("localhost:9"));
        for bad in ["", ":1", "a", "a:", "a:70000", "a:+1", "1.2.3.999:1", "a b:1", "../x:1", "::1:80x"] {
            assert_eq!(parse(bad), Err(ParseError::PeerAddr), "{bad}");
        }
    }

    #[test]
    fn each_network_has_its_variant_in_either_case() {
        let onion = OnionAddr::from_public_key([7; 32]);
        let i2p = I2pAddr::from_hash([7; 32]);
        let name: DnsName = "a.example".parse().expect("a name");
        for addr in [
            PeerAddr::Ip(([9, 9, 9, 9], 1).into()),
            PeerAddr::Onion(onion, 2),
            PeerAddr::I2p(i2p, 3),
            PeerAddr::Dns(name, 4),
        ] {
            let text = addr.to_string();
            assert_eq!((parse(&text), parse(&text.to_uppercase())), (Ok(addr.clone()), Ok(addr.clone())));
            assert_eq!(addr.with_port(9).to_string(), text.replace(&format!(":{}", addr.port()), ":9"));
        }
    }

    #[test]
    fn a_name_of_tor_or_i2p_is_never_a_dns_name() {
        let onion = OnionAddr::from_public_key([7; 32]).to_string();
        for (host, error) in [
            ("onion", ParseError::OnionName),
            ("x.onion", ParseError::OnionName),
            (&onion[1..], ParseError::OnionName),
            (&format!("www.{onion}"), ParseError::OnionName),
            (&onion.replacen('d', "e", 1), ParseError::OnionChecksum),
            ("i2p", ParseError::I2pName),
            ("example.I2P", ParseError::I2pName),
            (&format!("{}.b32.i2p", "a".repeat(51)), ParseError::I2pName),
            (&format!("{onion}."), ParseError::PeerAddr),
            ("a.i2p.", ParseError::PeerAddr),
        ] {
            assert_eq!(parse(&format!("{host}:1")), Err(error), "{host}");
            assert!(host.parse::<DnsName>().is_err(), "{host}");
        }
        assert!("onion.example".parse::<DnsName>().is_ok() && "xonion".parse::<DnsName>().is_ok());
    }

    #[test]
    fn the_ports_of_a_host_lie_side_by_side() {
        let texts = [
            "9.9.9.9:1".to_string(),
            "[2a00::1]:1".to_string(),
            format!("{}:1", OnionAddr::from_public_key([7; 32])),
            format!("{}:1", I2pAddr::from_hash([7; 32])),
            "a.example:1".to_string(),
        ];
        let hosts: alloc::vec::Vec<_> = texts.iter().map(|t| parse(t).expect("valid")).collect();
        for host in &hosts {
            let ports = host.with_port(0)..=host.with_port(u16::MAX);
            for other in &hosts {
                assert_eq!(ports.contains(&other.with_port(500)), host == other, "{host} {other}");
            }
        }
    }

    #[test]
    fn only_reachable_literals_are_exchanged() {
        let ok = |t: &str| parse(t).is_ok_and(|a| a.is_exchangeable());
        let onion = OnionAddr::from_public_key([7; 32]);
        let i2p = I2pAddr::from_hash([7; 32]);
        assert!(ok("9.9.9.9:1") && ok("[2001:db8::1]:1"));
        assert!(ok(&format!("{onion}:1")) && ok(&format!("{i2p}:1")) && !ok(&format!("{onion}:0")));
        assert!(!ok("0.0.0.0:1") && !ok("224.0.0.1:1") && !ok("example.org:1") && !ok("9.9.9.9:0"));
    }

    #[test]
    fn an_address_is_public_if_it_means_the_same_everywhere() {
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "169.254.1.1",
            "172.16.0.1",
            "192.168.0.1",
            "::",
            "::1",
            "fd00::1",
            "fe80::1",
            "::ffff:10.0.0.1",
            "::ffff:100.64.0.1",
            "::ffff:0.0.0.0",
        ] {
            let ip = private.parse().expect("an address");
            assert!(!is_public(ip) && !PeerAddr::Ip(SocketAddr::new(ip, 1)).is_public(), "{private}");
        }
        for public in
            ["9.9.9.9", "100.63.255.255", "100.128.0.0", "172.32.0.1", "2001:db8::1", "::ffff:9.9.9.9"]
        {
            assert!(is_public(public.parse().expect("an address")), "{public}");
        }
        assert!(PeerAddr::Onion(OnionAddr::from_public_key([7; 32]), 1).is_public());
        assert!(parse("localhost:1").is_ok_and(|name| name.is_public()));
    }
}

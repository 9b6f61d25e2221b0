//! Where a peer can be reached: an IP socket address, or a name that only a proxy or a resolver can reach.

use alloc::string::{String, ToString};
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;

use crate::error::ParseError;

/// Longest host name that is accepted (RFC 1035 §2.3.4).
const HOST_LEN_MAX: usize = 253;

/// A peer's address. A connection's peer need not be an IP address (design §6).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerAddr {
    /// An IPv4 or IPv6 socket address.
    Ip(SocketAddr),
    /// A lowercase host name (DNS, `.onion`, `.b32.i2p`) and a port.
    Name(String, u16),
}

impl PeerAddr {
    /// The port.
    pub fn port(&self) -> u16 {
        match self {
            Self::Ip(addr) => addr.port(),
            Self::Name(_, port) => *port,
        }
    }

    /// Whether peers may be told of this address or believed about it: an IP literal that is neither unspecified
    /// nor multicast, an onion or an I2P name; never a DNS name, never port 0.
    pub fn is_exchangeable(&self) -> bool {
        self.port() != 0
            && match self {
                Self::Ip(addr) => {
                    let ip = addr.ip().to_canonical();
                    !ip.is_unspecified()
                        && !ip.is_multicast()
                        && !matches!(ip, IpAddr::V4(v4) if v4.is_broadcast())
                }
                Self::Name(host, _) => is_onion(host) || is_i2p(host),
            }
    }
}

impl FromStr for PeerAddr {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        if let Ok(addr) = text.parse::<SocketAddr>() {
            return Ok(Self::from(addr));
        }
        let (host, port) = text.rsplit_once(':').ok_or(ParseError::PeerAddr)?;
        let port = port.parse().map_err(|_| ParseError::PeerAddr)?;
        let host = host.to_ascii_lowercase();
        is_host_name(&host).then_some(Self::Name(host, port)).ok_or(ParseError::PeerAddr)
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
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

impl fmt::Debug for PeerAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_string())
    }
}

fn is_host_name(host: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    // A last label of digits would be an IPv4 literal that did not parse, such as 1.2.3.999.
    let numeric = host.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit()));
    host.len() <= HOST_LEN_MAX && !numeric && host.split('.').all(label)
}

fn is_base32(label: &str, len: usize) -> bool {
    label.len() == len && label.bytes().all(|b| b.is_ascii_lowercase() || (b'2'..=b'7').contains(&b))
}

fn is_onion(host: &str) -> bool {
    host.strip_suffix(".onion").is_some_and(|label| is_base32(label, 56))
}

fn is_i2p(host: &str) -> bool {
    host.strip_suffix(".b32.i2p").is_some_and(|label| is_base32(label, 52))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_parse_to_one_form() {
        let parse = |t: &str| t.parse::<PeerAddr>().map(|a| a.to_string());
        assert_eq!(parse("127.0.0.1:80").as_deref(), Ok("127.0.0.1:80"));
        assert_eq!(parse("[::ffff:1.2.3.4]:80").as_deref(), Ok("1.2.3.4:80"));
        assert_eq!(parse("[::1]:9").as_deref(), Ok("[::1]:9"));
        assert_eq!(parse("LocalHost:9").as_deref(), Ok("localhost:9"));
        for bad in ["", ":1", "a", "a:", "a:70000", "1.2.3.999:1", "a b:1", "../x:1", "::1:80x"] {
            assert_eq!(parse(bad), Err(ParseError::PeerAddr), "{bad}");
        }
    }

    #[test]
    fn only_reachable_literals_are_exchanged() {
        let ok = |t: &str| t.parse::<PeerAddr>().is_ok_and(|a| a.is_exchangeable());
        assert!(ok("9.9.9.9:1") && ok("[2001:db8::1]:1"));
        assert!(
            ok(&alloc::format!("{}.onion:1", "a".repeat(56)))
                && ok(&alloc::format!("{}.b32.i2p:1", "2".repeat(52)))
        );
        assert!(!ok("0.0.0.0:1") && !ok("224.0.0.1:1") && !ok("example.org:1") && !ok("9.9.9.9:0"));
    }
}

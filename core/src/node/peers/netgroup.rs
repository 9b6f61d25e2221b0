//! Whom addresses are taken to belong to, when room in the address book and connections are shared out: who has one
//! address of a network can easily have many more of it.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use core::ops::RangeInclusive;

use crate::addr::PeerAddr;

/// Addresses that one party may well hold all of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Netgroup {
    /// An IPv4 /16: a /24 is rented for little, addresses in many /16 are not.
    V4([u8; 2]),
    /// An IPv6 /32: what a provider gets; whoever asks gets a /48. A 6to4 prefix is its IPv4 /16.
    V6([u8; 4]),
    /// An address of this machine or of a private network. Swarms in a laboratory or a home live in one such network,
    /// and who can take addresses there is inside already, so it stands for itself only.
    Local(IpAddr),
    /// An onion, I2P or host name, with port 0. Names cost nothing, so they are counted by who told them.
    Name(PeerAddr),
}

impl Netgroup {
    pub(super) fn of(addr: &PeerAddr) -> Self {
        match addr {
            PeerAddr::Onion(..) | PeerAddr::I2p(..) | PeerAddr::Dns(..) => Self::Name(addr.with_port(0)),
            PeerAddr::Ip(socket) if !addr.is_public() => Self::Local(socket.ip()),
            PeerAddr::Ip(socket) => match socket.ip() {
                IpAddr::V4(ip) => {
                    let [a, b, ..] = ip.octets();
                    Self::V4([a, b])
                }
                IpAddr::V6(ip) => {
                    let [a, b, c, d, ..] = ip.octets();
                    Self::V6([a, b, c, d])
                }
            },
        }
    }

    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }

    /// Where its addresses lie in the order of addresses, from the first to the last.
    pub(super) fn range(&self) -> RangeInclusive<PeerAddr> {
        match self {
            Self::V4([a, b]) => {
                span(Ipv4Addr::new(*a, *b, 0, 0).into(), Ipv4Addr::new(*a, *b, 255, 255).into())
            }
            Self::V6(prefix) => {
                let filled = |fill: u8| {
                    let mut octets = [fill; 16];
                    octets[..4].copy_from_slice(prefix);
                    Ipv6Addr::from(octets)
                };
                span(filled(0).into(), filled(255).into())
            }
            Self::Local(ip) => span(*ip, *ip),
            Self::Name(name) => name.clone()..=name.with_port(u16::MAX),
        }
    }
}

/// The addresses of whoever has this one for certain, in the order of addresses: one IPv4 address, an IPv6 /64, one
/// name.
pub(crate) fn same_host(addr: &PeerAddr) -> RangeInclusive<PeerAddr> {
    match addr {
        PeerAddr::Ip(SocketAddr::V6(socket)) => {
            let filled = |fill: u8| {
                let mut octets = socket.ip().octets();
                octets[8..].fill(fill);
                Ipv6Addr::from(octets)
            };
            span(filled(0).into(), filled(255).into())
        }
        PeerAddr::Ip(socket) => span(socket.ip(), socket.ip()),
        PeerAddr::Onion(..) | PeerAddr::I2p(..) | PeerAddr::Dns(..) => Netgroup::of(addr).range(),
    }
}

fn span(first: IpAddr, last: IpAddr) -> RangeInclusive<PeerAddr> {
    PeerAddr::Ip(SocketAddr::new(first, 0))..=PeerAddr::Ip(SocketAddr::new(last, u16::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::{I2pAddr, OnionAddr};
    use alloc::string::{String, ToString};

    fn addr(text: &str) -> PeerAddr {
        text.parse().expect("valid")
    }

    /// Two hosts of each network that has names.
    fn names() -> [[String; 2]; 3] {
        [
            [1, 2].map(|n| OnionAddr::from_public_key([n; 32]).to_string()),
            [1, 2].map(|n| I2pAddr::from_hash([n; 32]).to_string()),
            ["a.example", "b.example"].map(String::from),
        ]
    }

    fn same(a: &str, b: &str) -> bool {
        let (a, b) = (addr(a), addr(b));
        let is_same = Netgroup::of(&a) == Netgroup::of(&b);
        assert_eq!(Netgroup::of(&a).range().contains(&b), is_same, "{a} and {b}");
        is_same
    }

    #[test]
    fn a_network_is_one_crowd_and_private_addresses_stand_for_themselves() {
        assert!(same("9.9.1.1:1", "9.9.255.255:65535") && !same("9.9.1.1:1", "9.10.1.1:1"));
        assert!(same("[2a00:1:2::1]:1", "[2a00:1:ffff::9]:2") && !same("[2a00:1::1]:1", "[2a00:2::1]:1"));
        assert!(same("[2002:909:1::1]:1", "[2002:909:2::1]:1"), "6to4 addresses of 9.9.0.0/16");
        for local in ["10.0.0.", "127.0.0.", "192.168.1.", "100.64.0.", "169.254.0."] {
            let at = |n: u8, port: u16| alloc::format!("{local}{n}:{port}");
            assert!(same(&at(1, 1), &at(1, 2)) && !same(&at(1, 1), &at(2, 1)));
            assert!(Netgroup::of(&addr(&at(1, 1))).is_local());
        }
        assert!(Netgroup::of(&addr("[fd00::1]:1")).is_local() && Netgroup::of(&addr("[::1]:1")).is_local());
        assert!(!same("a.example:1", "9.9.9.9:1"));
        for [one, other] in names() {
            let at = |host: &str, port: u16| alloc::format!("{host}:{port}");
            assert!(same(&at(&one, 1), &at(&one, 65535)) && !same(&at(&one, 1), &at(&other, 1)));
        }
    }

    #[test]
    fn a_host_has_all_its_ports_and_an_ipv6_host_its_64() {
        let same = |a: &str, b: &str| same_host(&addr(a)).contains(&addr(b));
        assert!(same("9.9.9.9:1", "9.9.9.9:65535") && !same("9.9.9.9:1", "9.9.9.10:1"));
        assert!(same("[2a00::1]:1", "[2a00::ffff:0:0:1]:2") && !same("[2a00::1]:1", "[2a00:0:0:1::1]:1"));
        for [one, other] in names() {
            let at = |host: &str, port: u16| alloc::format!("{host}:{port}");
            assert!(same(&at(&one, 1), &at(&one, 65535)) && !same(&at(&one, 1), &at(&other, 1)));
        }
    }
}

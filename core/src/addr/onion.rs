//! The address of a Tor onion service, version 3 (Tor's rend-spec-v3 §6; `docs/protocol.md` §7).

use core::fmt;
use core::str::FromStr;

use sha3::{Digest, Sha3_256};

use crate::base32;
use crate::error::ParseError;

/// The only version in use.
const VERSION: u8 = 3;

/// An onion service's address: its public key, which the name spells out with a checksum. Tor checks that the key is a
/// point of the curve when it connects.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OnionAddr([u8; 32]);

impl OnionAddr {
    /// The address of the service with this Ed25519 public key.
    pub const fn from_public_key(public_key: [u8; 32]) -> Self {
        Self(public_key)
    }

    /// The service's Ed25519 public key.
    pub const fn public_key(&self) -> &[u8; 32] {
        &self.0
    }

    fn checksum(&self) -> [u8; 2] {
        let hash = Sha3_256::new()
            .chain_update(".onion checksum")
            .chain_update(self.0)
            .chain_update([VERSION])
            .finalize();
        [hash[0], hash[1]]
    }
}

impl FromStr for OnionAddr {
    type Err = ParseError;

    fn from_str(host: &str) -> Result<Self, ParseError> {
        let host = host.to_ascii_lowercase();
        let label = host.strip_suffix(".onion").ok_or(ParseError::OnionName)?;
        let bytes: [u8; 35] = base32::decode_array(label).ok_or(ParseError::OnionName)?;
        let [public_key @ .., first, second, version] = bytes;
        let addr = Self(public_key);
        if version != VERSION {
            return Err(ParseError::OnionVersion);
        }
        if [first, second] != addr.checksum() {
            return Err(ParseError::OnionChecksum);
        }
        Ok(addr)
    }
}

impl fmt::Display for OnionAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [VERSION; 35];
        bytes[..32].copy_from_slice(&self.0);
        bytes[32..34].copy_from_slice(&self.checksum());
        write!(f, "{}.onion", base32::encode(&bytes))
    }
}

impl fmt::Debug for OnionAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    /// Examples of rend-spec-v3 §6.
    const NAMES: [&str; 3] = [
        "pg6mmjiyjmcrsslvykfwnntlaru7p5svn6y2ymmju6nubxndf4pscryd.onion",
        "sp3k262uwy4r2k3ycr5awluarykdpag6a7y33jxop4cs2lu5uz5sseqd.onion",
        "xa4r2iadxm55fbnqgwwi5mymqdcofiu3w6rpbtqn7b2dyn7mgwj64jyd.onion",
    ];

    #[test]
    fn names_are_verified_and_written_again() {
        for name in NAMES {
            let addr: OnionAddr = name.parse().expect("an example of the specification");
            assert_eq!(
                (addr.to_string().as_str(), OnionAddr::from_public_key(*addr.public_key())),
                (name, addr)
            );
        }
    }

    #[test]
    fn each_fault_has_its_own_error() {
        let spelled = |key: [u8; 32], checksum: [u8; 2], version| {
            let bytes = [&key[..], &checksum, &[version]].concat();
            alloc::format!("{}.onion", base32::encode(&bytes)).parse::<OnionAddr>()
        };
        let addr = OnionAddr::from_public_key([7; 32]);
        let [first, second] = addr.checksum();
        assert_eq!(spelled([7; 32], [first, second], 3), Ok(addr));
        assert_eq!(spelled([7; 32], [first, second ^ 1], 3), Err(ParseError::OnionChecksum));
        assert_eq!(spelled([8; 32], [first, second], 3), Err(ParseError::OnionChecksum));
        assert_eq!(spelled([7; 32], [first, second], 2), Err(ParseError::OnionVersion));
        for bad in
            ["onion", ".onion", "expyuzz4wqqyqhjn.onion", &NAMES[0][1..], &alloc::format!("www.{}", NAMES[0])]
        {
            assert_eq!(bad.parse::<OnionAddr>(), Err(ParseError::OnionName), "{bad}");
        }
    }
}

//! The address of an I2P destination (`docs/protocol.md` §7).

use core::fmt;
use core::str::FromStr;

use crate::base32;
use crate::error::ParseError;

/// An I2P destination, by its SHA-256. An address book's names mean something else on each machine and are no addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct I2pAddr([u8; 32]);

impl I2pAddr {
    /// The address of the destination with this SHA-256.
    pub const fn from_hash(hash: [u8; 32]) -> Self {
        Self(hash)
    }

    /// The destination's SHA-256.
    pub const fn hash(&self) -> &[u8; 32] {
        &self.0
    }
}

impl FromStr for I2pAddr {
    type Err = ParseError;

    fn from_str(host: &str) -> Result<Self, ParseError> {
        let host = host.to_ascii_lowercase();
        host.strip_suffix(".b32.i2p").and_then(base32::decode_array).map(Self).ok_or(ParseError::I2pName)
    }
}

impl fmt::Display for I2pAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.b32.i2p", base32::encode(&self.0))
    }
}

impl fmt::Debug for I2pAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_hash_has_one_name() {
        let addr = I2pAddr::from_hash([0x5a; 32]);
        let name = addr.to_string();
        assert_eq!((name.len(), name.parse()), (60, Ok(addr)));
        let label = name.strip_suffix(".b32.i2p").expect("it has it");
        // The last four of the 260 bits are zero: another last character would be another name of the same hash.
        for bad in [
            "i2p",
            "b32.i2p",
            "example.i2p",
            &alloc::format!("{label}.i2p"),
            &alloc::format!("{}.b32.i2p", &label[1..]),
            &alloc::format!("{label}a.b32.i2p"),
            &alloc::format!("{}b.b32.i2p", &label[..51]),
            &alloc::format!("a.{name}"),
        ] {
            assert_eq!(bad.parse::<I2pAddr>(), Err(ParseError::I2pName), "{bad}");
        }
    }
}

//! Error families: why a text does not parse ([`ParseError`]), which rule a peer broke ([`Violation`]), why a connection
//! ended ([`CloseReason`]).
//!
//! A bug of our own is an `assert!`; peer bytes never reach one.

use core::fmt;

/// Why a text from outside does not parse. Never repeats a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseError {
    /// Not 64 hex digits.
    BlobId,
    /// Not 64 hex digits (the text is not shown: it may be most of a key).
    Secret,
    /// Not 64 hex digits, or not a usable Ed25519 point.
    PublicKey,
    /// Not `host:port`, or a host that is neither an IP literal, a host name, an onion service nor an I2P destination.
    PeerAddr,
    /// A host under `.onion` whose label is not 56 characters of base 32, or that has more labels.
    OnionName,
    /// An onion address of another version than 3.
    OnionVersion,
    /// An onion address whose checksum is not its key's.
    OnionChecksum,
    /// A host under `.i2p` that is not a hash of 32 bytes in base 32, in its one form.
    I2pName,
    /// Not `megatorrent://PUBLICKEY[:READKEY][?bootstrap=HOST:PORT&…]`; a bootstrap peer may have its own error.
    Uri(&'static str),
    /// Not an identity file.
    Identity(&'static str),
    /// A path that is absolute, leaves the folder, is too long or has control characters.
    Path(&'static str),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BlobId => f.write_str("a blob id is 64 hex digits"),
            Self::Secret => f.write_str("a secret key is 64 hex digits"),
            Self::PublicKey => f.write_str("a public key is 64 hex digits that name an Ed25519 point"),
            Self::PeerAddr => f.write_str(
                "a peer is HOST:PORT with an IP address, a host name, an onion v3 or a b32.i2p name",
            ),
            Self::OnionName => f.write_str(
                "an onion address is 56 letters and digits from 2 to 7, then .onion: this one was cut, has a subdomain or \
                 is of an old version",
            ),
            Self::OnionVersion => f.write_str("the onion address is of another version than 3: it was mistyped"),
            Self::OnionChecksum => f.write_str("the onion address has a wrong checksum: it was mistyped"),
            Self::I2pName => f.write_str(
                "an I2P address is 52 letters and digits from 2 to 7, then .b32.i2p: this one was mistyped or cut, or is a \
                 name from an address book",
            ),
            Self::Uri(why) => write!(
                f,
                "a channel's address is megatorrent://PUBLICKEY[:READKEY][?bootstrap=HOST:PORT]: {why}"
            ),
            Self::Identity(why) => write!(f, "not an identity file: {why}"),
            Self::Path(why) => write!(f, "a file's path in a channel {why}"),
        }
    }
}

impl core::error::Error for ParseError {}

/// A rule of the protocol that the peer broke: the connection ends, and nothing that it sent afterwards counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Violation {
    /// The X25519 result was all zero (spec v5, Handshake).
    LowOrderKey,
    /// The length field is below a tag's 16 bytes.
    FrameShort,
    /// The length field is above what the connection's state admits.
    FrameLong,
    /// A frame's tag does not match.
    Tag,
    /// A message that does not parse.
    Malformed,
    /// HELLO with a version below 5.
    Version,
    /// DATA, PARTS or a PIECE that we did not ask for, or out of order.
    UnaskedData,
    /// More DATA than a blob holds.
    DataLong,
    /// An answer (PEERS, OK) to no question of ours.
    Unasked,
    /// More than [`crate::limits::UNASKED_BYTES_PER_MINUTE`] of unsolicited messages that say nothing unseen.
    Flood,
    /// More than [`crate::limits::WANTS_MAX`] WANTs open at once.
    TooManyWants,
    /// A WANT under the number of another open one (`docs/protocol.md` §12).
    WantRepeated,
    /// A part that its value does not check, values that do not give the root asked for, or a v5 blob of another id.
    WrongBlob,
    /// A head of another channel, or one whose signature does not verify.
    ForgedHead,
}

impl Violation {
    /// Returns the text of the ERROR that tells the peer before the connection ends; `None`: it ends at once.
    pub fn wire_text(self) -> Option<&'static str> {
        match self {
            Self::Version => Some("Protocol Version Mismatch"),
            Self::Malformed => Some("Malformed Message"),
            _ => None,
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LowOrderKey => "sent a low-order X25519 key",
            Self::FrameShort => "sent a frame shorter than its tag",
            Self::FrameLong => "sent a frame longer than its state admits",
            Self::Tag => "sent a frame that does not open",
            Self::Malformed => "sent a message that does not parse",
            Self::Version => "speaks a version below 5",
            Self::UnaskedData => "sent bytes of a blob that were not asked for",
            Self::DataLong => "sent more than a blob",
            Self::Unasked => "answered a question that was not asked",
            Self::Flood => "sent too many unsolicited messages",
            Self::TooManyWants => "had too many WANTs open",
            Self::WantRepeated => "had two WANTs open under one number",
            Self::WrongBlob => "served a wrong blob",
            Self::ForgedHead => "passed on a forged head",
        })
    }
}

/// Why a connection ended, for events and logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer closed the stream or the socket failed.
    Remote,
    /// The peer broke a rule.
    Violation(Violation),
    /// The handshake took longer than [`crate::limits::HANDSHAKE_TIMEOUT`].
    HandshakeTimeout,
    /// Nothing moved for [`crate::limits::IDLE_TIMEOUT`].
    Idle,
    /// The peer did not deliver in time.
    Stalled,
    /// It made room for a newer connection.
    Evicted,
    /// Another connection with the same peer is kept.
    Duplicate,
    /// The peer is banned.
    Banned,
    /// The settings do not allow such a peer any more.
    Disallowed,
    /// The node is shutting down.
    Shutdown,
}

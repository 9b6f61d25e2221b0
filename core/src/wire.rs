//! The plain numbers of the wire. A leaf: it imports nothing, and the modules that document a number's meaning
//! re-export it.

/// Bytes of an ephemeral X25519 public key (`docs/protocol.md` §8).
pub const KEY_LEN: usize = 32;
/// Bytes of the length field in front of each frame (§9).
pub const HEADER_LEN: usize = 4;
/// Bytes of a frame's authentication tag (§9).
pub const TAG_LEN: usize = 16;
/// Bytes of number, part and half in front of a PIECE's content (§12).
pub const PIECE_HEADER_LEN: usize = 6;

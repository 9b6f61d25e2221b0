//! Lowercase hexadecimal at the edges of the protocol, by way of `base16ct`, which does not branch on secrets.

use alloc::string::String;
use alloc::vec::Vec;

/// `bytes` as lowercase hex.
pub(crate) fn encode(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

/// Exactly `N` bytes from `2·N` hex digits of either case; `None` for anything else.
pub(crate) fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let read = base16ct::mixed::decode(text, &mut out).ok()?.len();
    (read == N).then_some(out)
}

/// Bytes from hex digits of either case; `None` for an odd number of digits or a foreign character.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    base16ct::mixed::decode_vec(text).ok()
}

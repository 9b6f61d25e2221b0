//! Base64url without padding (RFC 4648 §5), by way of `base64ct`, which does not branch on secrets.

use alloc::string::String;

use base64ct::{Base64UrlUnpadded, Encoding};

/// `bytes` as base64url.
pub(crate) fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

/// Exactly `N` bytes from their only text; `None` for anything else.
pub(crate) fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let read = Base64UrlUnpadded::decode(text, &mut out).ok()?.len();
    (read == N).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_text() {
        assert_eq!(encode(&[0xfb, 0xff]), "-_8");
        assert_eq!(decode_array("-_8"), Some([0xfb, 0xff]));
        for bad in ["-_9", "+/8", "-_8=", "-_", "-_8A", " -_8", ""] {
            assert_eq!(decode_array::<2>(bad), None, "{bad}");
        }
    }
}

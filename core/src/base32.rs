//! Lowercase base 32 without padding (RFC 4648 §6), as onion and I2P addresses are written.

use alloc::string::String;

use base32ct::{Base32Unpadded, Encoding};

/// `bytes` in base 32.
pub(crate) fn encode(bytes: &[u8]) -> String {
    Base32Unpadded::encode_string(bytes)
}

/// Exactly `N` bytes from the one text that [`encode`] gives for them; `None` for anything else.
pub(crate) fn decode_array<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut out = [0; N];
    let read = Base32Unpadded::decode(text, &mut out).ok()?.len();
    // The library ignores the bits that a last character has too many.
    (read == N && encode(&out) == text).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_one_text() {
        // RFC 4648 §10, in lowercase.
        assert_eq!((encode(b"foob"), encode(b"fooba")), ("mzxw6yq".into(), "mzxw6ytb".into()));
        assert_eq!((decode_array("mzxw6yq"), decode_array("mzxw6ytb")), (Some(*b"foob"), Some(*b"fooba")));
        for bad in
            ["", "mzxw6y", "mzxw6yr", "mzxw6yqa", "mzxw6ytb", "MZXW6YQ", "mzxw6y1", "mzxw6yq=", "mzxw6 q"]
        {
            assert_eq!(decode_array::<4>(bad), None, "{bad}");
        }
    }

    #[test]
    fn any_text_is_read_or_refused() {
        for len in 0..=80 {
            for c in ['a', '7', '=', '\u{0}', 'ä'] {
                let text: String = core::iter::repeat_n(c, len).collect();
                let read = decode_array::<32>(&text);
                assert_eq!(read.is_some(), len == 52 && c == 'a', "{len} of {c}");
            }
        }
    }
}

//! Vectors' values: hex, descriptions of long byte strings, and digests of long outputs.

use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit, StreamCipher};
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};
use megatorrent_core::blob::{self, BLOB_LEN};
use megatorrent_core::ids::Secret;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// Outputs longer than this stand in the vectors as a digest.
const SPELLED_OUT_MAX: usize = 2048;
/// The greatest integer up to which every reader of JSON reads integers exactly; greater ones are written as strings.
const EXACT_MAX: u64 = 1 << 53;

/// Why a case has no output.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The protocol refuses the input; the class.
    Reject(&'static str),
    /// The case itself is wrong.
    BadVector(String),
}

/// A case's arguments.
#[derive(Clone, Copy)]
pub(crate) struct Input<'a>(&'a Value);

impl<'a> Input<'a> {
    pub(crate) const fn new(value: &'a Value) -> Self {
        Self(value)
    }

    fn member(self, name: &str) -> Result<&'a Value, Fault> {
        self.0.get(name).ok_or_else(|| bad(name, "is missing"))
    }

    /// The JSON itself.
    pub(crate) const fn value(self) -> &'a Value {
        self.0
    }

    /// A member that may be absent or null.
    pub(crate) fn optional(self, name: &str) -> Option<Self> {
        self.0.get(name).filter(|value| !value.is_null()).map(Input)
    }

    /// A nested object.
    pub(crate) fn object(self, name: &str) -> Result<Self, Fault> {
        self.member(name).map(Input)
    }

    pub(crate) fn text(self, name: &str) -> Result<&'a str, Fault> {
        self.member(name)?.as_str().ok_or_else(|| bad(name, "is no text"))
    }

    /// A natural number, or a string of its digits.
    pub(crate) fn number(self, name: &str) -> Result<u64, Fault> {
        let value = self.member(name)?;
        let number = value.as_u64().or_else(|| value.as_str()?.parse().ok());
        number.ok_or_else(|| bad(name, "is no natural number"))
    }

    /// An integer of 64 bits with its sign, or a string of its digits.
    pub(crate) fn integer(self, name: &str) -> Result<i64, Fault> {
        let value = self.member(name)?;
        let number = value.as_i64().or_else(|| value.as_str()?.parse().ok());
        number.ok_or_else(|| bad(name, "is no integer of 64 bits"))
    }

    pub(crate) fn flag(self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(crate) fn list(self, name: &str) -> Result<Vec<Self>, Fault> {
        let list = self.member(name)?.as_array().ok_or_else(|| bad(name, "is no list"))?;
        Ok(list.iter().map(Input).collect())
    }

    /// The member's bytes.
    pub(crate) fn bytes(self, name: &str) -> Result<Vec<u8>, Fault> {
        Input(self.member(name)?).as_bytes()
    }

    /// The member's bytes, exactly `N`.
    pub(crate) fn array<const N: usize>(self, name: &str) -> Result<[u8; N], Fault> {
        self.bytes(name)?.try_into().map_err(|_| bad(name, "has another length"))
    }

    /// This value's bytes: hex, or one of the descriptions in `conformance/README.md`.
    pub(crate) fn as_bytes(self) -> Result<Vec<u8>, Fault> {
        if let Some(text) = self.0.as_str() {
            return base16ct::lower::decode_vec(text).map_err(|_| bad(text, "is no lowercase hex"));
        }
        if self.0.get("repeat").is_some() {
            let (pattern, length) = (self.bytes("repeat")?, self.number("length")?);
            let length = usize::try_from(length).map_err(|_| bad("length", "is too large"))?;
            return Ok(pattern.into_iter().cycle().take(length).collect());
        }
        if let Some(sealed) = self.optional("chacha20poly1305") {
            let (key, nonce) = (sealed.array::<32>("key")?, sealed.array::<12>("nonce")?);
            let cipher = ChaCha20Poly1305::new(&key.into());
            let sealed = cipher.encrypt(&Nonce::from(nonce), sealed.bytes("plain")?.as_slice());
            return sealed.map_err(|_| bad("plain", "cannot be sealed"));
        }
        if let Some(stream) = self.optional("keystream") {
            let (key, nonce) = (stream.array::<32>("key")?, stream.array::<12>("nonce")?);
            let mut bytes = vec![0; size(stream, "length")?];
            ChaCha20::new(&key.into(), &nonce.into()).apply_keystream(&mut bytes);
            return Ok(bytes);
        }
        if let Some(native) = self.optional("native") {
            let mut blob = native.bytes("content")?;
            let length = blob.len();
            blob.resize(BLOB_LEN, 0);
            blob::seal_with_key(&Secret::new(native.array("key")?), &mut blob, length);
            return Ok(blob);
        }
        if self.0.get("counter").is_some() {
            let count = size(self, "counter")?;
            return Ok((0..count).map(|n| n.to_le_bytes()[0]).collect());
        }
        if self.0.get("cut").is_some() {
            let (bytes, at) = (self.bytes("cut")?, size(self, "at")?);
            let cut = bytes.get(at..at + size(self, "length")?);
            return cut.map(<[u8]>::to_vec).ok_or_else(|| bad("cut", "leaves what it is cut from"));
        }
        if self.0.get("with").is_some() {
            let (mut bytes, with) = (self.bytes("patch")?, self.bytes("with")?);
            let at = usize::try_from(self.number("at")?).map_err(|_| bad("at", "is too large"))?;
            let room =
                bytes.get_mut(at..at + with.len()).ok_or_else(|| bad("with", "leaves what it patches"))?;
            room.copy_from_slice(&with);
            return Ok(bytes);
        }
        Err(bad(&self.0.to_string(), "describes no bytes"))
    }
}

/// A number of bytes.
fn size(input: Input<'_>, name: &str) -> Result<usize, Fault> {
    usize::try_from(input.number(name)?).map_err(|_| bad(name, "is too large"))
}

fn bad(what: &str, why: &str) -> Fault {
    Fault::BadVector(format!("{what} {why}"))
}

/// An operation that the layer does not have.
pub(crate) fn no_such_op(op: &str) -> Fault {
    bad(op, "is no operation of this layer")
}

/// An integer as it stands in the vectors: a string of its digits where `JSON.parse` would round it.
pub(crate) fn integer(number: impl Into<i128>) -> Value {
    let number = number.into();
    match i64::try_from(number) {
        Ok(exact) if exact.unsigned_abs() <= EXACT_MAX => exact.into(),
        _ => number.to_string().into(),
    }
}

/// Lowercase hex.
pub(crate) fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

/// Hex where it is short, otherwise length, SHA-256, and 32 bytes of either end.
pub(crate) fn digest(bytes: &[u8]) -> Value {
    if bytes.len() <= SPELLED_OUT_MAX {
        return hex(bytes).into();
    }
    json!({
        "length": bytes.len(),
        "sha256": hex(&Sha256::digest(bytes)),
        "head": hex(&bytes[..32]),
        "tail": hex(&bytes[bytes.len() - 32..]),
    })
}

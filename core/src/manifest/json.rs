//! JSON as a signature covers it: members in the document's order, numbers and texts as JavaScript's `JSON.stringify`
//! writes them, because v5 signs that (`docs/protocol.md` §6).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::hex;
use crate::limits::JSON_DEPTH_MAX;

/// A JSON value whose objects keep their members' order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// An integer from 0 to 2^64 − 1.
    Uint(u64),
    /// Any other number.
    Float(f64),
    Text(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Json {
    /// Parses a whole text; `None` where it is not JSON, repeats a member or nests deeper than [`JSON_DEPTH_MAX`].
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        // Serde's reader has its own depth limit (128), so hostile nesting cannot exhaust the stack.
        let mut reader = serde_json::Deserializer::from_slice(text);
        let value = Seed { depth_left: JSON_DEPTH_MAX }.deserialize(&mut reader).ok()?;
        reader.end().ok()?;
        Some(value)
    }

    /// Makes an object of the members that are present.
    pub(super) fn object<const N: usize>(members: [(&str, Option<Self>); N]) -> Self {
        let present = members.into_iter().filter_map(|(name, value)| Some((name.to_string(), value?)));
        Self::Object(present.collect())
    }

    /// Makes a text of lowercase hex.
    pub(super) fn hex(bytes: &[u8]) -> Self {
        Self::Text(hex::encode(bytes))
    }

    /// Returns an object's member.
    pub(super) fn get(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => members.iter().find(|(n, _)| n == name).map(|(_, value)| value),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Uint(number) => Some(*number),
            _ => None,
        }
    }

    pub(super) fn as_array(&self) -> Option<&[Self]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// Returns exactly `N` bytes from hex.
    pub(super) fn as_bytes<const N: usize>(&self) -> Option<[u8; N]> {
        hex::decode_array(self.as_text()?)
    }

    /// Orders the members of all objects by name, by UTF-16 code units as JavaScript's sort does.
    pub(super) fn sort(&mut self) {
        match self {
            Self::Array(items) => items.iter_mut().for_each(Self::sort),
            Self::Object(members) => {
                members.sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
                for (_, value) in members {
                    value.sort();
                }
            }
            _ => {}
        }
    }

    /// The compact text.
    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Uint(number) => out.push_str(&number.to_string()),
            Self::Float(number) => out.push_str(&float_text(*number)),
            Self::Text(text) => write_text(text, out),
            Self::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (i, (name, value)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    write_text(name, out);
                    out.push(':');
                    value.write(out);
                }
                out.push('}');
            }
        }
    }
}

/// ECMA-262, QuoteJSONString.
fn write_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{8}' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\u{c}' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            '\0'..='\u{1f}' => {
                out.push_str("\\u");
                out.push_str(&hex::encode(&u32::from(c).to_be_bytes()[2..]));
            }
            _ => out.push(c),
        }
    }
    out.push('"');
}

/// ECMA-262, Number::toString in base 10: the shortest digits that parse to the same number, with an exponent only from
/// 10^21 on and below 10^−6.
fn float_text(number: f64) -> String {
    if number == 0.0 {
        return "0".to_string(); // also −0
    }
    // Serde's writer finds the same digits (of two equally near it takes the even one, unlike `{:e}`), but lays them out
    // differently: [-]whole[.part][e[-]exponent].
    let shortest = serde_json::to_string(&number.abs()).unwrap_or_default();
    let (mantissa, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
    let (whole, part) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = [whole, part].concat();
    let leading = all.len() - all.trim_start_matches('0').len();
    let digits = all.trim_matches('0');
    // Where the decimal point stands, counted from the first digit; a double's exponents fit easily.
    let place = |len: usize| i32::try_from(len).unwrap_or(i32::MAX);
    let point = place(whole.len()) - place(leading) + exponent.parse::<i32>().unwrap_or_default();
    let count = place(digits.len());
    let zeros = |n: i32| "0".repeat(usize::try_from(n).unwrap_or_default());
    let sign = if number < 0.0 { "-" } else { "" };
    if count <= point && point <= 21 {
        format!("{sign}{digits}{}", zeros(point - count))
    } else if 0 < point && point <= 21 {
        let (whole, part) = digits.split_at(usize::try_from(point).unwrap_or_default());
        format!("{sign}{whole}.{part}")
    } else if -6 < point && point <= 0 {
        format!("{sign}0.{}{digits}", zeros(-point))
    } else {
        let (first, more) = digits.split_at(1);
        let dot = if more.is_empty() { "" } else { "." };
        format!("{sign}{first}{dot}{more}e{:+}", point - 1)
    }
}

/// Deserializes one value with at most `depth_left` levels below it.
#[derive(Clone, Copy)]
struct Seed {
    depth_left: usize,
}

impl Seed {
    fn below<E: de::Error>(self) -> Result<Self, E> {
        let depth_left = self.depth_left.checked_sub(1).ok_or_else(|| E::custom("nested too deep"))?;
        Ok(Self { depth_left })
    }
}

impl<'de> DeserializeSeed<'de> for Seed {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Json, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Uint(value))
    }

    #[expect(clippy::cast_precision_loss, reason = "JavaScript too keeps negative integers as doubles")]
    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(u64::try_from(value).map_or(Json::Float(value as f64), Json::Uint))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Float(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.to_string()))
    }

    fn visit_string<E>(self, value: String) -> Result<Json, E> {
        Ok(Json::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(below)? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
        let below = self.below()?;
        let mut members: Vec<(String, Json)> = Vec::new();
        let mut names = alloc::collections::BTreeSet::new();
        while let Some(name) = map.next_key::<String>()? {
            if !names.insert(name.clone()) {
                return Err(de::Error::custom("a member is repeated"));
            }
            members.push((name, map.next_value_seed(below)?));
        }
        Ok(Json::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(json: &str) -> Option<String> {
        Json::parse(json.as_bytes()).map(|value| value.to_text())
    }

    #[test]
    fn numbers_are_written_as_javascript_writes_them() {
        for (read, written) in [
            ("0", "0"),
            ("-0", "0"),
            ("-0.0", "0"),
            ("1.0", "1"),
            ("-12", "-12"),
            ("9007199254740993", "9007199254740993"),
            ("18446744073709551615", "18446744073709551615"),
            ("123456789012345680000", "123456789012345680000"),
            ("1e20", "100000000000000000000"),
            ("1e21", "1e+21"),
            ("1.5e300", "1.5e+300"),
            ("0.1", "0.1"),
            ("-123.456", "-123.456"),
            ("1752632500695037.25", "1752632500695037.2"),
            ("1234567890.0e-1", "123456789"),
            ("0.000001", "0.000001"),
            ("0.00000123", "0.00000123"),
            ("1.23e-7", "1.23e-7"),
            ("5e-324", "5e-324"),
            ("1.7976931348623157e308", "1.7976931348623157e+308"),
        ] {
            assert_eq!(text(read).as_deref(), Some(written), "{read}");
        }
        assert_eq!(text("1e400"), None);
    }

    #[test]
    fn texts_are_escaped_as_javascript_escapes_them() {
        let read = r#""\u0000\b\t\n\u000b\f\r\u001f\"\\\/\u007f\u2028é\ud83d\ude00""#;
        let written = "\"\\u0000\\b\\t\\n\\u000b\\f\\r\\u001f\\\"\\\\/\u{7f}\u{2028}é😀\"";
        assert_eq!(text(read).as_deref(), Some(written));
        assert_eq!(text(r#""\ud83d""#), None, "half a surrogate pair is not a text");
    }

    #[test]
    fn order_is_kept_until_sorted_by_utf_16() {
        // U+FF61 sorts before U+1F600 by code point and after it by UTF-16 code unit.
        let given = "{\"｡\":1,\"b\":[{\"z\":1,\"a\":2}],\"😀\":2,\"a\":{}}";
        let mut value = Json::parse(given.as_bytes()).expect("good JSON");
        assert_eq!(value.to_text(), given);
        value.sort();
        assert_eq!(value.to_text(), "{\"a\":{},\"b\":[{\"a\":2,\"z\":1}],\"😀\":2,\"｡\":1}");
    }

    #[test]
    fn ambiguous_or_deep_texts_are_refused() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(text(&nested(JSON_DEPTH_MAX)).is_some());
        assert_eq!(text(&nested(JSON_DEPTH_MAX + 1)), None);
        for bad in [
            "",
            "{}x",
            "{\"a\":1,\"a\":2}",
            "[{\"a\":{\"b\":1,\"b\":1}}]",
            "{\"a\":1,\"\\u0061\":2}",
            "nul",
            "\u{feff}{}",
            &"[".repeat(100_000),
            &"{\"a\":".repeat(100_000),
            &nested(100_000),
        ] {
            assert_eq!(text(bad), None, "{bad:.20}");
        }
    }

    fn any_json() -> impl Strategy<Value = Json> {
        let leaf = prop_oneof![
            Just(Json::Null),
            any::<bool>().prop_map(Json::Bool),
            any::<u64>().prop_map(Json::Uint),
            (i64::MIN..0).prop_map(|n| Json::parse(n.to_string().as_bytes()).expect("a number")),
            any::<f64>().prop_map(|n| Json::parse(format!("{n:e}").as_bytes()).unwrap_or(Json::Null)),
            any::<String>().prop_map(Json::Text),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            let members = proptest::collection::btree_map(any::<String>(), inner.clone(), 0..6);
            prop_oneof![
                proptest::collection::vec(inner, 0..6).prop_map(Json::Array),
                members
                    .prop_map(|map| map.into_iter().collect::<Vec<_>>())
                    .prop_shuffle()
                    .prop_map(Json::Object),
            ]
        })
    }

    proptest! {
        #[test]
        fn writing_then_reading_changes_nothing(value in any_json()) {
            let written = value.to_text();
            let read = Json::parse(written.as_bytes()).expect("our own writing is JSON");
            prop_assert_eq!(read.to_text(), written);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Json::parse(&bytes);
        }
    }
}

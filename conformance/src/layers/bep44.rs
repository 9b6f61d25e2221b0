//! BEP 44 mutable items: the signed bytes, and which items are accepted.

use megatorrent_core::bep44::{SignedItem, signable};
use megatorrent_core::limits::ITEM_VALUE_LEN_MAX;
use serde_json::{Value, json};

use super::{Cases, Fault, Input, Layer, author, channel, hex, identity_of, public_key, repeat, seed};
use crate::value::{digest, integer, no_such_op};

pub(super) const LAYER: Layer = Layer {
    name: "bep44",
    about: "sign: seed, seq, value -> the bytes that are signed and the signature; refused (too-large) where the value does \
            not fit. verify: public_key, seq, value, signature -> true or false: whether the item is taken.",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    let seq = input.integer("seq")?;
    let value = input.bytes("value")?;
    match op {
        "sign" => {
            let covered = signable(seq, &value);
            let item =
                SignedItem::sign(&identity_of(input)?, seq, value).ok_or(Fault::Reject("too-large"))?;
            Ok(json!({ "covered": digest(&covered), "signature": hex(&item.signature) }))
        }
        "verify" => {
            let key = public_key(input, "public_key")?;
            Ok(SignedItem { key, seq, value, signature: input.array("signature")? }.verify().into())
        }
        _ => Err(no_such_op(op)),
    }
}

fn cases(cases: &mut Cases) {
    cases.section(6);
    let sign = |seq: i64, value: Value| json!({ "seed": seed(), "seq": integer(seq), "value": value });
    cases.accept("BEP 44's text", "sign", sign(1, hex(b"Hello World!").into()));
    cases.accept("an empty value under sequence 0", "sign", sign(0, "".into()));
    cases.accept("milliseconds as sequence", "sign", sign(1_700_000_000_000, hex(b"{}").into()));
    cases.accept("the largest sequence", "sign", sign(i64::MAX, hex(b"{}").into()));
    cases.accept("the longest value", "sign", sign(2, repeat("7b7d", ITEM_VALUE_LEN_MAX)));
    cases.reject("a byte too long", "sign", sign(2, repeat("7b7d", ITEM_VALUE_LEN_MAX + 1)), "too-large");
    let good = author().sign(&signable(5, b"value"));
    let verify = |seq: i64, value: Value, signature: &[u8; 64]| json!({ "public_key": channel(), "seq": integer(seq), "value": value, "signature": hex(signature) });
    let value = || Value::from(hex(b"value"));
    cases.accept("a good item", "verify", verify(5, value(), &good));
    cases.accept("another sequence", "verify", verify(6, value(), &good));
    cases.accept("another value", "verify", verify(5, hex(b"valuf").into(), &good));
    cases.accept("a signature over the value alone", "verify", verify(5, value(), &author().sign(b"value")));
    let negative = author().sign(&signable(-5, b"value"));
    cases.accept("a good signature over a negative sequence", "verify", verify(-5, value(), &negative));
    let long = vec![b'x'; ITEM_VALUE_LEN_MAX + 1];
    let signed = author().sign(&signable(5, &long));
    cases.accept(
        "a good signature over a value that is too long",
        "verify",
        verify(5, repeat("78", long.len()), &signed),
    );
}

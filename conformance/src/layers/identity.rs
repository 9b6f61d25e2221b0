//! Ed25519 keys and signatures, and the identity file.

use megatorrent_core::identity::Identity;
use serde_json::{Value, json};

use super::{Cases, Fault, Input, Layer, author, hex, identity_of, parse_error, public_key, secret, seed};
use crate::value::no_such_op;

pub(super) const LAYER: Layer = Layer {
    name: "identity",
    about: "sign: seed, message -> public key, signature. verify: public_key, message, signature -> true or false; a key \
            that no channel can have is refused (public-key). file: text -> public key, read key. content-secret: seed -> \
            the secret under which the channel's blobs get their keys (BLAKE3).",
    cases,
    run,
};

fn run(op: &str, input: Input<'_>) -> Result<Value, Fault> {
    match op {
        "sign" => {
            let identity = identity_of(input)?;
            let signature = identity.sign(&input.bytes("message")?);
            Ok(json!({ "public_key": identity.public_key().to_string(), "signature": hex(&signature) }))
        }
        "verify" => {
            let good = public_key(input, "public_key")?
                .verifies(&input.bytes("message")?, &input.array("signature")?);
            Ok(good.into())
        }
        "file" => {
            let identity = Identity::from_json(input.text("text")?).map_err(parse_error)?;
            let read_key = identity.read_key().map(|key| hex(key.expose()));
            Ok(json!({ "public_key": identity.public_key().to_string(), "read_key": read_key }))
        }
        "content-secret" => {
            Ok(hex(Identity::new(&secret(input, "seed")?, None).content_secret().expose()).into())
        }
        _ => Err(no_such_op(op)),
    }
}

/// RFC 8032 §7.1, tests 1 to 3: seed and message.
const RFC_8032: [(&str, &str); 3] = [
    ("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", ""),
    ("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", "72"),
    ("c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7", "af82"),
];

/// Signatures of "abc" by [`author`] that hold by a laxer rule than the protocol's. In each, S = r + H(R ‖ A ‖ M)·a with the
/// author's scalar a.
const LAX: [(&str, &str, &str); 5] = [
    (
        // r = 0: S·B = R + H·A holds.
        "R is the neutral element",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "7ff25e229991f5bda4584a0479d823350068b8e738dd85a2f18d136eec691405",
    ),
    (
        // The same with y = p + 1, which is no canonical encoding of y = 1.
        "R is the neutral element, not in its canonical encoding",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "d7268e7047d59aa1861952e61b5ef95dad7501bde84daf4ae97fd0422c435902",
    ),
    (
        // The same with the sign of x = 0 set.
        "R is the neutral element with a sign",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "8e48a0121cad9d753c00dcdc6b6d6a1f8076e3b73266a1c2039f9063eef13b0b",
    ),
    (
        // r = 0: only 8·S·B = 8·R + 8·H·A holds.
        "R is of order 8",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "6fa9cadb61f6f42f7aa1be22aecbe96f86e08194d2f9cdff9771a5a48d4d5000",
    ),
    (
        // R = 5·B + T with T of order 8, r = 5: again only with the cofactor.
        "the equation holds with the cofactor only",
        "d0424b701d60255de5df705071059ccd22b8349bb4138202ebbd65e9e0ad211b",
        "bd37a4a3fb734de7a15f3decf797d1518180e84c777a557020309a9a45a6620f",
    ),
];

/// The order of Ed25519's prime group, little-endian (RFC 8032 §5.1).
const GROUP_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];

fn cases(cases: &mut Cases) {
    cases.section(1);
    for (index, (seed, message)) in RFC_8032.iter().enumerate() {
        let name = format!("RFC 8032 test {}", index + 1);
        cases.accept(name, "sign", json!({ "seed": seed, "message": message }));
    }
    verify_cases(cases);
    file_cases(cases);
    cases.accept("content secret", "content-secret", json!({ "seed": seed() }));
}

fn verify_cases(cases: &mut Cases) {
    let author = author();
    let signature = author.sign(b"abc");
    let case = |message: &[u8], signature: &[u8]| json!({ "public_key": author.public_key().to_string(), "message": hex(message), "signature": hex(signature) });
    cases.accept("good signature", "verify", case(b"abc", &signature));
    cases.accept("other message", "verify", case(b"abd", &signature));
    let mut flipped = signature;
    flipped[0] ^= 1;
    cases.accept("flipped bit", "verify", case(b"abc", &flipped));
    cases.accept("signature with S + L (malleable)", "verify", case(b"abc", &plus_group_order(signature)));
    for (name, r, s) in LAX {
        let mut input = case(b"abc", &signature);
        input["signature"] = format!("{r}{s}").into();
        cases.accept(format!("signature where {name}"), "verify", input);
    }
    let keys = [
        ("the neutral element as key", "0100000000000000000000000000000000000000000000000000000000000000"),
        ("a key of order 2", "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        ("a key of order 4", "0000000000000000000000000000000000000000000000000000000000000000"),
        ("a key of order 8", "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
        ("a non-canonical key", "efffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        ("no point", "0200000000000000000000000000000000000000000000000000000000000000"),
    ];
    for (name, key) in keys {
        let input = json!({ "public_key": key, "message": "", "signature": "00".repeat(64) });
        cases.reject(name, "verify", input, "public-key");
    }
}

/// The same signature with the group's order added to its second half, which lax verifiers accept.
fn plus_group_order(mut signature: [u8; 64]) -> [u8; 64] {
    let mut carry = 0_u16;
    for (byte, order) in signature[32..].iter_mut().zip(GROUP_ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    signature
}

fn file_cases(cases: &mut Cases) {
    let author = author();
    let public = author.public_key().to_string();
    let secret = format!("{}{public}", seed().as_str().expect("hex"));
    let read = "7a".repeat(32);
    let file = |text: String| json!({ "text": text });
    let v5 = format!(r#"{{"publicKey":"{public}","secretKey":"{secret}"}}"#);
    cases.accept("v5's file", "file", file(v5.clone()));
    cases.accept("white space and a member more", "file", file(v5.replace(',', " ,\n \"note\": 1,")));
    let with_read_key = format!(r#"{{"publicKey":"{public}","readKey":"{read}","secretKey":"{secret}"}}"#);
    cases.accept("with a read key", "file", file(with_read_key));
    let halves = v5.replacen(&secret, &format!("{}{public}", "11".repeat(32)), 1);
    cases.reject("halves that do not belong together", "file", file(halves), "identity");
    let other = Identity::new(&megatorrent_core::ids::Secret::new([9; 32]), None).public_key().to_string();
    let foreign = v5.replacen(&public, &other, 1);
    cases.reject("another's public key", "file", file(foreign), "identity");
    cases.reject("half a secret", "file", file(v5.replacen(&secret, &secret[..64], 1)), "identity");
    cases.reject("no secret", "file", file(format!(r#"{{"publicKey":"{public}"}}"#)), "identity");
    cases.reject("no JSON", "file", file("identity".into()), "identity");
}

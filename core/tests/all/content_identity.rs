//! Identities, addresses and BEP 44 items against published vectors (`docs/protocol.md` §1 and §7).

use megatorrent_core::bep44::{SignedItem, signable};
use megatorrent_core::error::ParseError;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::Secret;
use megatorrent_core::limits::{BOOTSTRAP_MAX, ITEM_VALUE_LEN_MAX};
use megatorrent_core::uri::{ChannelUri, topic};

/// RFC 8032 §7.1, test 3.
const SEED: &str = "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7";
const PUBLIC: &str = "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025";
const SIGNATURE: &str = "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
                         18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a";
const READ_KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    let mut out = [0; N];
    base16ct::lower::decode(hex, &mut out).expect("the test's hex is good");
    out
}

fn secret(hex: &str) -> Secret {
    Secret::from_hex(hex).expect("the test's hex is good")
}

fn identity(read_key: Option<Secret>) -> Identity {
    Identity::new(&secret(SEED), read_key)
}

#[test]
fn rfc_8032_vector_signs_and_verifies() {
    let identity = identity(None);
    assert_eq!(identity.public_key().to_string(), PUBLIC);
    let signature = identity.sign(&[0xaf, 0x82]);
    assert_eq!(signature, bytes(SIGNATURE));
    assert!(identity.public_key().verifies(&[0xaf, 0x82], &signature));
    assert!(!identity.public_key().verifies(&[0xaf, 0x83], &signature));
}

#[test]
fn a_signature_has_one_form() {
    // The same signature with the group's order added to S (RFC 8032 §8.4).
    let order: [u8; 32] = bytes("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010");
    let mut signature: [u8; 64] = bytes(SIGNATURE);
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(order) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        *byte = sum.to_le_bytes()[0];
        carry = sum >> 8;
    }
    assert!(!identity(None).public_key().verifies(&[0xaf, 0x82], &signature));
}

#[test]
fn keys_that_are_no_points_of_full_order_are_refused() {
    for hex in [
        // Small order: 1, 0 and −1 as y, and the two of order 8.
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        // No point has this y.
        "0200000000000000000000000000000000000000000000000000000000000000",
    ] {
        assert_eq!(PublicKey::from_bytes(bytes(hex)), Err(ParseError::PublicKey), "{hex}");
    }
}

#[test]
fn non_canonical_encodings_of_points_are_refused() {
    // y = p + k for small k is another encoding of y = k; some of these are points of full order.
    let mut others_take = 0;
    for low in 0xed..=0xff {
        let mut encoding = [0xff; 32];
        (encoding[0], encoding[31]) = (low, 0x7f);
        let taken = ed25519_dalek::VerifyingKey::from_bytes(&encoding).is_ok_and(|key| !key.is_weak());
        others_take += usize::from(taken);
        assert_eq!(PublicKey::from_bytes(encoding), Err(ParseError::PublicKey), "{low:x}");
    }
    assert!(others_take > 0, "the case is not empty");
}

#[test]
fn the_identity_file_keeps_both_keys() {
    for read_key in [None, Some(secret(READ_KEY))] {
        let text = identity(read_key.clone()).to_json();
        let back = Identity::from_json(&text).expect("our own file is good");
        assert_eq!((back.public_key(), back.read_key()), (identity(None).public_key(), read_key.as_ref()));
        assert_eq!(back.content_secret(), identity(None).content_secret());
    }
    let v5 = format!("{{\n \"publicKey\": \"{PUBLIC}\",\n \"secretKey\": \"{SEED}{PUBLIC}\"\n}}");
    assert_eq!(Identity::from_json(&v5).expect("v5's form is good").sign(b"m"), identity(None).sign(b"m"));
}

#[test]
fn a_wrong_identity_file_is_refused_without_repeating_it() {
    let other = Identity::new(&secret(READ_KEY), None).public_key();
    for (text, why) in [
        (String::new(), "JSON"),
        ("[".repeat(100_000), "JSON"),
        (format!("{{\"publicKey\":\"{PUBLIC}\"}}"), "JSON"),
        (format!("{{\"publicKey\":\"{PUBLIC}\",\"secretKey\":\"{SEED}\"}}"), "128 hex digits"),
        (format!("{{\"publicKey\":\"{PUBLIC}\",\"secretKey\":\"{SEED}{other}\"}}"), "second half"),
        (format!("{{\"publicKey\":\"{other}\",\"secretKey\":\"{SEED}{PUBLIC}\"}}"), "does not belong"),
        (
            format!("{{\"publicKey\":\"{PUBLIC}\",\"secretKey\":\"{SEED}{PUBLIC}\",\"readKey\":\"00\"}}"),
            "64 hex",
        ),
    ] {
        let error = Identity::from_json(&text).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
        assert!(!error.contains(&SEED[..8]), "{error}");
    }
}

#[test]
fn nothing_secret_is_printed() {
    let shown = format!("{:?} {:?}", identity(Some(secret(READ_KEY))), secret(READ_KEY));
    assert!(!shown.contains(&SEED[..8]) && !shown.contains(&READ_KEY[..8]), "{shown}");
}

#[test]
fn bep_44_vector_verifies() {
    // BEP 44, test 1 (mutable).
    let key = bytes("77ff84905a91936367c01360803104f92432fcd904a43511876df5cdf3e7e548");
    let mut item = SignedItem {
        key: PublicKey::from_bytes(key).expect("BEP 44's key is good"),
        seq: 1,
        value: b"Hello World!".to_vec(),
        signature: bytes(
            "305ac8aeb6c9c151fa120f120ea2cfb923564e11552d06a5d856091e5e853cff\
             1260d3f39e4999684aa92eb73ffd136e6f4f3ecbfda0ce53a1608ecd7ae21f01",
        ),
    };
    assert_eq!(signable(1, b"Hello World!"), b"3:seqi1e1:v12:Hello World!");
    assert!(item.verify());
    item.seq = 2;
    assert!(!item.verify());
}

#[test]
fn items_keep_their_limits() {
    let sign = |seq, len| SignedItem::sign(&identity(None), seq, vec![b'x'; len]);
    let item = sign(i64::MAX, ITEM_VALUE_LEN_MAX).expect("at the limit");
    assert!(item.verify());
    assert_eq!(sign(0, ITEM_VALUE_LEN_MAX + 1), None);
    assert_eq!(sign(-1, 1), None);
    // The signature is good, and the item is refused all the same.
    for (seq, value) in [(-1, vec![]), (1, vec![0; ITEM_VALUE_LEN_MAX + 1])] {
        let signature = identity(None).sign(&signable(seq, &value));
        assert!(!SignedItem { key: identity(None).public_key(), seq, value, signature }.verify());
    }
}

#[test]
fn addresses_round_trip() {
    for text in [
        format!("megatorrent://{PUBLIC}"),
        format!("megatorrent://{PUBLIC}:{READ_KEY}"),
        format!("megatorrent://{PUBLIC}?bootstrap=127.0.0.1:80&bootstrap=[::1]:9&bootstrap=example.org:1"),
        format!("megatorrent://{PUBLIC}:{READ_KEY}?bootstrap=127.0.0.1:80"),
    ] {
        let uri: ChannelUri = text.parse().expect("a good address");
        assert_eq!(*uri.to_secret_string(), text);
        assert_eq!(uri.to_public_string(), text.replace(&format!(":{READ_KEY}"), ""));
    }
}

#[test]
fn other_writings_of_an_address_are_read() {
    let plain: ChannelUri = PUBLIC.parse().expect("a bare key is an address");
    assert_eq!((plain.read_key.is_none(), plain.bootstrap.len()), (true, 0));
    for (text, peers) in [
        (format!("MegaTorrent://{}/", PUBLIC.to_uppercase()), ""),
        (format!("megatorrent://{PUBLIC}/?x=1&bootstrap=%5b::1%5D%3A9&y&=&"), "[::1]:9"),
        (format!("{PUBLIC}?bootstrap=1.2.3.4%3a5"), "1.2.3.4:5"),
    ] {
        let uri: ChannelUri = text.parse().expect("a good address");
        let shown: Vec<String> = uri.bootstrap.iter().map(ToString::to_string).collect();
        assert_eq!((uri.public_key.to_string().as_str(), shown.concat().as_str()), (PUBLIC, peers), "{text}");
    }
}

#[test]
fn bad_addresses_are_refused_without_repeating_the_key() {
    let many = format!("{PUBLIC}?{}", "bootstrap=1.2.3.4:5&".repeat(BOOTSTRAP_MAX + 1));
    assert!(many.replacen("bootstrap=1.2.3.4:5&", "", 1).parse::<ChannelUri>().is_ok());
    for text in [
        String::new(),
        "megatorrent://".to_string(),
        format!("magnet://{PUBLIC}"),
        format!("megatorrent:/{PUBLIC}"),
        format!("megatorrent://{}", &PUBLIC[1..]),
        format!("megatorrent://{PUBLIC}:"),
        format!("megatorrent://{PUBLIC}:{}", &READ_KEY[1..]),
        format!("megatorrent://{PUBLIC}:{READ_KEY}:{READ_KEY}"),
        format!("megatorrent://{PUBLIC}?bootstrap="),
        format!("megatorrent://{PUBLIC}?bootstrap=a%2eb:1"),
        format!("megatorrent://{PUBLIC}?bootstrap=a:1%"),
        format!("megatorrent://{PUBLIC}?bootstrap=a:1%3€"),
        many,
    ] {
        let error = text.parse::<ChannelUri>().expect_err(&text);
        assert!(matches!(error, ParseError::Uri(_)), "{text}");
        assert!(!error.to_string().contains(&READ_KEY[1..9]));
    }
}

#[test]
fn topics_are_blake2b_keyed_where_private() {
    let channel = identity(None).public_key();
    let hex = |topic: megatorrent_core::ids::Topic| base16ct::lower::encode_string(&topic.0);
    insta::assert_snapshot!(hex(topic(&channel, None)), @"9c937ad384cc09f17c8c28035e4684b617e70963b655af630f381208fb1f07e1");
    insta::assert_snapshot!(hex(topic(&channel, Some(&secret(READ_KEY)))), @"22dc14b06ecfe7f78f61b3ef80b0e279f3e3562c6f646e73a6a7ded84e058e6f");
    insta::assert_snapshot!(base16ct::lower::encode_string(identity(None).content_secret().expose()), @"b539c47b1fbcb64929b52da2fc9c51946ab3ff24f56693b0cfcf34325d1795a0");
}

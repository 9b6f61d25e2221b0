//! Channels' and peers' addresses (`docs/protocol.md` §7), identities (§1) and signed items (§6).

use std::sync::OnceLock;

use megatorrent_core::addr::PeerAddr;
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{BlobId, Secret};
use megatorrent_core::limits::{BOOTSTRAP_MAX, ITEM_VALUE_LEN_MAX};
use megatorrent_core::uri::ChannelUri;
use megatorrent_fuzz::{check, near, near_text, number, texts};

fn channels() -> &'static [String] {
    static CHANNELS: OnceLock<Vec<String>> = OnceLock::new();
    CHANNELS.get_or_init(|| texts("uri", "parse", "text"))
}

fn peers() -> &'static [String] {
    static PEERS: OnceLock<Vec<String>> = OnceLock::new();
    PEERS.get_or_init(|| texts("uri", "peer", "text"))
}

fn files() -> &'static [String] {
    static FILES: OnceLock<Vec<String>> = OnceLock::new();
    FILES.get_or_init(|| texts("identity", "file", "text"))
}

fn keys() -> &'static [String] {
    static KEYS: OnceLock<Vec<String>> = OnceLock::new();
    KEYS.get_or_init(|| texts("identity", "verify", "public_key"))
}

#[test]
fn a_channels_address_is_read_as_it_is_written() {
    check!(15_000, |input| {
        let Ok(uri) = near_text(input, channels())?.parse::<ChannelUri>() else { return Ok(()) };
        assert!(uri.bootstrap.len() <= BOOTSTRAP_MAX);
        assert_eq!(uri.to_secret_string().parse().as_ref(), Ok(&uri));
        let public = ChannelUri { read_key: None, ..uri.clone() };
        assert_eq!(uri.to_public_string().parse(), Ok(public));
        Ok(())
    });
}

#[test]
fn a_peers_address_has_one_form_and_only_exchangeable_ones_name_a_port() {
    check!(20_000, |input| {
        let Ok(peer) = near_text(input, peers())?.parse::<PeerAddr>() else { return Ok(()) };
        let text = peer.to_string();
        assert_eq!(text.parse().as_ref(), Ok(&peer));
        assert_eq!(text.to_uppercase().parse().as_ref(), Ok(&peer));
        assert!(peer.port() != 0 || !peer.is_exchangeable());
        assert!(!peer.is_exchangeable() || !matches!(peer, PeerAddr::Dns(..)));
        assert_eq!(peer.with_port(peer.port()), peer);
        Ok(())
    });
}

#[test]
fn an_identity_file_is_read_as_it_is_written() {
    check!(2000, |input| {
        let Ok(identity) = Identity::from_json(&near_text(input, files())?) else { return Ok(()) };
        let again = Identity::from_json(&identity.to_json()).expect("it was written by us");
        assert_eq!(again.public_key(), identity.public_key());
        assert!(again.read_key() == identity.read_key());
        assert!(again.content_secret() == identity.content_secret());
        Ok(())
    });
}

#[test]
fn names_of_64_digits_have_one_form_but_for_the_digits_case() {
    check!(5000, |input| {
        let text = near_text(input, keys())?;
        let lower = text.to_lowercase();
        if let Ok(key) = text.parse::<PublicKey>() {
            assert_eq!(key.to_string(), lower);
        }
        if let Ok(id) = text.parse::<BlobId>() {
            assert_eq!(id.to_hex(), lower);
        }
        assert_eq!(Secret::from_hex(&text).is_ok(), text.parse::<BlobId>().is_ok());
        Ok(())
    });
}

#[test]
fn an_item_is_verified_only_as_it_was_signed() {
    check!(1500, |input| {
        let identity = Identity::new(&Secret::new([3; 32]), None);
        let seq = number(input, &[])?.cast_signed();
        let value = vec![input.arbitrary()?; usize::from(input.arbitrary::<u16>()? % 1200)];
        let fits = seq >= 0 && value.len() <= ITEM_VALUE_LEN_MAX;
        let item = SignedItem::sign(&identity, seq, value);
        assert_eq!(item.is_some(), fits);
        let Some(item) = item else { return Ok(()) };
        assert!(item.verify());
        let mut changed = item.clone();
        changed.value = near(input, &[&item.value])?;
        changed.seq = if input.arbitrary()? { item.seq } else { number(input, &[])?.cast_signed() };
        if let Some(byte) = changed.signature.get_mut(usize::from(input.arbitrary::<u8>()?)) {
            *byte ^= input.arbitrary::<u8>()?;
        }
        assert_eq!(changed.verify(), changed == item);
        Ok(())
    });
}

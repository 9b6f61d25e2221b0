//! `megatorrent://` addresses and the topic under which a channel's swarm meets (`docs/protocol.md` §7).

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::str::FromStr;

use blake2::digest::consts::{U16, U32};
use blake2::digest::{FixedOutput, KeyInit, Update};
use blake2::{Blake2b, Blake2bMac};
use zeroize::Zeroizing;

use crate::addr::PeerAddr;
use crate::codec::Tag;
use crate::error::ParseError;
use crate::hex;
use crate::identity::PublicKey;
use crate::ids::{Secret, Topic};
use crate::limits::BOOTSTRAP_MAX;

const SCHEME: &str = "megatorrent://";
const TOPIC_LABEL: &[u8] = b"megatorrent topic";

/// A channel's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelUri {
    /// The channel.
    pub public_key: PublicKey,
    /// The read key of a private channel.
    pub read_key: Option<Secret>,
    /// Peers to begin with, at most [`BOOTSTRAP_MAX`].
    pub bootstrap: Vec<PeerAddr>,
}

impl ChannelUri {
    /// Returns the text with the read key, if there is one: not for logs.
    pub fn to_secret_string(&self) -> Zeroizing<String> {
        let read_key = self.read_key.as_ref().map(|key| Zeroizing::new(hex::encode(key.expose())));
        // Nothing grows after the key is in, so no copy of it is left behind.
        let query = self.query();
        Zeroizing::new(match read_key {
            Some(key) => format!("{SCHEME}{}:{}{query}", self.public_key, *key),
            None => format!("{SCHEME}{}{query}", self.public_key),
        })
    }

    /// Returns the text without the read key.
    pub fn to_public_string(&self) -> String {
        format!("{SCHEME}{}{}", self.public_key, self.query())
    }

    fn query(&self) -> String {
        let mut out = String::new();
        for addr in &self.bootstrap {
            out.push_str(if out.is_empty() { "?" } else { "&" });
            out.push_str("bootstrap=");
            out.push_str(&addr.to_string());
        }
        out
    }
}

impl FromStr for ChannelUri {
    type Err = ParseError;

    /// Accepts a bare public key too. Ignores query members other than `bootstrap`.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let rest = match text.get(..SCHEME.len()) {
            Some(scheme) if scheme.eq_ignore_ascii_case(SCHEME) => &text[SCHEME.len()..],
            _ if text.contains("://") => return Err(ParseError::Uri("it begins with another scheme")),
            _ => text,
        };
        let (keys, query) = rest.split_once('?').unwrap_or((rest, ""));
        // Programs that treat the address as a generic URL may append the empty path.
        let keys = keys.strip_suffix('/').unwrap_or(keys);
        let (public, read) = keys.split_once(':').map_or((keys, None), |(public, read)| (public, Some(read)));
        let public_key = public.parse().map_err(|_| ParseError::Uri("the public key is not a channel's"))?;
        let read_key = read.map(Secret::from_hex).transpose();
        let read_key = read_key.map_err(|_| ParseError::Uri("the read key is not 64 hex digits"))?;
        let mut bootstrap = Vec::new();
        for value in query.split('&').filter_map(|member| member.strip_prefix("bootstrap=")) {
            if bootstrap.len() == BOOTSTRAP_MAX {
                return Err(ParseError::Uri("it names too many bootstrap peers"));
            }
            bootstrap.push(parse_peer(value)?);
        }
        Ok(Self { public_key, read_key, bootstrap })
    }
}

/// Parses a peer's address, in which `[`, `]` and `:` may be percent-encoded (RFC 3986 §2.1); nothing else needs to be.
fn parse_peer(text: &str) -> Result<PeerAddr, ParseError> {
    let not_a_peer = ParseError::Uri("a bootstrap peer is not HOST:PORT");
    let plain = decode_percent(text).ok_or(not_a_peer)?;
    plain.parse().map_err(|error| if error == ParseError::PeerAddr { not_a_peer } else { error })
}

fn decode_percent(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut plain = String::from(parts.next()?);
    for part in parts {
        plain.push(match part.get(..2)?.to_ascii_uppercase().as_str() {
            "5B" => '[',
            "5D" => ']',
            "3A" => ':',
            _ => return None,
        });
        plain.push_str(&part[2..]);
    }
    Some(plain)
}

/// A channel's topic: BLAKE2b-256 of `"megatorrent topic" ‖ public key`, under the read key as BLAKE2's key
/// (RFC 7693 §2.5) where the channel is private, so that nobody without the key can find the swarm.
pub fn topic(channel: &PublicKey, read_key: Option<&Secret>) -> Topic {
    Topic(match read_key {
        None => {
            Blake2b::<U32>::default().chain(TOPIC_LABEL).chain(channel.as_bytes()).finalize_fixed().into()
        }
        Some(key) => Blake2bMac::<U32>::new_from_slice(key.expose())
            .expect("BLAKE2b takes keys of up to 64 bytes")
            .chain(TOPIC_LABEL)
            .chain(channel.as_bytes())
            .finalize_fixed()
            .into(),
    })
}

/// A topic's name between two peers (`docs/protocol.md` §12): BLAKE2b-128 keyed with their connection's tag key.
pub fn tag(tag_key: &Secret, topic: &Topic) -> Tag {
    let mac =
        Blake2bMac::<U16>::new_from_slice(tag_key.expose()).expect("BLAKE2b takes keys of up to 64 bytes");
    Tag(mac.chain(topic.0).finalize_fixed().into())
}

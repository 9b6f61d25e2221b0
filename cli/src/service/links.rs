//! Links to files, each for some hours. They live in memory: a node that is started anew has none.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64ct::{Base64UrlUnpadded, Encoding};
use subtle::ConstantTimeEq;

use super::Service;
use crate::api::{Answers, ApiError, ChannelId, CreateFileLink, FileLink, RevokeFileLinks, Revoked};
use crate::exit::{Exit, Failure};
use crate::http::{LinkedFile, content_type};

/// How long a link can be used.
const LINK_FOR: Duration = Duration::from_hours(12);
/// Links that can be used at once; one more ends the oldest.
const LINKS_MAX: usize = 1_000;
/// In front of a link's code, below where the API listens.
const PREFIX: &str = "files/";

type Code = [u8; 32];

struct Link {
    code: Code,
    channel: ChannelId,
    /// The file's path in the channel.
    path: String,
    until: Instant,
}

/// The links, oldest first.
#[derive(Default)]
pub(super) struct Links(VecDeque<Link>);

impl Links {
    fn add(&mut self, channel: ChannelId, path: String) -> Result<String, Failure> {
        let mut code = Code::default();
        getrandom::fill(&mut code).map_err(|error| {
            Failure::new(Exit::Other, format!("the system gives no random bytes: {error}"))
        })?;
        let now = Instant::now();
        self.0.retain(|link| link.until > now);
        while self.0.len() >= LINKS_MAX {
            self.0.pop_front();
        }
        self.0.push_back(Link { code, channel, path, until: now + LINK_FOR });
        Ok(Base64UrlUnpadded::encode_string(&code))
    }

    fn find(&self, text: &str) -> Option<&Link> {
        let code = decode(text)?;
        let now = Instant::now();
        self.0.iter().find(|link| link.until > now && bool::from(link.code.ct_eq(&code)))
    }

    /// Ends those for which `is_meant` holds; how many.
    fn revoke(&mut self, is_meant: impl Fn(&Link) -> bool) -> u64 {
        let before = self.0.len();
        self.0.retain(|link| !is_meant(link));
        (before - self.0.len()) as u64
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

fn decode(text: &str) -> Option<Code> {
    let mut code = Code::default();
    let length = Base64UrlUnpadded::decode(text, &mut code).ok()?.len();
    (length == code.len()).then_some(code)
}

impl Service {
    /// Where a file of a channel lies, and its bytes, if all of it is here.
    fn target(&self, channel: &ChannelId, path: &str) -> Option<(PathBuf, u64)> {
        let channels = self.0.channels.borrow();
        let channel = channels.get(&channel.0)?;
        let (_, manifest) = channel.manifest()?;
        let (index, file) = manifest.files().enumerate().find(|(_, file)| file.path.as_str() == path)?;
        Some((channel.target_of(index, file)?.into(), file.size))
    }

    /// The file that a link leads to.
    pub(crate) fn linked(&self, code: &str) -> Option<LinkedFile> {
        let links = self.0.links.borrow();
        let link = links.find(code)?;
        let (target, _) = self.target(&link.channel, &link.path)?;
        let name = link.path.rsplit('/').next().unwrap_or_default().to_owned();
        Some(LinkedFile { target, name })
    }
}

impl Answers<CreateFileLink> for Service {
    async fn answer(&self, call: CreateFileLink) -> Result<FileLink, ApiError> {
        let (_, size_bytes) = self.target(&call.channel, &call.path).ok_or_else(|| {
            ApiError::not_found(format!(
                "{:?} is not here, or not all of it; getFiles lists what is",
                call.path
            ))
        })?;
        let content_type = content_type(&call.path).to_owned();
        let code = self.0.links.borrow_mut().add(call.channel, call.path)?;
        let path = format!("{PREFIX}{code}");
        Ok(FileLink { path, valid_secs: LINK_FOR.as_secs(), size_bytes, content_type })
    }
}

impl Answers<RevokeFileLinks> for Service {
    async fn answer(&self, call: RevokeFileLinks) -> Result<Revoked, ApiError> {
        let code = call.path.as_deref().map(|path| path.strip_prefix(PREFIX).and_then(decode));
        let links = self.0.links.borrow_mut().revoke(|link| {
            call.channel.is_none_or(|channel| channel == link.channel)
                && code.is_none_or(|code| code.is_some_and(|code| bool::from(code.ct_eq(&link.code))))
        });
        Ok(Revoked { links })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn channel(byte: u8) -> ChannelId {
        let secret = megatorrent_core::ids::Secret::new([byte; 32]);
        ChannelId(megatorrent_core::identity::Identity::new(&secret, None).public_key())
    }

    #[test]
    fn links_are_bounded_and_end() {
        let mut links = Links::default();
        let first = links.add(channel(1), "first".into()).expect("a code");
        assert_eq!(links.find(&first).map(|link| link.path.as_str()), Some("first"));
        for number in 0..LINKS_MAX {
            links.add(channel(2), number.to_string()).expect("a code");
        }
        assert!(links.find(&first).is_none() && links.0.len() == LINKS_MAX);
        let last = links.add(channel(3), "last".into()).expect("a code");
        links.0.back_mut().expect("it is there").until = Instant::now();
        assert!(links.find(&last).is_none());
        for wrong in ["", "AAAA", "é", &last[1..], &format!("{last}A")] {
            assert!(links.find(wrong).is_none());
        }
        assert_eq!(links.revoke(|link| link.channel == channel(2)), LINKS_MAX as u64 - 1);
    }
}

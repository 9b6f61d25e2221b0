//! Checksums in place of ciphers, and blobs that are mostly zeros, so that thousands of nodes fit one thread.

use megatorrent_core::blob::{BlobRef, TAG_LEN};
use megatorrent_core::error::Violation;
use megatorrent_core::ids::{BlobId, BlobName, Root, Secret, SessionId};
use megatorrent_core::parts::{PARTS, VALUES_LEN, Values};
use megatorrent_core::rng::Rng;
use megatorrent_core::suite::BlobFormat;
use megatorrent_core::transport::{Ciphers, KEY_LEN, Open, Role, Seal, Session};

use crate::sparse::without_trailing_zeros;

/// It keeps nothing secret and prevents no forgery, but every byte on the wire is at the real suite's place: a frame's tag,
/// a blob's tag and a blob's root are checksums, so that a flipped bit, a frame out of order or a wrong blob is noticed.
///
/// No driver of real sockets can take a node over it, since they name the real node's type:
///
/// ```compile_fail,E0308
/// use megatorrent_core::node::{Config, Node};
/// use megatorrent_core::time::{Instant, UnixTime};
///
/// fn drive(_: Node) {} // as every real driver is declared
/// drive(Node::<megatorrent_sim::NullSuite>::with_suite(Config::default(), [1; 32], Instant(0), UnixTime(0)));
/// ```
///
/// They take the real suite's node, made in the same way:
///
/// ```
/// use megatorrent_core::node::{Config, Node};
/// use megatorrent_core::time::{Instant, UnixTime};
///
/// fn drive(_: Node) {}
/// drive(Node::with_suite(Config::default(), [1; 32], Instant(0), UnixTime(0)));
/// ```
///
/// What is filling in a real blob is zeros here, and a sealed blob is its plaintext and a tag. So content of which most bytes are
/// zeros has no weight: checksums pass over trailing zeros, and links and stores keep none
/// ([`crate::WorldConfig::has_weight`]). Above them every length is the true one.
///
/// `PLAIN_LEN` is the bytes of plaintext in a blob, within the bounds of [`megatorrent_core::tree::Shape::new`]: 2^20 are a real
/// blob's. The usual 1024 are 16 links in an index blob, so that a few hundred blobs make a tree of depth 2.
#[derive(Debug)]
pub enum NullSuite<const PLAIN_LEN: usize = 1024> {}

/// Our half of a key exchange that keeps nothing secret.
pub struct NullHandshake {
    public_key: [u8; KEY_LEN],
    role: Role,
}

/// One direction of a connection: the start of its frames' checksums, and the number of frames.
pub struct NullDirection {
    start: u64,
    frames: u64,
}

impl<const PLAIN_LEN: usize> Ciphers for NullSuite<PLAIN_LEN> {
    type Handshake = NullHandshake;
    type Sealer = NullDirection;
    type Opener = NullDirection;

    fn handshake(role: Role, rng: &mut Rng) -> NullHandshake {
        NullHandshake { public_key: rng.bytes_32(), role }
    }

    fn public_key(handshake: &NullHandshake) -> [u8; KEY_LEN] {
        handshake.public_key
    }

    fn finish(
        handshake: NullHandshake,
        their_public: [u8; KEY_LEN],
    ) -> Result<Session<NullDirection, NullDirection>, Violation> {
        if their_public == [0; KEY_LEN] {
            return Err(Violation::LowOrderKey);
        }
        let ours = checksum(1, &handshake.public_key)[0];
        let theirs = checksum(1, &their_public)[0];
        let shared = ours.wrapping_add(theirs);
        let (sends, receives) = match handshake.role {
            Role::Dialler => (shared, !shared),
            Role::Listener => (!shared, shared),
        };
        Ok(Session {
            sealer: NullDirection { start: sends, frames: 0 },
            opener: NullDirection { start: receives, frames: 0 },
            tag_key: Secret::new(to_bytes(checksum(shared, b"T"))),
            session_id: SessionId(to_bytes(checksum(shared, b"I"))),
        })
    }
}

impl<const PLAIN_LEN: usize> BlobFormat for NullSuite<PLAIN_LEN> {
    const PLAIN_LEN: usize = PLAIN_LEN;

    fn seal_blob(secret: &Secret, buf: &mut [u8], len: usize) -> BlobRef {
        assert!(buf.len() == Self::BLOB_LEN, "a blob has one length");
        let key = to_bytes(checksum(checksum(2, secret.expose())[0], &buf[..len]));
        let (plain, tag) = buf.split_last_chunk_mut::<TAG_LEN>().expect("a blob has room for its tag");
        plain[len..].fill(0);
        *tag = blob_tag(&key, plain);
        BlobRef { root: root_of(&values_of(buf)), key: Secret::new(key) }
    }

    fn open_blob(blob: &BlobRef, buf: &mut [u8]) -> bool {
        let sealed = buf.split_last_chunk::<TAG_LEN>();
        sealed.is_some_and(|(plain, tag)| *tag == blob_tag(blob.key.expose(), plain))
    }

    fn verify_blob(name: &BlobName, blob: &[u8]) -> bool {
        blob.len() == Self::BLOB_LEN && root_of(&values_of(blob)).0 == *name.as_bytes()
    }

    /// A blob's id is its root.
    fn id_of(blob: &[u8]) -> BlobId {
        BlobId(root_of(&values_of(blob)).0)
    }

    fn values_of(blob: &[u8]) -> Values {
        values_of(blob)
    }

    fn root_of(values: &Values) -> Root {
        root_of(values)
    }

    fn check_part(values: &Values, part: usize, sealed: &[u8]) -> bool {
        let value = values.as_bytes().as_chunks::<32>().0.get(part).filter(|_| part < PARTS);
        sealed.len() == Self::PART_LEN && value == Some(&part_value(part, sealed))
    }

    fn complete_part(_: &Secret, values: &Values, content_len: usize, part: usize, buf: &mut [u8]) -> bool {
        let content = content_len.saturating_sub(part * Self::PART_LEN).min(buf.len());
        buf[content..].fill(0);
        Self::check_part(values, part, buf)
    }
}

impl NullDirection {
    fn tag(&mut self, plaintext: &[u8]) -> [u8; TAG_LEN] {
        let start = self.start.wrapping_add(self.frames);
        self.frames += 1;
        first(checksum(start, plaintext))
    }
}

impl Seal for NullDirection {
    fn seal(&mut self, plaintext: &mut [u8]) -> [u8; TAG_LEN] {
        self.tag(plaintext)
    }
}

impl Open for NullDirection {
    fn open<'a>(&mut self, sealed: &'a mut [u8]) -> Result<&'a mut [u8], Violation> {
        let (plain, tag) = sealed.split_last_chunk_mut::<TAG_LEN>().ok_or(Violation::FrameShort)?;
        if *tag == self.tag(plain) { Ok(plain) } else { Err(Violation::Tag) }
    }
}

fn blob_tag(key: &[u8; 32], plain: &[u8]) -> [u8; TAG_LEN] {
    first(checksum(checksum(3, key)[0], plain))
}

/// As [`Values::of`]: a checksum for each sixteenth of the plaintext, then the tag.
fn values_of(blob: &[u8]) -> Values {
    let (plain, tag) = blob.split_at(blob.len().saturating_sub(TAG_LEN));
    let mut values = [0; VALUES_LEN];
    let (of_parts, of_tag) = values.split_at_mut(VALUES_LEN - TAG_LEN);
    let parts = plain.chunks((plain.len() / PARTS).max(1));
    for (n, (value, part)) in of_parts.as_chunks_mut::<32>().0.iter_mut().zip(parts).enumerate() {
        *value = part_value(n, part);
    }
    of_tag[..tag.len()].copy_from_slice(tag);
    Values::from_bytes(values)
}

/// What a part is checked by.
fn part_value(part: usize, bytes: &[u8]) -> [u8; 32] {
    to_bytes(checksum(5 + part as u64, bytes))
}

/// As [`Values::root`].
fn root_of(values: &Values) -> Root {
    Root(to_bytes(checksum(4, values.as_bytes())))
}

/// 256 bits that depend on every bit of `start` and `bytes`. Each step is a bijection of a lane, so one changed word
/// always changes the result. Trailing zeros cost next to nothing.
fn checksum(start: u64, bytes: &[u8]) -> [u64; 4] {
    const ODD: [u64; 4] =
        [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];
    let mut lanes = ODD.map(|odd| odd ^ start);
    let mut mix = |words: &[u8]| {
        for ((lane, word), odd) in lanes.iter_mut().zip(words.as_chunks::<8>().0).zip(ODD) {
            *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(odd).rotate_left(29);
        }
    };
    let (blocks, rest) = without_trailing_zeros(bytes).as_chunks::<32>();
    for block in blocks {
        mix(block);
    }
    let mut last = [0; 32];
    last[..rest.len()].copy_from_slice(rest);
    mix(&last);
    // The length distinguishes ends with more zeros or fewer; then each lane affects the others.
    lanes[0] ^= bytes.len() as u64;
    for i in 0..8 {
        let from = lanes[i % 4];
        let lane = &mut lanes[(i + 1) % 4];
        *lane = (*lane ^ from ^ (from >> 31)).wrapping_mul(ODD[i % 4]);
    }
    lanes
}

fn to_bytes(lanes: [u64; 4]) -> [u8; 32] {
    let mut out = [0; 32];
    for (bytes, lane) in out.as_chunks_mut::<8>().0.iter_mut().zip(lanes) {
        *bytes = lane.to_le_bytes();
    }
    out
}

fn first(lanes: [u64; 4]) -> [u8; TAG_LEN] {
    let [a, b, ..] = lanes;
    (u128::from(a) << 64 | u128::from(b)).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    type Null = NullSuite;

    fn pair() -> (Session<NullDirection, NullDirection>, Session<NullDirection, NullDirection>) {
        let mut rng = Rng::new([1; 32]);
        let dialler = Null::handshake(Role::Dialler, &mut rng);
        let listener = Null::handshake(Role::Listener, &mut rng);
        let (of_dialler, of_listener) = (dialler.public_key, listener.public_key);
        let dialler = Null::finish(dialler, of_listener).expect("an honest key");
        (dialler, Null::finish(listener, of_dialler).expect("an honest key"))
    }

    #[test]
    fn flipped_bits_replays_and_reflections_are_noticed() {
        let (mut dialler, mut listener) = pair();
        let mut frame = b"some text of more than one block, so that both loops of the checksum run".to_vec();
        let tag = dialler.sealer.seal(&mut frame);
        frame.extend(tag);
        for bit in 0..frame.len() * 8 {
            let (_, mut listener) = pair();
            let mut flipped = frame.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(listener.opener.open(&mut flipped), Err(Violation::Tag), "bit {bit}");
        }
        assert_eq!(dialler.opener.open(&mut frame.clone()), Err(Violation::Tag), "directions differ");
        assert!(listener.opener.open(&mut frame).is_ok());
        assert_eq!(listener.opener.open(&mut frame), Err(Violation::Tag), "its nonce has passed");
    }

    #[test]
    fn a_blob_of_any_length_is_named_by_its_bytes_and_opens_under_its_key() {
        is_named_by_its_bytes_and_opens_under_its_key::<NullSuite>();
        is_named_by_its_bytes_and_opens_under_its_key::<NullSuite<61_440>>();
        is_named_by_its_bytes_and_opens_under_its_key::<NullSuite<{ 1 << 20 }>>();
    }

    fn is_named_by_its_bytes_and_opens_under_its_key<S: BlobFormat>() {
        let seal = |content: &[u8]| {
            let mut blob = vec![0xaa; S::BLOB_LEN];
            blob[..content.len()].copy_from_slice(content);
            (S::seal_blob(&Secret::new([7; 32]), &mut blob, content.len()), blob)
        };
        let ((link, mut blob), (other, _)) = (seal(b"content"), seal(b"content\0"));
        assert_eq!(seal(b"content").0, link, "equal content gives one blob");
        assert!(other.root != link.root && other.key != link.key);
        assert!(S::verify_blob(&link.root.into(), &blob) && S::open_blob(&link, &mut blob));
        let wrong = BlobRef { key: other.key, ..link.clone() };
        assert!(!S::open_blob(&wrong, &mut blob));
        for at in [0, 500, S::PLAIN_LEN - 1, S::PLAIN_LEN, S::BLOB_LEN - 1] {
            blob[at] ^= 1;
            assert!(!S::verify_blob(&link.root.into(), &blob) && !S::open_blob(&link, &mut blob), "{at}");
            blob[at] ^= 1;
        }
        assert!(S::verify_blob(&link.root.into(), &blob));
    }
}

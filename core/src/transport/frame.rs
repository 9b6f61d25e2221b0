//! Frames: `[length: u32 big-endian][ciphertext ‖ tag]` (`docs/protocol.md` §9), read with their length checked
//! before memory is taken.

use alloc::vec;
use alloc::vec::Vec;

use super::Seal;
use crate::buffer::Buffer;
use crate::error::Violation;
use crate::limits::CONTROL_LEN_MAX;
pub use crate::wire::{HEADER_LEN, TAG_LEN};

/// Appends a sealed frame to `wire`; the plaintext comes in parts.
///
/// # Panics
/// Where the plaintext is longer than 4 GiB.
pub fn seal(sealer: &mut impl Seal, plaintext: &[&[u8]], wire: &mut Vec<u8>) {
    let len = plaintext.iter().map(|part| part.len()).sum();
    wire.reserve(HEADER_LEN + len + TAG_LEN);
    wire.extend(length_field(len));
    let start = wire.len();
    for part in plaintext {
        wire.extend_from_slice(part);
    }
    let tag = sealer.seal(&mut wire[start..]);
    wire.extend(tag);
}

/// Seals the blob in `buffer` as one DATA frame, in place.
pub(crate) fn seal_data(sealer: &mut impl Seal, kind: u8, buffer: &mut Buffer) {
    let (plain, tag) =
        buffer.frame_mut().split_last_chunk_mut::<TAG_LEN>().expect("a buffer has room for the tag");
    let (header, plain) = plain.split_first_chunk_mut::<HEADER_LEN>().expect("and for the header");
    *header = length_field(plain.len());
    plain[0] = kind;
    *tag = sealer.seal(plain);
}

fn length_field(plaintext_len: usize) -> [u8; HEADER_LEN] {
    u32::try_from(plaintext_len + TAG_LEN).expect("the longest message is a blob").to_be_bytes()
}

/// A whole frame, still sealed.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// Ciphertext and tag of a frame no longer than a control message's.
    Small(Vec<u8>),
    /// A longer frame: this many bytes at the front of the large region hold ciphertext and tag.
    Large(usize),
}

/// Cuts a byte stream into frames. It holds at most one control frame itself; longer frames go into the caller's memory
/// (the *large region*), so that a blob's bytes are read straight into the blob's buffer.
#[derive(Debug)]
pub struct FrameReader(State);

#[derive(Debug)]
enum State {
    Header { bytes: [u8; HEADER_LEN], have: usize },
    Small { body: Vec<u8>, have: usize },
    Large { len: usize, have: usize },
}

const START: State = State::Header { bytes: [0; HEADER_LEN], have: 0 };

impl Default for FrameReader {
    fn default() -> Self {
        Self(START)
    }
}

impl FrameReader {
    /// Returns where the stream's next bytes go; never empty. `large` is the large region, which must be the same from a
    /// large frame's first byte to its last.
    pub fn space<'a>(&'a mut self, large: &'a mut [u8]) -> &'a mut [u8] {
        match &mut self.0 {
            State::Header { bytes, have } => &mut bytes[*have..],
            State::Small { body, have } => &mut body[*have..],
            State::Large { len, have } => &mut large[*have..*len],
        }
    }

    /// Takes `n` bytes that were written to [`Self::space`]; returns the frame that they complete, if any.
    ///
    /// # Errors
    /// [`Violation::FrameShort`] and [`Violation::FrameLong`] (longer than a control frame and than the large region's
    /// `large_len`), as soon as the length field is there and before memory is taken.
    pub fn filled(&mut self, n: usize, large_len: usize) -> Result<Option<Frame>, Violation> {
        match &mut self.0 {
            State::Header { bytes, have } => {
                *have += n;
                if *have == HEADER_LEN {
                    let len = u32::from_be_bytes(*bytes) as usize;
                    self.0 = Self::begin(len, large_len)?;
                }
                Ok(None)
            }
            State::Small { body, have } => {
                *have += n;
                if *have < body.len() {
                    return Ok(None);
                }
                let body = core::mem::take(body);
                self.0 = START;
                Ok(Some(Frame::Small(body)))
            }
            State::Large { len, have } => {
                *have += n;
                if *have < *len {
                    return Ok(None);
                }
                let len = *len;
                self.0 = START;
                Ok(Some(Frame::Large(len)))
            }
        }
    }

    fn begin(len: usize, large_len: usize) -> Result<State, Violation> {
        if len < TAG_LEN {
            Err(Violation::FrameShort)
        } else if len <= CONTROL_LEN_MAX + TAG_LEN {
            Ok(State::Small { body: vec![0; len], have: 0 })
        } else if len <= large_len {
            Ok(State::Large { len, have: 0 })
        } else {
            Err(Violation::FrameLong)
        }
    }

    /// Whether a frame has begun and not ended.
    pub fn is_inside_frame(&self) -> bool {
        !matches!(self.0, State::Header { have: 0, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::{Handshake, Open as _, Role};
    use proptest::prelude::*;

    /// Reads `wire` in pieces of the given sizes (repeated); returns the frames, or the violation.
    fn read(wire: &[u8], pieces: &[usize], large: &mut [u8]) -> Result<Vec<Frame>, Violation> {
        let (mut reader, mut frames, mut at) = (FrameReader::default(), Vec::new(), 0);
        let large_len = large.len();
        for piece in pieces.iter().cycle() {
            if at == wire.len() {
                return Ok(frames);
            }
            let space = reader.space(large);
            let n = space.len().min(*piece).min(wire.len() - at);
            space[..n].copy_from_slice(&wire[at..at + n]);
            at += n;
            frames.extend(reader.filled(n, large_len)?);
        }
        Ok(frames)
    }

    fn wire(lens: &[usize]) -> Vec<u8> {
        let frame =
            |len: &usize| [&u32::try_from(*len).expect("small").to_be_bytes()[..], &vec![7; *len]].concat();
        lens.iter().flat_map(frame).collect()
    }

    proptest! {
        #[test]
        fn every_split_of_a_stream_gives_the_same_frames(
            lens in prop::collection::vec(16usize..200, 1..8),
            pieces in prop::collection::vec(1usize..64, 1..8),
        ) {
            let frames = read(&wire(&lens), &pieces, &mut []).expect("legal lengths");
            let got: Vec<_> = frames.iter().map(|f| match f { Frame::Small(b) => b.len(), Frame::Large(n) => *n }).collect();
            prop_assert_eq!(got, lens);
        }
    }

    #[test]
    fn lengths_are_refused_before_memory_is_taken() {
        let max = CONTROL_LEN_MAX + TAG_LEN;
        assert_eq!(read(&wire(&[15]), &[4], &mut []), Err(Violation::FrameShort));
        assert!(matches!(read(&wire(&[max]), &[max], &mut []).as_deref(), Ok([Frame::Small(_)])));
        assert_eq!(
            read(&u32::try_from(max + 1).expect("small").to_be_bytes(), &[4], &mut []),
            Err(Violation::FrameLong)
        );
        assert_eq!(read(&[0xFF; 4], &[1], &mut vec![0; max + 1]), Err(Violation::FrameLong));
        let large = &mut vec![0; max + 1];
        assert_eq!(read(&wire(&[max + 1]), &[999], large), Ok(vec![Frame::Large(max + 1)]));
        assert_eq!(large, &vec![7; max + 1]);
    }

    #[test]
    fn sealed_frames_have_the_wire_lengths_of_the_specification() {
        let (mut sealer, mut opener) = {
            let (a, b) = (
                Handshake::from_secret(Role::Dialler, [1; 32]),
                Handshake::from_secret(Role::Listener, [2; 32]),
            );
            let (a_public, b_public) = (a.public_key(), b.public_key());
            (a.finish(b_public).expect("honest").sealer, b.finish(a_public).expect("honest").opener)
        };
        let mut wire = Vec::new();
        seal(&mut sealer, &[&[2], b"id"], &mut wire);
        seal(&mut sealer, &[], &mut wire);
        let (first, empty) = wire.split_at_mut(HEADER_LEN + 3 + TAG_LEN);
        assert_eq!((&first[..4], &empty[..4]), (&[0, 0, 0, 19][..], &[0, 0, 0, 16][..]));
        assert_eq!(opener.open(&mut first[4..]).as_deref(), Ok(&b"\x02id"[..]));
        assert_eq!(opener.open(&mut empty[4..]).as_deref(), Ok(&b""[..]));
        let mut buffer = Buffer::new();
        buffer.blob_mut()[0] = 9;
        seal_data(&mut sealer, 3, &mut buffer);
        assert_eq!(buffer.frame().len(), 1_048_613);
        assert_eq!(buffer.frame()[..4], 1_048_609_u32.to_be_bytes());
        assert_eq!(opener.open(&mut buffer.frame_mut()[4..]).map(|p| (p[0], p[1])), Ok((3, 9)));
    }
}

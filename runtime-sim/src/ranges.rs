//! Ranges of blobs and who has them, as an adversary reads and writes these messages: byte by byte, so that it can
//! also write what core never would.

use std::ops::Range;

use megatorrent_core::ids::BlobId;
use megatorrent_core::rng::Rng;

/// Ask for a range of a blob: a CBOR map of number (1), blob id (2), start (3) and length (4).
pub(crate) const WANT: u8 = 0x13;
/// A part of a range: number and offset, four bytes each, then bytes of the blob; none: refused.
pub(crate) const PIECE: u8 = 0x14;
/// Ask what of a channel's version is there: a CBOR map of tag (1) and sequence (2).
pub(crate) const ASK_HAVE: u8 = 0x16;
/// What is there: that map, and a bitmap (3), positions (4), or `true` for all (5).
pub(crate) const HAVE: u8 = 0x17;

/// Bytes of a blob in one PIECE.
const PIECE_LEN: usize = 60 * 1024;
/// Bytes of a bitmap that tells lies: as many as a frame holds, about.
const BITMAP_LEN: usize = 32 * 1024;
/// Least bytes of an ASK_HAVE: `A2 01 50` and a tag, `02` and a sequence.
const ASKED_LEN_MIN: usize = 3 + 16 + 2;

/// A range that is asked for.
pub(crate) struct Want {
    id: u32,
    pub(crate) blob: BlobId,
    pub(crate) range: Range<usize>,
}

impl Want {
    /// Reads a WANT in the one form in which core writes it.
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let rest = payload.strip_prefix(&[0xA4, 1])?;
        let (id, rest) = unsigned(rest)?;
        let (blob, rest) = rest.strip_prefix(&[2, 0x58, 32])?.split_first_chunk()?;
        let (start, rest) = unsigned(rest.strip_prefix(&[3])?)?;
        let (len, _) = unsigned(rest.strip_prefix(&[4])?)?;
        let end = start.checked_add(len)?;
        Some(Self { id, blob: BlobId(*blob), range: start as usize..end as usize })
    }

    /// The payload of a PIECE that refuses the range.
    pub(crate) fn refusal(&self) -> Vec<u8> {
        self.piece(self.range.start, &[])
    }

    /// The payloads of the PIECEs that bring `bytes` as the range's.
    pub(crate) fn pieces(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let parts = bytes.chunks(PIECE_LEN).enumerate();
        parts.map(|(n, part)| self.piece(self.range.start + n * PIECE_LEN, part)).collect()
    }

    fn piece(&self, offset: usize, bytes: &[u8]) -> Vec<u8> {
        let offset = u32::try_from(offset).expect("a range's start was read as four bytes");
        [&self.id.to_be_bytes()[..], &offset.to_be_bytes(), bytes].concat()
    }
}

/// A CBOR integer, not negative, of at most four bytes, and what follows it.
fn unsigned(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    Some(match first {
        0..=23 => (u32::from(first), rest),
        24 => rest.split_first().map(|(n, rest)| (u32::from(*n), rest))?,
        25 => rest.split_first_chunk().map(|(n, rest)| (u32::from(u16::from_be_bytes(*n)), rest))?,
        26 => rest.split_first_chunk().map(|(n, rest)| (u32::from_be_bytes(*n), rest))?,
        _ => return None,
    })
}

/// The payload of a HAVE that claims every blob of what an ASK_HAVE asks about.
pub(crate) fn have_all(asked: &[u8]) -> Option<Vec<u8>> {
    have(asked, &[5, 0xF5])
}

/// The payload of a HAVE that is not owed and says nothing true: of the channel asked about, or of none.
pub(crate) fn have_noise(asked: Option<&[u8]>, rng: &mut Rng) -> Vec<u8> {
    let mut nothing = [&[0xA2, 1, 0x50][..], &rng.bytes_32()[..16], &[2, 1]].concat();
    if let Some(asked) = asked.filter(|asked| asked.len() >= ASKED_LEN_MIN && rng.below(4) > 0) {
        nothing = asked.to_vec();
    }
    let claim = match rng.below(3) {
        0 => {
            let len = u16::try_from(BITMAP_LEN).expect("it fits a frame").to_be_bytes();
            let mut bitmap = vec![0; BITMAP_LEN];
            rng.fill(&mut bitmap);
            [&[3, 0x59][..], &len, &bitmap].concat()
        }
        1 => {
            let positions: Vec<u8> =
                (0..=255).flat_map(|_| [&[0x1A][..], &rng.bytes_32()[..4]].concat()).collect();
            [&[4, 0x99, 1, 0][..], &positions].concat()
        }
        _ => vec![5, 0xF5],
    };
    have(&nothing, &claim).unwrap_or_default()
}

/// The map of an ASK_HAVE with one entry more.
fn have(asked: &[u8], claim: &[u8]) -> Option<Vec<u8>> {
    let entries = asked.strip_prefix(&[0xA2])?;
    Some([&[0xA3], entries, claim].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_want_is_read_and_answered_in_order() {
        let payload =
            [&[0xA4, 1, 9, 2, 0x58, 32][..], &[5; 32], &[3, 25, 0xF1, 0, 4, 26, 0, 1, 0, 0]].concat();
        let want = Want::parse(&payload).expect("core's form");
        assert_eq!((want.blob, want.range.clone()), (BlobId([5; 32]), 61_696..127_232));
        assert_eq!(want.refusal(), [0, 0, 0, 9, 0, 0, 0xF1, 0]);
        let pieces = want.pieces(&vec![7; 65_536]);
        assert_eq!(pieces.iter().map(|piece| piece.len() - 8).collect::<Vec<_>>(), [61_440, 4_096]);
        assert_eq!(pieces[1][4..8], (61_696_u32 + 61_440).to_be_bytes());
        assert!((0..payload.len()).all(|len| Want::parse(&payload[..len]).is_none()));
    }

    #[test]
    fn a_claim_names_what_was_asked() {
        let asked = [&[0xA2, 1, 0x50][..], &[6; 16], &[2, 7]].concat();
        let all = have_all(&asked).expect("core's form");
        assert_eq!((all[0], &all[1..asked.len()], &all[asked.len()..]), (0xA3, &asked[1..], &[5, 0xF5][..]));
        assert_eq!(have_all(&[]), None);
    }
}

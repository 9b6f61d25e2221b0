//! Parts, their values, and sealed pieces of any numbers (`docs/protocol.md` §2 and §3).

use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, NONCE_LEN, PLAIN_LEN, TAG_LEN};
use megatorrent_core::ids::{BlobId, Root, Secret};
use megatorrent_core::manifest::{Chunk, Slice};
use megatorrent_core::parts::{self, Mask, PART_LEN, PARTS, VALUES_LEN, Values};
use megatorrent_fuzz::{byte_strings, check, near, number};

const KEY: Secret = Secret::new([7; 32]);
const PART: u64 = PART_LEN as u64;
const PLAIN: u64 = PLAIN_LEN as u64;
/// Lengths and places at which a part or a blob ends.
const EDGES: [u64; 7] = [0, PART, 2 * PART, 9 * PART, PLAIN - PART, PLAIN, BLOB_LEN as u64];
/// Longest buffer of a case that is not a part's.
const SHORT_MAX: u64 = 2 * PART;

/// A blob that somebody sealed.
struct Sealed {
    at: BlobRef,
    content_len: usize,
    bytes: Vec<u8>,
    values: Values,
}

fn sealed() -> &'static [Sealed] {
    static SEALED: OnceLock<Vec<Sealed>> = OnceLock::new();
    let seal = |content_len: usize| {
        let mut bytes = vec![3; BLOB_LEN];
        let (at, values) = blob::seal_valued(&KEY, &mut bytes, content_len);
        Sealed { at, content_len, bytes, values }
    };
    let lens = [0, 1, PART_LEN - 1, PART_LEN, PART_LEN + 1, 9 * PART_LEN + 77, PLAIN_LEN];
    SEALED.get_or_init(|| lens.into_iter().map(seal).collect())
}

fn values() -> &'static [Vec<u8>] {
    static VALUES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    VALUES.get_or_init(|| {
        let vectors = byte_strings("blob", "root", "values");
        let ours = sealed().iter().map(|one| one.values.as_bytes().to_vec());
        ours.chain(vectors.into_iter().filter(|bytes| bytes.len() == VALUES_LEN)).collect()
    })
}

fn index(input: &mut Unstructured<'_>, edges: &[u64]) -> Result<usize> {
    Ok(usize::try_from(number(input, edges)?).unwrap_or(usize::MAX))
}

/// Some bytes, mostly a part's number of them.
fn any_part(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let len = match input.int_in_range(0..=3)? {
        0 => number(input, &EDGES)? % SHORT_MAX,
        _ => PART,
    };
    Ok(vec![input.arbitrary()?; usize::try_from(len).expect("short")])
}

#[test]
fn values_of_anybody_give_a_root_which_is_a_blobs_only_where_they_are_its_own() {
    check!(3000, |input| {
        let bytes = near(input, values())?;
        let Ok(bytes) = <[u8; VALUES_LEN]>::try_from(bytes) else { return Ok(()) };
        let values = Values::from_bytes(bytes);
        assert_eq!(values.as_bytes(), &bytes);
        assert_eq!(values.tag(), &bytes[PARTS * 32..]);
        let root = values.root();
        let of = sealed().iter().find(|one| one.at.root == root);
        assert!(of.is_none_or(|one| one.values == values));
        Ok(())
    });
}

#[test]
fn no_part_of_any_number_or_length_checks_but_the_right_one() {
    check!(1500, |input| {
        let one = input.choose(sealed())?;
        let part = index(input, &[PARTS as u64])?;
        assert!(!one.values.check(part, &any_part(input)?), "no part is of one byte repeated");
        let from = input.int_in_range(0..=PARTS - 1)?;
        let mut right = one.bytes[from * PART_LEN..][..PART_LEN].to_vec();
        assert_eq!(one.values.check(part, &right), part == from);
        let flip: u8 = input.arbitrary()?;
        right[input.int_in_range(0..=PART_LEN - 1)?] ^= flip;
        assert_eq!(one.values.check(from, &right), flip == 0);
        Ok(())
    });
}

#[test]
fn a_part_is_completed_or_sealed_again_only_to_the_blobs_own() {
    check!(600, |input| {
        let one = input.choose(sealed())?;
        let part = index(input, &[PARTS as u64])?;
        let len_edges = [one.content_len as u64, PLAIN, u64::from(u32::MAX)];
        let content_len = index(input, &len_edges)?;
        let key = if input.ratio(1, 8)? { KEY } else { one.at.key.clone() };
        let from = input.int_in_range(0..=PARTS - 1)?;
        let part = if input.ratio(1, 4)? { part } else { from };
        let right = &one.bytes[from * PART_LEN..][..PART_LEN];
        let mut buf = if input.ratio(1, 4)? { any_part(input)? } else { right.to_vec() };
        let is_true = key == one.at.key && content_len == one.content_len && part == from && buf == *right;
        let is_completed = parts::complete_part(&key, &one.values, content_len, part, &mut buf);
        assert!(is_completed || !is_true);
        assert!(!is_completed || buf == one.bytes[part * PART_LEN..][..PART_LEN]);
        assert!(!is_completed || one.values.check(part, &buf));
        let mut plain = if input.arbitrary()? { vec![3; PART_LEN] } else { any_part(input)? };
        let is_sealed = parts::reseal_part(&key, &one.values, part, &mut plain);
        assert!(if is_sealed { one.values.check(part, &plain) } else { plain.iter().all(|byte| *byte == 0) });
        Ok(())
    });
}

#[test]
fn what_is_needed_of_a_content_holds_it_and_is_of_few_kinds() {
    check!(10_000, |input| {
        let content_len = index(input, &EDGES)?;
        let mask = parts::needed(content_len, PART_LEN);
        assert!(mask.len().is_power_of_two() && mask == Mask::first(mask.len()));
        assert!(mask == Mask::ALL || content_len <= mask.len() * PART_LEN);
        let (mask, part) = (Mask(input.arbitrary()?), index(input, &[PARTS as u64])?);
        assert_eq!(mask.has(part), !(mask & Mask::one(part)).is_empty());
        assert_eq!((mask.iter().count(), mask.iter().last()), (mask.len(), mask.last()));
        assert!(Mask::first(part).covers(Mask::one(part.wrapping_sub(1))) || part == 0);
        assert!((mask - Mask::one(part)).covers(mask & !Mask::one(part)));
        Ok(())
    });
}

#[test]
fn bytes_of_any_length_open_as_no_blob_and_stay_as_they_were() {
    check!(300, |input| {
        let one = input.choose(sealed())?;
        let len = usize::try_from(number(input, &EDGES)? % (BLOB_LEN as u64 + 40)).expect("short");
        let mut bytes = one.bytes.clone();
        bytes.resize(len, 0);
        let flip: u8 = input.arbitrary()?;
        if let Some(byte) = bytes.get_mut(index(input, &EDGES)? % BLOB_LEN) {
            *byte ^= flip;
        }
        let (is_right, before) = (bytes == one.bytes, bytes.clone());
        assert_eq!(blob::verify(&one.at.root.into(), &bytes), is_right);
        let opens = blob::open(&one.at, &mut bytes);
        assert_eq!(opens, is_right);
        assert!(opens || bytes == before);
        assert!(!opens || bytes[..one.content_len].iter().all(|byte| *byte == 3));
        Ok(())
    });
}

#[test]
fn a_slice_of_any_numbers_is_sealed_and_opened_within_its_pack_or_not_at_all() {
    check!(3000, |input| {
        let mut pack = any_part(input)?;
        let edges = [pack.len() as u64, (pack.len() as u64).saturating_sub(16)];
        let [offset, length] = [number(input, &edges)?, number(input, &edges)?];
        let to_u32 = |number| u32::try_from(number).unwrap_or(u32::MAX);
        let (pack_number, key) = (input.arbitrary()?, Secret::new([9; 32]));
        let slice = Slice { pack: pack_number, offset: to_u32(offset), length: to_u32(length), key };
        let end = u64::from(slice.offset) + u64::from(slice.length) + TAG_LEN as u64;
        let before = pack.clone();
        assert_eq!((slice.open(&mut pack), &pack), (None, &before), "nobody sealed it");
        let is_within = end <= pack.len() as u64;
        assert_eq!(slice.seal(&mut pack), is_within);
        if is_within {
            let content = slice.offset as usize..(slice.offset + slice.length) as usize;
            assert_eq!(slice.open(&mut pack), Some(content.clone()));
            assert_eq!(pack[content.clone()], before[content]);
        } else {
            assert_eq!((slice.open(&mut pack), &pack), (None, &before));
        }
        Ok(())
    });
}

#[test]
fn a_chunk_of_any_numbers_opens_within_its_blob_or_not_at_all() {
    check!(1500, |input| {
        let one = input.choose(sealed())?;
        let mut numbers = [0; 3];
        for (number, edge) in numbers.iter_mut().zip([0, BLOB_LEN as u64, one.content_len as u64]) {
            *number = u32::try_from(megatorrent_fuzz::number(input, &[edge])?).unwrap_or(u32::MAX);
        }
        let [offset, length, real_size] = numbers;
        let root = input.arbitrary::<bool>()?.then_some(one.at.root);
        let chunk = Chunk {
            id: BlobId([1; 32]),
            root,
            offset,
            length,
            key: one.at.key.clone(),
            nonce: [0; NONCE_LEN],
            real_size,
        };
        assert!(chunk.blob().is_none_or(|at| at == one.at && length as usize == BLOB_LEN));
        // Mostly too short for the chunk, since whole blobs take long.
        let len = if input.ratio(1, 8)? { BLOB_LEN } else { index(input, &[])? % 4096 };
        let mut bytes = one.bytes[..len].to_vec();
        match chunk.open(&mut bytes) {
            Some(content) => {
                assert_eq!((offset as usize, length as usize, len), (0, BLOB_LEN, BLOB_LEN));
                assert_eq!(content, 0..real_size as usize);
                assert!(bytes[content].iter().take(one.content_len).all(|byte| *byte == 3));
            }
            None => assert!(bytes == one.bytes[..len]),
        }
        Ok(())
    });
}

#[test]
fn a_reference_has_one_form() {
    check!(500, |input| {
        let bytes: [u8; 64] = input.arbitrary()?;
        let at = BlobRef::from_bytes(&bytes);
        assert_eq!((*at.to_bytes(), at.root), (bytes, Root(std::array::from_fn(|n| bytes[n]))));
        Ok(())
    });
}

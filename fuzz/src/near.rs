//! Inputs that are almost valid.

use std::ops::Range;

use arbitrary::{Result, Unstructured};

/// Edits of one input.
const EDITS_MAX: u32 = 4;
/// One input in this many is no edited seed but whatever the bytes are.
const RAW_SHARE: u8 = 16;
/// Longest piece that one edit removes, repeats or brings.
const PIECE_MAX: usize = 40;

/// Numbers at which a width, a type or a length ends.
const EDGES: [u64; 16] = [
    0,
    1,
    23,
    24,
    255,
    256,
    4096,
    32_768,
    65_535,
    65_536,
    1 << 20,
    1 << 31,
    1 << 32,
    1 << 53,
    1 << 63,
    u64::MAX,
];

/// Returns one of the seeds with a few edits, or any bytes.
///
/// # Errors
/// Where `input` is too short.
pub fn near<S: AsRef<[u8]>>(input: &mut Unstructured<'_>, seeds: &[S]) -> Result<Vec<u8>> {
    if input.ratio(1, RAW_SHARE)? {
        return Ok(input.bytes(input.len())?.to_vec());
    }
    let mut bytes = input.choose(seeds)?.as_ref().to_vec();
    for _ in 0..input.int_in_range(0..=EDITS_MAX)? {
        edit(&mut bytes, input, seeds)?;
    }
    Ok(bytes)
}

/// The same of a text; what is no UTF-8 is replaced.
///
/// # Errors
/// Where `input` is too short.
pub fn near_text(input: &mut Unstructured<'_>, seeds: &[String]) -> Result<String> {
    Ok(String::from_utf8_lossy(&near(input, seeds)?).into_owned())
}

/// Returns a number, mostly at one of these edges, or those of integers, or close to it.
///
/// # Errors
/// Where `input` is too short.
pub fn number(input: &mut Unstructured<'_>, edges: &[u64]) -> Result<u64> {
    Ok(match input.int_in_range(0..=7)? {
        0 => input.arbitrary()?,
        1 | 2 => *input.choose(&EDGES)?,
        3 => input.int_in_range(0..=32)?,
        _ if edges.is_empty() => input.int_in_range(0..=1024)?,
        _ => input.choose(edges)?.wrapping_add_signed(input.int_in_range(-2..=2)?),
    })
}

/// A piece of some bytes; perhaps none of them.
fn piece(input: &mut Unstructured<'_>, len: usize) -> Result<Range<usize>> {
    let start = input.int_in_range(0..=len)?;
    Ok(start..start + input.int_in_range(0..=PIECE_MAX.min(len - start))?)
}

fn edit<S: AsRef<[u8]>>(bytes: &mut Vec<u8>, input: &mut Unstructured<'_>, seeds: &[S]) -> Result<()> {
    let at = piece(input, bytes.len())?;
    match input.int_in_range(0..=7)? {
        0 | 1 => {
            let mask: u8 = input.arbitrary()?;
            if let Some(byte) = bytes.get_mut(at.start) {
                *byte ^= mask;
            }
        }
        2 => drop(bytes.splice(at, [])),
        3 => {
            let copy = bytes[at.clone()].to_vec();
            bytes.splice(at.start..at.start, copy);
        }
        4 => {
            let len = input.int_in_range(0..=PIECE_MAX)?;
            let new = input.bytes(len.min(input.len()))?;
            bytes.splice(at, new.iter().copied());
        }
        5 => {
            let other = input.choose(seeds)?.as_ref();
            let part = piece(input, other.len())?;
            bytes.splice(at, other[part].iter().copied());
        }
        6 => {
            // A number in the width that binary formats give it.
            let width = input.int_in_range(0..=3)?;
            let number = number(input, &[])?.to_be_bytes();
            let number = &number[8 - (1 << width)..];
            let end = bytes.len().min(at.start + number.len());
            bytes.splice(at.start..end, number.iter().copied());
        }
        _ => {
            // A number in place of the next one that is spelled in digits.
            let is_digit = |byte: &u8| byte.is_ascii_digit();
            let start = bytes[at.start..].iter().position(is_digit).map_or(at.start, |skip| at.start + skip);
            let len = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
            bytes.splice(start..start + len, number(input, &[])?.to_string().into_bytes());
        }
    }
    Ok(())
}

//! The names of files that are not whole, and the numbers in them.

use std::io;

/// How the names of files that are not whole begin and end; 16 hexadecimal digits stand between.
pub(crate) const WORKING_PREFIX: &str = ".mt-";
pub(crate) const WORKING_SUFFIX: &str = ".part";

/// The name of a file until it is whole, by its number.
pub(crate) fn working_name(number: u64) -> String {
    format!("{WORKING_PREFIX}{number:016x}{WORKING_SUFFIX}")
}

/// A number that no other file has.
pub(crate) fn free_number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

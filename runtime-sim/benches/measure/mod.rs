//! What a benchmark asks of its environment and of the machine.
#![allow(dead_code, reason = "each benchmark uses a part of it")]

use std::fmt::Debug;
use std::str::FromStr;
use std::time::Duration;

/// The number in an environment variable.
///
/// # Panics
/// Where it is no number.
pub(crate) fn number<T: FromStr<Err: Debug>>(name: &str, usual: T) -> T {
    std::env::var(name).map_or(usual, |text| text.parse().expect(name))
}

/// Whether an environment variable is set.
pub(crate) fn flag(name: &str) -> bool {
    std::env::var_os(name).is_some()
}

/// Time on a processor so far, which other programs do not lengthen (Linux; 0 elsewhere).
pub(crate) fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let ns = text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok());
    Duration::from_nanos(ns.unwrap_or_default())
}

/// Bytes of memory that this process holds (Linux; 0 elsewhere).
pub(crate) fn resident() -> u64 {
    status("VmRSS:")
}

/// The most that it held since its start or [`forget_peak`].
pub(crate) fn peak() -> u64 {
    status("VmHWM:")
}

fn status(name: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// [`peak`] begins again (Linux; elsewhere nothing happens).
pub(crate) fn forget_peak() {
    // Where it is refused, the peak is that of the whole process, which is no less true.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

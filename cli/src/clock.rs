//! This computer's clock, where it matters: a published sequence is the time, and stays signed for ever.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::exit::{Exit, Failure};

/// When the program's source was committed, in seconds since 1970, as `build.rs` found it; 0 where it did not.
const BUILT_SECS: u64 = match u64::from_str_radix(env!("MEGATORRENT_BUILT"), 10) {
    Ok(secs) => secs,
    Err(_) => panic!("build.rs says a number"),
};
/// 2026-11-01: before that there was no such program, whatever its build says.
const FIRST_SECS: u64 = 1_793_491_200;
/// 2100-01-01. No clock is right that says more.
const LAST_SECS: u64 = 4_102_444_800;

/// The time, in milliseconds since 1970; a clock that is set before 1970 counts as 1970.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Refuses a clock that cannot be right.
pub(crate) fn check(now_ms: u64) -> Result<(), Failure> {
    let (now, built) = (now_ms / 1000, BUILT_SECS.max(FIRST_SECS));
    let why = if now < built {
        format!("before this program was made ({})", utc(built * 1000))
    } else if now >= LAST_SECS {
        "after 2100".to_owned()
    } else {
        return Ok(());
    };
    let message = format!(
        "this computer's clock says {}, which is {why}: set it, or insist with --any-clock. What is published with a wrong \
         clock stays so",
        utc(now_ms)
    );
    Err(Failure::new(Exit::Other, message))
}

/// A time in words, to the second.
pub(crate) fn utc(ms: u64) -> String {
    let secs = ms / 1000;
    let (year, month, day) = civil(secs / 86_400);
    let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

/// The date of a day counted from 1970-01-01, in the Gregorian calendar: H. Hinnant's `civil_from_days`, whose years
/// begin in March.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_a_calendar_has_them() {
        for (secs, text) in [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400, "2000-02-29 00:00:00 UTC"),
            (1_593_561_599, "2020-06-30 23:59:59 UTC"),
            (FIRST_SECS, "2026-11-01 00:00:00 UTC"),
            (LAST_SECS, "2100-01-01 00:00:00 UTC"),
            (4_107_542_400, "2100-03-01 00:00:00 UTC"),
        ] {
            assert_eq!(utc(secs * 1000 + 999), text);
        }
        assert_eq!(utc(1 << 53), "287396-10-12 08:59:00 UTC");
        assert!(utc(u64::MAX).ends_with(" UTC"));
    }

    #[test]
    fn a_clock_is_refused_before_the_program_was_made_and_after_2100() {
        let built = BUILT_SECS.max(FIRST_SECS);
        assert!(
            check(built * 1000).is_ok() && check(LAST_SECS * 1000 - 1).is_ok() && check(now_ms()).is_ok()
        );
        for (ms, words) in [
            (0, "1970-01-01 00:00:00 UTC, which is before"),
            (built * 1000 - 1, "before this program was made"),
            (LAST_SECS * 1000, "2100-01-01 00:00:00 UTC, which is after 2100"),
            (u64::MAX, "after 2100"),
        ] {
            let failure = check(ms).expect_err("it cannot be right");
            assert_eq!(failure.exit, Exit::Other);
            assert!(failure.message.contains(words), "{failure}");
        }
    }
}

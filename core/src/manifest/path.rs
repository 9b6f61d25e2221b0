//! The paths that a manifest may give to files.

use alloc::string::{String, ToString};
use core::fmt::{self, Write};

use crate::error::ParseError;
use crate::limits::{NAME_LEN_MAX, PATH_LEN_MAX};

// The errors' texts name these figures.
const _: () = assert!(PATH_LEN_MAX == 4096 && NAME_LEN_MAX == 255);

/// A relative path, its components joined by `/` (`docs/protocol.md` §5). Joined to a folder it names nothing outside of it
/// on a system where `/` alone divides components. Whether a disk or a screen takes it is the exporter's business.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryPath(String);

impl EntryPath {
    /// Checks a path.
    ///
    /// # Errors
    /// [`ParseError::Path`] says what is wrong.
    pub fn new(text: &str) -> Result<Self, ParseError> {
        check(text).map_err(ParseError::Path)?;
        Ok(Self(text.to_string()))
    }

    /// Returns the path, with `/` between components.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folders above it, the nearest last: `a` and `a/b` for `a/b/c`.
    pub(super) fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.match_indices('/').map(|(end, _)| &self.0[..end])
    }
}

/// For a screen: what would show the path as another is escaped.
impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .chars()
            .try_for_each(|c| if reorders(c) { write!(f, "{}", c.escape_unicode()) } else { f.write_char(c) })
    }
}

/// Whether a screen shows what follows in another order (Unicode's bidirectional marks, embeddings, overrides and isolates), or
/// on another line.
fn reorders(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > PATH_LEN_MAX {
        return Err("is at most 4096 bytes long");
    }
    if text.chars().any(char::is_control) {
        return Err("has no control characters");
    }
    text.split('/').try_for_each(|name| match name {
        "" => Err("is relative and has no empty component"),
        "." | ".." => Err("has no component . or .."),
        _ if name.len() > NAME_LEN_MAX => Err("has components of at most 255 bytes"),
        _ => Ok(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_authors_to_choose() {
        for good in [
            "a",
            "a/b/c.txt",
            "Ünïcode/日本語.mp3",
            ".hidden",
            "a..b",
            "...",
            "NUL",
            "a:b",
            "..\\a",
            "dir /f.",
            "gpj\u{202e}exe.",
            "a\u{2028}b",
        ] {
            assert_eq!(EntryPath::new(good).as_ref().map(EntryPath::as_str), Ok(good));
        }
        let longest = ["n".repeat(NAME_LEN_MAX).as_str(); PATH_LEN_MAX / (NAME_LEN_MAX + 1)].join("/");
        assert!(EntryPath::new(&(longest.clone() + "/")).is_err() && EntryPath::new(&longest).is_ok());
        assert!(EntryPath::new(&"d/".repeat(PATH_LEN_MAX / 2)[1..]).is_err());
        let deepest = "d/".repeat(PATH_LEN_MAX / 2 - 1) + "ff";
        assert!(EntryPath::new(&deepest).is_ok() && EntryPath::new(&(deepest + "f")).is_err());
    }

    #[test]
    fn a_screen_shows_what_a_name_is() {
        let shown = |name| EntryPath::new(name).map(|path| path.to_string());
        assert_eq!(shown("gpj\u{202e}exe.").as_deref(), Ok("gpj\\u{202e}exe."));
        assert_eq!(shown("日本\\é").as_deref(), Ok("日本\\é"));
    }

    #[test]
    fn paths_that_leave_their_folder_or_break_a_line_are_refused() {
        let long = "n".repeat(NAME_LEN_MAX + 1);
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/../b",
            "a/./b",
            "a\0b",
            "a\nb",
            "\u{7f}",
            "a\u{80}",
            "a\u{9f}",
            &long,
        ] {
            assert!(matches!(EntryPath::new(bad), Err(ParseError::Path(_))), "{bad:?}");
        }
    }
}

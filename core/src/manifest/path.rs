//! The paths that a manifest may give to files.

use alloc::string::{String, ToString};
use core::fmt;

use crate::error::ParseError;
use crate::limits::{NAME_LEN_MAX, PATH_COMPONENTS_MAX, PATH_LEN_MAX};

// The errors' texts name these figures.
const _: () = assert!(PATH_LEN_MAX == 1024 && PATH_COMPONENTS_MAX == 32 && NAME_LEN_MAX == 255);

/// A relative path that cannot leave the folder it is joined to, on any common file system: components with `/`
/// between them (`docs/protocol.md` §5).
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

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn check(text: &str) -> Result<(), &'static str> {
    if text.len() > PATH_LEN_MAX {
        return Err("is at most 1024 bytes long");
    }
    if text.chars().any(|c| c.is_control() || c == '\\' || c == ':' || reorders(c)) {
        return Err("has no control characters, backslashes, colons or marks that reorder text");
    }
    if text.split('/').count() > PATH_COMPONENTS_MAX {
        return Err("has at most 32 components");
    }
    text.split('/').try_for_each(check_name)
}

fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("is relative and has no empty component"),
        "." | ".." => Err("has no component . or .."),
        _ if name.len() > NAME_LEN_MAX => Err("has components of at most 255 bytes"),
        // Windows drops a trailing dot or space, so two names would be one file.
        _ if name.ends_with(['.', ' ']) => Err("has no component that ends in a dot or a space"),
        _ if is_device(name) => {
            Err("has no component that Windows takes for a device, such as CON or NUL.txt")
        }
        _ => Ok(()),
    }
}

/// Whether `c` makes a name look like another (Unicode's bidirectional embeddings, overrides and isolates) or breaks
/// a line.
fn reorders(c: char) -> bool {
    matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Whether Windows opens a device by this name, whatever the extension.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or_default().trim_end_matches(' ').to_uppercase();
    let port = |rest: &str| {
        matches!(rest.chars().next(), Some('0'..='9' | '¹' | '²' | '³')) && rest.chars().count() == 1
    };
    matches!(&*stem, "CON" | "PRN" | "AUX" | "NUL" | "CONIN$" | "CONOUT$")
        || stem.strip_prefix("COM").or_else(|| stem.strip_prefix("LPT")).is_some_and(port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_accepted() {
        for good in [
            "a",
            "a/b/c.txt",
            "Ünïcode/日本語.mp3",
            ".hidden",
            "a..b",
            "…",
            "console.log",
            "COM10",
            "a b",
            "What?.ogg",
        ] {
            assert_eq!(EntryPath::new(good).map(|p| p.to_string()).as_deref(), Ok(good));
        }
        let deep = "d/".repeat(PATH_COMPONENTS_MAX - 1) + "f";
        assert!(EntryPath::new(&deep).is_ok());
        assert!(EntryPath::new(&"n".repeat(NAME_LEN_MAX)).is_ok());
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "n".repeat(NAME_LEN_MAX + 1);
        let deep = "d/".repeat(PATH_COMPONENTS_MAX) + "f";
        let wide = ["n".repeat(200).as_str(); 6].join("/");
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
            "a\\b",
            "..\\a",
            "\\\\host\\a",
            "C:",
            "C:/a",
            "c:a",
            "a:stream",
            "a\0b",
            "a\nb",
            "\u{7f}",
            "a\u{85}",
            "dir /f",
            "dir./f",
            "f.",
            "f ",
            "NUL",
            "nul.txt",
            "CON",
            "a/aux",
            "Lpt1.x.y",
            "com¹",
            "CONIN$",
            "con .txt",
            "gpj\u{202e}exe.",
            "a\u{2066}b",
            &long,
            &deep,
            &wide,
        ] {
            assert!(matches!(EntryPath::new(bad), Err(ParseError::Path(_))), "{bad:?}");
        }
    }
}

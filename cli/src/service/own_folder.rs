//! The folder in the node's own for the files of a channel whose user names none.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use megatorrent_core::identity::PublicKey;

/// The folder of all those, in the node's.
pub(super) const DOWNLOADS: &str = "downloads";
/// Bytes of a title that a folder is called by.
const NAME_LEN_MAX: usize = 100;
/// Digits of the key that tell a channel from another of its title.
const KEY_DIGITS: usize = 8;

/// Makes a folder for a channel, called by its title. `None`: its key has to do.
pub(super) fn make(downloads: &Path, title: &str, channel: &PublicKey) -> Option<PathBuf> {
    let name = name(title)?;
    let digits = &channel.to_string()[..KEY_DIGITS];
    fs::create_dir_all(downloads).ok()?;
    let names = [name.clone(), format!("{name} ({digits})")];
    let mut folders = names.iter().map(|name| downloads.join(name));
    // What exists is another channel's, or somebody's.
    folders.find_map(|folder| match fs::create_dir(&folder) {
        Ok(()) => Some(Some(folder)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => None,
        Err(_) => Some(None),
    })?
}

/// The name of one folder on every system, not hidden; `None`: nothing of the title is left.
fn name(title: &str) -> Option<String> {
    let is_refused = |c: char| {
        c.is_control()
            || r#"/\:*?"<>|"#.contains(c)
            || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let is_edge = |c: char| c.is_whitespace() || c == '.' || c == '_';
    let mut name: String = title.chars().map(|c| if is_refused(c) { '_' } else { c }).collect();
    name.truncate(name.floor_char_boundary(NAME_LEN_MAX));
    let name = name.trim_matches(is_edge);
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
mod tests {
    use megatorrent_core::identity::Identity;
    use megatorrent_core::ids::Secret;

    use super::*;

    #[test]
    fn a_title_becomes_the_name_of_one_folder() {
        for (title, expected) in [
            ("Films", Some("Films")),
            ("  Ünïcode 日本語 ", Some("Ünïcode 日本語")),
            ("../../etc/passwd", Some("etc_passwd")),
            (".hidden", Some("hidden")),
            ("a:b|c\n", Some("a_b_c")),
            ("gpj\u{202e}exe.", Some("gpj_exe")),
            ("", None),
            (" .. /", None),
        ] {
            assert_eq!(name(title).as_deref(), expected, "{title:?}");
        }
        let long = name(&"日".repeat(200)).unwrap();
        assert!(long.len() <= NAME_LEN_MAX && long.chars().all(|c| c == '日'));
    }

    #[test]
    fn two_channels_of_one_title_have_two_folders() {
        let downloads = tempfile::tempdir().unwrap();
        let key = Identity::new(&Secret::new([1; 32]), None).public_key();
        let folder = |title| make(downloads.path(), title, &key);
        let digits = &key.to_string()[..KEY_DIGITS];
        assert_eq!(folder("Films"), Some(downloads.path().join("Films")));
        assert_eq!(folder("Films"), Some(downloads.path().join(format!("Films ({digits})"))));
        assert_eq!((folder("Films"), folder("/")), (None, None));
    }
}

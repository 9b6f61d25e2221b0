//! Rules of core's source that no compiler checks: the walls between a node's leaves, and the size of files.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file of core, its tests and their support included, in lines.
const FILE_LINES_MAX: usize = 600;

fn files(folder: &str) -> Vec<(PathBuf, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("core's own folder") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("readable");
                files.push((path, text));
            }
        }
    }
    assert!(files.len() > 10, "{folder} is where it was");
    files.sort();
    files
}

/// Lines of `src/node` that break a rule.
fn broken(rule: impl Fn(&Path, &str) -> bool) -> Vec<String> {
    let mut broken = Vec::new();
    for (path, text) in files("src/node") {
        for (line, at) in text.lines().zip(1..) {
            if rule(&path, line.trim()) {
                broken.push(format!("{}:{at}: {}", path.display(), line.trim()));
            }
        }
    }
    broken
}

/// Returns the text after a visibility, at a line's start or later.
fn opened(text: &str) -> Option<&str> {
    if let Some(rest) = text.strip_prefix("pub ") {
        return Some(rest);
    }
    let (_, rest) = text.split_once("pub(")?;
    rest.split_once(") ").map(|(_, rest)| rest)
}

/// Whether a file holds the vocabulary that a node shares with its driver, which is data without rules.
fn is_vocabulary(path: &Path) -> bool {
    let files = ["node/api.rs", "api/command.rs", "api/status.rs", "api/store.rs", "contents/selection.rs"];
    files.iter().any(|file| path.ends_with(file))
}

/// Whether a line declares a field that other modules can touch.
fn opens_a_field(line: &str) -> bool {
    let Some(declared) = opened(line) else { return false };
    let word = declared.split([' ', ':', '(', '<']).next().unwrap_or_default();
    let items = ["fn", "const", "struct", "enum", "type", "mod", "use", "trait", "static"];
    let is_item = items.contains(&word);
    // A struct of one line, with its fields in parentheses.
    let is_open_tuple = word == "struct" && opened(declared).is_some();
    !is_item || is_open_tuple
}

#[test]
fn no_leaf_of_a_node_opens_a_field() {
    for opened in ["pub table: Table,", "pub(super) at: u64,", "pub(super) struct At(pub(super) u64);"] {
        assert!(opens_a_field(opened), "{opened}");
    }
    for closed in ["table: Table,", "pub(super) fn at(&self) -> u64 {", "pub(super) struct At(u64);"] {
        assert!(!opens_a_field(closed), "{closed}");
    }
    assert_eq!(broken(|path, line| opens_a_field(line) && !is_vocabulary(path)), Vec::<String>::new());
}

/// Whether a line ends the head of a function that lends a table for others to change.
fn lends_a_table(line: &str) -> bool {
    let tables = ["BTreeMap", "BTreeSet", "Vec<", "VecDeque", "ConnTable"];
    let returned = line.split_once("-> ").map_or("", |(_, returned)| returned);
    returned.contains("&mut ") && tables.iter().any(|table| returned.contains(table))
}

#[test]
fn no_leaf_of_a_node_lends_a_table() {
    assert!(lends_a_table("pub(super) fn lines(&mut self) -> &mut ConnTable<Line> {"));
    assert!(!lends_a_table("fn line(&mut self, lines: &mut ConnTable<Line>) -> Option<&mut Line> {"));
    assert_eq!(broken(|_, line| lends_a_table(line)), Vec::<String>::new());
}

#[test]
fn a_node_is_written_in_one_file_and_its_dispatcher_in_one_folder() {
    let scattered = |path: &Path, line: &str| {
        let is_impl = line.starts_with("impl");
        let is_of = |name: &str| line.contains(&format!(" {name}<")) || line.contains(&format!(" {name} {{"));
        let is_node_file = path.ends_with("node/mod.rs");
        let is_dispatch_file = path.components().any(|part| part.as_os_str() == "dispatch");
        is_impl && ((is_of("Node") && !is_node_file) || (is_of("Dispatcher") && !is_dispatch_file))
    };
    assert_eq!(broken(scattered), Vec::<String>::new());
}

#[test]
fn no_file_is_too_long_to_read() {
    let long: Vec<String> = [files("src"), files("tests")]
        .concat()
        .iter()
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > FILE_LINES_MAX)
        .map(|(path, lines)| format!("{}: {lines} lines", path.display()))
        .collect();
    assert_eq!(long, Vec::<String>::new());
}

//! The page in a real browser: the tests in `conformance/page` drive Debian's Chromium against real nodes and a stand-in.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Two browsers at once, however many tests run: more than a small machine has processors for would be slow for a person too.
static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

/// What `scripts/test` installs; without it the tests here are skipped.
fn is_installed(folder: &Path) -> bool {
    let has = |program: &str| {
        let mut command = Command::new(program);
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let is_there = has("node") && has("chromium") && folder.join("node_modules/playwright-core").is_dir();
    if !is_there {
        eprintln!(
            "skipped: needs node, chromium and `npm ci` in conformance/page, all of which scripts/test installs"
        );
    }
    is_there
}

/// Runs the tests of one file, after the others of its turn; what they said is shown where one fails.
fn in_browser(turn: usize, file: &str) {
    let _turn = TURNS[turn].lock().unwrap_or_else(PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../conformance/page");
    if !is_installed(&folder) {
        return;
    }
    let mut command = Command::new("node");
    command.args(["--test", "--test-reporter=spec", file]).current_dir(&folder);
    command.env("MEGATORRENT", env!("CARGO_BIN_EXE_megatorrent"));
    let output = command.output().expect("node runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // A file without tests passes too.
    assert!(!said.contains("tests 0"), "{said}");
}

#[test]
fn what_a_person_does_from_the_first_minute_on() {
    in_browser(1, "life.test.mjs");
}

#[test]
fn the_mode_line_is_never_too_hopeful() {
    in_browser(1, "mode.test.mjs");
}

#[test]
fn a_thousand_channels_stay_where_they_are() {
    in_browser(1, "thousand.test.mjs");
}

#[test]
fn hostile_texts_stay_texts() {
    in_browser(1, "hostile.test.mjs");
}

#[test]
fn the_keyboard_alone_does_it() {
    in_browser(0, "keys.test.mjs");
}

#[test]
fn every_screen_is_well_to_look_at_and_to_hear() {
    in_browser(0, "sight.test.mjs");
}

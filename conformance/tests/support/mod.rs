//! What the tests with other programs have in common.

use std::process::Command;
use std::sync::OnceLock;

/// Debian's Python: the one whose packages `scripts/test` installs.
const PYTHON: &str = "/usr/bin/python3";

/// A program of `peers/`, to be run by Python.
///
/// # Panics
/// Where Python or its `cryptography` package is missing, with what to do about it.
pub(crate) fn python(program: &str) -> Command {
    static USABLE: OnceLock<bool> = OnceLock::new();
    let usable = USABLE.get_or_init(|| {
        Command::new(PYTHON).args(["-c", "import cryptography"]).status().is_ok_and(|status| status.success())
    });
    assert!(
        *usable,
        "{PYTHON} with the package cryptography is needed: run scripts/test, or `apt-get install python3 python3-cryptography`"
    );
    let mut command = Command::new(PYTHON);
    command.arg(format!("{}/peers/{program}", env!("CARGO_MANIFEST_DIR")));
    command
}

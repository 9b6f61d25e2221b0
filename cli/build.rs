//! Finds the commit from which the program is built: what MEGATORRENT_COMMIT says, else what git says of this folder, else
//! nothing, as from a tarball. And when that was committed: what SOURCE_DATE_EPOCH says, else git, else nothing.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=MEGATORRENT_COMMIT");
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    let told = std::env::var("MEGATORRENT_COMMIT").ok();
    let commit = told.or_else(|| checked_out("%H")).unwrap_or_else(|| "unknown".into());
    println!("cargo:rustc-env=MEGATORRENT_COMMIT={commit}");
    let told = std::env::var("SOURCE_DATE_EPOCH").ok();
    let built = told.or_else(|| checked_out("%ct")).and_then(|secs| secs.parse().ok()).unwrap_or(0_u64);
    println!("cargo:rustc-env=MEGATORRENT_BUILT={built}");
}

/// What git says of the commit of the repository of which this is a part, and not of one around a tarball's folder.
fn checked_out(format: &str) -> Option<String> {
    if !Path::new("../.git").exists() {
        return None;
    }
    // HEAD names a branch; its log grows whenever another commit is checked out or made.
    for file in ["HEAD", "logs/HEAD"] {
        let path = git(&["rev-parse", "--git-path", file])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
        }
    }
    git(&["-c", "log.showSignature=false", "show", "--no-patch", &format!("--format={format}"), "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_owned())
}

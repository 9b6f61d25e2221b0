//! Finds the commit from which the program is built: what MEGATORRENT_COMMIT says, else what git says of this folder, else
//! nothing, as from a tarball. And when that was committed: what SOURCE_DATE_EPOCH says, else git, else nothing. And whether
//! chacha20 was built with its AVX-512 backend.

use std::path::Path;
use std::process::Command;

/// What RUSTFLAGS may tell the crates of ciphers, which `--version -v` heeds.
const CFGS: [(&str, &str); 6] = [
    ("chacha20_avx512", "none()"),
    ("chacha20_backend", r#""soft", "sse2", "avx2", "avx512""#),
    ("poly1305_backend", r#""soft""#),
    ("sha2_backend", r#""soft""#),
    ("sha2_256_backend", r#""soft""#),
    ("curve25519_dalek_backend", r#""fiat", "serial", "simd", "avx512""#),
];

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
    for (name, values) in CFGS {
        println!("cargo:rustc-check-cfg=cfg({name}, values({values}))");
    }
    // The build script of our chacha20 says so (vendor/README.md); that of crates.io has none, and is built so by RUSTFLAGS.
    if std::env::var_os("DEP_CHACHA20_AVX512").is_some() {
        println!("cargo:rustc-cfg=chacha20_avx512");
    }
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

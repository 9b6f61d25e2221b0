//! Finds the commit from which the program is built: what MEGATORRENT_COMMIT says, else what git says of this folder, else
//! nothing, as from a tarball. And when that was committed: what SOURCE_DATE_EPOCH says, else git, else nothing. And whether
//! chacha20 was built with its AVX-512 backend. And packs the files of the page.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
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

fn main() -> io::Result<()> {
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
    println!("cargo:rerun-if-changed=page");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    pack_all(Path::new("page"), &out.join("page"))
}

/// Packs each file of a folder, as browsers unpack it (RFC 1952).
fn pack_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, name) = (entry.path(), entry.file_name());
        if entry.file_type()?.is_dir() {
            pack_all(&from, &to.join(name))?;
        } else {
            let mut name = name;
            name.push(".gz");
            fs::write(to.join(name), pack(&fs::read(from)?))?;
        }
    }
    Ok(())
}

fn pack(bytes: &[u8]) -> Vec<u8> {
    // Deflate, no flags, no time, as small as can be, no system.
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255];
    packed.extend(miniz_oxide::deflate::compress_to_vec(bytes, 10));
    packed.extend(crc32(bytes).to_le_bytes());
    // Its length, in 32 bits whatever it is.
    packed.extend((bytes.len() as u64).to_le_bytes().iter().take(4));
    packed
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), step))
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

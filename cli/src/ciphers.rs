//! `--version`: what the program is, and which code its ciphers run on this processor.
//!
//! The crates choose among their backends by what they were built with and what the processor has, and only `blake3` says what it
//! chose. For the others this repeats their choice: the cfgs of `RUSTFLAGS` are seen here too, and `build.rs` learns from `chacha20`
//! what its build script sets.

use serde_json::{Value, json};

use crate::exit::Failure;
use crate::output::Output;

/// An algorithm, what it is for, the crate that has it, and the backend in use.
type Cipher = (&'static str, &'static str, &'static str, String);

/// Tells the version, with `-v` the ciphers too.
pub(crate) fn run(verbose: bool, output: Output) -> Result<(), Failure> {
    let (version, commit) = (env!("CARGO_PKG_VERSION"), env!("MEGATORRENT_COMMIT"));
    let ciphers = ciphers();
    let object = |(name, purpose, of, backend): &Cipher| json!({ "name": name, "for": purpose, "crate": of, "backend": backend });
    let mut text = format!("megatorrent {version}");
    if verbose {
        text = text + "\ncommit " + commit;
        let line =
            |(name, purpose, of, backend): &Cipher| format!("\n{name:<9} {backend:<9} {of:<14} {purpose}");
        text.extend(ciphers.iter().map(line));
    }
    let ciphers: Vec<Value> = ciphers.iter().map(object).collect();
    output.result(&json!({ "version": version, "commit": commit, "ciphers": ciphers }), &text)
}

fn ciphers() -> [Cipher; 7] {
    [
        ("ChaCha20", "sealing, with Poly1305", "chacha20", chacha20().into()),
        ("Poly1305", "sealing, with ChaCha20", "poly1305", poly1305().into()),
        ("BLAKE3", "names of blobs and values of parts", "blake3", blake3()),
        ("SHA-256", "ids of blobs", "sha2", sha2().into()),
        ("Ed25519", "signatures", "ed25519-dalek", ed25519().into()),
        ("X25519", "keys of connections", "x25519-dalek", PORTABLE.into()),
        ("BLAKE2b", "tags and topics", "blake2", PORTABLE.into()),
    ]
}

const PORTABLE: &str = "portable";

/// Whether the processor, and what was built for it, have a feature.
macro_rules! has {
    ($feature:tt) => {{
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        let has = std::arch::is_x86_feature_detected!($feature);
        #[cfg(not(any(target_arch = "x86", target_arch = "x86_64")))]
        let has = false;
        has
    }};
}

fn chacha20() -> &'static str {
    let is_neon = cfg!(all(target_arch = "aarch64", target_feature = "neon"));
    if cfg!(chacha20_backend = "soft") {
        PORTABLE
    } else if cfg!(chacha20_backend = "avx512") {
        "AVX-512"
    } else if cfg!(chacha20_backend = "avx2") {
        "AVX2"
    } else if cfg!(chacha20_backend = "sse2") {
        "SSE2"
    } else if cfg!(chacha20_avx512) && has!("avx512f") && has!("avx512vl") {
        "AVX-512"
    } else if has!("avx2") {
        "AVX2"
    } else if has!("sse2") {
        "SSE2"
    } else if is_neon {
        "NEON"
    } else {
        PORTABLE
    }
}

fn poly1305() -> &'static str {
    if !cfg!(poly1305_backend = "soft") && has!("avx2") { "AVX2" } else { PORTABLE }
}

fn blake3() -> String {
    let chosen = format!("{:?}", blake3::platform::Platform::detect());
    match chosen.as_str() {
        "AVX512" => "AVX-512".into(),
        "SSE41" => "SSE4.1".into(),
        "Portable" => PORTABLE.into(),
        _ => chosen,
    }
}

fn sha2() -> &'static str {
    #[cfg(target_arch = "aarch64")]
    let has_sha2 = std::arch::is_aarch64_feature_detected!("sha2");
    #[cfg(not(target_arch = "aarch64"))]
    let has_sha2 = false;
    if cfg!(any(sha2_backend = "soft", sha2_256_backend = "soft")) {
        PORTABLE
    } else if has!("sha") && has!("sse4.1") {
        "SHA-NI"
    } else if has_sha2 {
        "SHA2"
    } else {
        PORTABLE
    }
}

fn ed25519() -> &'static str {
    // Its AVX-512 backend is built in only where RUSTFLAGS say so, or that the whole program is for such processors.
    let is_for_avx512 = cfg!(all(target_feature = "avx512ifma", target_feature = "avx512vl"));
    let has_backend = cfg!(curve25519_dalek_backend = "avx512")
        || is_for_avx512 && cfg!(not(curve25519_dalek_backend = "simd"));
    let is_serial = cfg!(any(curve25519_dalek_backend = "serial", curve25519_dalek_backend = "fiat"));
    if is_serial || cfg!(not(target_arch = "x86_64")) {
        PORTABLE
    } else if has_backend && has!("avx512ifma") && has!("avx512vl") {
        "AVX-512"
    } else if has!("avx2") {
        "AVX2"
    } else {
        PORTABLE
    }
}

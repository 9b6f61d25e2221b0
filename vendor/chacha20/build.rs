//! Builds the AVX-512 backend in. The crate chooses it at run time, where the processor has AVX-512.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cfg=chacha20_avx512");
    // A crate that depends on this one and has a build script finds it there as DEP_CHACHA20_AVX512.
    println!("cargo::metadata=AVX512=1");
}

//! Fuzz targets of core, a test file for each family: what holds of any bytes that a peer, an author or a file may bring.
//!
//! A target takes bytes and spells its input from them: mostly a conformance vector with a few edits ([`near()`]), so that inputs are
//! almost valid. Three engines choose the bytes:
//!
//! - `cargo test` plays the same [`Cases`] each time.
//! - `scripts/soak` plays cases that nobody has tried, with [`FIRST`] and [`SECONDS`]. With [`FIRST`] alone a case is played again.
//! - `cargo bolero test -p megatorrent-fuzz --sanitizer NONE TARGET` has libFuzzer choose them by what they reach.

mod cases;
mod near;
mod seeds;
mod serving;

pub use cases::{Cases, FIRST, SECONDS};
pub use near::{near, near_text, number};
pub use seeds::{byte_strings, texts};
pub use serving::Serving;

// What `check!` names.
#[doc(hidden)]
pub use {arbitrary, bolero};

/// Checks a property of an [`arbitrary::Unstructured`], in so many cases under `cargo test`.
#[macro_export]
macro_rules! check {
    ($count:expr, $property:expr) => {{
        let property: fn(&mut $crate::arbitrary::Unstructured<'_>) -> $crate::arbitrary::Result<()> =
            $property;
        let property = move |bytes: &[u8]| {
            // An input that is too short for what it spells says nothing.
            let _ = property(&mut $crate::arbitrary::Unstructured::new(bytes));
        };
        #[cfg(fuzzing)]
        $crate::bolero::check!().for_each(property);
        #[cfg(not(fuzzing))]
        $crate::bolero::TestTarget::new($crate::Cases::new($count)).for_each(property);
    }};
}

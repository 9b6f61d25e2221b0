//! The conformance vectors as what inputs begin with.

use std::path::Path;

use megatorrent_conformance::Outcome;

/// How often a case stands among the seeds that is not refused: inputs near it reach further.
const TAKEN_SHARE: usize = 4;

/// Returns an argument of all cases of an operation, as hex spells it. Arguments that are only described are left out: they are long.
///
/// # Panics
/// Where the layer's vectors are not in their folder, or have no such argument.
pub fn byte_strings(layer: &str, op: &str, argument: &str) -> Vec<Vec<u8>> {
    let texts = texts(layer, op, argument);
    texts.iter().map(|text| base16ct::lower::decode_vec(text).expect("vectors are hex")).collect()
}

/// The same of an argument that is a text.
///
/// # Panics
/// As [`byte_strings`] does.
pub fn texts(layer: &str, op: &str, argument: &str) -> Vec<String> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../conformance/vectors"));
    let file = megatorrent_conformance::load(folder, layer).expect("the vectors are committed");
    let cases = file.cases.iter().filter(|case| case.op == op);
    let mut texts = Vec::new();
    for case in cases {
        let Some(text) = case.input.get(argument).and_then(|value| value.as_str()) else { continue };
        let is_taken = matches!(case.outcome, Outcome::Expect(_));
        texts.extend(vec![text.to_owned(); if is_taken { TAKEN_SHARE } else { 1 }]);
    }
    assert!(!texts.is_empty(), "{layer} has no {argument} of {op}");
    texts
}

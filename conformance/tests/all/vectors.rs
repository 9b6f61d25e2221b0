//! The committed vectors agree with core, and with a program that shares no code with core.

use std::fs;
use std::path::Path;

use megatorrent_conformance::{LAYERS, Outcome, load, to_text};

fn folder() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/vectors"))
}

#[test]
fn regenerating_changes_nothing() {
    for layer in &LAYERS {
        let fresh = layer.generate().unwrap_or_else(|problems| panic!("{problems:#?}"));
        let committed =
            fs::read_to_string(folder().join(layer.name).with_extension("json")).expect("committed");
        assert!(
            to_text(&fresh) == committed,
            "{}: the protocol changed, or the vectors: see `cargo run -p megatorrent-conformance -- generate`",
            layer.name
        );
    }
}

#[test]
fn every_vector_holds_and_a_changed_one_does_not() {
    for layer in &LAYERS {
        let mut file = load(folder(), layer.name).expect("committed");
        assert_eq!(layer.check(&file), Vec::<String>::new());
        for case in &mut file.cases {
            case.outcome = match &case.outcome {
                Outcome::Expect(_) => Outcome::Reject("nothing".into()),
                Outcome::Reject(_) => Outcome::Expect("something".into()),
            };
        }
        assert_eq!(layer.check(&file).len(), file.cases.len(), "{}", layer.name);
    }
}

#[test]
fn no_file_is_left_from_a_layer_that_is_gone() {
    let names = fs::read_dir(folder()).expect("committed").map(|entry| entry.expect("readable").file_name());
    let files = names.filter(|name| Path::new(name).extension().is_some());
    assert_eq!(files.count(), LAYERS.len());
}

#[test]
fn a_program_that_shares_no_code_agrees() {
    let report = crate::support::python("check_vectors.py").arg(folder()).output().expect("python3 runs");
    let text = String::from_utf8_lossy(&report.stdout);
    assert!(report.status.success(), "{text}{}", String::from_utf8_lossy(&report.stderr));
    let report: serde_json::Value = serde_json::from_str(&text).expect("one JSON line");
    let checked = report["checked"].as_u64().expect("a number");
    let cases = LAYERS.iter().map(|layer| load(folder(), layer.name).expect("committed").cases.len() as u64);
    assert_eq!(checked, cases.sum::<u64>(), "every case is checked");
}

#[test]
fn that_program_sees_a_changed_vector() {
    let changed = tempfile::tempdir().expect("a folder");
    fs::create_dir(changed.path().join("foreign")).expect("a folder");
    for name in ["foreign/heads.json", "bep44.json", "body.json", "head.json", "v6.json"] {
        let text = fs::read_to_string(folder().join(name)).expect("committed");
        let text = text.replace("\"expect\": true", "\"expect\": false");
        let text = text.replace("\"reject\": \"malformed\"", "\"reject\": \"tag\"");
        let text = text.replace("\"reject\": \"root\"", "\"reject\": \"tag\"");
        fs::write(changed.path().join(name), text.replace("\"count\": 18", "\"count\": 19"))
            .expect("written");
    }
    let report =
        crate::support::python("check_vectors.py").arg(changed.path()).output().expect("python3 runs");
    assert_eq!(report.status.code(), Some(1));
    let said = String::from_utf8_lossy(&report.stdout);
    for name in [
        "bep44.json: a good item",
        "body.json: 16 lists and a number",
        "head.json: nested 33 deep",
        "v6.json: WANT of no part",
        "v6.json: PARTS with a wrong tag",
        "v6.json: positions of a body, packs",
    ] {
        assert!(said.contains(name), "{name}: {said}");
    }
}

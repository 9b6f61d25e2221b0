//! Writes and checks the conformance vectors: `generate` and `check`, with the folder as an optional argument.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use megatorrent_conformance::{LAYERS, load, to_text};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let folder =
        arguments.get(1).map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors"), PathBuf::from);
    let problems = match arguments.first().map(String::as_str) {
        Some("generate") => generate(&folder),
        Some("check") => check(&folder),
        _ => {
            eprintln!("usage: megatorrent-conformance generate|check [FOLDER]");
            return ExitCode::from(2);
        }
    };
    for problem in &problems {
        eprintln!("{problem}");
    }
    if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Writes every layer's file; returns what failed.
fn generate(folder: &Path) -> Vec<String> {
    let write = |layer: &megatorrent_conformance::Layer| match layer.generate() {
        Err(problems) => problems,
        Ok(file) => {
            let path = folder.join(layer.name).with_extension("json");
            match fs::create_dir_all(folder).and_then(|()| fs::write(&path, to_text(&file))) {
                Ok(()) => {
                    println!("{}: {} cases", path.display(), file.cases.len());
                    Vec::new()
                }
                Err(error) => vec![format!("{}: {error}", path.display())],
            }
        }
    };
    LAYERS.iter().flat_map(write).collect()
}

/// Checks every layer's file against core; returns the differences.
fn check(folder: &Path) -> Vec<String> {
    let differences = |layer: &megatorrent_conformance::Layer| match load(folder, layer.name) {
        Err(error) => vec![format!("{}: {error}", folder.join(layer.name).display())],
        Ok(file) => {
            println!("{}: {} cases", layer.name, file.cases.len());
            layer.check(&file)
        }
    };
    LAYERS.iter().flat_map(differences).collect()
}

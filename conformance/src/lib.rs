//! Conformance vectors: the output that an implementation of the protocol must give for each input, as JSON by layer.
//!
//! Goals: a vector is complete (no "our random numbers"), names the paragraph of `docs/protocol.md` it stands for, and
//! is either an expected output or a class of refusal. Non-goals: rules. Every output here is computed by
//! `megatorrent-core`; this crate only describes inputs and prints outputs. That the outputs are right is checked by
//! `peers/check_vectors.py`, which shares no code with core.

mod layers;
mod value;

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use layers::LAYERS;
use value::{Fault, Input};

/// Version of the files' form; a reader refuses another.
pub const SCHEMA: u32 = 2;

/// One file of vectors.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct VectorFile {
    /// [`SCHEMA`].
    pub schema: u32,
    /// The layer's name, which is also the file's.
    pub layer: String,
    /// The inputs and outputs of the layer's operations.
    pub about: String,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One vector.
#[derive(Debug, Serialize, Deserialize, PartialEq)]
pub struct Case {
    /// Unique within its file.
    pub name: String,
    /// The paragraph it stands for, such as `docs/protocol.md §9`.
    pub section: String,
    /// The operation, one of the layer's.
    pub op: String,
    /// The operation's arguments.
    pub input: Value,
    /// The expected outcome.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// The expected outcome of a case.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// This output.
    Expect(Value),
    /// A refusal of this class.
    Reject(String),
}

/// A layer: its cases and how core is asked for their outcomes.
pub struct Layer {
    /// Name of the layer and its file.
    pub name: &'static str,
    about: &'static str,
    cases: fn(&mut Cases),
    run: fn(&str, Input<'_>) -> Result<Value, Fault>,
}

/// Collects a layer's cases before their outcomes are known.
pub(crate) struct Cases {
    section: u8,
    list: Vec<Wanted>,
}

struct Wanted {
    section: u8,
    name: String,
    op: &'static str,
    input: Value,
    reject: Option<&'static str>,
}

impl Cases {
    /// The section of `docs/protocol.md` for the cases that follow.
    pub(crate) fn section(&mut self, section: u8) {
        self.section = section;
    }

    /// A case that has an output.
    pub(crate) fn accept(&mut self, name: impl Into<String>, op: &'static str, input: Value) {
        self.push(name.into(), op, input, None);
    }

    /// A case that is refused, and the class of refusal that its author expects.
    pub(crate) fn reject(
        &mut self,
        name: impl Into<String>,
        op: &'static str,
        input: Value,
        class: &'static str,
    ) {
        self.push(name.into(), op, input, Some(class));
    }

    fn push(&mut self, name: String, op: &'static str, input: Value, reject: Option<&'static str>) {
        self.list.push(Wanted { section: self.section, name, op, input, reject });
    }
}

impl Layer {
    /// The layer's vectors.
    ///
    /// # Errors
    /// Every case in which core does not do what the case's author expects, in words.
    pub fn generate(&self) -> Result<VectorFile, Vec<String>> {
        let mut wanted = Cases { section: 0, list: Vec::new() };
        (self.cases)(&mut wanted);
        let mut problems = Vec::new();
        let mut cases: Vec<Case> = Vec::new();
        for Wanted { section, name, op, input, reject } in wanted.list {
            let outcome = match self.outcome(op, &input) {
                Ok(outcome) => outcome,
                Err(why) => {
                    problems.push(format!("{}: {name}: {why}", self.name));
                    continue;
                }
            };
            let expected = match (&outcome, reject) {
                (Outcome::Expect(_), None) => true,
                (Outcome::Reject(class), Some(wanted)) => class == wanted,
                _ => false,
            };
            if !expected || cases.iter().any(|case| case.name == name) {
                problems.push(format!("{}: {name}: unexpected or repeated: {outcome:?}", self.name));
            }
            cases.push(Case {
                name,
                section: format!("docs/protocol.md §{section}"),
                op: op.into(),
                input,
                outcome,
            });
        }
        let file = VectorFile { schema: SCHEMA, layer: self.name.into(), about: self.about.into(), cases };
        if problems.is_empty() { Ok(file) } else { Err(problems) }
    }

    /// Asks core for every outcome in `file`; returns the differences, in words.
    pub fn check(&self, file: &VectorFile) -> Vec<String> {
        if file.schema != SCHEMA || file.layer != self.name {
            return vec![format!(
                "{}: schema {} of layer {} is not read here",
                self.name, file.schema, file.layer
            )];
        }
        let differs = |case: &Case| match self.outcome(&case.op, &case.input) {
            Ok(outcome) if outcome == case.outcome => None,
            Ok(outcome) => {
                Some(format!("{}: {}: {outcome:?} instead of {:?}", self.name, case.name, case.outcome))
            }
            Err(why) => Some(format!("{}: {}: {why}", self.name, case.name)),
        };
        file.cases.iter().filter_map(differs).collect()
    }

    fn outcome(&self, op: &str, input: &Value) -> Result<Outcome, String> {
        match (self.run)(op, Input::new(input)) {
            Ok(output) => Ok(Outcome::Expect(output)),
            Err(Fault::Reject(class)) => Ok(Outcome::Reject(class.into())),
            Err(Fault::BadVector(why)) => Err(why),
        }
    }
}

/// A file's text: JSON, indented, with a newline at the end.
pub fn to_text(file: &VectorFile) -> String {
    let mut text = serde_json::to_string_pretty(file).expect("vectors are plain JSON");
    text.push('\n');
    text
}

/// Reads the file of `layer` in `folder`.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where it is no vector file.
pub fn load(folder: &Path, layer: &str) -> io::Result<VectorFile> {
    let text = fs::read_to_string(folder.join(layer).with_extension("json"))?;
    serde_json::from_str(&text).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

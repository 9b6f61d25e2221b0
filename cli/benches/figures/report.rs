//! Figures on stdout: a table for people, or a line of JSON each.

use serde_json::json;

/// The requirement that a figure is held against.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    None,
    AtLeast(f64),
    AtMost(f64),
}

/// Where figures go.
pub(crate) struct Report {
    json: bool,
}

impl Report {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    /// What was measured on.
    pub(crate) fn machine(&self) {
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let model = model.map_or("unknown", |(_, model)| model);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        if self.json {
            println!("{}", json!({ "figure": "machine", "cpu": model, "cores": cores }));
        } else {
            println!("{model}, {cores} cores");
            println!("{:<58} {:>9} {:<5} {:>9} {:>9}  goal", "figure", "median", "unit", "min", "max");
        }
    }

    /// Opens a group of figures.
    pub(crate) fn heading(&self, text: &str) {
        if !self.json {
            println!("\n{text}");
        }
    }

    /// One figure, measured several times. Returns the median.
    pub(crate) fn figure(&self, name: &str, unit: &str, values: &[f64], goal: Goal) -> f64 {
        let (median, min, max) = summary(values);
        if self.json {
            let goal = match goal {
                Goal::None => None,
                Goal::AtLeast(bound) => Some(json!({ "at_least": bound, "met": median >= bound })),
                Goal::AtMost(bound) => Some(json!({ "at_most": bound, "met": median <= bound })),
            };
            let line = json!({
                "figure": name, "unit": unit, "median": median, "min": min, "max": max, "runs": values, "goal": goal,
            });
            println!("{line}");
        } else {
            let goal = match goal {
                Goal::None => String::new(),
                Goal::AtLeast(bound) => format!("≥ {bound}: {}", verdict(median >= bound)),
                Goal::AtMost(bound) => format!("≤ {bound}: {}", verdict(median <= bound)),
            };
            println!("{name:<58} {median:>9.2} {unit:<5} {min:>9.2} {max:>9.2}  {goal}");
        }
        median
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

/// Median, least and greatest.
fn summary(values: &[f64]) -> (f64, f64, f64) {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let median = match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[middle],
        _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
    };
    (median, sorted.first().copied().unwrap_or(f64::NAN), sorted.last().copied().unwrap_or(f64::NAN))
}

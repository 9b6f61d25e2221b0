//! The engine of `cargo test`: numbered cases, the same on every machine.

use std::any::type_name;
use std::env;
use std::fmt::Debug;
use std::str::FromStr;
use std::time::{Duration, Instant};

use bolero::bolero_engine::{Failure, driver, input, panic};
use bolero::{Engine, Test};
use megatorrent_core::rng::Rng;

/// The environment variable that names the first case; 0 where it is not set.
pub const FIRST: &str = "FUZZ_FIRST";
/// The environment variable that says for how long each target plays; where it is not set, each plays a fixed number of cases.
pub const SECONDS: &str = "FUZZ_SECONDS";

/// Longest input of a case; few are as long.
const LEN_MAX: u64 = 4096;

/// Plays numbered cases. Each number stands for one input.
#[derive(Debug)]
pub struct Cases {
    first: u64,
    count: u64,
    time: Option<Duration>,
}

impl Cases {
    /// Plays `count` cases, unless the environment says otherwise.
    ///
    /// # Panics
    /// Where the environment says something that is no number.
    pub fn new(count: u64) -> Self {
        Self { first: variable(FIRST).unwrap_or(0), count, time: variable(SECONDS).map(Duration::from_secs) }
    }
}

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

/// The input of a case.
fn bytes_of(case: u64) -> Vec<u8> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&case.to_le_bytes());
    let mut rng = Rng::new(seed);
    let len_max = [32, 256, LEN_MAX][(case % 3) as usize];
    let mut bytes = vec![0; usize::try_from(rng.below(len_max + 1)).expect("small")];
    rng.fill(&mut bytes);
    bytes
}

/// The options that have `cargo test` play one target, whose property has this type: `…<FILE::TARGET::{{closure}}>`.
fn filter(property: &str) -> String {
    let path = property.rsplit('<').next().unwrap_or_default();
    match path.split("::").collect::<Vec<_>>()[..] {
        [file, target, ..] => format!("--test {file} {target}"),
        _ => property.to_owned(),
    }
}

impl<T: Test> Engine<T> for Cases
where
    T::Value: Debug,
{
    type Output = ();

    fn run(self, mut test: T, options: driver::Options) {
        panic::set_hook();
        let begun = Instant::now();
        let is_over = |played: u64| match self.time {
            Some(time) => begun.elapsed() >= time,
            None => played >= self.count,
        };
        for case in self.first.. {
            if is_over(case - self.first) {
                return;
            }
            let bytes = bytes_of(case);
            let forwards = panic::forward_panic(false);
            let outcome = test.test(&mut input::Bytes::new(&bytes, &options));
            let failure = outcome.err().map(|error| {
                let smaller = test.shrink(bytes.clone(), None, &options);
                smaller.unwrap_or_else(|| Failure {
                    error,
                    input: test.generate_value(&mut input::Bytes::new(&bytes, &options)),
                    seed: None,
                })
            });
            panic::forward_panic(forwards);
            if let Some(failure) = failure {
                panic!(
                    "{failure}
again: {FIRST}={case} cargo test -p megatorrent-fuzz {}",
                    filter(type_name::<T>())
                );
            }
        }
    }
}

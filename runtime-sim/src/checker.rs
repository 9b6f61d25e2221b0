//! Checkers: which ones can object to a run, and how an objection from deep in the world reaches the caller.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

/// A checker of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checker {
    /// The content of stores.
    Stores,
    /// The delivered files.
    Files,
    /// Jobs are answered, each once.
    Jobs,
    /// The limits of a node.
    Caps,
    /// A node and its sockets agree.
    Connections,
    /// A wanted blob is in one state.
    Blobs,
    /// A node's deadlines.
    Wakes,
    /// The gossip of names.
    Announces,
    /// A channel's sequences.
    Sequences,
    /// Bans and their reasons.
    Bans,
    /// The first version gets onto the DHT.
    Publication,
    /// Every honest peer completes.
    Liveness,
    /// An assertion, of core or of the simulator: its file and line.
    Panic(String),
}

impl Checker {
    /// The checkers that object by a panic within the world, with their name in front.
    const OF_WORLD: [Self; 7] = [
        Self::Jobs,
        Self::Caps,
        Self::Connections,
        Self::Blobs,
        Self::Wakes,
        Self::Announces,
        Self::Sequences,
    ];
}

impl fmt::Display for Checker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stores => "stores",
            Self::Files => "files",
            Self::Jobs => "jobs",
            Self::Caps => "caps",
            Self::Connections => "connections",
            Self::Blobs => "blobs",
            Self::Wakes => "wakes",
            Self::Announces => "announces",
            Self::Sequences => "sequences",
            Self::Bans => "bans",
            Self::Publication => "publication",
            Self::Liveness => "liveness",
            Self::Panic(place) => return write!(f, "panic at {place}"),
        })
    }
}

/// A checker of the world objects, by a panic with its name in front, unless a condition holds.
macro_rules! check {
    ($checker:ident, $holds:expr, $($text:tt)+) => {
        assert!($holds, "{}: {}", $crate::checker::Checker::$checker, format_args!($($text)+))
    };
}
pub(crate) use check;

thread_local! {
    /// Where this thread has panicked, while its panics are caught.
    static PLACE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Calls a function; where it panics, returns the checker that objects, and the objection. The panic itself is not printed.
/// To learn where it happened, the process gets a panic hook, which passes other panics on.
pub(crate) fn caught(doing: impl FnOnce()) -> Result<(), (Checker, String)> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let printed = take_hook();
        set_hook(Box::new(move |info| {
            let is_caught = PLACE.with_borrow_mut(|place| {
                let place = place.as_mut()?;
                *place =
                    info.location().map_or_else(String::new, |at| format!("{}:{}", at.file(), at.line()));
                Some(())
            });
            if is_caught.is_none() {
                printed(info);
            }
        }));
    });
    PLACE.set(Some(String::new()));
    // The half-changed state is only read for a report.
    let done = catch_unwind(AssertUnwindSafe(doing));
    let place = PLACE.take().unwrap_or_default();
    done.map_err(|payload| objection(payload.as_ref(), place))
}

fn objection(payload: &(dyn Any + Send), place: String) -> (Checker, String) {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("a panic without words");
    let of_world = Checker::OF_WORLD.into_iter().find_map(|checker| {
        let text = text.strip_prefix(&format!("{checker}: "))?;
        Some((checker, text.to_owned()))
    });
    of_world.unwrap_or_else(|| (Checker::Panic(place), text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checker_that_objects_is_named_and_a_panic_has_its_place() {
        assert_eq!(caught(|| check!(Jobs, 1 + 1 == 2, "no arithmetic")), Ok(()));
        let objects = caught(|| check!(Jobs, 1 + 1 == 3, "{} answers", 3));
        assert_eq!(objects, Err((Checker::Jobs, "3 answers".into())));
        let line = line!() + 1;
        let panics = caught(|| assert!(line == 0, "liveness: is none of the world's"));
        let place = format!("runtime-sim/src/checker.rs:{line}");
        assert_eq!(panics, Err((Checker::Panic(place), "liveness: is none of the world's".into())));
    }
}

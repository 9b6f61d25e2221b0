//! Commands, each with exactly one answer.
//!
//! No leaf answers a command, so none can forget to. A step that carries one out returns what it comes to ([`Outcome`]): a
//! refusal, or what the answer waits for. This table keeps the command's number until that has happened, and forgets it with the
//! answer. What it waits for happens in any case: a job gets exactly one answer, and a publication leaves its table with a result.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::api::{Action, Answer, Refusal};
use super::cx::Cx;
use crate::ids::{CommandId, JobId};
use crate::limits::COMMANDS_MAX;

/// What a command comes to.
pub(super) type Outcome = Result<After, Refusal>;

/// When a command is done.
#[derive(Debug)]
pub(super) enum After {
    /// At once.
    Now,
    /// When these records are written or deleted.
    Records(Vec<JobId>),
    /// When its publication ends.
    Publication,
}

/// What an open command waits for.
enum Waits {
    /// This many records; whether all of them so far are as they should be.
    Records(usize, bool),
    Publication,
}

/// The commands without an answer.
#[derive(Default)]
pub(super) struct Commands {
    open: BTreeMap<CommandId, Waits>,
    jobs: BTreeMap<JobId, CommandId>,
}

impl Commands {
    /// Whether another command may be carried out.
    pub(super) fn admit(&self, id: CommandId) -> Result<(), Refusal> {
        match self.open.len() {
            _ if self.open.contains_key(&id) => Err(Refusal::NumberInUse),
            COMMANDS_MAX.. => Err(Refusal::TooManyCommands),
            _ => Ok(()),
        }
    }

    /// Answers a command that was carried out or refused, or keeps its number until what it waits for has happened.
    pub(super) fn begin(&mut self, cx: &mut Cx, id: CommandId, outcome: Outcome) {
        let jobs = match outcome {
            Err(refusal) => return cx.act(Action::Answer(id, Err(refusal))),
            Ok(After::Publication) => {
                self.open.insert(id, Waits::Publication);
                return;
            }
            Ok(After::Now) => Vec::new(),
            Ok(After::Records(jobs)) => jobs,
        };
        if jobs.is_empty() {
            return cx.act(Action::Answer(id, Ok(Answer::Done)));
        }
        self.open.insert(id, Waits::Records(jobs.len(), true));
        self.jobs.extend(jobs.into_iter().map(|job| (job, id)));
    }

    /// A job was answered, for which a command may wait.
    pub(super) fn on_job(&mut self, cx: &mut Cx, job: JobId, durable: bool) {
        let Some(id) = self.jobs.remove(&job) else { return };
        let Some(Waits::Records(left, all)) = self.open.get_mut(&id) else { return };
        (*left, *all) = (*left - 1, *all && durable);
        if *left == 0 {
            let result = if *all { Ok(Answer::Done) } else { Err(Refusal::NotDurable) };
            self.end(cx, id, result);
        }
    }

    /// The publication of a command has ended.
    pub(super) fn on_published(&mut self, cx: &mut Cx, id: CommandId, result: Result<Answer, Refusal>) {
        self.end(cx, id, result);
    }

    fn end(&mut self, cx: &mut Cx, id: CommandId, result: Result<Answer, Refusal>) {
        if self.open.remove(&id).is_some() {
            cx.act(Action::Answer(id, result));
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;
    use crate::rng::Rng;
    use crate::time::{Instant, UnixTime};

    fn answers(cx: &mut Cx) -> Vec<(u64, Result<Answer, Refusal>)> {
        let next = || match cx.poll()? {
            Action::Answer(id, result) => Some((id.0, result)),
            other => panic!("not an answer: {other:?}"),
        };
        core::iter::from_fn(next).collect()
    }

    #[test]
    fn a_command_is_answered_once_all_its_records_are_written_and_as_a_failure_where_one_is_not() {
        let (mut commands, mut cx) =
            (Commands::default(), Cx::new(Rng::new([0; 32]), Instant(0), UnixTime(0)));
        for (id, second) in [(1, true), (2, false)] {
            let jobs = vec![JobId(10 * id), JobId(10 * id + 1)];
            commands.begin(&mut cx, CommandId(id), Ok(After::Records(jobs)));
            assert_eq!(commands.admit(CommandId(id)), Err(Refusal::NumberInUse));
            commands.on_job(&mut cx, JobId(10 * id), second);
            assert_eq!(answers(&mut cx), []);
            commands.on_job(&mut cx, JobId(10 * id + 1), true);
            commands.on_job(&mut cx, JobId(10 * id + 1), true);
            let result = if second { Ok(Answer::Done) } else { Err(Refusal::NotDurable) };
            assert_eq!(answers(&mut cx), [(id, result)]);
        }
        assert!(commands.open.is_empty() && commands.jobs.is_empty());
    }

    #[test]
    fn no_more_commands_are_taken_than_may_be_open() {
        let (mut commands, mut cx) =
            (Commands::default(), Cx::new(Rng::new([0; 32]), Instant(0), UnixTime(0)));
        for id in 0..COMMANDS_MAX as u64 {
            assert_eq!(commands.admit(CommandId(id)), Ok(()));
            commands.begin(&mut cx, CommandId(id), Ok(After::Publication));
        }
        let next = CommandId(COMMANDS_MAX as u64);
        assert_eq!(commands.admit(next), Err(Refusal::TooManyCommands));
        commands.on_published(&mut cx, CommandId(0), Err(Refusal::Shutdown));
        commands.on_published(&mut cx, CommandId(0), Err(Refusal::Shutdown));
        assert_eq!((answers(&mut cx).len(), commands.admit(next)), (1, Ok(())));
    }
}

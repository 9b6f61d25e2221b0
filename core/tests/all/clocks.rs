//! Wrong clocks, of the author or of a reader, do not lock a channel (`docs/protocol.md` §6 and §11).

use std::time::Duration;

use crate::support::content::item;
use crate::support::{Bench, UNIX, identity, publication};
use megatorrent_core::ids::CommandId;
use megatorrent_core::limits::{SEQUENCE_SIGNED_MAX, SEQUENCE_STEP_MAX};
use megatorrent_core::manifest::{HeadContent, HeadError};
use megatorrent_core::node::{
    Answer, Command, Config, DhtError, DhtOp, Event, Input, Job, JobResult, PublishError, Refusal,
};
use megatorrent_core::time::UnixTime;

const YEAR: Duration = Duration::from_hours(365 * 24);
/// 2020-07-01.
const LONG_AGO: UnixTime = UnixTime(1_593_561_600_000);

/// An author whose channel has this sequence on the DHT, and the events of its next publication.
fn publish_after(known: u64, unix: UnixTime) -> Bench {
    let mut bench = Bench::answering(Config::default(), Some(identity()));
    bench.node.set_clock(bench.now, unix);
    bench.world.is_kept = true;
    let known = item(&identity(), known.cast_signed(), &HeadContent::Inline(vec![]));
    bench.world.heads.insert(identity().public_key(), (known, 8));
    publish(&mut bench);
    bench
}

fn publish(bench: &mut Bench) {
    bench.command(publication());
    bench.sleep(Duration::from_secs(1));
}

fn published(bench: &Bench) -> Vec<u64> {
    let sequence = |(_, result): &(CommandId, Result<Answer, Refusal>)| match result {
        Ok(Answer::Published { sequence, .. }) => Some(*sequence),
        _ => None,
    };
    bench.replies.iter().filter_map(sequence).collect()
}

/// The sequence and the time of each warning.
fn warned(bench: &Bench) -> Vec<(u64, UnixTime)> {
    let times = |event: &Event| match event {
        Event::ClockBehind { sequence, unix, .. } => Some((*sequence, *unix)),
        _ => None,
    };
    bench.events.iter().filter_map(times).collect()
}

#[test]
fn an_author_whose_clock_is_behind_the_channel_takes_the_next_number_and_is_told() {
    let ahead = UNIX.plus(2 * YEAR).0;
    let mut bench = publish_after(ahead, UNIX);
    assert_eq!((published(&bench), warned(&bench)), (vec![ahead + 1], vec![(ahead + 1, UNIX)]));
    publish(&mut bench);
    assert_eq!(published(&bench), [ahead + 1, ahead + 2]);
    assert_eq!(warned(&bench).len(), 2, "once for each draft");
    // The clock catches up.
    bench.node.set_clock(bench.now, UNIX.plus(3 * YEAR));
    publish(&mut bench);
    assert_eq!(published(&bench)[2], UNIX.plus(3 * YEAR).0);
    assert_eq!(warned(&bench).len(), 2);
}

#[test]
fn a_draft_that_is_signed_again_warns_once() {
    let mut bench = Bench::new(Config::default(), Some(identity()));
    let ahead = UNIX.plus(YEAR).0.cast_signed();
    bench.command(publication());
    for tries in 0..2 {
        bench.sleep(Duration::from_secs(1));
        while let Some((id, _)) = bench.job(|job| matches!(job, Job::Persist(..))) {
            bench.handle(Input::Done(id, JobResult::Persisted(true)));
        }
        // The node follows its own channel, so it looks up the head for that too.
        while let Some(get) = bench.dht_job(|op| matches!(op, DhtOp::Get(_))) {
            let newer = item(&identity(), ahead + 10 * tries, &HeadContent::Inline(vec![]));
            bench.handle(Input::DhtItem(get, newer));
            bench.handle(Input::Done(get, JobResult::DhtDone(Ok(()))));
        }
        while let Some((id, _)) = bench.job(|job| matches!(job, Job::Persist(..))) {
            bench.handle(Input::Done(id, JobResult::Persisted(true)));
        }
        let put = bench.dht_job(|op| matches!(op, DhtOp::Put(item, _) if item.seq > ahead + 10 * tries));
        bench.handle(Input::Done(put.expect("it is put"), JobResult::DhtPut(Err(DhtError::CasMismatch))));
    }
    assert_eq!(warned(&bench), [(UNIX.plus(YEAR).0 + 1, UNIX.plus(Duration::from_secs(1)))]);
}

#[test]
fn a_right_clock_causes_no_warning() {
    for known in [1, UNIX.0 - 1, UNIX.0] {
        let bench = publish_after(known, UNIX);
        assert_eq!((published(&bench), warned(&bench)), (vec![UNIX.0.max(known + 1)], vec![]));
    }
}

#[test]
fn the_last_number_is_signed_and_none_after_it() {
    let bench = publish_after(SEQUENCE_SIGNED_MAX - 1, UNIX);
    assert_eq!(published(&bench), [SEQUENCE_SIGNED_MAX]);
    for known in [SEQUENCE_SIGNED_MAX, SEQUENCE_SIGNED_MAX + 1, i64::MAX.unsigned_abs()] {
        let mut bench = publish_after(known, UNIX);
        assert_eq!(bench.published(), Some(Err(PublishError::SequenceTooHigh.into())));
        assert_eq!(bench.world.puts, []);
    }
    let bench = publish_after(1, UnixTime(SEQUENCE_SIGNED_MAX + 1));
    assert_eq!((published(&bench), bench.world.puts), (vec![], vec![]), "nor by the clock");
}

#[test]
fn a_reader_takes_every_head_whatever_its_clock_says() {
    let channel = identity().public_key();
    for clock in [UnixTime(0), LONG_AGO, UNIX, UnixTime(u64::MAX)] {
        let mut bench = Bench::answering(Config::default(), None);
        bench.node.set_clock(bench.now, clock);
        bench.command(Command::Follow { channel, read_key: None });
        let mut known = 0;
        for (sequence, is_taken) in [
            (LONG_AGO.0, true),
            (UNIX.plus(2 * YEAR).0, true),
            (UNIX.0, false),
            (SEQUENCE_SIGNED_MAX, true),
            (SEQUENCE_SIGNED_MAX + SEQUENCE_STEP_MAX + 1, false),
            (SEQUENCE_SIGNED_MAX + SEQUENCE_STEP_MAX, true),
        ] {
            let head = item(&identity(), sequence.cast_signed(), &HeadContent::Inline(vec![]));
            bench.world.heads.insert(channel, (head, 8));
            bench.sleep(Duration::from_mins(3));
            known = if is_taken { sequence } else { known };
            let status = bench.node.channel_status(&channel).expect("followed");
            assert_eq!(status.sequence, known, "{sequence} at {clock:?}");
        }
        let refusals = bench
            .events
            .iter()
            .filter(|e| matches!(e, Event::HeadRefused { error: HeadError::SequenceAhead, .. }));
        assert_eq!(refusals.count(), 1, "told once");
    }
}

#[test]
fn a_first_head_may_be_anything_that_is_signed() {
    let channel = identity().public_key();
    for (sequence, is_taken) in [(0, true), (SEQUENCE_SIGNED_MAX, true), (SEQUENCE_STEP_MAX + 1, false)] {
        let mut bench = Bench::answering(Config::default(), None);
        let head = item(&identity(), sequence.cast_signed(), &HeadContent::Inline(vec![]));
        bench.world.heads.insert(channel, (head, 8));
        bench.command(Command::Follow { channel, read_key: None });
        bench.sleep(Duration::from_secs(1));
        let is_head = |event: &Event| matches!(event, Event::Head { .. });
        assert_eq!(bench.event(is_head).is_some(), is_taken, "{sequence}");
    }
}

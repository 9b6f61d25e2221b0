//! How heads are kept alive on the DHT, published and read back, over a DHT that answers as a test says.

use std::time::Duration;

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{JobId, Secret};
use megatorrent_core::limits::{
    FRESH_COPIES_MIN, ITEM_LIFETIME, READ_BACK_PAUSE, READ_BACKS_MAX, REPUT_INTERVAL,
};
use megatorrent_core::manifest::{Head, HeadContent};
use megatorrent_core::node::{
    Action, Command, Config, DhtOp, Draft, Event, Input, Job, JobResult, Node, PublishError,
};
use megatorrent_core::time::{Instant, UnixTime};

const UNIX: UnixTime = UnixTime(1_700_000_000_000);

fn identity() -> Identity {
    Identity::new(&Secret::new([3; 32]), None)
}

fn head(sequence: i64) -> SignedItem {
    let text =
        Head::to_json(&identity(), sequence.unsigned_abs(), UNIX.0, &HeadContent::Inline(vec![]), None);
    SignedItem::sign(&identity(), sequence, text.into_bytes()).expect("it fits")
}

/// A node and the DHT that it sees.
struct Bench {
    node: Node,
    now: Instant,
    /// What a look-up finds: an item, and at how many nodes.
    found: Option<(SignedItem, usize)>,
    /// Look-ups that find nothing, before they find that.
    misses: u32,
    gets: u32,
    /// When what was put.
    puts: Vec<(Instant, i64)>,
    /// A put replaces what look-ups find.
    is_kept: bool,
    events: Vec<Event>,
}

impl Bench {
    fn new(identity: Option<Identity>) -> Self {
        let config = Config::default();
        let node = Node::new(config, identity, [9; 32], Instant(0), UNIX);
        let (puts, events) = (Vec::new(), Vec::new());
        Self { node, now: Instant(0), found: None, misses: 0, gets: 0, puts, is_kept: false, events }
    }

    fn follower(copies: usize) -> Self {
        let mut bench = Self::new(None);
        bench.found = Some((head(5), copies));
        bench.command(Command::Follow { channel: identity().public_key(), read_key: None });
        bench
    }

    fn command(&mut self, command: Command) {
        self.node.handle(self.now, Input::Command(command));
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.node.poll() {
            match action {
                Action::Job(id, job) => self.job(id, job),
                Action::Event(event) => self.events.push(event),
                other => panic!("unexpected {other:?}"),
            }
        }
    }

    fn job(&mut self, id: JobId, job: Job) {
        let result = match job {
            Job::Have(ids) => JobResult::Have(vec![true; ids.len()]),
            Job::Persist(..) => JobResult::Persisted(true),
            Job::Dht(DhtOp::Put(item, _)) => {
                self.puts.push((self.now, item.seq));
                if self.is_kept {
                    self.found = Some((item, 20));
                }
                JobResult::DhtPut(Ok(20))
            }
            Job::Dht(DhtOp::Get(_)) => {
                self.gets += 1;
                let is_missed = self.misses > 0 && self.found.is_some();
                self.misses -= u32::from(is_missed);
                let (item, copies) = self.found.clone().unwrap_or_else(|| (head(1), 0));
                for _ in 0..if is_missed { 0 } else { copies } {
                    self.node.handle(self.now, Input::DhtItem(id, item.clone()));
                }
                JobResult::DhtDone(Ok(()))
            }
            Job::Dht(_) => JobResult::DhtDone(Ok(())),
            other => panic!("unexpected {other:?}"),
        };
        self.node.handle(self.now, Input::Done(id, result));
    }

    fn sleep(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some((at, _)) = self.node.deadline().filter(|(at, _)| *at <= end) {
            self.now = self.now.max(at);
            self.node.handle(self.now, Input::Wake);
            self.drain();
        }
        self.now = end;
    }

    fn publish(&mut self) {
        let content = HeadContent::Inline(vec![]);
        self.command(Command::Publish(Draft { content, read_key: None, gateways: Vec::new() }));
    }
}

const DAY: Duration = Duration::from_hours(24);
const HOURS_OF_A_DAY: usize = 24;

#[test]
fn a_follower_puts_a_head_hourly_only_where_few_nodes_have_it() {
    let mut bench = Bench::follower(FRESH_COPIES_MIN);
    bench.sleep(DAY);
    assert_eq!(bench.puts, []);
    let mut bench = Bench::follower(FRESH_COPIES_MIN - 1);
    bench.sleep(DAY);
    assert!(bench.puts.len().abs_diff(HOURS_OF_A_DAY) <= 1, "{:?}", bench.puts);
}

#[test]
fn copies_of_an_older_head_do_not_count() {
    let mut bench = Bench::follower(20);
    bench.sleep(Duration::from_mins(5));
    bench.found = Some((head(4), 20));
    bench.sleep(Duration::from_mins(5));
    assert!(!bench.puts.is_empty() && bench.puts.iter().all(|(_, seq)| *seq == 5), "{:?}", bench.puts);
}

#[test]
fn who_has_put_a_head_keeps_it_alive_as_its_copies_may_be_no_others() {
    let mut bench = Bench::follower(20);
    bench.sleep(Duration::from_mins(90));
    assert_eq!(bench.puts, []);
    // It is gone, as its author is; whoever notices puts it, within a minute, and goes on.
    bench.found = None;
    bench.is_kept = true;
    bench.sleep(Duration::from_mins(2));
    assert_eq!(bench.puts.len(), 1);
    bench.sleep(DAY);
    let times: Vec<Instant> = bench.puts.iter().map(|(at, _)| *at).collect();
    assert!(times.len() >= HOURS_OF_A_DAY - 1);
    assert!(
        times.windows(2).all(|w| w[1].since(w[0]) <= REPUT_INTERVAL + Duration::from_mins(1)),
        "{times:?}"
    );
    const { assert!(REPUT_INTERVAL.as_secs() + 60 < ITEM_LIFETIME.as_secs()) }
}

#[test]
fn an_author_puts_its_own_head_hourly_however_many_have_it() {
    let mut bench = Bench::new(Some(identity()));
    bench.is_kept = true;
    bench.publish();
    bench.sleep(DAY);
    assert!(bench.events.iter().any(|e| matches!(e, Event::Published { .. })));
    assert!(bench.puts.len() >= HOURS_OF_A_DAY, "{:?}", bench.puts);
}

#[test]
fn a_published_head_is_looked_for_several_times_before_it_counts_as_lost() {
    let mut bench = Bench::new(Some(identity()));
    bench.is_kept = true;
    bench.misses = READ_BACKS_MAX - 1;
    bench.publish();
    // Its own upkeep looks too.
    bench.sleep(READ_BACK_PAUSE * READ_BACKS_MAX);
    assert!(bench.events.iter().any(|e| matches!(e, Event::Published { .. })), "{:?}", bench.events);

    let mut bench = Bench::new(Some(identity()));
    bench.publish();
    bench.sleep(READ_BACK_PAUSE * (READ_BACKS_MAX - 2));
    assert!(!bench.events.iter().any(|e| matches!(e, Event::PublishFailed { .. })));
    bench.sleep(READ_BACK_PAUSE * 2);
    let failed = |e: &Event| matches!(e, Event::PublishFailed { error: PublishError::NotReadBack, .. });
    assert!(bench.events.iter().any(failed), "{:?}", bench.events);
}

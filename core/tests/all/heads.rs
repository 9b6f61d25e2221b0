//! Keeping heads alive on the DHT, publishing them and reading them back, over a DHT that answers as a test says.

use std::time::Duration;

use crate::support::content::item;
use crate::support::member::Member;
use crate::support::peer::Peer;
use crate::support::{Bench, addr, author, identity, publication};
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::codec::Message;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{JobId, Secret};
use megatorrent_core::limits::{
    FRESH_COPIES_MIN, GOSSIP_CHANNELS_MAX, HEAD_PATIENCE_MIN, ITEM_LIFETIME, READ_BACK_PAUSE, READ_BACKS_MAX,
    REPUT_INTERVAL,
};
use megatorrent_core::manifest::{Collection, HeadContent};
use megatorrent_core::node::{
    Answer, Command, Config, DhtError, DhtOp, Event, Input, Job, JobResult, PublishError, Takers,
};
use megatorrent_core::time::Instant;

/// The head of a channel without content.
fn head(sequence: i64) -> SignedItem {
    item(&identity(), sequence, &HeadContent::Inline(vec![]))
}

fn publisher() -> Bench {
    Bench::answering(Config::default(), Some(identity()))
}

/// A node that follows a channel whose head this many DHT nodes have.
fn follower(copies: usize) -> Bench {
    let mut bench = Bench::answering(Config::default(), None);
    find(&mut bench, 5, copies);
    bench.command(Command::Follow { channel: identity().public_key(), read_key: None });
    bench
}

/// Lets look-ups find this head from here on.
fn find(bench: &mut Bench, sequence: i64, copies: usize) {
    bench.world.heads.insert(identity().public_key(), (head(sequence), copies));
}

fn publish(bench: &mut Bench) {
    bench.command(publication());
}

const DAY: Duration = Duration::from_hours(24);
const HOURS_OF_A_DAY: usize = 24;

#[test]
fn a_follower_puts_a_head_hourly_only_where_few_nodes_have_it() {
    let mut bench = follower(FRESH_COPIES_MIN);
    bench.sleep(DAY);
    assert_eq!(bench.world.puts, []);
    let mut bench = follower(FRESH_COPIES_MIN - 1);
    bench.sleep(DAY);
    assert!(bench.world.puts.len().abs_diff(HOURS_OF_A_DAY) <= 1, "{:?}", bench.world.puts);
}

#[test]
fn copies_of_an_older_head_do_not_count() {
    let mut bench = follower(20);
    bench.sleep(Duration::from_mins(5));
    find(&mut bench, 4, 20);
    bench.sleep(Duration::from_mins(5));
    assert!(
        !bench.world.puts.is_empty() && bench.world.puts.iter().all(|(_, seq)| *seq == 5),
        "{:?}",
        bench.world.puts
    );
}

#[test]
fn a_node_that_has_put_a_head_keeps_it_alive_as_it_may_be_the_only_one() {
    let mut bench = follower(20);
    bench.sleep(Duration::from_mins(90));
    assert_eq!(bench.world.puts, []);
    // The head is gone, as its author is; the follower notices, puts it within a minute, and goes on.
    bench.world.heads.clear();
    bench.world.is_kept = true;
    bench.sleep(Duration::from_mins(2));
    assert_eq!(bench.world.puts.len(), 1);
    bench.sleep(DAY);
    let times: Vec<Instant> = bench.world.puts.iter().map(|(at, _)| *at).collect();
    assert!(times.len() >= HOURS_OF_A_DAY - 1);
    assert!(
        times.windows(2).all(|w| w[1].since(w[0]) <= REPUT_INTERVAL + Duration::from_mins(1)),
        "{times:?}"
    );
    const { assert!(REPUT_INTERVAL.as_secs() + 60 < ITEM_LIFETIME.as_secs()) }
}

#[test]
fn an_author_puts_its_own_head_hourly_however_many_have_it() {
    let mut bench = publisher();
    bench.world.is_kept = true;
    publish(&mut bench);
    bench.sleep(DAY);
    assert!(matches!(bench.published(), Some(Ok(_))));
    assert!(bench.world.puts.len() >= HOURS_OF_A_DAY, "{:?}", bench.world.puts);
}

#[test]
fn a_published_head_is_looked_for_several_times_before_it_counts_as_lost() {
    let mut bench = publisher();
    bench.world.is_kept = true;
    bench.world.misses = READ_BACKS_MAX - 1;
    publish(&mut bench);
    // The upkeep of its own channel looks it up too.
    bench.sleep(READ_BACK_PAUSE * READ_BACKS_MAX);
    assert!(matches!(bench.published(), Some(Ok(_))), "{:?}", bench.events);

    let mut bench = publisher();
    publish(&mut bench);
    bench.sleep(READ_BACK_PAUSE * (READ_BACKS_MAX - 2));
    assert_eq!(bench.published(), None);
    bench.sleep(READ_BACK_PAUSE * 2);
    assert_eq!(bench.published(), Some(Err(PublishError::NotReadBack.into())));
}

/// Lets the world answer the jobs that wait, those of the DHT apart, and takes the DHT's next operation.
fn next_dht_op(bench: &mut Bench) -> (JobId, DhtOp) {
    while let Some((id, job)) = bench.job(|job| !matches!(job, Job::Dht(_))) {
        for input in bench.world.answer(bench.now, id, job) {
            bench.handle(input);
        }
    }
    let is_of_head = |op: &DhtOp| matches!(op, DhtOp::Get(_) | DhtOp::Put(..));
    match bench.job(|job| matches!(job, Job::Dht(op) if is_of_head(op))) {
        Some((id, Job::Dht(op))) => (id, op),
        other => panic!("an operation is due: {other:?}"),
    }
}

#[test]
fn a_publication_takes_three_operations_and_ends_with_the_first_copy_of_its_head() {
    let mut bench = Bench::new(Config::default(), Some(identity()));
    let before = bench.now;
    let mut unfinished = Vec::new();
    for _ in 0..2 {
        bench.events.clear();
        publish(&mut bench);
        // The upkeep of the channel asks for nothing meanwhile, which the DHT would answer first.
        bench.sleep(Duration::ZERO);
        let (find, DhtOp::Get(_)) = next_dht_op(&mut bench) else { panic!("the newest is looked up first") };
        bench.handle(Input::Done(find, JobResult::DhtDone(Ok(()))));
        let (put, DhtOp::Put(item, _)) = next_dht_op(&mut bench) else { panic!("it is put") };
        bench.handle(Input::Done(put, JobResult::DhtPut(Ok(1))));
        assert!(
            bench.event(|e| matches!(e, Event::Complete { .. })).is_some(),
            "nothing newer is on the DHT"
        );
        let (read_back, DhtOp::Get(_)) = next_dht_op(&mut bench) else { panic!("it is read back") };
        assert_eq!(bench.published(), None);
        bench.handle(Input::DhtItem(read_back, item));
        let published = bench.published();
        assert!(matches!(published, Some(Ok(Answer::Published { takers: Takers::DhtNodes(1), .. }))));
        unfinished.push(read_back);
    }
    assert_eq!(bench.now, before, "no timer is waited for");
    // What the look-ups bring later changes nothing.
    bench.events.clear();
    for job in unfinished {
        bench.handle(Input::Done(job, JobResult::DhtDone(Err(DhtError::Failed))));
    }
    let put = bench.job(|job| matches!(job, Job::Dht(DhtOp::Put(..))));
    assert!(bench.events.is_empty() && put.is_none(), "{:?}, {put:?}", bench.events);
}

#[test]
fn a_head_counts_as_the_newest_once_the_look_up_had_as_long_again_as_its_first_copy_took() {
    let is_complete = |event: &Event| matches!(event, Event::Complete { .. });
    let is_newest = |bench: &mut Bench| bench.event(is_complete).is_some();
    for (took, patience) in
        [(HEAD_PATIENCE_MIN / 10, HEAD_PATIENCE_MIN), (HEAD_PATIENCE_MIN * 4, HEAD_PATIENCE_MIN * 4)]
    {
        let mut bench = Bench::new(Config::default(), None);
        bench.command(Command::Follow { channel: identity().public_key(), read_key: None });
        bench.sleep(Duration::ZERO);
        let (job, DhtOp::Get(_)) = next_dht_op(&mut bench) else { panic!("it is looked up") };
        let find = |bench: &mut Bench, sequence| {
            bench.handle(Input::DhtItem(job, head(sequence)));
            let (record, _) = bench.job(|job| matches!(job, Job::Persist(..))).expect("it is made durable");
            bench.handle(Input::Done(record, JobResult::Persisted(true)));
        };
        bench.sleep(took);
        find(&mut bench, 5);
        bench.sleep(patience / 2);
        // A newer one begins anew.
        find(&mut bench, 6);
        bench.sleep(patience * 3 / 4);
        assert!(!is_newest(&mut bench), "the first one's time is over");
        bench.sleep((took + patience / 2).max(patience));
        assert!(is_newest(&mut bench), "{:?}", bench.events);
        bench.handle(Input::Done(job, JobResult::DhtDone(Ok(()))));
        assert!(!is_newest(&mut bench), "it is told once");
    }
}

#[test]
fn two_heads_of_one_sequence_are_reported_once_whoever_shows_the_second() {
    let mut bench = follower(20);
    bench.sleep(Duration::from_secs(1));
    let channel = identity().public_key();
    let mut member = Member::join(&mut bench, 1, &[channel]);
    let other = Collection { title: "another".into(), items: Vec::new() };
    let fork = item(&identity(), 5, &HeadContent::Inline(vec![other]));
    let is_fork = |event: &Event| matches!(event, Event::Fork { sequence: 5, .. });
    for told in [true, false] {
        let message = Message::Head(member.tags[0], Some(fork.clone()));
        member.peer.send(&mut bench, &message);
        assert_eq!(bench.event(is_fork).is_some(), told);
    }
    assert_eq!(member.closed_for(&bench), None, "it is the author's lie, not the peer's");
    let mut forged = fork;
    forged.value.push(b' ');
    member.peer.send(&mut bench, &Message::Head(member.tags[0], Some(forged)));
    assert!(bench.event(is_fork).is_none());
}

#[test]
fn a_head_that_the_disk_did_not_take_is_retried_without_another_offer() {
    let mut bench = Bench::answering(Config::default(), None);
    let channel = identity().public_key();
    bench.command(Command::Follow { channel, read_key: None });
    let mut member = Member::join(&mut bench, 1, &[channel]);
    bench.world.refuses_records = true;
    member.peer.send(&mut bench, &Message::Head(member.tags[0], Some(head(5))));
    bench.sleep(Duration::from_mins(1));
    let is_head = |event: &Event| matches!(event, Event::Head { sequence: 5, .. });
    assert!(bench.event(is_head).is_none(), "a head that is not durable is not used");
    bench.world.refuses_records = false;
    bench.sleep(Duration::from_secs(10));
    assert!(bench.event(is_head).is_some());
}

#[test]
fn a_v5_peer_is_told_of_the_channels_with_the_newest_heads() {
    let mut bench = Bench::answering(Config::default(), None);
    let secret = Secret::new(std::array::from_fn(|n| u8::from(n == 0)));
    let authors: Vec<_> = (0..=u8::MAX).map(author).chain([Identity::new(&secret, None)]).collect();
    assert_eq!(authors.len(), GOSSIP_CHANNELS_MAX + 1);
    let oldest = 100;
    for (n, author) in authors.iter().enumerate() {
        let sequence = if n == oldest { 1 } else { 2 };
        let head = item(author, sequence, &HeadContent::Inline(vec![]));
        bench.world.heads.insert(author.public_key(), (head, 1));
        bench.command(Command::Follow { channel: author.public_key(), read_key: None });
    }
    bench.sleep(Duration::from_mins(10));
    let mut peer = Peer::dial(&mut bench, addr(1));
    peer.say_hello(&mut bench, 5);
    let told = peer.receive(&mut bench).into_iter().find_map(|message| match message {
        Message::Hello { sequences, .. } => Some(sequences),
        _ => None,
    });
    let told = told.expect("a HELLO is answered");
    assert_eq!(told.len(), GOSSIP_CHANNELS_MAX);
    assert!(!told.contains_key(&authors[oldest].public_key()));
}

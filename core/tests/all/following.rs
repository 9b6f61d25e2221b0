//! What ends when a channel is followed no longer, or under another read key, and what goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::support::content::item;
use crate::support::folder::{READ_KEY, tree};
use crate::support::member::Member;
use crate::support::peer::Peer;
use crate::support::{Bench, CONFIG, addr, author, identity, publication};
use megatorrent_core::codec::{Message, Tag};
use megatorrent_core::ids::Topic;
use megatorrent_core::limits::{
    CONTROL_QUEUE_MAX, DHT_JOBS_MAX, DHT_JOBS_RESERVED, GOSSIP_POLL_INTERVAL, HEAD_POLL_INTERVAL,
};
use megatorrent_core::manifest::HeadContent;
use megatorrent_core::node::{
    Command, DhtOp, Input, Job, JobResult, PublishError, RecordKey, Refusal, Selection,
};
use megatorrent_core::uri;

fn publish(bench: &mut Bench) {
    bench.command(publication());
}

fn publisher() -> Bench {
    let mut bench = Bench::new(CONFIG, Some(identity()));
    publish(&mut bench);
    bench
}

/// Lets the look-up end with which a publication begins; the node's own look-up of the channel has been asked for first.
fn find_nothing(bench: &mut Bench) {
    while let Some(get) = bench.dht_job(|op| matches!(op, DhtOp::Get(_))) {
        bench.handle(Input::Done(get, JobResult::DhtDone(Ok(()))));
    }
}

/// Answers the oldest write of a channel's record.
fn store(bench: &mut Bench) {
    let (id, ..) = bench.record(|key| matches!(key, RecordKey::Channel(_))).expect("it is to be stored");
    bench.handle(Input::Done(id, JobResult::Persisted(true)));
}

fn puts(bench: &Bench) -> usize {
    bench.jobs.iter().filter(|(_, job)| matches!(job, Job::Dht(DhtOp::Put(..)))).count()
}

fn failure(bench: &mut Bench) -> Option<PublishError> {
    match bench.published()? {
        Err(Refusal::Publish(error)) => Some(error),
        _ => None,
    }
}

#[test]
fn a_channel_that_is_unfollowed_while_its_head_is_being_stored_is_not_published() {
    let channel = identity().public_key();
    let mut bench = publisher();
    store(&mut bench);
    find_nothing(&mut bench);
    bench.command(Command::Unfollow(channel));
    let error = failure(&mut bench).expect("it is told");
    assert_eq!(
        (&error, error.to_string().as_str()),
        (&PublishError::Unfollowed, "the channel was unfollowed meanwhile")
    );
    // The head's write, and that which deletes the record.
    for _ in 0..2 {
        store(&mut bench);
    }
    bench.sleep(Duration::from_hours(2));
    assert_eq!((puts(&bench), failure(&mut bench)), (0, None));
    assert!(bench.node.channels().is_empty());
    // It can be published anew.
    publish(&mut bench);
    store(&mut bench);
    find_nothing(&mut bench);
    store(&mut bench);
    assert_eq!(puts(&bench), 1);
}

#[test]
fn a_channel_that_is_unfollowed_while_the_dht_is_asked_is_not_published() {
    let mut bench = publisher();
    store(&mut bench);
    bench.command(Command::Unfollow(identity().public_key()));
    find_nothing(&mut bench);
    assert_eq!(failure(&mut bench), Some(PublishError::Unfollowed));
    bench.sleep(Duration::from_hours(2));
    assert_eq!(puts(&bench), 0);
}

#[test]
fn a_head_is_put_once_it_is_durable_itself_and_not_an_earlier_one() {
    let channel = identity().public_key();
    let mut bench = publisher();
    store(&mut bench);
    let mut member = Member::join(&mut bench, 1, &[channel]);
    let earlier = item(&identity(), 5, &HeadContent::Inline(vec![]));
    member.peer.send(&mut bench, &Message::Head(member.tags[0], Some(earlier)));
    find_nothing(&mut bench);
    store(&mut bench);
    assert_eq!(puts(&bench), 0, "only the earlier one is durable");
    store(&mut bench);
    assert_eq!(puts(&bench), 1);
}

#[test]
fn what_waits_for_the_dht_is_not_done_for_a_channel_that_is_followed_no_longer() {
    let mut bench = Bench::new(CONFIG, None);
    bench.world.ends_lookups = true;
    let heads = (1..=6).map(|n| item(&author(n), 5, &HeadContent::Inline(vec![])));
    for head in heads.clone() {
        bench.world.heads.insert(head.key, (head.clone(), 1));
        bench.command(Command::Follow { channel: head.key, read_key: None });
    }
    bench.sleep_until(bench.now);
    bench.answer_jobs();
    // All are due at once, and no more are begun than run at a time.
    bench.sleep(2 * HEAD_POLL_INTERVAL);
    let running = |bench: &Bench| bench.jobs.iter().filter(|(_, job)| matches!(job, Job::Dht(_))).count();
    assert_eq!(running(&bench), DHT_JOBS_MAX - DHT_JOBS_RESERVED);
    assert!(bench.status().dht_late > 0);
    for head in heads {
        bench.command(Command::Unfollow(head.key));
    }
    assert_eq!(bench.status().dht_late, 0);
    bench.answer_jobs();
    let done = (bench.world.puts.len(), bench.world.gets.len(), bench.world.lookups.len());
    bench.sleep(Duration::from_hours(2));
    assert!(bench.jobs.is_empty());
    assert_eq!((bench.world.puts.len(), bench.world.gets.len(), bench.world.lookups.len()), done);
}

/// The tags under which a peer is asked for a head, and sent one.
fn heads(bench: &mut Bench, member: &mut Member) -> (Vec<Tag>, Vec<Tag>) {
    let (mut asked, mut sent) = (Vec::new(), Vec::new());
    for message in member.peer.receive(bench) {
        match message {
            Message::GetHead { tag, .. } => asked.push(tag),
            Message::Head(tag, Some(_)) => sent.push(tag),
            _ => {}
        }
    }
    (asked, sent)
}

#[test]
fn under_another_read_key_peers_are_asked_and_told_anew_and_no_others() {
    let channel = identity().public_key();
    let mut bench = Bench::answering(CONFIG, None);
    bench.command(Command::Follow { channel, read_key: None });
    let mut member = Member::join(&mut bench, 1, &[channel]);
    bench.command(Command::Follow { channel, read_key: Some(READ_KEY) });
    let find = |bench: &mut Bench, sequence| {
        bench.world.heads.insert(channel, (item(&identity(), sequence, &HeadContent::Inline(vec![])), 8));
        bench.sleep(HEAD_POLL_INTERVAL.max(GOSSIP_POLL_INTERVAL));
    };
    find(&mut bench, 5);
    assert_eq!(heads(&mut bench, &mut member), (vec![], vec![]), "the peer watches the public topic");
    let tag = member.peer.tag(&uri::topic(&channel, Some(&READ_KEY)));
    member.peer.send(&mut bench, &Message::Watch(vec![tag]));
    assert_eq!(heads(&mut bench, &mut member), (vec![tag], vec![]));
    find(&mut bench, 6);
    assert_eq!(heads(&mut bench, &mut member), (vec![], vec![tag]));
}

#[test]
fn a_watch_makes_no_more_questions_wait_than_may_and_the_rest_follow() {
    const SWARMS: u8 = 40;
    let mut bench = Bench::answering(CONFIG, None);
    bench.world.ends_lookups = true;
    let mut topics = Vec::new();
    for n in 1..=SWARMS {
        let channel = author(n).public_key();
        bench.command(Command::Follow { channel, read_key: None });
        let topic = Topic([n; 32]);
        let (tree, selection) = (tree(&[0]).0, Selection::default());
        bench.command(Command::Join { topic, tree, selection });
        topics.extend([uri::topic(&channel, None), topic]);
    }
    let mut peer = Peer::dial(&mut bench, addr(1));
    peer.say_hello(&mut bench, 6);
    peer.receive(&mut bench);
    let tags: BTreeSet<Tag> = topics.iter().map(|topic| peer.tag(topic)).collect();
    peer.send(&mut bench, &Message::Watch(tags.iter().copied().collect()));
    let asked = |messages: Vec<Message>| {
        let asked = messages.into_iter().filter_map(|message| match message {
            Message::GetHead { tag, known: 0, look_up: None } => Some(tag),
            _ => None,
        });
        asked.collect::<Vec<Tag>>()
    };
    peer.take(&mut bench, usize::MAX);
    let first = peer.messages();
    assert_eq!(first.len(), CONTROL_QUEUE_MAX);
    let mut all = asked(first);
    all.extend(asked(peer.receive(&mut bench)));
    assert_eq!((all.len(), all.into_iter().collect()), (topics.len(), tags), "each once");
}

#[test]
fn a_newer_head_is_looked_up_as_soon_as_a_user_asks_and_again_a_moment_later() {
    let channel = identity().public_key();
    let mut bench = Bench::answering(CONFIG, None);
    let publish = |bench: &mut Bench, sequence| {
        bench.world.heads.insert(channel, (item(&identity(), sequence, &HeadContent::Inline(vec![])), 8));
    };
    let sequence = |bench: &Bench| bench.node.channel_status(&channel).map(|status| status.sequence);
    let moment = Duration::from_millis(200);

    publish(&mut bench, 5);
    bench.command(Command::Follow { channel, read_key: None });
    bench.sleep(HEAD_POLL_INTERVAL);
    bench.sleep(2 * GOSSIP_POLL_INTERVAL);
    publish(&mut bench, 6);
    bench.sleep(moment);
    assert_eq!(sequence(&bench), Some(5), "it is not due");
    bench.command(Command::LookUp(channel));
    bench.sleep(moment);
    assert_eq!(sequence(&bench), Some(6));

    publish(&mut bench, 7);
    bench.command(Command::LookUp(channel));
    bench.sleep(moment);
    assert_eq!(sequence(&bench), Some(6), "it was asked a moment ago");
    bench.sleep(GOSSIP_POLL_INTERVAL);
    assert_eq!(sequence(&bench), Some(7));

    bench.command(Command::Pause(channel));
    publish(&mut bench, 8);
    bench.command(Command::LookUp(channel));
    bench.sleep(HEAD_POLL_INTERVAL);
    assert_eq!(sequence(&bench), Some(7), "it rests");
}

//! What users tell a node: each command gets its answer, identities and publications side by side, channels that are paused, bans
//! that are lifted, and what there is to see.

use std::time::Duration;

use crate::support::content::{Content, SEQUENCE};
use crate::support::folder::READ_KEY;
use crate::support::member::{Manner, Member};
use crate::support::{Bench, CONFIG, addr, author, identity, publication};
use megatorrent_core::codec::{Message, Want};
use megatorrent_core::error::Violation;
use megatorrent_core::limits::{IDENTITIES_MAX, PUBLICATIONS_MAX};
use megatorrent_core::manifest::HeadContent;
use megatorrent_core::node::{
    Answer, Command, DhtOp, Draft, Input, Job, JobResult, PeerSource, PublishError, RecordKey, Refusal,
    Takers, Target,
};
use megatorrent_core::parts::Mask;

const DONE: Result<Answer, Refusal> = Ok(Answer::Done);

/// Gives a command whose answer comes at once.
fn answer(bench: &mut Bench, command: Command) -> Result<Answer, Refusal> {
    let id = bench.command(command);
    bench.replies.pop().filter(|(answered, _)| *answered == id).expect("it is answered").1
}

fn follow(n: u8) -> Command {
    Command::Follow { channel: author(n).public_key(), read_key: None }
}

fn publish_of(n: u8) -> Command {
    let draft = Draft { content: HeadContent::Inline(Vec::new()), read_key: None, gateways: Vec::new() };
    Command::Publish { channel: author(n).public_key(), draft }
}

#[test]
fn following_is_answered_once_the_record_is_durable_and_unfollowing_once_it_is_deleted() {
    let mut bench = Bench::new(CONFIG, None);
    let is_channel = |key: &RecordKey| matches!(key, RecordKey::Channel(_));
    for (command, durable, expected) in [
        (follow(1), false, Err(Refusal::NotDurable)),
        (follow(1), true, DONE),
        (Command::Unfollow(author(1).public_key()), false, Err(Refusal::NotDurable)),
    ] {
        let id = bench.command(command);
        assert!(bench.unanswered.contains(&id));
        let (job, ..) = bench.record(is_channel).expect("it is to be stored");
        bench.handle(Input::Done(job, JobResult::Persisted(durable)));
        assert_eq!(bench.replies.pop(), Some((id, expected)));
    }
    let unfollowed = Command::Unfollow(author(1).public_key());
    assert_eq!(answer(&mut bench, unfollowed), Err(Refusal::NotFollowed));
}

#[test]
fn a_read_key_that_does_not_open_what_another_one_opens_changes_nothing() {
    let mut bench = Bench::answering(CONFIG, Some(identity()));
    bench.world.is_kept = true;
    let channel = identity().public_key();
    let content = HeadContent::Inline(Vec::new());
    let draft = Draft { content, read_key: Some(READ_KEY), gateways: Vec::new() };
    assert!(answer(&mut bench, Command::Publish { channel, draft }).is_ok());
    let topic = bench.node.channel_status(&channel).map(|status| status.topic);
    let wrong = Some(author(9).content_secret());
    let refused = answer(&mut bench, Command::Follow { channel, read_key: wrong });
    assert_eq!(refused, Err(Refusal::WrongKey));
    assert_eq!(bench.node.channel_status(&channel).map(|status| status.topic), topic);
    assert_eq!(answer(&mut bench, Command::Follow { channel, read_key: Some(READ_KEY) }), DONE);
}

#[test]
fn publications_in_several_channels_run_side_by_side_and_in_one_channel_one_by_one() {
    let mut bench = Bench::new(CONFIG, None);
    assert_eq!(answer(&mut bench, publish_of(1)), Err(PublishError::NoIdentity.into()));
    for n in 1..=2 {
        assert_eq!(answer(&mut bench, Command::AddIdentity(author(n).into())), DONE);
    }
    let (one, two) = (bench.command(publish_of(1)), bench.command(publish_of(2)));
    assert_eq!(answer(&mut bench, publish_of(2)), Err(PublishError::Busy.into()));
    bench.world.is_kept = true;
    bench.answers = true;
    bench.answer_jobs();
    bench.sleep(Duration::from_secs(1));
    let mut published: Vec<_> = bench.replies.drain(..).collect();
    published.sort_unstable_by_key(|(id, _)| *id);
    let is_published =
        |result: &_| matches!(result, Ok(Answer::Published { takers: Takers::DhtNodes(20), .. }));
    assert_eq!(published.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [one, two]);
    assert!(published.iter().all(|(_, result)| is_published(result)), "{published:?}");
    let removed = Command::RemoveIdentity(author(1).public_key());
    assert_eq!(answer(&mut bench, removed), DONE);
    assert_eq!(answer(&mut bench, publish_of(1)), Err(PublishError::NoIdentity.into()));
    let removed = Command::RemoveIdentity(author(1).public_key());
    assert_eq!(answer(&mut bench, removed), Err(Refusal::NoIdentity));
}

#[test]
fn identities_and_publications_are_bounded() {
    let mut bench = Bench::new(CONFIG, None);
    let identity = |n: usize| {
        let mut seed = [1; 32];
        seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
        megatorrent_core::identity::Identity::new(&megatorrent_core::ids::Secret::new(seed), None)
    };
    for n in 0..IDENTITIES_MAX {
        assert_eq!(answer(&mut bench, Command::AddIdentity(identity(n).into())), DONE);
    }
    let one_more = Command::AddIdentity(identity(IDENTITIES_MAX).into());
    assert_eq!(answer(&mut bench, one_more), Err(Refusal::TooManyIdentities));
    assert_eq!(answer(&mut bench, Command::AddIdentity(identity(0).into())), DONE, "it is known");
    for n in 0..=PUBLICATIONS_MAX {
        let draft = Draft { content: HeadContent::Inline(Vec::new()), read_key: None, gateways: Vec::new() };
        bench.command(Command::Publish { channel: identity(n).public_key(), draft });
    }
    assert_eq!(bench.published(), Some(Err(PublishError::TooMany.into())));
    assert_eq!(bench.unanswered.len(), PUBLICATIONS_MAX);
    bench.node.shutdown(bench.now);
    bench.drain();
    assert!(bench.unanswered.is_empty());
    assert_eq!(bench.published(), Some(Err(PublishError::Shutdown.into())));
    assert_eq!(answer(&mut bench, follow(1)), Err(Refusal::Shutdown));
}

#[test]
fn a_paused_channel_asks_for_nothing_serves_nothing_and_goes_on_later() {
    let content = Content::new(&identity(), 3);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    let mut seed = Member::seed(&mut bench, 1, &content);
    seed.hear(&mut bench);
    assert!(seed.parts_open() > 0, "it is asked");
    let root = content.root(0);
    assert_eq!(answer(&mut bench, Command::Pause(content.channel)), DONE);
    let status = bench.node.channel_status(&content.channel).expect("it is followed");
    assert_eq!(
        (status.paused, status.sequence, status.waiting),
        (true, SEQUENCE, Some("it is paused".into()))
    );
    bench.sleep(Duration::from_secs(1));
    seed.hear(&mut bench);
    assert_eq!(seed.parts_open(), 0, "what it was asked for is taken back");
    // What is here is not served to whom no other channel is shared with.
    bench.world.store.blobs.extend(content.data.iter().cloned());
    let want = Want { number: 1, root, mask: Mask(1), values: false, last_len: None };
    seed.peer.send(&mut bench, &Message::Want(want));
    let said = seed.peer.receive(&mut bench);
    assert!(
        !said.iter().any(|message| matches!(message, Message::Piece { bytes, .. } if !bytes.is_empty())),
        "{said:?}"
    );
    // Nothing is looked up, announced or put.
    let calls = |bench: &Bench| {
        let world = &bench.world;
        (world.gets.len(), world.lookups.len(), world.announces.len(), world.puts.len())
    };
    let before = calls(&bench);
    bench.sleep(Duration::from_hours(3));
    assert_eq!(calls(&bench), before);
    // Neither after a restart.
    let mut bench = bench.restarted();
    let before = calls(&bench);
    bench.sleep(Duration::from_hours(3));
    assert_eq!(calls(&bench), before);
    assert_eq!(answer(&mut bench, Command::Resume(content.channel)), DONE);
    bench.sleep(Duration::from_secs(5));
    let status = bench.node.channel_status(&content.channel).expect("it is followed");
    assert_eq!((status.paused, status.complete), (false, true), "{:?}", status.waiting);
    assert!(calls(&bench) > before);
}

#[test]
fn other_channels_go_on_while_one_is_paused() {
    let content = Content::new(&identity(), 3);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    bench.command(follow(1));
    assert_eq!(answer(&mut bench, Command::Pause(author(1).public_key())), DONE);
    for command in [Command::Pause, Command::LookUp] {
        assert_eq!(answer(&mut bench, command(author(2).public_key())), Err(Refusal::NotFollowed));
    }
    let mut seed = Member::seed(&mut bench, 1, &content);
    seed.bring_all(&mut bench, &content);
    assert_eq!(content.stored(&bench), 3);
    let mut leecher = Member::join(&mut bench, 2, &[content.channel]);
    leecher.want(&mut bench, content.root(0), Mask(1));
    leecher.hear(&mut bench);
    assert!(!leecher.pieces.is_empty(), "a shared channel is served");
}

#[test]
fn a_publication_in_a_channel_that_is_paused_fails() {
    let mut bench = Bench::new(CONFIG, Some(identity()));
    bench.command(publication());
    bench.command(Command::Pause(identity().public_key()));
    bench.answers = true;
    bench.answer_jobs();
    assert_eq!(bench.published(), Some(Err(PublishError::Paused.into())));
    assert_eq!(answer(&mut bench, publication()), Err(PublishError::Paused.into()));
    assert!(bench.world.puts.is_empty());
    assert!(!bench.jobs.iter().any(|(_, job)| matches!(job, Job::Dht(DhtOp::Put(..)))));
}

#[test]
fn a_ban_is_shown_and_lifted() {
    let content = Content::new(&identity(), 2);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    let mut liar = Member::seed(&mut bench, 1, &content);
    liar.manner = Manner::Lies;
    liar.bring(&mut bench, &content, 1 << 20);
    let [ban] = &bench.node.bans()[..] else { panic!("{:?}", bench.node.bans()) };
    assert_eq!((&ban.peer, ban.violation), (&liar.addr(), Some(Violation::WrongBlob)));
    assert_eq!(answer(&mut bench, Command::AddPeer(liar.addr())), Err(Refusal::Banned));
    assert_eq!(answer(&mut bench, Command::Unban(liar.addr())), DONE);
    assert!(bench.node.bans().is_empty() && bench.world.deleted().contains(&RecordKey::Ban(liar.addr())));
    assert_eq!(answer(&mut bench, Command::Unban(liar.addr())), Err(Refusal::NotBanned));
    assert_eq!(answer(&mut bench, Command::AddPeer(liar.addr())), DONE);
}

#[test]
fn connections_are_shown_with_what_each_side_wants() {
    let content = Content::new(&identity(), 3);
    let mut bench = Bench::answering(CONFIG, None);
    content.follow(&mut bench);
    let mut seed = Member::seed(&mut bench, 1, &content);
    seed.hear(&mut bench);
    bench.command(Command::AddPeer(addr(2)));
    let _v5 = Member::v5(&mut bench, 2);
    bench.sleep(Duration::from_secs(1));
    let peers = bench.node.peers(bench.now);
    let [one, two] = &peers[..] else { panic!("{peers:?}") };
    assert_eq!((one.outbound, one.is_keyed, one.speaks_v6, one.found), (false, true, Some(true), None));
    assert_eq!(one.shared, [Target::Channel(content.channel)]);
    assert!(one.wanted_of_it > 0 && one.wanted_of_us == 0 && one.open_for >= Duration::from_secs(1));
    assert!(one.bytes_received > 0 && one.bytes_sent > 0);
    assert_eq!((two.outbound, two.speaks_v6, two.found), (true, Some(false), Some(PeerSource::Configured)));
    assert_eq!((&two.address, two.shared.len()), (&addr(2), 0));
    assert_eq!(bench.node.targets().len(), 1);
}

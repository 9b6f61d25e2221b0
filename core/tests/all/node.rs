//! One node against a scripted v5 peer and against arbitrary inputs, without a network.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::support::content::{item_of, sealed};
use crate::support::ops::{Op, apply};
use crate::support::peer::Peer;
use crate::support::{Bench, CONFIG, UNIX, addr, identity, publication};
use arbitrary::{Arbitrary, Unstructured};
use megatorrent_core::blob::BLOB_LEN;
use megatorrent_core::codec::{Message, kind};
use megatorrent_core::error::{CloseReason, Violation};
use megatorrent_core::identity::{Identity, PublicKey};
use megatorrent_core::ids::{BlobId, CommandId, InfoHash, Secret};
use megatorrent_core::limits::{
    BAN_TIME, HANDSHAKE_TIMEOUT, HELLO_WAIT, IDLE_TIMEOUT, INBOUND_MAX, SEQUENCE_STEP_MAX, STALL_BYTES_MIN,
    STALL_TIMEOUT,
};
use megatorrent_core::manifest::Chunk;
use megatorrent_core::node::{
    Action, Answer, Command, DhtError, DhtOp, Event, Input, Job, JobResult, Node, PublishError, RecordKey,
    Takers,
};
use megatorrent_core::time::Instant;
use proptest::prelude::*;

fn unanswered(identity: Option<Identity>) -> Bench {
    Bench::new(CONFIG, identity)
}

/// Follows the channel of [`identity`], whose head (of one blob) the DHT has and whose peers are `ports`.
fn follow(bench: &mut Bench, chunk: &Chunk, ports: &[u16]) -> PublicKey {
    let channel = identity().public_key();
    for port in ports {
        bench.command(Command::AddPeer(addr(*port)));
    }
    bench.command(Command::Follow { channel, read_key: None });
    bench.sleep_until(bench.now);
    let get = bench.dht_job(|op| matches!(op, DhtOp::Get(_))).expect("the head is looked up");
    bench.handle(Input::DhtItem(get, item_of(chunk, 5)));
    bench.handle(Input::Done(get, JobResult::DhtDone(Ok(()))));
    bench.answer_jobs();
    channel
}

/// Lets the dial to `port` succeed; the peer says that it speaks v5.
fn connect(bench: &mut Bench, port: u16) -> Peer {
    let mut peer = Peer::listen(bench, &addr(port));
    peer.say_hello(bench, 5);
    peer
}

fn is_complete(bench: &mut Bench) -> bool {
    bench.event(|e| matches!(e, Event::Complete { .. })).is_some()
}

#[test]
fn a_blob_is_fetched_checked_and_stored_and_the_channel_is_complete() {
    let (chunk, blob) = sealed(1);
    let mut bench = unanswered(None);
    let channel = follow(&mut bench, &chunk, &[1]);
    let mut peer = Peer::listen(&mut bench, &addr(1));
    let frames = peer.receive(&mut bench);
    // Nothing is requested before the peer's version is known.
    assert!(matches!(
        &frames[..],
        [Message::Hello { version: Some(6), sequences, port: Some(6881), .. }] if sequences.is_empty()
    ));
    peer.say_hello(&mut bench, 5);
    let answer = peer.receive(&mut bench);
    assert!(matches!(
        &answer[0],
        Message::Hello { sequences, .. } if sequences.get(&channel) == Some(&5)
    ));
    assert!(answer.contains(&Message::Request(chunk.id)));
    peer.send_blob(&mut bench, &blob);
    bench.answer_jobs();
    assert!(bench.event(|e| matches!(e, Event::Complete { sequence: 5, .. })).is_some());
    let status = bench.node.channel_status(&channel).expect("followed");
    assert_eq!(
        (status.complete, status.blobs_stored, status.blobs_total, status.waiting),
        (true, 1, 1, None)
    );
    let is_announced = bench.world.announces.iter().any(|(_, hash)| *hash == chunk.id.info_hash());
    assert!(is_announced, "v5 readers look for each blob");
}

#[test]
fn a_dialled_peer_that_says_nothing_is_taken_for_v5() {
    let (chunk, _) = sealed(1);
    let mut bench = unanswered(None);
    follow(&mut bench, &chunk, &[1]);
    let mut peer = Peer::listen(&mut bench, &addr(1));
    bench.sleep(HELLO_WAIT / 2);
    assert!(!peer.is_asked_for(&mut bench, &chunk.id));
    bench.sleep(HELLO_WAIT / 2);
    assert!(peer.is_asked_for(&mut bench, &chunk.id));
}

#[test]
fn a_wrong_blob_bans_its_peer_for_an_hour_even_after_a_restart_and_comes_from_another() {
    let (chunk, blob) = sealed(1);
    let mut bench = unanswered(None);
    follow(&mut bench, &chunk, &[1, 2]);
    let mut liar = connect(&mut bench, 1);
    let mut honest = connect(&mut bench, 2);
    let asked = [liar.is_asked_for(&mut bench, &chunk.id), honest.is_asked_for(&mut bench, &chunk.id)];
    assert_eq!(asked, [true, false], "one of them is asked");
    let mut wrong = blob.clone();
    wrong[5] ^= 1;
    liar.send_blob(&mut bench, &wrong);
    let (id, job) = bench.job(|job| matches!(job, Job::WriteBlob(..))).expect("the blob is checked");
    let mut results = bench.world.answer(bench.now, id, job);
    bench.handle(results.remove(0));
    let (id, key, value) =
        bench.record(|key| matches!(key, RecordKey::Ban(_))).expect("the ban is made durable");
    let value = value.expect("it is stored");
    bench.handle(Input::Done(id, JobResult::Persisted(true)));
    assert_eq!(key, RecordKey::Ban(addr(1)));
    assert!(bench.event(|e| matches!(e, Event::Banned { violation: Violation::WrongBlob, .. })).is_some());
    assert!(bench.closed_for(liar.conn).is_some());
    assert!(honest.is_asked_for(&mut bench, &chunk.id));
    honest.send_blob(&mut bench, &blob);
    bench.answer_jobs();
    assert!(is_complete(&mut bench));

    for (age, dialled) in [(BAN_TIME / 2, false), (BAN_TIME, true)] {
        let mut node = Node::new(CONFIG, [1; 32], Instant(0), UNIX.plus(age));
        assert!(node.restore(&key, &value));
        node.handle(Instant(0), Input::Command(CommandId(1), Command::AddPeer(addr(1))));
        node.handle(
            Instant(0),
            Input::Command(
                CommandId(2),
                Command::Follow { channel: identity().public_key(), read_key: None },
            ),
        );
        let mut dials = std::iter::from_fn(|| node.poll()).filter(|a| matches!(a, Action::Dial(..)));
        assert_eq!(dials.next().is_some(), dialled, "after {age:?}");
    }
}

#[test]
fn a_peer_that_says_not_found_or_stalls_or_closes_is_replaced() {
    let (chunk, blob) = sealed(1);
    let mut bench = unanswered(None);
    follow(&mut bench, &chunk, &[1, 2, 3, 4]);
    let mut peers: Vec<Peer> = (1..=4).map(|port| connect(&mut bench, port)).collect();
    let mut next = |bench: &mut Bench| {
        let at =
            peers.iter_mut().position(|peer| peer.is_asked_for(bench, &chunk.id)).expect("a peer is asked");
        peers.remove(at)
    };
    let mut first = next(&mut bench);
    first.send(&mut bench, &Message::Error("Not Found".into()));
    let second = next(&mut bench);
    bench.node.disconnected(bench.now, first.conn);
    bench.node.disconnected(bench.now, second.conn);
    let mut third = next(&mut bench);
    // Unsolicited messages are no progress.
    third.send_plaintext(&mut bench, &vec![0x99; usize::try_from(2 * STALL_BYTES_MIN).expect("small")]);
    bench.sleep(STALL_TIMEOUT);
    assert_eq!(bench.closed_for(third.conn), Some(CloseReason::Stalled));
    next(&mut bench).send_blob(&mut bench, &blob);
    bench.answer_jobs();
    assert!(is_complete(&mut bench));
}

#[test]
fn a_plain_fetcher_gets_answers_in_order_and_no_hello() {
    let mut bench = unanswered(None);
    let mut peer = Peer::dial(&mut bench, addr(50_000));
    for n in 1..=3 {
        peer.send(&mut bench, &Message::Request(BlobId([n; 32])));
    }
    for (n, found) in [(1, true), (2, false), (3, true)] {
        let read = bench.job(|job| matches!(job, Job::ReadBlob(blob, _) if blob.0[0] == n));
        let Some((id, Job::ReadBlob(_, mut buffer))) = read else { panic!("request {n} is read") };
        buffer.blob_mut().fill(n);
        bench.handle(Input::Done(id, JobResult::BlobRead(buffer, found)));
        match (&peer.receive(&mut bench)[..], found) {
            ([Message::Data(data)], true) => assert_eq!((data[0], data.len()), (n, BLOB_LEN)),
            ([error], false) => assert_eq!(*error, Message::Error("Not Found".into())),
            other => panic!("one answer, not {}", other.0.len()),
        }
    }
    peer.say_hello(&mut bench, 5);
    assert!(matches!(&peer.receive(&mut bench)[..], [Message::Hello { .. }]));
}

#[test]
fn bad_messages_are_answered_once_and_end_the_connection() {
    let cases: [(u8, &[u8], &str); 5] = [
        (kind::REQUEST, b"../../identity.json", "Malformed Message"),
        (kind::HELLO, br#"{"v":4}"#, "Protocol Version Mismatch"),
        (kind::HELLO, b"\xFF", "Malformed Message"),
        (kind::PEERS, b"{", "Malformed Message"),
        (kind::ANNOUNCE, b"[]", "Malformed Message"),
    ];
    for (kind, payload, why) in cases {
        let mut bench = unanswered(None);
        let mut peer = Peer::dial(&mut bench, addr(50_000));
        peer.send_plaintext(&mut bench, &[&[kind], payload].concat());
        assert_eq!(peer.receive(&mut bench)[0], Message::Error(why.into()));
        assert!(bench.closed_for(peer.conn).is_some());
        assert!(
            bench.node.recv_space(peer.conn).is_empty()
                && bench.node.send_chunk(bench.now, peer.conn).is_empty()
        );
    }
}

#[test]
fn silent_and_idle_connections_end_and_the_oldest_makes_room() {
    let mut bench = unanswered(None);
    let silent = bench.node.accept(bench.now, addr(1)).expect("there is room");
    let peer = Peer::dial(&mut bench, addr(2));
    bench.sleep(HANDSHAKE_TIMEOUT);
    assert_eq!(bench.closed_for(silent), Some(CloseReason::HandshakeTimeout));
    bench.sleep(IDLE_TIMEOUT);
    assert_eq!(bench.closed_for(peer.conn), Some(CloseReason::Idle));

    let oldest = bench.node.accept(bench.now, addr(3)).expect("there is room");
    for port in 0..u16::try_from(INBOUND_MAX).expect("small") {
        bench.now = Instant(bench.now.0 + 1);
        assert!(bench.node.accept(bench.now, addr(1000 + port)).is_some());
    }
    bench.drain();
    assert_eq!(bench.closed_for(oldest), Some(CloseReason::Evicted));
    assert_eq!(bench.status().inbound, INBOUND_MAX);
}

#[test]
fn a_gossiped_sequence_makes_the_head_be_looked_up() {
    let (chunk, _) = sealed(1);
    let mut bench = unanswered(None);
    let channel = follow(&mut bench, &chunk, &[]);
    let mut peer = Peer::dial(&mut bench, addr(50_000));
    bench.now = bench.now + Duration::from_secs(10);
    for (sequence, looked_up) in [(5, false), (6, true)] {
        peer.send(
            &mut bench,
            &Message::Hello {
                version: Some(5),
                sequences: [(channel, sequence)].into(),
                port: None,
                features: 0,
            },
        );
        bench.sleep_until(bench.now);
        assert_eq!(
            bench.dht_job(|op| matches!(op, DhtOp::Get(_))).is_some(),
            looked_up,
            "sequence {sequence}"
        );
    }
}

#[test]
fn sequences_never_go_back_and_forks_are_reported() {
    let ((old, _), (new, _)) = (sealed(1), sealed(2));
    let mut bench = unanswered(None);
    let channel = follow(&mut bench, &new, &[]);
    bench.now = bench.now + Duration::from_mins(2);
    bench.sleep_until(bench.now);
    let get = bench.dht_job(|op| matches!(op, DhtOp::Get(_))).expect("it is polled");
    bench.handle(Input::DhtItem(get, item_of(&old, 4)));
    assert!(bench.event(|e| matches!(e, Event::Fork { .. })).is_none());
    bench.handle(Input::DhtItem(get, item_of(&old, 5)));
    assert!(bench.event(|e| matches!(e, Event::Fork { sequence: 5, .. })).is_some());
    let mut forged = item_of(&old, 9);
    forged.signature[0] ^= 1;
    bench.handle(Input::DhtItem(get, forged));
    let ahead = (5 + SEQUENCE_STEP_MAX + 1).cast_signed();
    bench.handle(Input::DhtItem(get, item_of(&old, ahead)));
    assert!(bench.event(|e| matches!(e, Event::HeadRefused { .. })).is_some());
    bench.answer_jobs();
    assert_eq!(bench.node.channel_status(&channel).map(|s| s.sequence), Some(5));
}

#[test]
fn publishing_signs_above_the_known_sequence_stores_first_and_reads_back() {
    let mut bench = unanswered(Some(identity()));
    let newer = i64::try_from(UNIX.0).expect("small") + 1000;
    bench.command(publication());
    // The node stores the subscription to its own channel at once.
    let is_channel = |key: &RecordKey| matches!(key, RecordKey::Channel(_));
    let (followed, ..) = bench.record(is_channel).expect("it is made durable");
    bench.handle(Input::Done(followed, JobResult::Persisted(true)));
    let get = bench.dht_job(|op| matches!(op, DhtOp::Get(_))).expect("the newest is looked up first");
    bench.handle(Input::DhtItem(get, item_of(&sealed(1).0, newer)));
    bench.handle(Input::Done(get, JobResult::DhtDone(Ok(()))));
    let put = |bench: &mut Bench| bench.job(|job| matches!(job, Job::Dht(DhtOp::Put(..))));
    assert!(put(&mut bench).is_none(), "not before it is durable");
    let (record, ..) = bench.record(is_channel).expect("the head is stored");
    bench.handle(Input::Done(record, JobResult::Persisted(true)));
    let Some((put, Job::Dht(DhtOp::Put(item, cas)))) = put(&mut bench) else { panic!("it is put") };
    assert_eq!((item.seq, cas, item.verify()), (newer + 1, Some(newer), true));
    bench.handle(Input::Done(put, JobResult::DhtPut(Ok(4))));
    let read_back = bench.dht_job(|op| matches!(op, DhtOp::Get(_))).expect("it is read back");
    bench.handle(Input::DhtItem(read_back, item));
    let sequence = newer.unsigned_abs() + 1;
    let answer = Answer::Published { sequence, takers: Takers::DhtNodes(4), inline: true };
    assert_eq!(bench.published(), Some(Ok(answer)));
}

#[test]
fn without_a_dht_publishing_fails_with_the_reason() {
    let mut bench = unanswered(Some(identity()));
    bench.command(publication());
    let get = bench.dht_job(|op| matches!(op, DhtOp::Get(_))).expect("the newest is looked up first");
    bench.handle(Input::Done(get, JobResult::DhtDone(Err(DhtError::Disabled))));
    assert_eq!(bench.published(), Some(Err(PublishError::Dht(DhtError::Disabled).into())));
}

// --- arbitrary inputs ---------------------------------------------------------------------------------------------

/// Runs the operations that `bytes` spell; returns the node's actions as text.
fn run(bytes: &[u8]) -> Vec<String> {
    let mut bench = unanswered(Some(identity()));
    let mut peers = Vec::new();
    bench.log = Some(Vec::new());
    bench.command(Command::Follow { channel: identity().public_key(), read_key: None });
    let mut input = Unstructured::new(bytes);
    while let Ok(op) = Op::arbitrary(&mut input) {
        apply(&mut bench, &mut peers, op);
        bench.drain();
        for (conn, _) in std::mem::take(&mut bench.closed) {
            peers.retain(|peer: &Peer| peer.conn != conn);
            assert!(bench.node.recv_space(conn).is_empty(), "a closed connection takes no bytes");
        }
        if input.is_empty() {
            break;
        }
    }
    bench.node.shutdown(bench.now);
    bench.drain();
    let status = bench.status();
    assert_eq!((status.inbound, status.outbound), (0, 0));
    bench.log.expect("it was begun")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_order_of_inputs_breaks_a_node_and_the_same_inputs_give_the_same_actions(
        bytes in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        prop_assert_eq!(run(&bytes), run(&bytes));
    }
}

#[test]
fn info_hashes_are_the_front_of_the_id() {
    assert_eq!(BlobId([7; 32]).info_hash(), InfoHash([7; 20]));
}

#[test]
fn a_subscription_is_remembered_before_its_first_head() {
    let mut bench = unanswered(None);
    let channel = identity().public_key();
    let read_key = Some(Secret::new([8; 32]));
    bench.command(Command::Follow { channel, read_key });
    let (_, key, value) = bench.record(|_| true).expect("it is made durable");
    let mut later = Node::new(CONFIG, [1; 32], Instant(0), UNIX);
    assert!(later.restore(&key, &value.expect("it is stored")));
    assert_eq!(later.channel_status(&channel).map(|s| (s.private, s.sequence)), Some((true, 0)));
}

#[test]
fn a_peer_that_had_not_a_blob_is_asked_again_later() {
    let (chunk, blob) = sealed(1);
    let mut bench = unanswered(None);
    follow(&mut bench, &chunk, &[1]);
    let mut peer = connect(&mut bench, 1);
    assert!(peer.is_asked_for(&mut bench, &chunk.id));
    peer.send(&mut bench, &Message::Error("Not Found".into()));
    assert!(!peer.is_asked_for(&mut bench, &chunk.id), "not at once");
    bench.sleep(Duration::from_secs(10));
    assert!(peer.is_asked_for(&mut bench, &chunk.id));
    peer.send_blob(&mut bench, &blob);
    bench.answer_jobs();
    assert!(is_complete(&mut bench));
}

#[test]
fn a_banned_peer_that_dials_us_is_refused() {
    let mut bench = unanswered(None);
    let until = (UNIX.0 + 1000).to_be_bytes();
    assert!(bench.node.restore(&RecordKey::Ban(addr(7000)), &until));
    for (port, turned_away) in [(7000, true), (7001, false)] {
        let mut peer = Peer::dial(&mut bench, addr(50_000 + port));
        peer.send(
            &mut bench,
            &Message::Hello { version: Some(6), sequences: BTreeMap::new(), port: Some(port), features: 0 },
        );
        let closed = bench.closed_for(peer.conn);
        assert_eq!(closed == Some(CloseReason::Banned), turned_away, "from a node that listens on {port}");
    }
}

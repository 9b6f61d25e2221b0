//! A gateway's favours and their quotas, over a DHT that answers as a test says.

use std::time::Duration;

use crate::support::content::item;
use crate::support::member::Member;
use crate::support::peer::Peer;
use crate::support::{Bench, CONFIG, at, author, identity};
use megatorrent_core::addr::{OnionAddr, PeerAddr};
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::codec::Message;
use megatorrent_core::ids::BlobId;
use megatorrent_core::limits::{
    ANNOUNCES_PER_MINUTE, DHT_OPS_PER_MINUTE, FAVOURS_PER_MINUTE, FAVOURS_TOTAL_BURST,
    FAVOURS_TOTAL_PER_MINUTE, HEAD_POLL_INTERVAL,
};
use megatorrent_core::manifest::{Collection, HeadContent};
use megatorrent_core::node::{Command, Config, Event};
use megatorrent_core::uri;

fn gateway() -> Bench {
    Bench::answering(Config { gateway: true, ..CONFIG }, None)
}

/// A v6 peer that connects from an address.
fn dial(bench: &mut Bench, from: PeerAddr) -> Peer {
    let mut peer = Peer::dial(bench, from);
    peer.say_hello(bench, 6);
    peer.receive(bench);
    peer
}

/// Asks for a put of a head of the `n`th author; returns why it was refused, if it was.
fn ask_to_put(bench: &mut Bench, peer: &mut Peer, n: u8, sequence: i64) -> Result<(), String> {
    let item = item(&author(n), sequence, &HeadContent::Inline(vec![]));
    peer.send(bench, &Message::Publish(item));
    match peer.receive(bench).pop() {
        Some(Message::Ok(_)) => Ok(()),
        Some(Message::Error(why)) => Err(why),
        other => panic!("{other:?} is no answer to PUBLISH"),
    }
}

/// Asks for the head of the `n`th author, which the DHT has; returns whether it was looked up.
fn ask_to_look_up(bench: &mut Bench, peer: &mut Peer, n: u8) -> bool {
    let channel = author(n).public_key();
    bench.world.heads.insert(channel, (item(&author(n), 5, &HeadContent::Inline(vec![])), 1));
    let tag = peer.tag(&uri::topic(&channel, None));
    peer.send(bench, &Message::GetHead { tag, known: 0, look_up: Some(channel) });
    match peer.receive(bench).pop() {
        Some(Message::Head(_, item)) => item.is_some(),
        other => panic!("{other:?} is no answer to GET_HEAD"),
    }
}

#[test]
fn a_host_gets_no_more_favours_by_opening_more_connections() {
    for (host, is_quota_of_host) in [("9.9.9.9", true), ("[2a00::1]", true), ("127.0.0.1", false)] {
        let mut bench = gateway();
        let mut done = 0;
        for port in 1..=5 {
            let mut peer = dial(&mut bench, at(&format!("{host}:{port}")));
            for n in 0..5 {
                done += u64::from(ask_to_put(&mut bench, &mut peer, n, i64::from(port)).is_ok());
                done += u64::from(ask_to_look_up(&mut bench, &mut peer, 100 + n));
            }
            bench.node.disconnected(bench.now, peer.conn);
        }
        let most = if is_quota_of_host { FAVOURS_PER_MINUTE } else { FAVOURS_TOTAL_BURST };
        assert_eq!(done, most, "{host}");
    }
}

#[test]
fn strangers_together_get_half_of_the_dht_budget() {
    let mut bench = gateway();
    let (mut begun, minutes) = (0, 10_u32);
    for second in 0..minutes * 60 {
        // Each second another host asks for two things.
        let mut peer = dial(&mut bench, at(&format!("9.9.{}.{}:1", second / 200, second % 200)));
        let put = ask_to_put(&mut bench, &mut peer, 1, i64::from(second) + 1);
        assert!(matches!(put.as_ref().map_err(String::as_str), Ok(()) | Err("Busy")), "{put:?}");
        begun += u64::from(put.is_ok()) + u64::from(ask_to_look_up(&mut bench, &mut peer, 2));
        bench.node.disconnected(bench.now, peer.conn);
        bench.sleep(Duration::from_secs(1));
    }
    let most = FAVOURS_TOTAL_BURST + u64::from(minutes) * FAVOURS_TOTAL_PER_MINUTE;
    assert!((most - 1..=most).contains(&begun), "{begun} of {most}");
    assert_eq!(FAVOURS_TOTAL_PER_MINUTE * 2, DHT_OPS_PER_MINUTE);
}

#[test]
fn a_forged_item_takes_nothing_from_others() {
    let mut bench = gateway();
    for n in 0..100 {
        let mut peer = dial(&mut bench, at(&format!("9.9.9.{n}:1")));
        let mut forged = item(&author(1), 5, &HeadContent::Inline(vec![]));
        forged.value.push(b' ');
        peer.send(&mut bench, &Message::Publish(forged));
        assert_eq!(peer.receive(&mut bench).pop(), Some(Message::Error("Invalid Signature".into())));
    }
    let mut honest = dial(&mut bench, at("8.8.8.8:1"));
    assert_eq!(ask_to_put(&mut bench, &mut honest, 1, 5), Ok(()));
}

#[test]
fn a_gateway_that_follows_the_channel_gives_only_a_head_that_the_dht_has() {
    let mut bench = gateway();
    let channel = author(1).public_key();
    bench.command(Command::Follow { channel, read_key: None });
    let mut peer = Member::join(&mut bench, 1, &[channel]).peer;
    let tag = peer.tag(&uri::topic(&channel, None));
    let head = item(&author(1), 5, &HeadContent::Inline(vec![]));
    peer.send(&mut bench, &Message::Head(tag, Some(head.clone())));
    assert_eq!(bench.node.channel_status(&channel).map(|status| status.sequence), Some(5));
    peer.receive(&mut bench);
    let mut ask = |bench: &mut Bench| {
        peer.send(bench, &Message::GetHead { tag, known: 4, look_up: Some(channel) });
        peer.receive(bench).pop()
    };
    assert_eq!(ask(&mut bench), Some(Message::Head(tag, None)), "only the peer had it");
    bench.world.heads.insert(channel, (head.clone(), 1));
    assert_eq!(ask(&mut bench), Some(Message::Head(tag, Some(head.clone()))));
    bench.sleep(HEAD_POLL_INTERVAL);
    bench.world.heads.clear();
    assert_eq!(ask(&mut bench), Some(Message::Head(tag, Some(head))), "its own look-up has found it");
}

#[test]
fn a_host_announces_no_more_names_by_opening_more_connections() {
    let mut bench = gateway();
    let channel = identity().public_key();
    bench.command(Command::Follow { channel, read_key: None });
    let topic = BlobId(uri::topic(&channel, None).0);
    let name = |n: u64| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_be_bytes());
        PeerAddr::Onion(OnionAddr::from_public_key(key), 6881)
    };
    let before = bench.status().peers_known;
    for port in 0..2 {
        let mut peer = dial(&mut bench, at(&format!("9.9.9.9:{}", 1 + port)));
        for n in 0..ANNOUNCES_PER_MINUTE {
            peer.send(&mut bench, &Message::Announce(topic, name(port * 1000 + n), 6));
        }
    }
    assert_eq!(bench.status().peers_known - before, usize::try_from(ANNOUNCES_PER_MINUTE).expect("few"));
}

/// Another head of the `n`th author and a sequence.
fn fork(n: u8, sequence: i64) -> SignedItem {
    let other = Collection { title: "another".into(), items: Vec::new() };
    item(&author(n), sequence, &HeadContent::Inline(vec![other]))
}

#[test]
fn a_fork_does_not_pass_through_a_gateway() {
    let too_low = || Some(Message::Error("Sequence Too Low".into()));
    for is_followed in [false, true] {
        let mut bench = gateway();
        let channel = author(1).public_key();
        if is_followed {
            bench.command(Command::Follow { channel, read_key: None });
        }
        let mut peer = dial(&mut bench, at("127.0.0.1:1"));
        assert_eq!(ask_to_put(&mut bench, &mut peer, 1, 5), Ok(()));
        let puts = bench.world.puts.len();
        for forbidden in [fork(1, 5), item(&author(1), 4, &HeadContent::Inline(vec![]))] {
            peer.send(&mut bench, &Message::Publish(forbidden));
            assert_eq!(peer.receive(&mut bench).pop(), too_low());
        }
        assert_eq!(bench.world.puts.len(), puts);
        let told = bench.count(|event| matches!(event, Event::Fork { sequence: 5, .. }));
        assert_eq!(told, usize::from(is_followed), "who follows the channel is told");
        assert_eq!(ask_to_put(&mut bench, &mut peer, 1, 5), Ok(()), "the same item may be put again");
        peer.send(&mut bench, &Message::Publish(fork(1, 6)));
        assert!(matches!(peer.receive(&mut bench).pop(), Some(Message::Ok(_))));
    }
}

#[test]
fn a_head_that_a_peer_told_of_is_not_forked_by_a_put() {
    let mut bench = gateway();
    let channel = author(1).public_key();
    bench.command(Command::Follow { channel, read_key: None });
    let mut member = Member::join(&mut bench, 1, &[channel]);
    let head = item(&author(1), 5, &HeadContent::Inline(vec![]));
    member.peer.send(&mut bench, &Message::Head(member.tags[0], Some(head)));
    member.peer.send(&mut bench, &Message::Publish(fork(1, 5)));
    let answers = member.peer.receive(&mut bench);
    assert!(answers.contains(&Message::Error("Sequence Too Low".into())), "{answers:?}");
    assert!(bench.world.puts.is_empty());
}

//! Each kind does what its name says.

use super::*;
use crate::config::{HostConfig, WorldConfig};
use megatorrent_core::ids::Root;
use megatorrent_core::limits::{ANNOUNCE_HOPS_MAX, PIECE_LEN_MAX};
use megatorrent_core::parts::{PART_LEN, Values};
use megatorrent_core::suite::{BlobFormat, RealSuite};

const TAG: Tag = Tag([7; 16]);
/// The parts that are asked for.
const MASK: Mask = Mask::first(2);
const LEN: usize = 2 * PART_LEN;

/// A peer that asks one adversary for parts of a blob, and hears it out.
struct Asker {
    world: World,
    adversaries: Adversaries<RealSuite>,
    socket: Socket,
    client: Client,
    root: Root,
    blob: Vec<u8>,
    /// The messages that came, and whether a frame did not open.
    heard: Vec<Message>,
    is_broken: bool,
}

impl Asker {
    fn ask(attack: Attack) -> Self {
        let mut world = World::new(1, WorldConfig::default());
        let identity_seed = Some(Secret::new([7; 32]));
        let author = world.add_host(HostConfig { identity_seed, ..HostConfig::default() });
        world.ingest(author, "file", b"content");
        let id = world.store(author).blob_ids().next().expect("the file's");
        let blob = world.store(author).blob(&id).expect("it is stored");
        let root = id.root().expect("a native blob");
        let machine = world.add_machine(HostConfig::default());
        world.take_stranger_events();
        let mut rng = Rng::new([1; 32]);
        let identity = || Identity::new(&Secret::new([7; 32]), None);
        let first = SignedItem::sign(&identity(), 4, b"a head".to_vec()).expect("short");
        world.dht_mut().replace(Instant(0), &first);
        let mut adversaries = Adversaries::new(rng.fork("adversaries"), author, identity(), None);
        let at = adversaries.add(&mut world, attack);
        let socket = world.machine_dial(machine, at);
        let mut client = Client::new(Role::Dialler, &mut rng);
        world.socket_send(socket, &client.take_output());
        let (heard, is_broken) = (Vec::new(), false);
        let mut asker = Self { world, adversaries, socket, client, root, blob, heard, is_broken };
        asker.run();
        let get_head = |known| Message::GetHead { tag: TAG, known, look_up: None };
        let want = Message::Want(Want { number: 9, root, mask: MASK, values: true, last_len: None });
        for message in [Message::AskHave(TAG, 1), want, get_head(3), get_head(4)] {
            asker.client.send(&message);
        }
        asker.world.socket_send(socket, &asker.client.take_output());
        asker.run();
        asker
    }

    fn run(&mut self) {
        let end = self.world.now() + Duration::from_secs(5);
        loop {
            let next = self.world.next_at().unwrap_or(end);
            let turn = self.adversaries.deadline().unwrap_or(end);
            match turn.min(next) {
                at if at >= end => return,
                at if at == next => drop(self.world.step()),
                at => self.world.skip_to(at),
            }
            self.adversaries.wake(&mut self.world, &[]);
            for (side, event) in self.world.take_socket_events() {
                if (Socket { link: event.link(), side }) == self.socket {
                    self.hear();
                } else {
                    self.adversaries.handle(&mut self.world, side, event);
                }
            }
        }
    }

    fn hear(&mut self) {
        let bytes = self.world.socket_read(self.socket);
        self.client.feed(&bytes);
        while !self.is_broken {
            match self.client.hear() {
                Ok(Some(Heard::Message(message))) => self.heard.push(message),
                Ok(Some(Heard::Malformed(why))) => panic!("an adversary's messages parse: {why}"),
                Ok(Some(Heard::Open)) => {}
                Ok(None) => return,
                Err(_) => self.is_broken = true,
            }
        }
    }

    /// Returns the bytes of all PIECEs that opened, in order; `None`: none came.
    fn pieces(&self) -> Option<Vec<u8>> {
        let piece = |message: &Message| match message {
            Message::Piece { number: 9, part, half, bytes } => Some(((*part, *half), bytes.clone())),
            _ => None,
        };
        let pieces: Vec<_> = self.heard.iter().filter_map(piece).collect();
        let (places, bytes): (Vec<(u8, u8)>, Vec<Vec<u8>>) = pieces.into_iter().unzip();
        let all = [(0, 0), (0, 1), (1, 0), (1, 1)];
        assert!(places.iter().eq(all.iter().take(bytes.len())), "one after the other");
        (!bytes.is_empty()).then(|| bytes.concat())
    }

    /// Returns the values that came.
    fn values(&self) -> Option<&Values> {
        self.heard.iter().find_map(|message| match message {
            Message::Parts { number: 9, values } => Some(&**values),
            _ => None,
        })
    }

    /// Returns the heads that came and were not refused: the sequence of each, and whether it is the right one.
    fn heads(&self) -> Vec<(i64, bool)> {
        let head = |message: &Message| match message {
            Message::Head(_, Some(item)) => {
                assert!(item.verify());
                Some((item.seq, item.value == b"a head"))
            }
            _ => None,
        };
        self.heard.iter().filter_map(head).collect()
    }

    /// Checks that it announced the channel and other topics, by names and its own address, all exchangeable.
    fn assert_floods(&self) {
        let topic = uri::topic(&Identity::new(&Secret::new([7; 32]), None).public_key(), None);
        let announce = |message: &Message| match message {
            Message::Announce(id, addr, hops) => {
                assert!(addr.is_exchangeable(), "{addr}");
                Some((id.0 == topic.0, matches!(addr, PeerAddr::Onion(..)), *hops))
            }
            _ => None,
        };
        let announces: Vec<_> = self.heard.iter().filter_map(announce).collect();
        for (of_channel, is_name) in [(true, true), (true, false), (false, true), (false, false)] {
            assert!(announces.iter().any(|(of, is, _)| (*of, *is) == (of_channel, is_name)));
        }
        assert!(announces.iter().any(|(.., hops)| *hops == ANNOUNCE_HOPS_MAX));
    }

    fn claims_all(&self) -> bool {
        self.heard.contains(&Message::Have(TAG, 1, all()))
    }
}

#[test]
fn each_kind_lies_in_its_own_way() {
    let len = LEN;
    for attack in Attack::ALL.into_iter().chain([Attack::FalseGateway]) {
        let asker = Asker::ask(attack);
        let right = &asker.blob[..len];
        let (pieces, is_broken) = (asker.pieces(), asker.is_broken);
        match attack {
            Attack::WrongParts => {
                assert!(pieces.is_some_and(|bytes| bytes.len() == len && bytes != right), "{attack:?}");
            }
            Attack::WrongValues => {
                let told = asker.values().expect("it answers");
                assert!(RealSuite::root_of(told) != asker.root && pieces.as_deref() == Some(right));
            }
            Attack::Trickle => assert_eq!(pieces.as_deref(), Some(&right[..2 * PIECE_LEN_MAX]), "in 5 s"),
            Attack::BitFlip => assert!(is_broken && pieces.is_none(), "the frame does not open"),
            Attack::Replay => assert!(is_broken, "a frame comes twice"),
            Attack::SlowLoris | Attack::Silence | Attack::ValuesWithheld => {
                assert!(!is_broken && pieces.is_none(), "{attack:?}");
            }
            Attack::Garbage => assert!(is_broken && asker.heard.is_empty()),
            _ => assert_eq!(pieces, Some(Vec::new()), "{attack:?} refuses"),
        }
        if attack == Attack::AnnounceFlood {
            asker.assert_floods();
        }
        if attack == Attack::StaleHead {
            let heads = asker.heads();
            let forks = heads.iter().filter(|head| **head == (4, false)).count();
            assert!(forks == 1 && heads.len() > 2, "one for the peer that knows it: {heads:?}");
        }
        assert!(asker.claims_all() || !attack.claims_all() || is_broken, "{attack:?}");
    }
}

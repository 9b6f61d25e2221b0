//! Any order of honest, lying, silent and refusing peers, of crashes, of connections that end and of a store that fails or loses what was under way: in the end all
//! is stored byte for byte, only liars are banned, and at no time more peers than allowed are asked for one part.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use crate::support::content::{
    BlobMap, SEQUENCE, Sealed, data_of, file, item, item_of, sealed, sealed_native,
};
use crate::support::member::{Manner, Member, all};
use crate::support::{Bench, CONFIG, identity};
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::codec::Have;
use megatorrent_core::error::CloseReason;
use megatorrent_core::ids::BlobName;
use megatorrent_core::limits::{INDEX_ASKED_MAX, PIECE_LEN_MAX, SILENCE_MAX};
use megatorrent_core::manifest::{HeadContent, Reference};
use megatorrent_core::node::{Command, Config, Event, Job, Written};
use megatorrent_core::parts::Mask;
use proptest::prelude::*;

const PIECE: u64 = PIECE_LEN_MAX as u64;
/// The time between two looks at the peers.
const STEP: Duration = Duration::from_millis(250);
/// By when all is here, once an honest peer has it all and nothing fails any more: peers that withhold are given up by then.
const RECOVERY: Duration = SILENCE_MAX.saturating_mul(2);

/// A channel of a tree and a v5 blob.
struct Channel {
    head: SignedItem,
    blobs: BlobMap,
    /// By position.
    places: Vec<BlobName>,
}

impl Channel {
    /// A tree of so many bytes.
    fn of_len(len: usize) -> Self {
        let mut author = Sealed::default();
        let lens = (0..len.div_ceil(PLAIN_LEN)).map(|n| (len - n * PLAIN_LEN).min(PLAIN_LEN));
        let data: Vec<(BlobRef, Vec<u8>)> =
            lens.zip(0..).map(|(len, n)| data_of(&identity(), n, len)).collect();
        let tree = author.tree(data.iter().map(|(link, _)| link.clone()), len as u64);
        let (chunk, v5) = sealed(1);
        let size = u64::from(chunk.real_size);
        let mut of_files: Vec<BlobName> =
            (tree.depth > 0).then(|| tree.blob.root.into()).into_iter().collect();
        of_files.extend(data.iter().map(|(link, _)| BlobName::Native(link.root)));
        of_files.push(chunk.name());
        author.0.extend(data.into_iter().map(|(link, blob)| (link.root.into(), blob)));
        author.0.insert(chunk.name(), v5);
        let before: BTreeSet<BlobName> = author.0.keys().copied().collect();
        let items = vec![file("a", len as u64, tree.into()), file("b", size, Reference::Chunks(vec![chunk]))];
        let body = author.body(items, false);
        let body_name = BlobName::Native(body.blob.root);
        let page = author.0.keys().find(|name| !before.contains(name) && **name != body_name);
        let mut places = vec![body_name, *page.expect("there is one page")];
        places.extend(of_files);
        let head = item(&identity(), SEQUENCE.cast_signed(), &HeadContent::Body(body));
        Self { head, blobs: author.0, places }
    }

    /// One native blob, whose head says its id too.
    fn inline() -> Self {
        let (chunk, blob) = sealed_native(1);
        let blobs: BlobMap = [(chunk.name(), blob.clone()), (chunk.id.into(), blob)].into();
        Self { head: item_of(&chunk, SEQUENCE.cast_signed()), blobs, places: vec![chunk.name()] }
    }

    /// One of some channels.
    fn any(choice: usize) -> &'static Self {
        static CHANNELS: OnceLock<Vec<Channel>> = OnceLock::new();
        let lens = [1000, 200_000, PLAIN_LEN + 70_000, 2 * PLAIN_LEN];
        let channels = || lens.map(Self::of_len).into_iter().chain([Self::inline()]).collect();
        let channels = CHANNELS.get_or_init(channels);
        &channels[choice % channels.len()]
    }
}

/// What a peer is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Character {
    Honest,
    Liar,
    LiarOfValues,
}

/// What happens.
#[derive(Clone, Debug)]
enum Step {
    /// A peer comes, with all or with parts of some blobs.
    Join(Character, Option<Vec<(u8, u16)>>),
    /// The node is to dial a v5 peer, which has all.
    Dial(Character),
    /// A peer tells of more.
    Tell(usize, u8, u16),
    /// A peer brings so many halves of parts.
    Bring(usize, u8),
    Refuse(usize),
    Leave(usize),
    Wait(u16),
    /// The store fails from here on, or does not.
    Store(Option<bool>),
    /// Jobs are answered at once from here on, or wait.
    Answers(bool),
    /// Of the jobs that wait, one is answered.
    Answer(usize),
    /// The store loses a blob under way.
    Lose(usize),
    /// The node ends and starts again, with what the store holds.
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let character = prop_oneof![
        4 => Just(Character::Honest),
        1 => Just(Character::Liar),
        1 => Just(Character::LiarOfValues),
    ];
    let of_v5 = prop_oneof![2 => Just(Character::Honest), 1 => Just(Character::Liar)];
    let told = prop::option::of(prop::collection::vec((0..8_u8, any::<u16>()), 0..6));
    prop_oneof![
        4 => (character, told).prop_map(|(character, told)| Step::Join(character, told)),
        2 => of_v5.prop_map(Step::Dial),
        2 => (any::<usize>(), 0..8_u8, any::<u16>()).prop_map(|(n, at, mask)| Step::Tell(n, at, mask)),
        12 => (any::<usize>(), 1..40_u8).prop_map(|(n, halves)| Step::Bring(n, halves)),
        2 => any::<usize>().prop_map(Step::Refuse),
        2 => any::<usize>().prop_map(Step::Leave),
        6 => (1..4000_u16).prop_map(Step::Wait),
        1 => prop::option::of(any::<bool>()).prop_map(Step::Store),
        1 => any::<bool>().prop_map(Step::Answers),
        4 => any::<usize>().prop_map(Step::Answer),
        1 => any::<usize>().prop_map(Step::Lose),
        1 => Just(Step::Crash),
    ]
}

struct Player {
    member: Member,
    character: Character,
    /// What it told of, by position; `None`: all.
    told: Option<BTreeMap<u32, Mask>>,
    /// It may have sent something wrong.
    has_lied: bool,
    seen: usize,
}

struct Play {
    bench: Option<Bench>,
    channel: &'static Channel,
    players: Vec<Player>,
    liars: BTreeSet<String>,
    next_port: u16,
}

impl Play {
    fn new(channel: &'static Channel, takes_all: bool) -> Self {
        let mut bench = Bench::answering(Config { takes_all, ..CONFIG }, None);
        bench.world.ends_lookups = true;
        bench.world.heads.insert(identity().public_key(), (channel.head.clone(), 8));
        bench.command(Command::Follow { channel: identity().public_key(), read_key: None });
        bench.sleep_until(bench.now);
        Self { bench: Some(bench), channel, players: Vec::new(), liars: BTreeSet::new(), next_port: 1 }
    }

    fn bench(&mut self) -> &mut Bench {
        self.bench.as_mut().expect("it is there between steps")
    }

    fn with(&mut self, n: usize, act: impl FnOnce(&mut Bench, &mut Player, &Channel)) {
        let (bench, channel) = (self.bench.as_mut().expect("it is there between steps"), self.channel);
        if let Some(at) = n.checked_rem(self.players.len()) {
            act(bench, &mut self.players[at], channel);
        }
    }

    fn join(&mut self, character: Character, told: Option<&[(u8, u16)]>) {
        let port = self.next_port;
        self.next_port += 1;
        let places = self.channel.places.len();
        let bench = self.bench();
        let member = Member::join(bench, port, &[identity().public_key()]);
        let mut player = Player::new(member, character);
        match told {
            None => player.member.say_have(bench, all()),
            Some(told) => {
                player.told = Some(BTreeMap::new());
                for (at, mask) in told {
                    player.tell(bench, u32::from(*at) % u32::try_from(places).expect("few"), Mask(*mask));
                }
            }
        }
        self.players.push(player);
    }

    fn play(&mut self, step: &Step) {
        match step {
            Step::Join(character, told) => self.join(*character, told.as_deref()),
            Step::Dial(character) => {
                let port = self.next_port;
                self.next_port += 1;
                if let Some(member) = Member::v5(self.bench(), port) {
                    self.players.push(Player::new(member, *character));
                }
            }
            Step::Tell(n, at, mask) => self.with(*n, |bench, player, channel| {
                let at = usize::from(*at) % channel.places.len();
                player.tell(bench, u32::try_from(at).expect("few"), Mask(*mask));
            }),
            Step::Bring(n, halves) => self.with(*n, |bench, player, channel| {
                player.bring(bench, &channel.blobs, u64::from(*halves) * PIECE);
            }),
            Step::Refuse(n) => self.with(*n, |bench, player, _| player.member.refuse(bench)),
            Step::Leave(n) => {
                if let Some(at) = n.checked_rem(self.players.len()) {
                    let gone = self.players.remove(at);
                    let bench = self.bench();
                    bench.node.disconnected(bench.now, gone.member.peer.conn);
                    bench.drain();
                }
            }
            Step::Wait(ms) => self.wait(Duration::from_millis(u64::from(*ms)), 0),
            Step::Store(fails) => {
                let why = fails.map(|is_full| if is_full { Written::NoSpace } else { Written::Failed });
                self.bench().world.store.fails = why;
            }
            Step::Answers(answers) => {
                self.bench().answers = *answers;
                self.bench().drain();
            }
            Step::Answer(n) => {
                let bench = self.bench();
                if let Some(at) = n.checked_rem(bench.jobs.len())
                    && let Some((id, job)) = bench.jobs.remove(at)
                {
                    for input in bench.world.answer(bench.now, id, job) {
                        bench.handle(input);
                    }
                }
            }
            Step::Lose(n) => {
                let under_way = &mut self.bench().world.store.under_way;
                let lost = n.checked_rem(under_way.len()).and_then(|at| under_way.keys().nth(at).copied());
                lost.map(|root| under_way.remove(&root));
            }
            Step::Crash => {
                let bench = self.bench.take().expect("it is there between steps");
                self.bench = Some(bench.restarted());
                self.players.clear();
                let bench = self.bench();
                bench.sleep_until(bench.now);
            }
        }
        self.check();
    }

    /// Lets time pass; honest peers bring so many bytes a second.
    fn wait(&mut self, time: Duration, bytes_per_sec: u64) {
        let until = self.bench().now + time;
        while self.bench().now < until {
            let now = self.bench().now;
            self.bench().sleep(STEP.min(until.since(now)));
            for n in 0..self.players.len() {
                self.with(n, |bench, player, channel| {
                    player.member.keep_alive(bench);
                    if player.character == Character::Honest {
                        player.bring(bench, &channel.blobs, bytes_per_sec / 4);
                    }
                });
            }
            self.check();
        }
    }

    fn check(&mut self) {
        let bench = self.bench.as_mut().expect("it is there between steps");
        for player in &mut self.players {
            player.member.hear(bench);
            if player.has_lied {
                self.liars.insert(player.member.addr().to_string());
            }
            for (name, mask) in &player.member.asked[player.seen..] {
                let told = player.has(self.channel, name);
                assert!(told.covers(*mask), "asked for {mask:?} of {name:?}, told of {told:?}");
            }
            player.seen = player.member.asked.len();
            let reason = player.member.closed_for(bench);
            let is_shut_out = matches!(reason, Some(CloseReason::Violation(_) | CloseReason::Banned));
            assert!(player.has_lied || !is_shut_out, "{reason:?} of {:?}", player.character);
        }
        self.players.retain(|player| bench.closed_for(player.member.peer.conn).is_none());
        let mut askers: BTreeMap<(BlobName, usize), usize> = BTreeMap::new();
        for wanted in self.players.iter().flat_map(|player| &player.member.open) {
            for part in wanted.left.iter() {
                *askers.entry((wanted.blob, part)).or_default() += 1;
            }
        }
        assert!(askers.values().all(|askers| *askers <= INDEX_ASKED_MAX), "{askers:?}");
        for event in &bench.events {
            if let Event::Banned { peer, .. } = event {
                assert!(self.liars.contains(&peer.to_string()), "{peer} is banned");
            }
        }
    }

    fn is_complete(&mut self) -> bool {
        let status = self.bench().node.channel_status(&identity().public_key());
        status.is_some_and(|status| status.complete)
    }

    /// Nothing fails any more, and an honest peer has all.
    fn recover(&mut self) {
        let bench = self.bench();
        (bench.world.store.fails, bench.answers) = (None, true);
        bench.answer_jobs();
        self.join(Character::Honest, None);
        let start = self.bench().now;
        while !self.is_complete() {
            let now = self.bench().now;
            assert!(now.since(start) < RECOVERY, "{:?}", self.bench().world.store.blobs.keys());
            self.wait(STEP, 4 << 20);
        }
        let channel = self.channel;
        let stored = &self.bench().world.store.blobs;
        assert!(
            channel.places.iter().all(|name| stored.get(name) == channel.blobs.get(name)),
            "byte for byte"
        );
        assert!(self.bench().world.store.under_way.is_empty());
        assert!(!self.bench().jobs.iter().any(|(_, job)| matches!(job, Job::FinishBlob(..))));
    }
}

impl Player {
    fn new(mut member: Member, character: Character) -> Self {
        member.manner = match character {
            Character::Honest => Manner::Honest,
            Character::Liar => Manner::Lies,
            Character::LiarOfValues => Manner::LiesOfValues,
        };
        Self { member, character, told: None, has_lied: false, seen: 0 }
    }

    fn tell(&mut self, bench: &mut Bench, at: u32, mask: Mask) {
        let Some(told) = &mut self.told else { return };
        let known = told.entry(at).or_default();
        *known = *known | mask;
        let have = match mask {
            Mask::ALL => Have { positions: vec![at], ..Have::default() },
            mask => Have { under_way: vec![(at, mask)], ..Have::default() },
        };
        self.member.say_have(bench, have);
    }

    fn bring(&mut self, bench: &mut Bench, blobs: &BlobMap, bytes: u64) {
        self.has_lied |= self.character != Character::Honest && !self.member.open.is_empty();
        self.member.bring(bench, blobs, bytes);
        self.has_lied |= self.character != Character::Honest && !self.member.open.is_empty();
    }

    /// What it told of a blob, at any of its places.
    fn has(&self, channel: &Channel, name: &BlobName) -> Mask {
        let Some(told) = &self.told else { return Mask::ALL };
        let places = channel.places.iter().zip(0_u32..).filter(|(place, _)| *place == name);
        let told = places.filter_map(|(_, at)| told.get(&at));
        told.fold(Mask::NONE, |mask, more| mask | *more)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn whatever_happens_all_is_had_in_the_end_and_only_liars_are_banned(
        choice in 0..5_usize,
        takes_all in any::<bool>(),
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut play = Play::new(Channel::any(choice), takes_all);
        for step in &steps {
            play.play(step);
        }
        play.recover();
    }
}

#[test]
fn a_blob_has_one_length() {
    assert!(Channel::any(3).blobs.values().all(|blob| blob.len() == BLOB_LEN));
}

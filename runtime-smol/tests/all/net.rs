//! The DHT driver over real UDP sockets on loopback.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_io::Timer;
use futures_lite::FutureExt;
use mainline::MutableItem;
use megatorrent_core::addr::PeerAddr;
use megatorrent_core::bep44::SignedItem;
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{InfoHash, JobId, Secret};
use megatorrent_core::limits::ITEM_VALUE_LEN_MAX;
use megatorrent_core::node::{DhtError, DhtOp, Input, JobResult};
use megatorrent_runtime_smol::dht::{Config, Dht, DhtMode, Plan, Unreachable};
use megatorrent_runtime_smol::egress::Egress;
use smol::LocalExecutor;
use smol::channel::{self, Receiver};

const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A test that takes longer has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// Runs a test on an executor of its own, in bounded time.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Rc<LocalExecutor<'static>>) -> F) {
    let executor = Rc::new(LocalExecutor::new());
    let late = async {
        Timer::after(PATIENCE).await;
        panic!("the test takes too long");
    };
    smol::block_on(executor.run(test(Rc::clone(&executor)).or(late)));
}

/// A DHT node and what it brings.
struct Peer {
    dht: Rc<Dht>,
    inputs: Receiver<Input>,
    saved: Arc<Mutex<Vec<SocketAddrV4>>>,
}

/// The findings of one operation, and its answer.
#[derive(Debug)]
struct Outcome {
    items: Vec<SignedItem>,
    peers: Vec<PeerAddr>,
    result: JobResult,
}

impl Peer {
    async fn start(
        executor: &Rc<LocalExecutor<'static>>,
        listen: Option<IpAddr>,
        bootstrap: &[SocketAddrV4],
    ) -> Self {
        let bootstrap: Vec<_> = bootstrap.iter().map(|addr| PeerAddr::from(SocketAddr::V4(*addr))).collect();
        Self::with(executor, Plan::new(DhtMode::Auto, listen, &bootstrap), 0, bootstrap).await
    }

    async fn with(
        executor: &Rc<LocalExecutor<'static>>,
        plan: Option<Plan>,
        port: u16,
        bootstrap: Vec<PeerAddr>,
    ) -> Self {
        let (sink, inputs) = channel::unbounded();
        let saved = Arc::new(Mutex::new(Vec::new()));
        let save = {
            let saved = Arc::clone(&saved);
            Arc::new(move |nodes: &[SocketAddrV4]| *saved.lock().expect("nobody panicked") = nodes.to_vec())
        };
        let config = plan.map(|plan| Config {
            egress: Egress::direct(None),
            plan,
            port,
            bootstrap,
            cached: Vec::new(),
            save,
        });
        let dht = Dht::start(executor, config, move |input| sink.try_send(input).expect("the test listens"));
        let dht = Rc::new(dht);
        dht.bound().await;
        Self { dht, inputs, saved }
    }

    fn addr(&self) -> SocketAddrV4 {
        self.dht.local_addr().expect("bound")
    }

    async fn ask(&self, op: DhtOp) -> Outcome {
        let mut outcomes = self.ask_all(vec![op]).await;
        outcomes.remove(0)
    }

    /// Submits all at once; the outcomes are in the same order.
    async fn ask_all(&self, ops: Vec<DhtOp>) -> Vec<Outcome> {
        let mut open = ops.len();
        let mut outcomes: Vec<(Vec<SignedItem>, Vec<PeerAddr>, Option<JobResult>)> = Vec::new();
        outcomes.resize_with(open, Default::default);
        for (index, op) in ops.into_iter().enumerate() {
            if let Some(result) = self.dht.submit(JobId(index as u64), op) {
                outcomes[index].2 = Some(result);
                open -= 1;
            }
        }
        while open > 0 {
            let index = |job: JobId| usize::try_from(job.0).expect("an index");
            match self.inputs.recv().await.expect("the node lives") {
                Input::DhtItem(job, item) => outcomes[index(job)].0.push(item),
                Input::DhtPeers(job, peers) => outcomes[index(job)].1.extend(peers),
                Input::Done(job, result) => {
                    assert!(outcomes[index(job)].2.replace(result).is_none(), "each job is answered once");
                    open -= 1;
                }
                other => panic!("unexpected {other:?}"),
            }
        }
        let done = |(items, peers, result): (_, _, Option<_>)| Outcome {
            items,
            peers,
            result: result.expect("done"),
        };
        outcomes.into_iter().map(done).collect()
    }
}

fn signed(author: u8, seq: i64, value: &[u8]) -> SignedItem {
    SignedItem::sign(&Identity::new(&Secret::new([author; 32]), None), seq, value.to_vec())
        .expect("short enough")
}

/// A network of three servers that know each other.
async fn trio(executor: &Rc<LocalExecutor<'static>>) -> [Peer; 3] {
    let first = Peer::start(executor, Some(LOOPBACK), &[]).await;
    let second = Peer::start(executor, Some(LOOPBACK), &[first.addr()]).await;
    let third = Peer::start(executor, Some(LOOPBACK), &[first.addr()]).await;
    for peer in [&first, &second, &third] {
        peer.dht.joined().await;
    }
    [first, second, third]
}

#[test]
fn items_are_stored_at_others_and_found() {
    run(async |executor| {
        let [first, second, third] = trio(&executor).await;
        let item = signed(1, 7, b"a head");

        let put = second.ask(DhtOp::Put(item.clone(), None)).await;
        assert!(
            matches!(put.result, JobResult::DhtPut(Ok(2))),
            "at the two others, not at ourselves: {put:?}"
        );

        for reader in [&first, &third] {
            let got = reader.ask(DhtOp::Get(item.key)).await;
            assert!(matches!(got.result, JobResult::DhtDone(Ok(()))), "{got:?}");
            assert!(!got.items.is_empty() && got.items.iter().all(|got| *got == item), "{got:?}");
        }
        let copies = second.ask(DhtOp::Get(item.key)).await.items;
        // Once for each node that has it; our own, which others name to us, may be one of them.
        assert!((2..=3).contains(&copies.len()) && copies.iter().all(|copy| *copy == item), "{copies:?}");

        let again = second.ask(DhtOp::Put(item.clone(), None)).await;
        assert!(matches!(again.result, JobResult::DhtPut(Ok(2))), "a re-put is as good: {again:?}");
        let old = first.ask(DhtOp::Put(signed(1, 6, b"older"), None)).await;
        assert!(matches!(old.result, JobResult::DhtPut(Err(DhtError::Stale))), "{old:?}");
        let cas = first.ask(DhtOp::Put(signed(1, 9, b"newer"), Some(8))).await;
        assert!(matches!(cas.result, JobResult::DhtPut(Err(DhtError::CasMismatch))), "{cas:?}");
        let nothing = third.ask(DhtOp::Get(signed(2, 1, b"").key)).await;
        assert!(
            matches!(nothing.result, JobResult::DhtDone(Ok(()))) && nothing.items.is_empty(),
            "{nothing:?}"
        );

        let mut long = signed(1, 10, b"x");
        long.value = vec![b'x'; ITEM_VALUE_LEN_MAX + 1];
        let long = first.ask(DhtOp::Put(long, None)).await;
        assert!(matches!(long.result, JobResult::DhtPut(Err(DhtError::TooLarge))), "{long:?}");
        let full = first.ask(DhtOp::Put(signed(1, 10, &[b'x'; ITEM_VALUE_LEN_MAX]), None)).await;
        assert!(matches!(full.result, JobResult::DhtPut(Ok(2))), "{full:?}");
    });
}

#[test]
fn peers_are_announced_and_found_without_repetition() {
    run(async |executor| {
        let [first, second, third] = trio(&executor).await;
        let hash = InfoHash([5; 20]);
        for announcer in [&first, &second] {
            // Servers keep one entry for each announce; the finder must not see them all.
            for _ in 0..3 {
                let done = announcer.ask(DhtOp::Announce(hash, announcer.addr().port())).await;
                assert!(matches!(done.result, JobResult::DhtDone(Ok(()))), "{done:?}");
            }
        }
        let mut found = third.ask(DhtOp::Lookup(hash)).await;
        assert!(matches!(found.result, JobResult::DhtDone(Ok(()))), "{found:?}");
        found.peers.sort();
        let mut expected = [first.addr(), second.addr()].map(|addr| PeerAddr::from(SocketAddr::V4(addr)));
        expected.sort();
        assert_eq!(found.peers, expected);

        let none = third.ask(DhtOp::Lookup(InfoHash([6; 20]))).await;
        assert!(matches!(none.result, JobResult::DhtDone(Ok(()))) && none.peers.is_empty(), "{none:?}");
        let refused = first.ask(DhtOp::Announce(hash, 0)).await;
        assert!(matches!(refused.result, JobResult::DhtDone(Err(DhtError::Failed))), "no port: {refused:?}");
    });
}

#[test]
fn operations_on_one_target_do_not_disturb_each_other() {
    run(async |executor| {
        let [first, second, third] = trio(&executor).await;
        let hashes: Vec<_> = (0..8).map(|n| InfoHash([n; 20])).collect();
        let port = second.addr().port();
        for hash in &hashes {
            second.ask(DhtOp::Announce(*hash, port)).await;
        }
        // All at once, a lookup behind an announce of the same hash: unordered, the client would mix them up.
        let own = first.addr().port();
        let ops = hashes.iter().flat_map(|hash| [DhtOp::Announce(*hash, own), DhtOp::Lookup(*hash)]);
        for (index, outcome) in first.ask_all(ops.collect()).await.into_iter().enumerate() {
            assert!(matches!(outcome.result, JobResult::DhtDone(Ok(()))), "{outcome:?}");
            let other = PeerAddr::from(SocketAddr::V4(second.addr()));
            assert!(index % 2 == 0 || outcome.peers.contains(&other), "{index}: {outcome:?}");
        }
        drop(third);
    });
}

#[test]
fn without_a_dht_every_operation_fails_at_once() {
    run(async |executor| {
        let plan = Plan::new(DhtMode::Off, Some(LOOPBACK), &[]);
        assert_eq!(plan, None);
        let peer = Peer::with(&executor, plan, 0, Vec::new()).await;
        let item = signed(1, 1, b"v");
        let put = peer.dht.submit(JobId(0), DhtOp::Put(item.clone(), None));
        assert!(matches!(put, Some(JobResult::DhtPut(Err(DhtError::Disabled)))), "{put:?}");
        for op in
            [DhtOp::Get(item.key), DhtOp::Lookup(InfoHash([1; 20])), DhtOp::Announce(InfoHash([1; 20]), 1)]
        {
            let result = peer.dht.submit(JobId(0), op);
            assert!(matches!(result, Some(JobResult::DhtDone(Err(DhtError::Disabled)))), "{result:?}");
        }
        assert_eq!(peer.dht.local_addr(), None);
    });
}

#[test]
fn a_node_alone_says_so_and_recovers_when_its_bootstrap_comes_up() {
    run(async |executor| {
        // A port that was free a moment ago, where the bootstrap will come up later.
        let port = udp().local_addr().expect("bound").port();
        let later = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let early = Peer::start(&executor, Some(LOOPBACK), &[later]).await;
        let item = signed(3, 1, b"v");
        let got = early.ask(DhtOp::Get(item.key)).await;
        assert!(matches!(got.result, JobResult::DhtDone(Err(DhtError::NoNodes))), "{got:?}");
        let put = early.ask(DhtOp::Put(item.clone(), None)).await;
        assert!(matches!(put.result, JobResult::DhtPut(Err(DhtError::NoNodes))), "{put:?}");
        let looked = early.ask(DhtOp::Lookup(InfoHash([1; 20]))).await;
        assert!(matches!(looked.result, JobResult::DhtDone(Err(DhtError::NoNodes))), "{looked:?}");
        assert_eq!(early.dht.nodes(), 0);

        let bootstrap =
            Peer::with(&executor, Plan::new(DhtMode::Auto, Some(LOOPBACK), &[]), port, Vec::new()).await;
        early.dht.joined().await;
        let put = early.ask(DhtOp::Put(item, None)).await;
        assert!(matches!(put.result, JobResult::DhtPut(Ok(1))), "{put:?}");
        drop(bootstrap);
    });
}

#[test]
fn a_client_uses_the_network_without_serving_it() {
    run(async |executor| {
        let [first, second, third] = trio(&executor).await;
        let client = Peer::start(&executor, None, &[first.addr()]).await;
        client.dht.joined().await;
        let item = signed(4, 1, b"v");
        let put = client.ask(DhtOp::Put(item.clone(), None)).await;
        assert!(matches!(put.result, JobResult::DhtPut(Ok(3))), "{put:?}");
        let got = client.ask(DhtOp::Get(item.key)).await;
        assert!(got.items.contains(&item));

        client.dht.stop().await;
        let saved = client.saved.lock().expect("nobody panicked").clone();
        assert!(saved.contains(&first.addr()), "the nodes are saved at the end: {saved:?}");
        drop((second, third));
    });
}

#[test]
fn the_first_node_of_a_network_lists_servers_and_no_client() {
    run(async |executor| {
        let first = Peer::start(&executor, Some(LOOPBACK), &[]).await;
        let client = Peer::start(&executor, None, &[first.addr()]).await;
        client.dht.joined().await;
        client.dht.stop().await;
        let server = Peer::start(&executor, Some(LOOPBACK), &[first.addr()]).await;
        server.dht.joined().await;
        first.dht.stop().await;
        // Who has left would cost every later look-up a time-out.
        assert_eq!(*first.saved.lock().expect("nobody panicked"), [server.addr()]);
    });
}

#[test]
fn an_announce_that_reaches_only_ourselves_has_failed() {
    run(async |executor| {
        let first = Peer::start(&executor, Some(LOOPBACK), &[]).await;
        let second = Peer::start(&executor, Some(LOOPBACK), &[first.addr()]).await;
        second.dht.joined().await;
        let hash = InfoHash([9; 20]);
        let announced = second.ask(DhtOp::Announce(hash, 1)).await;
        assert!(matches!(announced.result, JobResult::DhtDone(Ok(()))), "{announced:?}");
        // Of those that it knows near the hash, it alone is left.
        first.dht.stop().await;
        let announced = second.ask(DhtOp::Announce(hash, 1)).await;
        assert!(matches!(announced.result, JobResult::DhtDone(Err(DhtError::Failed))), "{announced:?}");
    });
}

#[test]
fn the_only_server_of_a_network_finds_what_others_put_at_it() {
    run(async |executor| {
        let server = Peer::start(&executor, Some(LOOPBACK), &[]).await;
        let client = Peer::start(&executor, None, &[server.addr()]).await;
        let item = signed(5, 1, b"v");
        let got = server.ask(DhtOp::Get(item.key)).await;
        assert!(matches!(got.result, JobResult::DhtDone(Err(DhtError::NoNodes))), "{got:?}");
        let put = client.ask(DhtOp::Put(item.clone(), None)).await;
        assert!(matches!(put.result, JobResult::DhtPut(Ok(1))), "{put:?}");
        let got = server.ask(DhtOp::Get(item.key)).await;
        assert!(matches!(got.result, JobResult::DhtDone(Ok(()))), "{got:?}");
        assert_eq!(got.items, [item]);
    });
}

#[test]
fn a_port_that_refuses_is_known_at_once_and_one_that_is_silent_is_not_called_so() {
    run(async |executor| {
        let silent = udp();
        let addr = |socket: &UdpSocket| match socket.local_addr().expect("bound") {
            SocketAddr::V4(addr) => addr,
            SocketAddr::V6(_) => panic!("it is bound to IPv4"),
        };
        let refusing = addr(&udp());
        let lone = Peer::start(&executor, None, &[refusing]).await;
        assert_eq!(lone.dht.unreachable().await, Unreachable { unresolved: vec![], refused: vec![refusing] });

        let waiting = Peer::start(&executor, None, &[refusing, addr(&silent)]).await;
        let server = Peer::start(&executor, Some(LOOPBACK), &[]).await;
        let joining = Peer::start(&executor, None, &[refusing, server.addr()]).await;
        let joined = async {
            joining.dht.joined().await;
            None
        };
        let told = async { Some(waiting.dht.unreachable().or(joining.dht.unreachable()).await) };
        assert_eq!(joined.or(told).await, None);
    });
}

/// A UDP socket that is no node's.
#[expect(clippy::disallowed_methods, reason = "another program's socket")]
fn udp() -> UdpSocket {
    UdpSocket::bind((LOOPBACK, 0)).expect("a free port")
}

/// 300 nodes of one liar, all next to `target`: more than the client's put can take.
#[expect(clippy::disallowed_methods, reason = "it answers whoever asks, by address")]
fn crowd(target: [u8; 20], stop: &Arc<AtomicBool>) -> (SocketAddrV4, JoinHandle<()>) {
    let sockets: Vec<_> = (0..300)
        .map(|_| {
            let socket = udp();
            socket.set_nonblocking(true).expect("an option of UDP");
            socket
        })
        .collect();
    let ports: Vec<_> = sockets.iter().map(|socket| socket.local_addr().expect("bound").port()).collect();
    // Of one address, the client takes only nodes whose first 21 bits differ.
    let id = move |index: usize| {
        let mut id = target;
        let distance = u32::try_from((300 - index) << 11).expect("small").to_be_bytes();
        id.iter_mut().zip(distance).for_each(|(byte, distance)| *byte ^= distance);
        id
    };
    let first = SocketAddrV4::new(Ipv4Addr::LOCALHOST, ports[0]);
    let stop = Arc::clone(stop);
    let answer = move |index: usize, query: &[u8]| {
        let at = query.windows(5).position(|window| window == b"1:t4:").expect("a transaction id") + 5;
        // Each names nodes that are nearer, so that the query goes on until it has asked all.
        let neighbours = index + 1..(index + 21).min(300);
        let nodes: Vec<u8> = neighbours
            .flat_map(|n| [&id(n)[..], &[127, 0, 0, 1], &ports[n].to_be_bytes()].concat())
            .collect();
        let head = format!("5:nodes{}:", nodes.len());
        let reply = [b"d1:rd2:id20:", &id(index)[..], head.as_bytes(), &nodes, b"5:token4:toke", b"e1:t4:"];
        [&reply.concat()[..], &query[at..at + 4], b"1:y1:re"].concat()
    };
    let work = move || {
        let mut buf = [0; 2048];
        while !stop.load(Relaxed) {
            for (index, socket) in sockets.iter().enumerate() {
                while let Ok((len, from)) = socket.recv_from(&mut buf) {
                    let _ = socket.send_to(&answer(index, &buf[..len]), from);
                }
            }
            thread::yield_now();
        }
    };
    (first, thread::spawn(work))
}

#[test]
fn a_client_that_was_killed_from_afar_is_replaced() {
    run(async |executor| {
        let item = signed(9, 1, b"v");
        let target = *MutableItem::target_from_key(item.key.as_bytes(), None).as_bytes();
        let stop = Arc::new(AtomicBool::new(false));
        let (liar, thread) = crowd(target, &stop);
        let honest = Peer::start(&executor, Some(LOOPBACK), &[]).await;
        let peer = Peer::start(&executor, Some(LOOPBACK), &[liar, honest.addr()]).await;
        let before = peer.addr();
        let put = peer.ask(DhtOp::Put(item.clone(), None)).await;
        assert!(
            matches!(put.result, JobResult::DhtPut(Err(DhtError::Failed))),
            "the crowd kills the client: {put:?}"
        );
        stop.store(true, Relaxed);
        thread.join().expect("the crowd is no part of the test");

        // Operations wait for the new client, which has the same address.
        let other = signed(10, 1, b"v");
        let put = peer.ask(DhtOp::Put(other.clone(), None)).await;
        assert!(matches!(put.result, JobResult::DhtPut(Ok(1))), "{put:?}");
        assert_eq!(peer.addr(), before);
        assert!(peer.ask(DhtOp::Get(other.key)).await.items.contains(&other));
    });
}

#[test]
fn a_bootstrap_may_be_a_name() {
    run(async |executor| {
        let first = Peer::start(&executor, Some(LOOPBACK), &[]).await;
        let plan = Plan::new(DhtMode::Auto, Some(LOOPBACK), &[]);
        let name = PeerAddr::Dns("localhost".parse().expect("a name"), first.addr().port());
        let nowhere = PeerAddr::Dns("nowhere.invalid".parse().expect("a name"), 1);
        let second = Peer::with(&executor, plan, 0, vec![nowhere, name]).await;
        second.dht.joined().await;
        assert!(second.dht.nodes() >= 1);
    });
}

#[test]
fn the_plan_follows_the_addresses() {
    let peer = |text: &str| text.parse::<PeerAddr>().expect("an address");
    let plan = |mode, listen: Option<&str>, bootstrap: &[&str]| {
        let bootstrap: Vec<_> = bootstrap.iter().map(|text| peer(text)).collect();
        Plan::new(mode, listen.map(|ip| ip.parse().expect("an address")), &bootstrap).expect("not off")
    };
    let expect = |ip: [u8; 4], server, local| Plan { ip: ip.into(), server, serves: true, local };

    assert_eq!(plan(DhtMode::Auto, Some("127.0.0.1"), &[]), expect([127, 0, 0, 1], true, true));
    assert_eq!(plan(DhtMode::Auto, Some("100.64.0.1"), &[]), expect([100, 64, 0, 1], true, true));
    // Bound to a private network, a node may take part in that network's DHT or, through its router, in the public one.
    for (bootstrap, local) in [
        (&[][..], true),
        (&["192.168.1.1:1", "10.0.0.1:1"], true),
        (&["9.9.9.9:1"], false),
        (&["192.168.1.1:1", "9.9.9.9:1"], false),
        (&["router.example:1"], false),
    ] {
        let plan = plan(DhtMode::Auto, Some("192.168.1.2"), bootstrap);
        assert_eq!(plan, expect([192, 168, 1, 2], true, local), "{bootstrap:?}");
    }
    assert_eq!(plan(DhtMode::Auto, Some("127.0.0.1"), &["9.9.9.9:1"]), expect([127, 0, 0, 1], true, true));
    assert_eq!(plan(DhtMode::Auto, Some("::1"), &[]), expect([127, 0, 0, 1], true, true));
    assert_eq!(plan(DhtMode::Auto, Some("0.0.0.0"), &[]), expect([0, 0, 0, 0], false, false));
    assert_eq!(plan(DhtMode::Auto, Some("::"), &["router.example:6881"]), expect([0, 0, 0, 0], false, false));
    assert_eq!(plan(DhtMode::Server, Some("0.0.0.0"), &["127.0.0.1:1"]), expect([0, 0, 0, 0], true, true));
    // A one-shot command.
    assert_eq!(plan(DhtMode::Auto, None, &["127.0.0.1:1"]), expect([127, 0, 0, 1], false, true));
    assert_eq!(plan(DhtMode::Auto, None, &["10.0.0.1:1"]), expect([0, 0, 0, 0], false, true));
    assert_eq!(plan(DhtMode::Auto, None, &["127.0.0.1:1", "9.9.9.9:1"]), expect([0, 0, 0, 0], false, false));
    assert_eq!(plan(DhtMode::Auto, None, &[]), expect([0, 0, 0, 0], false, false));
    let client = plan(DhtMode::Client, Some("127.0.0.1"), &[]);
    assert!(!client.server && !client.serves);
}

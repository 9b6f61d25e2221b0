//! Commands and news of a node on real sockets: answers that are awaited or not, and several readers of one ring.

use std::rc::Rc;

use megatorrent_core::identity::Identity;
use megatorrent_core::ids::Secret;
use megatorrent_core::node::{Answer, Command, Event, Refusal};
use megatorrent_runtime_smol::dht::DhtMode;
use megatorrent_runtime_smol::events::News;
use megatorrent_runtime_smol::home::Home;
use megatorrent_runtime_smol::{Options, Runtime};
use smol::LocalExecutor;

fn follow(n: u8) -> Command {
    let channel = Identity::new(&Secret::new([n; 32]), None).public_key();
    Command::Follow { channel, read_key: None }
}

#[test]
fn commands_are_answered_whoever_waits_and_readers_follow_by_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let mut options = Options::new(Home::open(&folder.path().join("node")).expect("a home"));
        options.dht = DhtMode::Off;
        let node = Runtime::start(&executor, options).await.expect("it starts");
        drop(node.command(follow(1)));
        assert_eq!(node.command(follow(2)).await, Ok(Answer::Done));
        assert_eq!(node.channels().len(), 2, "also that whose answer nobody waits for");

        // Both look-ups fail, which each reader learns at its own pace.
        let (mut early, mut numbers) = (node.events_after(0), Vec::new());
        for _ in 0..2 {
            let next = early.next().await;
            assert!(matches!(&*next.news, News::Event(Event::HeadNotFound { .. })), "{next:?}");
            assert_eq!(next.missed, 0);
            numbers.push(next.number);
        }
        assert_eq!((numbers, early.number()), (vec![1, 2], node.newest_event()));
        let mut late = node.events_after(1);
        assert_eq!(late.try_next().map(|next| next.number), Some(2));
        assert!(late.try_next().is_none());
        assert!(matches!(node.next_event().await, Event::HeadNotFound { .. }), "the handle's own reader");

        node.shutdown().await;
        assert_eq!(node.command(follow(3)).await, Err(Refusal::Shutdown));
    }));
}

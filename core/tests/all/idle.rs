//! What an idle node does: no more with 1000 connections than with 10. Here allocations are counted; `benches/idle.rs` takes the
//! time.

use std::time::Duration;

use crate::support::content::Content;
use crate::support::crowd::Crowd;
use crate::support::heap::allocations_of;
use crate::support::{Bench, CONFIG, identity};
use megatorrent_core::node::Input;

/// Allocations that a deadline's work may make: a frame, and what the order of deadlines needs.
const ALLOCATIONS_MAX: u64 = 6;

/// Allocations of an idle node's calls.
#[derive(Debug, PartialEq, Eq)]
struct Costs {
    /// Nothing is due, and nothing is to be done.
    nothing: u64,
    /// A peer says that it is alive.
    keep_alive: u64,
}

fn costs(count: usize) -> Costs {
    let mut bench = Bench::answering(CONFIG, None);
    let content = Content::new(&identity(), 1);
    content.seed(&mut bench);
    let mut crowd = Crowd::connect(&mut bench, &content, count);
    let nothing = allocations_of(|| {
        bench.node.handle(bench.now, Input::Wake);
        assert!(bench.node.poll().is_none());
        assert!(bench.node.deadline().is_some_and(|(at, _)| at > bench.now));
    });
    let keep_alive = allocations_of(|| crowd.peers[count / 2].send_keep_alive(&mut bench));
    let until = bench.now + Duration::from_secs(44);
    while let Some((due, why)) = bench.node.deadline().filter(|(due, _)| *due <= until) {
        bench.now = due;
        let allocations = allocations_of(|| bench.node.handle(due, Input::Wake));
        assert!(allocations <= ALLOCATIONS_MAX, "{allocations} allocations of {count} connections: {why}");
        bench.drain();
    }
    Costs { nothing, keep_alive }
}

#[test]
fn an_idle_node_does_no_more_for_many_connections_than_for_few() {
    let few = costs(10);
    assert_eq!((few.nothing, &few), (0, &costs(1000)));
}

//! Many nodes at once, over small blobs and checksums in place of ciphers ([`NullSuite`]).

#[path = "../../benches/crowd/mod.rs"]
mod crowd;

use std::time::Duration;

use crowd::Crowd;
use megatorrent_sim::NullSuite;

#[test]
fn five_hundred_nodes_complete_while_some_crash_and_return() {
    let mut crowd = Crowd::<NullSuite>::new(1, 500, 20);
    crowd.churn_until_complete(Duration::from_mins(30));
    assert!(crowd.crashes > 10, "{} crashes are no churn", crowd.crashes);
}

#[test]
fn a_crowd_repeats_from_its_seed() {
    let trace = |seed| {
        let mut crowd = Crowd::<NullSuite>::new(seed, 40, 20);
        crowd.churn_until_complete(Duration::from_mins(30));
        crowd.world.trace_hash()
    };
    assert_eq!(trace(2), trace(2));
    assert_ne!(trace(2), trace(3));
}

//! What a call of an idle node takes with 10 connections and with 1000, side by side: `cargo bench -p megatorrent-core --bench
//! idle`. Each figure is the least of many, so that other programs disturb it little.

#[path = "../tests/all/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::time::{Duration, Instant};

use megatorrent_core::node::Input;
use support::content::Content;
use support::crowd::Crowd;
use support::{Bench, CONFIG, identity};

const COUNTS: [usize; 2] = [10, 1000];
/// Deadlines whose work is timed, by their reasons.
const REASONS: [&str; 2] = ["connection", "search for peers"];
/// How often all peers say that they are alive meanwhile.
const WAKE_ROUNDS: u32 = 20;
const ROUNDS: u32 = 200;
/// Calls that are timed together.
const CALLS: u32 = 100;

/// A node with so many idle connections; `dials`: it has some of its own, and so looks for no others.
fn idle(count: usize, dials: bool) -> (Bench, Crowd) {
    let mut bench = Bench::answering(CONFIG, None);
    let content = Content::new(&identity(), 1);
    content.seed(&mut bench);
    let crowd = if dials {
        Crowd::connect(&mut bench, &content, count)
    } else {
        Crowd::come(&mut bench, &content, count)
    };
    (bench, crowd)
}

/// The least time of a call, in nanoseconds.
fn least(mut call: impl FnMut()) -> f64 {
    let times = (0..ROUNDS).map(|_| {
        let began = Instant::now();
        (0..CALLS).for_each(|_| call());
        began.elapsed()
    });
    nanos(times.min().unwrap_or_default()) / f64::from(CALLS)
}

fn nanos(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// Nothing is due, and nothing is to be done.
fn nothing((bench, _crowd): &mut (Bench, Crowd)) -> f64 {
    least(|| {
        bench.node.handle(bench.now, Input::Wake);
        black_box((bench.node.poll(), bench.node.deadline()));
    })
}

/// A peer says that it is alive.
fn keep_alive((bench, crowd): &mut (Bench, Crowd)) -> f64 {
    let mut next = 0;
    least(|| {
        next = (next + 1) % crowd.peers.len();
        crowd.peers[next].send_keep_alive(bench);
    })
}

/// The median time of a wake for each of [`REASONS`].
fn wakes((bench, crowd): &mut (Bench, Crowd)) -> [f64; 2] {
    let mut times = REASONS.map(|_| Vec::new());
    for _ in 0..WAKE_ROUNDS {
        let until = bench.now + Duration::from_secs(40);
        while let Some((due, why)) = bench.node.deadline().filter(|(due, _)| *due <= until) {
            bench.now = due;
            let began = Instant::now();
            bench.node.handle(due, Input::Wake);
            let took = nanos(began.elapsed());
            if let Some(at) = REASONS.iter().position(|reason| *reason == why) {
                times[at].push(took);
            }
            bench.drain();
        }
        crowd.pass(bench, Duration::ZERO);
    }
    times.map(median)
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

fn print(what: &str, [few, many]: [f64; 2]) {
    println!("{what:<56} {few:>9.0} {many:>9.0} {:>7.2}", many / few);
}

fn main() {
    println!(
        "{:<56} {:>9} {:>9} {:>7}",
        "nanoseconds of a call, by connections", COUNTS[0], COUNTS[1], "ratio"
    );
    for (dials, who) in [(true, "8 of them dialled"), (false, "all inbound")] {
        let mut nodes = COUNTS.map(|count| idle(count, dials));
        print(&format!("{who}: nothing is due"), nodes.each_mut().map(nothing));
        print(&format!("{who}: a keep-alive comes"), nodes.each_mut().map(keep_alive));
        let [few, many] = nodes.each_mut().map(wakes);
        for (at, reason) in REASONS.iter().enumerate() {
            if few[at].is_finite() && many[at].is_finite() {
                print(&format!("{who}: deadline ({reason}), median"), [few[at], many[at]]);
            }
        }
    }
}

//! Races in words: a table's head, a line for each, and what was said.

use std::time::Duration;

use megatorrent_core::codec::kind;
use megatorrent_core::node::Event;
use megatorrent_core::suite::Suite;

use crate::measure::{forget_peak, peak, processor_time};
use crate::race::{Race, Swarm};
use crate::timeline::Timeline;

impl Race {
    pub(crate) fn describe(&self) {
        let Self { blobs, rate, down, config, seed, .. } = self;
        let down = if *down == 0 { "without a bound".into() } else { format!("at most {down} times that") };
        println!(
            "{blobs} blobs; each node and the seeder uploads {} kB/s and downloads {down}; latency {}-{} ms one way, \
             window {} KiB, pieces of {} KiB, seed {seed}",
            rate / 1000,
            config.latency_ms.start(),
            config.latency_ms.end(),
            config.window_bytes >> 10,
            config.cut_bytes_max >> 10
        );
        println!(
            "{:>6} {:>9} {:>9} {:>6} {:>11} {:>8} {:>8} {:>11} {:>11} {:>9} {:>9}",
            "peers",
            "time s",
            "bound s",
            "ratio",
            "duplicates",
            "seeder",
            "control",
            "processor s",
            "events",
            "events/s",
            "peak MiB"
        );
    }

    /// Runs it and prints one line, after the timeline if that is wanted.
    pub(crate) fn show<S: Suite>(&self, is_verbose: bool) {
        forget_peak();
        let (began, mut swarm) = (processor_time(), self.start::<S>());
        let mut timeline = Timeline::new(&swarm);
        self.run(&mut swarm, |swarm| {
            if is_verbose {
                timeline.tell(swarm);
            }
        });
        let took = processor_time().saturating_sub(began);
        if is_verbose {
            swarm.tell_ends();
            swarm.tell_messages();
        }
        self.sum_up(&swarm, took);
    }

    fn sum_up<S: Suite>(&self, swarm: &Swarm<S>, took: Duration) {
        let time = swarm.time().unwrap_or_else(|| swarm.world.now().since(swarm.started));
        let flows: Vec<_> = swarm.world.flows().collect();
        let content: u64 = flows.iter().map(|(.., bytes)| bytes).sum();
        let seeded: u64 =
            flows.iter().filter(|(from, ..)| *from == swarm.seeder).map(|(.., bytes)| bytes).sum();
        let (steps, traffic) = (swarm.world.steps(), swarm.world.traffic());
        let gave_up = format!("  GAVE UP with {} complete", swarm.complete());
        println!(
            "{:>6} {:>9.2} {:>9.2} {:>6.3} {:>9.2} % {:>6.2} % {:>6.2} % {:>11.2} {:>11} {:>9} {:>9}{}",
            self.nodes,
            time.as_secs_f64(),
            swarm.bound.as_secs_f64(),
            time.as_secs_f64() / swarm.bound.as_secs_f64(),
            swarm.duplicates_percent(),
            percent(seeded, content),
            percent(traffic.bytes() - content, traffic.bytes()),
            took.as_secs_f64(),
            steps,
            u128::from(steps) * 1_000_000 / took.as_micros().max(1),
            peak() >> 20,
            if swarm.time().is_some() { "" } else { &gave_up }
        );
    }
}

impl<S: Suite> Swarm<S> {
    /// What was said, by kind of message.
    fn tell_messages(&self) {
        let all = self.world.traffic().bytes();
        let mut messages: Vec<_> = self.world.messages().collect();
        messages.sort_by_key(|(_, _, bytes)| std::cmp::Reverse(*bytes));
        for (kind, count, bytes) in messages {
            let (each, share) = (bytes / count.max(1), percent(bytes, all));
            println!("       {:>10}: {count} of {each} bytes, {share:.2} % of all bytes", name(kind));
        }
    }

    /// How the peers' milestones are spread.
    fn tell_ends(&self) {
        for (what, mut times) in [
            ("a peer's first connection", self.first(|event| matches!(event, Event::Connected { .. }))),
            ("the head", self.first(|event| matches!(event, Event::Head { .. }))),
            ("the manifest", self.first(|event| matches!(event, Event::Manifest { .. }))),
            ("complete", self.ends()),
        ] {
            times.sort_by_key(|time| time.unwrap_or(Duration::MAX));
            let at = |permille: usize| {
                let time = times[(times.len() - 1) * permille / 1000];
                time.map_or("never".into(), |time| format!("{:.2} s", time.as_secs_f64()))
            };
            let (first, median, late, last) = (at(0), at(500), at(990), at(1000));
            println!("       {what}: first {first}, median {median}, 99 % {late}, last {last}");
        }
    }
}

/// A message's name by its type byte.
fn name(kind: u8) -> String {
    let name = match kind {
        kind::HELLO => "HELLO",
        kind::REQUEST => "REQUEST",
        kind::DATA => "DATA",
        kind::FIND_PEERS => "FIND_PEERS",
        kind::PEERS => "PEERS",
        kind::PUBLISH => "PUBLISH",
        kind::ANNOUNCE => "ANNOUNCE",
        kind::OK => "OK",
        kind::GET_HEAD => "GET_HEAD",
        kind::HEAD => "HEAD",
        kind::WATCH => "WATCH",
        0x13 => "WANT",
        0x14 => "PIECE",
        0x15 => "CANCEL",
        0x16 => "ASK_HAVE",
        0x17 => "HAVE",
        0x18 => "PARTS",
        kind::ERROR => "ERROR",
        other => return format!("type {other:#04x}"),
    };
    name.into()
}

pub(crate) fn percent(part: u64, whole: u64) -> f64 {
    part as f64 * 100.0 / whole.max(1) as f64
}

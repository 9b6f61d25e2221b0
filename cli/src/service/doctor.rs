//! What is amiss with a node, each with a next step.

use std::path::Path;

use megatorrent_runtime_smol::Handle;

use crate::api::Check;
use crate::clock;

/// Free space below which a node has little left.
const FREE_BYTES_LOW: u64 = 2 << 30;
/// Open files that a node with many peers needs.
const FILES_LOW: u64 = 1024;

/// All that is looked at, in a fixed order.
pub(super) fn look(node: &Handle) -> Vec<Check> {
    vec![mode(), ports(node), dht(node), clock_check(), disk(node.dir()), descriptors()]
}

fn good(name: &str, finding: String) -> Check {
    Check { name: name.into(), good: true, finding, next: None }
}

fn bad(name: &str, finding: String, next: &str) -> Check {
    Check { name: name.into(), good: false, finding, next: Some(next.into()) }
}

fn mode() -> Check {
    good("mode", "direct: peers see this computer's IP address".into())
}

fn ports(node: &Handle) -> Check {
    let Some(addr) = node.local_addr() else {
        let next = "start it with `serve`, and -T to choose a port";
        return bad("ports", "no port is open: others cannot reach this node".into(), next);
    };
    let status = node.status();
    if status.inbound > 0 {
        return good("ports", format!("TCP {addr}: peers reach it"));
    }
    let next = "where it lasts, forward the port in your router, or open it in the firewall";
    bad("ports", format!("TCP {addr}: no peer has reached it so far"), next)
}

fn dht(node: &Handle) -> Check {
    match (node.dht_addr(), node.dht_nodes()) {
        (None, _) => {
            bad("dht", "it has no DHT".into(), "leave out --dht off, or name a --gateway to publish")
        }
        (Some(addr), 0) => {
            let next = "name a node that answers with -b HOST:PORT, or open UDP in the firewall";
            bad("dht", format!("UDP {addr}: no node answers"), next)
        }
        (Some(addr), nodes) => {
            let status = node.status();
            let text = format!("UDP {addr}: {nodes} nodes known");
            if status.dht_lag_secs >= 30 {
                let next = "follow fewer channels, or wait: others find them later";
                return bad("dht", format!("{text}, {} s behind", status.dht_lag_secs), next);
            }
            good("dht", text)
        }
    }
}

fn clock_check() -> Check {
    let now_ms = clock::now_ms();
    match clock::check(now_ms) {
        Ok(()) => good("clock", format!("it says {}", clock::utc(now_ms))),
        Err(failure) => bad("clock", failure.message, "set the clock"),
    }
}

fn disk(dir: &Path) -> Check {
    match free_bytes(dir) {
        None => bad(
            "disk",
            format!("{}: the system does not say what is free", dir.display()),
            "look whether it is mounted",
        ),
        Some(free) if free < FREE_BYTES_LOW => {
            let finding = format!("{}: {} are free", dir.display(), indicatif::HumanBytes(free));
            bad("disk", finding, "make room: fetching pauses when it is full")
        }
        Some(free) => good("disk", format!("{}: {} are free", dir.display(), indicatif::HumanBytes(free))),
    }
}

fn descriptors() -> Check {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let finding = format!("{limit} open files are allowed");
    if limit < FILES_LOW {
        return bad("descriptors", finding, "raise it (ulimit -n, or LimitNOFILE= in the unit)");
    }
    good("descriptors", finding)
}

/// Bytes that are free for this user where a folder lies.
pub(super) fn free_bytes(dir: &Path) -> Option<u64> {
    let found = rustix::fs::statvfs(dir).ok()?;
    Some(found.f_bavail.saturating_mul(found.f_frsize))
}

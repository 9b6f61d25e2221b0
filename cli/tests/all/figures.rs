//! Figures that a user may count on, small enough to be looked at in each test run.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]
#![allow(clippy::disallowed_methods, reason = "a counter between two nodes is no node")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use crate::support::{Swarm, run, stderr, subscribe_args};

/// What a file of 1 KiB may move, both ways and the DHT apart.
const SMALL_FILE_BYTES_MAX: u64 = 140 << 10;

/// Passes connections on to a node and counts their bytes.
fn counting(to: SocketAddr) -> (String, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, count) = (listener.local_addr().unwrap().to_string(), Arc::<AtomicU64>::default());
    let counted = count.clone();
    thread::spawn(move || {
        for near in listener.incoming().map_while(Result::ok) {
            let Ok(far) = TcpStream::connect(to) else { continue };
            let ways = [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)];
            for (from, to) in ways {
                let counted = counted.clone();
                thread::spawn(move || pass(from, to, &counted));
            }
        }
    });
    (address, count)
}

fn pass(mut from: TcpStream, mut to: TcpStream, counted: &AtomicU64) {
    let mut buf = vec![0; 64 << 10];
    while let Ok(n @ 1..) = from.read(&mut buf) {
        counted.fetch_add(n as u64, Relaxed);
        if to.write_all(&buf[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(std::net::Shutdown::Write);
}

#[test]
fn a_file_of_one_kib_moves_little() {
    let swarm = Swarm::new();
    let entry = swarm.ingest("note", 1024, &[]);
    let published = swarm.publish(&[&entry], &[]);
    let author = crate::support::serve(swarm.path(), "author", &[&swarm.address]);
    let (address, count) = counting(author.ready().parse().unwrap());
    let uri = published["uri"].as_str().unwrap();
    let mut args = subscribe_args("reader", uri, &address);
    // Without a DHT, the peer that it is given is all that it has.
    let dht = args.iter().position(|arg| arg == "server").unwrap();
    args[dht] = "off".into();
    args.extend(["--once", "--timeout", "30"].map(String::from));
    let output = run(swarm.path(), args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    swarm.assert_equal("reader", "note");
    let moved = count.load(Relaxed);
    println!("a file of 1 KiB moved {moved} bytes");
    assert!((1024..=SMALL_FILE_BYTES_MAX).contains(&moved), "{moved} bytes");
}

//! The duty of a container's first process (PID 1): to take leave of children that others left behind. SIGTERM and SIGINT are
//! ignored by a first process that does not ask for them; the commands that go on do ask.

use async_signal::{Signal, Signals};
use futures_lite::StreamExt as _;
use rustix::process::{WaitOptions, waitpid};

/// Where this process is the first one, waits for whatever child ends, on a thread of its own, so that none stays a zombie. This
/// program starts no processes that it waits for itself.
pub(crate) fn reap_where_first() {
    if std::process::id() != 1 {
        return;
    }
    // Without it zombies stay, and all else works.
    let _ = std::thread::Builder::new().name("init".into()).spawn(|| {
        if let Ok(mut ended) = Signals::new([Signal::Child]) {
            smol::block_on(async {
                loop {
                    // One signal may stand for several, also for those from before it was watched.
                    while let Ok(Some(_)) = waitpid(None, WaitOptions::NOHANG) {}
                    if ended.next().await.is_none() {
                        break;
                    }
                }
            });
        }
    });
}

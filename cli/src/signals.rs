//! SIGINT and SIGTERM: the first asks the command to end, a second SIGINT ends the process at once.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::process;
use std::thread;

use async_signal::Signals;
use futures_lite::{StreamExt, future};

use crate::exit::{Exit, Failure};

/// A request to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// SIGINT, as of Ctrl-C.
    Int,
    /// SIGTERM, as of a service manager.
    Term,
}

/// The signals of this process from the moment it is made.
pub(crate) struct Interrupts {
    signals: smol::channel::Receiver<Signal>,
}

impl Interrupts {
    /// Takes the signals over. They are watched on a thread of their own, so that a second SIGINT works also while
    /// the command's own threads are busy.
    pub(crate) fn install() -> Result<Self, Failure> {
        let fail =
            |error: io::Error| Failure::new(Exit::Other, format!("cannot take over the signals: {error}"));
        #[cfg(unix)]
        let watched = [async_signal::Signal::Int, async_signal::Signal::Term];
        #[cfg(not(unix))]
        let watched = [async_signal::Signal::Int];
        let signals = Signals::new(watched).map_err(fail)?;
        // A command takes one signal; a second SIGTERM only says the same again.
        let (sender, receiver) = smol::channel::bounded(1);
        thread::Builder::new()
            .name("signals".into())
            .spawn(move || smol::block_on(watch(signals, &sender)))
            .map_err(fail)?;
        Ok(Self { signals: receiver })
    }

    /// The first signal.
    pub(crate) async fn next(&self) -> Signal {
        match self.signals.recv().await {
            Ok(signal) => signal,
            // The watching thread ended, which only a failure of the signal pipe can bring about.
            Err(_) => future::pending().await,
        }
    }

    /// Runs `work` until it ends or a signal asks for the end, which is then the failure.
    pub(crate) async fn guard<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        future::or(work, async { Err(Failure::signal(self.next().await)) }).await
    }
}

/// SIGHUP, by which a node is asked to read its configuration file again. Until this is made it ends the process.
pub(crate) struct Hangups {
    signals: Signals,
    had_terminal: bool,
}

impl Hangups {
    pub(crate) fn install() -> Result<Self, Failure> {
        let fail =
            |error: io::Error| Failure::new(Exit::Other, format!("cannot take over the signals: {error}"));
        let signals = Signals::new([async_signal::Signal::Hup]).map_err(fail)?;
        Ok(Self { signals, had_terminal: io::stdin().is_terminal() })
    }

    /// Waits for the next; `false`: it came as the terminal went away, and asks for the end.
    pub(crate) async fn next(&mut self) -> bool {
        match self.signals.next().await {
            // A terminal that was closed is none any more.
            Some(Ok(_)) => !self.had_terminal || io::stdin().is_terminal(),
            // The signal pipe failed: there are no more.
            _ => future::pending().await,
        }
    }
}

async fn watch(mut signals: Signals, sender: &smol::channel::Sender<Signal>) {
    let mut interrupted = false;
    while let Some(Ok(signal)) = signals.next().await {
        let signal = if signal == async_signal::Signal::Int { Signal::Int } else { Signal::Term };
        if signal == Signal::Int {
            if interrupted {
                process::exit(i32::from(Exit::Interrupted as u8));
            }
            interrupted = true;
        }
        // Full: a signal waits to be taken already.
        let _ = sender.try_send(signal);
    }
}

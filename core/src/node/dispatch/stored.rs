//! The dispatcher's part for what the store says.

use alloc::vec::Vec;

use super::Dispatcher;
use crate::error::{CloseReason, Violation};
use crate::ids::{BlobName, Topic};
use crate::node::api::Held;
use crate::node::channels::contents::Place;
use crate::node::downloads::Outcome;
use crate::parts::Mask;
use crate::suite::Suite;

impl<S: Suite> Dispatcher<S> {
    /// What of some blobs is stored: those that are not whole are fetched, but for the parts that are here.
    pub(super) fn on_held(&mut self, of: (Topic, u64), names: &[BlobName], held: &[Held]) {
        self.with_channels(|channels, env| channels.on_have_job(env, of, names, held));
        for (name, held) in names.iter().zip(held) {
            match (name, held) {
                (BlobName::Native(root), Held::Parts(mask, values)) => {
                    let parts = self.downloads.on_held::<S>(&mut self.cx, *root, *mask, values);
                    for (place, mask) in &parts {
                        self.tell_of_parts(place, *mask);
                    }
                }
                (_, Held::Whole) => {
                    let outcome = self.downloads.on_found_whole(&mut self.cx, &mut self.conns, *name);
                    self.on_outcome(*name, outcome);
                }
                _ => {}
            }
        }
    }

    pub(super) fn tell_of_parts(&mut self, place: &Place, mask: Mask) {
        self.channels.set_part_time(self.downloads.part_time());
        self.with_channels(|channels, env| channels.on_parts(env, place, mask));
    }

    /// Does what follows from something that was written.
    pub(super) fn on_outcome(&mut self, name: BlobName, outcome: Vec<Outcome>) {
        for it in outcome {
            match it {
                Outcome::Brought(peer) => self.peers.served(&mut self.cx, &peer),
                Outcome::Lie(conn, peer) => {
                    self.ban(&peer, Violation::WrongBlob);
                    self.close(conn, CloseReason::Violation(Violation::WrongBlob));
                }
                Outcome::Parts(place, mask) => self.tell_of_parts(&place, mask),
                Outcome::Stored(place) => {
                    self.with_channels(|channels, env| channels.on_stored(env, &place, name));
                }
                Outcome::Unfit(place) => {
                    self.with_channels(|channels, env| channels.on_unfit(env, &place, name));
                }
            }
        }
    }
}

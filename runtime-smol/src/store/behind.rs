//! What is done behind: files that have their names reach the disk, one after the other, and nobody waits for it.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Weak};
use std::thread;

use super::{Store, lock};
use crate::held::HeldFile;

impl Store {
    /// Files that are written from here on are synced behind, which makes what is known of them final. Meant for a node that stays:
    /// one that ends soon would wait for it.
    pub fn sync_behind(&self) {
        let mut syncs = lock(&self.0.syncs);
        if syncs.is_some() {
            return;
        }
        let (sender, files) = channel();
        match thread::Builder::new().name("sync".to_owned()).spawn(move || sync_all(&files)) {
            Ok(_) => *syncs = Some(sender),
            // After a power cut the files are compared, as if this had not been asked for.
            Err(error) => tracing::warn!(%error, "cannot start a thread that syncs files"),
        }
    }

    /// A file has its name.
    pub(crate) fn note_written(&self, file: &Arc<HeldFile>) {
        if let Some(syncs) = &*lock(&self.0.syncs) {
            // The thread ends only with the store.
            let _ = syncs.send(Arc::downgrade(file));
        }
    }
}

fn sync_all(files: &Receiver<Weak<HeldFile>>) {
    for file in files {
        let Some(file) = file.upgrade() else { continue };
        if let Err(error) = file.sync() {
            let path = file.header().place().unwrap_or_default();
            tracing::warn!(%error, path = %path.display(), "a file cannot be synced");
        }
    }
}

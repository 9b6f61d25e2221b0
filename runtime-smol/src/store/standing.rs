//! Files that stand already where a channel's are to stand: what of them comes out as a blob is held there, and need not be fetched.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::{self, ScopedJoinHandle};

use megatorrent_core::blob::{self, BLOB_LEN, PLAIN_LEN};
use megatorrent_core::ids::{BlobName, Root};
use megatorrent_core::node::{Held, Stand};
use megatorrent_core::parts::Mask;

use super::Store;
use crate::export::Standing;
use crate::held::table::Row;

/// Most threads that look at once, beside others that do other work.
const LOOKERS_MAX: usize = 2;

/// A blob that is not here, and the file that may hold it.
struct Question<'a> {
    /// Its place among those that were asked for.
    number: usize,
    root: Root,
    stand: &'a Stand,
    file: Arc<Standing>,
}

impl Store {
    /// What is stored or held of each blob, with what stands already where their contents are to stand.
    pub fn held_or_standing(&self, names: &[BlobName], stands: &BTreeMap<Root, Stand>) -> Vec<Held> {
        let mut held: Vec<Held> = names.iter().map(|name| self.held(name)).collect();
        let question = |(number, name): (usize, &BlobName)| {
            let root = name.root().filter(|_| held[number] != Held::Whole)?;
            let stand = stands.get(&root)?;
            Some(Question { number, root, stand, file: self.standing(stand)? })
        };
        let questions: Vec<Question<'_>> = names.iter().enumerate().filter_map(question).collect();
        for number in self.ask_all(&questions) {
            held[number] = Held::Whole;
        }
        held
    }

    /// The numbers of the blobs that the files hold.
    fn ask_all(&self, questions: &[Question<'_>]) -> Vec<usize> {
        let lookers = thread::available_parallelism().map_or(1, usize::from).min(LOOKERS_MAX);
        let ask = |share: &[Question<'_>]| {
            let mut buf = vec![0; BLOB_LEN];
            let holds = |question: &&Question<'_>| {
                self.takes(question, &mut buf).unwrap_or_else(|error| {
                    tracing::warn!(%error, "a file that stands in the output folder cannot be used");
                    false
                })
            };
            share.iter().filter(holds).map(|question| question.number).collect::<Vec<_>>()
        };
        match questions.len() {
            0 => Vec::new(),
            1 => ask(questions),
            len => thread::scope(|scope| {
                let shares = questions.chunks(len.div_ceil(lookers));
                let threads: Vec<_> = shares.map(|share| scope.spawn(move || ask(share))).collect();
                let join = |thread: ScopedJoinHandle<'_, Vec<usize>>| {
                    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
                };
                threads.into_iter().flat_map(join).collect()
            }),
        }
    }

    /// Seals what stands where a blob's content is to stand. `true`: it is the blob, and is held there from here on.
    fn takes(&self, question: &Question<'_>, buf: &mut [u8]) -> io::Result<bool> {
        let Question { root, stand, file, .. } = question;
        let len = stand.len as usize;
        if len > PLAIN_LEN || !file.read(&mut buf[..len], stand.offset)? {
            return Ok(false);
        }
        let values = blob::seal_valued_with_key(&stand.key, buf, len);
        self.0.looked_at.fetch_add(stand.len.into(), Relaxed);
        if values.root() != *root {
            return Ok(false);
        }
        let (root, key, offset) = (*root, stand.key.clone(), stand.offset);
        let row = Row { root, key, id: None, values, offset, len: stand.len, mask: Mask::NONE };
        let row = Row { mask: row.content(), ..row };
        let held = file.held(self)?;
        self.held_files().count_as_there(&held, &row)?;
        Ok(true)
    }

    /// Bytes that were looked at of files that stand where a channel's are to stand.
    pub fn looked_at_bytes(&self) -> u64 {
        self.0.looked_at.load(Relaxed)
    }
}

//! A look at a file that is held: each part is sealed again and compared, whatever is believed of it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use megatorrent_core::parts::{self, Mask, PART_LEN};

use super::table::{Header, Row, Stat};
use super::{Content, HeldFile, HeldFiles, lock, part_len};

/// A file that is being looked at, by any number of threads.
pub(crate) struct Look {
    pub(crate) held: Arc<HeldFile>,
    header: Header,
    opened: io::Result<(File, Stat)>,
    lost_bytes: AtomicU64,
    /// What it could not be read for.
    failure: Mutex<Option<io::Error>>,
    has_failed: AtomicBool,
}

/// What a file was found to be.
pub(crate) struct Seen {
    pub(crate) header: Header,
    /// What stands at its place.
    pub(crate) stat: io::Result<Stat>,
    /// Bytes that it held and does not hold any more.
    pub(crate) lost_bytes: u64,
}

impl HeldFiles {
    /// All files that are held, those that another process made too.
    pub(crate) fn all(&self) -> io::Result<Vec<Arc<HeldFile>>> {
        self.list()?;
        Ok(lock(&self.index).files.values().cloned().collect())
    }

    /// The files that are to stand at `path`, or stand there.
    pub(super) fn all_at(&self, path: &Path) -> Vec<Arc<HeldFile>> {
        let index = lock(&self.index);
        let numbers = index.paths.get(path).into_iter().flatten();
        numbers.filter_map(|number| index.files.get(number).cloned()).collect()
    }

    /// The whole file that is held at `path`.
    pub(crate) fn at(&self, path: &Path) -> Option<Arc<HeldFile>> {
        self.all_at(path).into_iter().find(|file| file.table.header().working.is_none())
    }

    /// The files that are under way below a folder, by where they are to stand.
    pub(crate) fn under_way_below(&self, folder: &Path) -> BTreeMap<PathBuf, Arc<HeldFile>> {
        let under_way = self.under_way().into_iter().filter(|path| path.starts_with(folder));
        let is_working = |file: &Arc<HeldFile>| file.table.header().working.is_some();
        let file = |path: PathBuf| Some((path.clone(), self.all_at(&path).into_iter().find(is_working)?));
        under_way.filter_map(file).collect()
    }

    /// Holds no file below a folder any longer.
    pub(crate) fn forget_below(&self, folder: &Path) {
        let files: Vec<Arc<HeldFile>> = lock(&self.index).files.values().cloned().collect();
        let is_below =
            |file: &&Arc<HeldFile>| file.header().path().is_some_and(|path| path.starts_with(folder));
        for file in files.iter().filter(is_below) {
            self.forget(file);
        }
    }

    /// A blob stands in a file, as far as the row says.
    pub(crate) fn count_as_there(&self, file: &Arc<HeldFile>, row: &Row) -> io::Result<()> {
        let place = self.place_at(file, row)?;
        file.table.change_mask(place.number, |mask| mask | row.mask)
    }
}

impl HeldFile {
    /// Begins a look at the file as it stands at its place, not at one that only has its handle.
    pub(crate) fn look(self: &Arc<Self>) -> Look {
        let header = self.table.header();
        let opened = self.open_anew().map(|(file, stat, _)| (file, stat));
        Look {
            held: Arc::clone(self),
            header,
            opened,
            lost_bytes: AtomicU64::new(0),
            failure: Mutex::new(None),
            has_failed: AtomicBool::new(false),
        }
    }

    /// Rows of its table, empty ones too.
    pub(crate) fn rows(&self) -> u32 {
        self.table.rows()
    }

    /// Whether all of it counts as there.
    pub(crate) fn is_whole(&self) -> io::Result<bool> {
        for number in 0..self.rows() {
            if self.table.row(number)?.is_some_and(|row| !row.is_whole()) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Bytes that it is said to have.
    pub(crate) fn len(&self) -> u64 {
        self.table.header().stat.size
    }
}

impl Look {
    /// Compares the parts of a row, withdraws those that are not right and counts those again that are; `buf` is of a part. The
    /// bytes that were looked at.
    pub(crate) fn row(&self, number: u32, buf: &mut [u8]) -> u64 {
        let compared = self.compare(number, buf);
        compared.unwrap_or_else(|error| {
            self.has_failed.store(true, Relaxed);
            lock(&self.failure).get_or_insert(error);
            0
        })
    }

    fn compare(&self, number: u32, buf: &mut [u8]) -> io::Result<u64> {
        let Some(row) = self.held.table.row(number)? else { return Ok(0) };
        let (Ok((file, _)), false) = (&self.opened, self.has_failed.load(Relaxed)) else {
            return Ok(row.len.into());
        };
        let is_working = self.header.working.is_some();
        let (mut right, mut lost_bytes) = (Mask::NONE, 0);
        let looked_at = if is_working { row.mask } else { row.content() };
        for part in looked_at.iter() {
            let content = part_len(&row, part);
            let read = file.read_exact_at(&mut buf[..content], row.offset + (part * PART_LEN) as u64);
            let is_there = match read {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
                read => read.map(|()| true)?,
            };
            parts::crypt(&row.key, part * PART_LEN, &mut buf[..content]);
            if is_there && parts::complete_part(&row.key, &row.values, row.len as usize, part, buf) {
                right = right | Mask::one(part);
            } else {
                lost_bytes += content as u64;
            }
        }
        // What was sealed of other bytes under a key of ours stays nowhere.
        buf.fill(0);
        if row.mask != right {
            // Only what was looked at: a file under way goes on meanwhile.
            self.held.table.change_mask(number, |mask| (mask - looked_at) | right)?;
        }
        self.lost_bytes.fetch_add(lost_bytes, Relaxed);
        Ok(row.len.into())
    }

    /// All rows were looked at. A file that is right but was touched is believed again.
    pub(crate) fn end(self) -> Seen {
        let lost_bytes = self.lost_bytes.into_inner();
        let failure = lock(&self.failure).take();
        let stat = match (self.opened, failure) {
            (Ok((_, stat)), None) => Ok(stat),
            (_, Some(error)) | (Err(error), None) => Err(error),
        };
        if let Ok(stat) = &stat
            && self.header.working.is_none()
            && lost_bytes == 0
            && *stat != self.header.stat
            && stat.size == self.header.stat.size
        {
            let mut header = self.header.clone();
            header.stat = *stat;
            // It only costs another look.
            let _ = self.held.set_header(header);
            *lock(&self.held.content) = Content::default();
        }
        Seen { header: self.header, stat, lost_bytes }
    }
}

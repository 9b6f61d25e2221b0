//! Files that are held in place: what a node has of a channel lies in the files themselves, and no blob of it is stored.
//!
//! Each such file has a table ([`table`]) that says which blobs its bytes are. A part is sealed again from the file whenever it is
//! read, and compared with the blob's values: whatever was done to the file, nothing wrong leaves it, and what does not
//! come out right is withdrawn. A table that another process made is found when a blob is looked for in vain.
//!
//! A killed process loses nothing: what was written is with the system. After a power cut, of a file that is not known to
//! have reached the disk nothing counts that was not sealed again and compared.

pub(crate) mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use megatorrent_core::ids::{BlobId, Root};
use megatorrent_core::parts::{self, Mask, PART_LEN, PARTS, Values};
use rustix::fs::OFlags;

use crate::store::{StoreError, boot_id, lock};
use table::{Header, Row, Stat, Table};

/// The extension of tables that are not complete.
const NEW: &str = "new";
/// Files held whose handles are kept open; at the cap others are opened for each use.
const OPEN_MAX: usize = 256;
/// A folder that changed within this time may have changed again without another time of change.
const SETTLED_AFTER: Duration = Duration::from_secs(1);
/// How long after a file could not be opened it is tried again: the first, the second and each further time.
const RETRIES: [Duration; 3] = [Duration::from_secs(10), Duration::from_mins(1), Duration::from_mins(5)];

/// All files held in place by one home.
pub(crate) struct HeldFiles {
    /// `DIR/held`.
    folder: PathBuf,
    index: Mutex<Index>,
}

#[derive(Default)]
struct Index {
    files: BTreeMap<u64, Arc<HeldFile>>,
    /// Where blobs stand: the numbers of files and of rows in their tables.
    places: BTreeMap<Root, Vec<(u64, u32)>>,
    /// When the folder had changed last at the time when it was listed.
    listed: Option<SystemTime>,
    /// Numbers whose tables say nothing: files under way that have them are nobody's.
    orphans: BTreeSet<u64>,
}

/// A place of a blob.
pub(crate) struct Place {
    file: Arc<HeldFile>,
    number: u32,
    pub(crate) row: Row,
}

/// A file held in place.
#[derive(Debug)]
pub(crate) struct HeldFile {
    number: u64,
    table: Table,
    content: Mutex<Content>,
}

/// A file that is being looked through, and is held once all of it was ([`HeldFiles::finish`]). Dropped before, it leaves nothing.
pub(crate) struct Draft {
    number: u64,
    table: Table,
    content: Arc<File>,
    rows: Mutex<Vec<(Root, u32)>>,
    is_finished: bool,
}

/// The file itself.
#[derive(Debug, Default)]
struct Content {
    file: Option<Arc<File>>,
    /// How often it could not be opened in a row, and when it is tried again.
    failures: usize,
    retry_at: Option<Instant>,
    /// Whether what the table says of parts is believed: nobody has touched the file since, and the machine has not gone down
    /// before it was on the disk.
    is_trusted: bool,
    /// The rows that were compared, where it is not.
    checked: BTreeSet<u32>,
}

impl HeldFiles {
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let folder = dir.join("held");
        fs::create_dir_all(&folder).map_err(|e| StoreError::new("create", &folder, e))?;
        let held = Self { folder, index: Mutex::default() };
        held.list().map_err(|e| StoreError::new("list", &held.folder, e))?;
        Ok(held)
    }

    /// Takes in the tables that are there and not known. One that cannot be read is left alone.
    fn list(&self) -> io::Result<()> {
        let mut index = lock(&self.index);
        let changed = fs::metadata(&self.folder)?.modified()?;
        if index.listed == Some(changed) {
            return Ok(());
        }
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).filter(|name| name.len() == 16);
            let Some(number) = name.and_then(|name| u64::from_str_radix(name, 16).ok()) else { continue };
            if index.files.contains_key(&number) {
                continue;
            }
            let mut rows = Vec::new();
            match Table::open(path.clone(), |row, it| rows.push((row, it.root))) {
                Ok(Some(table)) => {
                    let file = Arc::new(HeldFile { number, table, content: Mutex::default() });
                    index.files.insert(number, file);
                    for (row, root) in rows {
                        index.places.entry(root).or_default().push((number, row));
                    }
                }
                Ok(None) => {
                    tracing::warn!(path = %path.display(), "the table of a file is damaged");
                    index.orphans.insert(number);
                }
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "the table of a file cannot be read");
                }
            }
        }
        // A table that came within the same tick of the file system's clock is found the next time.
        let is_settled = changed.elapsed().is_ok_and(|age| age > SETTLED_AFTER);
        index.listed = is_settled.then_some(changed);
        Ok(())
    }

    fn table_path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("{number:016x}"))
    }

    /// The name of a table that no other process takes in.
    fn new_path(&self, number: u64) -> PathBuf {
        self.table_path(number).with_extension(NEW)
    }

    /// Lets other processes take a table in.
    fn give_name(&self, number: u64, table: Table) -> io::Result<Table> {
        let path = self.table_path(number);
        fs::rename(table.path(), &path)?;
        Ok(table.at(path))
    }

    /// Removes what killed processes left. Nobody else uses the folder.
    pub(crate) fn clean(&self) {
        let mut index = lock(&self.index);
        for path in fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            let number = path.file_stem().and_then(|stem| u64::from_str_radix(stem.to_str()?, 16).ok());
            let is_new = path.extension().is_some_and(|extension| extension == NEW);
            if is_new || number.is_some_and(|number| index.orphans.contains(&number)) {
                index.orphans.extend(number);
                let _ = fs::remove_file(path);
            }
        }
    }

    /// The numbers of files under way that are nobody's, wherever they stand.
    pub(crate) fn orphans(&self) -> BTreeSet<u64> {
        lock(&self.index).orphans.clone()
    }

    /// Whether a file that stands at its place is one that was written here in an earlier boot, or was given its name and no more before
    /// the machine or the process went down, and was not touched since. `modified`: its time of change as its channel says.
    pub(crate) fn wrote(&self, path: &Path, stat: &Stat, modified: Option<SystemTime>) -> bool {
        let index = lock(&self.index);
        let headers = index.files.values().map(|file| file.table.header());
        headers.filter(|header| header.boot.is_some() && header.path().as_deref() == Some(path)).any(|it| {
            let is_as_left = match it.working {
                Some(_) => modified.is_some_and(|modified| stat.is_modified_at(modified)),
                None => stat.is_modified_as(&it.stat),
            };
            stat.is_same_file(&it.stat) && is_as_left
        })
    }

    // --- files ----------------------------------------------------------------------------------------------

    /// Begins to hold a file that is open; `header` is made from its number.
    pub(crate) fn create(
        &self,
        content: impl FnOnce(u64) -> io::Result<(File, Header)>,
    ) -> io::Result<Arc<HeldFile>> {
        let number = free_number()?;
        let new = self.new_path(number);
        // First of all, so that the number of a file that is left behind is known.
        File::create_new(&new)?;
        let (file, header) = content(number).inspect_err(|_| drop(fs::remove_file(&new)))?;
        let table = Table::create(new, header).and_then(|table| self.give_name(number, table));
        let table = table.inspect_err(|_| _ = lock(&self.index).orphans.insert(number))?;
        let content = Content { file: Some(Arc::new(file)), is_trusted: true, ..Content::default() };
        let held = Arc::new(HeldFile { number, table, content: Mutex::new(content) });
        lock(&self.index).files.insert(number, Arc::clone(&held));
        Ok(held)
    }

    /// Begins to look through a file that is open.
    pub(crate) fn begin(&self, content: Arc<File>, header: Header) -> io::Result<Draft> {
        let number = free_number()?;
        let table = Table::create(self.new_path(number), header)?;
        Ok(Draft { number, table, content, rows: Mutex::default(), is_finished: false })
    }

    /// Holds a file from here on, in place of what was held at its path.
    pub(crate) fn finish(&self, mut draft: Draft) -> io::Result<()> {
        let table =
            Table::open(draft.table.path().to_owned(), |_, _| {})?.ok_or(io::ErrorKind::InvalidData)?;
        let table = self.give_name(draft.number, table)?;
        draft.is_finished = true;
        let content = Content { file: Some(draft.content.clone()), is_trusted: true, ..Content::default() };
        let file = Arc::new(HeldFile { number: draft.number, table, content: Mutex::new(content) });
        let mut index = lock(&self.index);
        index.files.insert(draft.number, Arc::clone(&file));
        for (root, row) in lock(&draft.rows).drain(..) {
            index.places.entry(root).or_default().push((draft.number, row));
        }
        drop(index);
        self.replaced(&file);
        Ok(())
    }

    /// The file under way that is to stand at `path` and of which a channel says this.
    pub(crate) fn working(&self, path: &Path, digest: &str) -> Option<Arc<HeldFile>> {
        let files: Vec<Arc<HeldFile>> = lock(&self.index).files.values().cloned().collect();
        files.into_iter().find(|file| {
            let header = file.table.header();
            header.working.is_some()
                && header.digest.as_deref() == Some(digest)
                && header.path().as_deref() == Some(path)
        })
    }

    /// Where the files under way are to stand.
    pub(crate) fn under_way(&self) -> BTreeSet<PathBuf> {
        let index = lock(&self.index);
        let headers = index.files.values().map(|file| file.table.header());
        headers.filter(|header| header.working.is_some()).filter_map(|header| header.path()).collect()
    }

    /// A file stands at its place, as its table says: others that were held there are not there any more, and what was under way to
    /// stand there is removed.
    pub(crate) fn replaced(&self, by: &HeldFile) {
        let path = by.table.header().path();
        let files: Vec<Arc<HeldFile>> = lock(&self.index).files.values().cloned().collect();
        let is_other = |file: &&Arc<HeldFile>| file.number != by.number && file.table.header().path() == path;
        for file in files.iter().filter(is_other) {
            // Only a file of ours is removed, not whatever has its name.
            if file.table.header().working.is_some()
                && file.open_anew().is_ok()
                && let Some(place) = file.table.header().place()
            {
                let _ = fs::remove_file(place);
            }
            self.forget(file);
        }
    }

    /// Holds a file no longer; the file itself stays.
    pub(crate) fn forget(&self, file: &HeldFile) {
        let mut index = lock(&self.index);
        index.files.remove(&file.number);
        index.places.retain(|_, places| {
            places.retain(|(number, _)| *number != file.number);
            !places.is_empty()
        });
        let _ = fs::remove_file(file.table.path());
    }

    /// A blob stands in a file from here on, as far as the row says.
    pub(crate) fn add(&self, file: &HeldFile, row: &Row) -> io::Result<()> {
        let number = file.table.add(row)?;
        lock(&self.index).places.entry(row.root).or_default().push((file.number, number));
        Ok(())
    }

    // --- blobs ----------------------------------------------------------------------------------------------

    /// Where a blob stands.
    pub(crate) fn places(&self, root: &Root) -> Vec<Place> {
        let known = self.known_places(root);
        if !known.is_empty() || self.list().is_err() {
            return known;
        }
        self.known_places(root)
    }

    /// Whether a blob is known to stand somewhere.
    pub(crate) fn is_known(&self, root: &Root) -> bool {
        lock(&self.index).places.contains_key(root)
    }

    fn known_places(&self, root: &Root) -> Vec<Place> {
        let index = lock(&self.index);
        let places = index.places.get(root).map_or(&[][..], Vec::as_slice);
        let files: Vec<(Arc<HeldFile>, u32)> =
            places.iter().filter_map(|(file, row)| Some((index.files.get(file)?.clone(), *row))).collect();
        drop(index);
        let place = |(file, number): (Arc<HeldFile>, u32)| {
            let row = file.table.row(number).ok().flatten().filter(|row| row.root == *root)?;
            Some(Place { file, number, row })
        };
        files.into_iter().filter_map(place).collect()
    }

    /// The place of a blob that begins at a byte of a file, which is made where there is none. Two threads may come with two parts of
    /// one blob.
    pub(crate) fn place_at(&self, file: &Arc<HeldFile>, wanted: &Row) -> io::Result<Place> {
        let mut index = lock(&self.index);
        let places = index.places.entry(wanted.root).or_default();
        for (_, number) in places.iter().filter(|(number, _)| *number == file.number) {
            if let Some(row) = file.table.row(*number)?.filter(|row| row.offset == wanted.offset) {
                return Ok(Place { file: Arc::clone(file), number: *number, row });
            }
        }
        let number = file.table.add(wanted)?;
        places.push((file.number, number));
        Ok(Place { file: Arc::clone(file), number, row: wanted.clone() })
    }

    /// The number of blobs of which all is held.
    pub(crate) fn count(&self) -> u64 {
        let roots: Vec<Root> = lock(&self.index).places.keys().copied().collect();
        let is_whole = |root: &&Root| self.known_places(root).iter().any(|place| place.row.is_whole());
        roots.iter().filter(is_whole).count() as u64
    }

    /// Closes handles where many are open.
    fn close_some(&self) {
        let index = lock(&self.index);
        let is_open = |file: &&Arc<HeldFile>| lock(&file.content).file.is_some();
        let open: Vec<&Arc<HeldFile>> = index.files.values().filter(is_open).collect();
        if open.len() > OPEN_MAX {
            for file in open {
                let mut content = lock(&file.content);
                // What is under way is about to be written to.
                if file.table.header().working.is_none() {
                    content.file = None;
                }
            }
        }
    }

    /// The file of a place, open. `None`: it is not to be had.
    fn content(&self, file: &HeldFile) -> Option<Arc<File>> {
        let (opened, is_new) = file.open();
        if is_new {
            self.close_some();
        }
        opened
    }

    /// Reads the content of a part into `buf`, as it is, and seals it. `false`: it is not there, or is not what it was, and is
    /// withdrawn.
    pub(crate) fn read_part(&self, place: &Place, part: usize, buf: &mut [u8]) -> io::Result<bool> {
        let Place { file, number, row } = place;
        let content = part_len(row, part);
        if content > 0 {
            let Some(opened) = self.content(file).filter(|_| row.mask.has(part)) else { return Ok(false) };
            match opened.read_exact_at(&mut buf[..content], row.offset + (part * PART_LEN) as u64) {
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => buf.fill(0),
                read => read?,
            }
            parts::crypt(&row.key, part * PART_LEN, &mut buf[..content]);
        }
        if parts::complete_part(&row.key, &row.values, row.len as usize, part, buf) {
            return Ok(true);
        }
        // One keystream must never cover two plaintexts that leave here.
        buf.fill(0);
        if content > 0 {
            file.withdraw(*number, part)?;
        }
        Ok(false)
    }

    /// Opens a part that was checked into its place; `sealed` is then its content and filling.
    pub(crate) fn write_part(&self, place: &Place, part: usize, sealed: &mut [u8]) -> io::Result<()> {
        let Place { file, number, row } = place;
        let content = part_len(row, part);
        if content > 0 {
            let opened = self.content(file).ok_or(io::ErrorKind::NotFound)?;
            parts::crypt(&row.key, part * PART_LEN, &mut sealed[..content]);
            opened.write_all_at(&sealed[..content], row.offset + (part * PART_LEN) as u64)?;
        }
        file.table.change_mask(*number, |mask| mask | Mask::one(part))
    }

    /// The parts of a place that count as there.
    pub(crate) fn parts_of(&self, place: &Place) -> Mask {
        let Place { file, number, row } = place;
        let Some(_) = self.content(file) else { return Mask::NONE };
        {
            let content = lock(&file.content);
            if content.is_trusted || content.checked.contains(number) {
                return row.mask;
            }
        }
        let mut buf = vec![0; PART_LEN];
        let mut mask = Mask::NONE;
        for part in row.mask.iter() {
            if self.read_part(place, part, &mut buf).unwrap_or(false) {
                mask = mask | Mask::one(part);
            }
        }
        lock(&file.content).checked.insert(*number);
        mask
    }

    /// Waits until all files that are whole have reached the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let files: Vec<Arc<HeldFile>> = lock(&self.index).files.values().cloned().collect();
        let is_due = |header: Header| header.working.is_none() && header.boot.is_some();
        files.iter().filter(|file| is_due(file.header())).try_for_each(|file| file.sync())
    }

    /// Compares all that is held in files that are not trusted; whether it came to the end. `cancel` ends it.
    pub(crate) fn check_all(&self, cancel: &dyn Fn() -> bool) -> bool {
        let roots: Vec<Root> = lock(&self.index).places.keys().copied().collect();
        for root in roots {
            for place in self.known_places(&root) {
                if cancel() {
                    return false;
                }
                self.parts_of(&place);
            }
        }
        true
    }
}

impl Draft {
    /// The file holds a blob.
    pub(crate) fn add(&self, row: &Row) -> io::Result<()> {
        let number = self.table.add(row)?;
        lock(&self.rows).push((row.root, number));
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = fs::remove_file(self.table.path());
        }
    }
}

impl Place {
    pub(crate) fn set_id(&self, id: &BlobId) -> io::Result<()> {
        self.file.table.set_id(self.number, id)
    }

    /// Whether the file is under way and there, so that parts may be written.
    pub(crate) fn is_working(&self) -> bool {
        self.file.table.header().working.is_some() && self.file.file().is_some()
    }

    /// Where the file stands.
    pub(crate) fn path(&self) -> PathBuf {
        self.file.table.header().place().unwrap_or_default()
    }

    pub(crate) fn is_of(&self, file: &HeldFile) -> bool {
        self.file.number == file.number
    }
}

impl HeldFile {
    /// The file, open, and whether it was opened for this.
    fn open(&self) -> (Option<Arc<File>>, bool) {
        let mut content = lock(&self.content);
        if let Some(file) = &content.file {
            return (Some(Arc::clone(file)), false);
        }
        if content.retry_at.is_some_and(|at| Instant::now() < at) {
            return (None, false);
        }
        match self.open_anew() {
            Ok((file, stat, header)) => {
                let is_of_boot = header.boot.is_none() || header.boot == boot_id();
                let is_same = header.working.is_some() || stat == header.stat;
                let file = Arc::new(file);
                *content = Content {
                    file: Some(Arc::clone(&file)),
                    is_trusted: is_same && is_of_boot,
                    ..Content::default()
                };
                (Some(file), true)
            }
            Err(error) => {
                if content.failures == 0 {
                    let path = self.table.header().place().unwrap_or_default();
                    let kind = error.kind();
                    let what = if kind == io::ErrorKind::NotFound { "is gone" } else { "cannot be read" };
                    tracing::warn!(file = %path.display(), %error, "a file that is held {what}: it is not served");
                }
                content.retry_at = Some(Instant::now() + RETRIES[content.failures.min(RETRIES.len() - 1)]);
                content.failures += 1;
                (None, false)
            }
        }
    }

    /// A part of what it held is not there any more.
    fn withdraw(&self, number: u32, part: usize) -> io::Result<()> {
        let path = self.table.header().place().unwrap_or_default();
        tracing::warn!(file = %path.display(), "the file was changed: what it held there is withdrawn");
        self.table.change_mask(number, |mask| mask - Mask::one(part))
    }

    fn open_anew(&self) -> io::Result<(File, Stat, Header)> {
        let header = self.table.header();
        let path = header.place().ok_or(io::ErrorKind::NotFound)?;
        let mut options = OpenOptions::new();
        // Without O_NONBLOCK, opening what has become a pipe since would wait for its writer.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        options.read(true).write(header.working.is_some()).custom_flags(flags.bits().cast_signed());
        let file = options.open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let stat = Stat::from(&metadata);
        // What only has the name of a file under way is never written to.
        if header.working.is_some() && !stat.is_same_file(&header.stat) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok((file, stat, header))
    }

    /// The handle of the file, if it is open.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        self.open().0
    }

    pub(crate) fn header(&self) -> Header {
        self.table.header()
    }

    /// It stands at its place, and was looked at there.
    pub(crate) fn set_header(&self, header: Header) -> io::Result<()> {
        self.table.set_header(header)
    }

    /// Waits until the file and its table have reached the disk, which makes what they say final.
    fn sync(&self) -> io::Result<()> {
        if let Some(file) = self.file() {
            file.sync_all()?;
            self.table.sync()?;
            let mut header = self.header();
            header.boot = None;
            self.set_header(header)?;
        }
        Ok(())
    }
}

/// Bytes of content in a part of a row's blob.
fn part_len(row: &Row, part: usize) -> usize {
    if part >= PARTS { 0 } else { (row.len as usize).saturating_sub(part * PART_LEN).min(PART_LEN) }
}

/// The values of a blob at one of its places.
pub(crate) fn values(places: &[Place]) -> Option<&Values> {
    places.first().map(|place| &place.row.values)
}

/// A number that no other file has.
fn free_number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| io::Error::other(e.to_string()))?;
    Ok(u64::from_le_bytes(bytes))
}

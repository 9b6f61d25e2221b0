//! Files that are held in place: what a node has of a channel lies in the files themselves, and no blob of it is stored.
//!
//! Each such file has a table ([`table`]) that says which blobs its bytes are. A part is sealed again from the file whenever it is
//! read, and compared with the blob's values: whatever was done to the file, nothing wrong leaves it, and what does not
//! come out right is withdrawn. A table that another process made is found when a blob is looked for in vain.
//!
//! A killed process loses nothing: what was written is with the system. After a power cut, of a file that is not known to
//! have reached the disk nothing counts that was not sealed again and compared.

pub(crate) mod table;
pub(crate) mod verify;
pub(crate) mod working;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use megatorrent_core::ids::{BlobId, Root};
use megatorrent_core::parts::{self, Mask, PART_LEN, PARTS, Values};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::losses::{Loss, Losses, What, patiently};
use crate::store::{StoreError, boot_id, lock};
use table::{Header, Row, Stat, Table};
use working::{free_number, working_name};

/// The extension of tables that are not complete.
const NEW: &str = "new";
/// Files held whose handles are kept open; at the cap others are opened for each use.
const OPEN_MAX: usize = 256;
/// A folder that changed within this time may have changed again without another time of change.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// All files held in place by one home.
pub(crate) struct HeldFiles {
    /// `DIR/held`.
    folder: PathBuf,
    index: Mutex<Index>,
    losses: Arc<Losses>,
}

#[derive(Default)]
struct Index {
    files: BTreeMap<u64, Arc<HeldFile>>,
    /// Their numbers by where they are to stand in the end.
    paths: BTreeMap<PathBuf, BTreeSet<u64>>,
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
    losses: Arc<Losses>,
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
    /// Why it could not be opened.
    loss: Option<Loss>,
    /// The rows and parts that the disk failed to read.
    unreadable: BTreeSet<(u32, usize)>,
    /// Whether what the table says of parts is believed: nobody has touched the file since, and the machine has not gone down
    /// before it was on the disk.
    is_trusted: bool,
    /// The rows that were compared, where it is not.
    checked: BTreeSet<u32>,
}

impl Index {
    fn insert(&mut self, file: Arc<HeldFile>) {
        if let Some(path) = file.table.header().path() {
            self.paths.entry(path).or_default().insert(file.number);
        }
        self.files.insert(file.number, file);
    }
}

impl HeldFiles {
    pub(crate) fn open(dir: &Path, losses: Arc<Losses>) -> Result<Self, StoreError> {
        let folder = dir.join("held");
        fs::create_dir_all(&folder).map_err(|e| StoreError::new("create", &folder, e))?;
        let held = Self { folder, index: Mutex::default(), losses };
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
                    let file = self.file(number, table, Content::default());
                    index.insert(file);
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

    fn file(&self, number: u64, table: Table, content: Content) -> Arc<HeldFile> {
        Arc::new(HeldFile { number, table, content: Mutex::new(content), losses: Arc::clone(&self.losses) })
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
            if !is_new && !number.is_some_and(|number| index.orphans.contains(&number)) {
                continue;
            }
            index.orphans.extend(number);
            let folder = working::begun_in(&path).filter(|_| is_new);
            let is_left =
                folder.zip(number).is_some_and(|(folder, number)| !working::remove(&folder, number));
            // One that cannot be removed, as where its folder is not mounted, is looked for again the next time.
            if !is_left {
                let _ = fs::remove_file(path);
            }
        }
        let files: Vec<Arc<HeldFile>> = index.files.values().cloned().collect();
        drop(index);
        for file in files {
            if let Err(error) = file.take_name_back() {
                tracing::warn!(%error, path = %file.table.path().display(), "the table of a file cannot be written");
            }
        }
    }

    /// The numbers of files under way that are nobody's, wherever they stand.
    pub(crate) fn orphans(&self) -> BTreeSet<u64> {
        lock(&self.index).orphans.clone()
    }

    /// Whether what stands at a path was written here and not touched since, as a table says: the state knows of it later.
    pub(crate) fn wrote(&self, path: &Path, stat: &Stat) -> bool {
        let headers = self.all_at(path).into_iter().map(|file| file.header());
        headers.filter(|header| header.boot.is_some()).any(|header| stat.is_unwritten(&header.stat))
    }

    // --- files ----------------------------------------------------------------------------------------------

    /// Begins to hold a file in a folder that is open; it and its header are made from its number.
    pub(crate) fn create(
        &self,
        folder: &Path,
        content: impl FnOnce(u64) -> io::Result<(File, Header)>,
    ) -> io::Result<Arc<HeldFile>> {
        let number = free_number()?;
        let new = self.new_path(number);
        // First of all, so that a file that is left behind is found.
        File::create_new(&new)?.write_all(folder.as_os_str().as_bytes())?;
        let (file, header) = content(number).inspect_err(|_| drop(fs::remove_file(&new)))?;
        let table = Table::create(new, header).and_then(|table| self.give_name(number, table));
        let table = table.inspect_err(|_| _ = lock(&self.index).orphans.insert(number))?;
        let content = Content { file: Some(Arc::new(file)), is_trusted: true, ..Content::default() };
        let held = self.file(number, table, content);
        lock(&self.index).insert(Arc::clone(&held));
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
        let file = self.file(draft.number, table, content);
        let mut index = lock(&self.index);
        index.insert(Arc::clone(&file));
        for (root, row) in lock(&draft.rows).drain(..) {
            index.places.entry(root).or_default().push((draft.number, row));
        }
        drop(index);
        self.replaced(&file);
        Ok(())
    }

    /// The file under way that is to stand at `path` and of which a channel says this.
    pub(crate) fn working(&self, path: &Path, digest: &str) -> Option<Arc<HeldFile>> {
        self.all_at(path).into_iter().find(|file| {
            let header = file.table.header();
            header.working.is_some() && header.digest.as_deref() == Some(digest)
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
        let Some(path) = by.table.header().path() else { return };
        for file in self.all_at(&path).iter().filter(|file| file.number != by.number) {
            self.discard(file);
        }
    }

    /// Holds a file no longer; one that was under way is removed.
    pub(crate) fn discard(&self, file: &HeldFile) {
        let header = file.table.header();
        // Only a file of ours is removed, not whatever has its name.
        if header.working.is_some()
            && file.open_anew().is_ok()
            && let Some(place) = header.place()
        {
            let _ = fs::remove_file(place);
        }
        self.forget(file);
    }

    /// Takes a file that was touched for one that was not, as where its disk has spoilt it.
    pub(crate) fn forget_touch(&self, path: &Path) {
        let files: Vec<Arc<HeldFile>> = lock(&self.index).files.values().cloned().collect();
        for file in files.iter().filter(|file| file.table.header().path().as_deref() == Some(path)) {
            let mut header = file.header();
            if let Some(stat) = file.file().and_then(|file| Stat::of(&file).ok()) {
                header.stat = stat;
                let _ = file.set_header(header);
            }
        }
    }

    /// Holds a file no longer; the file itself stays.
    pub(crate) fn forget(&self, file: &HeldFile) {
        let mut index = lock(&self.index);
        index.files.remove(&file.number);
        if let Some(path) = file.table.header().path()
            && let Some(numbers) = index.paths.get_mut(&path)
        {
            numbers.remove(&file.number);
            if numbers.is_empty() {
                index.paths.remove(&path);
            }
        }
        // A place that is left over leads nowhere.
        for row in (0..file.table.rows()).filter_map(|number| file.table.row(number).ok().flatten()) {
            if let Some(places) = index.places.get_mut(&row.root) {
                places.retain(|(number, _)| *number != file.number);
                if places.is_empty() {
                    index.places.remove(&row.root);
                }
            }
        }
        let _ = fs::remove_file(file.table.path());
        drop(index);
        self.losses.forget(What::File(file.number));
        self.losses.forget(What::Parts(file.number));
    }

    /// A blob stands in a file from here on, as far as the row says.
    pub(crate) fn add(&self, file: &HeldFile, row: &Row) -> io::Result<()> {
        let number = file.table.add(row)?;
        lock(&self.index).places.entry(row.root).or_default().push((file.number, number));
        Ok(())
    }

    // --- blobs ----------------------------------------------------------------------------------------------

    /// The device of a blob's first place, as far as that is known without waiting for the disk.
    pub(crate) fn device_of(&self, root: &Root) -> Option<u64> {
        let index = self.index.try_lock().ok()?;
        let (number, _) = index.places.get(root)?.first()?;
        index.files.get(number)?.table.device()
    }

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

    /// Closes handles where many are open: more than `open_max`.
    fn close_some(&self, open_max: usize) {
        let files: Vec<Arc<HeldFile>> = lock(&self.index).files.values().cloned().collect();
        // One that is being opened may be on a disk that hangs.
        let is_open = |file: &&Arc<HeldFile>| file.content.try_lock().is_ok_and(|it| it.file.is_some());
        let open: Vec<&Arc<HeldFile>> = files.iter().filter(is_open).collect();
        if open.len() > open_max {
            for file in open {
                // What is under way is about to be written to.
                if file.table.header().working.is_none()
                    && let Ok(mut content) = file.content.try_lock()
                {
                    content.file = None;
                }
            }
        }
    }

    /// The file of a place, open. `None`: it is not to be had.
    fn content(&self, file: &HeldFile) -> Option<Arc<File>> {
        let (mut opened, mut is_new) = file.open();
        if file.loss() == Some(Loss::NoHandles) {
            self.close_some(0);
            (opened, is_new) = file.open();
        }
        if is_new {
            self.close_some(OPEN_MAX);
        }
        opened
    }

    /// Whether a blob is in a file that cannot be read at present, so that it need not be fetched.
    pub(crate) fn is_out_of_reach(&self, root: &Root) -> bool {
        let is_there = |place: &Place| {
            !place.row.mask.is_empty() && place.file.loss().is_some_and(Loss::is_out_of_reach)
        };
        self.known_places(root).iter().any(is_there)
    }

    /// Tries a file again that could not be read, or parts of it.
    pub(crate) fn try_again(&self, what: What) {
        let (What::File(number) | What::Parts(number)) = what else { return };
        let Some(file) = lock(&self.index).files.get(&number).cloned() else {
            return self.losses.forget(what);
        };
        if what == What::File(number) {
            self.content(&file);
            return;
        }
        // The handle of a disk that was taken out is of no use.
        let unreadable = {
            let mut content = lock(&file.content);
            content.file = None;
            std::mem::take(&mut content.unreadable)
        };
        let mut buf = vec![0; PART_LEN];
        let mut reads = |(number, part): (u32, usize)| {
            let row = file.table.row(number).ok().flatten();
            let place = row.map(|row| Place { file: Arc::clone(&file), number, row });
            place.is_none_or(|place| {
                // What could be read and is not right is withdrawn, which ends this too.
                let _ = self.read_part(&place, part, &mut buf);
                !lock(&file.content).unreadable.contains(&(number, part))
            })
        };
        let mut left = unreadable.iter();
        if left.by_ref().all(|part| reads(*part)) {
            self.losses.clear(what);
        }
        lock(&file.content).unreadable.extend(left);
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
                Err(error) => {
                    buf.fill(0);
                    file.note_unreadable(*number, part, &error);
                    return Ok(false);
                }
                Ok(()) => {}
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

    /// Opens a part that was checked into its place; `sealed` is then its content and filling. `false`: its user has touched the file,
    /// nothing is written, and `sealed` is as it was.
    pub(crate) fn write_part(&self, place: &Place, part: usize, sealed: &mut [u8]) -> io::Result<bool> {
        let Place { file, number, row } = place;
        let content = part_len(row, part);
        if content > 0 {
            let opened = self.content(file).ok_or(io::ErrorKind::NotFound)?;
            let at = row.offset + (part * PART_LEN) as u64;
            parts::crypt(&row.key, part * PART_LEN, &mut sealed[..content]);
            if file.header().working.is_some() {
                opened.write_all_at(&sealed[..content], at)?;
            } else if !file.mend((*number, part), &sealed[..content], at)? {
                parts::crypt(&row.key, part * PART_LEN, &mut sealed[..content]);
                return Ok(false);
            }
        }
        file.table.change_mask(*number, |mask| mask | Mask::one(part))?;
        Ok(true)
    }

    /// The parts of a place that count as there.
    pub(crate) fn parts_of(&self, place: &Place) -> Mask {
        let Place { file, number, row } = place;
        if self.content(file).is_none() {
            // That there are no descriptors says nothing of the file.
            return if file.loss() == Some(Loss::NoHandles) { row.mask } else { Mask::NONE };
        }
        {
            let content = lock(&file.content);
            if content.is_trusted || content.checked.contains(number) {
                let unreadable = content.unreadable.range((*number, 0)..=(*number, PARTS));
                return unreadable.fold(row.mask, |mask, (_, part)| mask - Mask::one(*part));
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

    /// Whether the file is whole, there, and as it was written, so that what its disk has lost of it may be written again.
    pub(crate) fn is_to_be_mended(&self) -> bool {
        let header = self.file.header();
        let lacks_some = || {
            let content = lock(&self.file.content);
            let unreadable = content.unreadable.range((self.number, 0)..=(self.number, PARTS));
            !self.row.is_whole() || unreadable.count() > 0
        };
        header.working.is_none()
            && lacks_some()
            && self.file.file().is_some()
            && self.file.stat().is_some_and(|stat| stat == header.stat)
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
            // Of a file that was deleted the handle alone is left, which keeps its space too.
            if file.metadata().is_ok_and(|metadata| metadata.nlink() > 0) {
                return (Some(Arc::clone(file)), false);
            }
            *content = Content::default();
        }
        let what = What::File(self.number);
        if !self.losses.may_try(what) {
            return (None, false);
        }
        match patiently(|| self.open_anew()) {
            Ok((file, stat, header)) => {
                let is_of_boot = header.boot.is_none() || header.boot == boot_id();
                let is_same = header.working.is_some() || stat == header.stat;
                let file = Arc::new(file);
                *content = Content {
                    file: Some(Arc::clone(&file)),
                    is_trusted: is_same && is_of_boot,
                    unreadable: std::mem::take(&mut content.unreadable),
                    ..Content::default()
                };
                self.losses.clear(what);
                (Some(file), true)
            }
            Err(error) => {
                let header = self.header();
                let path = header.place().unwrap_or_default();
                let loss = Loss::of(&error, || header.has_folder());
                content.loss = Some(loss);
                let what = if loss == Loss::NoHandles { What::Handles } else { what };
                self.losses.note(what, &path, loss, &error);
                (None, false)
            }
        }
    }

    /// Why it cannot be opened, where it was tried in vain.
    fn loss(&self) -> Option<Loss> {
        lock(&self.content).loss
    }

    /// The disk failed to read a part of it.
    pub(crate) fn note_unreadable(&self, number: u32, part: usize, error: &io::Error) {
        lock(&self.content).unreadable.insert((number, part));
        let path = self.header().place().unwrap_or_default();
        self.losses.note(What::Parts(self.number), &path, Loss::DiskFailed, error);
    }

    /// A part of what it held is not there any more: its user has changed the file, or the disk has.
    fn withdraw(&self, number: u32, part: usize) -> io::Result<()> {
        let header = self.header();
        let path = header.place().unwrap_or_default();
        let is_damaged = header.working.is_some() || self.stat().is_some_and(|stat| stat == header.stat);
        self.table.change_mask(number, |mask| mask - Mask::one(part))?;
        self.losses.note_wrong(self.number, &path, is_damaged);
        Ok(())
    }

    /// What the open file is like.
    fn stat(&self) -> Option<Stat> {
        let file = lock(&self.content).file.clone()?;
        Stat::of(&file).ok()
    }

    /// Writes a part again that the disk has lost of a file that is whole. `false`: somebody else has touched the file, which is left
    /// alone.
    fn mend(&self, (number, part): (u32, usize), content: &[u8], at: u64) -> io::Result<bool> {
        // Who else mends it waits.
        let mut guard = lock(&self.content);
        let mut header = self.header();
        let Some(path) = header.place().filter(|_| header.working.is_none()) else { return Ok(false) };
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file =
            OpenOptions::new().read(true).write(true).custom_flags(flags.bits().cast_signed()).open(path)?;
        let metadata = file.metadata()?;
        if Stat::from(&metadata) != header.stat {
            return Ok(false);
        }
        file.write_all_at(content, at)?;
        // The record of the files that were written knows it by its time.
        let _ = file.set_modified(metadata.modified()?);
        header.boot = boot_id().or_else(|| Some(String::new()));
        header.stat = Stat::of(&file)?;
        guard.unreadable.remove(&(number, part));
        self.set_header(header)?;
        Ok(true)
    }

    /// Where the power went, a file may have the name that it had before it was whole, though its table came to the disk that says
    /// otherwise: it is under way again.
    fn take_name_back(&self) -> io::Result<()> {
        let mut header = self.header();
        let is_unsure = header.working.is_none() && header.boot.is_some() && header.boot != boot_id();
        let Some(path) = header.path().filter(|_| is_unsure) else { return Ok(()) };
        let name = working_name(self.number);
        let is_there = |path: &Path| {
            fs::symlink_metadata(path).is_ok_and(|it| Stat::from(&it).is_same_file(&header.stat))
        };
        if !is_there(&path) && is_there(&path.with_file_name(&name)) {
            header.working = Some(name);
            self.set_header(header)?;
        }
        Ok(())
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
            return Err(Errno::ISDIR.into());
        }
        let stat = Stat::from(&metadata);
        // What only has the name of a file under way is never written to.
        if header.working.is_some() && !stat.is_same_file(&header.stat) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok((file, stat, header))
    }

    /// Whether nothing is at its place, or another file.
    pub(crate) fn is_gone(&self) -> bool {
        self.open_anew().is_err_and(|error| error.kind() == io::ErrorKind::NotFound)
    }

    /// The handle of the file, if it is open.
    pub(crate) fn file(&self) -> Option<Arc<File>> {
        self.open().0
    }

    #[cfg(test)]
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn header(&self) -> Header {
        self.table.header()
    }

    /// It stands at its place, and was looked at there.
    pub(crate) fn set_header(&self, header: Header) -> io::Result<()> {
        self.table.set_header(header)
    }

    /// Waits until the file and its table have reached the disk, which makes what they say final.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if let Some(file) = self.file() {
            file.sync_all()?;
            // The name too, before the record that vouches for it.
            if let Some(folder) = self.header().place().as_deref().and_then(Path::parent) {
                File::open(folder)?.sync_all()?;
            }
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

//! The table of a file that is held in place: which blobs its bytes are.
//!
//! ```text
//! held/<16 hex>   two headers of 16 KiB, written in turn ‖ rows of 640 bytes
//! header          counter (u64) ‖ BLAKE3 of the JSON ‖ length (u32) ‖ JSON
//! row             root ‖ key ‖ id, or zeros ‖ values ‖ offset (u64) ‖ length (u32) ‖ parts that are there (u16) ‖ zeros
//! ```
//!
//! Numbers are little-endian. Of the headers the whole one with the higher counter counts, so that a torn one costs nothing. A row
//! whose values do not give its root, or without a length, was never written whole, and counts as empty. Where it stands and its
//! length lie in one page of 4096 bytes, as rows begin at multiples of 128.

use std::fmt::Write;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use megatorrent_core::ids::{BlobId, Root, Secret};
use megatorrent_core::parts::{Mask, PART_LEN, VALUES_LEN, Values};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::store::lock;

const HEADER_LEN: u64 = 16 * 1024;
const PREFIX_LEN: usize = 8 + 32 + 4;
const ROWS_AT: u64 = 2 * HEADER_LEN;
const ROW_LEN: usize = 640;
const ID_AT: usize = 64;
const VALUES_AT: usize = 96;
const OFFSET_AT: usize = VALUES_AT + VALUES_LEN;
const LEN_AT: usize = OFFSET_AT + 8;
const MASK_AT: usize = LEN_AT + 4;

const _: () = assert!(MASK_AT + 2 <= ROW_LEN);

/// What tells one state of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stat {
    pub(crate) size: u64,
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Seconds since 1970, and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stat {
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }

    /// Whether it is the same file and nothing was written to it, whatever its name.
    pub(crate) fn is_unwritten(&self, other: &Self) -> bool {
        self.is_same_file(other) && (self.size, self.modified) == (other.size, other.modified)
    }

    /// Whether it is the same file, whatever was written to it.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

impl From<&fs::Metadata> for Stat {
    fn from(it: &fs::Metadata) -> Self {
        Self {
            size: it.len(),
            device: it.dev(),
            inode: it.ino(),
            modified: (it.mtime(), it.mtime_nsec()),
            changed: (it.ctime(), it.ctime_nsec()),
        }
    }
}

/// What is known of the file itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Header {
    /// The bytes of its path, in hexadecimal.
    path: String,
    /// The name that it has, beside its own, until it is whole.
    pub(crate) working: Option<String>,
    /// BLAKE3 over all that a channel says of it, in hexadecimal, where it is a channel's.
    pub(crate) digest: Option<String>,
    /// The topic of the channel that it is of, in hexadecimal, while it is under way.
    #[serde(default)]
    pub(crate) topic: Option<String>,
    /// What it was like when it was looked at last.
    pub(crate) stat: Stat,
    /// The boot in which it was written; `None` when it has reached the disk since.
    pub(crate) boot: Option<String>,
    /// The device and inode of its folder, which tell a disk that is not mounted from a file that was deleted.
    #[serde(default)]
    folder: Option<(u64, u64)>,
}

impl Header {
    pub(crate) fn new(path: &Path, stat: Stat) -> Self {
        let folder = path.parent().and_then(folder_id);
        let path = hex(path.as_os_str().as_bytes());
        Self { path, working: None, digest: None, topic: None, stat, boot: None, folder }
    }

    /// Whether its folder is there, and the one that it was.
    pub(crate) fn has_folder(&self) -> bool {
        let path = self.path();
        let found = path.as_deref().and_then(Path::parent).and_then(folder_id);
        found.is_some_and(|found| self.folder.is_none_or(|known| known == found))
    }

    /// Where the file is to stand in the end.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        let digits = self.path.as_bytes().chunks(2);
        let byte = |two: &[u8]| u8::from_str_radix(str::from_utf8(two).ok()?, 16).ok();
        let bytes: Option<Vec<u8>> = digits.map(byte).collect();
        Some(PathBuf::from(std::ffi::OsString::from_vec(bytes?)))
    }

    /// Where it stands.
    pub(crate) fn place(&self) -> Option<PathBuf> {
        let path = self.path()?;
        Some(self.working.as_ref().map_or_else(|| path.clone(), |name| path.with_file_name(name)))
    }
}

/// One blob of a file.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) root: Root,
    pub(crate) key: Secret,
    /// `None`: nobody has hashed the bytes.
    pub(crate) id: Option<BlobId>,
    pub(crate) values: Values,
    /// Where its content begins in the file, and how long it is.
    pub(crate) offset: u64,
    pub(crate) len: u32,
    /// The parts whose content is there.
    pub(crate) mask: Mask,
}

impl Row {
    /// The parts that hold content.
    pub(crate) fn content(&self) -> Mask {
        Mask::first((self.len as usize).div_ceil(PART_LEN))
    }

    /// Whether all content is there.
    pub(crate) fn is_whole(&self) -> bool {
        self.mask.covers(self.content())
    }

    fn to_bytes(&self) -> Zeroizing<[u8; ROW_LEN]> {
        let mut bytes = Zeroizing::new([0; ROW_LEN]);
        bytes[..32].copy_from_slice(&self.root.0);
        bytes[32..ID_AT].copy_from_slice(self.key.expose());
        bytes[ID_AT..VALUES_AT].copy_from_slice(&self.id.map_or([0; 32], |id| id.0));
        bytes[VALUES_AT..OFFSET_AT].copy_from_slice(self.values.as_bytes());
        bytes[OFFSET_AT..LEN_AT].copy_from_slice(&self.offset.to_le_bytes());
        bytes[LEN_AT..MASK_AT].copy_from_slice(&self.len.to_le_bytes());
        bytes[MASK_AT..MASK_AT + 2].copy_from_slice(&self.mask.0.to_le_bytes());
        bytes
    }

    fn from_bytes(bytes: &[u8; ROW_LEN]) -> Self {
        let id = BlobId(array(bytes, ID_AT));
        Self {
            root: Root(array(bytes, 0)),
            key: Secret::new(array(bytes, 32)),
            id: (id.0 != [0; 32]).then_some(id),
            values: Values::from_bytes(array(bytes, VALUES_AT)),
            offset: u64::from_le_bytes(array(bytes, OFFSET_AT)),
            len: u32::from_le_bytes(array(bytes, LEN_AT)),
            mask: Mask(u16::from_le_bytes(array(bytes, MASK_AT))),
        }
    }
}

/// # Panics
/// Where `bytes` ends before `at + N`.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the row's layout is checked at compile time")
}

/// An open table.
#[derive(Debug)]
pub(crate) struct Table {
    file: File,
    path: PathBuf,
    /// The counter of the header that counts, and the header.
    header: Mutex<(u64, Header)>,
    rows: Mutex<u32>,
}

impl Table {
    /// Makes one without rows, readable by its owner alone.
    pub(crate) fn create(path: PathBuf, header: Header) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        let table = Self { file, path, header: Mutex::new((0, header.clone())), rows: Mutex::new(0) };
        table.set_header(header)?;
        Ok(table)
    }

    /// Opens one that is there, and calls `visit` with the number, root and parts of each row. `None`: it was never written whole.
    pub(crate) fn open(path: PathBuf, mut visit: impl FnMut(u32, &Row)) -> io::Result<Option<Self>> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        let headers = [0, HEADER_LEN].map(|at| read_header(&file, at));
        let Some(header) = headers.into_iter().flatten().max_by_key(|(counter, _)| *counter) else {
            return Ok(None);
        };
        let len = file.metadata()?.len().saturating_sub(ROWS_AT);
        let rows = u32::try_from(len.div_ceil(ROW_LEN as u64)).unwrap_or(u32::MAX);
        let table = Self { file, path, header: Mutex::new(header), rows: Mutex::new(rows) };
        for number in 0..rows {
            if let Some(row) = table.row(number)? {
                visit(number, &row);
            }
        }
        Ok(Some(table))
    }

    /// The device of the file when it was looked at last; `None` while that is being written.
    pub(crate) fn device(&self) -> Option<u64> {
        self.header.try_lock().ok().map(|header| header.1.stat.device)
    }

    pub(crate) fn header(&self) -> Header {
        lock(&self.header).1.clone()
    }

    pub(crate) fn set_header(&self, header: Header) -> io::Result<()> {
        let text = serde_json::to_vec(&header)?;
        let mut guard = lock(&self.header);
        let counter = guard.0 + 1;
        let mut bytes = counter.to_le_bytes().to_vec();
        bytes.extend_from_slice(blake3::hash(&text).as_bytes());
        bytes.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
        bytes.extend_from_slice(&text);
        if bytes.len() as u64 > HEADER_LEN {
            return Err(io::Error::new(io::ErrorKind::InvalidFilename, "the path is too long"));
        }
        self.file.write_all_at(&bytes, counter % 2 * HEADER_LEN)?;
        *guard = (counter, header);
        Ok(())
    }

    /// Rows, empty ones too.
    pub(crate) fn rows(&self) -> u32 {
        let len = self.file.metadata().map_or(0, |it| it.len().saturating_sub(ROWS_AT));
        u32::try_from(len.div_ceil(ROW_LEN as u64)).unwrap_or(u32::MAX)
    }

    /// Adds a row; returns its number.
    pub(crate) fn add(&self, row: &Row) -> io::Result<u32> {
        let mut rows = lock(&self.rows);
        self.file.write_all_at(&*row.to_bytes(), row_at(*rows))?;
        *rows += 1;
        Ok(*rows - 1)
    }

    /// A row; `None`: it is empty.
    pub(crate) fn row(&self, number: u32) -> io::Result<Option<Row>> {
        let mut bytes = Zeroizing::new([0; ROW_LEN]);
        match self.file.read_exact_at(&mut *bytes, row_at(number)) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            read => read?,
        }
        let row = Row::from_bytes(&bytes);
        // Its end may lie in a page that never reached the disk.
        Ok((row.len > 0 && row.values.root() == row.root).then_some(row))
    }

    /// Counts parts of a row as there, or as gone.
    pub(crate) fn change_mask(&self, number: u32, change: impl FnOnce(Mask) -> Mask) -> io::Result<()> {
        let _rows = lock(&self.rows);
        let at = row_at(number) + MASK_AT as u64;
        let mut bytes = [0; 2];
        self.file.read_exact_at(&mut bytes, at)?;
        let mask = change(Mask(u16::from_le_bytes(bytes)));
        self.file.write_all_at(&mask.0.to_le_bytes(), at)
    }

    pub(crate) fn set_id(&self, number: u32, id: &BlobId) -> io::Result<()> {
        self.file.write_all_at(&id.0, row_at(number) + ID_AT as u64)
    }

    /// It was given another name.
    pub(crate) fn at(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until it has reached the disk.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// The device and inode of a folder that is there.
pub(crate) fn folder_id(path: &Path) -> Option<(u64, u64)> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    fs::metadata(path).ok().filter(fs::Metadata::is_dir).map(|it| (it.dev(), it.ino()))
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn row_at(number: u32) -> u64 {
    ROWS_AT + u64::from(number) * ROW_LEN as u64
}

fn read_header(file: &File, at: u64) -> Option<(u64, Header)> {
    let mut prefix = [0; PREFIX_LEN];
    file.read_exact_at(&mut prefix, at).ok()?;
    let len = u32::from_le_bytes(array(&prefix, 40));
    if u64::from(len) > HEADER_LEN - PREFIX_LEN as u64 {
        return None;
    }
    let mut text = vec![0; len as usize];
    file.read_exact_at(&mut text, at + PREFIX_LEN as u64).ok()?;
    let is_whole = *blake3::hash(&text).as_bytes() == array(&prefix, 8);
    let header = serde_json::from_slice(&text).ok().filter(|_| is_whole)?;
    Some((u64::from_le_bytes(array(&prefix, 0)), header))
}

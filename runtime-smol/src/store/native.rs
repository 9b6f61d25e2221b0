//! Native blobs: parts that come one by one, and what a whole one holds.
//!
//! ```text
//! blobs/ab/<root>   16 parts ‖ tag ‖ 16 chaining values ‖ id, or zeros where nobody has hashed the bytes
//! partial/<root>    16 parts ‖ tag ‖ 16 chaining values ‖ mask of the parts that are there (u16, little-endian)
//! ```
//!
//! So the values (`docs/protocol.md` §2) stand behind the parts in one piece, tag first, and a blob that has become whole needs
//! only another end and another name. A part is checked whenever it is read.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN, TAG_LEN};
use megatorrent_core::ids::{BlobId, BlobName, Root, Secret};
use megatorrent_core::node::{Claim, Held, Stand, Written};
use megatorrent_core::parts::{self, Mask, PART_LEN, PARTS, VALUES_LEN, Values};

use super::{Store, StoreError, lock};
use crate::held;

/// Bytes of the chaining values in a file; the tag stands before them.
const CHAIN_LEN: usize = VALUES_LEN - TAG_LEN;
/// Where the id or the mask begins.
const END: u64 = (BLOB_LEN + CHAIN_LEN) as u64;
const ID_LEN: usize = 32;
/// Bytes of a whole blob's file.
pub(super) const FILE_LEN: u64 = END + ID_LEN as u64;
/// Partial blobs whose files are held open; at the cap others are opened for each use.
const OPEN_MAX: usize = 128;

/// A blob of which parts are stored.
pub(super) struct Partial {
    file: File,
    values: Values,
    mask: Mutex<Mask>,
}

/// Those that are in use.
pub(super) struct Partials {
    /// `DIR/partial`.
    folder: PathBuf,
    open: Mutex<BTreeMap<Root, Arc<Partial>>>,
}

impl Partials {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let folder = dir.join("partial");
        fs::create_dir_all(&folder).map_err(|e| StoreError::new("create", &folder, e))?;
        Ok(Self { folder, open: Mutex::default() })
    }

    pub(super) fn path(&self, root: &Root) -> PathBuf {
        self.folder.join(BlobName::Native(*root).to_string())
    }
}

impl Partial {
    /// Opens what is stored of a blob; `None`: nothing of use.
    fn load(path: &Path, root: &Root, check: bool) -> io::Result<Option<Self>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut mask = [0; 2];
        let read = read_values(&file).and_then(|values| file.read_exact_at(&mut mask, END).map(|()| values));
        // A file that ends too early was begun and not written.
        let Some(values) = read.ok().filter(|values| values.root() == *root) else { return Ok(None) };
        let mut mask = Mask(u16::from_le_bytes(mask));
        if check {
            let mut buf = vec![0; PART_LEN];
            for part in mask.iter() {
                let is_there = file.read_exact_at(&mut buf, at(part)).is_ok() && values.check(part, &buf);
                mask = if is_there { mask } else { mask - Mask::one(part) };
            }
        }
        Ok(Some(Self { file, values, mask: Mutex::new(mask) }))
    }

    /// Begins a blob of which nothing is stored.
    fn create(path: &Path, values: &Values) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path)?;
        let (chain, tag) = values.as_bytes().split_at(CHAIN_LEN);
        file.write_all_at(tag, PLAIN_LEN as u64)?;
        file.write_all_at(chain, BLOB_LEN as u64)?;
        file.write_all_at(&[0; 2], END)?;
        Ok(Self { file, values: values.clone(), mask: Mutex::default() })
    }

    pub(super) fn mask(&self) -> Mask {
        *lock(&self.mask)
    }

    pub(super) fn read(&self, part: usize, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, at(part))
    }

    pub(super) fn write(&self, part: usize, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, at(part))?;
        let mut mask = lock(&self.mask);
        *mask = *mask | Mask::one(part);
        self.file.write_all_at(&mask.0.to_le_bytes(), END)
    }
}

/// Where a part begins.
fn at(part: usize) -> u64 {
    (part * PART_LEN) as u64
}

fn read_values(file: &File) -> io::Result<Values> {
    let mut bytes = [0; VALUES_LEN];
    let (chain, tag) = bytes.split_at_mut(CHAIN_LEN);
    file.read_exact_at(tag, PLAIN_LEN as u64)?;
    file.read_exact_at(chain, BLOB_LEN as u64)?;
    Ok(Values::from_bytes(bytes))
}

impl Store {
    /// What is stored of a blob.
    pub fn held(&self, name: &BlobName) -> Held {
        if self.has(name) {
            return Held::Whole;
        }
        if self.is_out_of_reach(name) {
            return Held::OutOfReach;
        }
        if let Some((mask, values)) = name.root().and_then(|root| self.held_parts(&root)) {
            return Held::Parts(mask, Box::new(values));
        }
        let partial = name.root().and_then(|root| self.partial(&root).ok().flatten());
        match partial {
            Some(partial) if !partial.mask().is_empty() => {
                Held::Parts(partial.mask(), Box::new(partial.values.clone()))
            }
            _ => Held::Nothing,
        }
    }

    /// Stores a native blob of which the values, and perhaps the id, are known.
    ///
    /// # Panics
    /// Where `blob` is not [`BLOB_LEN`] bytes long.
    pub fn write_native(
        &self,
        root: &Root,
        values: &Values,
        id: Option<BlobId>,
        blob: &[u8],
    ) -> Result<(), StoreError> {
        assert_eq!(blob.len(), BLOB_LEN, "a blob has one length");
        let id = id.map_or([0; ID_LEN], |id| id.0);
        self.write_file(&BlobName::Native(*root), &[blob, &values.as_bytes()[..CHAIN_LEN], &id])
    }

    // --- parts ----------------------------------------------------------------------------------------------

    /// The parts that are stored of a blob; `None`: none.
    pub(super) fn partial(&self, root: &Root) -> io::Result<Option<Arc<Partial>>> {
        let partials = &self.0.partials;
        let mut open = lock(&partials.open);
        if let Some(partial) = open.get(root) {
            return Ok(Some(Arc::clone(partial)));
        }
        let Some(partial) = Partial::load(&partials.path(root), root, self.is_checking())? else {
            return Ok(None);
        };
        Ok(Some(keep(&mut open, *root, partial)))
    }

    fn partial_or_new(&self, root: &Root, values: &Values) -> io::Result<Arc<Partial>> {
        if let Some(partial) = self.partial(root)? {
            return Ok(partial);
        }
        let mut open = lock(&self.0.partials.open);
        if let Some(partial) = open.get(root) {
            return Ok(Arc::clone(partial));
        }
        let partial = Partial::create(&self.0.partials.path(root), values)?;
        Ok(keep(&mut open, *root, partial))
    }

    pub(super) fn forget_partial(&self, root: &Root) {
        lock(&self.0.partials.open).remove(root);
    }

    /// Stores a part that came from a peer, if it is what the values say: in the file that it belongs to, where that is open. `bytes`
    /// is not what it was then.
    pub fn write_part(
        &self,
        root: &Root,
        part: usize,
        values: &Values,
        bytes: &mut [u8],
        stand: Option<&Stand>,
    ) -> Written {
        if !values.check(part, bytes) {
            return Written::Mismatch;
        }
        if let Some(written) = self.write_in_place((root, values), part, bytes, stand) {
            return written;
        }
        let path = self.0.partials.path(root);
        let result = self.mark_boot().and_then(|()| {
            let stored = self.partial_or_new(root, values).and_then(|partial| partial.write(part, bytes));
            stored.map_err(|e| StoreError::new("write", &path, e))
        });
        self.written(result)
    }

    /// Reads a part of a blob, whole or not, into `buf` of [`PART_LEN`] bytes, and checks it; returns the blob's values. `None`:
    /// it is not stored. A whole blob with a part that is not right is removed.
    pub fn read_part(&self, root: &Root, part: usize, buf: &mut [u8]) -> io::Result<Option<Values>> {
        // No file is looked for whose content is known to stand elsewhere.
        if self.0.held.is_known(root)
            && let Some(values) = self.read_held_part(root, part, buf)?
        {
            return Ok(Some(values));
        }
        let name = BlobName::Native(*root);
        if let Some(file) = self.open_stored(&name, false)? {
            let read = read_values(&file).and_then(|it| file.read_exact_at(buf, at(part)).map(|()| it));
            let values = self.noted(&name, read)?;
            if values.root() == *root && values.check(part, buf) {
                return Ok(Some(values));
            }
            self.remove_damaged(&name)?;
            return Ok(None);
        }
        if let Some(values) = self.read_held_part(root, part, buf)? {
            return Ok(Some(values));
        }
        let Some(partial) = self.partial(root)?.filter(|partial| partial.mask().has(part)) else {
            return Ok(None);
        };
        partial.file.read_exact_at(buf, at(part))?;
        Ok(partial.values.check(part, buf).then(|| partial.values.clone()))
    }

    /// Makes a blob whole of the parts that are stored and those that can be made for one of the claims, and says which claims
    /// are right.
    pub fn finish(&self, root: &Root, claims: &[Claim]) -> Result<Vec<bool>, Written> {
        let failed =
            |e: io::Error| self.not_written(StoreError::new("write", &self.0.partials.path(root), e));
        let name = BlobName::Native(*root);
        let mut rights = vec![false; claims.len()];
        if !self.has(&name) && !self.gather(root).map_err(failed)? {
            let Some(partial) = self.partial(root).map_err(failed)? else { return Err(Written::Mismatch) };
            for (claim, right) in claims.iter().zip(&mut rights) {
                *right = make_rest(&partial, claim).map_err(failed)?;
                if *right {
                    break;
                }
            }
            if partial.mask() != Mask::ALL {
                // Nobody's content comes out as this blob: what is here of it is of no use.
                drop(partial);
                self.forget_partial(root);
                let _ = fs::remove_file(self.0.partials.path(root));
                return Ok(rights);
            }
            self.move_partial(root, &partial).map_err(|error| self.not_written(error))?;
        }
        for (claim, right) in claims.iter().zip(&mut rights) {
            // What is damaged is gone, and comes again.
            *right = *right || self.is_right(root, claim).map_err(failed)?.ok_or(Written::Mismatch)?;
        }
        Ok(rights)
    }

    /// Gives a partial blob that has become whole the form and the name of one.
    fn move_partial(&self, root: &Root, partial: &Partial) -> Result<(), StoreError> {
        let (name, path) = (BlobName::Native(*root), self.0.partials.path(root));
        let ended = partial.file.write_all_at(&[0; ID_LEN], END);
        ended.map_err(|e| StoreError::new("write", &path, e))?;
        self.ensure_folder(&name)?;
        self.move_in(&path, &name)?;
        self.forget_partial(root);
        Ok(())
    }

    /// Whether a blob that is stored whole holds what somebody says. `None`: it is not stored, or was damaged and is removed.
    fn is_right(&self, root: &Root, claim: &Claim) -> io::Result<Option<bool>> {
        let Claim::Content(key, len) = claim else { return Ok(Some(true)) };
        let mut buf = vec![0; PART_LEN];
        for part in filled(*len) {
            let Some(values) = self.read_part(root, part, &mut buf)? else { return Ok(None) };
            if !parts::complete_part(key, &values, *len as usize, part, &mut buf) {
                return Ok(Some(false));
            }
        }
        Ok(Some(true))
    }

    // --- content --------------------------------------------------------------------------------------------

    /// The content of a stored native blob, `len` bytes. `None`: it is not stored, or does not hold that under this key.
    pub fn open_blob(&self, blob: &BlobRef, len: u32) -> io::Result<Option<Vec<u8>>> {
        if self.is_right(&blob.root, &Claim::Content(blob.key.clone(), len))? != Some(true) {
            return Ok(None);
        }
        let mut content = vec![0; (len as usize).next_multiple_of(PART_LEN)];
        for (part, buf) in content.chunks_mut(PART_LEN).enumerate() {
            if self.read_part(&blob.root, part, buf)?.is_none() {
                return Ok(None);
            }
        }
        content.truncate(len as usize);
        parts::crypt(&blob.key, 0, &mut content);
        Ok(Some(content))
    }

    /// The plaintext of a stored index blob, whatever its length: its filling is left in. `None`: it is not stored.
    pub fn open_index(&self, blob: &BlobRef) -> io::Result<Option<Vec<u8>>> {
        let mut buf = vec![0; PART_LEN];
        let is_stored = self.read_part(&blob.root, 0, &mut buf)?.is_some();
        parts::crypt(&blob.key, 0, &mut buf);
        Ok(is_stored.then_some(buf))
    }

    // --- ids ------------------------------------------------------------------------------------------------

    /// The values of a blob that is stored or held whole.
    pub(super) fn values_of(&self, root: &Root) -> io::Result<Option<Values>> {
        match self.open_stored(&BlobName::Native(*root), false)? {
            Some(file) => Ok(Some(read_values(&file)?).filter(|values| values.root() == *root)),
            None => Ok(held::values(&self.whole_places(root)).cloned()),
        }
    }

    /// The id of a blob that is stored or held whole, where its bytes were hashed before.
    pub(super) fn known_id(&self, root: &Root) -> io::Result<Option<BlobId>> {
        match self.open_stored(&BlobName::Native(*root), false)? {
            Some(file) => {
                let mut id = [0; ID_LEN];
                file.read_exact_at(&mut id, END)?;
                Ok((id != [0; ID_LEN]).then_some(BlobId(id)))
            }
            None => Ok(self.whole_places(root).iter().find_map(|place| place.row.id)),
        }
    }

    /// The id of a stored native blob, which is hashed for it once; `None`: it is not stored.
    pub fn id_of(&self, root: &Root) -> io::Result<Option<BlobId>> {
        let mut buf = Vec::new();
        self.with_id(root, &mut buf)
    }

    /// Reads into `buf` the native blob with this root. `false`: it is not stored, or its id is another.
    pub fn read_by_id(&self, id: &BlobId, root: &Root, buf: &mut [u8]) -> io::Result<bool> {
        Ok(self.id_of(root)? == Some(*id) && self.read(&BlobName::Native(*root), buf)?)
    }

    fn with_id(&self, root: &Root, buf: &mut Vec<u8>) -> io::Result<Option<BlobId>> {
        let name = BlobName::Native(*root);
        let Some(file) = self.open_stored(&name, true)? else { return self.held_id(root, buf) };
        let mut id = [0; ID_LEN];
        file.read_exact_at(&mut id, END)?;
        if id != [0; ID_LEN] {
            return Ok(Some(BlobId(id)));
        }
        buf.resize(BLOB_LEN, 0);
        if !self.read(&name, buf)? {
            return Ok(None);
        }
        let id = blob::id(buf);
        file.write_all_at(&id.0, END)?;
        Ok(Some(id))
    }
}

/// Keeps a partial blob open, if few are.
fn keep(open: &mut BTreeMap<Root, Arc<Partial>>, root: Root, partial: Partial) -> Arc<Partial> {
    if open.len() >= OPEN_MAX {
        // Of one that is in use there must be no second handle, which would have another mask.
        open.retain(|_, partial| Arc::strong_count(partial) > 1);
    }
    let partial = Arc::new(partial);
    open.insert(root, Arc::clone(&partial));
    partial
}

/// The parts that hold filling where the content has `len` bytes.
fn filled(len: u32) -> std::ops::Range<usize> {
    (len as usize / PART_LEN).min(PARTS)..PARTS
}

/// Makes the parts that are missing of a blob whose content is under a key. `false`: they do not come out so, or content is
/// missing.
fn make_rest(partial: &Partial, claim: &Claim) -> io::Result<bool> {
    let Claim::Content(key, len) = claim else { return Ok(partial.mask() == Mask::ALL) };
    let has_content = partial.mask().covers(Mask::first((*len as usize).div_ceil(PART_LEN)));
    if !has_content {
        return Ok(false);
    }
    let mut made = Vec::new();
    for part in filled(*len) {
        match make_part(partial, key, *len as usize, part)? {
            None => return Ok(false),
            Some(buf) if !partial.mask().has(part) => made.push((part, buf)),
            Some(_) => {}
        }
    }
    for (part, buf) in made {
        partial.write(part, &buf)?;
    }
    Ok(true)
}

fn make_part(partial: &Partial, key: &Secret, len: usize, part: usize) -> io::Result<Option<Vec<u8>>> {
    let mut buf = vec![0; PART_LEN];
    if part * PART_LEN < len || partial.mask().has(part) {
        partial.file.read_exact_at(&mut buf, at(part))?;
    }
    let is_right = parts::complete_part(key, &partial.values, len, part, &mut buf);
    Ok(is_right.then_some(buf))
}

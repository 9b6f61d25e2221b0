//! Blobs that are held in files of the user's: read from there, and opened into there as they come.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use megatorrent_core::blob::{BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::ids::{BlobId, BlobName, Root, Topic};
use megatorrent_core::node::{Stand, Written};
use megatorrent_core::parts::{self, Mask, PART_LEN, Values};

use super::native::Partial;
use super::{Store, StoreError, lock};
use crate::export::Standing;
use crate::held::table::{Header, Row, Stat};
use crate::held::{self, HeldFile, Place};
use crate::outputs::Plan;

impl Store {
    // --- outputs --------------------------------------------------------------------------------------------

    /// Parts of a version's files are opened into their places from here on.
    pub fn begin_outputs(&self, topic: Topic, version: u64, plan: Plan) {
        let mut outputs = lock(&self.0.outputs);
        outputs.retain(|(other, _), _| *other != topic);
        let plan = outputs.entry((topic, version)).or_insert_with(|| Arc::new(plan)).clone();
        drop(outputs);
        plan.tidy(&topic, self);
    }

    /// They are not any more.
    pub fn end_outputs(&self, topic: &Topic) {
        lock(&self.0.outputs).retain(|(other, _), _| other != topic);
    }

    /// The file that stands already where a blob's content is to stand.
    pub(super) fn standing(&self, stand: &Stand) -> Option<Arc<Standing>> {
        let plan = lock(&self.0.outputs).get(&(stand.topic, stand.version)).cloned()?;
        plan.standing(stand.file)
    }

    /// The device of the folder that a blob's content goes to.
    pub(super) fn device_of_output(&self, stand: &Stand) -> Option<u64> {
        lock(&self.0.outputs).get(&(stand.topic, stand.version))?.device()
    }

    fn output(&self, stand: &Stand) -> Option<Arc<HeldFile>> {
        let plan = lock(&self.0.outputs).get(&(stand.topic, stand.version)).cloned()?;
        // A file that has its name is the user's: what it has lost is not written over what was done to it.
        plan.file(&stand.topic, self, stand.file).filter(|file| file.header().working.is_some())
    }

    // --- files ----------------------------------------------------------------------------------------------

    pub(crate) fn held_files(&self) -> &held::HeldFiles {
        &self.0.held
    }

    /// Counts a blob as held in a file whose content stands there.
    pub(crate) fn hold(
        &self,
        file: &HeldFile,
        (blob, len): (&BlobRef, u32),
        offset: u64,
    ) -> io::Result<bool> {
        let Some(values) = self.values_of(&blob.root)? else { return Ok(false) };
        let id = self.known_id(&blob.root)?;
        let (root, key) = (blob.root, blob.key.clone());
        let whole = Row { root, key, id, values, offset, len, mask: Mask::NONE };
        let whole = Row { mask: whole.content(), ..whole };
        self.0.held.add(file, &whole).map(|()| true)
    }

    /// Whether all of a blob stands at this byte of a file.
    pub(crate) fn is_held_in(&self, file: &HeldFile, root: &Root, offset: u64) -> bool {
        let is_there = |place: &Place| {
            place.is_of(file)
                && place.row.offset == offset
                && self.0.held.parts_of(place).covers(place.row.content())
        };
        self.0.held.places(root).iter().any(is_there)
    }

    /// Removes what is stored of a blob that is held in a file.
    pub(crate) fn drop_copy(&self, root: &Root) -> io::Result<()> {
        self.forget_partial(root);
        self.remove(&BlobName::Native(*root))
    }

    /// Begins to hold a file that is open at its place.
    pub(crate) fn hold_file(
        &self,
        path: &Path,
        file: File,
        digest: Option<String>,
    ) -> io::Result<Arc<HeldFile>> {
        let stat = Stat::of(&file)?;
        let mut header = Header::new(path, stat);
        header.digest = digest;
        // It has its name, and no other is to be found by its folder.
        self.0.held.create(Path::new(""), |_| Ok((file, header)))
    }

    /// Takes a held file that was touched for one that was not. For tests of what a disk does by itself.
    #[doc(hidden)]
    pub fn forget_touch(&self, path: &Path) {
        self.0.held.forget_touch(path);
    }

    // --- blobs ----------------------------------------------------------------------------------------------

    /// Where all of a blob is held.
    pub(super) fn whole_places(&self, root: &Root) -> Vec<Place> {
        let mut places = self.0.held.places(root);
        places
            .retain(|place| place.row.is_whole() && self.0.held.parts_of(place).covers(place.row.content()));
        places
    }

    /// Reads a blob that is held in a file into `buf`, [`BLOB_LEN`] bytes. `false`: it is not held.
    pub(super) fn read_held(&self, root: &Root, buf: &mut [u8]) -> io::Result<bool> {
        debug_assert_eq!(buf.len(), BLOB_LEN);
        let (parts, tag) = buf.split_at_mut(PLAIN_LEN);
        for (part, buf) in parts.chunks_exact_mut(PART_LEN).enumerate() {
            match self.read_held_part(root, part, buf)? {
                Some(values) => tag.copy_from_slice(values.tag()),
                None => return Ok(false),
            }
        }
        Ok(true)
    }

    /// Reads a part of a blob from the first file that has it.
    pub(super) fn read_held_part(
        &self,
        root: &Root,
        part: usize,
        buf: &mut [u8],
    ) -> io::Result<Option<Values>> {
        for place in self.0.held.places(root) {
            if self.0.held.read_part(&place, part, buf)? {
                return Ok(Some(place.row.values));
            }
        }
        Ok(None)
    }

    /// The parts that are held of a blob that is not held whole, and its values.
    pub(super) fn held_parts(&self, root: &Root) -> Option<(Mask, Values)> {
        let places = self.0.held.places(root);
        let with_parts = places.into_iter().map(|place| (self.0.held.parts_of(&place), place.row.values));
        with_parts.max_by_key(|(mask, _)| mask.len()).filter(|(mask, _)| !mask.is_empty())
    }

    /// Opens a part that was checked into its place. `None`: it has none.
    pub(super) fn write_in_place(
        &self,
        (root, values): (&Root, &Values),
        part: usize,
        sealed: &mut [u8],
        stand: Option<&Stand>,
    ) -> Option<Written> {
        let place = match self.place_of(root, values, stand) {
            Ok(place) => place?,
            Err(error) => return Some(self.not_written(StoreError::new("write", &self.0.root, error))),
        };
        if !is_canonical(&place.row, part, sealed) {
            return None;
        }
        let written = self.0.held.write_part(&place, part, sealed);
        match written {
            Ok(is_written) => is_written.then_some(Written::Stored),
            Err(error) => Some(self.not_written(StoreError::new("write", &place.path(), error))),
        }
    }

    /// Where the parts of a blob go as they come.
    fn place_of(&self, root: &Root, values: &Values, stand: Option<&Stand>) -> io::Result<Option<Place>> {
        let places = self.0.held.places(root);
        let is_open = |it: &Place| (it.is_working() && !it.row.is_whole()) || it.is_to_be_mended();
        let open = places.into_iter().find(is_open);
        if open.is_some() {
            return Ok(open);
        }
        let Some((stand, file)) = stand.and_then(|stand| Some((stand, self.output(stand)?))) else {
            return Ok(None);
        };
        let row = Row {
            root: *root,
            key: stand.key.clone(),
            id: None,
            values: values.clone(),
            offset: stand.offset,
            len: stand.len,
            mask: Mask::NONE,
        };
        let place = self.0.held.place_at(&file, &row)?;
        // What came before there was a place for it.
        if let Some(partial) = self.partial(root)? {
            self.move_parts(&partial, &place)?;
            self.forget_partial(root);
            let _ = std::fs::remove_file(self.0.partials.path(root));
        }
        Ok(Some(place))
    }

    fn move_parts(&self, partial: &Partial, place: &Place) -> io::Result<()> {
        let mut buf = vec![0; PART_LEN];
        for part in partial.mask().iter() {
            partial.read(part, &mut buf)?;
            if place.row.values.check(part, &buf) {
                self.0.held.write_part(place, part, &mut buf)?;
            }
        }
        Ok(())
    }

    /// Puts the parts of a blob together that several files, or a file and what is stored, hold of it; whether it is whole then.
    pub(super) fn gather(&self, root: &Root) -> io::Result<bool> {
        let places = self.0.held.places(root);
        let Some(any) = places.first() else { return Ok(false) };
        let (content, mut buf) = (any.row.content(), vec![0; PART_LEN]);
        let partial = self.partial(root)?;
        if let Some(place) = places.iter().find(|place| place.is_working()) {
            for part in (content - place.row.mask).iter() {
                if self.read_part(root, part, &mut buf)?.is_some() {
                    self.0.held.write_part(place, part, &mut buf)?;
                }
            }
        } else if let Some(partial) = &partial {
            for part in (content - partial.mask()).iter() {
                if self.read_held_part(root, part, &mut buf)?.is_some() {
                    partial.write(part, &buf)?;
                }
            }
        }
        Ok(self.has(&BlobName::Native(*root)))
    }

    /// The id of a blob that is held in a file, which is hashed for it once.
    pub(super) fn held_id(&self, root: &Root, buf: &mut Vec<u8>) -> io::Result<Option<BlobId>> {
        let places = self.whole_places(root);
        if let Some(id) = places.iter().find_map(|place| place.row.id) {
            return Ok(Some(id));
        }
        buf.resize(BLOB_LEN, 0);
        if places.is_empty() || !self.read_held(root, buf)? {
            return Ok(None);
        }
        let id = megatorrent_core::blob::id(buf);
        places.iter().try_for_each(|place| place.set_id(&id))?;
        Ok(Some(id))
    }
}

/// Whether what of a part is filling is what the content's key gives. Where it is not, the part is stored as it came, and the blob
/// does not come out as its author says.
fn is_canonical(row: &Row, part: usize, sealed: &[u8]) -> bool {
    if (part + 1) * PART_LEN <= row.len as usize {
        return true;
    }
    let mut copy = sealed.to_vec();
    parts::complete_part(&row.key, &row.values, row.len as usize, part, &mut copy)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::FileExt;

    use megatorrent_core::ids::Secret;
    use megatorrent_core::node::Held;
    use megatorrent_core::parts::PARTS;

    use super::*;
    use crate::ingest::seal_and_store;
    use crate::losses::What;

    #[test]
    fn what_the_disk_cannot_read_is_fetched_into_its_place_and_the_rest_goes_on_being_served() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path(), false).expect("opens");
        let path = dir.path().join("file");
        fs::write(&path, vec![5; PLAIN_LEN]).expect("written");
        let mut buf = vec![5; BLOB_LEN];
        let blob = seal_and_store(&store, &Secret::new([1; 32]), &mut buf, PLAIN_LEN).expect("stored");
        let file = File::options().read(true).write(true).open(&path).expect("opens");
        let held = store.hold_file(&path, file, None).expect("held");
        let len = u32::try_from(PLAIN_LEN).expect("small");
        assert!(store.hold(&held, (&blob, len), 0).expect("written"));
        store.drop_copy(&blob.root).expect("removed");
        let name = BlobName::Native(blob.root);
        for way in ["it comes from a peer", "the disk reads it again"] {
            held.note_unreadable(0, 3, &rustix::io::Errno::IO.into());
            let lacks = Mask::ALL - Mask::one(3);
            assert!(matches!(store.held(&name), Held::Parts(mask, _) if mask == lacks), "{way}");
            assert!(store.losses().take_news().len() <= 1);
            if way == "it comes from a peer" {
                let mut part = buf[3 * PART_LEN..][..PART_LEN].to_vec();
                let written = store.write_part(&blob.root, 3, &Values::of(&buf), &mut part, None);
                assert_eq!(written, Written::Stored);
                assert!(!store.0.partials.path(&blob.root).exists(), "it is written where it was");
            } else {
                store.held_files().try_again(What::Parts(held.number()));
                assert!(store.losses().take_news().iter().any(|news| news.is_back));
            }
            assert_eq!(store.held(&name), Held::Whole, "{way}");
        }
        assert_eq!(fs::read(&path).expect("there"), vec![5; PLAIN_LEN]);
    }

    #[test]
    fn after_a_power_cut_nothing_counts_that_does_not_come_out_right() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path(), false).expect("opens");
        let path = dir.path().join("file");
        fs::write(&path, vec![5; PLAIN_LEN]).expect("written");
        let mut buf = vec![5; BLOB_LEN];
        let blob = seal_and_store(&store, &Secret::new([1; 32]), &mut buf, PLAIN_LEN).expect("stored");
        let file = File::options().read(true).write(true).open(&path).expect("opens");
        let held = store.hold_file(&path, file.try_clone().expect("cloned"), None).expect("held");
        let len = u32::try_from(PLAIN_LEN).expect("small");
        assert!(store.hold(&held, (&blob, len), 0).expect("written"));
        store.drop_copy(&blob.root).expect("removed");
        let name = BlobName::Native(blob.root);
        assert!(store.has(&name));
        // A copy whose length never reached the disk hides nothing.
        fs::create_dir_all(store.path(&name).parent().expect("a folder")).expect("made");
        fs::write(store.path(&name), [7; 100]).expect("written");
        assert!(store.read_part(&blob.root, 0, &mut vec![0; PART_LEN]).expect("readable").is_some());
        // A page that never reached the disk, and nothing that tells but the boot.
        file.write_all_at(&[0; 4096], 3 * PART_LEN as u64).expect("written");
        let mut header = held.header();
        (header.stat, header.boot) = (Stat::of(&file).expect("there"), Some("another boot".to_owned()));
        held.set_header(header.clone()).expect("written");
        drop((store, held));
        let store = Store::open(dir.path(), false).expect("opens");
        assert!(!store.has(&name));
        let part = |n| store.read_part(&blob.root, n, &mut vec![0; PART_LEN]).expect("readable").is_some();
        assert_eq!((0..PARTS).filter(|n| !part(*n)).collect::<Vec<_>>(), [3]);
        // The end of the only row of the table, where its length stands.
        let table = fs::read_dir(dir.path().join("held"))
            .expect("there")
            .next()
            .expect("one")
            .expect("readable")
            .path();
        let table = File::options().write(true).open(table).expect("opens");
        let len = table.metadata().expect("there").len();
        table.write_all_at(&[0; 128], len - 128).expect("written");
        drop(store);
        let store = Store::open(dir.path(), false).expect("opens");
        assert!(!store.has(&name) && store.whole_places(&blob.root).is_empty());
    }
}

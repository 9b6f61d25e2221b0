//! The files of a content.

use alloc::collections::BTreeSet;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::ids::Root;
use crate::manifest::{Item, Manifest, Reference};

/// What the content names.
pub(super) enum Files {
    Unknown,
    /// A manifest, where in it the files stand (collection and item), and its packs by their numbers.
    Manifest(Arc<Manifest>, Vec<(u32, u32)>, Vec<(u32, Root)>),
    Tree(Reference),
}

impl Files {
    pub(super) fn of_manifest(manifest: Arc<Manifest>) -> Self {
        let mut places = Vec::new();
        for (collection, at) in manifest.collections.iter().zip(0..) {
            let items = collection.items.iter().zip(0..);
            places
                .extend(items.filter(|(item, _)| matches!(item, Item::File(_))).map(|(_, item)| (at, item)));
        }
        let packs = manifest.packs.iter().map(|(number, root)| (*number, *root)).collect();
        Self::Manifest(manifest, places, packs)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Manifest(_, places, _) => places.len(),
            Self::Tree(_) => 1,
        }
    }

    /// The path, size and reference of a file.
    pub(super) fn get(&self, file: usize) -> Option<(&str, u64, &Reference)> {
        match self {
            Self::Unknown => None,
            Self::Tree(reference) => {
                (file == 0).then(|| ("", reference.size().unwrap_or(u64::MAX), reference))
            }
            Self::Manifest(manifest, places, _) => {
                let (collection, item) = *places.get(file)?;
                match manifest.collections.get(collection as usize)?.items.get(item as usize)? {
                    Item::File(file) => Some((file.path.as_str(), file.size, &file.reference)),
                    Item::Magnet(_) => None,
                }
            }
        }
    }

    /// All of them, in the manifest's order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u64, &Reference)> {
        (0..self.len()).filter_map(|file| self.get(file))
    }

    /// The packs that slices lie in, in the order of their numbers.
    pub(super) fn packs(&self) -> &[(u32, Root)] {
        match self {
            Self::Manifest(_, _, packs) => packs,
            Self::Unknown | Self::Tree(_) => &[],
        }
    }

    /// The place of a pack among the packs, and its name.
    pub(super) fn pack(&self, number: u32) -> Option<(u64, Root)> {
        let packs = self.packs();
        let place = packs.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        Some((place as u64, packs[place].1))
    }

    /// Files whose path another collection has too, before them: that one counts.
    pub(super) fn repeated(&self) -> BTreeSet<usize> {
        let mut paths = BTreeSet::new();
        let files = self.iter().enumerate();
        files.filter(|(_, (path, ..))| !paths.insert(*path)).map(|(file, _)| file).collect()
    }

    /// Files that stand where an earlier one needs a folder, or need one where an earlier one stands.
    pub(super) fn clashing(&self) -> Vec<usize> {
        let (mut paths, mut folders, mut clashing) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
        for (file, (path, ..)) in self.iter().enumerate() {
            let above = || path.match_indices('/').map(|(end, _)| &path[..end]);
            if folders.contains(path) || above().any(|folder| paths.contains(folder)) {
                clashing.push(file);
            } else {
                paths.insert(path);
                folders.extend(above());
            }
        }
        clashing
    }
}

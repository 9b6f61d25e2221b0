//! The files of a content.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::manifest::{Item, Manifest, Reference};

/// What the content names.
pub(super) enum Files {
    Unknown,
    /// A manifest, and where in it the files stand: collection and item.
    Manifest(Arc<Manifest>, Vec<(u32, u32)>),
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
        Self::Manifest(manifest, places)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Unknown => 0,
            Self::Manifest(_, places) => places.len(),
            Self::Tree(_) => 1,
        }
    }

    /// The path, size and reference of a file.
    pub(super) fn get(&self, file: usize) -> Option<(&str, u64, &Reference)> {
        match self {
            Self::Unknown => None,
            Self::Tree(reference) => (file == 0).then(|| ("", size_of_reference(reference), reference)),
            Self::Manifest(manifest, places) => {
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
}

fn size_of_reference(reference: &Reference) -> u64 {
    match reference {
        Reference::Tree(tree) => tree.size,
        Reference::Chunks(chunks) => chunks.iter().map(|chunk| u64::from(chunk.real_size)).sum(),
    }
}

pub(super) fn blob_count(reference: &Reference) -> u64 {
    match reference {
        Reference::Tree(tree) => tree.blob_count(),
        Reference::Chunks(chunks) => chunks.len() as u64,
    }
}

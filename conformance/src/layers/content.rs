//! A channel's content as vectors show it: collections of magnet URIs and file entries in the JSON that core reads.

use megatorrent_core::manifest::{Collection, Item, entry};
use serde_json::{Value, json};

use super::{Fault, Input};

/// The collections in member `collections`.
pub(super) fn collections(input: Input<'_>) -> Result<Vec<Collection>, Fault> {
    let item = |item: Input<'_>| match item.value() {
        Value::String(uri) => Ok(Item::Magnet(uri.clone())),
        file => match entry::from_json(file.to_string().as_bytes()) {
            Ok(file) => Ok(Item::File(file)),
            Err(why) => Err(Fault::BadVector(format!("{file}: {why}"))),
        },
    };
    let collection = |one: Input<'_>| {
        let items = one.list("items")?.into_iter().map(item).collect::<Result<_, _>>()?;
        Ok(Collection { title: one.text("title")?.into(), items })
    };
    input.list("collections")?.into_iter().map(collection).collect()
}

/// The inverse of [`collections`].
pub(super) fn describe(collections: &[Collection]) -> Value {
    let item = |item: &Item| match item {
        Item::Magnet(uri) => Value::from(uri.as_str()),
        Item::File(file) => serde_json::from_str(&entry::to_json(file)).expect("core writes JSON"),
    };
    let collection = |one: &Collection| json!({ "title": one.title, "items": one.items.iter().map(item).collect::<Vec<_>>() });
    collections.iter().map(collection).collect()
}

/// A file entry that points at a tree.
pub(super) fn tree_entry(name: &str, size: u64) -> Value {
    let root = json!({ "depth": 0, "id": "11".repeat(32), "key": "22".repeat(32), "size": size });
    json!({ "name": name, "size": size, "root": root })
}

/// A file entry of v5 with one chunk.
pub(super) fn chunk_entry(name: &str, size: u64) -> Value {
    let chunk = json!({
        "blobId": "33".repeat(32),
        "offset": 0,
        "length": 1_048_592,
        "key": "44".repeat(32),
        "nonce": "55".repeat(12),
        "realSize": size,
    });
    json!({ "name": name, "size": size, "chunks": [chunk] })
}

//! A channel's content as vectors show it: collections of magnet URIs and file entries in the JSON that core reads.

use megatorrent_core::blob::BlobRef;
use megatorrent_core::ids::{Root, Secret};
use megatorrent_core::manifest::{Collection, Item, entry};
use megatorrent_core::tree::TreeRef;
use serde_json::{Value, json};

use super::{Fault, Input};

/// The collections in member `collections`.
pub(super) fn collections(input: Input<'_>) -> Result<Vec<Collection>, Fault> {
    let collection = |one: Input<'_>| Ok(Collection { title: one.text("title")?.into(), items: items(one)? });
    input.list("collections")?.into_iter().map(collection).collect()
}

/// The items in member `items`.
pub(super) fn items(input: Input<'_>) -> Result<Vec<Item>, Fault> {
    let item = |item: Input<'_>| match item.value() {
        Value::String(uri) => Ok(Item::Magnet(uri.clone())),
        file => match entry::from_json(file.to_string().as_bytes()) {
            Ok(file) => Ok(Item::File(file)),
            Err(why) => Err(Fault::BadVector(format!("{file}: {why}"))),
        },
    };
    input.list("items")?.into_iter().map(item).collect()
}

/// The inverse of [`collections`].
pub(super) fn describe(collections: &[Collection]) -> Value {
    let collection = |one: &Collection| json!({ "title": one.title, "items": describe_items(&one.items) });
    collections.iter().map(collection).collect()
}

/// The inverse of [`items`].
pub(super) fn describe_items(items: &[Item]) -> Value {
    let item = |item: &Item| match item {
        Item::Magnet(uri) => Value::from(uri.as_str()),
        Item::File(file) => serde_json::from_str(&entry::to_json(file)).expect("core writes JSON"),
    };
    items.iter().map(item).collect()
}

/// A tree of one blob, as a head has it.
pub(super) fn tree_text(size: u64) -> String {
    let blob = BlobRef { root: Root([0x11; 32]), key: Secret::new([0x22; 32]) };
    TreeRef::new(size, 0, blob).expect("at most one blob").to_text().to_string()
}

/// An entry of a file whose only extent is a tree.
pub(super) fn tree_entry(name: &str, size: u64) -> Value {
    json!({ "name": name, "size": size, "extents": [tree_text(size)] })
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

/// The same of a native blob, with its root.
pub(super) fn native_entry(name: &str, size: u64) -> Value {
    let mut entry = chunk_entry(name, size);
    (entry["chunks"][0]["nonce"], entry["chunks"][0]["blake3"]) =
        ("00".repeat(12).into(), "66".repeat(32).into());
    entry
}

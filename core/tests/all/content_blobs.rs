//! Blobs and trees (`docs/protocol.md` §2 and §3).

use std::collections::BTreeMap;
use std::convert::Infallible;

use chacha20::cipher::{KeyIvInit, StreamCipher};
use megatorrent_core::blob::{self, BLOB_LEN, BLOB_REF_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::ids::{Root, Secret};
use megatorrent_core::parts::{PART_LEN, Values};
use megatorrent_core::rng::Rng;
use megatorrent_core::tree::{Cursor, FANOUT, Node, Step, TREE_REF_LEN, TreeRef, TreeWriter};
use proptest::prelude::*;

const SECRET: Secret = Secret::new([7; 32]);

fn buffer(content: &[u8]) -> Box<[u8; BLOB_LEN]> {
    let mut buf: Box<[u8; BLOB_LEN]> = vec![0xaa; BLOB_LEN].try_into().expect("a blob's length");
    buf[..content.len()].copy_from_slice(content);
    buf
}

#[test]
fn sealing_follows_the_protocol_to_the_byte() {
    let content = b"a short file";
    let mut buf = buffer(content);
    let sealed_as = blob::seal(&SECRET, &mut buf[..], content.len());

    let key = blake3::keyed_hash(SECRET.expose(), content);
    let mut plain = vec![0; PLAIN_LEN];
    chacha20::ChaCha20::new(key.as_bytes().into(), &[0xff; 12].into())
        .apply_keystream(&mut plain[content.len()..]);
    plain[..content.len()].copy_from_slice(content);
    let cipher =
        <chacha20poly1305::ChaCha20Poly1305 as chacha20poly1305::KeyInit>::new(key.as_bytes().into());
    let sealed = chacha20poly1305::aead::Aead::encrypt(&cipher, &[0; 12].into(), &*plain).expect("it seals");
    assert!(sealed == buf[..]);
    assert_eq!(Values::of(&sealed).root(), sealed_as.root);
    assert_eq!(sealed_as.key.expose(), key.as_bytes());
    assert_eq!(sealed_as.root.0.as_slice(), blake3::hash(&sealed).as_bytes().as_slice());
    insta::assert_snapshot!(blob::id(&sealed), @"dc0c070e83d9c173c41024ac65ea68de2e7cbe69af12d130c14fc0363e0b0552");
}

#[test]
fn a_blob_opens_and_is_reproducible_from_content_and_key() {
    for len in [0, 1, PLAIN_LEN - 1, PLAIN_LEN] {
        let content: Vec<u8> = (0..len).map(|i| i.to_le_bytes()[0] ^ i.to_le_bytes()[1]).collect();
        let mut buf = buffer(&content);
        let sealed_as = blob::seal(&SECRET, &mut buf[..], len);
        assert!(blob::verify(&sealed_as.root.into(), &buf[..]));

        let mut again = buffer(&content);
        assert_eq!(blob::seal_with_key(&sealed_as.key, &mut again[..], len), sealed_as.root);
        assert!(again == buf);

        assert!(blob::open(&sealed_as, &mut buf[..]));
        assert!(buf[..len] == content);
    }
}

#[test]
fn equal_content_gives_one_blob_under_one_secret_only() {
    let seal = |secret: &Secret, content: &[u8]| blob::seal(secret, &mut buffer(content)[..], content.len());
    assert_eq!(seal(&SECRET, b"x"), seal(&SECRET, b"x"));
    assert_ne!(seal(&SECRET, b"x").root, seal(&Secret::new([8; 32]), b"x").root);
    assert_ne!(seal(&SECRET, b"x").root, seal(&SECRET, b"x\0").root);
}

#[test]
fn a_changed_blob_neither_verifies_nor_opens() {
    let mut buf = buffer(b"content");
    let sealed_as = blob::seal(&SECRET, &mut buf[..], 7);
    for at in [0, PLAIN_LEN - 1, PLAIN_LEN, BLOB_LEN - 1] {
        buf[at] ^= 1;
        let changed = buf.clone();
        assert!(!blob::verify(&sealed_as.root.into(), &buf[..]));
        assert!(!blob::open(&sealed_as, &mut buf[..]));
        assert!(buf == changed, "a refused blob is left alone");
        buf[at] ^= 1;
    }
    assert!(!blob::verify(&sealed_as.root.into(), &buf[..BLOB_LEN - 1]));
    let wrong = BlobRef { root: sealed_as.root, key: Secret::new([1; 32]) };
    assert!(!blob::open(&wrong, &mut buf[..]));
    assert!(blob::open(&sealed_as, &mut buf[..]));
}

#[test]
fn v5_sealing_pads_at_random_and_opens_under_its_nonce() {
    let (key, nonce) = (Secret::new([3; 32]), [5; 12]);
    let seal = |seed| {
        let mut buf = buffer(b"abc");
        let id = blob::seal_v5(&key, &nonce, &mut Rng::new([seed; 32]), &mut buf[..], 3);
        (id, buf)
    };
    let (id, buf) = seal(1);
    assert!(blob::verify(&id.into(), &buf[..]));
    assert_ne!(id, seal(2).0);
    let cipher = <chacha20poly1305::ChaCha20Poly1305 as chacha20poly1305::KeyInit>::new(key.expose().into());
    let plain = chacha20poly1305::aead::Aead::decrypt(&cipher, &nonce.into(), &buf[..]).expect("it opens");
    assert_eq!((&plain[..3], plain.len()), (&b"abc"[..], PLAIN_LEN));
}

/// A link that names its leaf, so that no data needs sealing.
fn leaf_link(index: u64) -> BlobRef {
    let mut id = [0xda; 32];
    id[..8].copy_from_slice(&index.to_be_bytes());
    BlobRef { root: Root(id), key: Secret::new(*blake3::hash(&id).as_bytes()) }
}

/// A store: index blobs by root.
type Store = BTreeMap<Root, Box<[u8; BLOB_LEN]>>;

fn write(size: u64) -> (TreeRef, Store) {
    let mut store = Store::new();
    let mut keep = |buf: &mut [u8], len: usize| {
        assert!(len > 0 && len <= PART_LEN && len.is_multiple_of(BLOB_REF_LEN));
        let link = blob::seal(&SECRET, buf, len);
        store.insert(link.root, buffer(&buf[..]));
        Ok::<_, Infallible>(link)
    };
    let mut writer = TreeWriter::new();
    for index in 0..size.div_ceil(PLAIN_LEN as u64).max(1) {
        let Ok(()) = writer.push(leaf_link(index), &mut keep);
    }
    let Ok(tree) = writer.finish(size, &mut keep);
    (tree, store)
}

fn open(store: &Store, node: &Node) -> Box<[u8; BLOB_LEN]> {
    let mut buf = store[&node.blob.root].clone();
    assert!(blob::open(&node.blob, &mut buf[..]));
    buf
}

fn leaves(store: &Store, node: &Node, out: &mut Vec<Node>) {
    if node.height == 0 {
        return out.push(node.clone());
    }
    for child in node.children(&open(store, node)[..PLAIN_LEN]) {
        leaves(store, &child, out);
    }
}

#[test]
fn trees_around_their_boundaries_lead_to_every_leaf() {
    const BLOB: u64 = PLAIN_LEN as u64;
    const FULL: u64 = BLOB * FANOUT as u64;
    for (size, depth, blobs) in [
        (0, 0, 1),
        (1, 0, 1),
        (BLOB, 0, 1),
        (BLOB + 1, 1, 2 + 1),
        (2 * BLOB, 1, 2 + 1),
        (FULL - BLOB, 1, 1023 + 1),
        (FULL - 1, 1, 1024 + 1),
        (FULL, 1, 1024 + 1),
        (FULL + 1, 2, 1025 + 2 + 1),
        (2 * FULL, 2, 2048 + 2 + 1),
        (2 * FULL + BLOB, 2, 2049 + 3 + 1),
    ] {
        let (tree, store) = write(size);
        assert_eq!((tree.depth, tree.blob_count()), (depth, blobs), "{size}");
        let mut found = Vec::new();
        leaves(&store, &tree.root(), &mut found);
        let mut end = 0;
        for (index, leaf) in found.iter().enumerate() {
            assert_eq!((leaf.offset, &leaf.blob), (end, &leaf_link(index as u64)));
            end += leaf.len;
        }
        assert_eq!((end, (found.len() + store.len()) as u64), (size, blobs), "{size}");
    }
}

#[test]
fn a_failing_store_ends_the_writing() {
    let mut writer = TreeWriter::new();
    assert_eq!(writer.push(leaf_link(0), |_, _| Err("full")), Ok(()), "nothing to store yet");
    assert_eq!(writer.push(leaf_link(1), |_, _| Err("full")), Ok(()));
    assert_eq!(writer.finish(PLAIN_LEN as u64 + 1, |_, _| Err("full")), Err("full"));
}

#[test]
fn references_have_one_depth_for_each_size() {
    let ends = [20, 30, 40, 50, 60].map(|bits| 1_u64 << bits);
    let sizes = ends.into_iter().zip(0_u8..).flat_map(|(end, depth)| [(end, depth), (end + 1, depth + 1)]);
    for (size, depth) in [(0, 0)].into_iter().chain(sizes.take(9)) {
        for other in 0..=u8::MAX {
            assert_eq!(TreeRef::new(size, other, leaf_link(0)).is_some(), other == depth, "{size} {other}");
        }
        let tree = TreeRef::new(size, depth, leaf_link(9)).expect("canonical");
        let mut bytes: [u8; TREE_REF_LEN] = *tree.to_bytes();
        assert_eq!(TreeRef::from_bytes(&bytes), Some(tree));
        bytes[8] ^= 1;
        assert_eq!(TreeRef::from_bytes(&bytes), None);
    }
    assert!((0..=u8::MAX).all(|depth| TreeRef::new((1 << 60) + 1, depth, leaf_link(0)).is_none()));
}

#[test]
fn the_largest_tree_has_its_shape_by_size_alone() {
    let tree = TreeRef::new(1 << 60, 4, leaf_link(0)).expect("canonical");
    assert_eq!(tree.blob_count(), (1 << 40) + (1 << 30) + (1 << 20) + (1 << 10) + 1);
    let plain = vec![1; PLAIN_LEN];
    let last = tree.root().child(&plain, FANOUT - 1).expect("the last child");
    assert_eq!((last.height, last.offset, last.len), (3, (1 << 60) - (1 << 50), 1 << 50));
    assert_eq!(tree.root().child(&plain, FANOUT), None);
    assert_eq!(tree.root().children(&[1; BLOB_REF_LEN * 3 + 5]).len(), 3, "a short plaintext ends the list");
}

/// The stream's byte at `offset`.
fn byte_at(offset: u64) -> u8 {
    (offset ^ (offset >> 8) ^ (offset >> 20)).to_le_bytes()[0]
}

/// The bytes of a range, and how many blobs were opened for them.
fn read(tree: &TreeRef, store: &Store, range: std::ops::Range<u64>) -> (Vec<u8>, usize) {
    let (mut out, mut opened) = (Vec::new(), 0);
    let mut cursor = Cursor::new(tree, range.clone());
    loop {
        match cursor.step() {
            Step::Blob(node) if node.height > 0 => {}
            Step::Blob(node) => {
                opened += 1;
                assert_eq!(node.blob, leaf_link(node.offset / PLAIN_LEN as u64));
                let plain: Vec<u8> = (0..PLAIN_LEN as u64).map(|i| byte_at(node.offset + i)).collect();
                let data = &plain[node.part(&range)];
                assert!(!data.is_empty());
                out.extend_from_slice(data);
            }
            Step::NeedsIndex(node) => {
                opened += 1;
                assert!(cursor.open(&node.blob.root, &open(store, &node)[..PLAIN_LEN]));
            }
            Step::End => return (out, opened),
        }
    }
}

#[test]
fn reading_at_an_offset_costs_depth_blobs_first() {
    const FULL: u64 = (PLAIN_LEN * FANOUT) as u64;
    let (tree, store) = write(FULL + 5);
    assert_eq!(
        read(&tree, &store, FULL..FULL + 3),
        (vec![byte_at(FULL), byte_at(FULL + 1), byte_at(FULL + 2)], 3)
    );
    let (data, blobs) = read(&tree, &store, FULL - 1..u64::MAX);
    assert_eq!((data.len(), data[0], blobs), (6, byte_at(FULL - 1), 1 + 2 + 2));
    assert_eq!(read(&tree, &store, 7..7), (vec![], 0));
    assert_eq!(read(&tree, &store, FULL + 5..FULL + 9), (vec![], 0));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_range_reads_back(size in 0_u64..6 << 20, start in 0_u64..6 << 20, len in 0_u64..4 << 20) {
        let (tree, store) = write(size);
        let end = size.min(start + len);
        let expected: Vec<u8> = (start..end).map(byte_at).collect();
        prop_assert!(read(&tree, &store, start..start + len).0 == expected);
    }
}

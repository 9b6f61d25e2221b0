//! Trees, their cursor, and positions (`docs/protocol.md` §3 and §12).

use std::sync::OnceLock;

use arbitrary::{Result, Unstructured};
use megatorrent_core::blob::{BLOB_REF_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::ids::{Root, Secret};
use megatorrent_core::limits::TREE_DEPTH_MAX;
use megatorrent_core::tree::{Cursor, FANOUT, Step, TREE_REF_LEN, TreeRef};
use megatorrent_fuzz::{byte_strings, check, near, near_text, number};

/// Steps of one walk.
const STEPS_MAX: u32 = 60;
/// The sizes at which trees change.
const EDGES: [u64; 6] = [0, PLAIN, PLAIN << 10, PLAIN << 20, PLAIN << 30, PLAIN << 40];
const PLAIN: u64 = PLAIN_LEN as u64;

fn references() -> &'static [Vec<u8>] {
    static REFERENCES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    REFERENCES.get_or_init(|| byte_strings("tree", "read", "reference"))
}

fn blob(fill: u8) -> BlobRef {
    BlobRef { root: Root([fill; 32]), key: Secret::new([fill; 32]) }
}

/// A tree of any size that an author may say.
fn tree(input: &mut Unstructured<'_>) -> Result<Option<TreeRef>> {
    let size = number(input, &EDGES)?;
    Ok((0..=TREE_DEPTH_MAX).find_map(|depth| TreeRef::new(size, depth, blob(1))))
}

#[test]
fn a_reference_has_one_form_in_bytes_and_one_in_text() {
    check!(10_000, |input| {
        let bytes = near(input, references())?;
        let read = <&[u8; TREE_REF_LEN]>::try_from(&*bytes).ok().and_then(TreeRef::from_bytes);
        if let Some(tree) = read {
            assert_eq!(tree.to_bytes().as_slice(), bytes);
            let text = tree.to_text();
            assert_eq!(TreeRef::from_text(&text).as_ref(), Some(&tree));
            let changed = near_text(input, &[(*text).clone()])?;
            assert!(TreeRef::from_text(&changed).is_none_or(|other| *other.to_text() == changed));
        }
        Ok(())
    });
}

#[test]
fn a_size_has_one_depth_and_every_position_one_blob() {
    check!(10_000, |input| {
        let size = number(input, &EDGES)?;
        let depth = input.arbitrary()?;
        let smallest = (0..=TREE_DEPTH_MAX).find(|depth| size <= PLAIN << (10 * u32::from(*depth)));
        let Some(tree) = TreeRef::new(size, depth, blob(1)) else {
            assert_ne!(Some(depth), smallest);
            return Ok(());
        };
        assert_eq!(Some(depth), smallest);
        assert!((1..=tree.blob_count()).contains(&tree.data_blob_count()));
        let last = tree.data_blob_count() - 1;
        let data_blob = number(input, &[last, last / FANOUT as u64])?;
        let Some(position) = tree.position_of(data_blob) else {
            assert!(data_blob > last);
            return Ok(());
        };
        let place = tree.blob_at(position).expect("each data blob has a place");
        assert_eq!((place.position, place.height, place.offset), (position, 0, data_blob * PLAIN));
        assert_eq!(place.len, PLAIN.min(size - place.offset));
        let position = number(input, &[position, tree.blob_count()])?;
        let place = tree.blob_at(position);
        assert_eq!(place.is_some(), position < tree.blob_count());
        if let Some(place) = place {
            assert!(place.position == position && place.height <= depth);
            assert!(place.offset + place.len <= size);
        }
        Ok(())
    });
}

/// An index blob's plaintext as its author may have made it: links to whatever, or fewer than there must be.
fn plain(input: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let len = number(input, &[(FANOUT * BLOB_REF_LEN) as u64, BLOB_REF_LEN as u64])?;
    Ok(vec![input.arbitrary()?; usize::try_from(len).unwrap_or(usize::MAX).min(PLAIN_LEN)])
}

#[test]
fn a_walk_goes_forward_within_the_tree_whatever_its_index_blobs_hold() {
    check!(4000, |input| {
        let Some(tree) = tree(input)? else { return Ok(()) };
        let (start, end) = (number(input, &[0, tree.size])?, number(input, &[tree.size])?);
        let mut cursor =
            if input.arbitrary()? { Cursor::whole(&tree) } else { Cursor::new(&tree, start..end) };
        let mut last = None;
        for _ in 0..input.int_in_range(0..=STEPS_MAX)? {
            match cursor.step() {
                Step::Blob(node) => {
                    assert!(
                        node.position < tree.blob_count() && last.is_none_or(|last| last < node.position)
                    );
                    assert_eq!(tree.blob_at(node.position), Some(node.site()));
                    assert!(node.content_len() as usize <= PLAIN_LEN && node.child_count() <= FANOUT);
                    let part = node.part(&(start..end));
                    assert!(node.height > 0 || part.end <= PLAIN_LEN);
                    last = Some(node.position);
                }
                Step::NeedsIndex(node) => {
                    let plain = plain(input)?;
                    let is_whole = plain.len() >= node.content_len() as usize;
                    assert!(!cursor.open(&Root([0; 32]), &plain) || node.blob.root == Root([0; 32]));
                    assert_eq!(
                        node.children(&plain).len(),
                        node.child_count().min(plain.len() / BLOB_REF_LEN)
                    );
                    if !cursor.open(&node.blob.root, &plain) {
                        assert!(!is_whole || !matches!(cursor.step(), Step::NeedsIndex(now) if now == node));
                        return Ok(());
                    }
                }
                Step::End => assert!(cursor.is_at_end()),
            }
            match input.int_in_range(0..=15)? {
                0 => cursor.release(),
                1 => {
                    cursor.seek(number(input, &EDGES)?);
                    last = None;
                }
                _ => {}
            }
        }
        Ok(())
    });
}

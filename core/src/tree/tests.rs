//! Cursors and positions, against a plain list of a tree's blobs.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::convert::Infallible;

use proptest::prelude::*;

use super::*;
use crate::ids::{Root, Secret};

/// The plaintexts of the index blobs, by id.
type Store = BTreeMap<Root, Vec<u8>>;

fn link(number: u64) -> BlobRef {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    BlobRef { root: Root(id), key: Secret::new(id) }
}

fn write(shape: Shape, size: u64) -> (TreeRef, Store) {
    let mut store = Store::new();
    let mut keep = |buf: &mut [u8], _len: usize| {
        let link = link(1 << 32 | store.len() as u64);
        store.insert(link.root, buf[..shape.plain_len()].to_vec());
        Ok::<_, Infallible>(link)
    };
    let mut writer = TreeWriter::new_in(shape);
    for number in 0..shape.leaf_count(size) {
        let Ok(()) = writer.push(link(number), &mut keep);
    }
    let Ok(tree) = writer.finish(size, &mut keep);
    (tree, store)
}

/// All nodes of a tree, each before those that it links to.
fn list(store: &Store, node: &Node, out: &mut Vec<Node>) {
    out.push(node.clone());
    if let Some(plain) = store.get(&node.blob.root) {
        for child in node.children(plain) {
            list(store, &child, out);
        }
    }
}

/// A cursor, and a model of what it should do.
struct Model {
    cursor: Cursor,
    store: Store,
    nodes: Vec<Node>,
    /// The range's end, in data blobs.
    end: u64,
    /// The blobs that are still to come.
    ahead: VecDeque<Node>,
    /// The data blob that the walk goes on with.
    data_blob: u64,
    /// The index blobs that came and lead to it.
    above: BTreeSet<u64>,
    /// Those of them that are open.
    opened: BTreeSet<u64>,
}

impl Model {
    fn new(shape: Shape, size: u64, make: impl Fn(&TreeRef) -> Cursor, range: Range<u64>) -> Self {
        let (tree, store) = write(shape, size);
        let mut nodes = Vec::new();
        list(&store, &tree.root(), &mut nodes);
        let mut model = Self {
            cursor: make(&tree),
            store,
            nodes,
            end: range.end.min(tree.data_blob_count()),
            ahead: VecDeque::new(),
            data_blob: 0,
            above: BTreeSet::new(),
            opened: BTreeSet::new(),
        };
        model.go_to(range.start);
        model
    }

    /// Whether a node would lead to the data blob, if all nodes were full.
    fn leads_to(node: &Node, data_blob: u64) -> bool {
        let first = node.offset / node.shape.plain_len() as u64;
        (first..first + node.shape.leaves(node.height)).contains(&data_blob)
    }

    fn go_to(&mut self, data_blob: u64) {
        self.data_blob = data_blob;
        let nodes = &self.nodes;
        // The root leads to all data blobs, even beyond the end.
        self.above
            .retain(|at| *at == 0 || nodes.iter().any(|n| n.position == *at && Self::leads_to(n, data_blob)));
        self.opened.retain(|at| self.above.contains(at));
        let is_ahead = |node: &&Node| {
            let first = node.offset / node.shape.plain_len() as u64;
            first + node.shape.leaves(node.height) > data_blob && first < self.end
        };
        let ahead = self.nodes.iter().filter(is_ahead).filter(|n| !self.above.contains(&n.position));
        self.ahead = if data_blob < self.end { ahead.cloned().collect() } else { VecDeque::new() };
        if self.ahead.is_empty() {
            self.opened.clear();
        }
    }

    fn step(&mut self) {
        let step = self.cursor.step();
        let needed = self.above.iter().find(|at| !self.opened.contains(at));
        match (self.ahead.front().cloned(), needed) {
            (None, _) => assert_eq!(step, Step::End),
            (Some(_), Some(at)) => {
                let Some(node) = self.nodes.iter().find(|n| n.position == *at) else { panic!("it came") };
                assert_eq!(step, Step::NeedsIndex(node.clone()));
                assert_eq!(self.cursor.step(), step, "until it is open");
                let plain = &self.store[&node.blob.root];
                assert!(!self.cursor.open(&link(7 << 40).root, plain), "another one");
                assert!(!self.cursor.open(&node.blob.root, &plain[..node.child_count() * BLOB_REF_LEN - 1]));
                assert!(self.cursor.open(&node.blob.root, &plain[..node.child_count() * BLOB_REF_LEN]));
                assert!(!self.cursor.open(&node.blob.root, plain), "it is open");
                self.opened.insert(*at);
            }
            (Some(node), None) => {
                assert_eq!(step, Step::Blob(node.clone()));
                self.ahead.pop_front();
                if node.height > 0 {
                    self.above.insert(node.position);
                } else {
                    self.go_to(self.data_blob + 1);
                }
            }
        }
    }

    fn seek(&mut self, offset: u64) {
        self.cursor.seek(offset);
        self.go_to(offset / self.cursor_shape().plain_len() as u64);
    }

    fn cursor_shape(&self) -> Shape {
        self.nodes.first().map_or(Shape::REAL, |root| root.shape)
    }

    fn release(&mut self) {
        self.cursor.release();
        self.opened.clear();
    }
}

fn any_shape() -> impl Strategy<Value = Shape> {
    (2_usize..6).prop_map(|fanout| Shape::new(fanout * BLOB_REF_LEN))
}

/// A shape and a size that it holds.
fn any_tree() -> impl Strategy<Value = (Shape, u64)> {
    any_shape().prop_flat_map(|shape| (Just(shape), 0..=shape.span(TREE_DEPTH_MAX)))
}

proptest! {
    #[test]
    fn positions_are_those_of_a_walk((shape, size) in any_tree()) {
        let (tree, store) = write(shape, size);
        let mut nodes = Vec::new();
        list(&store, &tree.root(), &mut nodes);
        let count = nodes.len() as u64;
        prop_assert_eq!(tree.blob_count(), count);
        for (position, node) in (0..).zip(&nodes) {
            prop_assert_eq!(node.position, position);
            prop_assert_eq!(tree.blob_at(position), Some(node.site()));
        }
        prop_assert_eq!((tree.blob_at(count), tree.blob_at(u64::MAX)), (None, None));
        let data = nodes.iter().filter(|node| node.height == 0);
        prop_assert_eq!(tree.data_blob_count(), data.clone().count() as u64);
        for (number, node) in (0..).zip(data) {
            prop_assert_eq!(tree.position_of(number), Some(node.position));
        }
        prop_assert_eq!((tree.position_of(tree.data_blob_count()), tree.position_of(u64::MAX)), (None, None));
    }

    #[test]
    fn any_walk_is_that_of_a_list(
        (shape, size) in any_tree(),
        (start, len) in (0_u64..10_000, 0_u64..10_000),
        is_whole: bool,
        acts in proptest::collection::vec((0..8_u8, 0_u64..10_000), 0..200),
    ) {
        let bytes = start % (size + 1)..start % (size + 1) + len;
        let plain_len = shape.plain_len() as u64;
        let end = bytes.end.min(size);
        let blobs = if bytes.start < end { bytes.start / plain_len..end.div_ceil(plain_len) } else { 0..0 };
        let mut model = if is_whole {
            Model::new(shape, size, Cursor::whole, 0..u64::MAX)
        } else {
            Model::new(shape, size, |tree| Cursor::new(tree, bytes.clone()), blobs)
        };
        for (act, at) in acts {
            match act {
                0 => model.release(),
                1 => model.seek(at % (size + plain_len)),
                _ => model.step(),
            }
        }
        // Walks to the end and stays there.
        for _ in 0..3 * model.nodes.len() {
            model.step();
        }
        prop_assert!(model.ahead.is_empty());
    }

    #[test]
    fn an_index_blob_of_any_bytes_is_links_and_nothing_else(size in 2_u64..10_000, plain in any::<[u8; 256]>()) {
        let tree = TreeRef::new_in(Shape::new(256), size, Shape::new(256).depth_for(size).unwrap_or(0), link(0));
        let Some(tree) = tree else { return Ok(()) };
        let mut cursor = Cursor::whole(&tree);
        let (mut came, mut needed) = (0, None);
        loop {
            match cursor.step() {
                Step::Blob(node) => {
                    prop_assert_eq!(node.position, came);
                    came += 1;
                }
                Step::NeedsIndex(node) => {
                    // Whatever its bytes say, no index blob is needed twice in a row.
                    prop_assert_ne!(needed.replace(node.position), Some(node.position));
                    prop_assert!(cursor.open(&node.blob.root, &plain));
                }
                Step::End => break,
            }
        }
        prop_assert_eq!(came, tree.blob_count());
    }
}

#[test]
fn a_node_says_where_a_range_lies_in_it() {
    let (tree, store) = write(Shape::new(128), 300);
    let mut nodes = Vec::new();
    list(&store, &tree.root(), &mut nodes);
    let parts = |bytes: Range<u64>| {
        nodes.iter().filter(|n| n.height == 0).map(|n| n.part(&bytes)).collect::<Vec<_>>()
    };
    assert_eq!(parts(0..u64::MAX), vec![0..128, 0..128, 0..44]);
    assert_eq!(parts(127..257), vec![127..128, 0..128, 0..1]);
    assert_eq!(parts(130..130), vec![128..128, 2..2, 0..0]);
    assert_eq!(parts(0..0), vec![0..0, 0..0, 0..0]);
}

#[test]
fn a_released_cursor_is_small() {
    assert!(size_of::<Cursor>() <= 160);
}

//! Heads, bodies and file entries (`docs/protocol.md` §4 to §6).

use megatorrent_core::bep44::SignedItem;
use megatorrent_core::blob::{self, BLOB_LEN, BlobRef, PLAIN_LEN};
use megatorrent_core::identity::Identity;
use megatorrent_core::ids::{BlobId, Root, Secret};
use megatorrent_core::limits::{ITEM_VALUE_LEN_MAX, SEQUENCE_SIGNED_MAX, SEQUENCE_STEP_MAX};
use megatorrent_core::manifest::{
    Chunk, Collection, EntryPath, Extent, FileEntry, Head, HeadContent, HeadError, Item, Manifest, Page,
    Reference, Slice, entry,
};
use megatorrent_core::rng::Rng;
use megatorrent_core::tree::{Node, Shape, TreeRef};
use proptest::prelude::*;

static READ_KEY: Secret = Secret::new([9; 32]);

fn author() -> Identity {
    Identity::new(&Secret::new([1; 32]), None)
}

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

fn tree(size: u64, depth: u8) -> TreeRef {
    let link = BlobRef { root: Root([0xab; 32]), key: Secret::new([0xcd; 32]) };
    TreeRef::new(size, depth, link).expect("a canonical depth")
}

fn file(path: &str, size: u64, reference: Reference) -> FileEntry {
    let path = EntryPath::new(path).expect("a good path");
    FileEntry { path, size, modified_ms: None, executable: false, reference, blake3: None }
}

fn slice(real_size: u32) -> Chunk {
    let (id, key) = (BlobId([1; 32]), Secret::new([2; 32]));
    Chunk { id, root: None, offset: 32, length: 160, key, nonce: [3; 12], real_size }
}

fn collections() -> Vec<Collection> {
    let native = Chunk::from_ref(&tree(5, 0).blob, BlobId([0xef; 32]), 5);
    let mut program = file("bin/run", 5, Reference::Chunks(vec![native]));
    (program.executable, program.modified_ms) = (true, Some(1_700_000_000_000));
    let items = vec![
        Item::File(program),
        Item::File(file("small.txt", 7, Reference::Chunks(vec![slice(7)]))),
        Item::Magnet("magnet:?xt=urn:btih:00".to_string()),
    ];
    vec![Collection { title: "Files".to_string(), items }]
}

fn read(text: &str) -> Result<Head, HeadError> {
    Head::from_json(&author().public_key(), Some(&READ_KEY), text.as_bytes())
}

// --- heads --------------------------------------------------------------------------------------------------

#[test]
fn a_public_head_is_v5s_manifest_in_sorted_order() {
    let inline = HeadContent::Inline(collections());
    let text = Head::to_json(&author(), 5, 6, &inline, None);
    insta::assert_snapshot!(text, @r#"{"collections":[{"items":[{"chunks":[{"blake3":"abababababababababababababababababababababababababababababababab","blobId":"efefefefefefefefefefefefefefefefefefefefefefefefefefefefefefefef","key":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","length":1048592,"nonce":"000000000000000000000000","offset":0,"realSize":5}],"executable":true,"modified":1700000000000,"name":"bin/run","size":5},{"chunks":[{"blobId":"0101010101010101010101010101010101010101010101010101010101010101","key":"0202020202020202020202020202020202020202020202020202020202020202","length":160,"nonce":"030303030303030303030303","offset":32,"realSize":7}],"name":"small.txt","size":7},"magnet:?xt=urn:btih:00"],"title":"Files"}],"publicKey":"8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c","sequence":5,"signature":"543822272bfef6bdfeffff9a8821303a25d0bcd0fc9fbc03a97dbbca4363fa1402b756abbaefb77140a23a21296bd2e32f8f3c3a771a87415cd74eabe2adf30f","timestamp":6}"#);
    let head = read(&text).expect("our own head");
    assert_eq!((head.sequence, head.timestamp_ms, head.private, head.content), (5, 6, false, inline));
}

#[test]
fn a_head_with_a_body_has_98_characters_of_it() {
    let body = HeadContent::Body(tree((1 << 20) + 1, 1));
    insta::assert_snapshot!(Head::to_json(&author(), 5, 6, &body, None), @r#"{"body":"AAAAAAAQAAEBq6urq6urq6urq6urq6urq6urq6urq6urq6urq6urq6vNzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3Nzc3NzQ","collections":[],"publicKey":"8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c","sequence":5,"signature":"34378f925f372f45b45aa49ed1229fcaa28c1a915fc488245e934773bc91ef48e68b3acd0a3486f1e02b5dcd6a5ebd6eada1d117df5fcb13be970d7cf15ca008","timestamp":6}"#);
    for seal in [None, Some((&READ_KEY, [4; 12]))] {
        let head = read(&Head::to_json(&author(), 5, 6, &body, seal)).expect("our own head");
        assert_eq!((head.private, &head.content), (seal.is_some(), &body));
    }
}

#[test]
fn a_private_head_shows_nothing_without_its_read_key() {
    let text =
        Head::to_json(&author(), 5, 6, &HeadContent::Inline(collections()), Some((&READ_KEY, [4; 12])));
    for (name, shown) in
        [("\"encrypted\":true", true), ("collections", false), ("timestamp", false), ("Files", false)]
    {
        assert_eq!(text.contains(name), shown, "{name}");
    }
    let open = |key: Option<Secret>| Head::from_json(&author().public_key(), key.as_ref(), text.as_bytes());
    assert_eq!(
        open(Some(READ_KEY.clone())).expect("the right key").content,
        HeadContent::Inline(collections())
    );
    assert_eq!(open(Some(Secret::new([8; 32]))), Err(HeadError::ReadKeyWrong));
    assert_eq!(open(None), Err(HeadError::ReadKeyMissing));
}

#[test]
fn a_pointing_head_always_fits_a_dht_item() {
    let largest = HeadContent::Body(tree(1 << 60, 4));
    assert!(largest.fits(false) && largest.fits(true));
}

#[test]
fn fitting_is_exact_and_does_not_depend_on_the_numbers() {
    let magnet = |len: usize| {
        let items = vec![Item::Magnet(format!("magnet:?{}", "x".repeat(len)))];
        HeadContent::Inline(vec![Collection { title: String::new(), items }])
    };
    for private in [false, true] {
        let longest =
            (0..ITEM_VALUE_LEN_MAX).rfind(|len| magnet(*len).fits(private)).expect("a short one fits");
        let seal = private.then_some((&READ_KEY, [4; 12]));
        let len = |n| Head::to_json(&author(), 1 << 53, 1 << 53, &magnet(n), seal).len();
        assert!(len(longest) <= ITEM_VALUE_LEN_MAX && len(longest + 1) > ITEM_VALUE_LEN_MAX);
        assert!(longest > 50, "room for something");
    }
}

/// A v5 document as another program may write it, with any order of members and any order under the signature.
fn v5_document(members: &[(&str, &str)], sign_sorted: bool) -> String {
    let join = |members: &[(&str, &str)]| {
        let parts: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        format!("{{{}}}", parts.join(","))
    };
    let mut signed = members.to_vec();
    if sign_sorted {
        signed.sort_unstable();
    }
    let signature = format!("\"{}\"", hex(&author().sign(join(&signed).as_bytes())));
    let mut all = members.to_vec();
    all.insert(members.len() / 2, ("signature", &signature));
    join(&all)
}

#[test]
fn an_empty_v5_channel_and_a_later_members_are_read() {
    let key = format!("\"{}\"", author().public_key());
    let text = v5_document(
        &[
            ("publicKey", &key),
            ("sequence", "1"),
            ("collections", "[]"),
            ("timestamp", "2"),
            ("later", "[1.5,null,-3]"),
        ],
        false,
    );
    assert_eq!(read(&text).expect("v5's own order").content, HeadContent::Inline(vec![]));
    let spaced = text.replace(',', " ,\n\t").replace(':', " : ");
    assert_eq!(read(&spaced), read(&text), "only the compact text is signed");
}

#[test]
fn documents_that_are_no_heads_are_refused() {
    let key = format!("\"{}\"", author().public_key());
    let other = format!("\"{}\"", Identity::new(&Secret::new([2; 32]), None).public_key());
    let good = [("collections", "[]"), ("publicKey", &*key), ("sequence", "1"), ("timestamp", "2")];
    assert!(read(&v5_document(&good, false)).is_ok());
    let with = |name: &str, value: &str| {
        let mut members: Vec<_> = good.iter().filter(|(n, _)| *n != name).copied().collect();
        if !value.is_empty() {
            members.push((name, value));
        }
        read(&v5_document(&members, false))
    };
    assert_eq!(with("publicKey", &other), Err(HeadError::OtherChannel));
    for (name, value) in [
        ("publicKey", ""),
        ("publicKey", "1"),
        ("sequence", ""),
        ("sequence", "-1"),
        ("sequence", "1.5"),
        ("sequence", "\"1\""),
        ("timestamp", ""),
        ("timestamp", "-1"),
        ("collections", ""),
        ("collections", "{}"),
        ("collections", "[1]"),
        ("collections", "[{}]"),
        ("collections", r#"[{"title":1,"items":[]}]"#),
        ("collections", r#"[{"items":["http://x"]}]"#),
        ("collections", r#"[{"items":[{"name":"../x","size":0,"chunks":[]}]}]"#),
        ("body", "{}"),
        ("body", "null"),
        ("body", "\"\""),
        ("encrypted", "true"),
    ] {
        assert!(matches!(with(name, value), Err(HeadError::Malformed(_))), "{name} {value}");
    }
    for text in ["", "{}", "[]", &"[".repeat(100_000), &"{\"a\":".repeat(100_000)] {
        assert!(matches!(read(text), Err(HeadError::Malformed(_))));
    }
    let text = v5_document(&good, false);
    let unsigned = text.split(",\"signature\"").next().expect("a first part").to_string() + "}";
    assert!(matches!(read(&unsigned), Err(HeadError::Malformed(_))));
    assert_eq!(read(&text.replace("\"sequence\":1", "\"sequence\":2")), Err(HeadError::Signature));
}

#[test]
fn an_item_and_its_head_agree_and_the_step_is_bounded() {
    let item = |seq: u64, inner: u64| {
        let text = Head::to_json(&author(), inner, 6, &HeadContent::Inline(vec![]), None);
        SignedItem::sign(&author(), i64::try_from(seq).expect("63 bits"), text.into_bytes()).expect("short")
    };
    let read = |item: &SignedItem, known: u64| Head::from_item(item, None, known).map(|head| head.sequence);
    for known in [0, 1, 1_700_000_000_000, SEQUENCE_SIGNED_MAX, i64::MAX.unsigned_abs() - SEQUENCE_STEP_MAX] {
        let most = known + SEQUENCE_STEP_MAX;
        assert_eq!(read(&item(most, most), known), Ok(most));
        if i64::try_from(most + 1).is_ok() {
            assert_eq!(read(&item(most + 1, most + 1), known), Err(HeadError::SequenceAhead));
        }
    }
    assert_eq!(read(&item(7, 7), u64::MAX), Ok(7));
    assert_eq!(read(&item(7, 8), 0), Err(HeadError::SequenceMismatch));
    assert_eq!(read(&SignedItem { seq: 8, ..item(7, 8) }, 0), Err(HeadError::Signature));
}

proptest! {
    #[test]
    fn any_order_of_members_verifies_signed_as_it_is_or_sorted(
        order in Just(["collections", "publicKey", "sequence", "timestamp", "x"]).prop_shuffle(),
        sign_sorted: bool,
        sequence in 0..=u64::MAX,
    ) {
        let key = format!("\"{}\"", author().public_key());
        let number = sequence.to_string();
        let value = |name: &str| match name {
            "collections" => "[]",
            "publicKey" => &key,
            "sequence" => &number,
            _ => "3",
        };
        let members: Vec<_> = order.iter().map(|name| (*name, value(name))).collect();
        let head = read(&v5_document(&members, sign_sorted)).expect("signed in an order that counts");
        prop_assert_eq!((head.sequence, head.timestamp_ms), (sequence, 3));
    }

    #[test]
    fn no_changed_head_says_anything_else(at in 0..2000_usize, bit in 0..8_u8, private: bool) {
        let seal = private.then_some((&READ_KEY, [4; 12]));
        let good = Head::to_json(&author(), 5, 6, &HeadContent::Body(tree(5, 0)), seal);
        let mut bytes = good.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= 1_u8 << bit;
        // A hex digit outside of a text may change its case, which does not change the signed meaning.
        if let Ok(head) = Head::from_json(&author().public_key(), Some(&READ_KEY), &bytes) {
            prop_assert_eq!(Ok(head), read(&good));
        }
    }
}

// --- entries and chunks -------------------------------------------------------------------------------------

#[test]
fn an_entry_round_trips_in_all_forms() {
    let slice = Slice { pack: 7, offset: 32, length: 9, key: Secret::new([3; 32]) };
    let extents = vec![Extent::Tree(tree(5, 0)), Extent::Slice(slice)];
    let hashed = FileEntry { blake3: Some([8; 32]), ..file("f", 14, Reference::Extents(extents)) };
    let others = [
        hashed,
        file("f", 0, Reference::Extents(Vec::new())),
        file("f", 0, Reference::Symlink("g".to_string())),
        file("f", 0, Reference::Folder),
    ];
    let files = collections().remove(0).items.into_iter().filter_map(|item| match item {
        Item::File(file) => Some(file),
        Item::Magnet(_) => None,
    });
    for file in files.chain(others) {
        assert_eq!(entry::from_json(entry::to_json(&file).as_bytes()), Ok(file));
    }
}

#[test]
fn only_a_native_data_blob_has_a_root_beside_its_id() {
    let native = |rest: &str| {
        let (id, key, root) = ("ab".repeat(32), "cd".repeat(32), "12".repeat(32));
        let chunk = format!(r#"{{"blobId":"{id}","key":"{key}","blake3":"{root}","realSize":5{rest}}}"#);
        v5_entry(5, &chunk)
    };
    let nonce = format!(r#","nonce":"{}""#, "00".repeat(12));
    let entry = native(&nonce).expect("a native blob");
    let Reference::Chunks(chunks) = entry.reference else { panic!("chunks") };
    assert_eq!(chunks[0].blob().map(|blob| blob.root), Some(Root([0x12; 32])));
    for bad in [
        nonce.replace("00", "01"),
        format!(r#"{nonce},"length":100"#),
        format!(r#"{nonce},"offset":16,"length":1048576"#),
        format!(r#"{nonce},"blake3":null"#),
    ] {
        assert!(matches!(native(&bad), Err(HeadError::Malformed(_))), "{bad}");
    }
}

fn v5_entry(size: u64, chunks: &str) -> Result<FileEntry, HeadError> {
    entry::from_json(format!(r#"{{"name":"f","size":{size},"chunks":[{chunks}]}}"#).as_bytes())
}

fn v5_chunk(rest: &str) -> String {
    let (id, key, nonce) = ("ab".repeat(32), "cd".repeat(32), "ef".repeat(12));
    format!(r#"{{"blobId":"{id}","key":"{key}","nonce":"{nonce}"{rest}}}"#)
}

#[test]
fn a_v5_entry_may_leave_out_what_is_usual() {
    let entry = v5_entry(5, &v5_chunk(r#","realSize":5"#)).expect("offset and length have defaults");
    let Reference::Chunks(chunks) = entry.reference else { panic!("a list of chunks") };
    assert_eq!((chunks[0].offset, chunks[0].length, chunks[0].real_size), (0, 1_048_592, 5));
    assert_eq!(v5_entry(0, "").map(|entry| entry.size), Ok(0));
}

#[test]
fn inconsistent_chunks_are_refused() {
    for (size, rest) in [
        (5, ""),
        (5, r#","realSize":4"#),
        (5, r#","realSize":6"#),
        (5, r#","realSize":5,"length":20"#),
        (0, r#","realSize":0,"length":16"#),
        (0, r#","realSize":0,"length":0"#),
        (5, r#","realSize":5,"offset":1"#),
        (5, r#","realSize":5,"offset":4294967295,"length":4294967295"#),
        (5, r#","realSize":5,"offset":4294967296"#),
        (5, r#","realSize":5,"offset":-1"#),
        (5, r#","realSize":5,"length":"100""#),
        (1_048_577, r#","realSize":1048577"#),
    ] {
        let result = v5_entry(size, &v5_chunk(rest));
        assert!(matches!(result, Err(HeadError::Malformed(_))), "{size} {rest}");
    }
    assert!(v5_entry(1 << 20, &v5_chunk(r#","realSize":1048576"#)).is_ok());
    assert!(v5_entry(84, &v5_chunk(r#","realSize":84,"length":100,"offset":1048492"#)).is_ok());
    for text in [
        "{}",
        r#"{"name":"f","size":0}"#,
        r#"{"name":"f","size":0,"chunks":[7]}"#,
        r#"{"name":"f","size":0,"chunks":[],"modified":"x"}"#,
    ] {
        assert!(matches!(entry::from_json(text.as_bytes()), Err(HeadError::Malformed(_))), "{text}");
    }
}

#[test]
fn a_tree_entry_has_its_trees_size_and_depth() {
    let good = entry::to_json(&file("f", 5, tree(5, 0).into()));
    assert!(entry::from_json(good.as_bytes()).is_ok());
    // The size of 5 and the depth of 0 are the first bytes of the tree.
    for (old, new) in
        [("AAAAAAAAAAUA", "AAAAAAAAAAUB"), ("AAAAAAAAAAUA", "AAAAAAAAAAYA"), ("size\":5", "size\":4")]
    {
        let changed = good.replacen(old, new, 1);
        assert_ne!(changed, good);
        assert!(matches!(entry::from_json(changed.as_bytes()), Err(HeadError::Malformed(_))), "{changed}");
    }
}

#[test]
fn a_tree_turns_into_v5s_chunks_that_open() {
    let contents = [vec![7; PLAIN_LEN], b"the rest".to_vec()];
    let mut blobs = Vec::new();
    let mut leaves = Vec::new();
    for content in &contents {
        let mut buf: Box<[u8; BLOB_LEN]> = vec![0; BLOB_LEN].try_into().expect("a blob's length");
        buf[..content.len()].copy_from_slice(content);
        let blob = blob::seal(&READ_KEY, &mut buf[..], content.len());
        let len = content.len() as u64;
        leaves.push(Node { blob, position: 0, height: 0, offset: 0, len, shape: Shape::REAL });
        blobs.push(buf);
    }
    let size = PLAIN_LEN as u64 + 8;
    let entry = file("f", size, tree(size, 1).into()).to_v5(&leaves).expect("it has a form");
    assert_eq!(entry::from_json(entry::to_json(&entry).as_bytes()).as_ref(), Ok(&entry));
    let Reference::Chunks(chunks) = &entry.reference else { panic!("a list of chunks") };
    for ((chunk, buf), content) in chunks.iter().zip(&mut blobs).zip(&contents) {
        let range = chunk.open(&mut buf[..]).expect("its own key");
        assert!(buf[range] == content[..]);
    }
    assert_eq!(entry.to_v5(&[]), Some(entry));
}

#[test]
fn a_chunk_opens_its_own_piece_only() {
    use chacha20poly1305::{ChaCha20Poly1305, KeyInit, aead::Aead};
    let mut blob = vec![0; BLOB_LEN];
    Rng::new([1; 32]).fill(&mut blob);
    let cipher = ChaCha20Poly1305::new(&[2; 32].into());
    let mut plain = b"content".to_vec();
    plain.resize(144, 0);
    blob[32..192].copy_from_slice(&cipher.encrypt(&[3; 12].into(), &*plain).expect("it seals"));
    let whole = blob.clone();
    let range = slice(7).open(&mut blob).expect("the right key");
    assert_eq!(&blob[range], b"content");

    let bad = [
        Chunk { offset: 16, ..slice(7) },
        Chunk { length: 144, ..slice(7) },
        Chunk { length: 8, ..slice(0) },
        Chunk { real_size: 145, ..slice(7) },
        Chunk { offset: u32::MAX, length: u32::MAX, ..slice(7) },
        Chunk { key: Secret::new([4; 32]), ..slice(7) },
    ];
    for chunk in bad {
        let mut blob = whole.clone();
        assert_eq!(chunk.open(&mut blob), None, "{chunk:?}");
        assert!(blob == whole);
    }
    assert_eq!(slice(7).open(&mut whole.clone()[..100]), None, "a short blob");
}

#[test]
fn paths_that_clash_are_refused() {
    let channel = |paths: &[&str]| {
        let one = |path: &&str| Collection {
            title: String::new(),
            items: vec![Item::File(file(path, 7, Reference::Chunks(vec![slice(7)])))],
        };
        Manifest { collections: paths.iter().map(one).collect(), ..Manifest::default() }
    };
    for (paths, good) in [
        (&["a.txt", "a/b", "a/c", "b"][..], true),
        (&["a", "a"], false),
        (&["a/b/c", "a.txt", "a"], false),
        (&["a/b", "a/b/c"], false),
    ] {
        assert_eq!(channel(paths).check().is_ok(), good, "{paths:?}");
        let mut items: Vec<Item> = channel(paths).collections.into_iter().flat_map(|one| one.items).collect();
        items.sort_by(|a, b| a.name().cmp(b.name()));
        assert_eq!(Page::from_cbor(&Page { items }.to_cbor()).is_ok(), good, "{paths:?}");
        let head = Head::to_json(&author(), 1, 1, &HeadContent::Inline(channel(paths).collections), None);
        assert_eq!(read(&head).is_ok(), good, "{paths:?}");
    }
}

fn any_file() -> impl Strategy<Value = FileEntry> {
    let chunk = (0..=144_u32, any::<bool>()).prop_map(|(size, is_native)| {
        let native = Chunk::from_ref(&tree(5, 0).blob, BlobId([9; 32]), size);
        if is_native { native } else { slice(size) }
    });
    let chunks = proptest::collection::vec(chunk, 0..4);
    ("d[a-z]{0,7}/[a-zé]{9,20}", chunks, any::<Option<u64>>(), any::<bool>()).prop_map(
        |(path, chunks, modified_ms, executable)| {
            let path = EntryPath::new(&path).expect("letters only");
            let size = chunks.iter().map(|chunk| u64::from(chunk.real_size)).sum();
            let reference = Reference::Chunks(chunks);
            FileEntry { path, size, modified_ms, executable, reference, blake3: None }
        },
    )
}

fn any_manifest() -> impl Strategy<Value = Manifest> {
    let item = prop_oneof![
        any_file().prop_map(Item::File),
        "[a-z0-9:&=]{0,40}".prop_map(|rest| Item::Magnet(format!("magnet:?{rest}"))),
    ];
    let items = proptest::collection::vec(item, 0..5);
    let collection = (".{0,20}", items).prop_map(|(title, items)| Collection { title, items });
    proptest::collection::vec(collection, 0..4)
        .prop_map(|collections| Manifest { collections, ..Manifest::default() })
        .prop_filter("paths do not clash", |manifest| manifest.check().is_ok())
}

proptest! {
    #[test]
    fn any_inline_content_round_trips(manifest in any_manifest()) {
        let inline = HeadContent::Inline(manifest.collections);
        for seal in [None, Some((&READ_KEY, [4; 12]))] {
            let head = read(&Head::to_json(&author(), 5, 6, &inline, seal)).expect("our own head");
            prop_assert_eq!(&head.content, &inline);
        }
    }
}

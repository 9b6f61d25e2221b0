//! Bodies and pages (`docs/protocol.md` §5).

use megatorrent_core::blob::BlobRef;
use megatorrent_core::ids::{BlobId, Root, Secret};
use megatorrent_core::limits;
use megatorrent_core::manifest::{
    Body, BodyCollection, BodyError, Chunk, EntryPath, Extent, FileEntry, Item, Page, PageRef, Reference,
    Slice,
};
use megatorrent_core::tree::TreeRef;

fn hex(bytes: &[u8]) -> String {
    base16ct::lower::encode_string(bytes)
}

fn tree(size: u64, depth: u8) -> TreeRef {
    let blob = BlobRef { root: Root([0xab; 32]), key: Secret::new([0xcd; 32]) };
    TreeRef::new(size, depth, blob).expect("a canonical depth")
}

fn file(path: &str, size: u64, reference: Reference) -> FileEntry {
    let path = EntryPath::new(path).expect("a good path");
    FileEntry { path, size, modified_ms: None, executable: false, reference, blake3: None }
}

fn slice(real_size: u32) -> Chunk {
    let (id, key) = (BlobId([1; 32]), Secret::new([2; 32]));
    Chunk { id, root: None, offset: 32, length: 160, key, nonce: [3; 12], real_size }
}

fn body(hex: &str) -> Result<Body, BodyError> {
    Body::from_cbor(&base16ct::lower::decode_vec(hex.replace(' ', "")).expect("the test's hex is good"))
}

fn page(items: Vec<Item>) -> Page {
    Page { items }
}

/// What is changed of a body.
type Change<'a> = &'a dyn Fn(&mut Body);

fn described() -> Body {
    let page = |first: &str, size: u64| {
        let tree = TreeRef::new(size, 0, tree(5, 0).blob).expect("one blob");
        PageRef { tree, first: first.to_string(), items: 3, blobs: 7 }
    };
    let pages = vec![page("a/b", 9), page("c", 10)];
    Body {
        title: "Channel".to_string(),
        description: "All of it".to_string(),
        collections: vec![BodyCollection { title: "Files".to_string(), pages }],
        packs: [(1, Root([7; 32])), (300, Root([8; 32]))].into(),
        ids: Some(TreeRef::new(32 * 19, 0, tree(5, 0).blob).expect("one blob")),
        bytes: 99,
    }
}

#[test]
fn a_body_and_a_page_are_deterministic_cbor() {
    insta::assert_snapshot!(hex(&Body::default().to_cbor()), @"a10002");
    insta::assert_snapshot!(hex(&described().to_cbor()), @"a7000201674368616e6e656c0269416c6c206f662069740381a2016546696c65730282845849000000000000000900ababababababababababababababababababababababababababababababababcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd63612f620307845849000000000000000a00ababababababababababababababababababababababababababababababababcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd6163030704a2015820070707070707070707070707070707070707070707070707070707070707070719012c58200808080808080808080808080808080808080808080808080808080808080808065849000000000000026000ababababababababababababababababababababababababababababababababcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd0b82186306");
    let slice_of_pack = Slice { pack: 300, offset: 32, length: 9, key: Secret::new([5; 32]) };
    let extents = vec![Extent::Tree(tree(5, 0)), Extent::Slice(slice_of_pack)];
    let run = FileEntry {
        modified_ms: Some(1_700_000_000_000),
        executable: true,
        blake3: Some([8; 32]),
        ..file("bin/run", 14, Reference::Extents(extents))
    };
    let files = [
        run,
        file("empty", 0, Reference::Extents(Vec::new())),
        file("folder", 0, Reference::Folder),
        file("link", 0, Reference::Symlink("bin/run".to_string())),
        file("small.txt", 7, Reference::Chunks(vec![slice(7)])),
    ];
    let mut items: Vec<Item> = files.into_iter().map(Item::File).collect();
    items.insert(4, Item::Magnet("magnet:?xt=urn:btih:00".to_string()));
    insta::assert_snapshot!(hex(&page(items.clone()).to_cbor()), @"86a6016762696e2f72756e020e031b0000018bcfe5680004f505825849000000000000000500ababababababababababababababababababababababababababababababababcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd8419012c182009582005050505050505050505050505050505050505050505050505050505050505050a58200808080808080808080808080808080808080808080808080808080808080808a20165656d7074790200a20166666f6c64657209f5a201646c696e6b086762696e2f72756e766d61676e65743a3f78743d75726e3a627469683a3030a30169736d616c6c2e747874020706818658200101010101010101010101010101010101010101010101010101010101010101182018a0582002020202020202020202020202020202020202020202020202020202020202024c03030303030303030303030307");
    for body in [described(), Body::default()] {
        assert_eq!(Body::from_cbor(&body.to_cbor()), Ok(body));
    }
    assert_eq!(Page::from_cbor(&page(items.clone()).to_cbor()), Ok(page(items)));
}

#[test]
fn a_general_reader_agrees_with_the_body() {
    let value: ciborium::Value = ciborium::from_reader(&*described().to_cbor()).expect("it is CBOR");
    let members = value.as_map().expect("a map");
    assert_eq!((members.len(), members[1].1.as_text()), (7, Some("Channel")));
    let mut again = Vec::new();
    ciborium::into_writer(&value, &mut again).expect("it is written");
    assert_eq!(again, described().to_cbor());
}

#[test]
fn what_is_not_deterministic_is_refused() {
    assert!(body("a2 0002 0961 61").is_ok(), "an unknown key is skipped");
    assert!(body("a3 0002 0500 0700").is_ok(), "reserved keys too");
    for (bad, what) in [
        ("", "nothing"),
        ("a0", "no format"),
        ("a1 0001", "another format"),
        ("a1 001802", "a long number"),
        ("b8010002", "a long length"),
        ("bf0002ff", "an indefinite map"),
        ("a2 0002 00 02", "a repeated key"),
        ("a2 016161 0002", "keys that do not ascend"),
        ("a2 0002 0160", "an empty title"),
        ("a2 0002 0380", "an empty array"),
        ("a2 0002 04a0", "an empty table"),
        ("a2 0002 0181 00", "a title that is no text"),
        ("a2 0002 0161ff", "a text that is no UTF-8"),
        ("a2 0002 6161 01", "a text as key"),
        ("a2 0002 097f6161ff", "an indefinite text in what is skipped"),
        ("a2 0002 09a2 00000000", "repeated keys in what is skipped"),
        ("a2 0002 09fb3ff8000000000000", "a long float in what is skipped"),
        ("a2 0002 09f818", "a simple value that is not well-formed"),
        ("a2 0002 0981", "a missing value"),
        ("a2 0002 095bffffffffffffffff", "a length beyond the end"),
        ("a2 0002 039bffffffffffffffff", "a count beyond the end"),
        ("a2 0002 0b820000", "sums of nothing"),
        ("a2 0002 0b820001", "an item that no page has"),
        ("a2 0002 0b8100", "sums that are one number"),
    ] {
        assert!(matches!(body(bad), Err(BodyError::Malformed(_))), "{what}");
    }
    let deep = |n: usize| [vec![0xa2, 0, 2, 9], vec![0x81; n], vec![0]].concat();
    assert!(Body::from_cbor(&deep(limits::CBOR_DEPTH_MAX - 1)).is_ok());
    assert!(matches!(Body::from_cbor(&deep(limits::CBOR_DEPTH_MAX)), Err(BodyError::Malformed(_))));
    assert!(matches!(Body::from_cbor(&deep(1_000_000)), Err(BodyError::Malformed(_))));
}

#[test]
fn a_body_that_breaks_a_rule_is_refused() {
    let change = |change: Change<'_>| {
        let mut body = described();
        change(&mut body);
        Body::from_cbor(&body.to_cbor())
    };
    assert!(change(&|_| {}).is_ok());
    let sized = |body: &mut Body, size: u64| {
        body.collections[0].pages[0].tree = TreeRef::new(size, 0, tree(5, 0).blob).expect("one blob");
    };
    assert!(change(&|body| sized(body, limits::PAGE_LEN_MAX as u64)).is_ok());
    assert!(change(&|body| body.bytes = limits::CONTENT_BYTES_MAX).is_ok());
    let cases: [(&str, Change<'_>); 10] = [
        ("a page that is too long", &|body| sized(body, limits::PAGE_LEN_MAX as u64 + 1)),
        ("an empty page", &|body| body.collections[0].pages[0].items = 0),
        ("a page of too many items", &|body| {
            body.collections[0].pages[0].items = u32::try_from(limits::PAGE_ITEMS_MAX).expect("it fits") + 1;
        }),
        ("pages that do not ascend", &|body| body.collections[0].pages.swap(0, 1)),
        ("pages of one first name", &|body| body.collections[0].pages[1].first = "a/b".to_string()),
        ("no name", &|body| body.collections[0].pages[0].first = "../a".to_string()),
        ("an id too few", &|body| {
            body.ids = Some(TreeRef::new(32 * 18, 0, tree(5, 0).blob).expect("one blob"));
        }),
        ("blobs that no id is of", &|body| body.collections[0].pages[1].blobs += 1),
        ("blobs beyond all numbers", &|body| body.collections[0].pages[1].blobs = u64::MAX),
        ("too many bytes", &|body| body.bytes = limits::CONTENT_BYTES_MAX + 1),
    ];
    for (what, case) in cases {
        assert!(matches!(change(case), Err(BodyError::Malformed(_))), "{what}");
    }
}

#[test]
fn a_body_beyond_a_limit_is_refused() {
    assert_eq!(Body::from_cbor(&vec![0; (8 << 20) + 1]), Err(BodyError::TooLarge));
    let titled = |n| Body { title: "x".repeat(n), ..Body::default() };
    let described = |n| Body { description: "x".repeat(n), ..Body::default() };
    let headed = |n| {
        let collection = BodyCollection { title: "x".repeat(n), pages: vec![] };
        Body { collections: vec![collection], ..Body::default() }
    };
    let divided = |n| Body { collections: vec![BodyCollection::default(); n], ..Body::default() };
    let packed = |n: usize| {
        let packs = (0..u32::try_from(n).expect("it fits")).map(|number| (number, Root([1; 32])));
        Body { packs: packs.collect(), ..Body::default() }
    };
    let make: [(&dyn Fn(usize) -> Body, usize); 5] = [
        (&titled, limits::TITLE_LEN_MAX),
        (&described, limits::DESCRIPTION_LEN_MAX),
        (&headed, limits::TITLE_LEN_MAX),
        (&divided, limits::COLLECTIONS_MAX),
        (&packed, limits::PACKS_MAX),
    ];
    for (index, (make, limit)) in make.into_iter().enumerate() {
        assert!(Body::from_cbor(&make(limit).to_cbor()).is_ok(), "{index}");
        let bad = Body::from_cbor(&make(limit + 1).to_cbor());
        assert!(matches!(bad, Err(BodyError::Malformed(_))), "{index}");
    }
    let chunked = |n| page(vec![Item::File(file("a", 0, Reference::Chunks(vec![slice(0); n])))]);
    let sliced = |n: usize| {
        let slice = Slice { pack: 1, offset: 0, length: 1, key: Secret::new([1; 32]) };
        page(vec![Item::File(file("a", n as u64, Reference::Extents(vec![Extent::Slice(slice); n])))])
    };
    assert!(Page::from_cbor(&chunked(1000).to_cbor()).is_ok());
    assert!(Page::from_cbor(&chunked(limits::PAGE_LEN_MAX / 64).to_cbor()).is_err(), "it is too long");
    assert!(Page::from_cbor(&sliced(limits::EXTENTS_MAX).to_cbor()).is_ok());
    assert!(Page::from_cbor(&sliced(limits::EXTENTS_MAX + 1).to_cbor()).is_err());
    assert!(Page::from_cbor(&page(vec![]).to_cbor()).is_err());
}

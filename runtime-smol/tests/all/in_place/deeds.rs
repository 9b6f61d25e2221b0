//! What users do to files, and files that stand there before.

use super::*;

#[test]
fn a_file_that_was_touched_meanwhile_counts_as_far_as_it_comes_out_right() {
    let reader = Reader::new(2 * PLAIN_LEN);
    reader.begin();
    reader.bring_all();
    reader.export().expect("it is all there");
    // As long and as old as it was.
    let path = reader.out().join("dir/film");
    let times = fs::metadata(&path).expect("there").modified().expect("known");
    write_at(&path, PLAIN_LEN as u64, &[0; 4096]);
    OpenOptions::new().write(true).open(&path).expect("opens").set_modified(times).expect("set");
    let reader = reader.again();
    let whole: Vec<bool> =
        reader.blobs.iter().map(|(blob, _)| reader.home.store.has(&blob.root.into())).collect();
    assert_eq!(whole, [true, false]);
    assert_eq!(served(&reader.home.store, &reader.blobs)[1], Mask::ALL - Mask::one(0));
}

#[test]
fn a_file_under_way_that_is_deleted_is_begun_anew() {
    let reader = Reader::new(2 * PLAIN_LEN);
    reader.begin();
    for part in 0..PARTS {
        assert_eq!(reader.bring(0, part), Written::Stored);
    }
    assert_eq!(reader.finish(0), Ok(vec![true]));
    let working = reader.listing().pop().expect("it is under way");
    fs::remove_file(reader.out().join("dir").join(&working)).expect("removed");
    assert_eq!(reader.bring(1, 0), Written::Stored);
    assert!(!reader.listing().contains(&working) && reader.listing().len() == 1);
    let names = [0, 1].map(|n| BlobName::Native(reader.blobs[n].0.root));
    assert_eq!(reader.home.store.held(&names[0]), Held::Nothing);
    assert!(matches!(reader.export(), Err(ExportError::Missing(name)) if name == names[0]));
    reader.bring_all();
    assert_eq!(reader.export().expect("it is all there"), Exported::Written);
    reader.assert_equal();
    assert_eq!((reader.listing(), reader.stored()), (vec!["film".to_owned()], 0));
}

#[test]
fn what_is_under_way_of_a_file_that_a_version_does_not_have_is_removed() {
    let reader = Reader::new(PLAIN_LEN);
    let empty = || Plan::new(Arc::new(Manifest::default()), reader.out());
    reader.begin();
    assert_eq!(reader.bring(0, 0), Written::Stored);
    // Another channel has the same folder.
    reader.home.store.begin_outputs(Topic([8; 32]), 1, empty());
    assert_eq!(reader.listing().len(), 1);
    // So has the same channel, which says the same of the file.
    reader.home.store.begin_outputs(TOPIC, 2, Plan::new(reader.manifest.clone(), reader.out()));
    assert_eq!(reader.listing().len(), 1);
    reader.home.store.begin_outputs(TOPIC, 3, empty());
    assert_eq!(reader.listing(), Vec::<String>::new());
    assert_eq!(fs::read_dir(reader.world.path("reader/held")).expect("listed").count(), 0);
}

#[test]
fn a_blob_is_put_together_of_what_a_file_has_left_and_what_came() {
    let reader = Reader::new(PLAIN_LEN + 100_000);
    reader.begin();
    reader.bring_all();
    reader.export().expect("it is all there");
    let path = reader.out().join("dir/film");
    write_at(&path, 3 * PART_LEN as u64, b"the user's own words");
    assert_eq!(served(&reader.home.store, &reader.blobs)[0], Mask::ALL - Mask::one(3));
    assert_eq!(reader.bring(0, 3), Written::Stored);
    assert_eq!(reader.finish(0), Ok(vec![true]));
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL; 2]);
}

#[test]
fn a_file_that_stands_there_is_held_blob_by_blob_and_is_the_channels_where_all_are() {
    let reader = Reader::new(2 * PLAIN_LEN + 100);
    fs::create_dir_all(reader.out().join("dir")).expect("made");
    let path = reader.out().join("dir/film");
    fs::copy(reader.world.path("film"), &path).expect("copied");
    assert_eq!(reader.held(0), Held::Nothing, "nobody said where it stands");
    reader.begin();
    assert_eq!([0, 1, 2].map(|n| reader.held(n)), [Held::Whole, Held::Whole, Held::Whole]);
    assert_eq!(reader.home.store.looked_at_bytes(), 2 * PLAIN_LEN as u64 + 100);
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL; 3]);
    assert_eq!(reader.export().expect("it is there"), Exported::AlreadyThere);
    assert_eq!((reader.listing(), reader.stored()), (vec!["film".to_owned()], 0));
    assert_eq!(fs::read_dir(reader.world.path("reader/held")).expect("listed").count(), 1);

    let reader = Reader::new(2 * PLAIN_LEN);
    fs::create_dir_all(reader.out().join("dir")).expect("made");
    let path = reader.out().join("dir/film");
    fs::copy(reader.world.path("film"), &path).expect("copied");
    write_at(&path, 9, b"the user's");
    let mine = fs::read(&path).expect("readable");
    reader.begin();
    assert_eq!([0, 1].map(|n| reader.held(n)), [Held::Nothing, Held::Whole]);
    reader.bring_all();
    assert!(matches!(reader.export(), Err(ExportError::Exists(_))));
    assert!(matches!(reader.export_as(true), Err(ExportError::Exists(_))), "it never was ours");
    assert!(fs::read(&path).expect("readable") == mine);
}

#[test]
fn what_is_restored_is_kept_beside_where_a_user_wrote_to_it() {
    let mut reader = Reader::new(PLAIN_LEN + 100);
    reader.begin();
    reader.bring_all();
    reader.export().expect("it is all there");
    let path = reader.out().join("dir/film");
    // Spoilt by the disk: nothing tells but the bytes.
    let times = fs::metadata(&path).expect("there").modified().expect("known");
    for (edit, names) in [
        (false, &["film"][..]),
        (true, &["film", "film.edited"]),
        (true, &["film", "film.edited", "film.edited-2"]),
    ] {
        write_at(&path, 70_000, b"others");
        if !edit {
            OpenOptions::new().write(true).open(&path).expect("opens").set_modified(times).expect("set");
        }
        reader = reader.again();
        assert_eq!(served(&reader.home.store, &reader.blobs)[0], Mask::ALL - Mask::one(1));
        let plan = Plan::new(reader.manifest.clone(), reader.out());
        reader.home.store.begin_outputs(TOPIC, 1, plan.restoring(edit.then_some(0).into_iter().collect()));
        assert_eq!((reader.bring(0, 1), reader.finish(0)), (Written::Stored, Ok(vec![true])));
        match reader.export_as(true).expect("written") {
            Exported::Written => assert!(!edit),
            Exported::SetAside(aside) => {
                assert!(edit && fs::read(aside).expect("readable")[70_000..].starts_with(b"others"));
            }
            Exported::AlreadyThere => panic!("it is damaged"),
        }
        reader.assert_equal();
        let mut listing = reader.listing();
        listing.sort();
        assert_eq!(
            (&listing[..], reader.stored()),
            (&names.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>()[..], 0)
        );
        assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL; 2]);
    }
}

#[test]
fn a_file_that_was_synced_behind_is_believed_in_another_boot() {
    let reader = Reader::new(PLAIN_LEN);
    reader.home.store.sync_behind();
    reader.begin();
    reader.bring_all();
    assert_eq!(reader.export().expect("it is all there"), Exported::Written);
    let table =
        fs::read_dir(reader.world.path("reader/held")).expect("listed").next().expect("one").expect("listed");
    // The headers of a table hold JSON.
    let is_final = || {
        let bytes = fs::read(table.path()).expect("readable");
        String::from_utf8_lossy(&bytes[..32 * 1024]).contains("\"boot\":null")
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !is_final() {
        assert!(std::time::Instant::now() < deadline, "it reaches the disk");
        std::thread::sleep(std::time::Duration::from_millis(5)); // nothing tells of it
    }
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL]);
}

#[test]
fn a_copy_that_shares_its_bytes_is_made_or_leaves_nothing() {
    let world = World::new();
    let path = world.file("film", PLAIN_LEN);
    let store = world.store("home");
    let file = File::open(&path).expect("opens");
    match store.share(&file).expect("the folder takes it") {
        Some(copy) => {
            let extents = hold(&store, &copy).expect("held");
            fs::remove_file(&path).expect("removed");
            assert_eq!(served(&store, &blobs(&extents, &store)), [Mask::ALL]);
        }
        None => assert!(!world.path("home/copies").exists()),
    }
}

//! What cannot be read, or is not what it was.

use megatorrent_runtime_smol::survey::Survey;

use super::*;

#[test]
fn what_a_file_has_lost_comes_again_and_is_not_written_over_what_the_user_did() {
    let reader = Reader::new(PLAIN_LEN);
    reader.begin();
    reader.bring_all();
    reader.export().expect("it is all there");
    let path = reader.out().join("dir/film");
    write_at(&path, 100, b"the user's own words");
    let mut edited = fs::read(&path).expect("there");
    let left = Mask::ALL - Mask::one(0);
    assert_eq!(served(&reader.home.store, &reader.blobs), [left]);
    reader.bring_all();
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL]);
    assert_eq!(fs::read(&path).expect("there"), std::mem::take(&mut edited));
}

/// The disk has changed bytes, and nothing says that anybody has touched the file: its times are set back, as only the owner of the
/// table could.
fn rot(reader: &Reader, at: u64) {
    let path = reader.out().join("dir/film");
    write_at(&path, at, b"rotten");
    reader.home.store.forget_touch(&path);
}

#[test]
fn what_the_disk_has_spoilt_is_written_again_where_nobody_has_touched_the_file() {
    let reader = Reader::new(2 * PLAIN_LEN);
    reader.begin();
    reader.bring_all();
    reader.export().expect("it is all there");
    rot(&reader, 3 * PART_LEN as u64 + 5);
    let lacks = Mask::ALL - Mask::one(3);
    assert_eq!(served(&reader.home.store, &reader.blobs), [lacks, Mask::ALL]);
    assert_eq!(reader.bring(0, 3), Written::Stored);
    assert_eq!(reader.finish(0), Ok(vec![true]));
    reader.assert_equal();
    assert_eq!((served(&reader.home.store, &reader.blobs), reader.stored()), (vec![Mask::ALL; 2], 0));
    assert_eq!(reader.export().expect("known"), Exported::AlreadyThere);
    let reader = reader.again();
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL; 2]);
}

#[test]
fn one_part_of_a_file_that_was_edited_comes_again_and_makes_its_blob_whole() {
    let reader = Reader::new(PLAIN_LEN);
    reader.begin();
    reader.bring_all();
    reader.export().expect("it is all there");
    write_at(&reader.out().join("dir/film"), 100, b"the user's own words");
    assert_eq!(served(&reader.home.store, &reader.blobs), [Mask::ALL - Mask::one(0)]);
    assert_eq!(reader.bring(0, 0), Written::Stored);
    assert_eq!(reader.finish(0), Ok(vec![true]), "the author is not to blame");
    assert_eq!((served(&reader.home.store, &reader.blobs), reader.stored()), (vec![Mask::ALL], 1));
}

#[test]
fn a_file_whose_folder_is_away_is_out_of_reach_and_one_that_was_deleted_is_gone() {
    let world = World::new();
    fs::create_dir(world.path("disk")).expect("made");
    let path = world.file("disk/film", 2 * PLAIN_LEN);
    let extents = hold(&world.store("home"), &path).expect("held");
    let store = world.store("home");
    let all = blobs(&extents, &store);
    let name = BlobName::Native(all[0].0.root);
    fs::rename(world.path("disk"), world.path("unplugged")).expect("renamed");
    assert_eq!((store.held(&name), served(&store, &all)), (Held::OutOfReach, vec![Mask::NONE; 2]));
    // An empty mount point.
    fs::create_dir(world.path("disk")).expect("made");
    store.try_losses_again();
    assert_eq!(store.held(&name), Held::OutOfReach);
    fs::remove_dir(world.path("disk")).expect("removed");
    fs::rename(world.path("unplugged"), world.path("disk")).expect("renamed");
    store.try_losses_again();
    assert_eq!((store.held(&name), served(&store, &all)), (Held::Whole, vec![Mask::ALL; 2]));
    drop(store);
    fs::remove_file(&path).expect("removed");
    let store = world.store("home");
    assert_eq!(store.held(&name), Held::Nothing);
}

#[test]
fn a_home_that_is_away_makes_nothing_where_it_was_and_serves_when_it_is_back() {
    let world = World::new();
    let path = world.file("film", 2 * PLAIN_LEN);
    let store = world.store("home");
    let file = File::open(&path).expect("opens");
    let extents = ingest(file, &store, &secret(), 1, &|_| {}, &AtomicBool::new(false)).expect("stored");
    let all = blobs(&extents, &store);
    let (name, mut blob) = (BlobName::Native(all[0].0.root), vec![0; BLOB_LEN]);
    assert!(store.read(&name, &mut blob).expect("readable"));
    for is_mount_point_left in [false, true] {
        fs::rename(world.path("home"), world.path("unplugged")).expect("renamed");
        if is_mount_point_left {
            fs::create_dir(world.path("home")).expect("made");
        }
        assert_eq!((store.held(&name), served(&store, &all)), (Held::OutOfReach, vec![Mask::NONE; 2]));
        let (root, other) = (Root([7; 32]), Values::of(&blob));
        assert!(store.write(&BlobName::Native(root), &blob).is_err());
        let mut part = blob[..PART_LEN].to_vec();
        assert_eq!(store.write_part(&root, 0, &other, &mut part, None), Written::Failed);
        assert!(hold(&store, &path).is_err());
        if is_mount_point_left {
            assert_eq!(fs::read_dir(world.path("home")).expect("listed").count(), 0);
            fs::remove_dir(world.path("home")).expect("removed");
        }
        assert!(!world.path("home").exists());
        fs::rename(world.path("unplugged"), world.path("home")).expect("renamed");
        store.try_losses_again();
        assert_eq!((store.held(&name), served(&store, &all)), (Held::Whole, vec![Mask::ALL; 2]));
    }
    hold(&store, &path).expect("held");
}

#[test]
fn a_folder_that_is_no_nodes_is_refused_and_an_output_folder_that_had_files_is_not_made_again() {
    let world = World::new();
    fs::create_dir(world.path("mount")).expect("made");
    let refused = Home::open(&world.path("mount")).expect_err("it is empty");
    assert!(matches!(refused, HomeError::NotANode(_)) && refused.to_string().contains("--new"), "{refused}");
    assert!(matches!(Home::blobs_only(&world.path("mount")), Err(HomeError::NotANode(_))));
    assert_eq!(fs::read_dir(world.path("mount")).expect("listed").count(), 0);
    home::make(&world.path("mount")).expect("made");
    home::make(&world.path("mount")).expect("it is one");
    drop(Home::open(&world.path("mount")).expect("opens"));

    let reader = Reader::new(PLAIN_LEN);
    reader.begin();
    reader.bring_all();
    reader.export().expect("it is all there");
    fs::rename(reader.out(), reader.world.path("unplugged")).expect("renamed");
    let plan = || Plan::new(reader.manifest.clone(), reader.out());
    let check = || plan().check(&reader.home.store, &reader.home.state, &BTreeSet::new());
    assert!(matches!(check(), Err(ExportError::OutputAbsent(_))));
    assert!(matches!(reader.export(), Err(ExportError::OutputAbsent(_))));
    assert!(!reader.out().exists());
    fs::create_dir(reader.out()).expect("made");
    assert!(matches!(reader.export(), Err(ExportError::OutputAbsent(_))), "an empty mount point");
    fs::remove_dir(reader.out()).expect("removed");
    fs::rename(reader.world.path("unplugged"), reader.out()).expect("renamed");
    assert_eq!(reader.export().expect("it is back"), Exported::AlreadyThere);
    fs::remove_dir_all(reader.out()).expect("removed");
    let forget = || forget_output(&reader.home.store, &reader.home.state, &reader.out()).expect("forgotten");
    assert!(forget());
    check().expect("it is made anew");
    let survey = Survey { store: &reader.home.store, state: &reader.home.state, out_dir: &reader.out() };
    assert!(survey.is_new().expect("it is looked at"), "nothing that was in it counts as deleted");
    assert!(!forget(), "one that is in use is left as it is");
}

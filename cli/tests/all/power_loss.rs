//! The power goes while a command writes: after each thing that it did to its files, what was not synced is lost, all of it or
//! some, and the machine comes up with another boot id. Nothing wrong is claimed, nothing panics, and the same command completes.
//!
//! `strace` records what a command does, and gives the next one another boot id; where it cannot, these tests say so and check
//! nothing. The usual run tries a sample, `--ignored` (`scripts/soak`) every state.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall fail where it stands")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::disk::{self, Loss, Record};
use crate::support::{MIB, Swarm, blobs, megatorrent, ok, run, serve, stderr, strace, subscribe_args};
use megatorrent_core::ids::{BlobName, Root};
use megatorrent_core::node::Held;
use megatorrent_core::parts::{Mask, PART_LEN, PARTS};
use megatorrent_runtime_smol::home::Home;

/// States of each command in the usual run.
const SAMPLE: usize = 24;
/// The boot that wrote what is found after the cut, where this process opens it.
const OTHER_BOOT: &str = "00000000-0000-4000-8000-000000000000";

/// Runs a command under `strace` with further options of its.
fn traced(folder: &Path, options: &[&str], args: &[String]) -> Output {
    let program = megatorrent();
    let mut command = Command::new("strace");
    command.args(["-f", "-q"]).args(options).arg(program.get_program()).args(args);
    for (name, _) in program.get_envs() {
        command.env_remove(name);
    }
    command.current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

/// Runs a command to its end, and keeps what it does to the folders.
fn recorded(swarm: &Swarm, folders: &[PathBuf], args: &[String]) -> Record {
    let mut record = Record::begin(folders);
    let log = swarm.join("log");
    let trace = format!("trace={}", disk::CALLS);
    let output = traced(
        swarm.path(),
        &["-y", "-xx", "-s", "2200000", "-e", &trace, "-o", log.to_str().unwrap()],
        args,
    );
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    record.read(&log);
    assert!(record.len() > 20, "{} things were recorded", record.len());
    record
}

/// Runs a command to its end in another boot.
fn in_other_boot(swarm: &Swarm, args: &[String]) -> Result<Output, String> {
    let boot = [
        "-P",
        "/proc/sys/kernel/random/boot_id",
        "-e",
        "inject=read:poke_exit=@arg2=6161616161616161",
        "-o",
        "/dev/null",
    ];
    let output = traced(swarm.path(), &boot, args);
    let said = stderr(&output);
    if output.status.code() == Some(0) && !said.contains("panicked") { Ok(output) } else { Err(said) }
}

/// A command's folders, and what must hold after a cut.
struct Subject<'a> {
    name: &'static str,
    home: PathBuf,
    record: Record,
    /// The blobs that there are.
    roots: BTreeSet<Root>,
    /// Goes on in another boot.
    again: &'a dyn Fn() -> Result<(), String>,
}

fn cut_everywhere(subject: &Subject<'_>, every: bool) {
    // A sample meets the same states each time; scripts/soak meets all, and loses other pages each time.
    let seed = if every { u64::from(std::process::id()) } else { 1 };
    let losses = [Loss::All, Loss::Pages, Loss::Some(seed), Loss::Some(seed + 1), Loss::Nothing];
    let all = (0..subject.record.len()).flat_map(|cut| losses.map(|loss| (cut, loss)));
    let count = subject.record.len() * losses.len();
    // One that meets each loss in turn.
    let step = if every { 1 } else { count.div_ceil(SAMPLE) / losses.len() * losses.len() + 1 };
    let (mut tried, mut failed) = (0, 0);
    for (cut, loss) in all.skip(usize::try_from(seed).unwrap() % step).step_by(step) {
        tried += 1;
        if let Err(why) = cut_once(subject, cut, loss) {
            failed += 1;
            eprintln!("{}: {loss:?} lost after {cut}, {}: {why}", subject.name, subject.record.last(cut));
        }
    }
    eprintln!("{}: {tried} of {count} states, {failed} failed (seed {seed})", subject.name);
    assert_eq!(failed, 0, "{}: {failed} of {tried} states failed (seed {seed})", subject.name);
}

/// States of a subscribe that went wrong once, whatever a sample meets.
fn cut_where_it_went_wrong(subject: &Subject<'_>, is_in_place: bool) {
    type Came = fn(&Path, usize) -> bool;
    const HEADERS: [usize; 2] = [0, 4];
    fn is_table(path: &Path) -> bool {
        path.parent().is_some_and(|folder| folder.ends_with("held"))
    }
    let record = &subject.record;
    let named = record.named("film");
    let mut states: Vec<(&str, usize, usize, Came)> = vec![
        ("the film has its name, and nothing else came", named, named, |_, _| false),
        ("the film has its name, half of it came, and no table", named, named, |path, page| {
            !is_table(path) && page % 2 == 0
        }),
    ];
    if is_in_place {
        let told = record.written_below("held", named);
        let in_place: [(&str, usize, usize, Came); 5] = [
            ("half a film, and the table from when it was begun", named, named, |path, page| {
                if is_table(path) { page == HEADERS[1] } else { page % 2 == 0 }
            }),
            ("a torn film, and the table from before it had its name", named, named, |path, page| {
                is_table(path) && page == HEADERS[0]
            }),
            ("a torn film, and the table from when it had its name", told, told, |path, page| {
                page == if is_table(path) { HEADERS[1] } else { 3 }
            }),
            ("the table says that the film has its name, which is lost", told, named - 1, |_, _| true),
            ("the same, and the film is torn", told, named - 1, |path, page| is_table(path) || page == 3),
        ];
        states.extend(in_place);
    }
    for (state, cut, names, came) in states {
        let held = cut_once(subject, cut, Loss::But(names, came));
        held.unwrap_or_else(|why| panic!("{}: {state}: {why}", subject.name));
    }
}

fn cut_once(subject: &Subject<'_>, cut: usize, loss: Loss) -> Result<(), String> {
    subject.record.restore(cut, loss, Some(OTHER_BOOT));
    let claims = claims(subject);
    subject.record.restore(cut, loss, None);
    claims.and_then(|()| (subject.again)())
}

/// Whether what a store says that it has is there, and right.
fn claims(subject: &Subject<'_>) -> Result<(), String> {
    let boot = subject.home.join("blobs/boot");
    if fs::read(&boot).is_ok_and(|text| text.len() == OTHER_BOOT.len()) {
        fs::write(&boot, OTHER_BOOT).unwrap();
    }
    let store = Home::blobs_only(&subject.home).map_err(|error| error.to_string())?;
    for root in &subject.roots {
        let mask = match store.held(&BlobName::Native(*root)) {
            Held::Whole => Mask::ALL,
            Held::Parts(mask, _) => mask,
            Held::Nothing | Held::OutOfReach => Mask::NONE,
        };
        let mut buf = vec![0; PART_LEN];
        for part in 0..PARTS {
            let read = store.read_part(root, part, &mut buf);
            let read = read.map_err(|error| format!("part {part} of {root:?}: {error}"))?;
            if read.as_ref().is_some_and(|values| values.root() != *root || !values.check(part, &buf)) {
                return Err(format!("part {part} of {root:?} is wrong"));
            }
            if mask.has(part) && read.is_none() {
                return Err(format!("part {part} of {root:?} is claimed and is not there"));
            }
        }
    }
    Ok(())
}

/// The blobs of an author who keeps copies, all that its channel consists of.
fn roots(home: &Path) -> BTreeSet<Root> {
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let bytes =
        |hex: String| Root(std::array::from_fn(|n| u8::from_str_radix(&hex[2 * n..2 * n + 2], 16).unwrap()));
    blobs(home).iter().map(name).map(bytes).collect()
}

/// Makes a node's folder, which comes with its id or not at all.
fn make_home(home: &Path) {
    fs::create_dir_all(home).unwrap();
    fs::write(home.join("store.id"), "an id").unwrap();
}

fn is_film(swarm: &Swarm, path: &Path) -> Result<(), String> {
    let got = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    if got == fs::read(swarm.join("film")).unwrap() {
        Ok(())
    } else {
        Err("the film is not the film".to_owned())
    }
}

/// A channel with a film, published with copies, and all its blobs.
fn channel(swarm: &Swarm) -> (String, String, BTreeSet<Root>) {
    let entry = swarm.ingest("film", MIB + 70_005, &["--copy"]);
    let published = swarm.publish(&[&entry], &[]);
    (entry, published["uri"].as_str().unwrap().to_owned(), roots(&swarm.join("author")))
}

fn subscribe(every: bool, extra: &[&str]) {
    if !strace::is_possible() {
        return;
    }
    let swarm = Swarm::new();
    let (_, uri, roots) = channel(&swarm);
    let author = serve(swarm.path(), "author", &[&swarm.address]);
    let address = author.ready();
    let (home, out) = (swarm.join("reader"), swarm.join("reader-out"));
    let mut args = subscribe_args(home.to_str().unwrap(), &uri, &address);
    args.extend(["--once", "--timeout", "20"].iter().chain(extra).map(ToString::to_string));
    make_home(&home);
    let record = recorded(&swarm, &[home.clone(), out.clone()], &args);
    let again = || {
        in_other_boot(&swarm, &args)?;
        is_film(&swarm, &out.join("film"))?;
        let names: Vec<_> = fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        if names.len() == 1 { Ok(()) } else { Err(format!("left over: {names:?}")) }
    };
    let name = if extra.is_empty() { "subscribe" } else { "subscribe --copy" };
    let subject = Subject { name, home: home.clone(), record, roots, again: &again };
    if !every {
        cut_where_it_went_wrong(&subject, extra.is_empty());
    }
    cut_everywhere(&subject, every);
}

/// `ingest`, then `publish`, each cut; afterwards a reader gets the film from what is there.
fn author(every: bool, extra: &[&str]) {
    if !strace::is_possible() {
        return;
    }
    let swarm = Swarm::new();
    let (_, _, roots) = channel(&swarm);
    let (home, entry) = (swarm.join("case/author"), swarm.join("case/film.json"));
    let [dir, json] = [&home, &entry].map(|path| path.to_str().unwrap());
    fs::create_dir_all(swarm.join("case")).unwrap();
    let ingest = ["ingest", "-i", "film", "-d", dir, "-k", "identity.json", "-o", json, "--force"];
    let ingest: Vec<String> = ingest.iter().chain(extra).map(ToString::to_string).collect();
    let publish = ["publish", "-d", dir, "-b", &swarm.address, "-i", json].map(String::from);
    let check = || {
        let output = in_other_boot(&swarm, &publish)?;
        if stderr(&output).contains("are not in") {
            return Err(stderr(&output));
        }
        let uri = String::from_utf8(output.stdout).unwrap();
        let node = serve(swarm.path(), dir, &[&swarm.address]);
        let address = node.ready();
        let reader = swarm.join("case/check");
        let mut args = subscribe_args(reader.to_str().unwrap(), uri.trim(), &address);
        args.extend(["--once", "--timeout", "20"].map(String::from));
        let fetched = run(swarm.path(), args);
        node.stop();
        let film = is_film(&swarm, &swarm.join("case/check-out/film"));
        let _ = fs::remove_dir_all(&reader).and_then(|()| fs::remove_dir_all(swarm.join("case/check-out")));
        if fetched.status.code() == Some(0) {
            film
        } else {
            Err(format!("not fetched: {}", stderr(&fetched)))
        }
    };
    let folders = [swarm.join("case")];
    make_home(&home);
    let record = recorded(&swarm, &folders, &ingest);
    let again = || {
        in_other_boot(&swarm, &ingest)?;
        check()
    };
    let subject = Subject { name: "ingest", home: home.clone(), record, roots, again: &again };
    cut_everywhere(&subject, every);

    let _ = fs::remove_dir_all(swarm.join("case"));
    fs::create_dir_all(swarm.join("case")).unwrap();
    ok(swarm.path(), &ingest);
    let record = recorded(&swarm, &folders, &publish);
    cut_everywhere(&Subject { name: "publish", record, again: &check, ..subject }, every);
}

#[test]
fn a_subscribe_survives_a_loss_of_power() {
    subscribe(false, &[]);
}

#[test]
fn a_subscribe_with_copies_survives_a_loss_of_power() {
    subscribe(false, &["--copy"]);
}

#[test]
fn an_author_survives_a_loss_of_power() {
    author(false, &[]);
}

#[test]
fn an_author_with_copies_survives_a_loss_of_power() {
    author(false, &["--copy"]);
}

#[test]
#[ignore = "takes minutes: scripts/soak runs it"]
fn every_state_of_subscribe() {
    subscribe(true, &[]);
}

#[test]
#[ignore = "takes minutes: scripts/soak runs it"]
fn every_state_of_subscribe_with_copies() {
    subscribe(true, &["--copy"]);
}

#[test]
#[ignore = "takes minutes: scripts/soak runs it"]
fn every_state_of_an_author() {
    author(true, &[]);
    author(true, &["--copy"]);
}

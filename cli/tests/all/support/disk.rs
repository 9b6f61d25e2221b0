//! What a disk holds when the power goes: a record of what a command did to its files, and the states that it may be found in.
//!
//! The model is a file system with a journal, as ext4, XFS and btrfs are: names come into being in their order, and a sync of any
//! file or folder takes the names before it along. What was written to a file and not synced is there or not, page by page; a page
//! that never came is what it was before, or zeros.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Bytes of a page.
const PAGE: usize = 4096;

/// The calls that [`Record::read`] understands.
pub(crate) const CALLS: &str = "openat,write,pwrite64,lseek,rename,renameat,renameat2,link,linkat,fsync,fdatasync,syncfs,\
                                ftruncate,utimensat,unlink,unlinkat,mkdir,mkdirat,fcntl,dup";

/// One thing that was done.
#[derive(Clone, Debug)]
enum Op {
    Folder(PathBuf),
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
    Length(usize, usize),
    /// A time of change that was set.
    Modified(usize, SystemTime),
    Write(usize, usize, Vec<u8>),
    /// Of a file; `None`: of a folder.
    Sync(Option<usize>),
    SyncAll,
}

/// What survives.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Loss {
    /// Nothing that was not synced.
    All,
    /// All names, and of what was written only what was synced: the rest is zeros.
    Pages,
    /// Some names and some pages.
    Some(u64),
    /// The names that so many things gave, and of what was not synced the pages that this says, by the path under which the file
    /// came into being and the number of the page.
    But(usize, fn(&Path, usize) -> bool),
    /// Nothing is lost, but the boot is another.
    Nothing,
}

#[derive(Clone, Debug)]
enum Node {
    Folder,
    File(usize),
}

type Names = BTreeMap<PathBuf, Node>;

/// Folders as they were before a command, and what it did to them.
pub(crate) struct Record {
    roots: Vec<PathBuf>,
    names: Names,
    files: Vec<Vec<u8>>,
    ops: Vec<Op>,
}

impl Record {
    /// Takes in the folders as they are; all of it is on the disk.
    pub(crate) fn begin(roots: &[PathBuf]) -> Self {
        let mut record =
            Self { roots: roots.to_vec(), names: Names::new(), files: Vec::new(), ops: Vec::new() };
        let mut folders: Vec<PathBuf> = roots.iter().filter(|root| root.exists()).cloned().collect();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    folders.push(entry.path());
                } else {
                    record.names.insert(entry.path(), Node::File(record.files.len()));
                    record.files.push(fs::read(entry.path()).unwrap());
                }
            }
            record.names.insert(folder, Node::Folder);
        }
        record
    }

    /// Takes in what a command did, from the log of `strace -f -y -xx`.
    pub(crate) fn read(&mut self, log: &Path) {
        let text = fs::read_to_string(log).unwrap();
        let mut unfinished: BTreeMap<&str, &str> = BTreeMap::new();
        let mut state = Reading { names: self.names.clone(), fds: BTreeMap::new(), files: self.files.len() };
        for line in text.lines() {
            let Some((thread, rest)) = line.split_once(' ') else { continue };
            let rest = rest.trim_start();
            if let Some(begun) = rest.strip_suffix(" <unfinished ...>") {
                unfinished.insert(thread, begun);
                continue;
            }
            let joined;
            let whole = if rest.starts_with("<... ") {
                let Some(begun) = unfinished.remove(thread) else { continue };
                joined = format!("{begun}{}", rest.split_once("resumed>").map_or("", |(_, end)| end));
                &joined
            } else {
                rest
            };
            let Some((call, result)) = whole.rsplit_once(" = ") else { continue };
            let Some((name, args)) = call.trim_end().strip_suffix(')').and_then(|call| call.split_once('('))
            else {
                continue;
            };
            if !result.starts_with('-') {
                let args: Vec<&str> = args.split(", ").collect();
                state.take(name, &args, result, &self.roots, &mut self.ops);
            }
        }
    }

    /// How many states there are to cut the power in.
    pub(crate) fn len(&self) -> usize {
        self.ops.len() + 1
    }

    /// The state after the last thing that gave a file this name.
    pub(crate) fn named(&self, name: &str) -> usize {
        let gives = |op: &Op| matches!(op, Op::Rename(_, to) if to.file_name().is_some_and(|it| it == name));
        self.ops.iter().rposition(gives).unwrap() + 1
    }

    /// The state after the next write to a file that came into being in a folder of this name.
    pub(crate) fn written_below(&self, folder: &str, from: usize) -> usize {
        let created = self.created();
        let is_below = |op: &Op| match op {
            Op::Write(file, ..) => created[*file].parent().is_some_and(|parent| parent.ends_with(folder)),
            _ => false,
        };
        from + self.ops[from..].iter().position(is_below).unwrap() + 1
    }

    /// The paths under which the files came into being.
    fn created(&self) -> Vec<&Path> {
        let before = self.files.iter().map(|_| Path::new(""));
        let created = self.ops.iter().filter_map(|op| match op {
            Op::Create(path, _) => Some(path.as_path()),
            _ => None,
        });
        before.chain(created).collect()
    }

    /// What was done last before a cut.
    pub(crate) fn last(&self, cut: usize) -> String {
        match cut.checked_sub(1).map(|last| &self.ops[last]) {
            Some(Op::Write(file, offset, bytes)) => {
                format!("Write({file}, {} bytes at {offset})", bytes.len())
            }
            other => format!("{other:?}"),
        }
    }

    /// Makes the folders what they are found as where the power went after the first `cut` things. Tables of held files say of the
    /// files that are made anew what they said of the old ones; `boot`: and that another boot wrote them.
    pub(crate) fn restore(&self, cut: usize, loss: Loss, boot: Option<&str>) {
        let (names, files, times) = self.state(cut, loss);
        for root in &self.roots {
            let _ = fs::remove_dir_all(root);
        }
        let mut made: BTreeMap<usize, &Path> = BTreeMap::new();
        for (path, node) in &names {
            match node {
                Node::Folder => fs::create_dir_all(path).unwrap(),
                Node::File(file) if made.contains_key(file) => fs::hard_link(made[file], path).unwrap(),
                Node::File(file) => {
                    fs::create_dir_all(path.parent().unwrap()).unwrap();
                    fs::write(path, &files[*file]).unwrap();
                    made.insert(*file, path);
                    if let Some(time) = times.get(file) {
                        File::options().write(true).open(path).unwrap().set_modified(*time).unwrap();
                    }
                }
            }
        }
        let is_timed =
            |path: &Path| matches!(names.get(path), Some(Node::File(file)) if times.contains_key(file));
        let is_table = |path: &&PathBuf| path.parent().is_some_and(|folder| folder.ends_with("held"));
        names.keys().filter(is_table).for_each(|path| mend_table(path, boot, &is_timed));
    }

    /// The files after the first `cut` things, what of each is certain, and how many of these things gave names that are.
    fn played(&self, cut: usize) -> (Vec<Vec<u8>>, Vec<Vec<u8>>, usize) {
        let mut files = self.files.clone();
        let (mut sure, mut sure_names) = (files.clone(), 0);
        for (number, op) in self.ops[..cut].iter().enumerate() {
            match op {
                Op::Create(..) => {
                    files.push(Vec::new());
                    sure.push(Vec::new());
                }
                Op::Length(file, len) => files[*file].resize(*len, 0),
                Op::Write(file, offset, bytes) => {
                    let end = offset + bytes.len();
                    if files[*file].len() < end {
                        files[*file].resize(end, 0);
                    }
                    files[*file][*offset..end].copy_from_slice(bytes);
                }
                Op::Sync(file) => {
                    if let Some(file) = file {
                        sure[*file].clone_from(&files[*file]);
                    }
                    sure_names = number;
                }
                Op::SyncAll => {
                    sure.clone_from(&files);
                    sure_names = number;
                }
                Op::Folder(_) | Op::Rename(..) | Op::Link(..) | Op::Unlink(_) | Op::Modified(..) => {}
            }
        }
        (files, sure, sure_names)
    }

    fn state(&self, cut: usize, loss: Loss) -> (Names, Vec<Vec<u8>>, BTreeMap<usize, SystemTime>) {
        let mut names = self.names.clone();
        let (mut files, sure, sure_names) = self.played(cut);
        let mut random = Random(match loss {
            Loss::Some(seed) => seed | 1,
            _ => 1,
        });
        let kept = match loss {
            Loss::All => sure_names,
            Loss::Pages | Loss::Nothing => cut,
            Loss::Some(_) => sure_names + random.below(cut - sure_names + 1),
            Loss::But(names, _) => names.clamp(sure_names, cut),
        };
        self.ops[..kept].iter().for_each(|op| rename(&mut names, op));
        // A length or a time that was set, not written, is kept with the names.
        let (mut set, mut times) = (vec![0; files.len()], BTreeMap::new());
        for op in &self.ops[..kept] {
            match op {
                Op::Length(file, len) => set[*file] = *len,
                Op::Modified(file, time) => drop(times.insert(*file, *time)),
                _ => {}
            }
        }
        let created = self.created();
        for (((file, sure), set), path) in files.iter_mut().zip(&sure).zip(set).zip(created) {
            match loss {
                Loss::All => {
                    file.clone_from(sure);
                    file.resize(sure.len().max(set), 0);
                }
                Loss::Pages => mix(file, sure, |_| false),
                Loss::But(_, came) => mix(file, sure, |page| came(path, page)),
                Loss::Some(_) => {
                    mix(file, sure, |_| random.below(2) == 0);
                    if random.below(4) == 0 {
                        file.truncate(sure.len().max(set));
                    }
                }
                Loss::Nothing => {}
            }
        }
        (names, files, times)
    }
}

/// Puts back the pages of a file that did not come.
fn mix(file: &mut [u8], sure: &[u8], mut came: impl FnMut(usize) -> bool) {
    for (number, page) in file.chunks_mut(PAGE).enumerate() {
        let old = sure.get(number * PAGE..).unwrap_or_default();
        let old = &old[..old.len().min(page.len())];
        let is_same = page.starts_with(old) && page[old.len()..].iter().all(|byte| *byte == 0);
        if !is_same && !came(number) {
            page[..old.len()].copy_from_slice(old);
            page[old.len()..].fill(0);
        }
    }
}

fn rename(names: &mut Names, op: &Op) {
    match op {
        Op::Folder(path) => drop(names.insert(path.clone(), Node::Folder)),
        Op::Create(path, file) => drop(names.insert(path.clone(), Node::File(*file))),
        Op::Rename(from, to) => {
            if let Some(node) = names.remove(from) {
                names.insert(to.clone(), node);
            }
        }
        Op::Link(from, to) => {
            if let Some(node) = names.get(from).cloned() {
                names.insert(to.clone(), node);
            }
        }
        Op::Unlink(path) => drop(names.remove(path)),
        Op::Length(..) | Op::Modified(..) | Op::Write(..) | Op::Sync(_) | Op::SyncAll => {}
    }
}

/// A log being read.
struct Reading {
    names: Names,
    /// The file of each handle, and where it is written to.
    fds: BTreeMap<String, (Option<usize>, usize)>,
    files: usize,
}

impl Reading {
    fn take(&mut self, name: &str, args: &[&str], result: &str, roots: &[PathBuf], ops: &mut Vec<Op>) {
        let is_ours = |path: &Path| roots.iter().any(|root| path.starts_with(root));
        let fd = number(args[0]);
        let file = self.fds.get(&fd).and_then(|(file, _)| *file);
        let begun = ops.len();
        match (name, file) {
            ("openat", _) => self.open(args, result, &is_ours, ops),
            ("fcntl" | "dup", _) if args.len() < 2 || args[1].starts_with("F_DUPFD") => {
                let known = self.fds.get(&fd).copied().unwrap_or((None, 0));
                self.fds.insert(number(result), known);
            }
            ("mkdir" | "mkdirat", _) => ops.push(Op::Folder(path_of(args, 0))),
            ("unlink" | "unlinkat", _) => ops.push(Op::Unlink(path_of(args, 0))),
            ("rename" | "renameat" | "renameat2", _) => {
                ops.push(Op::Rename(path_of(args, 0), path_of(args, 1)));
            }
            ("link" | "linkat", _) => ops.push(Op::Link(path_of(args, 0), path_of(args, 1))),
            ("syncfs", _) => ops.push(Op::SyncAll),
            ("fsync" | "fdatasync", file) if is_ours(&path_in(args[0])) => ops.push(Op::Sync(file)),
            ("lseek", Some(_)) => self.fds.entry(fd).or_default().1 = result.parse().unwrap(),
            ("utimensat", Some(file)) => ops.extend(time(args).map(|time| Op::Modified(file, time))),
            ("ftruncate", Some(file)) => ops.push(Op::Length(file, args[1].parse().unwrap())),
            ("write", Some(file)) => {
                let bytes = bytes(args[1]);
                let at = &mut self.fds.entry(fd).or_default().1;
                let offset = *at;
                *at += bytes.len();
                ops.push(Op::Write(file, offset, bytes));
            }
            ("pwrite64", Some(file)) => ops.push(Op::Write(file, args[3].parse().unwrap(), bytes(args[1]))),
            _ => {}
        }
        let is_elsewhere = |op: &Op| match op {
            Op::Folder(path) | Op::Unlink(path) | Op::Rename(path, _) | Op::Link(path, _) => !is_ours(path),
            _ => false,
        };
        if ops.len() > begun && is_elsewhere(&ops[begun]) {
            ops.truncate(begun);
        }
        ops[begun..].iter().for_each(|op| rename(&mut self.names, op));
    }

    fn open(&mut self, args: &[&str], result: &str, is_ours: &dyn Fn(&Path) -> bool, ops: &mut Vec<Op>) {
        let (path, flags) = (path_of(args, 0), args.get(2).copied().unwrap_or(""));
        let file = match self.names.get(&path) {
            Some(Node::File(file)) => {
                if flags.contains("O_TRUNC") {
                    ops.push(Op::Length(*file, 0));
                }
                Some(*file)
            }
            None if flags.contains("O_CREAT") && is_ours(&path) => {
                ops.push(Op::Create(path, self.files));
                self.files += 1;
                Some(self.files - 1)
            }
            Some(Node::Folder) | None => None,
        };
        self.fds.insert(number(result), (file, 0));
    }
}

/// The number of a handle, as in `12<path>`.
fn number(handle: &str) -> String {
    handle.split('<').next().unwrap_or_default().trim().to_owned()
}

/// What a handle leads to, as in `12<path>`.
fn path_in(handle: &str) -> PathBuf {
    let inner = handle.split_once('<').map_or("", |(_, rest)| rest.trim_end_matches('>'));
    PathBuf::from(String::from_utf8_lossy(&unescape(inner)).into_owned())
}

/// A call's first or second path, which stands behind the folder that it is relative to.
fn path_of(args: &[&str], which: usize) -> PathBuf {
    let at =
        args.iter().enumerate().filter(|(_, arg)| arg.starts_with('"')).nth(which).map_or(0, |(at, _)| at);
    let path = PathBuf::from(String::from_utf8(bytes(args[at])).unwrap());
    let folder = at.checked_sub(1).map(|before| args[before]).filter(|before| before.contains('<'));
    // Where a call has no folder, the path is relative to the test's own.
    let folder = folder.map_or_else(|| PathBuf::from("."), path_in);
    folder.join(path)
}

/// The time of change of `[ATIME, {tv_sec=SECONDS, tv_nsec=NANOSECONDS} ...]`.
fn time(args: &[&str]) -> Option<SystemTime> {
    let value = |name: &str| {
        let digits = args.iter().rev().find_map(|arg| arg.split_once(name)).map(|(_, rest)| rest)?;
        digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    };
    let nanos = u32::try_from(value("tv_nsec=")?).unwrap();
    Some(UNIX_EPOCH + Duration::new(value("tv_sec=")?, nanos))
}

fn bytes(quoted: &str) -> Vec<u8> {
    assert!(!quoted.ends_with("..."), "the log is cut short");
    unescape(quoted.trim_matches('"'))
}

fn unescape(text: &str) -> Vec<u8> {
    if !text.starts_with("\\x") {
        return text.as_bytes().to_vec();
    }
    text.split("\\x").skip(1).map(|two| u8::from_str_radix(two, 16).unwrap()).collect()
}

/// Numbers that look random (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end.max(1)
    }
}

/// Makes the table of a held file say of one that was made anew what it said of the old one.
fn mend_table(table: &Path, boot: Option<&str>, is_timed: &dyn Fn(&Path) -> bool) {
    let mut bytes = fs::read(table).unwrap();
    let mut headers: Vec<_> = [0, 16 * 1024].iter().filter_map(|at| read_header(&bytes, *at)).collect();
    headers.sort_by_key(|(at, _)| bytes[*at..*at + 8].iter().rev().copied().collect::<Vec<u8>>());
    let Some((_, newest)) = headers.last() else { return };
    let digits = newest["path"].as_str().unwrap().as_bytes().chunks(2);
    let path: Vec<u8> =
        digits.map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect();
    let mut path = PathBuf::from(String::from_utf8(path).unwrap());
    // A name may have been lost and the page that speaks of it not, or the other way round.
    let number = table.file_stem().unwrap().to_str().unwrap();
    let beside = path.with_file_name(format!(".mt-{number}.part"));
    if beside.exists() {
        path = beside;
    }
    if let Ok(it) = fs::symlink_metadata(&path) {
        let [seconds, nanos] = [0, 1].map(|n| newest["stat"]["modified"][n].as_i64().unwrap());
        if !is_timed(&path) && (it.mtime(), it.mtime_nsec()) != (seconds, nanos) {
            let time = Duration::new(seconds.cast_unsigned(), nanos.try_into().unwrap());
            File::options().write(true).open(&path).unwrap().set_modified(UNIX_EPOCH + time).unwrap();
        }
    }
    for (at, mut header) in headers {
        if let Ok(it) = fs::symlink_metadata(&path) {
            let stat = &mut header["stat"];
            (stat["device"], stat["inode"]) = (it.dev().into(), it.ino().into());
            stat["changed"] = serde_json::json!([it.ctime(), it.ctime_nsec()]);
        }
        if let Some(boot) = boot.filter(|_| header["boot"].is_string()) {
            header["boot"] = boot.into();
        }
        let text = serde_json::to_vec(&header).unwrap();
        // Other numbers may have more digits.
        let end = at + 44 + text.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[at + 8..at + 40].copy_from_slice(blake3::hash(&text).as_bytes());
        bytes[at + 40..at + 44].copy_from_slice(&u32::try_from(text.len()).unwrap().to_le_bytes());
        bytes[at + 44..end].copy_from_slice(&text);
    }
    fs::write(table, bytes).unwrap();
}

/// A header that came whole, and where it is.
fn read_header(bytes: &[u8], at: usize) -> Option<(usize, serde_json::Value)> {
    let len = u32::from_le_bytes(bytes.get(at + 40..at + 44)?.try_into().unwrap()) as usize;
    let text = bytes.get(at + 44..at + 44 + len)?;
    let is_whole = bytes[at + 8..at + 40] == *blake3::hash(text).as_bytes();
    Some((at, serde_json::from_slice(text).ok()?)).filter(|_| is_whole)
}

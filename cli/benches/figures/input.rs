//! Files that look random, the same each time, and the memory that a measured run needs.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::Path;

use crate::Outcome;

/// Bytes made, compared or touched at a time.
const PIECE_LEN: usize = 1 << 20;

/// A stream that looks random (xorshift64).
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn fill(&mut self, buf: &mut [u8]) {
        for word in buf.chunks_mut(8) {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            word.copy_from_slice(&self.0.to_le_bytes()[..word.len()]);
        }
    }
}

/// Writes `mib` MiB of the stream `seed`.
pub(crate) fn write(path: &Path, mib: u64, seed: u64) -> Outcome<()> {
    let (mut file, mut stream, mut piece) = (File::create(path)?, Stream::new(seed), vec![0; PIECE_LEN]);
    for _ in 0..mib {
        stream.fill(&mut piece);
        file.write_all(&piece)?;
    }
    Ok(())
}

/// Fails where the file is not `mib` MiB of the stream `seed`.
pub(crate) fn compare(path: &Path, mib: u64, seed: u64) -> Outcome<()> {
    let mut file = BufReader::with_capacity(PIECE_LEN, File::open(path)?);
    let (mut stream, mut want, mut got) = (Stream::new(seed), vec![0; PIECE_LEN], vec![0; PIECE_LEN]);
    for _ in 0..mib {
        stream.fill(&mut want);
        file.read_exact(&mut got)?;
        if want != got {
            return Err(format!("{} is not what was sent", path.display()).into());
        }
    }
    if file.read(&mut got)? != 0 {
        return Err(format!("{} is too long", path.display()).into());
    }
    Ok(())
}

/// Fills the page cache with `mib` MiB and gives them up again. A virtual machine hands memory that it did not use for a
/// while back to its host, and the first write to each such page then costs ten times the write itself, in whatever
/// happens to write first. What is freed here is what the kernel hands out next. Nothing reaches the disk.
pub(crate) fn warm_page_cache(folder: &Path, mib: u64) -> Outcome<()> {
    let (mut file, piece) = (File::create(folder.join("scratch"))?, vec![1; PIECE_LEN]);
    for _ in 0..mib {
        file.write_all(&piece)?;
    }
    Ok(file.set_len(0)?)
}

/// Writes what is dirty to the disk and lets the page cache of these files go, so that no run pays for the one before
/// it. The files stay: for some minutes ext4 does not reuse the inodes of removed files, and passes over each of them
/// whenever it makes a new one.
pub(crate) fn settle(folders: &[&Path]) -> Outcome<()> {
    for folder in folders {
        rustix::fs::syncfs(File::open(folder)?)?;
        for_each_file(folder, &|path| {
            rustix::fs::fadvise(File::open(path)?, 0, None, rustix::fs::Advice::DontNeed)?;
            Ok(())
        })?;
    }
    Ok(())
}

fn for_each_file(folder: &Path, act: &dyn Fn(&Path) -> Outcome<()>) -> Outcome<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            for_each_file(&entry.path(), act)?;
        } else {
            act(&entry.path())?;
        }
    }
    Ok(())
}

/// Fails where less than `mib` MiB are free for us in `folder`.
pub(crate) fn check_free(folder: &Path, mib: u64) -> Outcome<()> {
    let stat = rustix::fs::statvfs(folder)?;
    let free_mib = (stat.f_bavail * stat.f_frsize) >> 20;
    if free_mib < mib {
        let folder = folder.display();
        return Err(
            format!("{folder} has {free_mib} MiB free, and {mib} are needed: see --dir, --size").into()
        );
    }
    Ok(())
}

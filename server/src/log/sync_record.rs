//! For crash tests on real files: what completed syncs have covered, and a way to destroy everything else.
//!
//! `kill -9` alone keeps the page cache, so a missing `fdatasync` goes unnoticed. With recording switched on
//! ([`FileDisk::open_recording_syncs`](super::FileDisk::open_recording_syncs)) two files beside the segments say what
//! is durable. They are written by ordinary writes, which survive the end of a process, only after a sync has returned,
//! and from the outcome of that sync:
//!
//! * `synced-position`: 32 bytes a file: inode, durable length, CRC-32C of these 16 bytes (u64, u64, u32,
//!   little-endian), zeros. Bytes before the durable length are on the disk, bytes from there on may or may not be.
//!   Inode 0 is a free place. A file that is not listed was not written since recording began.
//! * `synced-names`: one line `inode name` a file, as of the last completed sync of the directory; replaced as a whole.
//!
//! After the process was killed, [`cut_back`] brings the directory to a state that a power failure could have left:
//! names and bytes not covered are gone. Leave out the sync, and what was written never counts as durable, so the test
//! loses acknowledged writes.
//!
//! A write below the durable length (a recycled file, the last page again) takes the length back to its offset before
//! it is done, unless it writes what is there already: such bytes are not at risk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::segment::FileName;

const POSITIONS: &str = "synced-position";
const NAMES: &str = "synced-names";
const NAMES_NEW: &str = "synced-names.new";
const SLOT_BYTES: usize = 32;
/// Unsynced bytes that [`cut_back`] may leave or garble, as a torn write would; everything after them becomes zeros.
const TORN_BYTES_MAX: u64 = 64 << 10;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    inode: u64,
    synced: u64,
    written: u64,
}

impl Slot {
    fn encode(&self) -> [u8; SLOT_BYTES] {
        let mut out = [0; SLOT_BYTES];
        out[..8].copy_from_slice(&self.inode.to_le_bytes());
        out[8..16].copy_from_slice(&self.synced.to_le_bytes());
        let crc = crc32c::crc32c(&out[..16]);
        out[16..20].copy_from_slice(&crc.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8]) -> io::Result<Self> {
        let number = |at| super::record::le_u64(bytes, at);
        if bytes.len() != SLOT_BYTES || super::record::le_u32(bytes, 16) != crc32c::crc32c(&bytes[..16]) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{POSITIONS} is damaged")));
        }
        Ok(Self { inode: number(0), synced: number(8), written: number(8) })
    }
}

fn read_slots(dir: &Path) -> io::Result<Vec<Slot>> {
    match fs::read(dir.join(POSITIONS)) {
        Ok(bytes) => bytes.chunks(SLOT_BYTES).map(Slot::decode).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The running record of one directory.
#[derive(Debug)]
pub(crate) struct SyncRecord {
    dir: PathBuf,
    table: Mutex<Table>,
}

#[derive(Debug)]
struct Table {
    file: File,
    slots: Vec<Slot>,
}

impl Table {
    fn save(&self, nth: usize) -> io::Result<()> {
        self.file.write_all_at(&self.slots[nth].encode(), (nth * SLOT_BYTES) as u64)
    }

    fn find(&self, inode: u64) -> Option<usize> {
        self.slots.iter().position(|slot| slot.inode == inode)
    }

    /// The file's slot; a file met for the first time is taken to be durable up to `synced`.
    fn find_or_add(&mut self, inode: u64, synced: u64) -> io::Result<usize> {
        if let Some(nth) = self.find(inode) {
            return Ok(nth);
        }
        let slot = Slot { inode, synced, written: synced };
        let nth = self.find(0).unwrap_or(self.slots.len());
        if nth == self.slots.len() {
            self.slots.push(slot);
        } else {
            self.slots[nth] = slot;
        }
        self.save(nth)?;
        Ok(nth)
    }
}

impl SyncRecord {
    /// Goes on with the record of an earlier run, or begins one.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        let slots = read_slots(dir)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(dir.join(POSITIONS))?;
        Ok(Self { dir: dir.to_owned(), table: Mutex::new(Table { file, slots }) })
    }

    /// A new file: nothing of it is durable.
    pub(crate) fn created(&self, inode: u64) -> io::Result<()> {
        let mut table = self.table.lock();
        let nth = table.find_or_add(inode, 0)?;
        table.slots[nth] = Slot { inode, ..Slot::default() };
        table.save(nth)
    }

    pub(crate) fn removed(&self, inode: u64) -> io::Result<()> {
        let mut table = self.table.lock();
        let Some(nth) = table.find(inode) else { return Ok(()) };
        table.slots[nth] = Slot::default();
        table.save(nth)
    }

    /// `bytes` are about to be written.
    pub(crate) fn writing(&self, file: &File, inode: u64, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut table = self.table.lock();
        let nth = table.find_or_add(inode, offset)?;
        let slot = table.slots[nth];
        if offset < slot.synced {
            let overlap = bytes.len().min((slot.synced - offset) as usize);
            let mut there = vec![0; overlap];
            let same = file.read_exact_at(&mut there, offset).is_ok() && there == bytes[..overlap];
            if !same {
                table.slots[nth].synced = offset;
                table.slots[nth].written = offset;
                table.save(nth)?;
            }
        }
        let end = offset + bytes.len() as u64;
        let slot = &mut table.slots[nth];
        slot.written = slot.written.max(end);
        Ok(())
    }

    /// How far the file has been written: what a sync that begins now will cover.
    pub(crate) fn written(&self, inode: u64) -> Option<u64> {
        let table = self.table.lock();
        table.find(inode).map(|nth| table.slots[nth].written)
    }

    /// A sync has ended with `outcome`; if that is good, the bytes up to `covered` are durable.
    pub(crate) fn synced(&self, inode: u64, covered: Option<u64>, outcome: io::Result<()>) -> io::Result<()> {
        outcome?;
        let Some(covered) = covered else { return Ok(()) };
        let mut table = self.table.lock();
        if let Some(nth) = table.find(inode) {
            table.slots[nth].synced = covered;
            table.save(nth)?;
        }
        Ok(())
    }

    /// The names there are now: what a sync of the directory that begins now will cover.
    pub(crate) fn names(&self) -> io::Result<String> {
        let mut lines = String::new();
        for (name, inode) in log_files(&self.dir)? {
            lines.extend([&inode.to_string(), " ", &name, "\n"]);
        }
        Ok(lines)
    }

    /// A sync of the directory has ended with `outcome`; if that is good, `names` are durable.
    pub(crate) fn names_synced(&self, names: &str, outcome: io::Result<()>) -> io::Result<()> {
        outcome?;
        let new = self.dir.join(NAMES_NEW);
        File::create(&new)?.write_all(names.as_bytes())?;
        fs::rename(new, self.dir.join(NAMES))
    }
}

/// The log's files in `dir`, sorted by name, with their inodes.
fn log_files(dir: &Path) -> io::Result<Vec<(String, u64)>> {
    let mut files = Vec::new();
    for found in fs::read_dir(dir)? {
        let found = found?;
        if let Ok(name) = found.file_name().into_string()
            && FileName::parse(&name).is_some()
        {
            match found.metadata() {
                Ok(metadata) => files.push((name, metadata.ino())),
                // Renamed by the other thread meanwhile: its name is not durable yet anyway.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    files.sort();
    Ok(files)
}

/// What happens to bytes that were written but not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// They become zeros.
    Zeros,
    /// Some of the first 64 KiB stay, up to a byte chosen by the seed; then there is garbage up to 64 KiB, then zeros.
    Torn {
        /// Chooses how many bytes stay and what the garbage is.
        seed: u64,
    },
}

/// What [`cut_back`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CutBack {
    /// Files of which everything from the given byte on was destroyed.
    pub cut: Vec<(String, u64)>,
    /// Files that were removed because their names were not durable.
    pub removed: Vec<String>,
    /// Files that got back the name they last durably had: (new, old).
    pub renamed: Vec<(String, String)>,
}

/// Destroys in the log directory `dir` everything that no completed sync has covered, as a power failure may do. To be
/// used after a server that ran with recording switched on was killed, and before it is started again.
///
/// Fails if nothing was recorded there, so that a test can not pass because recording was forgotten.
pub fn cut_back(dir: &Path, unsynced: Unsynced) -> io::Result<CutBack> {
    let mut report = CutBack::default();
    let slots = read_slots(dir)?;
    if slots.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no syncs were recorded in {}", dir.display())));
    }
    let names = match fs::read_to_string(dir.join(NAMES)) {
        Ok(names) => names,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    let durable: Vec<(u64, &str)> = names
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(inode, name)| Some((inode.parse().ok()?, name)))
        .collect();

    // Names first: what was not durable goes, what was renamed goes back.
    let mut back = Vec::new();
    for (name, inode) in log_files(dir)? {
        match durable.iter().find(|(known, _)| *known == inode) {
            Some((_, old)) if *old == name => {}
            Some((_, old)) => back.push((name, (*old).to_owned())),
            None => {
                fs::remove_file(dir.join(&name))?;
                report.removed.push(name);
            }
        }
    }
    for (name, old) in back {
        if dir.join(&old).exists() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{name} was {old}, and there is another {old} now"),
            ));
        }
        fs::rename(dir.join(&name), dir.join(&old))?;
        report.renamed.push((name, old));
    }

    for (name, inode) in log_files(dir)? {
        let Some(slot) = slots.iter().find(|slot| slot.inode == inode) else { continue };
        let file = OpenOptions::new().read(true).write(true).open(dir.join(&name))?;
        let len = file.metadata()?.len();
        if slot.synced < len {
            destroy(&file, slot.synced, len, unsynced)?;
            report.cut.push((name, slot.synced));
        }
    }
    Ok(report)
}

fn destroy(file: &File, from: u64, len: u64, unsynced: Unsynced) -> io::Result<()> {
    let mut at = from;
    if let Unsynced::Torn { seed } = unsynced {
        let mut random = seed ^ from.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = || {
            // Marsaglia's xorshift; any spread of values will do.
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let torn = TORN_BYTES_MAX.min(len - from);
        let stay = next() % (torn + 1) / [1, 16, 256][(next() % 3) as usize];
        let garbage: Vec<u8> = (0..torn - stay).map(|_| next() as u8).collect();
        file.write_all_at(&garbage, from + stay)?;
        at = from + torn;
    }
    let zeros = vec![0; 1 << 20];
    let mut there = zeros.clone();
    while at < len {
        let piece = zeros.len().min((len - at) as usize);
        file.read_exact_at(&mut there[..piece], at)?;
        if there[..piece] != zeros[..piece] {
            file.write_all_at(&zeros[..piece], at)?;
        }
        at += piece as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::Disk;
    use crate::log::file_disk::FileDisk;

    fn name(number: u64) -> String {
        FileName::Log(number).to_string()
    }

    fn content(dir: &Path, name: &str) -> Vec<u8> {
        fs::read(dir.join(name)).unwrap()
    }

    #[test]
    fn only_what_a_completed_sync_covered_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open_recording_syncs(dir.path()).unwrap();
        let file = disk.create(&name(1), 8192).unwrap();
        disk.sync_dir().unwrap();
        file.write_at(b"synced", 0).unwrap();
        file.sync().unwrap();
        file.write_at(b"not synced", 6).unwrap();
        let report = cut_back(dir.path(), Unsynced::Zeros).unwrap();
        assert_eq!(report.cut, [(name(1), 6)]);
        let mut expected = vec![0; 8192];
        expected[..6].copy_from_slice(b"synced");
        assert_eq!(content(dir.path(), &name(1)), expected);
    }

    #[test]
    fn a_torn_cut_keeps_what_was_synced() {
        for seed in 0..50 {
            let dir = tempfile::tempdir().unwrap();
            let disk = FileDisk::open_recording_syncs(dir.path()).unwrap();
            let file = disk.create(&name(1), 8192).unwrap();
            disk.sync_dir().unwrap();
            file.write_at(b"synced", 0).unwrap();
            file.sync().unwrap();
            file.write_at(&[7; 1000], 6).unwrap();
            cut_back(dir.path(), Unsynced::Torn { seed }).unwrap();
            assert_eq!(&content(dir.path(), &name(1))[..6], b"synced");
        }
    }

    #[test]
    fn a_name_that_was_not_synced_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open_recording_syncs(dir.path()).unwrap();
        disk.create(&name(1), 4096).unwrap();
        disk.sync_dir().unwrap();
        disk.create(&name(2), 4096).unwrap();
        disk.rename(&name(1), &name(3)).unwrap();
        let report = cut_back(dir.path(), Unsynced::Zeros).unwrap();
        assert_eq!(report.removed, [name(2)]);
        assert_eq!(report.renamed, [(name(3), name(1))]);
        assert_eq!(log_files(dir.path()).unwrap().len(), 1);
    }

    #[test]
    fn writing_again_what_is_durable_puts_nothing_at_risk() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open_recording_syncs(dir.path()).unwrap();
        let file = disk.create(&name(1), 4096).unwrap();
        disk.sync_dir().unwrap();
        file.write_at(b"abcdef", 0).unwrap();
        file.sync().unwrap();
        drop(disk);
        // The next run of the program.
        let disk = FileDisk::open_recording_syncs(dir.path()).unwrap();
        let file = disk.open(&name(1)).unwrap();
        file.write_at(b"def", 3).unwrap();
        cut_back(dir.path(), Unsynced::Zeros).unwrap();
        assert_eq!(&content(dir.path(), &name(1))[..6], b"abcdef");
        file.write_at(b"XYZ", 3).unwrap();
        cut_back(dir.path(), Unsynced::Zeros).unwrap();
        assert_eq!(&content(dir.path(), &name(1))[..6], b"abc\0\0\0");
    }

    #[test]
    fn cutting_back_without_a_record_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(dir.path()).unwrap();
        disk.create(&name(1), 4096).unwrap();
        assert!(cut_back(dir.path(), Unsynced::Zeros).is_err());
    }
}

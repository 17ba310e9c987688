//! The log on real files.

use std::io;
use std::path::{Path, PathBuf};

use super::*;
use crate::log::{CutBack, Disk, DiskFile, FileDisk, Unsynced, cut_back};

fn open_dir(dir: &Path, after: u64) -> (Log, Recovered) {
    Log::open_dir(dir, &options(), after).unwrap()
}

#[test]
fn a_log_in_a_directory_is_created_written_purged_and_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("member/log");
    let (mut log, recovered) = open_dir(&dir, 0);
    assert!(recovered.created);
    fill(&mut log, 1..=50, 1);
    let gone = log.purge(30).unwrap();
    fill(&mut log, 51..=60, 2);
    drop(log);
    let (log, recovered) = open_dir(&dir, 40);
    assert_eq!(indexes(&recovered.entries), (41..=60).collect::<Vec<_>>());
    assert_eq!(recovered.terms.base(), gone);
    assert_eq!(recovered.hard_state, hard_state(2, 1, 59));
    assert_eq!(log.reader().entries(45, 61, u64::MAX).unwrap().len(), 16);
}

#[test]
fn a_segment_that_was_cut_short_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    open_dir(dir.path(), 0);
    let path = dir.path().join("log-0000000000000001");
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(5000).unwrap();
    let error = Log::open_dir(dir.path(), &options(), 0).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("cut from 12288 to 5000 bytes") && error.contains(path.to_str().unwrap()), "{error}");
}

#[test]
fn a_file_that_is_no_segment_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("log-0000000000000001"), "hello").unwrap();
    let error = Log::open_dir(dir.path(), &options(), 0).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("no valid segment header") && error.contains("move it away"), "{error}");
}

#[test]
fn a_directory_that_cannot_be_used_is_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let error = Log::open_dir(&file.join("log"), &options(), 0).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("cannot open") && error.contains("file/log"), "{error}");
}

/// Writes, "crashes" and cuts back what was not synced; returns the last entry acknowledged and the one found.
fn crash(dir: &Path, disk: &dyn Fn() -> Arc<dyn Disk>, unsynced: Unsynced) -> (u64, Result<u64, LogError>) {
    let (mut log, recovered) = Log::open(disk(), &options(), 0).unwrap();
    let last = recovered.terms.last().index;
    let acknowledged = last + 12;
    fill(&mut log, last + 1..=acknowledged, 1);
    log.purge(last).unwrap();
    drop(log);
    cut_back(dir, unsynced).unwrap();
    (acknowledged, Log::open(disk(), &options(), 0).map(|(_, recovered)| recovered.terms.last().index))
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_everything_unsynced() {
    for seed in 0..10 {
        let dir = tempfile::tempdir().unwrap();
        let disk = || Arc::new(FileDisk::open_recording_syncs(dir.path()).unwrap()) as Arc<dyn Disk>;
        for round in 0..6 {
            let unsynced = if round % 2 == 0 { Unsynced::Zeros } else { Unsynced::Torn { seed: seed * 100 + round } };
            let (acknowledged, found) = crash(dir.path(), &disk, unsynced);
            assert_eq!(found.unwrap(), acknowledged);
        }
    }
}

#[test]
fn an_unsynced_write_does_not_survive_a_cut() {
    let dir = tempfile::tempdir().unwrap();
    let disk = FileDisk::open_recording_syncs(dir.path()).unwrap();
    let (mut log, _) = Log::open(Arc::new(disk), &options(), 0).unwrap();
    fill(&mut log, 1..=3, 1);
    let (name, end) = log.end();
    drop(log);
    let disk = FileDisk::open_recording_syncs(dir.path()).unwrap();
    disk.open(&name).unwrap().write_at(&[1; 100], end).unwrap();
    let CutBack { cut, removed, renamed } = cut_back(dir.path(), Unsynced::Zeros).unwrap();
    assert_eq!((cut, removed, renamed), (vec![(name, end)], vec![], vec![]));
    assert_eq!(open_dir(dir.path(), 0).1.last_batch, 3);
}

/// A disk on which somebody has forgotten to sync files, or directories.
struct Forgetful {
    disk: FileDisk,
    sync_files: bool,
}

struct ForgetfulFile(Arc<dyn DiskFile>);

impl Forgetful {
    fn file(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        if self.sync_files { file } else { Arc::new(ForgetfulFile(file)) }
    }
}

impl Disk for Forgetful {
    fn list(&self) -> io::Result<Vec<String>> {
        self.disk.list()
    }
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(name, len).map(|file| self.file(file))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(name).map(|file| self.file(file))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.disk.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        if self.sync_files { Ok(()) } else { self.disk.sync_dir() }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.disk.path(name)
    }
}

impl DiskFile for ForgetfulFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_at(bytes, offset)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        self.0.size()
    }
}

#[test]
fn a_forgotten_sync_of_files_or_of_the_directory_does_not_go_unnoticed() {
    for sync_files in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let disk = || {
            let disk = FileDisk::open_recording_syncs(dir.path()).unwrap();
            Arc::new(Forgetful { disk, sync_files }) as Arc<dyn Disk>
        };
        let (acknowledged, found) = crash(dir.path(), &disk, Unsynced::Zeros);
        assert!(found.is_err() || found.unwrap() < acknowledged);
    }
}

//! Files beside RocksDB's own, which it leaves alone: written under another name, synced, renamed.

use std::{
    fs::{self, File, Metadata},
    io::{self, ErrorKind, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::store::{
    NewFile, StoreError,
    dir::{failed, sync_dir},
};

/// What the name of an unfinished file ends with.
const NEXT: &str = ".next";
/// Bytes after which what was written is synced: the syncs of the raft log must not queue behind one large one.
const SYNC_EVERY: usize = 1 << 20;

/// A file being written.
pub(super) struct NewRocksFile {
    dir: PathBuf,
    name: &'static str,
    next: PathBuf,
    file: File,
    unsynced: usize,
    finished: bool,
}

fn next_path(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{NEXT}"))
}

impl NewRocksFile {
    pub(super) fn create(dir: &Path, name: &'static str) -> Result<Self, StoreError> {
        let next = next_path(dir, name);
        let file = File::create(&next).map_err(|source| failed(&next, "creating", source))?;
        Ok(Self { dir: dir.to_owned(), name, next, file, unsynced: 0, finished: false })
    }
}

impl NewFile for NewRocksFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.file.write_all(bytes).map_err(|source| failed(&self.next, "writing", source))?;
        self.unsynced += bytes.len();
        if self.unsynced >= SYNC_EVERY {
            self.unsynced = 0;
            self.file.sync_data().map_err(|source| failed(&self.next, "syncing", source))?;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<(), StoreError> {
        self.file.sync_all().map_err(|source| failed(&self.next, "syncing", source))?;
        fs::rename(&self.next, self.dir.join(self.name)).map_err(|source| failed(&self.next, "renaming", source))?;
        self.finished = true;
        sync_dir(&self.dir)
    }
}

impl Drop for NewRocksFile {
    fn drop(&mut self) {
        if !self.finished {
            // What stays is found and removed by the next reader.
            let _ = fs::remove_file(&self.next);
        }
    }
}

/// The file `name`, and away with one that was never finished.
pub(super) fn open(dir: &Path, name: &str) -> Result<Option<File>, StoreError> {
    match fs::remove_file(next_path(dir, name)) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(failed(&next_path(dir, name), "removing", source));
        }
        _ => {}
    }
    let path = dir.join(name);
    match File::open(&path) {
        Ok(file) => Ok(Some(file)),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(failed(&path, "opening", source)),
    }
}

/// The file of a name as it was at some point.
pub(super) struct Then {
    name: &'static str,
    /// Held open, so that no other file gets its number.
    file: File,
}

impl Then {
    /// The file `name` as it is now, if there is one.
    pub(super) fn of(dir: &Path, name: &'static str) -> Result<Option<Self>, StoreError> {
        let path = dir.join(name);
        match File::open(&path) {
            Ok(file) => Ok(Some(Self { name, file })),
            Err(source) if source.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(failed(&path, "opening", source)),
        }
    }

    /// Puts it into the directory `to` too, unless the one of its name is another one by now.
    pub(super) fn link(&self, dir: &Path, to: &Path) -> Result<(), StoreError> {
        let (path, to) = (dir.join(self.name), to.join(self.name));
        match fs::hard_link(&path, &to) {
            Ok(()) => {}
            Err(source) if source.kind() == ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(failed(&to, "linking", source)),
        }
        let number = |meta: io::Result<Metadata>| {
            meta.map(|meta| meta.ino()).map_err(|source| failed(&to, "looking at", source))
        };
        if number(self.file.metadata())? != number(fs::metadata(&to))? {
            fs::remove_file(&to).map_err(|source| failed(&to, "removing", source))?;
        }
        Ok(())
    }
}

pub(super) fn remove(dir: &Path, name: &str) -> Result<(), StoreError> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Ok(()) => sync_dir(dir),
        Err(source) if source.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(failed(&path, "removing", source)),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn read(dir: &Path) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        open(dir, "image").unwrap()?.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn a_file_is_there_when_it_is_finished_and_not_before() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(read(dir), None);
        let write = |bytes: &[u8]| {
            let mut file = NewRocksFile::create(dir, "image").unwrap();
            file.write(bytes).unwrap();
            Box::new(file)
        };
        write(b"first").finish().unwrap();
        drop(write(b"dropped"));
        assert_eq!(read(dir).unwrap(), b"first");
        std::mem::forget(write(b"as a crash leaves it"));
        assert_eq!(read(dir).unwrap(), b"first");
        assert_eq!(fs::read_dir(dir).unwrap().count(), 1, "the unfinished file stayed");
        write(&vec![7; 3 * SYNC_EVERY]).finish().unwrap();
        assert_eq!(read(dir).unwrap().len(), 3 * SYNC_EVERY);
        remove(dir, "image").unwrap();
        remove(dir, "image").unwrap();
        assert_eq!(read(dir), None);
    }

    #[test]
    fn a_file_that_was_replaced_meanwhile_is_not_linked() {
        let (dir, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let write = |bytes: &[u8]| {
            let mut file = NewRocksFile::create(dir.path(), "image").unwrap();
            file.write(bytes).unwrap();
            Box::new(file).finish().unwrap();
        };
        assert!(Then::of(dir.path(), "image").unwrap().is_none());
        write(b"first");
        let then = Then::of(dir.path(), "image").unwrap().unwrap();
        write(b"second");
        then.link(dir.path(), to.path()).unwrap();
        assert_eq!(read(to.path()), None);
        let then = Then::of(dir.path(), "image").unwrap().unwrap();
        then.link(dir.path(), to.path()).unwrap();
        write(b"third");
        assert_eq!(read(to.path()).unwrap(), b"second");
        remove(to.path(), "image").unwrap();
        remove(dir.path(), "image").unwrap();
        then.link(dir.path(), to.path()).unwrap();
        assert_eq!(read(to.path()), None);
    }
}

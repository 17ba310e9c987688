//! For crash tests on real files: the store as it was last flushed, kept beside it, and a way back to that.
//!
//! `kill -9` alone keeps the page cache, so whatever RocksDB or this module wrote without a sync would still be there. A [`LastFlush`] is a copy (hard
//! links and a manifest of its own) that is replaced after each flush, before anybody is told of it and purges the log. [`cut_back`] makes it the state of
//! a member that was killed.

use std::{fs, io, path::Path, path::PathBuf};

use super::{Store, StoreError, dir};

const KEPT: &str = "last-flush";
/// Whole as soon as it is there: checkpoints appear by a rename.
const NEXT: &str = "last-flush.next";

/// Keeps the copy.
#[derive(Debug)]
pub struct LastFlush {
    member: PathBuf,
}

impl LastFlush {
    /// Keeps it in the directory `member`, which the state's directory is in.
    pub fn new(member: PathBuf) -> Self {
        Self { member }
    }

    /// Replaces the copy. Flushes the store.
    pub fn keep(&self, store: &dyn Store) -> Result<(), StoreError> {
        let (kept, next) = (self.member.join(KEPT), self.member.join(NEXT));
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { path, action, source }
        };
        dir::remove(&next)?;
        store.checkpoint(&next, &[])?;
        dir::remove(&kept)?;
        fs::rename(&next, &kept).map_err(failed("renaming", &next))
    }
}

/// Makes the last flush the state of the member in the directory `member`. To be used after a server that kept it was killed, and before it is started
/// again.
///
/// Fails if none was kept, so that a test cannot pass because keeping it was forgotten.
pub fn cut_back(member: &Path) -> io::Result<()> {
    let state = dir::current(member)?;
    // While there is a next one, the one before may be half removed.
    let copies = [member.join(NEXT), member.join(KEPT)];
    let last = copies
        .iter()
        .find(|copy| copy.exists())
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("no flush was kept in {}", member.display())))?;
    fs::remove_dir_all(&state)?;
    fs::rename(last, &state)?;
    copies.iter().filter(|copy| copy.exists()).try_for_each(fs::remove_dir_all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, RocksOptions, StateDir, Table};

    #[test]
    fn what_came_after_the_last_flush_is_gone() {
        let root = tempfile::tempdir().unwrap();
        let write = |store: &dyn Store, value: &'static str| {
            let mut batch = Batch::default();
            batch.put(Table::Meta, &b"a"[..], value);
            store.write(&batch).unwrap();
        };
        assert!(cut_back(root.path()).is_err(), "there is no state");
        let (_, store) = StateDir::open(root.path(), &RocksOptions::default()).unwrap();
        assert!(cut_back(root.path()).unwrap_err().to_string().contains("no flush was kept"));
        let last = LastFlush::new(root.path().to_owned());
        for value in ["1", "2"] {
            write(&store, value);
            last.keep(&store).unwrap();
        }
        write(&store, "3");
        store.flush().unwrap();
        drop(store);
        cut_back(root.path()).unwrap();
        let (_, store) = StateDir::open(root.path(), &RocksOptions::default()).unwrap();
        assert_eq!(store.get(Table::Meta, b"a").unwrap().unwrap(), "2");

        // Killed while the copy before was being removed.
        last.keep(&store).unwrap();
        write(&store, "4");
        store.checkpoint(&root.path().join(NEXT), &[]).unwrap();
        drop(store);
        fs::remove_file(root.path().join(KEPT).join("CURRENT")).unwrap();
        cut_back(root.path()).unwrap();
        let (_, store) = StateDir::open(root.path(), &RocksOptions::default()).unwrap();
        assert_eq!(store.get(Table::Meta, b"a").unwrap().unwrap(), "4");
    }
}

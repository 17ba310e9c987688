//! Which directory holds the state.
//!
//! The state lives in `state-<n>/`, and the file `CURRENT` beside it says which `n`. A new state (a received snapshot) is built in the next directory and
//! becomes the state by replacing `CURRENT` atomically; a directory that is open is never renamed, so readers of the old one go on.
//!
//! ```text
//! CURRENT      state-3            the state is there
//!              state-1 new        nothing was ever there: its creation did not finish, and begins anew
//! state-3/     the store
//! state-4/     not named: a next state that was not finished, or an old one; removed on start
//! ```

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::{RocksOptions, RocksStore, StoreError};

const POINTER: &str = "CURRENT";
const POINTER_NEXT: &str = "CURRENT.next";
const PREFIX: &str = "state-";
const NEW_MARK: &str = " new";

/// The state directories of one data directory. The caller holds the data directory's lock.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    current: u64,
    /// The next number never used in this run.
    next: u64,
}

impl StateDir {
    /// Opens the current state of the data directory `root`, or creates the first one, and removes leftovers.
    pub fn open(root: &Path, options: &RocksOptions) -> Result<(Self, RocksStore), StoreError> {
        fs::create_dir_all(root).map_err(|source| failed(root, "creating the directory", source))?;
        let pointer = root.join(POINTER);
        let (current, new) = match fs::read_to_string(&pointer) {
            Ok(text) => parse(&text).ok_or_else(|| StoreError::Unusable {
                path: pointer.clone(),
                reason: format!("it says {text:?}; expected \"{PREFIX}<number>\""),
            })?,
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                if let Some((number, path)) = numbered(root)?.into_iter().next_back() {
                    return Err(StoreError::Unusable {
                        path: pointer,
                        reason: format!(
                            "it is missing, but {} exists; if that is the state, write \"{PREFIX}{number}\" into the missing file",
                            path.display()
                        ),
                    });
                }
                write_pointer(root, 1, true)?;
                (1, true)
            }
            Err(source) => return Err(failed(&pointer, "reading", source)),
        };
        let mut this = Self { root: root.to_owned(), current, next: current + 1 };
        let path = this.path();
        let store = if new {
            remove(&path)?;
            let store = RocksStore::create(&path, options)?;
            sync_dir(&path)?;
            sync_dir(root)?;
            write_pointer(root, current, false)?;
            store
        } else {
            RocksStore::open(&path, options)?
        };
        this.clean()?;
        this.next = current + 1;
        Ok((this, store))
    }

    /// The directory of the current state.
    pub fn path(&self) -> PathBuf {
        self.numbered(self.current)
    }

    fn numbered(&self, number: u64) -> PathBuf {
        self.root.join(format!("{PREFIX}{number}"))
    }

    /// A path for the next state that does not exist. It counts for nothing until [`StateDir::switch`].
    pub fn prepare(&mut self) -> Result<PathBuf, StoreError> {
        let path = self.numbered(self.next);
        self.next += 1;
        remove(&path)?;
        Ok(path)
    }

    /// Makes `next`, which [`StateDir::prepare`] named and which holds a finished store, the current state: durable when this returns. The directory it
    /// replaces stays until [`StateDir::clean`] or the next start.
    pub fn switch(&mut self, next: &Path) -> Result<(), StoreError> {
        let number = next.file_name().and_then(|name| name.to_str()).and_then(parse).map(|(number, _)| number);
        let Some(number) = number.filter(|number| next == self.numbered(*number) && *number > self.current) else {
            return Err(StoreError::Unusable {
                path: next.to_owned(),
                reason: "this is not the next state's directory".into(),
            });
        };
        for entry in list(next)? {
            let file = match File::open(&entry) {
                Ok(file) => file,
                // A store that is open removes files that it needs no more.
                Err(source) if source.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(failed(&entry, "opening", source)),
            };
            file.sync_all().map_err(|source| failed(&entry, "syncing", source))?;
        }
        sync_dir(next)?;
        sync_dir(&self.root)?;
        write_pointer(&self.root, number, false)?;
        self.current = number;
        Ok(())
    }

    /// Removes the state directory `path`, unless it is the current one.
    pub fn remove(&self, path: &Path) -> Result<(), StoreError> {
        if path == self.path() { Ok(()) } else { remove(path) }
    }

    /// Removes the state directories that are not the current one.
    pub fn clean(&self) -> Result<(), StoreError> {
        for (number, path) in numbered(&self.root)? {
            if number != self.current {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

pub(super) fn failed(path: &Path, action: &'static str, source: io::Error) -> StoreError {
    StoreError::Io { path: path.to_owned(), action, source }
}

/// Number and whether its creation is unfinished.
fn parse(text: &str) -> Option<(u64, bool)> {
    let text = text.trim_end_matches('\n');
    let (text, new) = text.strip_suffix(NEW_MARK).map_or((text, false), |text| (text, true));
    let digits = text.strip_prefix(PREFIX)?;
    let number = digits.parse().ok()?;
    (format!("{number}") == digits).then_some((number, new))
}

/// The directory of the state in `root`.
pub(super) fn current(root: &Path) -> io::Result<PathBuf> {
    let text = fs::read_to_string(root.join(POINTER))?;
    let (number, _) = parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text.clone()))?;
    Ok(root.join(format!("{PREFIX}{number}")))
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let entries = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    entries.map_err(|source| failed(dir, "listing", source))
}

/// The state directories by number.
fn numbered(root: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let number =
        |path: &PathBuf| path.file_name().and_then(|name| name.to_str()).and_then(parse).map(|(number, _)| number);
    let mut found: Vec<_> = list(root)?.into_iter().filter_map(|path| Some((number(&path)?, path))).collect();
    found.sort();
    Ok(found)
}

pub(super) fn remove(dir: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(dir) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(failed(dir, "removing", source)),
        _ => Ok(()),
    }
}

pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| failed(dir, "syncing the directory", source))
}

fn write_pointer(root: &Path, number: u64, new: bool) -> Result<(), StoreError> {
    let next = root.join(POINTER_NEXT);
    let write = || {
        let mut file = File::create(&next)?;
        writeln!(file, "{PREFIX}{number}{}", if new { NEW_MARK } else { "" })?;
        file.sync_all()?;
        fs::rename(&next, root.join(POINTER))
    };
    write().map_err(|source| failed(&next, "writing", source))?;
    sync_dir(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, Store, Table};

    fn mark(store: &RocksStore, value: &'static [u8]) {
        let mut batch = Batch::default();
        batch.put(Table::Meta, &b"mark"[..], value);
        store.write(&batch).unwrap();
        store.flush().unwrap();
    }

    fn marked(store: &RocksStore) -> Option<bytes::Bytes> {
        store.get(Table::Meta, b"mark").unwrap()
    }

    #[test]
    fn the_first_start_creates_a_state_and_the_next_finds_it() {
        let root = tempfile::tempdir().unwrap();
        let options = RocksOptions::default();
        let (dir, store) = StateDir::open(root.path(), &options).unwrap();
        mark(&store, b"first");
        drop(store);
        let (again, store) = StateDir::open(root.path(), &options).unwrap();
        assert_eq!(again.path(), dir.path());
        assert_eq!(marked(&store).unwrap(), "first");
    }

    #[test]
    fn a_switch_is_durable_and_the_old_directory_stays_open_until_cleaned() {
        let root = tempfile::tempdir().unwrap();
        let options = RocksOptions::default();
        let (mut dir, old) = StateDir::open(root.path(), &options).unwrap();
        mark(&old, b"old");
        let old_path = dir.path();
        let next = dir.prepare().unwrap();
        let new = RocksStore::create(&next, &options).unwrap();
        mark(&new, b"new");
        drop(new);
        dir.switch(&next).unwrap();
        assert_eq!(marked(&old).unwrap(), "old");
        assert_eq!(dir.path(), next);
        drop(old);
        let (dir, store) = StateDir::open(root.path(), &options).unwrap();
        assert_eq!(marked(&store).unwrap(), "new");
        assert_eq!(dir.path(), next);
        assert!(!old_path.exists(), "the leftover stayed");
    }

    #[test]
    fn an_unfinished_next_state_is_removed_on_start() {
        let root = tempfile::tempdir().unwrap();
        let options = RocksOptions::default();
        let (mut dir, store) = StateDir::open(root.path(), &options).unwrap();
        let next = dir.prepare().unwrap();
        drop(RocksStore::create(&next, &options).unwrap());
        assert_ne!(dir.prepare().unwrap(), next);
        drop(store);
        let (_dir, _store) = StateDir::open(root.path(), &options).unwrap();
        assert!(!next.exists());
    }

    #[test]
    fn an_unfinished_first_state_is_created_anew() {
        let root = tempfile::tempdir().unwrap();
        write_pointer(root.path(), 1, true).unwrap();
        fs::create_dir(root.path().join("state-1")).unwrap();
        fs::write(root.path().join("state-1/000001.log"), "half").unwrap();
        let (_dir, store) = StateDir::open(root.path(), &RocksOptions::default()).unwrap();
        assert_eq!(marked(&store), None);
    }

    #[test]
    fn a_lost_or_damaged_pointer_is_refused_and_nothing_is_removed() {
        let root = tempfile::tempdir().unwrap();
        let options = RocksOptions::default();
        let (dir, store) = StateDir::open(root.path(), &options).unwrap();
        mark(&store, b"kept");
        drop(store);
        for damage in [None, Some(""), Some("state-01"), Some("state-x"), Some("../state-1")] {
            let pointer = root.path().join(POINTER);
            match damage {
                None => fs::remove_file(&pointer).unwrap(),
                Some(text) => fs::write(&pointer, text).unwrap(),
            }
            let refused = StateDir::open(root.path(), &options).map(|_| ());
            assert!(matches!(refused, Err(StoreError::Unusable { .. })), "{damage:?}: {refused:?}");
        }
        write_pointer(root.path(), 1, false).unwrap();
        let (again, store) = StateDir::open(root.path(), &options).unwrap();
        assert_eq!(again.path(), dir.path());
        assert_eq!(marked(&store).unwrap(), "kept");
    }
}

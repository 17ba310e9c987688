//! A store in memory that forgets like a disk.
//!
//! What was written since the last flush is gone after [`MemStore::crash`], and flushes can come by themselves at moments drawn from a seed, as an engine's
//! do when its buffers fill. Writes can be made to stall or fail, so that the paths behind those answers are walked too.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Cursor, Read},
    ops::Bound,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{Batch, Cached, NewFile, Op, Store, StoreError, StoreSize, Table, Visit};

/// The contents of all tables at some point of the write order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Tables([BTreeMap<Bytes, Bytes>; Table::ALL.len()]);

impl Tables {
    fn of(&self, table: Table) -> &BTreeMap<Bytes, Bytes> {
        &self.0[table as usize]
    }

    fn apply(&mut self, batch: &Batch) {
        for op in batch.ops() {
            match op {
                Op::Put(table, key, value) => {
                    self.0[*table as usize].insert(key.clone(), value.clone());
                }
                Op::Delete(table, key) | Op::SingleDelete(table, key) => {
                    self.0[*table as usize].remove(key);
                }
            }
        }
    }

    fn bytes(&self) -> u64 {
        self.0.iter().flatten().map(|(key, value)| (key.len() + value.len()) as u64).sum()
    }
}

/// What is flushed lags behind what is written by the batches in `pending`.
#[derive(Debug, Default)]
struct Contents {
    written: Tables,
    flushed: Tables,
    pending: Vec<Batch>,
    pending_bytes: u64,
}

impl Contents {
    fn flush(&mut self) {
        for batch in self.pending.drain(..) {
            self.flushed.apply(&batch);
        }
        self.pending_bytes = 0;
    }
}

/// Flushes that nobody asked for.
#[derive(Debug)]
struct Whims {
    random: StdRng,
    flush_one_in: u32,
}

/// What the next writes meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Weather {
    #[default]
    Fair,
    Stalled,
    Broken,
}

/// A [`Store`] in memory with the crash semantics of one on disk.
#[derive(Debug, Default)]
pub struct MemStore {
    contents: RwLock<Contents>,
    whims: Option<Mutex<Whims>>,
    weather: Mutex<Weather>,
    checkpoints: Mutex<HashMap<PathBuf, (Tables, NamedBytes)>>,
    files: Files,
}

/// What is in files, by their names.
type NamedBytes = HashMap<&'static str, Bytes>;

/// Files by name.
type Files = Arc<Mutex<NamedBytes>>;

/// A file being written.
struct NewMemFile {
    name: &'static str,
    bytes: Vec<u8>,
    files: Files,
}

impl NewFile for NewMemFile {
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), StoreError> {
        self.files.lock().insert(self.name, self.bytes.into());
        Ok(())
    }
}

impl MemStore {
    /// An empty store that flushes only when told to.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that also flushes after about one in `flush_one_in` writes, the same ones for the same seed.
    pub fn with_flushes(seed: u64, flush_one_in: u32) -> Self {
        Self::default().flushing(seed, flush_one_in)
    }

    /// The same store, which from now on also flushes after about one in `flush_one_in` writes.
    #[must_use]
    pub fn flushing(self, seed: u64, flush_one_in: u32) -> Self {
        let whims = Whims { random: StdRng::seed_from_u64(seed), flush_one_in: flush_one_in.max(1) };
        Self { whims: Some(Mutex::new(whims)), ..self }
    }

    /// Forgets every batch since the last flush, as a crash of the machine does.
    pub fn crash(&self) {
        let contents = &mut *self.contents.write();
        contents.written = contents.flushed.clone();
        contents.pending.clear();
        contents.pending_bytes = 0;
    }

    /// Makes writes answer [`StoreError::Stalled`] until told otherwise.
    pub fn set_stalled(&self, stalled: bool) {
        *self.weather.lock() = if stalled { Weather::Stalled } else { Weather::Fair };
    }

    /// Makes writes and flushes fail for good, as a broken disk does.
    pub fn break_disk(&self) {
        *self.weather.lock() = Weather::Broken;
    }

    /// The store that [`Store::checkpoint`] left at `dir`.
    pub fn open_checkpoint(&self, dir: &Path) -> Option<Self> {
        let (tables, files) = self.checkpoints.lock().get(dir)?.clone();
        Some(Self {
            contents: RwLock::new(Contents { written: tables.clone(), flushed: tables, ..Contents::default() }),
            files: Arc::new(Mutex::new(files)),
            ..Self::default()
        })
    }

    fn check_disk(&self, action: &'static str) -> Result<(), StoreError> {
        match *self.weather.lock() {
            Weather::Broken => Err(StoreError::Engine {
                path: PathBuf::from("memory"),
                action,
                reason: "the disk was made to fail".into(),
            }),
            Weather::Fair | Weather::Stalled => Ok(()),
        }
    }
}

impl Store for MemStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.contents.read_recursive().written.of(table).get(key).cloned())
    }

    fn get_cached(&self, table: Table, key: &[u8]) -> Result<Cached, StoreError> {
        self.get(table, key).map(Cached::Known)
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]], _cached: bool) -> Result<Vec<Option<Bytes>>, StoreError> {
        let contents = self.contents.read_recursive();
        Ok(keys.iter().map(|key| contents.written.of(table).get(*key).cloned()).collect())
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        if to.is_some_and(|to| to <= from) {
            return Ok(());
        }
        let contents = self.contents.read_recursive();
        let range = (Bound::Included(from), to.map_or(Bound::Unbounded, Bound::Excluded));
        for (key, value) in contents.written.of(table).range::<[u8], _>(range) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        self.check_disk("write")?;
        if *self.weather.lock() == Weather::Stalled {
            return Err(StoreError::Stalled);
        }
        let contents = &mut *self.contents.write();
        contents.written.apply(batch);
        contents.pending.push(batch.clone());
        contents.pending_bytes += batch.bytes() as u64;
        if let Some(whims) = &self.whims {
            let mut whims = whims.lock();
            let one_in = whims.flush_one_in;
            if whims.random.random_range(0..one_in) == 0 {
                contents.flush();
            }
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        self.check_disk("flush")?;
        self.contents.write().flush();
        Ok(())
    }

    fn get_persisted(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.contents.read_recursive().flushed.of(table).get(key).cloned())
    }

    fn size(&self) -> Result<StoreSize, StoreError> {
        let bytes = self.contents.read_recursive().flushed.bytes();
        Ok(StoreSize { total: bytes, in_use: bytes })
    }

    fn unflushed_bytes(&self) -> u64 {
        self.contents.read_recursive().pending_bytes
    }

    fn compact(&self) -> Result<(), StoreError> {
        self.flush()
    }

    fn create_file(&self, name: &'static str) -> Result<Box<dyn NewFile>, StoreError> {
        self.check_disk("create a file")?;
        Ok(Box::new(NewMemFile { name, bytes: Vec::new(), files: Arc::clone(&self.files) }))
    }

    fn open_file(&self, name: &'static str) -> Result<Option<Box<dyn Read + Send>>, StoreError> {
        let file = self.files.lock().get(name).cloned();
        Ok(file.map(|bytes| Box::new(Cursor::new(bytes)) as Box<dyn Read + Send>))
    }

    fn remove_file(&self, name: &'static str) -> Result<(), StoreError> {
        self.files.lock().remove(name);
        Ok(())
    }

    fn checkpoint(&self, dir: &Path, files: &[&'static str]) -> Result<(), StoreError> {
        let mut then = self.files.lock().clone();
        then.retain(|name, _| files.contains(name));
        self.flush()?;
        let tables = self.contents.read_recursive().flushed.clone();
        let mut checkpoints = self.checkpoints.lock();
        if checkpoints.contains_key(dir) {
            return Err(StoreError::Unusable {
                path: dir.to_owned(),
                reason: "a checkpoint needs a directory that does not exist yet".into(),
            });
        }
        let now = self.files.lock();
        then.retain(|name, bytes| now.get(name).is_some_and(|now| now.as_ptr() == bytes.as_ptr()));
        checkpoints.insert(dir.to_owned(), (tables, then));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static [u8], value: &'static [u8]) -> Batch {
        let mut batch = Batch::default();
        batch.put(Table::Meta, key, value);
        batch
    }

    #[test]
    fn a_crash_forgets_what_was_not_flushed() {
        let store = MemStore::new();
        store.write(&put(b"a", b"1")).unwrap();
        store.flush().unwrap();
        store.write(&put(b"a", b"2")).unwrap();
        assert_eq!(store.get(Table::Meta, b"a").unwrap().unwrap(), "2");
        assert_eq!(store.get_persisted(Table::Meta, b"a").unwrap().unwrap(), "1");
        assert!(store.unflushed_bytes() > 0);
        store.crash();
        assert_eq!(store.get(Table::Meta, b"a").unwrap().unwrap(), "1");
        assert_eq!(store.unflushed_bytes(), 0);
    }

    #[test]
    fn flushes_from_a_seed_come_at_the_same_moments() {
        let survivors = |seed| {
            let store = MemStore::with_flushes(seed, 4);
            let counts: Vec<_> = (0..64_u8)
                .map(|n| {
                    let mut batch = Batch::default();
                    batch.put(Table::Meta, vec![n], vec![]);
                    store.write(&batch).unwrap();
                    store.unflushed_bytes()
                })
                .collect();
            counts
        };
        assert_eq!(survivors(7), survivors(7));
        assert!(survivors(7).contains(&0), "no flush in 64 writes");
        assert_ne!(survivors(7), survivors(8));
    }

    #[test]
    fn a_stalled_store_writes_nothing_and_takes_the_batch_later() {
        let store = MemStore::new();
        store.set_stalled(true);
        assert!(matches!(store.write(&put(b"a", b"1")), Err(StoreError::Stalled)));
        assert_eq!(store.get(Table::Meta, b"a").unwrap(), None);
        store.set_stalled(false);
        store.write(&put(b"a", b"1")).unwrap();
        assert!(store.get(Table::Meta, b"a").unwrap().is_some());
    }
}

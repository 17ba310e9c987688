//! The store on disk: RocksDB.
//!
//! Each [`Table`] is a column family. RocksDB's own log is off: the raft log is the log, and because all families are flushed atomically, what is on disk
//! is the state after some batch, whole, with the applied index that belongs to it. So a crash costs a replay and never a contradiction.
//!
//! Writes never wait: with full buffers RocksDB refuses them ([`StoreError::Stalled`]) and the caller decides. A failure of RocksDB in the background
//! (a flush that could not write) is reported by the next write or flush, for RocksDB itself would go on retrying in silence.
//!
//! The default family, which holds no table, carries one record: the layout version of the store. It tells a store of ours from anything else.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use rocksdb::{
    BottommostLevelCompaction, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB, DEFAULT_COLUMN_FAMILY_NAME,
    Error, ErrorKind, FlushOptions, Options, ReadOptions, ReadTier, WriteBatch, WriteOptions, checkpoint::Checkpoint,
    properties,
};

use super::{Batch, Cached, NewFile, Op, Store, StoreError, StoreSize, Table, Visit, dir::sync_dir};

mod file;
mod options;

pub use options::RocksOptions;

/// Key of the layout version in the default column family.
const LAYOUT_KEY: &[u8] = b"cairn-store-layout";
/// The layout that this code writes: tables by name, one record each as `state/` defines them.
const LAYOUT: u32 = 1;
/// Bytes that a scan of revisions reads at once. Of the sizes tried, larger ones were no faster, and RocksDB's own growing steps a quarter slower.
const READAHEAD_BYTES: usize = 64 << 10;

/// A [`Store`] in a directory.
pub struct RocksStore {
    db: DB,
    path: PathBuf,
    write: WriteOptions,
    read: ReadOptions,
    read_uncached: ReadOptions,
    read_cached: ReadOptions,
    read_persisted: ReadOptions,
    /// See [`Store::unflushed_bytes`]: asking RocksDB takes its lock once a table.
    unflushed: AtomicU64,
}

impl std::fmt::Debug for RocksStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RocksStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl RocksStore {
    /// Creates an empty store in `path`, which must be missing or empty.
    pub fn create(path: &Path, options: &RocksOptions) -> Result<Self, StoreError> {
        let unusable = |reason: &str| StoreError::Unusable { path: path.to_owned(), reason: reason.into() };
        match fs::read_dir(path).map(|mut entries| entries.next().is_some()) {
            Ok(true) => {
                return Err(unusable("the directory is not empty; a new store needs an empty one"));
            }
            Ok(false) => {}
            Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
                fs::create_dir_all(path).map_err(|source| StoreError::Io {
                    path: path.to_owned(),
                    action: "creating the directory",
                    source,
                })?;
            }
            Err(source) => {
                return Err(StoreError::Io { path: path.to_owned(), action: "listing the directory", source });
            }
        }
        let mut db_options = options.database();
        db_options.create_if_missing(true);
        db_options.create_missing_column_families(true);
        let store = Self::open_with(path, options, &db_options)?;
        store
            .db
            .put_opt(LAYOUT_KEY, LAYOUT.to_be_bytes(), &store.write)
            .map_err(|error| store.engine("writing the layout version", error))?;
        store.flush()?;
        Ok(store)
    }

    /// Opens the store in `path`.
    pub fn open(path: &Path, options: &RocksOptions) -> Result<Self, StoreError> {
        let unusable = |reason: String| StoreError::Unusable { path: path.to_owned(), reason };
        if !path.join("CURRENT").is_file() {
            return Err(unusable(if path.is_dir() {
                "the file CURRENT is missing, so this is no store or a damaged one; restore the directory from a backup or \
                 let the member be replaced"
                    .into()
            } else {
                "there is no such directory".into()
            }));
        }
        let db_options = options.database();
        let families = DB::list_cf(&db_options, path).map_err(|error| {
            unusable(format!("its list of files cannot be read, a file may be missing or damaged: {error}"))
        })?;
        let known =
            |name: &String| name == DEFAULT_COLUMN_FAMILY_NAME || Table::ALL.iter().any(|table| table.name() == name);
        if let Some(unknown) = families.iter().find(|name| !known(name)) {
            return Err(unusable(format!(
                "it has a table {unknown:?} that this version does not know; it was written by a newer version or by another program"
            )));
        }
        if let Some(missing) = Table::ALL.iter().find(|table| !families.iter().any(|name| name == table.name())) {
            return Err(unusable(format!("it has no table {:?}; it was written by another program", missing.name())));
        }
        let store = Self::open_with(path, options, &db_options)?;
        store.check_layout()?;
        Ok(store)
    }

    fn open_with(path: &Path, options: &RocksOptions, db_options: &Options) -> Result<Self, StoreError> {
        let db = DB::open_cf_descriptors(db_options, path, descriptors(options));
        Self::of(db, path)
    }

    /// Opens the store in `path` only to look at it. Nobody else may have it open for anything else.
    pub fn open_read_only(path: &Path, options: &RocksOptions) -> Result<Self, StoreError> {
        let db = DB::open_cf_descriptors_read_only(&options.database(), path, descriptors(options), false);
        let store = Self::of(db, path)?;
        store.check_layout()?;
        Ok(store)
    }

    fn of(db: Result<DB, Error>, path: &Path) -> Result<Self, StoreError> {
        let db = db.map_err(|error| StoreError::Unusable {
            path: path.to_owned(),
            reason: match error.kind() {
                ErrorKind::IOError if error.as_ref().contains("lock") => {
                    format!("another process has it open: {error}")
                }
                _ => format!("it cannot be opened, a file may be missing or damaged: {error}"),
            },
        })?;
        let mut write = WriteOptions::default();
        write.disable_wal(true);
        write.set_no_slowdown(true);
        let mut read_cached = ReadOptions::default();
        read_cached.set_read_tier(ReadTier::BlockCache);
        let mut read_persisted = ReadOptions::default();
        read_persisted.set_read_tier(ReadTier::Persisted);
        let read = ReadOptions::default();
        let mut read_uncached = ReadOptions::default();
        read_uncached.fill_cache(false);
        let unflushed = AtomicU64::new(0);
        Ok(Self { db, path: path.to_owned(), write, read, read_uncached, read_cached, read_persisted, unflushed })
    }

    fn check_layout(&self) -> Result<(), StoreError> {
        let unusable = |reason: String| StoreError::Unusable { path: self.path.clone(), reason };
        let record = self.db.get(LAYOUT_KEY).map_err(|error| self.engine("reading the layout version", error))?;
        let layout = record.and_then(|record| record.try_into().ok()).map(u32::from_be_bytes);
        match layout {
            Some(LAYOUT) => Ok(()),
            Some(newer) if newer > LAYOUT => Err(unusable(format!(
                "it has layout {newer} and this version knows up to {LAYOUT}; start the version that wrote it, or a newer one"
            ))),
            Some(other) => Err(unusable(format!("layout {other} was never written; the directory is damaged"))),
            None => Err(unusable("it has no layout version; it was written by another program".into())),
        }
    }

    /// Directory of the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn family(&self, table: Table) -> &ColumnFamily {
        self.db.cf_handle(table.name()).expect("every table's column family was opened with the database")
    }

    fn engine(&self, action: &'static str, error: Error) -> StoreError {
        StoreError::Engine { path: self.path.clone(), action, reason: error.into_string() }
    }

    fn property(&self, table: Table, name: &properties::PropName) -> Result<u64, StoreError> {
        let value = self.db.property_int_value_cf(self.family(table), name);
        Ok(value.map_err(|error| self.engine("reading a property", error))?.unwrap_or(0))
    }

    fn sum(&self, name: &properties::PropName) -> Result<u64, StoreError> {
        Table::ALL.iter().map(|table| self.property(*table, name)).sum()
    }

    fn measure_unflushed(&self) -> Result<(), StoreError> {
        self.unflushed.store(self.sum(properties::CUR_SIZE_ALL_MEM_TABLES)?, Ordering::Relaxed);
        Ok(())
    }

    /// RocksDB retries failed flushes and compactions by itself; to us a disk that failed once is not to be trusted.
    fn check_background(&self) -> Result<(), StoreError> {
        match self.property(Table::Meta, properties::BACKGROUND_ERRORS)? {
            0 => Ok(()),
            errors => Err(StoreError::Engine {
                path: self.path.clone(),
                action: "writing files in the background",
                reason: format!("RocksDB counts {errors} failures; its file LOG names them (is the disk full?)"),
            }),
        }
    }
}

fn descriptors(options: &RocksOptions) -> impl Iterator<Item = ColumnFamilyDescriptor> {
    options.families().into_iter().map(|(name, options)| ColumnFamilyDescriptor::new(name, options))
}

impl Store for RocksStore {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_pinned_cf_opt(self.family(table), key, &self.read);
        let value = value.map_err(|error| self.engine("reading", error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn get_cached(&self, table: Table, key: &[u8]) -> Result<Cached, StoreError> {
        match self.db.get_pinned_cf_opt(self.family(table), key, &self.read_cached) {
            Ok(value) => Ok(Cached::Known(value.map(|value| Bytes::copy_from_slice(&value)))),
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(Cached::OnDisk),
            Err(error) => Err(self.engine("reading", error)),
        }
    }

    fn multi_get(&self, table: Table, keys: &[&[u8]], cached: bool) -> Result<Vec<Option<Bytes>>, StoreError> {
        let options = if cached { &self.read } else { &self.read_uncached };
        let keys_sorted = keys.is_sorted();
        let values = self.db.batched_multi_get_cf_opt(self.family(table), keys.iter().copied(), keys_sorted, options);
        let copy = |value: Option<rocksdb::DBPinnableSlice<'_>>| value.map(|value| Bytes::copy_from_slice(&value));
        values.into_iter().map(|value| value.map(copy).map_err(|error| self.engine("reading", error))).collect()
    }

    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError> {
        let mut options = ReadOptions::default();
        // A scan would push everything else out of the small cache.
        options.fill_cache(false);
        if table == Table::Rev {
            options.set_readahead_size(READAHEAD_BYTES);
        }
        if let Some(to) = to {
            if to <= from {
                return Ok(());
            }
            options.set_iterate_upper_bound(to);
        }
        let mut rows = self.db.raw_iterator_cf_opt(self.family(table), options);
        rows.seek(from);
        while let Some((key, value)) = rows.item() {
            if visit(key, value).is_break() {
                return Ok(());
            }
            rows.next();
        }
        rows.status().map_err(|error| self.engine("scanning", error))
    }

    fn write(&self, batch: &Batch) -> Result<(), StoreError> {
        self.check_background()?;
        let mut writes = WriteBatch::with_capacity_bytes(batch.bytes() + 24 * batch.ops().len());
        // Nearly everything goes there.
        let revisions = self.family(Table::Rev);
        for op in batch.ops() {
            match op {
                Op::Put(Table::Rev, key, value) => writes.put_cf(revisions, key, value),
                Op::Put(table, key, value) => writes.put_cf(self.family(*table), key, value),
                Op::Delete(table, key) => writes.delete_cf(self.family(*table), key),
                Op::SingleDelete(table, key) => writes.single_delete_cf(self.family(*table), key),
            }
        }
        self.db.write_opt(writes, &self.write).map_err(|error| match error.kind() {
            ErrorKind::Incomplete => StoreError::Stalled,
            _ => self.engine("writing", error),
        })?;
        self.unflushed.fetch_add(batch.bytes() as u64, Ordering::Relaxed);
        Ok(())
    }

    fn flush(&self) -> Result<(), StoreError> {
        let mut options = FlushOptions::default();
        options.set_wait(true);
        let default = self.db.cf_handle(DEFAULT_COLUMN_FAMILY_NAME);
        let families: Vec<_> = Table::ALL.iter().map(|table| self.family(*table)).chain(default).collect();
        self.db.flush_cfs_opt(&families, &options).map_err(|error| self.engine("flushing", error))?;
        self.measure_unflushed()?;
        self.check_background()
    }

    fn get_persisted(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.db.get_pinned_cf_opt(self.family(table), key, &self.read_persisted);
        let value = value.map_err(|error| self.engine("reading", error))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn size(&self) -> Result<StoreSize, StoreError> {
        self.measure_unflushed()?;
        Ok(StoreSize {
            total: self.sum(properties::TOTAL_SST_FILES_SIZE)?,
            in_use: self.sum(properties::ESTIMATE_LIVE_DATA_SIZE)?,
        })
    }

    fn unflushed_bytes(&self) -> u64 {
        self.unflushed.load(Ordering::Relaxed)
    }

    fn compact(&self) -> Result<(), StoreError> {
        self.flush()?;
        let mut options = CompactOptions::default();
        options.set_exclusive_manual_compaction(false);
        options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
        for table in Table::ALL {
            self.db.compact_range_cf_opt(self.family(table), None::<&[u8]>, None::<&[u8]>, &options);
        }
        self.check_background()
    }

    fn create_file(&self, name: &'static str) -> Result<Box<dyn NewFile>, StoreError> {
        Ok(Box::new(file::NewRocksFile::create(&self.path, name)?))
    }

    fn open_file(&self, name: &'static str) -> Result<Option<Box<dyn Read + Send>>, StoreError> {
        Ok(file::open(&self.path, name)?.map(|file| Box::new(file) as Box<dyn Read + Send>))
    }

    fn remove_file(&self, name: &'static str) -> Result<(), StoreError> {
        file::remove(&self.path, name)
    }

    fn checkpoint(&self, dir: &Path, files: &[&'static str]) -> Result<(), StoreError> {
        if dir.exists() {
            let reason = "a checkpoint needs a directory that does not exist yet".into();
            return Err(StoreError::Unusable { path: dir.to_owned(), reason });
        }
        let files = files.iter().map(|name| file::Then::of(&self.path, name)).collect::<Result<Vec<_>, _>>()?;
        let checkpoint = Checkpoint::new(&self.db).map_err(|error| self.engine("preparing a checkpoint", error))?;
        checkpoint.create_checkpoint(dir).map_err(|error| self.engine("making a checkpoint", error))?;
        files.iter().flatten().try_for_each(|file| file.link(&self.path, dir))?;
        sync_dir(dir)?;
        self.check_background()
    }
}

#[cfg(test)]
mod tests;

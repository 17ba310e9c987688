//! The store: named tables of ordered byte keys, written in atomic batches.
//!
//! What lives here: [`Store`], the little that the replicated state needs of a storage engine, and its two implementations: [`RocksStore`] on disk and
//! [`MemStore`] for simulation and tests. What may call it: `state/` and, for reads of values, `api/` through `state`'s reader.
//!
//! The one invariant: a batch is visible whole or not at all, and after a crash the tables hold exactly the batches up to some point of the write order
//! (the last flush), never a later one without an earlier one. There is no log of its own: what was not flushed is replayed from the raft log.

use std::{io::Read, ops::ControlFlow, path::Path};

use bytes::Bytes;

mod batch;
mod dir;
mod error;
mod last_flush;
mod mem;
mod rocks;

pub use batch::{Batch, Op};
pub use dir::StateDir;
pub use error::StoreError;
pub use last_flush::{LastFlush, cut_back};
pub use mem::MemStore;
pub use rocks::{RocksOptions, RocksStore};

/// A table of the store (a column family on disk).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// Every revision of every key, by revision: the value is the encoded `mvccpb.KeyValue`.
    Rev,
    /// Records of which there is one: applied index, revisions, membership state, versions.
    Meta,
    /// Leases by id.
    Lease,
    /// Users, roles and the auth switch.
    Auth,
    /// Members and removed members by id.
    Member,
    /// Raised alarms.
    Alarm,
}

impl Table {
    /// All tables, in the order of their declaration.
    pub const ALL: [Self; 6] = [Self::Rev, Self::Meta, Self::Lease, Self::Auth, Self::Member, Self::Alarm];

    /// The name of the column family.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rev => "rev",
            Self::Meta => "meta",
            Self::Lease => "lease",
            Self::Auth => "auth",
            Self::Member => "member",
            Self::Alarm => "alarm",
        }
    }
}

/// Answer of a look-up that may only use memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cached {
    /// The value is this, or the key is known to be absent.
    Known(Option<Bytes>),
    /// Only the disk can tell.
    OnDisk,
}

/// Sees keys and values in order until it breaks.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// What `state/` needs of a storage engine. All calls are safe from any thread; writes come from one thread at a time for all replicated tables
/// (background removal of compacted revisions may write concurrently).
pub trait Store: Send + Sync + 'static {
    /// The value of `key`, possibly from disk.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// The value of `key` if memory (memtables, block cache) can answer.
    fn get_cached(&self, table: Table, key: &[u8]) -> Result<Cached, StoreError>;

    /// Many values at once, in the order of `keys`. What had to be read for it stays in memory if `cached`.
    fn multi_get(&self, table: Table, keys: &[&[u8]], cached: bool) -> Result<Vec<Option<Bytes>>, StoreError>;

    /// Visits keys from `from` (inclusive) to `to` (exclusive; `None`: to the end) in order until the visitor breaks. Sees one consistent snapshot.
    fn scan(&self, table: Table, from: &[u8], to: Option<&[u8]>, visit: &mut Visit<'_>) -> Result<(), StoreError>;

    /// Writes the batch atomically into memory. [`StoreError::Stalled`] means nothing was written and the same batch may be tried again later.
    fn write(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Makes everything written so far durable, all tables at one point.
    fn flush(&self) -> Result<(), StoreError>;

    /// The value of `key` as it would be read after a crash now.
    fn get_persisted(&self, table: Table, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Bytes of the files: allocated and in use (live data, estimated).
    fn size(&self) -> Result<StoreSize, StoreError>;

    /// Bytes written but not yet flushed, about; measured with each [`Store::size`] and each flush, counted in between. Asked for with each put.
    fn unflushed_bytes(&self) -> u64;

    /// Rewrites the files without what was deleted.
    fn compact(&self) -> Result<(), StoreError>;

    /// Begins to write the file `name` beside the tables. Files have no part in batches and flushes.
    fn create_file(&self, name: &'static str) -> Result<Box<dyn NewFile>, StoreError>;

    /// The file `name`, if there is one, to be read from its beginning.
    fn open_file(&self, name: &'static str) -> Result<Option<Box<dyn Read + Send>>, StoreError>;

    /// Removes the file `name` durably, if there is one.
    fn remove_file(&self, name: &'static str) -> Result<(), StoreError>;

    /// Makes a durable copy of all tables in `dir` (which must not exist), sharing files where the file system can; and of those of `files` that were there
    /// when it began and are the same when it ends, so that no copy is newer than the tables.
    fn checkpoint(&self, dir: &Path, files: &[&'static str]) -> Result<(), StoreError>;
}

/// A file being written. Dropped unfinished, it never was.
pub trait NewFile: Send {
    /// Appends.
    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError>;

    /// Lets it take the place of the file of its name, at once and durably.
    fn finish(self: Box<Self>) -> Result<(), StoreError>;
}

/// Disk use of a [`Store`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreSize {
    /// Bytes of all files.
    pub total: u64,
    /// Bytes of live data, estimated.
    pub in_use: u64,
}

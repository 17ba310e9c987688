//! The interface of a durable raft log.

use std::sync::Arc;
use std::time::Duration;

use raft::eraftpb::{Entry, HardState};

use super::error::Result;
use super::spare::{Spare, SpareJob};
use super::terms::{EntryId, Terms};

/// What one raft `Ready` wants to have on the disk.
#[derive(Clone, Copy, Debug, Default)]
pub struct Change<'a> {
    /// A snapshot was installed: forget all entries and go on after this one. Done before the rest.
    pub reset: Option<EntryId>,
    /// Entries to append, in order and without gaps. If the log has an entry of the first one's index, it and all after
    /// it are overwritten.
    pub entries: &'a [Entry],
    /// The new hard state, if it changed.
    pub hard_state: Option<&'a HardState>,
}

/// How long the two steps of a sync took.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SyncTimes {
    /// The write.
    pub write: Duration,
    /// The `fdatasync` after it.
    pub fdatasync: Duration,
}

/// A durable raft log.
///
/// Changes are staged in memory; [`LogStore::sync`] makes everything staged durable with one write and one `fdatasync`,
/// as one numbered batch: after a crash all of it is there or nothing. The caller acknowledges nothing before `sync`
/// has returned.
///
/// Any error is final: whatever is on the disk, the store does nothing more (`LogError::Poisoned`) and must be opened
/// again.
pub trait LogStore: Send {
    /// Adds a change to the batch that the next [`LogStore::sync`] writes.
    ///
    /// Refused are: a gap in the entries, entries before the first one kept, overwriting a committed entry, falling
    /// terms, a commit index beyond the last entry.
    fn stage(&mut self, change: &Change<'_>) -> Result<()>;

    /// Whether something staged must be synced before it may be relied on. A hard state in which only the commit index
    /// moved need not: it goes with the next batch, and losing it in a crash costs nothing.
    fn needs_sync(&self) -> bool;

    /// Size of the batch that is staged.
    fn staged_bytes(&self) -> usize;

    /// Writes what is staged, also a commit index alone, and syncs. Returns the number of the last batch on the disk.
    fn sync(&mut self) -> Result<u64>;

    /// How long the last [`LogStore::sync`] took, for metrics; none if there was nothing to write.
    fn last_sync(&self) -> Option<SyncTimes>;

    /// Gives back whole segments in which no entry after `index` is; all entries up to `index` must be applied durably
    /// elsewhere. Syncs if there is something to give back. Returns the last entry that is gone; those after it can
    /// still be read.
    fn purge(&mut self, index: u64) -> Result<EntryId>;

    /// The entries' terms, staged ones included: from the entry before the first one kept to the last.
    fn terms(&self) -> &Terms;

    /// Bytes of the log in use, all segments together.
    fn size_bytes(&self) -> u64;

    /// A handle to read entries with, from any thread.
    fn reader(&self) -> Arc<dyn EntryReader>;

    /// If the next segment's file should be prepared now, the work to do, on whatever thread; its result comes back by
    /// [`LogStore::add_spare`]. A store that is given none prepares the file when it needs it.
    fn spare_job(&mut self) -> Option<SpareJob> {
        None
    }

    /// The outcome of a [`SpareJob`]; none if it failed, which is no error: the store tries again when it needs the
    /// file.
    fn add_spare(&mut self, spare: Option<Spare>) {
        drop(spare);
    }

    /// Stages entries and hard state, and syncs if that is needed.
    fn append(&mut self, entries: &[Entry], hard_state: Option<&HardState>) -> Result<()> {
        self.stage(&Change { reset: None, entries, hard_state })?;
        if self.needs_sync() {
            self.sync()?;
        }
        Ok(())
    }

    /// Begins again after `to`, a snapshot's last entry, and syncs.
    fn reset(&mut self, to: EntryId, hard_state: Option<&HardState>) -> Result<()> {
        self.stage(&Change { reset: Some(to), entries: &[], hard_state })?;
        self.sync()?;
        Ok(())
    }
}

/// Reads entries that are durable, beside the thread that writes.
pub trait EntryReader: Send + Sync {
    /// The entries from `low` up to but without `high`, as many as fit into `bytes_max` (counted as context and data
    /// plus 24 each) but at least one.
    ///
    /// What is read was the log at some moment during the call. `LogError::Purged` if entries are gone,
    /// `LogError::OutOfRange` if they are not there (yet).
    fn entries(&self, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>>;

    /// The term of a durable entry or of the one before the first.
    fn term(&self, index: u64) -> Option<u64>;

    /// Index of the first entry that can be read.
    fn first_index(&self) -> u64;

    /// The last durable entry.
    fn last(&self) -> EntryId;
}

//! The log as raft-rs sees it.
//!
//! raft-rs asks for entries for two purposes. To send them to a follower: then they are copied out of the cache, and if
//! they left it, the follower waits until they were fetched from the disk. To learn which are committed, or whether
//! there are membership changes among them: then they come without their data, which the core takes from the cache
//! itself when it applies them. That saves a copy of everything that is written.

use std::cell::RefCell;

use raft::{
    GetEntriesContext, RaftState, Storage, StorageError,
    eraftpb::{ConfState, Entry, HardState, Snapshot},
};

use super::{cache::EntryCache, snapshot::has};
use crate::log::Terms;

/// Committed entries named to the core at once.
const COMMITTED_ENTRIES_MAX: usize = 4096;

/// What the log holds when a member starts.
#[derive(Debug, Clone)]
pub struct LogStart {
    /// The hard state last synced.
    pub hard_state: HardState,
    /// Terms of all entries, from the one before the first on.
    pub terms: Terms,
    /// The entries after the applied index.
    pub entries: Vec<Entry>,
}

/// Entries that a follower needs and that left the cache.
pub(super) struct Miss {
    pub(super) low: u64,
    pub(super) high: u64,
    pub(super) bytes_max: u64,
    pub(super) context: GetEntriesContext,
}

/// The cache, and what raft-rs asks for once at its start.
pub(super) struct CachedLog {
    pub(super) cache: EntryCache,
    /// Entries from the disk, while raft-rs sends them.
    pub(super) fetched: Vec<Entry>,
    /// What was asked for in vain since this was last looked at.
    pub(super) misses: RefCell<Vec<Miss>>,
    /// The snapshot that is sent to whoever needs one.
    pub(super) offer: Option<Snapshot>,
    /// Who needs one that there is not, since this was last looked at.
    pub(super) wishes: RefCell<Vec<u64>>,
    hard_state: HardState,
    conf_state: ConfState,
}

impl CachedLog {
    pub(super) fn new(cache: EntryCache, hard_state: HardState, conf_state: ConfState) -> Self {
        Self {
            cache,
            fetched: Vec::new(),
            misses: RefCell::default(),
            offer: None,
            wishes: RefCell::default(),
            hard_state,
            conf_state,
        }
    }
}

/// As many of the entries as fit into a number of bytes, but at least one.
fn fitting<'a>(entries: impl Iterator<Item = &'a Entry>, bytes_max: u64) -> Vec<Entry> {
    let mut bytes = 0;
    let fits = |entry: &&Entry| {
        let first = bytes == 0;
        bytes += (entry.data.len() + entry.context.len()) as u64 + 1;
        first || bytes <= bytes_max
    };
    entries.take_while(fits).cloned().collect()
}

fn without_data(entry: &Entry) -> Entry {
    Entry { entry_type: entry.entry_type, term: entry.term, index: entry.index, ..Entry::default() }
}

impl Storage for CachedLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState { hard_state: self.hard_state.clone(), conf_state: self.conf_state.clone() })
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let bytes_max = max_size.into().unwrap_or(raft::NO_LIMIT);
        if low <= self.cache.before() {
            return Err(StorageError::Compacted.into());
        }
        if high > self.cache.last() + 1 {
            return Err(StorageError::Unavailable.into());
        }
        let to_send = context.can_async();
        let Some(entries) = self.cache.range(low, high) else {
            // Only what is applied ever leaves the cache, and raft-rs asks for that only in order to send it.
            if !to_send {
                return Err(StorageError::Unavailable.into());
            }
            if self.fetched.first().is_some_and(|first| first.index == low) {
                return Ok(fitting(self.fetched.iter().take_while(|entry| entry.index < high), bytes_max));
            }
            let high = self.cache.first_cached().map_or(high, |cached| cached.min(high));
            self.misses.borrow_mut().push(Miss { low, high, bytes_max, context });
            return Err(StorageError::LogTemporarilyUnavailable.into());
        };
        if to_send {
            return Ok(fitting(entries, bytes_max));
        }
        let count_max = if bytes_max == raft::NO_LIMIT { usize::MAX } else { COMMITTED_ENTRIES_MAX };
        Ok(entries.take(count_max).map(without_data).collect())
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        if index < self.cache.before() {
            return Err(StorageError::Compacted.into());
        }
        self.cache.term(index).ok_or_else(|| StorageError::Unavailable.into())
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.cache.before() + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.cache.last())
    }

    fn snapshot(&self, _request_index: u64, to: u64) -> raft::Result<Snapshot> {
        let fits = |offer: &&Snapshot| {
            let metadata = offer.get_metadata();
            // A log that was cut after the snapshot does not go on from it; a member that was added after it is not in it.
            metadata.index >= self.cache.before() && has(metadata.get_conf_state(), to)
        };
        if let Some(offer) = self.offer.as_ref().filter(fits) {
            return Ok(offer.clone());
        }
        let mut wishes = self.wishes.borrow_mut();
        if !wishes.contains(&to) {
            wishes.push(to);
        }
        Err(StorageError::SnapshotTemporarilyUnavailable.into())
    }
}

//! The replicated leases: which exist, for how long they were granted, and which keys hang on them.
//!
//! There is no clock here. When a lease runs out is the leader's judgement; it comes through the log as a revoke. Which
//! keys hang on a lease is rebuilt from the key index at start: every value names its lease.
//!
//! The table runs a batch ahead of the published revision. That is safe: what it shows is committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::RwLock;

use super::{auth::LeaseKeys, record::lease::LeaseRecord};

/// A lease as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: i64,
    /// Seconds granted.
    pub ttl: i64,
    /// Seconds that remained when last recorded; 0: the whole TTL.
    pub remaining: i64,
}

/// What applying a command did to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseChange {
    /// It was granted.
    Granted {
        /// Its id.
        id: i64,
        /// Seconds granted.
        ttl: i64,
    },
    /// It was revoked, with all its keys.
    Revoked {
        /// Its id.
        id: i64,
        /// It had run out.
        expired: bool,
    },
    /// Its remaining time was recorded.
    Checkpointed {
        /// Its id.
        id: i64,
        /// Seconds; 0: the whole time.
        remaining: i64,
    },
}

/// All leases.
#[derive(Debug, Default)]
pub(super) struct LeaseTable(BTreeMap<i64, Entry>);

#[derive(Debug)]
struct Entry {
    record: LeaseRecord,
    keys: BTreeSet<Bytes>,
}

impl LeaseTable {
    pub(super) fn contains(&self, id: i64) -> bool {
        self.0.contains_key(&id)
    }

    pub(super) fn key_count(&self, id: i64) -> usize {
        self.0.get(&id).map_or(0, |entry| entry.keys.len())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn insert(&mut self, id: i64, record: LeaseRecord) {
        self.0.insert(id, Entry { record, keys: BTreeSet::new() });
    }

    /// Ends a lease: its keys in order.
    pub(super) fn remove(&mut self, id: i64) -> Option<BTreeSet<Bytes>> {
        self.0.remove(&id).map(|entry| entry.keys)
    }

    /// Records the remaining seconds of a lease; the record to store, if the lease exists.
    pub(super) fn set_remaining(&mut self, id: i64, remaining: i64) -> Option<LeaseRecord> {
        let entry = self.0.get_mut(&id)?;
        entry.record.remaining = remaining;
        Some(entry.record)
    }

    /// Moves a key from one lease to another; 0 is no lease.
    pub(super) fn reattach(&mut self, key: &[u8], from: i64, to: i64) {
        if let Some(entry) = self.0.get_mut(&from) {
            entry.keys.remove(key);
        }
        if let Some(entry) = self.0.get_mut(&to) {
            // A copy: the request's bytes belong to a whole log entry.
            entry.keys.insert(Bytes::copy_from_slice(key));
        }
    }
}

/// Reads the leases. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LeaseView(pub(super) Arc<RwLock<LeaseTable>>);

impl LeaseView {
    /// A lease, if it exists.
    pub fn get(&self, id: i64) -> Option<Lease> {
        self.0.read().0.get(&id).map(|entry| lease(id, entry))
    }

    /// The keys of a lease in order; empty if it does not exist.
    pub fn keys(&self, id: i64) -> Vec<Bytes> {
        self.0.read().0.get(&id).map_or_else(Vec::new, |entry| entry.keys.iter().cloned().collect())
    }

    /// All leases by id.
    pub fn all(&self) -> Vec<Lease> {
        self.0.read().0.iter().map(|(id, entry)| lease(*id, entry)).collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.read().0.len()
    }
}

impl LeaseKeys for LeaseTable {
    fn all_keys(&self, lease: i64, look: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        self.0.get(&lease).is_none_or(|entry| entry.keys.iter().all(look))
    }

    fn all_keys_of_all(&self, look: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        self.0.values().all(|entry| entry.keys.iter().all(&mut *look))
    }
}

impl LeaseKeys for LeaseView {
    fn all_keys(&self, lease: i64, look: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        self.0.read().all_keys(lease, look)
    }

    fn all_keys_of_all(&self, look: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        self.0.read().all_keys_of_all(look)
    }
}

fn lease(id: i64, entry: &Entry) -> Lease {
    Lease { id, ttl: entry.record.ttl, remaining: entry.record.remaining }
}

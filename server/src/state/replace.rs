//! A snapshot takes the state's place.
//!
//! What others hold of the state, to read keys and tables, stays and shows the new one. Reads that have begun end on the old
//! one, which is there until the last of them, and whoever else holds it, lets go.

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
};

use super::{
    State, StateError,
    mvcc::Mvcc,
    record::{self, applied::Applied, installing},
};
use crate::{
    log::EntryId,
    store::{Batch, Store, Table},
};

/// What is left of a state that was replaced. Dropping it may close the store, which waits for the disk.
#[derive(Debug)]
pub struct Replaced(#[expect(dead_code, reason = "held until it is dropped where waiting is allowed")] Arc<Mvcc>);

impl State {
    /// Becomes `other`, which is a later state of the same cluster. Who reads goes on with it, who watches hears of it. A
    /// batch that waited to be written is given up: what it would have done is in `other`.
    pub fn replace(&mut self, other: Self) -> Replaced {
        let Self {
            mvcc,
            leases,
            members,
            alarms,
            version,
            command_level,
            auth,
            raft_members,
            applied,
            open,
            scheduled,
            found,
            ..
        } = other;
        *self.leases.write() = mem::take(&mut *leases.write());
        self.lease_changes.clear();
        self.members.store(members.load_full());
        self.alarms.store(alarms.load_full());
        self.version.store(version.load_full());
        self.command_level.store(command_level.load(Ordering::Relaxed), Ordering::Relaxed);
        self.auth.store(auth.load_full());
        self.raft_members = raft_members;
        (self.applied, self.written) = (applied, applied);
        (self.open, self.scheduled, self.found) = (open, scheduled, found);
        self.planned.clear();
        self.stalled = false;
        self.mvcc = Arc::clone(&mvcc);
        let before = self.reader.replace(mvcc);
        if let Some(sink) = &self.changes {
            sink.jumped(self.open.revision);
        }
        if let Some(call) = &self.on_compaction {
            call();
        }
        Replaced(before)
    }
}

/// Index and term of the newest applied entry, raft's membership and the cluster, as a store has them.
pub fn identify(store: &dyn Store) -> Result<(EntryId, raft::eraftpb::ConfState, u64), StateError> {
    let meta = |key: &[u8]| store.get(Table::Meta, key);
    let Some(applied) = meta(record::applied::KEY)? else { return Err(StateError::Empty) };
    let Applied { index, term } = Applied::decode(&applied)?;
    let conf_state = meta(record::conf_state::KEY)?;
    let conf_state = conf_state.map(|bytes| record::conf_state::decode(&bytes)).transpose()?.unwrap_or_default();
    let cluster = meta(record::cluster::KEY)?.map(|bytes| record::cluster::decode(&bytes)).transpose()?.unwrap_or(0);
    Ok((EntryId { index, term }, conf_state, cluster))
}

/// Notes in a store that it is a snapshot being installed, up to entry `last`. Durable when it returns.
pub fn mark_installing(store: &dyn Store, last: EntryId) -> Result<(), StateError> {
    let mut batch = Batch::default();
    batch.put(Table::Meta, installing::KEY, installing::encode(last).to_vec());
    store.write(&batch)?;
    Ok(store.flush()?)
}

/// The last entry of the snapshot that a store is, if it was being installed when the process ended.
pub fn is_installing(store: &dyn Store) -> Result<Option<EntryId>, StateError> {
    Ok(store.get(Table::Meta, installing::KEY)?.map(|bytes| installing::decode(&bytes)).transpose()?)
}

/// Notes that the snapshot up to entry `last` is installed; nothing, if that is not the one being installed in this store.
/// Durable when it returns.
pub fn mark_installed(store: &dyn Store, last: EntryId) -> Result<(), StateError> {
    if is_installing(store)? != Some(last) {
        return Ok(());
    }
    let mut batch = Batch::default();
    batch.delete(Table::Meta, installing::KEY);
    store.write(&batch)?;
    Ok(store.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemStore;

    #[test]
    fn a_snapshot_that_is_installed_says_nothing_about_one_that_came_after_it() {
        let store = MemStore::new();
        let (first, second) = (EntryId::new(10, 2), EntryId::new(20, 2));
        mark_installing(&store, second).unwrap();
        mark_installed(&store, first).unwrap();
        assert_eq!(is_installing(&store).unwrap(), Some(second));
        mark_installed(&store, second).unwrap();
        store.crash();
        assert_eq!(is_installing(&store).unwrap(), None);
        mark_installed(&store, second).unwrap();
    }
}

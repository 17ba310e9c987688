//! Opening a store: reads the records, rebuilds what is kept in memory.

use std::{
    ops::ControlFlow,
    sync::{Arc, atomic::AtomicU32},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use parking_lot::RwLock;

use super::{
    State, StateError, StateOptions,
    alarms::Alarms,
    auth::{AuthStore, Tokens},
    command::COMMAND_LEVEL_FIRST,
    for_each,
    leases::LeaseTable,
    members::Members,
    mvcc::{
        self, Found, Mvcc, Open, Reader, StoreIs, find_image,
        index::{Index, RangeEnd, Visited},
        revision::Revision,
    },
    record::{self, RecordError, applied::Applied, finished::Finished, lease::LeaseRecord, member::MemberRecord},
};
use crate::store::{Store, Table};

/// The revision of a store in which nothing was written yet.
const FIRST_REVISION: i64 = 1;

impl State {
    /// Opens the state in `store`. An empty store gives an empty state, which [`State::bootstrap`] or a snapshot has to
    /// fill before anything is applied.
    pub fn open(store: Arc<dyn Store>, options: StateOptions) -> Result<Self, StateError> {
        let meta = |key: &[u8]| store.get(Table::Meta, key);
        if let Some(bytes) = meta(record::format::KEY)? {
            let (found, supported) = (record::format::decode(&bytes)?, record::format::STORAGE_FORMAT);
            if found > supported {
                return Err(StateError::NewerFormat { found, supported });
            }
        }
        let applied = meta(record::applied::KEY)?.map(|bytes| Applied::decode(&bytes)).transpose()?.unwrap_or_default();
        let revision = meta(record::current::KEY)?
            .map(|bytes| record::current::decode(&bytes))
            .transpose()?
            .unwrap_or(FIRST_REVISION);
        let scheduled = meta(record::scheduled::KEY)?
            .map(|bytes| record::scheduled::decode(&bytes))
            .transpose()?
            .unwrap_or_default();
        let finished =
            meta(record::finished::KEY)?.map(|bytes| Finished::decode(&bytes)).transpose()?.unwrap_or_default();
        let conf_state = meta(record::conf_state::KEY)?
            .map(|bytes| record::conf_state::decode(&bytes))
            .transpose()?
            .unwrap_or_default();
        let version = meta(record::version::KEY)?.map(|bytes| record::version::decode(&bytes)).transpose()?;
        let command_level = meta(record::command_level::KEY)?
            .map(|bytes| record::command_level::decode(&bytes))
            .transpose()?
            .unwrap_or(COMMAND_LEVEL_FIRST);

        let cluster =
            meta(record::cluster::KEY)?.map(|bytes| record::cluster::decode(&bytes)).transpose()?.unwrap_or(0);
        let is = StoreIs {
            cluster,
            applied: applied.index,
            revision,
            compacted: scheduled.last().map_or(-1, |last| last.revision),
            finished: finished.revision,
        };
        let mut found = find_image(store.as_ref(), is)?;
        let (index, bytes_read) = read_index(store.as_ref(), &mut found, is)?;
        let leases = read_leases(store.as_ref(), &index)?;
        let members = read_members(store.as_ref())?;
        let alarms = read_alarms(store.as_ref())?;
        let auth = read_auth(store.as_ref())?;

        let open = Open::new(revision, scheduled.last().map_or(-1, |last| last.revision));
        let mvcc = Arc::new(Mvcc::new(store, index, revision, &scheduled, &finished, (found.doubtful_to, bytes_read)));
        Ok(Self {
            reader: Reader::new(mvcc.clone()),
            mvcc,
            leases: Arc::new(RwLock::new(leases)),
            lease_changes: Vec::new(),
            members: Arc::new(ArcSwap::from_pointee(members)),
            alarms: Arc::new(ArcSwap::from_pointee(alarms)),
            version: Arc::new(ArcSwapOption::from_pointee(version)),
            command_level: Arc::new(AtomicU32::new(command_level)),
            auth: Arc::new(ArcSwap::from_pointee(auth)),
            tokens: Tokens::default(),
            raft_members: conf_state,
            applied,
            written: applied,
            open,
            scheduled,
            planned: Vec::new(),
            commands: 0,
            stalled: false,
            unusable: false,
            answers_for: options.answers_for,
            on_compaction: options.on_compaction,
            observer: options.observer,
            pin_hold_max: options.pin_hold_max,
            changes: None,
            image: options.image,
            found,
        })
    }
}

/// Index keys that compaction to a revision already finished is applied to at once.
const COMPACT_STEP_KEYS: usize = 4096;

/// Rebuilds the key index from its image and the stored revisions that are not in it; and the bytes of these.
fn read_index(store: &dyn Store, found: &mut Found, is: StoreIs) -> Result<(Index, u64), StateError> {
    let imaged = found.index.is_some();
    let mut index = found.index.take().unwrap_or_default();
    let (mut bytes, revision) = (0, is.revision);
    let from = Revision::new(found.base + 1, 0).put_key();
    for_each(store, Table::Rev, if imaged { &from } else { b"" }, &mut |key, stored| {
        let (at, tombstone) =
            Revision::decode(key).ok_or_else(|| StateError::Corrupt { what: format!("{key:02x?} is no revision") })?;
        if at.main > revision {
            return Err(StateError::Corrupt {
                what: format!("revision {} is stored, but the newest is said to be {revision}", at.main),
            });
        }
        bytes += (key.len() + stored.len()) as u64;
        mvcc::restore(&mut index, at, tombstone, stored).ok_or_else(|| StateError::Corrupt {
            what: format!("the value of revision {}/{} does not decode", at.main, at.sub),
        })
    })?;
    // The image may be older than compactions that the store has been through since.
    let mut next = (imaged && is.finished >= 0).then(Bytes::new);
    while let Some(from) = next {
        next = index.compact_step(is.finished, &from, COMPACT_STEP_KEYS, usize::MAX, &mut Vec::new());
    }
    Ok((index, bytes))
}

fn read_leases(store: &dyn Store, index: &Index) -> Result<LeaseTable, StateError> {
    let mut leases = LeaseTable::default();
    for_each(store, Table::Lease, b"", &mut |key, value| {
        leases.insert(record::lease::decode_key(key)?, LeaseRecord::decode(value)?);
        Ok(())
    })?;
    let mut from = if leases.is_empty() { None } else { Some(Bytes::new()) };
    while let Some(start) = from.take() {
        let visited =
            index.visit(&start, &RangeEnd::Unbounded, Revision::whole(i64::MAX), usize::MAX, &mut |key, meta| {
                if meta.lease != 0 {
                    leases.reattach(key, 0, meta.lease);
                }
                ControlFlow::Continue(())
            });
        if let Visited::More(next) = visited {
            from = Some(next);
        }
    }
    Ok(leases)
}

fn read_members(store: &dyn Store) -> Result<Members, StateError> {
    let mut members = Members::default();
    if let Some(bytes) = store.get(Table::Meta, record::cluster::KEY)? {
        members.cluster_id = record::cluster::decode(&bytes)?;
    }
    if let Some(bytes) = store.get(Table::Meta, record::initial::KEY)? {
        members.initial = record::initial::decode(&bytes)?;
    }
    for_each(store, Table::Member, b"", &mut |key, value| {
        match record::member::decode(key, value)? {
            MemberRecord::Member(member) => {
                members.members.insert(member.id, member);
            }
            MemberRecord::Removed(id) => {
                members.removed.insert(id);
            }
        }
        Ok(())
    })?;
    Ok(members)
}

fn read_auth(store: &dyn Store) -> Result<AuthStore, StateError> {
    let (mut switch, mut users, mut roles) = (None, Vec::new(), Vec::new());
    for_each(store, Table::Auth, b"", &mut |key, bytes| {
        match record::auth::decode(key, bytes)? {
            record::auth::Record::Switch(enabled, revision) => switch = Some((enabled, revision)),
            record::auth::Record::User(name, user) => users.push((name, user)),
            record::auth::Record::Role(name, role) => roles.push((name, role)),
        }
        Ok::<_, RecordError>(()).map_err(StateError::from)
    })?;
    Ok(AuthStore::restored(switch, users.into_iter(), roles.into_iter()))
}

fn read_alarms(store: &dyn Store) -> Result<Alarms, StateError> {
    let mut alarms = Alarms::default();
    for_each(store, Table::Alarm, b"", &mut |key, _| {
        let (kind, member) = record::alarm::decode_key(key)?;
        alarms.raise(kind, member);
        Ok::<_, RecordError>(()).map_err(StateError::from)
    })?;
    Ok(alarms)
}

//! The replicated state machine: commands in, effects out.
//!
//! ```text
//! command    what travels in the log, byte by byte          apply      the one place where entries change anything
//! mvcc/      keys with their history, and how to read them  record/    everything persisted that is not a value
//! leases, members, alarms   the small replicated tables
//! ```
//! What may call it: `node/` opens it and applies; `api/` reads through [`Reader`] and the small tables' views. A
//! background thread drives the [`Compactor`].
//!
//! The one invariant: the same entries give the same state and the same answers on every member: no clock, no random
//! number, no hash-map order, and no error that one member can have and another not. An error is the answer
//! ([`StateError::is_deterministic`]) or it ends this replica.
//!
//! What is in memory (the key index, leases, members, alarms) may run ahead of the store by the batch being applied,
//! never behind it; readers of keys see only what is written.

#![deny(clippy::disallowed_methods)]

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use cairn_proto::{ApiError, etcdserverpb::AlarmType};
use parking_lot::RwLock;
use raft::eraftpb::ConfState;
use semver::Version;

use crate::store::{Batch, Store, Table};

mod alarms;
mod apply;
pub mod auth;
pub mod command;
mod error;
mod leases;
mod members;
pub mod mvcc;
mod open;
pub mod record;
mod replace;
#[cfg(test)]
mod tests;

pub use alarms::Alarms;
pub use apply::{Answer, Committed, CommittedData};
pub use error::StateError;
pub use leases::{Lease, LeaseChange, LeaseView};
pub use members::{MemberChange, Members, Membership};
pub use mvcc::{Compactor, INDEX_IMAGE, Reader};
pub use replace::{Replaced, identify, is_installing, mark_installed, mark_installing};

use apply::Planned;
use auth::{AuthStore, Authorizer, Tokens};
use leases::LeaseTable;
use mvcc::{ChangeSink, Found, Mvcc, Open};
use record::{applied::Applied, scheduled::Scheduled};

/// How long a compaction waits for pinned reads, unless told otherwise.
pub const PIN_HOLD_MAX: Duration = Duration::from_mins(5);

/// What a [`State`] is opened with.
#[derive(Clone)]
pub struct StateOptions {
    /// How long a compaction waits for reads pinned below it before it expires them.
    pub pin_hold_max: Duration,
    /// Called whenever there is something for the [`Compactor`] to do. Must not block.
    pub on_compaction: Option<Arc<dyn Fn() + Send + Sync>>,
    /// The member and nonce whose requests get answers; `None`: all get one.
    pub answers_for: Option<(u64, u64)>,
    /// When the index is written to a file.
    pub image: mvcc::ImageOptions,
    /// Measures applying.
    pub observer: Option<Arc<dyn ApplyObserver>>,
}

/// Is told of each step of applying, on the thread that applies, and measures them: the state knows no time. Must not
/// block.
pub trait ApplyObserver: Send + Sync {
    /// A command was evaluated into the open batch.
    fn evaluated(&self, kind: command::RequestKind, outcome: Result<(), ApiError>);
    /// The open batch was written to the store.
    fn written(&self);
}

impl Default for StateOptions {
    fn default() -> Self {
        Self {
            pin_hold_max: PIN_HOLD_MAX,
            on_compaction: None,
            answers_for: None,
            image: mvcc::ImageOptions::default(),
            observer: None,
        }
    }
}

impl std::fmt::Debug for StateOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateOptions")
            .field("pin_hold_max", &self.pin_hold_max)
            .field("answers_for", &self.answers_for)
            .finish_non_exhaustive()
    }
}

/// The replicated state of one member.
pub struct State {
    mvcc: Arc<Mvcc>,
    reader: Reader,
    leases: Arc<RwLock<LeaseTable>>,
    /// What happened to leases since it was last asked for.
    lease_changes: Vec<LeaseChange>,
    members: Arc<ArcSwap<Members>>,
    alarms: Arc<ArcSwap<Alarms>>,
    version: Arc<ArcSwapOption<Version>>,
    command_level: Arc<AtomicU32>,
    auth: Arc<ArcSwap<AuthStore>>,
    tokens: Tokens,
    raft_members: ConfState,
    /// The newest entry evaluated, and the newest one whose effects are written.
    applied: Applied,
    written: Applied,
    open: Open,
    /// The newest compactions, as recorded.
    scheduled: Vec<Scheduled>,
    planned: Vec<Planned>,
    /// Commands applied since the state was opened.
    commands: u64,
    /// The open batch is complete and waits to be written.
    stalled: bool,
    unusable: bool,
    answers_for: Option<(u64, u64)>,
    on_compaction: Option<Arc<dyn Fn() + Send + Sync>>,
    observer: Option<Arc<dyn ApplyObserver>>,
    pin_hold_max: Duration,
    changes: Option<Arc<dyn ChangeSink>>,
    image: mvcc::ImageOptions,
    found: Found,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State")
            .field("applied", &self.applied)
            .field("revision", &self.open.revision)
            .field("stalled", &self.stalled)
            .finish_non_exhaustive()
    }
}

/// Reads the small replicated tables. Cheap to clone, safe from any thread.
#[derive(Debug, Clone)]
pub struct Views {
    /// The keys.
    pub reader: Reader,
    /// The leases.
    pub leases: LeaseView,
    members: Arc<ArcSwap<Members>>,
    alarms: Arc<ArcSwap<Alarms>>,
    version: Arc<ArcSwapOption<Version>>,
    command_level: Arc<AtomicU32>,
    authorizer: Authorizer,
}

impl Views {
    /// Decides what principals may do.
    pub fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// The members now.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// The raised alarms now.
    pub fn alarms(&self) -> Arc<Alarms> {
        self.alarms.load_full()
    }

    /// Whether an alarm is raised for a member. Costs next to nothing.
    pub fn is_raised(&self, kind: AlarmType, member: u64) -> bool {
        self.alarms.load().is_raised(kind, member)
    }

    /// The replicated cluster version, e.g. `3.7.0`, once it was set.
    pub fn cluster_version(&self) -> Option<Arc<Version>> {
        self.version.load_full()
    }

    /// The replicated command level: all members apply the commands up to it.
    pub fn command_level(&self) -> u32 {
        self.command_level.load(Ordering::Relaxed)
    }
}

impl State {
    /// The replicated command level.
    pub fn command_level(&self) -> u32 {
        self.command_level.load(Ordering::Relaxed)
    }

    /// Makes an empty store the first state of a cluster, as every one of its first members does by itself: as if a
    /// snapshot at `index` and `term` had been installed. Durable when it returns.
    pub fn bootstrap(&mut self, membership: &Membership, index: u64, term: u64) -> Result<(), StateError> {
        if self.applied != Applied::default() {
            return Err(StateError::NotEmpty);
        }
        let applied = Applied { index, term };
        let mut batch = Batch::default();
        batch.put(Table::Meta, record::format::KEY, record::format::encode(record::format::STORAGE_FORMAT));
        batch.put(Table::Meta, record::cluster::KEY, record::cluster::encode(membership.cluster_id));
        batch.put(Table::Meta, record::initial::KEY, record::initial::encode(&membership.members));
        batch.put(Table::Meta, record::applied::KEY, applied.encode().to_vec());
        batch.put(Table::Meta, record::current::KEY, record::current::encode(self.open.revision).to_vec());
        batch.put(Table::Meta, record::conf_state::KEY, record::conf_state::encode(&membership.conf_state()));
        let mut members =
            Members { cluster_id: membership.cluster_id, initial: membership.members.clone(), ..Members::default() };
        for member in &membership.members {
            batch.put(Table::Member, record::member::key(member.id), record::member::encode(member));
            members.members.insert(member.id, member.clone());
        }
        self.mvcc.store.write(&batch)?;
        self.mvcc.store.flush()?;
        self.raft_members = membership.conf_state();
        self.members.store(Arc::new(members));
        (self.applied, self.written) = (applied, applied);
        Ok(())
    }

    /// Index and term of the newest entry whose effects are written; (0, 0) for a store that is no cluster's yet.
    pub fn applied(&self) -> (u64, u64) {
        (self.written.index, self.written.term)
    }

    /// The index that would be the applied one after a crash now: the log may be cut up to it.
    pub fn persisted_applied(&self) -> Result<u64, StateError> {
        persisted_applied(self.mvcc.store.as_ref())
    }

    /// Raft's view of the membership.
    pub fn conf_state(&self) -> &ConfState {
        &self.raft_members
    }

    /// The members, as of the last entry evaluated.
    pub fn members(&self) -> Arc<Members> {
        self.members.load_full()
    }

    /// Commands applied since the state was opened.
    pub fn commands(&self) -> u64 {
        self.commands
    }

    /// Whether the batch of the last [`State::apply`] still waits to be written.
    pub fn is_stalled(&self) -> bool {
        self.stalled
    }

    /// From now on, only requests of this member and nonce get answers.
    pub fn answer_only(&mut self, member: u64, nonce: u64) {
        self.answers_for = Some((member, nonce));
    }

    /// How many keys hang on a lease.
    pub fn lease_keys(&self, id: i64) -> usize {
        self.leases.read().key_count(id)
    }

    /// What happened to leases since this was last called, in order. To be called after each [`State::apply`] that went well.
    pub fn take_lease_changes(&mut self) -> Vec<LeaseChange> {
        std::mem::take(&mut self.lease_changes)
    }

    /// What commands have done to keys since this was last called, as this member applied them.
    pub fn take_counts(&mut self) -> mvcc::Counts {
        std::mem::take(&mut self.open.counts)
    }

    /// From now on, `sink` is told of every published change.
    pub fn report_to(&mut self, sink: Arc<dyn ChangeSink>) {
        self.changes = Some(sink);
    }

    /// Reads the keys.
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Reads everything.
    pub fn views(&self) -> Views {
        Views {
            reader: self.reader.clone(),
            leases: LeaseView(self.leases.clone()),
            members: self.members.clone(),
            alarms: self.alarms.clone(),
            version: self.version.clone(),
            command_level: self.command_level.clone(),
            authorizer: Authorizer::new(self.auth.clone(), LeaseView(self.leases.clone()), self.tokens.clone()),
        }
    }

    /// What carries out compactions. To be driven by one thread; a second one would do the same work again.
    pub fn compactor(&self) -> Compactor {
        Compactor::new(self.mvcc.clone(), self.pin_hold_max, self.found.imager(self.image))
    }

    /// The store underneath.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.mvcc.store
    }
}

/// The index that would be the applied one if the process crashed now; callable from any thread.
pub fn persisted_applied(store: &dyn Store) -> Result<u64, StateError> {
    Ok(match store.get_persisted(Table::Meta, record::applied::KEY)? {
        Some(bytes) => Applied::decode(&bytes)?.index,
        None => 0,
    })
}

/// What is done with each record of a table.
type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), StateError> + 'a;

/// Visits a table from `from` to its end; the first error ends it.
fn for_each(store: &dyn Store, table: Table, from: &[u8], visit: &mut Visit<'_>) -> Result<(), StateError> {
    let mut result = Ok(());
    store.scan(table, from, None, &mut |key, value| {
        result = visit(key, value);
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}

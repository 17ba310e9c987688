//! A member: what its disks hold, and while it runs, the real core, log, state machine, watch hub and compactor.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cairn_proto::etcdserverpb as pb;
use cairn_server::{
    log::{EntryReader, Fault, Identity, Log, LogOptions, LogStore, SimDisk},
    node::{
        NodeError,
        core::{
            Core, CoreOptions, CoreStatus, RetentionOptions, has_committed_changes, log_of_member, log_of_new_cluster,
        },
    },
    raft::{Fetch, InFlight, LogStart, RaftOptions},
    state::{
        Compactor, Membership, State, StateOptions, is_installing, mark_installed,
        mvcc::{Change, ChangeSink, Changes, ImageOptions},
        record::applied::{self, Applied},
    },
    store::{Batch, MemStore, Store, Table},
    watch::Hub,
};

use super::{
    climate::Climate,
    clock::MS,
    plant::Plant,
    snapshots::{Incoming, Snapshots},
};

pub(super) const CLUSTER: u64 = 0xc1;
/// How long a compaction waits for reads.
const PIN_HOLD_MAX: Duration = Duration::from_secs(2);
/// Ticks after which a request is told that it took too long.
const REQUEST_TICKS: u64 = 30;

/// What every member is started with.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    /// The members that the cluster began with.
    pub(super) initial: Vec<pb::Member>,
    pub(super) climate: Climate,
    pub(super) plant: Option<Plant>,
    pub(super) ungated: bool,
    /// The members of an earlier build.
    pub(super) earlier: Vec<u64>,
}

/// Hands changes on to the hub and notes them.
pub(super) struct Tee {
    hub: Hub,
    /// For [`Plant::JumpUnseen`].
    unseen: bool,
    published: Mutex<Vec<Change>>,
}

impl ChangeSink for Tee {
    fn needs_previous(&self) -> bool {
        self.hub.needs_previous()
    }

    fn changed(&self, changes: Changes) {
        self.published.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&changes.list);
        self.hub.changed(changes);
    }

    fn jumped(&self, revision: i64) {
        if !self.unseen {
            self.hub.jumped(revision);
        }
    }

    fn permissions_changed(&self) {
        self.hub.permissions_changed();
    }
}

/// A member that runs.
pub(super) struct Run {
    /// Counts the member's starts; also its nonce.
    pub(super) number: u64,
    /// Waiters and readers are known by the numbers of requests.
    pub(super) core: Core<u64, u64>,
    pub(super) log: Log,
    pub(super) hub: Hub,
    pub(super) compactor: Compactor,
    /// That of a state that took the place of the one it works on.
    pub(super) next_compactor: Option<Compactor>,
    /// What the core's state is over: the member's store, but for the moments between a snapshot's taking its place and
    /// the core's knowing of it.
    pub(super) store: Arc<MemStore>,
    pub(super) snapshots: Snapshots,
    tee: Arc<Tee>,
    /// When it started.
    since: u64,
    /// The newest revision that any member had published then.
    pub(super) newest_at_start: i64,
    /// Writes that are not on their way to the disk yet.
    pub(super) writes: Vec<InFlight>,
    /// Writes on their way to the disk, each with the term of the entry before its first one, and the number of the newest.
    pub(super) staged: Vec<(InFlight, Option<u64>)>,
    pub(super) syncing: Option<u64>,
    /// Up to where the log may be cut.
    pub(super) purge: Option<u64>,
    pub(super) fetches: Vec<Fetch>,
    /// It will go on applying by itself.
    pub(super) work_due: bool,
    /// Ticks until its end, once it knows that it was removed.
    pub(super) leaving: Option<u32>,
    /// As it was last looked at.
    pub(super) seen: CoreStatus,
    /// The counter of a context for a read index that was sent last, for [`Plant::ReadContextReused`].
    pub(super) context: Vec<u8>,
    /// Leases and when they run out, as they were known while it led, for [`Plant::DeposedLeaderRevokes`].
    pub(super) remembered: Vec<(u64, u64, i64)>,
}

impl Run {
    /// Milliseconds since it started.
    pub(super) fn uptime(&self, now: u64) -> u64 {
        (now - self.since) / MS
    }

    /// What was published since this was last asked.
    pub(super) fn published(&self) -> Vec<Change> {
        std::mem::take(&mut self.tee.published.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What becomes of a member when its disk fails.
#[derive(Debug, Clone, Copy)]
pub(super) struct Doom {
    pub(super) power: bool,
}

/// What became of a start.
#[derive(Debug)]
pub(super) enum Started {
    /// It runs, in the run of this number.
    Runs {
        run: u64,
        /// It had to finish the installation of a snapshot.
        finished: bool,
        /// It knows of membership changes that are committed and not applied.
        settles: bool,
    },
    /// It knows that it was removed from the cluster.
    Removed,
}

/// A member, running or not.
pub(super) struct Member {
    pub(super) id: u64,
    disk: SimDisk,
    pub(super) store: Arc<MemStore>,
    pub(super) run: Option<Run>,
    starts: u64,
    /// It does nothing until then.
    pub(super) paused_until: u64,
    /// The cluster knows it, so that it may be started.
    pub(super) joined: bool,
    /// It was removed from the cluster and has ended for good.
    pub(super) gone: bool,
    /// The newest revision that a client has seen of it.
    pub(super) shown: i64,
    /// The applied index that was last known to be durable in its store.
    pub(super) flushed: u64,
    /// What lies on its disk of a snapshot that comes.
    pub(super) incoming: Option<Incoming>,
    /// Its disk is about to fail; with or without the power.
    pub(super) doom: Option<Doom>,
    /// Tells what its log has synced, running or not.
    pub(super) synced: Option<Arc<dyn EntryReader>>,
}

impl Member {
    pub(super) fn new(id: u64, disk_seed: u64, store_seed: u64, climate: &Climate) -> Self {
        Self {
            id,
            disk: SimDisk::new(disk_seed),
            store: Arc::new(MemStore::with_flushes(store_seed, climate.flush_one_in)),
            run: None,
            starts: 0,
            paused_until: 0,
            joined: true,
            gone: false,
            shown: 0,
            flushed: 0,
            incoming: None,
            doom: None,
            synced: None,
        }
    }

    /// Lets its disk fail at one of the next operations, unless it will anyway.
    pub(super) fn doom(&mut self, fault: Fault, after: u64) {
        if self.doom.is_some() {
            return;
        }
        self.disk.fault_at(self.disk.operations() + after, fault);
        self.doom = Some(Doom { power: fault == Fault::PowerCut });
    }

    /// Whether its log has an entry synced, or has cut it off.
    pub(super) fn has_synced(&self, index: u64, term: u64) -> bool {
        let Some(log) = &self.synced else { return false };
        log.first_index() > index || log.term(index) == Some(term)
    }

    /// Starts it over what its disks hold; a member of the first ones or one that joins over nothing.
    pub(super) fn start(&mut self, setting: &Setting, now: u64, newest: i64, seed: u64) -> Result<Started> {
        self.starts += 1;
        self.store.set_stalled(false);
        let (nonce, climate) = (self.starts, &setting.climate);
        if setting.plant == Some(Plant::AppliedTwice) {
            self.forget_last_applied()?;
        }
        let options = state_options(self.id, nonce, climate);
        let mut state = State::open(Arc::clone(&self.store) as Arc<dyn Store>, options)?;
        let (log, start, finished) = self.open_log(setting, seed, &mut state)?;
        let flushed = state.applied().0;
        ensure!(
            flushed >= self.flushed,
            "member {} starts at applied index {flushed}, {} was durable before",
            self.id,
            self.flushed
        );
        let hub = Hub::new(state.reader().clone(), climate.window_bytes);
        let unseen = setting.plant == Some(Plant::JumpUnseen);
        let tee = Arc::new(Tee { hub: hub.clone(), unseen, published: Mutex::default() });
        state.report_to(Arc::clone(&tee) as Arc<dyn ChangeSink>);
        let compactor = state.compactor();
        let settles = has_committed_changes(&start);
        let core = match Core::start(core_options(self.id, nonce, seed, climate), state, start) {
            Ok(core) => core,
            Err(NodeError::Removed { .. }) => return Ok(Started::Removed),
            Err(error) => return Err(error).with_context(|| format!("member {} does not start", self.id)),
        };
        self.synced = Some(log.reader());
        self.run = Some(Run {
            number: self.starts,
            seen: core.status(),
            core,
            log,
            hub,
            compactor,
            next_compactor: None,
            store: Arc::clone(&self.store),
            snapshots: Snapshots::default(),
            tee,
            since: now,
            newest_at_start: newest,
            writes: Vec::new(),
            staged: Vec::new(),
            syncing: None,
            purge: None,
            fetches: Vec::new(),
            work_due: false,
            leaving: None,
            context: Vec::new(),
            remembered: Vec::new(),
        });
        Ok(Started::Runs { run: self.starts, finished, settles })
    }

    /// The log, and whether an installation had to be finished: as the real start does it.
    fn open_log(&mut self, setting: &Setting, seed: u64, state: &mut State) -> Result<(Log, LogStart, bool)> {
        let identity = Identity { cluster_id: CLUSTER, member_id: self.id };
        let segment_bytes = setting.climate.segment_bytes;
        let log_options = LogOptions { segment_bytes, ..LogOptions::new(identity, seed) };
        let (mut log, recovered) = Log::open(Arc::new(self.disk.clone()), &log_options, state.applied().0)?;
        if state.applied() == (0, 0) {
            let start = log_of_new_cluster();
            if recovered.terms.last() != start.terms.base() {
                log.reset(start.terms.base(), Some(&start.hard_state))?;
            }
            let membership = Membership { cluster_id: CLUSTER, members: setting.initial.clone() };
            state.bootstrap(&membership, start.terms.base().index, start.terms.base().term)?;
            return Ok((log, start, false));
        }
        let before = recovered.terms.base();
        let installing = is_installing(self.store.as_ref())?;
        let ahead = installing.filter(|last| last.index == state.applied().0);
        let mut start = log_of_member(&mut log, recovered, ahead)?;
        let finished = start.terms.base() != before;
        if let Some(last) = installing {
            mark_installed(self.store.as_ref(), last)?;
        }
        if setting.plant == Some(Plant::VoteForgotten) {
            start.hard_state.vote = 0;
        }
        if setting.plant == Some(Plant::CommitForgotten) {
            start.hard_state.commit = state.applied().0;
        }
        Ok((log, start, finished))
    }

    /// Ends it without warning; with `power`, what was not synced is lost or torn.
    pub(super) fn crash(&mut self, power: bool) {
        if let Some(run) = self.run.take() {
            run.hub.close();
        }
        self.store.crash();
        self.doom = None;
        self.disk = if power { self.disk.power_failure() } else { self.disk.kill() };
    }

    /// For [`Plant::AppliedTwice`].
    fn forget_last_applied(&self) -> Result<()> {
        let Some(bytes) = self.store.get(Table::Meta, applied::KEY)? else { return Ok(()) };
        let index = Applied::decode(&bytes)?.index - 1;
        if let Some(term) = self.synced.as_ref().and_then(|log| log.term(index)) {
            let mut batch = Batch::default();
            batch.put(Table::Meta, applied::KEY, Applied { index, term }.encode().to_vec());
            self.store.write(&batch)?;
            self.store.flush()?;
        }
        Ok(())
    }
}

/// What a member's states are opened with.
pub(super) fn state_options(member: u64, nonce: u64, climate: &Climate) -> StateOptions {
    StateOptions {
        answers_for: Some((member, nonce)),
        pin_hold_max: PIN_HOLD_MAX,
        image: image_options(climate),
        ..StateOptions::default()
    }
}

fn image_options(climate: &Climate) -> ImageOptions {
    let often = ImageOptions { enabled: true, revisions_min: 5, bytes_min: u64::MAX, interval_min: Duration::ZERO };
    if climate.images { often } else { ImageOptions::default() }
}

fn core_options(member: u64, nonce: u64, seed: u64, climate: &Climate) -> CoreOptions {
    let raft = RaftOptions {
        pre_vote: climate.pre_vote,
        election_ticks: climate.election_ticks,
        cache_bytes: climate.cache_bytes,
        ..RaftOptions::new(member, seed ^ member << 32)
    };
    CoreOptions {
        request_ticks: REQUEST_TICKS,
        writes_in_flight_max: climate.writes_in_flight_max,
        piece_entries_max: climate.piece_entries_max,
        retention: RetentionOptions {
            snapshot_count: climate.snapshot_count,
            catchup_commands: climate.catchup_commands,
            catchup_bytes_max: u64::MAX,
            needed_bytes_max: climate.needed_bytes_max,
            unflushed_bytes_max: 8 << 10,
            flush_ticks_min: 3,
        },
        snapshot_silence_ticks: climate.snapshot_silence_ticks,
        snapshot_idle_ticks: climate.snapshot_idle_ticks,
        lease_checkpoint: Duration::from_millis(climate.lease_checkpoint_ms),
        ..CoreOptions::new(raft, nonce)
    }
}

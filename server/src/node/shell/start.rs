//! Starting a node: what is on the disk decides whether it is a new one.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use cairn_proto::etcdserverpb::Member;
use tokio::{runtime::Handle, sync::mpsc};

use super::{
    NodeConfig, NodeHandle,
    apply_timer::ApplyTimer,
    background::{Background, Compacting},
    budget::Budget,
    delivery::Post,
    directory::Directory,
    inputs::{Input, Reports},
    lone::LoneWrites,
    replica::{Replica, STALL_PAUSE},
    shared::Shared,
    transport::{Alone, Transport},
};
use crate::{
    config::{cluster_id, initial_member_id, is_same_literally},
    log::{
        DataDirLock, Disk, Identity as LogIdentity, Log, LogEvent, LogOptions, LogStore, LogThread, LogThreadOptions,
        Recovered, SyncReport,
    },
    node::{
        NodeError, NodeMetrics, Unfit,
        core::{Core, CoreOptions, force_new_cluster, has_committed_changes, log_of_member, log_of_new_cluster},
        identity::{Identity, InitialMember},
        snapshot::{Installer, Outgoing, SnapshotError},
    },
    raft::{LogStart, RaftOptions},
    state::{self, Membership, State, StateOptions, command::COMMAND_LEVEL},
    store::{LastFlush, StateDir, Store},
    types::{API, understands},
    watch::Hub,
};

/// A member that does not fetch the snapshot that it was offered for so long is asked again where it stands.
const SNAPSHOT_SILENCE: Duration = Duration::from_secs(5);
/// A snapshot that nobody is sent for so long is let go of.
const SNAPSHOT_IDLE: Duration = Duration::from_mins(1);

/// Whether there is no member's state in `data_dir` yet, so that a start needs to be told who the member is.
pub fn is_new(data_dir: &std::path::Path) -> bool {
    !data_dir.join("member").join("CURRENT").exists()
}

/// Starts a node that has no way to other members. See [`start_member`].
pub fn start(config: &NodeConfig, runtime: &Handle) -> Result<NodeHandle, NodeError> {
    start_member(config, runtime, Arc::new(Alone))
}

/// Starts a node and its threads; the replica's task runs on `runtime` and sends to other members through `transport`.
/// Reads what is on the disk, so it takes its time: not to be called on a runtime's thread.
pub fn start_member(
    config: &NodeConfig,
    runtime: &Handle,
    transport: Arc<dyn Transport>,
) -> Result<NodeHandle, NodeError> {
    let directory = Directory::open(&config.data_dir, config.wal_dir.as_deref())?;
    let disk: Arc<dyn Disk> = Arc::new(directory.log_disk(config.record_syncs)?);
    let found = Log::identity(disk.as_ref())?;
    let identity = match found {
        Some(LogIdentity { cluster_id, member_id }) => Identity { member: member_id, cluster: cluster_id },
        None => identity_of_flags(config)?,
    };
    // Kept apart from what requests see: who knows it could make bytes that look like records of the log.
    let log_nonce = rand::random();
    let nonce = rand::random();

    let (state_dir, store) =
        StateDir::open(&directory.member, &config.store).map_err(|error| NodeError::State(error.into()))?;
    let store: Arc<dyn Store> = Arc::new(store);
    let (notices, compactions) = crossbeam_channel::bounded(1);
    let apply_timer = Arc::new(ApplyTimer::new(NodeMetrics::default()));
    let options = StateOptions {
        pin_hold_max: config.pin_hold_max,
        on_compaction: Some(Arc::new(move || {
            // One notice waiting is enough.
            let _ = notices.try_send(());
        })),
        answers_for: Some((identity.member, nonce)),
        image: config.image,
        observer: Some(apply_timer.clone()),
    };
    let outgoing = Outgoing::new(&directory.member, &config.store).map_err(|error| no_snapshots(config, &error))?;
    let received = apply_timer.metrics().received.clone();
    let installer = Installer::new(&directory.member, state_dir, identity.cluster, &config.store, &options, received);
    let mut state = State::open(Arc::clone(&store), options)?;
    if found.is_none() && state.applied() != (0, 0) {
        let reason =
            "the raft log is missing, the state is there: put the log back, or restore both from the same copy";
        return Err(NodeError::Directory { path: directory.wal, reason: reason.to_owned() });
    }

    let log_options = LogOptions {
        segment_bytes: config.segment_bytes,
        ..LogOptions::new(LogIdentity { cluster_id: identity.cluster, member_id: identity.member }, log_nonce)
    };
    let (mut log, recovered) = Log::open(disk, &log_options, state.applied().0)?;
    let log_start = if state.applied() == (0, 0) {
        if config.force_new_cluster {
            tracing::warn!("--force-new-cluster has no effect: there is no data that a cluster could go on with");
        }
        begin_cluster(config, identity, &mut log, &recovered, &mut state)?
    } else {
        check_cluster(identity, &state)?;
        check_version(&state)?;
        check_owner(config, identity, &state)?;
        let installing = state::is_installing(store.as_ref())?;
        let mut log_start =
            log_of_member(&mut log, recovered, installing.filter(|last| last.index == state.applied().0))?;
        if let Some(last) = installing {
            state::mark_installed(store.as_ref(), last)?;
        }
        if config.force_new_cluster {
            let removed = force_new_cluster(identity.member, &state, &mut log, &mut log_start)?;
            let removed: Vec<_> = removed.iter().map(|id| format!("{id:x}")).collect();
            let commit = log_start.hard_state.commit;
            tracing::warn!(
                ?removed,
                commit,
                "forced a new cluster of this member alone; start it without --force-new-cluster from now on"
            );
        }
        log_start
    };
    tracing::info!(
        member = format_args!("{:x}", identity.member),
        cluster = format_args!("{:x}", identity.cluster),
        applied = state.applied().0,
        term = log_start.hard_state.term,
        last = log_start.terms.last().index,
        "starting the replica"
    );

    let hub = Hub::new(state.reader().clone(), config.watch_window_bytes);
    state.report_to(Arc::new(hub.clone()));
    let settles = has_committed_changes(&log_start);
    let mut core = Core::start(core_options(config, identity, nonce), state, log_start)?;
    apply_timer.begin(false);
    while settles && !core.settle()? {
        std::thread::sleep(STALL_PAUSE);
    }
    let budget = Budget::new(config.requests_max, config.requests_bytes_max);
    let shared = Shared::new(identity, nonce, budget, core.state().reader().clone(), outgoing, installer, apply_timer);
    // The quota counts from the first write on.
    shared.set_size(store.size().map_err(|error| NodeError::State(error.into()))?);
    run(config, runtime, directory.lock, Arc::new(shared), core, log, compactions, transport, hub)
}

fn no_snapshots(config: &NodeConfig, error: &SnapshotError) -> NodeError {
    NodeError::Directory { path: config.data_dir.clone(), reason: error.to_string() }
}

#[expect(clippy::too_many_arguments, reason = "called once, with what was put together one after the other")]
fn run(
    config: &NodeConfig,
    runtime: &Handle,
    lock: DataDirLock,
    shared: Arc<Shared>,
    core: Core<super::inputs::Writer, super::inputs::ReadLeave>,
    log: Log,
    compactions: crossbeam_channel::Receiver<()>,
    transport: Arc<dyn Transport>,
    hub: Hub,
) -> Result<NodeHandle, NodeError> {
    let lock = Arc::new(lock);
    let (sender, inbox) = mpsc::unbounded_channel();
    let reports = Reports::new(&sender);
    let no_thread = |error: std::io::Error| NodeError::Directory {
        path: config.data_dir.clone(),
        reason: format!("no thread could be started: {error}"),
    };
    let mut compactor = core.state().compactor();
    compactor.limit_steps(config.compaction.revisions);
    let compacting = Compacting { compactor, notices: compactions, pace: config.compaction };
    let last_flush = config.record_syncs.then(|| LastFlush::new(config.data_dir.join("member")));
    if let Some(last) = &last_flush {
        last.keep(shared.reader.store().as_ref()).map_err(|error| NodeError::State(error.into()))?;
    }
    let background = Background::start(&shared, &reports, log.reader(), compacting, hub.clone(), &lock, last_flush)
        .map_err(no_thread)?;
    let log = start_log(log, &shared, &reports, &lock).map_err(no_thread)?;
    shared.publish(&core.status());
    let handle = NodeHandle::new(sender, Arc::clone(&shared), core.state().views(), core.lease_clock(), hub);
    let replica = Replica {
        core,
        inbox,
        shared,
        log_sender: log.sender(),
        log,
        background,
        lock,
        tick: config.heartbeat,
        slow_apply: config.slow_apply,
        transport,
        rules: config.rules,
        members: Arc::default(),
        unreachable: Vec::new(),
        transfer_ticks: u32::try_from(config.election_ticks()).unwrap_or(u32::MAX),
        request_ticks: config.request_ticks(),
        pending_changes: VecDeque::default(),
        leaving: None,
        held_back: VecDeque::new(),
        lone: LoneWrites::default(),
        post: Post::default(),
        compaction_step: config.compaction.revisions,
        received: None,
        seen: None,
        stopping: false,
    };
    runtime.spawn(replica.run());
    Ok(handle)
}

fn start_log(log: Log, shared: &Arc<Shared>, reports: &Reports, lock: &Arc<DataDirLock>) -> std::io::Result<LogThread> {
    let metrics = shared.metrics.clone();
    let on_sync = move |sync: SyncReport| {
        metrics.wal_write.observe(sync.times.write);
        metrics.wal_fsync.observe(sync.times.fdatasync.as_secs_f64());
        metrics.wal_write_bytes.inc_by(sync.bytes as i64);
    };
    let (reports, lock) = (reports.clone(), Arc::clone(lock));
    let on_event = move |event| {
        // The directory stays locked until the thread has ended.
        let _ = &lock;
        let input = match event {
            LogEvent::Synced { number } => Input::Synced(number),
            LogEvent::Purged { size_bytes, .. } => Input::Purged { size_bytes },
            LogEvent::Failed(error) => Input::Failed(NodeError::LogThread(error)),
        };
        reports.send(input);
    };
    LogThread::start(Box::new(log), LogThreadOptions::default(), Box::new(on_event), Box::new(on_sync))
}

fn core_options(config: &NodeConfig, identity: Identity, nonce: u64) -> CoreOptions {
    let raft = RaftOptions {
        election_ticks: config.election_ticks(),
        cache_bytes: config.entry_cache_bytes,
        pre_vote: config.pre_vote,
        ..RaftOptions::new(identity.member, rand::random())
    };
    CoreOptions {
        request_ticks: config.request_ticks(),
        read_retry_ticks: config.read_retry_ticks(),
        writes_in_flight_max: config.writes_in_flight_max,
        queue_commands_max: config.requests_max,
        queue_bytes_max: config.requests_bytes_max,
        reads_max: config.requests_max,
        retention: config.retention.clone(),
        lease_checkpoint: config.lease_checkpoint,
        snapshot_silence_ticks: config.ticks(SNAPSHOT_SILENCE),
        snapshot_idle_ticks: config.ticks(SNAPSHOT_IDLE),
        ..CoreOptions::new(raft, nonce)
    }
}

/// Who this member is by its flags.
fn identity_of_flags(config: &NodeConfig) -> Result<Identity, NodeError> {
    if let Some(origin) = &config.origin {
        return Ok(origin.identity);
    }
    let bad = |reason| NodeError::Directory { path: config.data_dir.clone(), reason };
    let own = config.initial_cluster.iter().find(|member| member.name == config.name);
    let own = own.ok_or_else(|| {
        bad(format!("{:?} is not among the initial members; check --name and --initial-cluster", config.name))
    })?;
    let mut ids: Vec<u64> =
        config.initial_cluster.iter().map(|member| initial_member_id(&member.peer_urls, &config.token)).collect();
    let cluster = cluster_id(&ids);
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(bad("two initial members have the same peer URLs; check --initial-cluster".to_owned()));
    }
    Ok(Identity { member: initial_member_id(&own.peer_urls, &config.token), cluster })
}

/// The first start, or one after a first start that was interrupted: log first, then state.
fn begin_cluster(
    config: &NodeConfig,
    identity: Identity,
    log: &mut Log,
    recovered: &Recovered,
    state: &mut State,
) -> Result<LogStart, NodeError> {
    let start = log_of_new_cluster();
    let (first, last) = (start.terms.base(), recovered.terms.last());
    if last.index > first.index {
        return Err(Unfit::StateEmpty { last: last.index }.into());
    }
    if identity != identity_of_flags(config)? {
        let reason = "an earlier first start of another member or cluster was interrupted here: remove the directory, or use its flags";
        return Err(NodeError::Directory { path: config.data_dir.clone(), reason: reason.to_owned() });
    }
    if last != first {
        log.reset(first, Some(&start.hard_state))?;
    }
    let member = |member: &InitialMember| Member {
        id: initial_member_id(&member.peer_urls, &config.token),
        peer_urls: member.peer_urls.clone(),
        ..Member::default()
    };
    let members = match &config.origin {
        Some(origin) => origin.members.clone(),
        None => config.initial_cluster.iter().map(member).collect(),
    };
    state.bootstrap(&Membership { cluster_id: identity.cluster, members }, first.index, first.term)?;
    Ok(start)
}

/// Log and state must be of one cluster.
fn check_cluster(identity: Identity, state: &State) -> Result<(), NodeError> {
    let stored = state.views().members().cluster_id;
    if stored == identity.cluster {
        return Ok(());
    }
    Err(Unfit::Clusters { log: identity.cluster, state: stored }.into())
}

fn check_version(state: &State) -> Result<(), NodeError> {
    match state.views().cluster_version() {
        Some(cluster) if !understands(&API, &cluster) => {
            Err(NodeError::TooOld { own: API, cluster: (*cluster).clone() })
        }
        _ => Ok(()),
    }?;
    let cluster = state.views().command_level();
    if cluster > COMMAND_LEVEL { Err(NodeError::CommandLevel { cluster }) } else { Ok(()) }
}

/// Whoever is reached at another member's URLs has got hold of the wrong directory. With that it would vote twice, once as
/// itself. A member whose URLs were changed is reached at none that is another one's.
fn check_owner(config: &NodeConfig, identity: Identity, state: &State) -> Result<(), NodeError> {
    let members = state.members();
    let Some(own) = members.members.get(&identity.member) else { return Ok(()) };
    let given = |url: &&String| config.peer_urls.iter().any(|given| is_same_literally(given, url));
    let claimed = |member: &Member| member.peer_urls.iter().find(given).cloned();
    let mut others = members.members.values().filter(|member| member.id != own.id);
    match others.find_map(|other| Some((other, claimed(other)?))) {
        Some((other, url)) if claimed(own).is_none() => {
            let reason = format!(
                "it is that of member {:x} ({:?}), but by --initial-advertise-peer-urls={url} this is member {:x} ({:?}): give \
                 each member its own data directory; if the member has moved, the cluster has to be told first (member update)",
                own.id, own.name, other.id, other.name
            );
            Err(NodeError::Directory { path: config.data_dir.clone(), reason })
        }
        _ => {
            if members.members.len() > 1 && claimed(own).is_none() {
                tracing::warn!(
                    known = ?own.peer_urls,
                    given = ?config.peer_urls,
                    "the cluster knows this member at other peer URLs than --initial-advertise-peer-urls: if it has moved, \
                     tell the cluster (member update); never run a copy of a data directory beside the member that it is of"
                );
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        state::record,
        store::{Batch, MemStore, Table},
    };

    #[test]
    fn a_program_below_the_clusters_command_level_does_not_start() {
        for (level, starts) in [(1, true), (COMMAND_LEVEL, true), (COMMAND_LEVEL + 1, false)] {
            let store = Arc::new(MemStore::new());
            let mut batch = Batch::default();
            batch.put(Table::Meta, record::command_level::KEY, record::command_level::encode(level).to_vec());
            store.write(&batch).expect("memory takes it");
            let state = State::open(store, StateOptions::default()).expect("a state");
            let checked = check_version(&state);
            assert_eq!(checked.is_ok(), starts, "level {level}");
            if let Err(error) = checked {
                assert!(error.to_string().contains(&format!("command level {level}")), "{error}");
            }
        }
    }
}

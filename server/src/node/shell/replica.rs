//! The replica task: feeds the core and does what it says.

mod changes;
mod snapshots;
mod stopping;

use std::{collections::VecDeque, mem, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{Instant, Interval, MissedTickBehavior},
};

use self::{
    changes::PendingChange,
    stopping::{LastWords, refuse_read, refuse_write},
};
use super::{
    background::Background,
    delivery::{Letter, Post},
    inputs::{Input, ReadLeave, Writer},
    lone::LoneWrites,
    shared::Shared,
    transport::{Sent, Transport},
};
use crate::{
    log::{AppendHereError, Batch, DataDirLock, LogSender, LogThread, TryAppendError},
    node::{
        NodeError, ProposeError, ReadIndexError,
        core::{Core, CoreStatus},
        membership::ChangeRules,
        snapshot::Received,
    },
    raft::{InFlight, Role},
    state::{LeaseChange, Members},
};

/// Inputs taken from the inbox at once.
const INPUTS_MAX: usize = 1024;
/// How long to wait before the store is asked again after it asked to wait.
pub(super) const STALL_PAUSE: Duration = Duration::from_millis(2);
/// Bytes of an entry that is written without the log's thread at most.
const LONE_BYTES_MAX: usize = 16 << 10;
/// A leader whose ticks are further apart than so many of them is late with its heartbeats.
const HEARTBEAT_LATE_TICKS: u32 = 2;

/// The replica task.
pub(super) struct Replica {
    pub(super) core: Core<Writer, ReadLeave>,
    pub(super) inbox: mpsc::UnboundedReceiver<Input>,
    pub(super) shared: Arc<Shared>,
    pub(super) log: LogThread,
    pub(super) log_sender: LogSender,
    pub(super) background: Background,
    pub(super) lock: Arc<DataDirLock>,
    pub(super) tick: Duration,
    /// Applying a piece of the log that takes longer is worth a line.
    pub(super) slow_apply: Duration,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) rules: ChangeRules,
    /// The members as the transport was last told.
    pub(super) members: Arc<Members>,
    /// Members to whom something could not be sent since the core was last told.
    pub(super) unreachable: Vec<u64>,
    /// Ticks that handing leadership over may take before a stop.
    pub(super) transfer_ticks: u32,
    /// Ticks that a request may take.
    pub(super) request_ticks: u64,
    /// Membership changes that wait until one may be proposed. The budget of requests bounds them.
    pub(super) pending_changes: VecDeque<PendingChange>,
    /// Ticks until the end, once this member was removed from the cluster.
    pub(super) leaving: Option<u32>,
    /// Writes for which the log thread's queue had no room.
    pub(super) held_back: VecDeque<Batch>,
    pub(super) lone: LoneWrites,
    pub(super) post: Post,
    /// Revisions that a compaction removes in one step.
    pub(super) compaction_step: usize,
    /// A snapshot that was received, until it is installed.
    pub(super) received: Option<Box<Received>>,
    pub(super) seen: Option<CoreStatus>,
    /// Nothing new is accepted.
    pub(super) stopping: bool,
}

/// Why the loop ended.
enum End {
    Stop,
    Failed(NodeError),
}

impl Replica {
    /// Runs until it is stopped or fails.
    pub(super) async fn run(mut self) {
        // Should this task panic or be dropped, whoever waits hears of it through the closed channels, and the server
        // through the error.
        let _last_words = LastWords(Arc::clone(&self.shared));
        match self.serve().await {
            End::Stop => self.drain().await,
            End::Failed(error) => self.shared.fail(error),
        }
        self.refuse_everybody();
        self.finish().await;
    }

    fn ticks(&self) -> Interval {
        let mut ticks = tokio::time::interval(self.tick);
        // After a pause, elections must not see all the missed time at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    async fn serve(&mut self) -> End {
        let mut ticks = self.ticks();
        let mut inputs = Vec::with_capacity(INPUTS_MAX);
        let mut ticked = Instant::now();
        loop {
            match self.work().await {
                Ok(()) => {}
                Err(error) => return End::Failed(error),
            }
            let stalled = self.core.is_stalled();
            tokio::select! {
                // Time first: it comes seldom, and under load there is always something in the inbox.
                biased;
                _ = ticks.tick() => {
                    self.see_lateness(mem::replace(&mut ticked, Instant::now()).elapsed());
                    if let Some(end) = self.tick() {
                        return end;
                    }
                }
                received = self.inbox.recv_many(&mut inputs, INPUTS_MAX) => {
                    // Without handles there is nobody left to serve.
                    if received == 0 {
                        return End::Stop;
                    }
                    if let Some(end) = self.take(&mut inputs) {
                        return end;
                    }
                }
                () = tokio::time::sleep(STALL_PAUSE), if stalled => {}
            }
        }
    }

    fn tick(&mut self) -> Option<End> {
        self.core.time_is(self.shared.uptime_ms());
        self.core.tick();
        self.tick_changes();
        let left = self.leaving.as_mut()?;
        *left = left.saturating_sub(1);
        (*left == 0).then(|| End::Failed(NodeError::Removed { member: self.shared.identity.member }))
    }

    /// Counts heartbeats that are late. Who leads nobody has none to send.
    fn see_lateness(&self, since_last_tick: Duration) {
        let leads = self.core.status().standing.role == Role::Leader && self.members.members.len() > 1;
        if leads && since_last_tick > self.tick * HEARTBEAT_LATE_TICKS {
            self.shared.metrics.heartbeats_late.inc();
            tracing::warn!(after = ?since_last_tick, interval = ?self.tick, "the leader's heartbeats are late");
        }
    }

    /// Gives inputs to the core.
    fn take(&mut self, inputs: &mut Vec<Input>) -> Option<End> {
        let mut end = None;
        for input in inputs.drain(..) {
            match input {
                Input::Propose { writer, .. } | Input::Change { writer, .. } if self.stopping => {
                    refuse_write(&self.shared, writer);
                }
                Input::Read(leave) if self.stopping => refuse_read(&self.shared, leave),
                Input::Propose { counter, command, writer, publishes: false } => {
                    self.core.propose(counter, command, writer);
                }
                Input::Propose { counter, command, writer, publishes: true } => {
                    self.core.publish(counter, command, writer);
                }
                Input::Read(leave) => self.core.read_index(leave),
                Input::Message(message, _room) => {
                    if let Err(refused) = self.core.step(message) {
                        self.transport.refused(&refused);
                    }
                }
                Input::Forwarded(term, command, _room) => self.core.forwarded(term, command),
                Input::ForwardsRefused(refused, _room) => {
                    for refused in refused {
                        self.core.forward_refused(refused);
                    }
                }
                Input::Change { counter, change, writer } => {
                    self.change(PendingChange { counter, change, writer, ticks_left: self.request_ticks });
                }
                Input::Transfer(to) => self.core.transfer_leader(to),
                Input::Removed(by) => {
                    if self.core.may_leave(by) {
                        self.leave();
                    }
                }
                Input::Synced(number) => self.core.synced(number),
                Input::Purged { size_bytes } => drop(self.shared.metrics.wal_size.set(size_bytes as i64)),
                Input::Fetched { id, entries } => self.core.fetched(id, entries),
                Input::Flushed(applied) => self.core.flushed(applied),
                Input::Checkpointed(made) => self.core.checkpointed(made.as_ref()),
                Input::Heard { member, id } => self.core.snapshot_heard(member, id),
                Input::Unfetched { member, id } => self.core.snapshot_unfetched(member, id),
                Input::Received { id, received } => {
                    self.core.received(id, received.as_ref().map(|received| received.meta.clone()));
                    self.received = received.or_else(|| self.received.take());
                }
                Input::Switched(received) => self.installed(*received),
                // The first failure counts, and more than a stop.
                Input::Failed(error) if !matches!(end, Some(End::Failed(_))) => end = Some(End::Failed(error)),
                Input::Failed(_) => {}
                Input::Stop => end = end.or(Some(End::Stop)),
            }
        }
        end
    }

    /// Does everything there is to do now. Between pieces of a long backlog, others get their turn and new inputs are
    /// taken.
    async fn work(&mut self) -> Result<(), NodeError> {
        loop {
            self.core.advance()?;
            if self.write_here()? {
                continue;
            }
            self.submit()?;
            let more = self.apply()?;
            if !more {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.retry_changes();
        // What was applied may have made room, or moved raft.
        self.core.advance()?;
        self.submit()?;
        self.publish();
        Ok(())
    }

    fn apply(&mut self) -> Result<bool, NodeError> {
        let stalled = self.core.is_stalled();
        let began = self.shared.apply_timer.begin(stalled);
        self.core.time_is(u64::try_from(began.as_millis()).unwrap_or(u64::MAX));
        let more = self.core.apply()?;
        let took = self.shared.apply_timer.took(began);
        let counts = self.core.take_counts();
        self.shared.metrics.count(counts);
        if took > self.slow_apply {
            self.shared.metrics.slow_apply.inc();
            tracing::warn!(?took, "expected-duration" = ?self.slow_apply, "apply request took too long");
        }
        if self.core.is_stalled() && !stalled {
            self.shared.metrics.apply_stalls.inc();
        }
        self.publish();
        self.count_leases();
        self.deliver();
        Ok(more)
    }

    /// Writes and syncs the one write there is without the log's thread, if that is the quicker way.
    fn write_here(&mut self) -> Result<bool, NodeError> {
        if self.core.out.writes.is_empty() {
            return Ok(false);
        }
        let lone = self.has_lone_write();
        if !self.lone.permits(lone) {
            return Ok(false);
        }
        let Some(write) = self.core.out.writes.pop() else { return Ok(false) };
        let number = write.number;
        let started = Instant::now();
        match self.log_sender.append_here(batch_of(write)) {
            Ok(()) => {
                self.lone.took(started.elapsed());
                self.core.synced(number);
                Ok(true)
            }
            Err(AppendHereError::Busy(batch)) => {
                self.held_back.push_back(batch);
                Ok(false)
            }
            Err(AppendHereError::Stopped) => Err(NodeError::Panicked("the raft log's thread")),
            Err(AppendHereError::Failed(error)) => Err(NodeError::LogThread(Arc::new(error))),
        }
    }

    /// Whether there is one small write, and nothing else to do before it is synced.
    fn has_lone_write(&self) -> bool {
        let status = self.core.status();
        // A leader of others has to send to them, and to hear them.
        let may_wait = status.reads_locally || status.standing.role == Role::Follower;
        let out = &self.core.out;
        let [write] = &out.writes[..] else { return false };
        let small = matches!(&write.entries[..], [entry] if entry.data.len() <= LONE_BYTES_MAX);
        may_wait
            && small
            && status.pending <= 1
            && self.core.unsynced() == 1
            && self.held_back.is_empty()
            && out.messages.is_empty()
            && self.inbox.is_empty()
    }

    /// Hands on what is to be written, and whatever else does not answer anybody.
    fn submit(&mut self) -> Result<(), NodeError> {
        for write in self.core.out.writes.drain(..) {
            self.held_back.push_back(batch_of(write));
        }
        while let Some(batch) = self.held_back.pop_front() {
            match self.log_sender.try_append(batch) {
                Ok(()) => {}
                // Each sync makes room and wakes this task.
                Err(TryAppendError::Full(batch)) => {
                    self.held_back.push_front(batch);
                    break;
                }
                Err(TryAppendError::Stopped) => return Err(NodeError::Panicked("the raft log's thread")),
            }
        }
        let out = &mut self.core.out;
        for message in out.messages.drain(..) {
            let to = message.to;
            if !self.transport.send(message) && !self.unreachable.contains(&to) {
                self.unreachable.push(to);
            }
        }
        for (to, refused) in out.refusals.drain(..) {
            self.transport.refuse_forward(to, refused);
        }
        for fetch in out.fetches.drain(..) {
            self.background.fetch(fetch);
        }
        if mem::take(&mut out.flush) {
            self.background.flush();
        }
        if let Some(index) = out.purge.take() {
            // A stopped thread has reported why.
            let _ = self.log_sender.purge(index);
        }
        self.forward();
        for member in self.unreachable.drain(..) {
            self.core.unreachable(member);
        }
        self.move_snapshots();
        self.deliver();
        Ok(())
    }

    /// Sends commands to the leader. What cannot be sent waits.
    fn forward(&mut self) {
        let mut unsent = Vec::new();
        let mut forwards = mem::take(&mut self.core.out.forwards);
        for forward in forwards.drain(..) {
            match self.transport.forward(forward.to, forward.term, &forward.command) {
                Sent::Bound => {}
                Sent::Loose => self.core.sent_loosely(forward.counter),
                Sent::Unsent => unsent.push(forward),
            }
        }
        self.core.out.forwards = forwards;
        if let Some(first) = unsent.first() {
            let (leader, commands) = (format_args!("{:x}", first.to), unsent.len());
            tracing::debug!(leader, commands, "commands for the leader cannot be sent now");
        }
        // The oldest one is to be the next one again.
        unsent.into_iter().rev().for_each(|forward| self.core.unsent(forward));
    }

    /// Counts what happened to leases, and tells those who wait for it.
    fn count_leases(&mut self) {
        let changes = &mut self.core.out.lease_changes;
        if changes.is_empty() {
            return;
        }
        let metrics = &self.shared.metrics;
        let mut revoked = 0;
        for change in changes.drain(..) {
            match change {
                LeaseChange::Granted { ttl, .. } => {
                    metrics.leases_granted.inc();
                    metrics.lease_ttl.observe(ttl as f64);
                }
                LeaseChange::Revoked { expired, .. } => {
                    revoked += 1;
                    metrics.leases_expired.inc_by(u64::from(expired));
                }
                LeaseChange::Checkpointed { .. } => {}
            }
        }
        metrics.leases_revoked.inc_by(revoked);
        if revoked > 0 {
            self.shared.lease_news.send_replace(());
        }
    }

    /// Answers whoever can be answered.
    fn deliver(&mut self) {
        let failed = self.shared.has_failed();
        let out = &mut self.core.out;
        for (writer, result) in out.answers.drain(..) {
            self.shared.budget.give_back(writer.bytes);
            let result = if failed { Err(ProposeError::Stopped) } else { result };
            self.post.put(Letter::Outcome(writer.result, result));
        }
        for (leave, result) in out.reads.drain(..) {
            self.shared.budget.give_back(0);
            let result = if failed { Err(ReadIndexError::Stopped) } else { result };
            self.post.put(Letter::Leave(leave, result));
        }
        self.post.send(&self.shared.deliveries);
    }

    /// Shows how the core is doing.
    fn publish(&mut self) {
        self.see_members();
        self.shared.first_index.store(self.core.first_index(), std::sync::atomic::Ordering::Relaxed);
        let status = self.core.status();
        if self.seen == Some(status) {
            return;
        }
        self.shared.publish(&status);
        let metrics = &self.shared.metrics;
        metrics.has_leader.set(i64::from(status.standing.leader != 0));
        metrics.is_leader.set(i64::from(status.standing.leader == self.shared.identity.member));
        metrics.is_learner.set(i64::from(status.learner));
        metrics.proposals_committed.set(status.committed as i64);
        metrics.proposals_applied.set(status.applied as i64);
        metrics.proposals_pending.set(status.pending as i64);
        metrics.entry_cache_bytes.set(self.core.cache().bytes() as i64);
        let counted = |now: u64, read: fn(&CoreStatus) -> u64| now - self.seen.as_ref().map_or(0, read);
        metrics.leader_changes_seen.inc_by(counted(status.leader_changes, |seen| seen.leader_changes));
        metrics.disk_stalls.inc_by(counted(status.disk_stalls, |seen| seen.disk_stalls));
        metrics.proposals_failed.inc_by(counted(status.proposals_failed, |seen| seen.proposals_failed));
        metrics.slow_read_indexes.inc_by(counted(status.slow_reads, |seen| seen.slow_reads));
        metrics.read_indexes_failed.inc_by(counted(status.failed_reads, |seen| seen.failed_reads));
        metrics.count_drops(self.seen.as_ref().map_or_else(Default::default, |seen| seen.drops), status.drops);
        if self.seen.is_none_or(|seen| seen.standing != status.standing || seen.reads_locally != status.reads_locally) {
            self.shared.lease_news.send_replace(());
        }
        self.seen = Some(status);
    }
}

fn batch_of(write: InFlight) -> Batch {
    let InFlight { number, reset, entries, hard_state } = write;
    Batch { number, reset, entries, hard_state, must_sync: true }
}

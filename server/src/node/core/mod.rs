//! The replica as a step function: what happens goes in, what is to be done comes out. It decides everything and does
//! nothing itself.
//!
//! ```text
//!   propose   read_index   step(message)   tick   synced(n)   flushed(i), fetched, received   inputs: remember, hand to raft
//!        \         \            |           /        /           /
//!         v         v           v          v        v           v
//!   advance(): begin a read round, pack waiting commands into entries, ask raft what follows      -> writes, messages
//!   apply():   a piece of what is committed and synced goes to the state machine                  -> answers, reads, flush, purge
//! ```
//! Snapshots for members that lag too far have a part of their own: `snapshots`.
//!
//! [`Core::advance`] and [`Core::apply`] are called in turn until both say that there is nothing left; after each of
//! them the caller takes what is in [`Core::out`]. They are two because the disk should be busy with the next write
//! before the processor is busy with the last one.
//!
//! What lives here: the rules of order. What may call it: `node/shell` with real time, threads and disks, and the
//! simulation with its own.
//!
//! The rules:
//! 1. A command is answered only after it is applied; it is applied only after it is committed and synced here.
//! 2. A command is given to the leader of a term once, this member or another one; to that of a later term only when it
//!    can never be applied as it was given before (`forwards`). What became of it is learnt from applying it, or never.
//! 3. A read waits for an index that a leader confirmed after the read came, and for its being applied. A leader
//!    confirms nothing before an entry of its own term is committed.
//! 4. The log is cut only behind what the store has flushed.
//! 5. Clients are served nothing before a publication of this run is applied ([`CoreStatus::serves`]): until then the
//!    state may be older than what the member has shown in an earlier run.
//! 6. After the first error there are no outputs any more: nothing is acknowledged on grounds that are in doubt.
//!
//! # Waiting together
//!
//! While [`CoreOptions::writes_in_flight_max`] writes are not synced, commands wait in the queue, and the next write
//! takes all of them: the longer a sync takes, the more it carries. With none in flight a command is written at once,
//! alone if it is alone.
//!
//! # Caveats
//!
//! Which membership changes are allowed is not decided here, but before they are proposed.

#![deny(clippy::disallowed_methods)]

mod applying;
mod disk;
mod force;
mod foreign;
mod forwards;
mod leases;
mod leaving;
mod options;
mod outputs;
mod packing;
mod queue;
mod reads;
mod retention;
mod snapshots;
mod start;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use raft::eraftpb::{ConfChangeV2, ConfState, Entry, Message, MessageType};

use self::{
    disk::DiskWatch,
    forwards::Forwarding,
    leases::Leases,
    queue::{Queue, Queued, Source, Waiters},
    reads::Reads,
    retention::Retention,
    snapshots::Snapshots,
};
pub use self::{
    force::{force_new_cluster, has_committed_changes},
    forwards::{ANY_TERM, DropReason, Drops, Forward, ForwardRefusal, RefusedForward},
    leaving::Leaving,
    options::CoreOptions,
    outputs::{CoreStatus, Outputs},
    retention::RetentionOptions,
    start::{FIRST_SNAPSHOT, check_fit, log_of_member, log_of_new_cluster},
};
use super::error::{NodeError, ProposeError, ReadIndexError};
use crate::{
    lease::LeaseClock,
    log::EntryId,
    raft::{Group, LogStart, Refused, Role, Standing},
    state::{State, command::EntryBuilder, mvcc::Counts},
};

/// A replica. `W` is what the caller knows a proposal's waiter by, `R` a reader.
pub struct Core<W, R> {
    options: CoreOptions,
    group: Group,
    state: State,
    queue: Queue,
    waiters: Waiters<W>,
    forwarding: Forwarding,
    reads: Reads<R>,
    retention: Retention,
    leases: Leases,
    disk: DiskWatch,
    snapshots: Snapshots,
    /// What is to be done.
    pub out: Outputs<W, R>,
    builder: EntryBuilder,
    piece: Vec<crate::state::Committed>,
    /// What the state machine has been given and could not store yet: index, term and bytes of it.
    stalled: Option<applying::Piece>,
    now: u64,
    standing: Standing,
    applied: (u64, u64),
    joint: bool,
    /// The last entry that others had a part in, when the last one of them went: it may have applied and shown that
    /// much.
    shared_up_to: u64,
    /// A voter that is alone campaigns at once, when it has applied what it knows to be committed.
    campaign: bool,
    /// The term in which this member last handed leadership over to be removed.
    handed_over_in: u64,
    /// The highest index that another member said to be committed.
    heard_commit: u64,
    /// The next entry to be applied removes this member, which has to hear of it from another one before.
    stays: bool,
    /// The number of the newest publication of the member that this run proposed.
    publication: Option<u64>,
    /// A publication of this run is applied here.
    serves: bool,
    /// When the leader was last seen to change.
    leader_changed_at: Option<u64>,
    proposals_failed: u64,
    leader_changes: u64,
    failed_reads: u64,
}

impl<W, R> Core<W, R> {
    /// A replica over what its log and its state machine hold. A new cluster's state has been bootstrapped and flushed
    /// before.
    pub fn start(options: CoreOptions, state: State, mut log: LogStart) -> Result<Self, NodeError> {
        let applied = state.applied();
        let member = options.raft.member;
        if state.members().removed.contains(&member) {
            return Err(NodeError::Removed { member });
        }
        check_fit(EntryId::new(applied.0, applied.1), &mut log)?;
        let before = log.terms.base().index;
        let group = Group::start(&options.raft, applied.0, state.conf_state(), log)
            .map_err(|source| NodeError::Raft { action: "start", source })?;
        let standing = group.standing();
        Ok(Self {
            queue: Queue::new(options.queue_commands_max, options.queue_bytes_max),
            waiters: Waiters::new(),
            forwarding: Forwarding::default(),
            reads: Reads::new(member, options.nonce),
            retention: Retention::new(options.retention.clone(), before, applied.0),
            leases: Leases::new(LeaseClock::new(options.lease_checkpoint)),
            disk: DiskWatch::default(),
            snapshots: Snapshots::default(),
            out: Outputs::default(),
            builder: EntryBuilder::new(),
            piece: Vec::new(),
            stalled: None,
            now: 0,
            standing,
            applied,
            joint: group.is_joint(),
            shared_up_to: 0,
            campaign: group.is_alone(),
            handed_over_in: 0,
            heard_commit: 0,
            stays: false,
            publication: None,
            serves: false,
            leader_changed_at: None,
            proposals_failed: 0,
            leader_changes: 0,
            failed_reads: 0,
            options,
            group,
            state,
        })
    }

    /// Applies what is known to be committed before anything comes in from outside. `false` if the store asks to wait: call it
    /// again.
    pub fn settle(&mut self) -> Result<bool, NodeError> {
        self.advance()?;
        while self.apply()? {
            self.advance()?;
        }
        self.campaign = self.group.is_alone();
        Ok(self.stalled.is_none())
    }

    /// The state machine.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// What commands have done to keys since this was last called.
    pub fn take_counts(&mut self) -> Counts {
        self.state.take_counts()
    }

    /// The part of the log that is in memory.
    pub fn cache(&self) -> &crate::raft::EntryCache {
        self.group.cache()
    }

    /// How the replica is doing.
    pub fn status(&self) -> CoreStatus {
        CoreStatus {
            standing: self.standing,
            committed: self.group.committed(),
            applied: self.applied.0,
            learner: self.group.is_learner(),
            blank: self.group.last_index() == FIRST_SNAPSHOT.index,
            reads_locally: self.group.is_only_member()
                && self.standing.role == Role::Leader
                && self.applied.1 == self.standing.term
                && self.applied.0 >= self.shared_up_to,
            pending: self.waiters.len(),
            proposals_failed: self.proposals_failed,
            leader_changes: self.leader_changes,
            disk_stalls: self.disk.stalls(),
            slow_reads: self.reads.retries(),
            failed_reads: self.failed_reads,
            drops: self.forwarding.drops,
            serves: self.serves,
        }
    }

    /// Writes to the log that are not synced.
    pub fn unsynced(&self) -> usize {
        self.group.unsynced()
    }

    /// Whether the store asked to wait: [`Self::apply`] should be called again a little later.
    pub fn is_stalled(&self) -> bool {
        self.stalled.is_some()
    }

    /// Takes an encoded command of this member. `counter` is its number in the command's request id.
    pub fn propose(&mut self, counter: u64, command: Bytes, waiter: W) {
        if !self.queue.has_room(command.len()) {
            self.refuse(waiter, ProposeError::TooManyRequests);
            return;
        }
        self.waiters.insert(counter, waiter, self.now + self.options.request_ticks);
        self.queue.push(Queued { source: Source::Own { counter }, command });
    }

    /// Takes the encoded command that publishes this member's name and URLs. Once it is applied here, the member serves
    /// clients: whatever it had applied or acknowledged in an earlier run is committed before it in the log.
    pub fn publish(&mut self, counter: u64, command: Bytes, waiter: W) {
        self.publication = Some(counter);
        self.propose(counter, command, waiter);
    }

    /// Whether a membership change may be proposed now: this member leads, has applied an entry of its term, hands
    /// leadership over to nobody, and no other change is under way.
    pub fn takes_conf_change(&self) -> bool {
        self.group.takes_conf_change() && self.applied.1 == self.standing.term
    }

    /// Proposes a membership change. `context` is the encoded command that the state machine gets with it, `counter`
    /// its number.
    pub fn propose_conf_change(&mut self, counter: u64, change: ConfChangeV2, context: &Bytes, waiter: W) {
        if !self.takes_conf_change() {
            self.refuse(waiter, ProposeError::ChangePending);
            return;
        }
        self.waiters.insert(counter, waiter, self.now + self.options.request_ticks);
        self.waiters.give(counter, self.standing.term);
        let Err(error) = self.group.propose_conf_change(change, context.to_vec()) else { return };
        if let Some(waiter) = self.waiters.take(counter) {
            let why = match error {
                raft::Error::ConfChangeError(_) => ProposeError::Malformed("the other members would refuse it"),
                _ => ProposeError::ChangePending,
            };
            self.refuse(waiter, why);
        }
    }

    /// Takes a reader that wants everything acknowledged before now to be applied here.
    pub fn read_index(&mut self, reader: R) {
        if self.reads.len() >= self.options.reads_max {
            self.out.reads.push((reader, Err(ReadIndexError::TooManyRequests)));
            return;
        }
        self.reads.push(reader, self.now + self.options.request_ticks);
    }

    /// Takes a peer's message. A refused one is worth a line in the log and nothing else.
    pub fn step(&mut self, mut message: Message) -> Result<(), Refused> {
        // The leader tries again with the next heartbeat: until then there may be room.
        if !message.entries.is_empty() && self.group.cache().bytes_not_applied() > 2 * self.options.unapplied_bytes_max
        {
            self.forwarding.dropped(DropReason::Unapplied);
            return Ok(());
        }
        foreign::check_entries(&mut message)?;
        let committed = leaving::said_committed(&message);
        let taken = match MessageType::from_i32(message.msg_type) {
            Some(MessageType::MsgSnapshot) => self.offered(message),
            Some(MessageType::MsgReadIndex) if self.standing.role == Role::Leader => self.asked(message),
            _ => self.group.step(message),
        };
        if taken.is_ok() {
            self.heard_commit = self.heard_commit.max(committed);
        }
        self.see_standing();
        taken
    }

    /// Notes that messages to a peer were lost.
    pub fn unreachable(&mut self, peer: u64) {
        self.group.unreachable(peer);
        self.snapshot_lost(peer);
    }

    /// Hands leadership over to another voter, if this member leads. It gives up after an election time-out.
    pub fn transfer_leader(&mut self, to: u64) {
        self.group.transfer_leader(to);
    }

    /// The voter that leadership is best handed over to, if this member leads and there is one that is there.
    pub fn successor(&self) -> Option<u64> {
        self.group.successor()
    }

    /// Whether a member has nearly all of the leader's log, as far as this member knows, which has to lead: at least nine
    /// tenths, as in etcd.
    pub fn has_caught_up(&self, member: u64) -> bool {
        let own = self.group.cache().last();
        self.group.follower(member).is_some_and(|follower| follower.matched >= own / 10 * 9 + own % 10 * 9 / 10)
    }

    /// The membership as raft counts it. That of the state machine is the same, but for what waits to be stored.
    pub fn conf_state(&self) -> ConfState {
        self.group.conf_state()
    }

    /// Index of the first entry that the log still holds.
    pub fn first_index(&self) -> u64 {
        self.group.cache().before() + 1
    }

    /// Lets a tick of time pass.
    pub fn tick(&mut self) {
        self.now += 1;
        self.group.tick();
        self.see_standing();
        self.watch_disk();
        self.give_way();
        self.leases.tick();
        self.forwarding.try_again();
        self.tick_snapshots();
        let timeout = self.timeout();
        for waiter in self.waiters.expired(self.now) {
            self.proposals_failed += 1;
            self.out.answers.push((waiter, Err(timeout)));
        }
        let (unconfirmed, not_applied) = self.reads.expired(self.now);
        self.failed_reads += unconfirmed.len() as u64;
        self.out.reads.extend(unconfirmed.into_iter().map(|reader| (reader, Err(ReadIndexError::Timeout))));
        self.out.reads.extend(not_applied.into_iter().map(|reader| (reader, Err(ReadIndexError::TimeoutNotApplied))));
    }

    /// Notes that all writes up to `number` are synced.
    pub fn synced(&mut self, number: u64) {
        let mut messages = self.group.synced(number);
        self.see_sent(&messages);
        self.out.messages.append(&mut messages);
        self.snapshots_synced(number);
    }

    /// Notes that the store has durably applied everything up to `index`, whoever made it flush.
    pub fn flushed(&mut self, index: u64) {
        self.retention.flushed(index, self.now);
        // Until the log begins anew, it is not the one that is cut.
        if self.group.is_resetting() {
            return;
        }
        if let Some(index) = self.retention.purge(self.needed_after()) {
            self.group.purged_to(index);
            self.out.purge = Some(index);
        }
    }

    /// Takes the entries that were to be fetched; none, if they could not be read.
    pub fn fetched(&mut self, id: u64, entries: Vec<Entry>) {
        self.group.fetched(id, entries);
    }

    /// Everybody who waits is told that the replica stops. Nothing may be given in any more.
    pub fn stop(&mut self) {
        let stopped = self.waiters.drain().into_iter().map(|waiter| (waiter, Err(ProposeError::Stopped)));
        self.out.answers.extend(stopped);
        let stopped = self.reads.drain().into_iter().map(|reader| (reader, Err(ReadIndexError::Stopped)));
        self.out.reads.extend(stopped);
    }

    /// Writes what of the hard state is not written, as the last write before a shutdown.
    pub fn write_hard_state(&mut self) {
        let write = self.group.unwritten_hard_state().and_then(|write| self.snapshots.hold(write));
        self.out.writes.extend(write);
    }

    /// Gives raft what waits, and takes from it what follows. Without inputs in between, a second call does nothing.
    pub fn advance(&mut self) -> Result<(), NodeError> {
        self.begin_campaign()?;
        self.leave_joint()?;
        self.advance_snapshots();
        self.begin_read();
        self.pack()?;
        self.pack_leases()?;
        while let Some(work) = self.group.work() {
            self.see_sent(&work.messages);
            self.note_reset(work.write.as_ref());
            let write = work.write.and_then(|write| self.snapshots.hold(write));
            self.out.writes.extend(write);
            self.out.messages.extend(work.messages);
            for (context, index) in work.reads {
                self.confirmed(&context, index);
            }
        }
        self.out.fetches.append(&mut self.group.fetches());
        self.answer_reads();
        Ok(())
    }

    fn begin_campaign(&mut self) -> Result<(), NodeError> {
        if !self.campaign || self.group.unsynced() > 0 || self.applied.0 < self.group.committed() {
            return Ok(());
        }
        self.campaign = false;
        self.group.campaign().map_err(|source| NodeError::Raft { action: "campaign", source })?;
        self.see_standing();
        Ok(())
    }

    /// A change of several members at once has two halves. Whoever leads after the first proposes the second.
    fn leave_joint(&mut self) -> Result<(), NodeError> {
        if !self.joint || !self.takes_conf_change() {
            return Ok(());
        }
        let leave = ConfChangeV2::default();
        self.group
            .propose_conf_change(leave, Vec::new())
            .map_err(|source| NodeError::Raft { action: "leave of a joint configuration", source })
    }

    fn begin_read(&mut self) {
        let can_ask = match self.standing.role {
            Role::Leader => self.group.has_committed_in_term(),
            Role::Follower | Role::Candidate => self.standing.leader != 0,
        };
        if can_ask && self.reads.wants_context(self.now) {
            let context = self.reads.context(self.now, self.options.read_retry_ticks);
            self.group.read_index(context);
        }
    }

    /// Takes another member's request for a read index. It takes part in this member's next round.
    fn asked(&mut self, message: Message) -> Result<(), Refused> {
        self.group.check(&message)?;
        if let Some(request) = message.entries.into_iter().next() {
            self.reads.asked(message.from, request.data);
        }
        Ok(())
    }

    /// A round is confirmed: those of other members that take part in it get its index.
    fn confirmed(&mut self, context: &[u8], index: u64) {
        let (from, term) = (self.options.raft.member, self.standing.term);
        for (to, context) in self.reads.confirmed(context, index) {
            let entries = vec![Entry { data: context, ..Entry::default() }];
            let msg_type = MessageType::MsgReadIndexResp as i32;
            self.out.messages.push(Message { msg_type, from, to, term, index, entries, ..Message::default() });
        }
    }

    fn answer_reads(&mut self) {
        let reads = &mut self.out.reads;
        self.reads.ready(self.applied.0, |reader| reads.push((reader, Ok(()))));
    }

    fn refuse(&mut self, waiter: W, error: ProposeError) {
        self.proposals_failed += 1;
        self.out.answers.push((waiter, Err(error)));
    }

    /// What to tell whoever waited too long.
    fn timeout(&self) -> ProposeError {
        let recently = 2 * self.options.raft.election_ticks as u64 + self.options.request_ticks;
        let leader_failed = self.standing.leader == 0
            || self
                .leader_changed_at
                .is_some_and(|changed_at| changed_at + recently > self.now && self.leader_changes > 1);
        if leader_failed { ProposeError::TimeoutLeaderFailure } else { ProposeError::Timeout }
    }

    /// Sees whether the last input changed term, role or leader.
    fn see_standing(&mut self) {
        let standing = self.group.standing();
        if standing == self.standing {
            return;
        }
        let before = std::mem::replace(&mut self.standing, standing);
        if before.role == Role::Leader {
            self.turn_down_queued();
        }
        if standing.leader != before.leader {
            self.leader_changed_at = Some(self.now);
            self.leader_changes += u64::from(standing.leader != 0);
        }
        self.forwarding.try_again();
        self.reads.standing_changed();
        self.leases_standing();
        tracing::info!(term = standing.term, role = ?standing.role, leader = format_args!("{:x}", standing.leader), "standing changed");
    }
}

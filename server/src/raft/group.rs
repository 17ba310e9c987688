//! One raft group's local member: raft-rs, its entry cache, and what is on its way to the disk.

use std::{collections::VecDeque, mem, sync::Arc};

use raft::{
    GetEntriesContext, RawNode, StateRole,
    eraftpb::{ConfChangeV2, ConfState, Entry, HardState, Message, MessageType, Snapshot},
};

use super::{
    EntryCache, LogStart, RaftOptions, Refused,
    election::ElectionDice,
    storage::{CachedLog, Miss},
    validate::{self, View},
};
use crate::log::EntryId;

/// Fetches that may be under way at once.
const FETCHES_MAX: usize = 16;

/// What a member is at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It takes entries from a leader, or knows none.
    Follower,
    /// It campaigns.
    Candidate,
    /// It proposes.
    Leader,
}

/// Where a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Its term.
    pub term: u64,
    /// What it is.
    pub role: Role,
    /// The leader it knows, 0 for none.
    pub leader: u64,
}

/// What a leader knows of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Follower {
    /// The last entry that it is known to have stored.
    pub matched: u64,
    /// Whether it was heard of within the last election time-out or two.
    pub active: bool,
}

/// Entries and hard state to be written in one piece. It may begin at an index that the log already has: everything
/// from there on is replaced.
#[derive(Debug, Clone)]
pub struct InFlight {
    /// Rises by one with each.
    pub number: u64,
    /// A snapshot is being installed: the log begins anew after this entry, before anything else is written.
    pub reset: Option<EntryId>,
    /// The entries, possibly none.
    pub entries: Arc<[Entry]>,
    /// The hard state, if it changed since the last write.
    pub hard_state: Option<HardState>,
}

/// What raft wants done.
#[derive(Debug, Default)]
pub struct Work {
    /// To be written and synced, then reported by [`Group::synced`]. The entries are in the cache already. If it begins
    /// with a reset, not before the snapshot has taken the state's place.
    pub write: Option<InFlight>,
    /// To be sent now.
    pub messages: Vec<Message>,
    /// Read requests that were confirmed: the context and the index that must be applied before reading.
    pub reads: Vec<(Vec<u8>, u64)>,
}

/// Entries to be read from the log for a follower, because they are not in memory any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fetch {
    /// Names the request.
    pub id: u64,
    /// The first entry.
    pub low: u64,
    /// The entry after the last one.
    pub high: u64,
    /// Bytes at which it is enough. One entry is always wanted.
    pub bytes_max: u64,
}

/// A write that is not known to be synced.
struct Parked {
    number: u64,
    ready: u64,
    /// The term that is durable with it.
    term: u64,
    messages: Vec<Message>,
}

/// The local member of a raft group.
pub struct Group {
    pub(super) node: RawNode<CachedLog>,
    dice: ElectionDice,
    /// The newest term that is known to be synced.
    synced_term: u64,
    parked: VecDeque<Parked>,
    written: u64,
    unwritten: Option<HardState>,
    commit: u64,
    /// The write after which entries up to an index may be applied: a removal among them is known to be committed only then.
    held: Option<(u64, u64)>,
    /// Fetches that are not answered, with what raft-rs wants to be told then.
    fetches: VecDeque<(Fetch, GetEntriesContext)>,
    fetched: u64,
    /// The number of a write that resets the log, and the snapshot's index, until it is synced.
    pub(super) resetting: Option<(u64, u64)>,
}

impl Group {
    /// A member whose state machine has applied everything up to `applied` and stands at `conf_state`, over the log it
    /// found. The caller has checked that they fit: nothing is missing between `applied` and the log, and the hard
    /// state's commit index is within `applied` and the last entry.
    pub fn start(
        options: &RaftOptions,
        applied: u64,
        conf_state: &ConfState,
        log: LogStart,
    ) -> Result<Self, raft::Error> {
        let cache = EntryCache::new(log.terms, applied, log.entries, options.cache_bytes);
        let synced_term = log.hard_state.term;
        let node = RawNode::new(
            &options.to_raft(applied),
            CachedLog::new(cache, log.hard_state, conf_state.clone()),
            &super::logger(),
        )?;
        let mut group = Self {
            node,
            dice: ElectionDice::new(options.seed, options.election_ticks),
            synced_term,
            parked: VecDeque::new(),
            written: 0,
            unwritten: None,
            commit: applied,
            held: None,
            fetches: VecDeque::new(),
            fetched: 0,
            resetting: None,
        };
        group.settle(false);
        Ok(group)
    }

    /// Where the member stands.
    pub fn standing(&self) -> Standing {
        let role = match self.node.raft.state {
            StateRole::Leader => Role::Leader,
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
        };
        Standing { term: self.node.raft.term, role, leader: self.node.raft.leader_id }
    }

    /// The log in memory.
    pub fn cache(&self) -> &EntryCache {
        &self.node.store().cache
    }

    /// Writes that are not known to be synced.
    pub fn unsynced(&self) -> usize {
        self.parked.len()
    }

    /// The oldest write that is not known to be synced.
    pub fn oldest_unsynced(&self) -> Option<u64> {
        self.parked.front().map(|parked| parked.number)
    }

    /// The last entry that may be applied: committed, and synced here.
    pub fn commit(&self) -> u64 {
        self.commit
    }

    /// The last entry known to be committed.
    pub fn committed(&self) -> u64 {
        self.node.raft.raft_log.committed
    }

    /// The last entry of the log.
    pub fn last_index(&self) -> u64 {
        self.node.raft.raft_log.last_index()
    }

    /// Whether this member decides alone.
    pub fn is_alone(&self) -> bool {
        let raft = &self.node.raft;
        raft.promotable() && raft.prs().conf().voters().ids().iter().all(|voter| voter == raft.id)
    }

    /// Whether there is no other member, not even one without a vote.
    pub fn is_only_member(&self) -> bool {
        self.is_alone() && self.node.raft.prs().iter().all(|(member, _)| *member == self.node.raft.id)
    }

    /// Whether this member replicates without a vote: as a learner, or before it has read of its being a member.
    pub fn is_learner(&self) -> bool {
        !self.node.raft.promotable()
    }

    /// Whether a membership change was begun that must be ended by another one.
    pub fn is_joint(&self) -> bool {
        !self.node.raft.prs().conf().to_conf_state().voters_outgoing.is_empty()
    }

    /// Whether proposals would be taken.
    pub fn takes_proposals(&self) -> bool {
        let raft = &self.node.raft;
        raft.state == StateRole::Leader && raft.lead_transferee.is_none() && raft.prs().get(raft.id).is_some()
    }

    /// Whether an entry of the own term is committed, without which a leader cannot answer reads.
    pub fn has_committed_in_term(&self) -> bool {
        self.node.raft.commit_to_current_term()
    }

    /// Appends an entry, as leader.
    pub fn propose(&mut self, data: Vec<u8>) -> Result<(), raft::Error> {
        let proposed = self.node.propose(Vec::new(), data);
        self.settle(false);
        proposed
    }

    /// Whether a membership change could be proposed now: there must be no other under way.
    pub fn takes_conf_change(&self) -> bool {
        self.takes_proposals() && !self.node.raft.has_pending_conf()
    }

    /// Appends a membership change, as leader. What the others would refuse to take is not appended: nothing after it could
    /// ever be committed.
    pub fn propose_conf_change(&mut self, change: ConfChangeV2, context: Vec<u8>) -> Result<(), raft::Error> {
        validate::check_change(&change).map_err(|reason| raft::Error::ConfChangeError(reason.to_owned()))?;
        let proposed = self.node.propose_conf_change(context, change);
        self.settle(false);
        proposed
    }

    /// The membership change that a committed entry holds.
    pub fn conf_change(entry: &Entry) -> Result<ConfChangeV2, &'static str> {
        validate::conf_change(entry)
    }

    /// Applies a committed membership change, once for each in log order. A leader that it removes leads no more.
    pub fn apply_conf_change(&mut self, change: &ConfChangeV2) -> Result<ConfState, raft::Error> {
        let applied = self.node.apply_conf_change(change);
        let raft = &mut self.node.raft;
        // raft-rs 0.7 would let it go on, and then stumble over its not being among those it counts. The others have been
        // sent what they need to know of the change when it was committed.
        if raft.state == StateRole::Leader && raft.prs().get(raft.id).is_none() {
            self.step_down();
        }
        self.settle(false);
        applied
    }

    /// Leads no more. The others find out when they miss its heartbeats.
    pub fn step_down(&mut self) {
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader {
            raft.become_follower(raft.term, raft::INVALID_ID);
            self.settle(false);
        }
    }

    /// The membership as raft knows it.
    pub fn conf_state(&self) -> ConfState {
        self.node.raft.prs().conf().to_conf_state()
    }

    /// Takes a message of a peer. One with a snapshot is for [`offered`](Self::offered).
    pub fn step(&mut self, message: Message) -> Result<(), Refused> {
        if message.msg_type == MessageType::MsgSnapshot as i32 {
            let from = message.from;
            return Err(Refused::Unexpected { from, kind: MessageType::MsgSnapshot });
        }
        self.check(&message)?;
        if self.resetting.is_some() && message.msg_type == MessageType::MsgTimeoutNow as i32 {
            // An old one: whoever leads now does not count on this member yet.
            return Ok(());
        }
        let from = message.from;
        let taken = self.node.step(message);
        self.settle(false);
        taken.map_err(|error| Refused::NotTaken { from, reason: error.to_string() })
    }

    /// Whether a message of a peer is one that can be taken.
    pub fn check(&self, message: &Message) -> Result<(), Refused> {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        let view = View { member: raft.id, term: raft.term, last: raft.raft_log.last_index(), leads };
        validate::check(message, view)
    }

    /// Lets time pass. Until a reset of the log is synced, it stands still: raft-rs counts a snapshot as applied only then,
    /// and ends the process if there is an election before, as it looks for the entries that the snapshot stands for.
    pub fn tick(&mut self) {
        if self.resetting.is_some() {
            return;
        }
        // Whoever is alone wins an election at once, and raft-rs takes it for granted that a new leader's log is
        // synced. With peers that is so, because the request for their votes waits for the sync.
        if self.node.raft.state != StateRole::Leader && !self.parked.is_empty() && self.is_alone() {
            return;
        }
        self.node.tick();
        let campaigned = self.node.raft.state != StateRole::Leader && self.node.raft.election_elapsed == 0;
        self.settle(campaigned);
    }

    /// Campaigns without waiting for the time-out.
    pub fn campaign(&mut self) -> Result<(), raft::Error> {
        let campaigned = self.node.campaign();
        self.settle(true);
        campaigned
    }

    /// Hands leadership over to another voter, as leader. Gives up after an election time-out; nothing is proposed meanwhile.
    pub fn transfer_leader(&mut self, to: u64) {
        if self.node.raft.state == StateRole::Leader {
            self.node.transfer_leader(to);
            self.settle(false);
        }
    }

    /// Whether a hand-over is under way.
    pub fn is_handing_over(&self) -> bool {
        self.node.raft.lead_transferee.is_some()
    }

    /// How far a member is, as this member knows while it leads; `None` if it does not lead or knows no such member.
    pub fn follower(&self, member: u64) -> Option<Follower> {
        let raft = &self.node.raft;
        let progress = raft.prs().get(member).filter(|_| raft.state == StateRole::Leader)?;
        Some(Follower { matched: progress.matched, active: progress.recent_active })
    }

    /// Whether those that were heard of lately are a majority without this member, which leads.
    pub fn others_are_quorum(&self) -> bool {
        let raft = &self.node.raft;
        let others = raft.prs().iter().filter(|(member, progress)| **member != raft.id && progress.recent_active);
        raft.prs().has_quorum(&others.map(|(member, _)| *member).collect())
    }

    /// The voter that leadership is best handed over to: of those that were heard of lately the one that has most of the
    /// log, and of these the one with the lowest id. `None` if there is none, or this member does not lead.
    pub fn successor(&self) -> Option<u64> {
        let own = self.node.raft.id;
        let voters = self.node.raft.prs().conf().voters();
        let ids = voters.ids();
        let others = ids.iter().filter(|&voter| voter != own);
        let active = others.filter_map(|voter| {
            let follower = self.follower(voter).filter(|follower| follower.active)?;
            Some((follower.matched, std::cmp::Reverse(voter)))
        });
        active.max().map(|(_, voter)| voter.0)
    }

    /// Notes that messages to a peer were lost.
    pub fn unreachable(&mut self, peer: u64) {
        self.node.report_unreachable(peer);
        self.settle(false);
    }

    /// Asks for a read index. `context` names the request and must never be used twice. It may get lost, in silence.
    pub fn read_index(&mut self, context: Vec<u8>) {
        self.node.read_index(context);
        self.settle(false);
    }

    /// What raft wants done next, until there is nothing.
    pub fn work(&mut self) -> Option<Work> {
        if !self.node.has_ready() {
            return None;
        }
        let mut ready = self.node.ready();
        let mut messages = ready.take_messages();
        let mut work = Work::default();
        work.reads.extend(ready.take_read_states().into_iter().map(|read| (read.request_ctx, read.index)));
        let committed = ready.committed_entries().last().map(|last| last.index);
        // What is in them is only in the cache.
        let removes = |entry: &&Entry| self.cache().get(entry.index).is_some_and(validate::removes);
        let removal = ready.committed_entries().iter().find(removes).map(|entry| entry.index);
        if let Some(hard_state) = ready.hs() {
            self.unwritten = Some(hard_state.clone());
        }
        let number = ready.number();
        let promises = ready.take_persisted_messages();
        // A commit index that moved alone is written with the next batch: it can be found again from the other members
        // or by an election.
        // A removal is different: if this member forgot that it is committed, it might need the vote of one that is gone.
        let must_know = removal.is_some() && self.unwritten.is_some();
        if ready.must_sync() || must_know {
            let entries: Arc<[Entry]> = ready.take_entries().into();
            self.written += 1;
            let reset = self.reset(ready.snapshot());
            self.node.mut_store().cache.append(Arc::clone(&entries));
            work.write = Some(InFlight { number: self.written, reset, entries, hard_state: self.unwritten.take() });
            let term = self.node.raft.term;
            self.parked.push_back(Parked { number: self.written, ready: number, term, messages: promises });
            self.node.advance_append_async(ready);
        } else {
            self.node.advance_append_async(ready);
            if let Some(before) = self.parked.back_mut() {
                // What is promised here rests on what was written before.
                before.ready = number;
                before.messages.extend(promises);
            } else {
                work.messages.extend(promises);
                self.node.on_persist_ready(number);
            }
        }
        self.see_committed(committed, removal);
        // Nobody is told of a removal before it is known here for good.
        // Whoever is alone leads without having asked for votes, so its term may not be synced yet, and after a crash it
        // would lead the same one again, with other entries. So no learner may hear of it before.
        if (self.node.raft.term > self.synced_term || self.held.is_some())
            && let Some(before) = self.parked.back_mut()
        {
            before.messages.append(&mut messages);
        }
        work.messages.append(&mut messages);
        Some(work)
    }

    /// Notes what may be applied: everything up to `committed`, of which `removal` and what follows waits for the writes that
    /// are under way.
    fn see_committed(&mut self, committed: Option<u64>, removal: Option<u64>) {
        let Some(committed) = committed else { return };
        let write = removal.and_then(|_| self.parked.back()).map(|parked| parked.number);
        match (self.held, write) {
            (Some((earlier, _)), write) => self.held = Some((write.unwrap_or(earlier), committed)),
            (None, Some(write)) => {
                self.commit = self.commit.max(removal.map_or(0, |removal| removal - 1));
                self.held = Some((write, committed));
            }
            (None, None) => self.commit = committed,
        }
    }

    /// Lets the log in memory begin after a snapshot, if there is one.
    fn reset(&mut self, snapshot: &Snapshot) -> Option<EntryId> {
        let metadata = snapshot.metadata.as_ref().filter(|_| !snapshot.is_empty())?;
        let last = EntryId { index: metadata.index, term: metadata.term };
        self.node.mut_store().cache.reset(last);
        self.commit = last.index;
        self.held = None;
        self.resetting = Some((self.written, last.index));
        Some(last)
    }

    /// Entries that followers need from the disk, each asked for once until [`Self::fetched`].
    pub fn fetches(&mut self) -> Vec<Fetch> {
        let misses = self.node.store().misses.take();
        let mut fetches = Vec::new();
        for Miss { low, high, bytes_max, context } in misses {
            if self.fetches.len() == FETCHES_MAX || self.fetches.iter().any(|(fetch, _)| fetch.low == low) {
                // The follower's next answer to a heartbeat asks again.
                continue;
            }
            self.fetched += 1;
            let fetch = Fetch { id: self.fetched, low, high, bytes_max };
            self.fetches.push_back((fetch, context));
            fetches.push(fetch);
        }
        fetches
    }

    /// Takes what a fetch brought; nothing, if the entries could not be read, for instance because they were purged
    /// meanwhile.
    pub fn fetched(&mut self, id: u64, entries: Vec<Entry>) {
        let Some(at) = self.fetches.iter().position(|(fetch, _)| fetch.id == id) else { return };
        let Some((_, context)) = self.fetches.remove(at) else { return };
        if entries.is_empty() {
            return;
        }
        self.node.mut_store().fetched = entries;
        self.node.on_entries_fetched(context);
        self.node.mut_store().fetched = Vec::new();
        self.settle(false);
    }

    /// Notes that all writes up to `number` are synced; gives the messages that waited for it.
    pub fn synced(&mut self, number: u64) -> Vec<Message> {
        let mut messages = Vec::new();
        let mut ready = None;
        while let Some(parked) = self.parked.front_mut().filter(|parked| parked.number <= number) {
            ready = Some(parked.ready);
            self.synced_term = self.synced_term.max(parked.term);
            messages.append(&mut mem::take(&mut parked.messages));
            self.parked.pop_front();
        }
        if let Some((_, commit)) = self.held.take_if(|(write, _)| *write <= number) {
            self.commit = commit;
        }
        if let Some(ready) = ready {
            self.node.on_persist_ready(ready);
        }
        if let Some((_, index)) = self.resetting.take_if(|(reset, _)| *reset <= number) {
            self.node.advance_apply_to(index);
        }
        messages
    }

    /// Notes that the state machine has applied everything up to `index`, not by installing a snapshot.
    pub fn applied_to(&mut self, index: u64) {
        self.node.advance_apply_to(index);
        self.node.mut_store().cache.applied_to(index);
    }

    /// Notes that everything up to `index` left the log.
    pub fn purged_to(&mut self, index: u64) {
        self.node.mut_store().cache.purged_to(index);
    }

    /// The hard state as it stands, for a last write before a shutdown; `None` if it is written.
    pub fn unwritten_hard_state(&mut self) -> Option<InFlight> {
        let hard_state = self.unwritten.take()?;
        self.written += 1;
        let ready = self.parked.back().map_or(0, |parked| parked.ready);
        let term = hard_state.term;
        self.parked.push_back(Parked { number: self.written, ready, term, messages: Vec::new() });
        Some(InFlight { number: self.written, reset: None, entries: Arc::new([]), hard_state: Some(hard_state) })
    }

    pub(super) fn settle(&mut self, campaigned: bool) {
        let raft = &mut self.node.raft;
        let ticks = self.dice.ticks((raft.term, raft.state, raft.leader_id), campaigned);
        raft.set_randomized_election_timeout(ticks);
    }
}

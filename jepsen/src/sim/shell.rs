//! Around the core: what the real shell does with threads, disks and sockets happens here as events. Everything the core
//! and the state machine do is looked at on the way.

use std::{
    sync::Arc,
    task::{Context as TaskContext, Poll, Waker},
};

use anyhow::{Context, Result, bail, ensure};
use cairn_server::{
    log::{Change, Fault, LogError, LogStore},
    node::core::{ANY_TERM, Forward},
    raft::Role,
    state::persisted_applied,
    store::Store,
};
use raft::eraftpb::{Message, MessageType};
use rand::Rng;

use super::{
    clock::{MS, SECOND},
    consensus::{self, is_majority},
    member::Run,
    network::Fate,
    plant::Plant,
    request::Ask,
    world::{Event, World},
};

impl World {
    /// Does what there is to do on a member now, or some of it and the rest soon.
    pub(super) fn work(&mut self, at: usize) -> Result<()> {
        let now = self.clock.now();
        loop {
            self.advance(at)?;
            let run = self.running(at)?;
            run.core.time_is(run.uptime(now));
            let more = run.core.apply().with_context(|| format!("member {} cannot apply", at + 1))?;
            self.look_at_state(at)?;
            self.take_outputs(at)?;
            if !more {
                break;
            }
            if self.random.random_range(0..4) == 0 {
                return self.work_later(at);
            }
        }
        self.advance(at)?;
        if self.running(at)?.core.is_stalled() {
            self.work_later(at)?;
        }
        if self.random.random_range(0..3) > 0 { self.dispatch(at) } else { Ok(()) }
    }

    /// Lets a member go on by itself in a moment.
    pub(super) fn work_later(&mut self, at: usize) -> Result<()> {
        let soon = self.random.random_range(50..2 * MS);
        let run = self.running(at)?;
        if !std::mem::replace(&mut run.work_due, true) {
            let run = run.number;
            self.clock.after(soon, Event::Work { at, run });
        }
        Ok(())
    }

    fn advance(&mut self, at: usize) -> Result<()> {
        let advanced = self.running(at)?.core.advance();
        advanced.with_context(|| format!("member {} cannot go on", at + 1))?;
        self.look_at_standing(at)?;
        self.take_outputs(at)
    }

    /// Lets the member's dispatcher of watched events do its work.
    pub(super) fn dispatch(&mut self, at: usize) -> Result<()> {
        match self.running(at)?.hub.poll_dispatch(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Pending => Ok(()),
            Poll::Ready(ended) => bail!("the dispatcher of member {} ended: {ended:?}", at + 1),
        }
    }

    /// Looks at what the core has become: who leads, what is committed.
    fn look_at_standing(&mut self, at: usize) -> Result<()> {
        let members = &self.members;
        let id = members[at].id;
        let run = members[at].run.as_ref().context("a member without a run has no standing")?;
        let (status, before) = (run.core.status(), run.seen);
        if status == before {
            return Ok(());
        }
        let cache = run.core.cache();
        let standing = status.standing;
        if standing != before.standing {
            note!(self, "standing {id} {standing:?}");
            let leads = standing.role == Role::Leader;
            if leads && (before.standing.role, before.standing.term) != (Role::Leader, standing.term) {
                self.coverage.elections += 1;
                let alone = run.core.state().conf_state().voters == [id];
                let term_of = |index| cache.term(index);
                self.consensus.leads(standing.term, id, run.number, alone, cache.before(), term_of)?;
            }
        }
        if status.committed > before.committed {
            let conf = run.core.state().conf_state();
            let has = |index, term| is_majority(conf, |voter| members[voter as usize - 1].has_synced(index, term));
            self.consensus.commits(
                id,
                standing.term,
                (before.committed, status.committed),
                |index| cache.term(index),
                |entry| has(entry.index, entry.term),
            )?;
        }
        ensure!(
            status.applied >= before.applied,
            "member {id} has applied {} after {}",
            status.applied,
            before.applied
        );
        ensure!(status.committed >= before.committed, "member {id} goes back to committing {}", status.committed);
        ensure!(status.applied <= status.committed, "member {id} has applied more than is committed: {status:?}");
        self.running(at)?.seen = status;
        Ok(())
    }

    /// Looks at what was applied.
    pub(super) fn look_at_state(&mut self, at: usize) -> Result<()> {
        self.look_at_standing(at)?;
        let id = self.members[at].id;
        let run = self.members[at].run.as_ref().context("a member without a run applies nothing")?;
        let changes = run.published();
        let state = run.core.state();
        self.history.published(id, &changes).with_context(|| format!("{:?}", run.core.status()))?;
        self.consensus.applied(id, state)?;
        if !state.is_stalled() && !run.snapshots.installing {
            consensus::same_membership(id, &run.core.conf_state(), state.conf_state())?;
        }
        let members = state.members();
        if members.removed.contains(&id) {
            self.running(at)?.leaving.get_or_insert(super::LEAVE_TICKS);
        }
        for new in 0..self.members.len() {
            let member = &mut self.members[new];
            if !member.joined && members.members.contains_key(&member.id) {
                member.joined = true;
                self.coverage.members += 1;
                let pause = self.random.random_range(0..2 * SECOND);
                self.clock.after(pause, Event::Start { at: new });
            }
        }
        Ok(())
    }

    /// What was durable before must be there after a start.
    pub(super) fn check_start(&mut self, at: usize) -> Result<()> {
        let run = self.members[at].run.as_ref().context("a member without a run did not start")?;
        let state = run.core.state();
        self.consensus.applied(at as u64 + 1, state)?;
        let reader = state.reader();
        let (revision, compacted) = (reader.revision(), reader.compacted());
        ensure!(revision <= self.history.newest(), "member {} starts at revision {revision}, which never was", at + 1);
        let stored = self.history.check_stored(self.members[at].store.as_ref(), revision, compacted);
        stored.and_then(|()| self.check_index(reader)).with_context(|| format!("member {} after its start", at + 1))
    }

    /// Does what the core says is to be done.
    fn take_outputs(&mut self, at: usize) -> Result<()> {
        let plant = self.setting.plant;
        let run = self.running(at)?;
        let number = run.number;
        let mut out = std::mem::take(&mut run.core.out);
        self.leases.applied(self.clock.now(), &out.lease_changes)?;
        let run = self.running(at)?;
        if out.purge.is_some() {
            run.purge = out.purge;
            self.clock.after(self.random.random_range(0..MS), Event::Purge { at, run: number });
        }
        let run = self.running(at)?;
        run.fetches.append(&mut out.fetches);
        let fetches = !run.fetches.is_empty();
        if plant == Some(Plant::SyncSkipped) {
            out.writes.iter().for_each(|write| run.core.synced(write.number));
        }
        run.writes.append(&mut out.writes);
        self.order_snapshots(at, &mut out)?;
        self.begin_sync(at)?;
        if fetches {
            let pause = self.random.random_range(100..5 * MS);
            self.clock.after(pause, Event::Fetched { at, run: number });
        }
        if out.flush {
            let pause = self.random.random_range(MS..60 * MS);
            self.clock.after(pause, Event::Flush { at, run: number });
        }
        for message in out.messages {
            self.send(at, message)?;
        }
        for (to, refused) in out.refusals {
            note!(self, "refuse {} {to} {refused:?}", at + 1);
            self.coverage.forwards_refused += 1;
            if let Fate::Arrives(delay) | Fate::Twice(delay, _) = self.network.fate(&mut self.random, at as u64 + 1, to)
            {
                self.clock.after(delay, Event::ForwardRefused { at: to as usize - 1, refused });
            }
        }
        for forward in out.forwards {
            self.forward(at, forward)?;
        }
        for (request, result) in out.answers {
            self.take_answer(at, request, result)?;
        }
        for (request, leave) in out.reads {
            self.take_leave(at, request, leave)?;
        }
        Ok(())
    }

    /// Sends a command to the leader. A member of an earlier build neither sends its term nor looks at it.
    fn forward(&mut self, at: usize, forward: Forward) -> Result<()> {
        let (from, plant) = (at as u64 + 1, self.setting.plant);
        note!(self, "forward {from} {} term {} {} bytes", forward.to, forward.term, forward.command.len());
        self.coverage.forwarded += 1;
        let loose = [from, forward.to].iter().any(|member| self.setting.earlier.contains(member));
        let fate = self.network.fate(&mut self.random, from, forward.to);
        let run = self.members[at].run.as_mut().context("a member without a run forwards nothing")?;
        // Every other time the sender knows that there is no way.
        if fate == Fate::Cut && forward.counter.is_multiple_of(2) && !self.setting.ungated {
            run.core.unsent(forward);
            return Ok(());
        }
        if loose {
            run.core.sent_loosely(forward.counter);
        }
        let (Fate::Arrives(arrives) | Fate::Twice(arrives, _)) = fate else { return Ok(()) };
        let Forward { to, term, command, .. } = forward;
        let term = if loose || plant == Some(Plant::TermIgnored) { ANY_TERM } else { term };
        let to = to as usize - 1;
        if plant == Some(Plant::ForwardedTwice) {
            self.clock.after(arrives, Event::Forward { at: to, term, command: command.clone() });
        }
        self.clock.after(arrives, Event::Forward { at: to, term, command });
        Ok(())
    }

    /// Hands all writes that wait to the disk, unless it is busy.
    fn begin_sync(&mut self, at: usize) -> Result<()> {
        let (usual, slow) = (self.setting.climate.sync_max, self.setting.climate.slow_syncs);
        let slow = !self.healing && self.random.random_bool(slow);
        let takes = self.random.random_range(50..if slow { 2 * SECOND } else { usual });
        let plant = self.setting.plant;
        let run = self.running(at)?;
        if run.syncing.is_some() || run.writes.is_empty() {
            return Ok(());
        }
        for mut write in std::mem::take(&mut run.writes) {
            if plant == Some(Plant::LogNotReset) {
                write.reset = None;
            }
            if write.reset.is_some() {
                // Nothing of what was to be cut is left.
                run.purge = None;
            }
            let follows = |index: u64| match write.reset {
                Some(last) => (last.index == index).then_some(last.term),
                None => run.log.terms().term(index),
            };
            let before = write.entries.first().and_then(|first| follows(first.index - 1));
            let change = Change { reset: write.reset, entries: &write.entries, hard_state: write.hard_state.as_ref() };
            run.log.stage(&change).with_context(|| format!("the log of member {}", at + 1))?;
            run.syncing = Some(write.number);
            run.staged.push((write, before));
        }
        let run = run.number;
        self.clock.after(takes, Event::Synced { at, run });
        Ok(())
    }

    /// Cuts the log, if that is to be done and the disk is not busy.
    pub(super) fn purge(&mut self, at: usize) -> Result<()> {
        let run = self.running(at)?;
        let Some(index) = run.purge.take_if(|_| run.syncing.is_none()) else { return Ok(()) };
        if !self.healing && self.random.random_bool(self.setting.climate.disk_faults) {
            self.members[at].doom(Fault::PowerCut, self.random.random_range(1..4));
        }
        match self.running(at)?.log.purge(index) {
            Ok(_) => Ok(()),
            Err(error) => self.fail_disk(at, &error),
        }
    }

    /// The disk of a member failed, which it must not unless it is to.
    fn fail_disk(&mut self, at: usize, error: &LogError) -> Result<()> {
        let doom = self.members[at].doom.with_context(|| format!("the log of member {} fails: {error}", at + 1))?;
        self.coverage.disk_faults += 1;
        let pause = self.random.random_range(20 * MS..3 * SECOND);
        self.clock.after(pause, Event::Start { at });
        self.end_run(at, doom.power, "the disk fails")
    }

    /// The write under way ends, one way or another.
    pub(super) fn synced(&mut self, at: usize) -> Result<()> {
        let fails = !self.healing && self.random.random_bool(self.setting.climate.disk_faults);
        let (kind, after) = (self.random.random_range(0..4), self.random.random_range(1..=2));
        let member = &mut self.members[at];
        if fails {
            let fault = match kind {
                0 | 1 => Fault::PowerCut,
                2 => Fault::HalfDone,
                _ => Fault::SyncLost,
            };
            member.doom(fault, after);
        }
        let Some(run) = &mut member.run else { return Ok(()) };
        let Some(number) = run.syncing.take() else { return Ok(()) };
        if let Err(error) = run.log.sync() {
            return self.fail_disk(at, &error);
        }
        note!(self, "synced {} {number}", at + 1);
        for (write, before) in std::mem::take(&mut run.staged) {
            self.consensus.shows(at as u64 + 1, &write.entries, before)?;
        }
        let run = self.running(at)?;
        if run.purge.is_some() {
            let run = run.number;
            self.clock.after(0, Event::Purge { at, run });
        }
        self.running(at)?.core.synced(number);
        self.work(at)
    }

    pub(super) fn fetched(&mut self, at: usize) -> Result<()> {
        let log = self.members[at].synced.clone().context("a member that runs has a log")?;
        let fetches = std::mem::take(&mut self.running(at)?.fetches);
        for fetch in fetches {
            // What was purged meanwhile cannot be read; the follower asks again.
            let entries = log.entries(fetch.low, fetch.high, fetch.bytes_max).unwrap_or_default();
            self.coverage.fetched += 1;
            self.running(at)?.core.fetched(fetch.id, entries);
        }
        self.work(at)
    }

    pub(super) fn flush(&mut self, at: usize, run: u64) -> Result<()> {
        self.running(at)?.store.flush()?;
        note!(self, "flushed {} in run {run}", at + 1);
        self.tell_flushed(at)
    }

    /// Lets the core hear what its store holds durably, in a moment.
    pub(super) fn tell_flushed(&mut self, at: usize) -> Result<()> {
        let pause = self.random.random_range(0..20 * MS);
        let member = &mut self.members[at];
        let run = member.run.as_ref().context("a member without a run flushes nothing")?;
        let applied = persisted_applied(run.store.as_ref())?;
        if Arc::ptr_eq(&run.store, &member.store) {
            ensure!(applied >= member.flushed, "the store of member {} goes back to {applied}", at + 1);
            member.flushed = applied;
        }
        self.clock.after(pause, Event::Flushed { at, run: run.number, applied });
        Ok(())
    }

    fn send(&mut self, at: usize, mut message: Message) -> Result<()> {
        let (from, to) = (at as u64 + 1, message.to);
        if message.get_msg_type() == MessageType::MsgAppend {
            self.consensus.shows(from, &message.entries, Some(message.log_term))?;
        }
        let votes = message.get_msg_type() == MessageType::MsgRequestVoteResponse && !message.reject;
        if votes && !self.healing && self.random.random_bool(self.setting.climate.crash_after_vote) {
            self.clock.after(1, Event::Crash { at });
        }
        if self.setting.plant == Some(Plant::AcknowledgedBeforeQuorum) {
            self.acknowledge(at, &message);
        }
        if self.setting.plant == Some(Plant::ReadContextReused) {
            self.running(at)?.reuse_context(&mut message);
        }
        let to = to as usize - 1;
        ensure!(to < self.members.len(), "member {from} sends to a member that nobody knows: {message:?}");
        match self.network.fate(&mut self.random, from, message.to) {
            Fate::Lost => {}
            Fate::Cut => {
                if self.random.random_range(0..4) == 0 {
                    self.running(at)?.core.unreachable(message.to);
                }
            }
            Fate::Arrives(delay) => self.clock.after(delay, Event::Message { at: to, message: Box::new(message) }),
            Fate::Twice(one, other) => {
                self.clock.after(one, Event::Message { at: to, message: Box::new(message.clone()) });
                self.clock.after(other, Event::Message { at: to, message: Box::new(message) });
            }
        }
        Ok(())
    }

    /// For [`Plant::AcknowledgedBeforeQuorum`].
    fn acknowledge(&mut self, at: usize, message: &Message) {
        if message.get_msg_type() == MessageType::MsgAppend
            && let Some(last) = message.entries.last()
        {
            let mut stored = Message {
                from: message.to,
                to: message.from,
                term: message.term,
                index: last.index,
                ..Message::default()
            };
            stored.set_msg_type(MessageType::MsgAppendResponse);
            self.clock.after(0, Event::Message { at, message: Box::new(stored) });
        }
    }

    /// For [`Plant::DeposedLeaderRevokes`].
    pub(super) fn revoke_from_memory(&mut self, at: usize) -> Result<()> {
        let now = self.clock.now();
        let run = self.running(at)?;
        let uptime = run.uptime(now);
        if let Ok(expiries) = run.core.lease_clock().lock().expiries() {
            run.remembered = expiries;
            run.remembered.sort_unstable();
            return Ok(());
        }
        let (due, later) = std::mem::take(&mut run.remembered).into_iter().partition(|(expiry, ..)| *expiry <= uptime);
        run.remembered = later;
        let due: Vec<(u64, u64, i64)> = due;
        for (_, _, id) in due {
            self.ask(None, at, Ask::Revoke { id })?;
        }
        Ok(())
    }
}

impl Run {
    /// For [`Plant::ReadContextReused`]: every request for a read index has the first one's name.
    pub(super) fn reuse_context(&mut self, message: &mut Message) {
        if message.get_msg_type() == MessageType::MsgReadIndex
            && let [entry] = &mut message.entries[..]
        {
            self.context.clone_from(&entry.data);
            let counter = entry.data.len() - 8;
            entry.data[counter..].fill(0);
        }
    }

    /// For [`Plant::ReadContextReused`]: whatever is answered is taken for the answer to the newest request.
    pub(super) fn answer_latest(&self, message: &mut Message) {
        if message.get_msg_type() == MessageType::MsgReadIndexResp
            && let [entry] = &mut message.entries[..]
            && !self.context.is_empty()
        {
            entry.data.clone_from(&self.context);
        }
    }
}

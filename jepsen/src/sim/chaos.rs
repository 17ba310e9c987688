//! Disturbances: what befalls members, their disks, the links between them and the membership.

use std::ops::Range;

use anyhow::Result;
use cairn_proto::{ApiError, etcdserverpb as pb};
use cairn_server::{
    node::{ChangeRules, Judge, ProposeError, core::Leaving},
    raft::Role,
    state::MemberChange,
};
use rand::Rng;

use super::{
    clock::{MS, SECOND},
    member::Member,
    request::Ask,
    world::{Event, World},
};

/// Members that the cluster may have beyond those it began with.
const EXTRA_MEMBERS: usize = 2;
/// How long a member is away that crashed.
const CRASH: Range<u64> = 20 * MS..3 * SECOND;
/// How long one is that others are to forget about.
const AWAY: Range<u64> = 3 * SECOND..15 * SECOND;
/// How soon after the proposal that one of two voters is removed one of them may crash.
const PARTING: u64 = 60 * MS;
/// How long whoever removes a leader waits until it asks again, the next one.
const ASK_AGAIN: Range<u64> = 20 * MS..200 * MS;
/// How long a member has been connected, once it is.
const CONNECTED: std::time::Duration = std::time::Duration::from_secs(10);

/// A kind of disturbance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chaos {
    /// A member ends without warning and comes back later.
    Crash,
    /// All members do.
    CrashAll,
    /// The leader does.
    CrashLeader,
    /// A member ends and stays away for long.
    Away,
    /// A member does nothing for a while.
    Pause,
    /// The members fall into two halves.
    Partition,
    /// A link is cut in one direction.
    OneWay,
    /// A member is cut off from the others in one direction.
    Mute,
    /// A store asks to wait.
    Stall,
    /// Leadership is to move.
    Transfer,
    /// A member is added, promoted or removed.
    Membership,
}

impl Chaos {
    /// All kinds.
    pub(super) const ALL: [Self; 11] = [
        Self::Crash,
        Self::CrashAll,
        Self::CrashLeader,
        Self::Away,
        Self::Pause,
        Self::Partition,
        Self::OneWay,
        Self::Mute,
        Self::Stall,
        Self::Transfer,
        Self::Membership,
    ];
}

impl World {
    /// The next disturbance.
    pub(super) fn disturb(&mut self) -> Result<()> {
        if self.healing {
            return Ok(());
        }
        let next = self.random.random_range(0..self.setting.climate.chaos_max) + 10 * MS;
        self.clock.after(next, Event::Chaos);
        let kinds = &self.setting.climate.chaos;
        if kinds.is_empty() {
            return Ok(());
        }
        let kind = kinds[self.random.random_range(0..kinds.len())];
        let at = self.random.random_range(0..self.members.len());
        match kind {
            Chaos::Crash => self.crash(at, CRASH),
            Chaos::CrashAll => (0..self.members.len()).try_for_each(|at| self.crash(at, CRASH)),
            Chaos::CrashLeader => self.leader().map_or(Ok(()), |at| self.crash(at, CRASH)),
            Chaos::Away => self.crash(at, AWAY),
            Chaos::Pause => {
                let pause = self.random.random_range(50 * MS..4 * SECOND);
                note!(self, "pause {} for {pause}", at + 1);
                self.members[at].paused_until = self.clock.now() + pause;
                self.coverage.pauses += 1;
                Ok(())
            }
            Chaos::Partition | Chaos::OneWay | Chaos::Mute => {
                self.cut(kind, at);
                Ok(())
            }
            Chaos::Stall => {
                note!(self, "stall {}", at + 1);
                self.members[at].store.set_stalled(true);
                let until = self.random.random_range(MS..3 * SECOND);
                self.clock.after(until, Event::EndStall { at });
                Ok(())
            }
            Chaos::Transfer => {
                let to = self.random.random_range(0..self.members.len()) as u64 + 1;
                let Some(at) = self.leader() else { return Ok(()) };
                note!(self, "transfer {} to {to}", at + 1);
                self.running(at)?.core.transfer_leader(to);
                self.coverage.transfers += 1;
                self.work(at)
            }
            Chaos::Membership => self.draw_change(),
        }
    }

    fn crash(&mut self, at: usize, for_so_long: Range<u64>) -> Result<()> {
        let power = self.random.random_bool(0.6);
        self.end_run(at, power, "crash")?;
        let pause = self.random.random_range(for_so_long);
        self.clock.after(pause, Event::Start { at });
        Ok(())
    }

    fn cut(&mut self, kind: Chaos, at: usize) {
        let ids: Vec<u64> = self.members.iter().map(|member| member.id).collect();
        let one = ids[at];
        let side: Vec<bool> = ids.iter().map(|_| self.random.random()).collect();
        let other = ids[self.random.random_range(0..ids.len())];
        let deaf = self.random.random();
        for (from, from_side) in ids.iter().zip(&side) {
            for (to, to_side) in ids.iter().zip(&side) {
                let cut = match kind {
                    Chaos::Partition => from_side != to_side,
                    Chaos::OneWay => (*from, *to) == (one, other),
                    _ => (if deaf { *to } else { *from }) == one,
                };
                if cut && from != to {
                    self.network.cut(*from, *to);
                }
            }
        }
        note!(self, "cut {kind:?} {one} {other} {side:?} {deaf}");
        self.coverage.partitions += 1;
        let until = self.random.random_range(100 * MS..6 * SECOND);
        self.clock.after(until, Event::EndCut);
    }

    /// Asks the leader for a membership change.
    fn draw_change(&mut self) -> Result<()> {
        let Some(at) = self.leader() else { return Ok(()) };
        let members = self.running(at)?.core.state().members();
        let learner = members.members.values().find(|member| member.is_learner).map(|member| member.id);
        let many = members.members.len() >= self.plan.members as usize + EXTRA_MEMBERS;
        let voters = members.members.values().filter(|member| !member.is_learner).count();
        // Down to two, and to the one of them that is left.
        let shrinks = self.setting.climate.shrinks && voters > 1;
        let change = match (learner, self.random.random_range(0..4)) {
            (Some(id), 0..2) if voters < self.setting.climate.voters_max => MemberChange::Promote(id),
            (_, 0..3) if !many && !shrinks => {
                let id = self.members.len() as u64 + 1;
                let (disk, store) = (self.random.random(), self.random.random());
                let mut member = Member::new(id, disk, store, &self.setting.climate);
                member.joined = false;
                self.members.push(member);
                MemberChange::Add(pb::Member {
                    id,
                    peer_urls: vec![format!("http://m{id}:2380")],
                    is_learner: self.random.random_bool(self.setting.climate.learners),
                    ..pb::Member::default()
                })
            }
            _ => {
                let ids: Vec<u64> = members.members.keys().copied().collect();
                MemberChange::Remove(ids[self.random.random_range(0..ids.len())])
            }
        };
        self.ask(None, at, Ask::Change(change))
    }

    /// Asks whoever leads now to remove a member, as the API does if the one that was asked leads no more.
    pub(super) fn remove_again(&mut self, id: u64) -> Result<()> {
        match self.leader() {
            _ if self.healing => Ok(()),
            Some(at) => self.ask(None, at, Ask::Change(MemberChange::Remove(id))),
            None => {
                self.remove_later(id);
                Ok(())
            }
        }
    }

    fn remove_later(&mut self, id: u64) {
        let pause = self.random.random_range(ASK_AGAIN);
        self.clock.after(pause, Event::Remove { id });
    }

    /// Checks a membership change and proposes it.
    pub(super) fn change_members(&mut self, at: usize, number: u64, change: &MemberChange) -> Result<()> {
        let id = self.request_id(at, number)?;
        let now = self.clock.now();
        let connected: Vec<bool> = self
            .members
            .iter()
            .map(|member| {
                let cut = self.network.is_cut(member.id, id.member) || self.network.is_cut(id.member, member.id);
                member.run.is_some() && member.paused_until <= now && !cut
            })
            .collect();
        let core = &mut self.running(at)?.core;
        let judge = Judge {
            rules: ChangeRules { learners_max: 2, ..ChangeRules::default() },
            own: id.member,
            members: &core.state().members(),
            connected_for: &|member| connected[member as usize - 1].then_some(CONNECTED),
            caught_up: &|member| core.has_caught_up(member),
        };
        let mut judged = if core.status().standing.role == Role::Leader {
            judge.judge(change)
        } else {
            Err(ProposeError::NotLeader)
        };
        if judged.is_ok() && *change == MemberChange::Remove(id.member) {
            match core.leave() {
                Leaving::Goes => {}
                Leaving::HandsOver => judged = Err(ProposeError::NotLeader),
                Leaving::Stays => judged = Err(ProposeError::Refused(ApiError::Unhealthy)),
            }
            if judged == Err(ProposeError::NotLeader) {
                self.coverage.handed_over += 1;
                self.remove_later(id.member);
            }
        }
        let core = &mut self.running(at)?.core;
        match judged {
            Ok(conf_change) => {
                let voters = core.conf_state().voters;
                core.propose_conf_change(id.counter, conf_change, &change.encode(id), number);
                self.coverage.changes += 1;
                self.part(change, &voters);
            }
            Err(error) => core.out.answers.push((number, Err(error))),
        }
        Ok(())
    }

    /// One of two voters is to be removed: often one of them crashes while that goes on.
    fn part(&mut self, change: &MemberChange, voters: &[u64]) {
        let MemberChange::Remove(id) = change else { return };
        if voters.len() != 2 || !voters.contains(id) {
            return;
        }
        self.coverage.parted += 1;
        if !self.healing && self.random.random() {
            let at = voters[self.random.random_range(0..2)] as usize - 1;
            let soon = self.random.random_range(0..PARTING);
            self.clock.after(soon, Event::Crash { at });
        }
    }
}

//! The end of a run: everything works again, the cluster settles, and what it holds is judged.

use anyhow::{Context, Result, ensure};

use super::{
    client::key,
    clock::SECOND,
    leases::ALL_RUN_OUT,
    network::Weather,
    request::{Ask, Known},
    world::World,
};

/// Virtual time after which a cluster that is left alone must have settled.
const SETTLE_MAX: u64 = 120 * SECOND;
/// Events between two looks at whether it has.
const LOOK_AFTER: usize = 50;

impl World {
    /// Ends all disturbances, starts who does not run, and waits until a write that begins now is acknowledged and applied
    /// everywhere, and every lease has run out.
    pub(super) fn heal(&mut self) -> Result<()> {
        note!(self, "heal");
        self.healing = true;
        self.network.mend();
        self.network.weather = Weather::FAIR;
        for at in 0..self.members.len() {
            let member = &mut self.members[at];
            member.store.set_stalled(false);
            member.paused_until = 0;
            self.start(at)?;
        }
        let since = self.clock.now();
        self.settle(since, Self::is_settled)
            .with_context(|| format!("the cluster does not settle: {}", self.statuses()))?;
        let last = self.write_through()?;
        let lives = |world: &mut Self| Ok(world.leases.living().is_empty() && world.is_settled()?);
        if !self.leases.living().is_empty() {
            let since = self.clock.now() + ALL_RUN_OUT;
            let living = format!("{:?}", self.leases.living());
            self.settle(since.saturating_sub(SETTLE_MAX), lives)
                .with_context(|| format!("not all leases run out: {living}, then {:?}", self.leases.living()))?;
        }
        ensure!(self.asked[last].known == Known::Answered, "the last write was not acknowledged");
        Ok(())
    }

    /// Goes on until `done`, for a limited time.
    fn settle(&mut self, since: u64, mut done: impl FnMut(&mut Self) -> Result<bool>) -> Result<()> {
        while !done(self)? {
            ensure!(self.clock.now() < since + SETTLE_MAX, "not within its time");
            for _ in 0..LOOK_AFTER {
                self.step()?;
            }
        }
        Ok(())
    }

    /// A write that begins now and is acknowledged carries everything before it.
    fn write_through(&mut self) -> Result<usize> {
        let since = self.clock.now();
        loop {
            ensure!(self.clock.now() < since + SETTLE_MAX, "no write is acknowledged any more: {}", self.statuses());
            let last = self.asked.len();
            match self.leader() {
                None => self.step()?,
                Some(at) => {
                    self.ask(None, at, Ask::Alarm { raises: false })?;
                    self.ask(None, at, Ask::Put { key: key(0), lease: 0, previous: true })?;
                    while self.asked[last..=last + 1].iter().any(|asked| asked.known == Known::Open) {
                        self.step()?;
                    }
                    if self.asked[last + 1].known == Known::Answered {
                        self.settle(since, Self::is_settled)?;
                        return Ok(last + 1);
                    }
                }
            }
        }
    }

    /// Whether all members run, agree on the leader and have applied the same, and nobody waits.
    fn is_settled(&mut self) -> Result<bool> {
        let Some(leader) = self.leader() else { return Ok(false) };
        let core = &self.running(leader)?.core;
        let (status, members) = (core.status(), core.state().members());
        Ok(members.members.keys().all(|id| {
            let member = self.members.get(*id as usize - 1).and_then(|member| member.run.as_ref());
            member.is_some_and(|run| {
                let own = run.core.status();
                own.pending == 0
                    && own.standing.leader == status.standing.leader
                    && (own.applied, own.committed) == (status.committed, status.committed)
                    && run.syncing.is_none()
                    && (own.serves || self.setting.ungated)
            })
        }))
    }

    fn statuses(&self) -> String {
        let of = |member: &super::member::Member| {
            member.run.as_ref().map(|run| format!("{}: {:?}", member.id, run.core.status()))
        };
        self.members.iter().filter_map(of).collect::<Vec<_>>().join("\n")
    }

    /// Judges what is there in the end.
    pub(super) fn judge_end(&mut self) -> Result<()> {
        let leader = self.leader().context("a settled cluster has a leader")?;
        let members = self.running(leader)?.core.state().members();
        self.finish_watches(&members)?;
        self.judge_unanswered()?;
        let newest = self.history.newest();
        let mut hashes = Vec::new();
        for id in members.members.keys() {
            let member = &self.members[*id as usize - 1];
            let state = member.run.as_ref().context("all members run")?.core.state();
            let reader = state.reader();
            ensure!(reader.revision() == newest, "member {id} ends at {}, {newest} was told", reader.revision());
            self.history.check_stored(member.store.as_ref(), newest, reader.compacted())?;
            hashes.push(reader.hash_kv(0)?);
        }
        ensure!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "HashKV differs: {hashes:?}");
        note!(self, "end {hashes:?}");
        for event in self.history.living(newest, b"\0", b"\0").values() {
            ensure!(event.lease == 0, "{event:?} outlives its lease");
        }
        self.coverage.expired = self.leases.expired;
        self.coverage.revisions = newest as u64;
        self.coverage.seconds += self.clock.now() / SECOND;
        Ok(())
    }
}

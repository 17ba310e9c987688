//! What must hold of terms, logs and applied states, whatever happens.
//!
//! * A term has one leader, in one of its runs.
//! * Two logs with an entry of the same index and term have the same entry there, and the same before it: every entry
//!   that anybody has synced or sent is remembered with the term of its predecessor.
//! * An entry that anybody knows to be committed stays: everybody who commits that index commits the same term, and
//!   the leader of every later term than the one in which it was committed has it.
//! * An entry is known to be committed only when a majority has it synced.
//! * Members that have applied the same entries are in the same state.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
};

use anyhow::{Result, bail, ensure};
use cairn_server::{log::EntryId, state::State};
use raft::eraftpb::{ConfState, Entry};

/// The last entry that no log ever held.
const BEFORE_ALL: u64 = 1;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Consensus {
    /// Member and run by term.
    leaders: BTreeMap<u64, (u64, u64)>,
    /// The term of the predecessor and a digest of the content, by index and term.
    written: HashMap<(u64, u64), (Option<u64>, u64)>,
    /// Terms of committed entries from the one after [`BEFORE_ALL`] on, and the terms in which they were committed.
    committed: Vec<(u64, u64)>,
    /// Digests of states by applied index.
    states: HashMap<u64, u64>,
}

fn digest(entry: &Entry) -> u64 {
    let mut hasher = DefaultHasher::new();
    (entry.entry_type, &entry.data, &entry.context).hash(&mut hasher);
    hasher.finish()
}

/// A membership with every list in order.
fn in_order(conf: &ConfState) -> ConfState {
    let mut conf = conf.clone();
    for ids in [&mut conf.voters, &mut conf.learners, &mut conf.voters_outgoing, &mut conf.learners_next] {
        ids.sort_unstable();
    }
    conf
}

/// Raft counts with the membership that the state machine has.
pub(super) fn same_membership(member: u64, raft: &ConfState, state: &ConfState) -> Result<()> {
    ensure!(in_order(raft) == in_order(state), "raft of member {member} counts with {raft:?}, its state has {state:?}");
    Ok(())
}

/// A digest of everything replicated but the values, of which the revision is part.
fn state_digest(state: &State) -> u64 {
    let views = state.views();
    let mut hasher = DefaultHasher::new();
    (state.reader().revision(), state.reader().compacted()).hash(&mut hasher);
    for lease in views.leases.all() {
        (lease.id, lease.ttl, lease.remaining, views.leases.keys(lease.id)).hash(&mut hasher);
    }
    views.alarms().list(0).iter().for_each(|alarm| (alarm.member_id, alarm.alarm).hash(&mut hasher));
    let members = views.members();
    for (id, member) in &members.members {
        (id, &member.name, &member.peer_urls, member.is_learner).hash(&mut hasher);
    }
    members.removed.hash(&mut hasher);
    let ConfState { voters, learners, voters_outgoing, learners_next, auto_leave } = in_order(state.conf_state());
    (voters, learners, voters_outgoing, learners_next, auto_leave).hash(&mut hasher);
    hasher.finish()
}

impl Consensus {
    /// How many committed entries are known.
    pub(super) fn committed(&self) -> u64 {
        BEFORE_ALL + self.committed.len() as u64
    }

    /// The term of a committed entry, and the one in which it was committed.
    fn committed_at(&self, index: u64) -> Option<(u64, u64)> {
        self.committed.get((index - BEFORE_ALL - 1) as usize).copied()
    }

    /// `member` has synced or sent entries; `before` is the term of the entry before the first one, if it is known.
    pub(super) fn shows(&mut self, member: u64, entries: &[Entry], before: Option<u64>) -> Result<()> {
        let mut previous = before;
        for entry in entries {
            let is = (previous, digest(entry));
            let known = self.written.entry((entry.index, entry.term)).or_insert(is);
            if known.0.is_none() {
                known.0 = previous;
            }
            ensure!(
                known.1 == is.1 && (previous.is_none() || known.0 == previous),
                "member {member} has another entry {} of term {} than others have",
                entry.index,
                entry.term
            );
            previous = Some(entry.term);
        }
        Ok(())
    }

    /// `member` leads `term` in its run number `run`; `term_of` tells the terms of its log, which begins after `before`. Only
    /// one that is `alone` may do so again in another run: it needs nobody's vote, and nobody has heard of a term that it has
    /// not synced.
    pub(super) fn leads(
        &mut self,
        term: u64,
        member: u64,
        run: u64,
        alone: bool,
        before: u64,
        term_of: impl Fn(u64) -> Option<u64>,
    ) -> Result<()> {
        let leader = *self.leaders.entry(term).or_insert((member, run));
        let same = leader.0 == member && (alone || leader.1 == run);
        ensure!(same, "term {term} is led by {leader:?} and by {:?} (member, run)", (member, run));
        for index in before.max(BEFORE_ALL) + 1..=self.committed() {
            let (has, committed) = (term_of(index), self.committed_at(index));
            // Somebody who was elected and heard of it late may lead an earlier term.
            ensure!(
                committed.is_none_or(|(known, within)| within >= term || has == Some(known)),
                "member {member} leads term {term} with {has:?} as the term of entry {index}, committed was {committed:?}"
            );
        }
        Ok(())
    }

    /// `member` in its term `within` knows everything up to `to` to be committed, which it did up to `from` before. `synced`
    /// tells whether a majority of the configuration that holds has an entry synced.
    pub(super) fn commits(
        &mut self,
        member: u64,
        within: u64,
        (from, to): (u64, u64),
        term_of: impl Fn(u64) -> Option<u64>,
        synced: impl Fn(EntryId) -> bool,
    ) -> Result<()> {
        for index in from.max(BEFORE_ALL) + 1..=to {
            let Some(term) = term_of(index) else { continue };
            match self.committed_at(index) {
                Some((known, _)) => ensure!(
                    known == term,
                    "member {member} takes entry {index} of term {term} for committed, others that of term {known}"
                ),
                None if index == self.committed() + 1 => {
                    self.committed.push((term, within));
                    ensure!(
                        index < to || synced(EntryId { index, term }),
                        "member {member} takes entry {index} of term {term} for committed, which no majority has synced"
                    );
                }
                None => bail!("member {member} commits entry {index}, nobody those from {} on", self.committed() + 1),
            }
        }
        Ok(())
    }

    /// `member` has applied some more.
    pub(super) fn applied(&mut self, member: u64, state: &State) -> Result<()> {
        // The small tables run ahead of what is written.
        if state.is_stalled() {
            return Ok(());
        }
        let index = state.applied().0;
        let is = state_digest(state);
        let known = *self.states.entry(index).or_insert(is);
        ensure!(known == is, "member {member} is in another state than others were after entry {index}: {state:?}");
        Ok(())
    }
}

/// Whether those who `has` are a majority of the voters, in both halves of a change of several members.
pub(super) fn is_majority(conf: &ConfState, has: impl Fn(u64) -> bool) -> bool {
    let of = |voters: &[u64]| voters.iter().filter(|&&voter| has(voter)).count() > voters.len() / 2;
    of(&conf.voters) && (conf.voters_outgoing.is_empty() || of(&conf.voters_outgoing))
}

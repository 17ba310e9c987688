//! The comparison at the start, and what it leaves for later.
//!
//! Before it serves anybody, a member can compare itself only with members that run already, and when a whole cluster is
//! started nobody does. So what is missing then is asked for as soon as the others answer.
//!
//! ```text
//!   those that answer ...            this member
//!   differ from nobody               serves; asks the others meanwhile (finish)
//!   differ, a majority is like it    serves; the others are named in the alarm (finish)
//!   differ, a majority is unlike it  does not start
//!   differ, all have answered        does not start: nobody can tell who is right
//!   differ, some are missing         talks with the members but serves no clients, and asks the missing ones (settle)
//! ```
//! So a right member does not give up because the wrong one is the only one that runs, and two right ones that start beside a
//! wrong one find each other. Once it serves it is too late not to start: whoever differs from a majority is named in the alarm.
//!
//! Bounded by [`SETTLE_TRIES_MAX`] and [`TRIES_MAX`]. The others answer for the revision that was hashed at the start, so that nothing is read again
//! here, unless one of them has compacted further meanwhile.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use cairn_proto::{
    ApiError,
    etcdserverpb::{AlarmType, Member},
};

use super::{
    Check, Guard, Outcome, hashes_of, question_of,
    verdict::{Verdict, judge, majority},
};
use crate::{monitor::Turns, peer::HashTold, state::mvcc::KvHash};

/// Questions to members that did not answer at the start, before clients are served. It takes about a minute.
const SETTLE_TRIES_MAX: usize = 10;
/// Questions to members that did not answer at the start, while clients are served.
const TRIES_MAX: usize = 40;
/// The pause before the first one; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause between two of them.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub enum Inconsistent {
    /// Its keys are others than those of a majority, or than those of members that answered, and no majority showed who is right.
    #[error(
        "member {member:x} found data inconsistency with peers: its keys up to revision {revision} (compacted to \
         {compacted}) have the hash {hash:08x}, other members have {others}; remove this member from the cluster, and add it \
         anew with an empty data directory"
    )]
    Differs {
        /// This member.
        member: u64,
        /// The revision that was compared.
        revision: i64,
        /// As of this compacted revision.
        compacted: i64,
        /// This member's hash.
        hash: u32,
        /// Theirs.
        others: String,
    },
    /// This member's keys cannot be hashed.
    #[error("this member's keys could not be hashed to compare them with those of the others: {}", .0.text())]
    Unhashed(ApiError),
}

/// A comparison that was begun before this member served anybody.
#[derive(Debug)]
pub struct Begun {
    own: KvHash,
    /// What the others have.
    hashes: BTreeMap<u64, u32>,
    /// How long hashing took here.
    took: Duration,
}

/// Whether a member may serve, as far as is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Nobody differs, or a majority has what it has.
    Right,
    /// A majority has something else, or all have answered and there is no majority.
    Wrong,
    /// Some differ, and those that are missing will show who is right.
    Open,
}

impl Begun {
    /// What the members have, this one included.
    fn said(&self, member: u64) -> Vec<(u64, u32)> {
        self.hashes.iter().map(|(&other, &hash)| (other, hash)).chain([(member, self.own.hash)]).collect()
    }

    /// How this member stands, which is `member` of so many.
    fn standing(&self, member: u64, members: usize) -> Standing {
        let said = self.said(member);
        match judge(members, &said) {
            Verdict::Differ(named) if named.contains(&member) => Standing::Wrong,
            Verdict::Agreed { .. } | Verdict::Differ(_) => Standing::Right,
            Verdict::Torn if said.len() >= members => Standing::Wrong,
            Verdict::Torn => Standing::Open,
        }
    }

    /// Those that have something else than this member, for people.
    fn differing(&self) -> String {
        let differing = self.hashes.iter().filter(|(_, hash)| **hash != self.own.hash);
        let words: Vec<_> = differing.map(|(member, hash)| format!("{hash:08x} (member {member:x})")).collect();
        words.join(", ")
    }

    fn refusal(&self, member: u64) -> Inconsistent {
        let KvHash { hash, compact_revision: compacted, hash_revision: revision, .. } = self.own;
        Inconsistent::Differs { member, revision, compacted, hash, others: self.differing() }
    }
}

impl Guard {
    /// Compares this member with those that answer, before it serves any of them. What is left of it is for
    /// [`settle`](Self::settle) and [`finish`](Self::finish).
    ///
    /// # Errors
    /// A majority has something else, or all have answered and no majority agrees.
    pub async fn check_at_start(&self) -> Result<Option<Begun>, Inconsistent> {
        let member = self.node.status().member_id;
        let members = self.node.members().members.len();
        if members <= 1 {
            return Ok(None);
        }
        tracing::info!("starting initial corruption check");
        let started = Instant::now();
        let own = self.node.store_maintenance().hash_at(0, None).await.map_err(Inconsistent::Unhashed)?;
        let took = started.elapsed();
        let hashes = hashes_of(&self.ask_all(question_of(&own), self.patience(took)).await);
        let begun = Begun { own, hashes: hashes.into_iter().collect(), took };
        let (revision, others) = (begun.own.hash_revision, begun.differing());
        match begun.standing(member, members) {
            Standing::Wrong => return Err(begun.refusal(member)),
            Standing::Right if others.is_empty() => {
                let compared_with = begun.hashes.len();
                tracing::info!(revision, compared_with, "initial corruption checking passed; no corruption");
            }
            Standing::Right => tracing::error!(revision, others, "other members differ from this one and a majority"),
            Standing::Open => tracing::error!(
                revision,
                others,
                "other members differ from this one, and too few have answered to tell who is right: it serves no clients until more have"
            ),
        }
        Ok(Some(begun))
    }

    /// Waits, where members differ, until enough have answered to tell who is right. This member has to answer the others
    /// meanwhile, who may wait for the same.
    ///
    /// # Errors
    /// This member is wrong, or too many did not answer for too long.
    pub async fn settle(&self, mut begun: Begun) -> Result<Begun, Inconsistent> {
        let member = self.node.status().member_id;
        if begun.differing().is_empty() {
            return Ok(begun);
        }
        let mut pause = PAUSE_MIN;
        for _ in 0..SETTLE_TRIES_MAX {
            let members = self.node.members().members.len();
            // There may be new hashes, of which nobody has said anything yet.
            let heard_enough = begun.hashes.len() + 1 >= majority(members);
            match begun.standing(member, members) {
                Standing::Right if heard_enough => {
                    tracing::info!(
                        revision = begun.own.hash_revision,
                        "a majority has what this member has: serving clients"
                    );
                    return Ok(begun);
                }
                Standing::Wrong => return Err(begun.refusal(member)),
                Standing::Right | Standing::Open => {}
            }
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(2 * pause);
            self.ask_missing(&mut begun).await;
        }
        match begun.standing(member, self.node.members().members.len()) {
            Standing::Right => Ok(begun),
            Standing::Wrong | Standing::Open => Err(begun.refusal(member)),
        }
    }

    /// Compares what could not be compared at the start.
    pub async fn finish(self, begun: Begun, turns: Turns) {
        if let Some(outcome) = turns.unless_stopping(self.compare_rest(begun)).await {
            self.count(Check::Initial, outcome);
        }
    }

    async fn compare_rest(&self, mut begun: Begun) -> Outcome {
        let own = self.node.status().member_id;
        let mut pause = PAUSE_MIN;
        for _ in 0..TRIES_MAX {
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(2 * pause);
            self.ask_missing(&mut begun).await;
            let members = self.node.members().members.len();
            let said = begun.said(own);
            // While somebody is missing, it may still show who of those that differ is right.
            if said.len() >= members || matches!(judge(members, &said), Verdict::Differ(_)) {
                let outcome = self.act(&begun.own, said).await;
                // Without a leader no alarm is raised.
                if outcome != Outcome::Differ || self.node.alarms().any(AlarmType::Corrupt) {
                    return outcome;
                }
            }
        }
        self.act(&begun.own, begun.said(own)).await
    }

    /// Asks those that did not answer. If one of them has compacted further, all of it begins anew.
    async fn ask_missing(&self, begun: &mut Begun) {
        let own = self.node.status().member_id;
        let members = self.node.members();
        begun.hashes.retain(|member, _| members.members.contains_key(member));
        let missing = |member: &&Member| member.id != own && !begun.hashes.contains_key(&member.id);
        let missing: Vec<_> = members.members.values().filter(missing).collect();
        let told = self.ask(&missing, question_of(&begun.own), self.patience(begun.took), false).await;
        let has_gone_on = |told: &HashTold| told.hash.is_none() && told.compacted > begun.own.compact_revision;
        if told.iter().any(|(_, told)| has_gone_on(told)) {
            match self.node.store_maintenance().hash_at(0, None).await {
                Ok(now) => *begun = Begun { own: now, hashes: BTreeMap::new(), took: begun.took },
                Err(error) => tracing::warn!(error = error.text(), "this member's keys could not be hashed"),
            }
            return;
        }
        begun.hashes.extend(hashes_of(&told));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_stands_open_until_those_that_are_missing_cannot_change_the_verdict() {
        let standing = |members, others: &[(u64, u32)]| {
            let own = KvHash { hash: 7, compact_revision: -1, hash_revision: 5, header_revision: 5 };
            let begun = Begun { own, hashes: others.iter().copied().collect(), took: Duration::ZERO };
            begun.standing(1, members)
        };
        assert_eq!(standing(3, &[]), Standing::Right, "nobody has answered");
        assert_eq!(standing(3, &[(2, 7)]), Standing::Right);
        assert_eq!(standing(3, &[(2, 8)]), Standing::Open);
        assert_eq!(standing(3, &[(2, 8), (3, 7)]), Standing::Right);
        assert_eq!(standing(3, &[(2, 8), (3, 8)]), Standing::Wrong);
        assert_eq!(standing(3, &[(2, 8), (3, 9)]), Standing::Wrong, "nobody can tell");
        assert_eq!(standing(2, &[(2, 8)]), Standing::Wrong, "nobody can tell");
        assert_eq!(standing(5, &[(2, 7), (3, 8), (4, 8)]), Standing::Open);
        assert_eq!(standing(5, &[(2, 7), (3, 8), (4, 7)]), Standing::Right);
        assert_eq!(standing(5, &[(2, 8), (3, 8), (4, 8)]), Standing::Wrong);
    }
}

//! The comparison at the start, and what it leaves for later.
//!
//! Before it serves anybody, a member can compare itself only with members that run already, and when a whole cluster is
//! started nobody does. So what is missing then is asked for as soon as the others answer, while this member serves.
//! Then it is too late not to start: whoever differs from a majority is named in the alarm.
//!
//! Bounded by [`TRIES_MAX`]. The others answer for the revision that was hashed at the start, so that nothing is read again
//! here, unless one of them has compacted further meanwhile.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use cairn_proto::{
    ApiError,
    etcdserverpb::{AlarmType, Member},
};
use tokio_util::sync::CancellationToken;

use super::{
    Check, Guard, Outcome, hashes_of, question_of,
    verdict::{Verdict, judge, majority},
};
use crate::{peer::HashTold, state::mvcc::KvHash};

/// Questions to members that did not answer at the start.
const TRIES_MAX: usize = 40;
/// The pause before the first one; each further one is twice as long.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// The longest pause between two of them.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// Why a member does not start.
#[derive(Debug, thiserror::Error)]
pub enum Inconsistent {
    /// Its keys are others than those of the members that answered, and no majority has the same.
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
pub(in crate::server) struct Begun {
    own: KvHash,
    /// What the others have.
    hashes: BTreeMap<u64, u32>,
    /// How long hashing took here.
    took: Duration,
}

impl Guard {
    /// Compares this member with those that answer, before it serves any of them. What is left of it is for
    /// [`finish`](Self::finish).
    ///
    /// # Errors
    /// It differs from some, and no majority has what it has.
    pub(in crate::server) async fn check_at_start(&self) -> Result<Option<Begun>, Inconsistent> {
        let member = self.node.status().member_id;
        let members = self.node.members().members.len();
        if members <= 1 {
            return Ok(None);
        }
        tracing::info!("starting initial corruption check");
        let started = Instant::now();
        let own = self.node.hash_at(0, None).await.map_err(Inconsistent::Unhashed)?;
        let took = started.elapsed();
        let hashes = hashes_of(&self.ask_all(question_of(&own), self.patience(took)).await);
        let differing: Vec<_> = hashes.iter().filter(|(_, hash)| *hash != own.hash).collect();
        let agreeing = 1 + hashes.len() - differing.len();
        let others: Vec<_> = differing.iter().map(|(member, hash)| format!("{hash:08x} (member {member:x})")).collect();
        let others = others.join(", ");
        if differing.is_empty() {
            tracing::info!(
                revision = own.hash_revision,
                compared_with = hashes.len(),
                "initial corruption checking passed; no corruption"
            );
        } else if agreeing >= majority(members) {
            tracing::error!(revision = own.hash_revision, others, "other members differ from this one and a majority");
        } else {
            let KvHash { hash, compact_revision: compacted, hash_revision: revision, .. } = own;
            return Err(Inconsistent::Differs { member, revision, compacted, hash, others });
        }
        Ok(Some(Begun { own, hashes: hashes.into_iter().collect(), took }))
    }

    /// Compares what could not be compared at the start, until `stopping` is cancelled.
    pub(in crate::server) async fn finish(self, begun: Begun, stopping: CancellationToken) {
        let outcome = tokio::select! {
            () = stopping.cancelled() => return,
            outcome = self.compare_rest(begun) => outcome,
        };
        self.count(Check::Initial, outcome);
    }

    async fn compare_rest(&self, mut begun: Begun) -> Outcome {
        let own = self.node.status().member_id;
        let mut pause = PAUSE_MIN;
        for _ in 0..TRIES_MAX {
            tokio::time::sleep(pause).await;
            pause = PAUSE_MAX.min(2 * pause);
            let members = self.node.members();
            begun.hashes.retain(|member, _| members.members.contains_key(member));
            let missing = |member: &&Member| member.id != own && !begun.hashes.contains_key(&member.id);
            let missing: Vec<_> = members.members.values().filter(missing).collect();
            let told = self.ask(&missing, question_of(&begun.own), self.patience(begun.took), false).await;
            let has_gone_on = |told: &HashTold| told.hash.is_none() && told.compacted > begun.own.compact_revision;
            if told.iter().any(|(_, told)| has_gone_on(told)) {
                match self.node.hash_at(0, None).await {
                    Ok(now) => begun = Begun { own: now, hashes: BTreeMap::new(), ..begun },
                    Err(error) => tracing::warn!(error = error.text(), "this member's keys could not be hashed"),
                }
                continue;
            }
            begun.hashes.extend(hashes_of(&told));
            let mut said: Vec<_> = begun.hashes.iter().map(|(&member, &hash)| (member, hash)).collect();
            let all_there = said.len() + 1 >= members.members.len();
            said.push((own, begun.own.hash));
            // While somebody is missing, it may still show who of those that differ is right.
            if all_there || matches!(judge(members.members.len(), &said), Verdict::Differ(_)) {
                let outcome = self.act(&begun.own, said).await;
                // Without a leader no alarm is raised.
                if outcome != Outcome::Differ || self.node.alarms().any(AlarmType::Corrupt) {
                    return outcome;
                }
            }
        }
        let mut said: Vec<_> = begun.hashes.into_iter().collect();
        said.push((own, begun.own.hash));
        self.act(&begun.own, said).await
    }
}

//! The guard against corruption: members compare hashes of their keys, and one that differs is found out.
//!
//! ```text
//! start        before this member serves anybody: who differs from the others does not start     (gate InitialCorruptCheck)
//!              with those that did not answer then, as soon as they do: whoever differs raises the alarm
//! periodic     the leader, over all keys, now and then: whoever differs raises the alarm         (--corrupt-check-time)
//! compaction   the leader, over what compactions have hashed anyway, which costs no reading      (gate CompactHashCheck)
//! ```
//! A hash is a function of the log, the revision and the compacted revision ([`Reader::begin_hash`]), and of nothing else:
//! not of what a member has removed, flushed or installed. The asking member names both revisions, and the others answer
//! for exactly these, or not at all. So members that have applied the same log never differ, however far each of them is.
//!
//! More than half of all members decide what is right; the others are named in the alarm, by id. If no such majority
//! agrees, nobody knows who is right, and the alarm names member 0: all of them. A member that does not answer, or not for
//! these revisions, is left out, and the next round asks it again.
//!
//! What the alarm does is the business of `state/` (no more writes) and `api/` (no reads at the member that is named). A leader
//! that is named hands leadership over.
//!
//! [`Reader::begin_hash`]: crate::state::mvcc::Reader::begin_hash

mod start;
mod verdict;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use cairn_proto::{
    ApiError,
    etcdserverpb::{AlarmRequest, AlarmType, Member, alarm_request::AlarmAction},
};
use futures::future::join_all;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

pub use self::start::Inconsistent;
use self::verdict::{Verdict, judge, majority};
use super::Turns;
use crate::{
    node::NodeHandle,
    peer::{HashError, HashQuestion, HashTold, Peers},
    state::{command::Request, mvcc::KvHash},
};

/// Another member may take so many times as long for its hash as this one took, and the time of a request.
const WAIT_FACTOR: u32 = 8;
/// What the alarm names if nobody knows who is right.
const ALL_MEMBERS: u64 = 0;

/// A comparison that is made again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Of all keys.
    Periodic,
    /// Of the keys below compacted revisions.
    Compaction,
}

/// Any comparison, as it is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Check {
    Initial,
    Periodic,
    Compaction,
}

impl From<Kind> for Check {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Periodic => Self::Periodic,
            Kind::Compaction => Self::Compaction,
        }
    }
}

/// What came of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    /// All members have the same.
    Agreed,
    /// Those that answered have the same.
    Incomplete,
    /// Some differ.
    Differ,
    /// There was nothing new to compare.
    Idle,
    /// It was broken off.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    check: Check,
    outcome: Outcome,
}

/// Compares the members.
#[derive(Clone)]
pub struct Guard {
    node: NodeHandle,
    peers: Arc<Peers>,
    request_timeout: Duration,
    checks: Family<Labels, Counter>,
}

impl Guard {
    /// Compares the keys of `node` with those of `peers`.
    pub fn new(node: NodeHandle, peers: Arc<Peers>, request_timeout: Duration) -> Self {
        Self { node, peers, request_timeout, checks: Family::default() }
    }

    /// Enters what is counted into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Comparisons of the members' keys that this member has made, by what came of them";
        registry.register("cairn_corruption_checks", help, self.checks.clone());
    }

    /// Compares again and again, while this member leads.
    pub async fn run(self, kind: Kind, every: Duration, turns: Turns) {
        // The newest compaction in which all members agreed.
        let mut checked = 0;
        while turns.after(every).await {
            let status = self.node.status();
            if status.leader != status.member_id {
                continue;
            }
            let comparing = async {
                match kind {
                    Kind::Periodic => self.compare_keys().await,
                    Kind::Compaction => Ok(self.compare_compactions(&mut checked).await),
                }
            };
            let Some(compared) = turns.unless_stopping(comparing).await else { return };
            let outcome = compared.unwrap_or_else(|error| {
                tracing::warn!(error = error.text(), "the members' keys could not be compared");
                Outcome::Failed
            });
            self.count(kind.into(), outcome);
        }
    }

    fn count(&self, check: Check, outcome: Outcome) {
        self.checks.get_or_create(&Labels { check, outcome }).inc();
    }

    /// Compares all keys, at the newest revision.
    async fn compare_keys(&self) -> Result<Outcome, ApiError> {
        let started = Instant::now();
        let own = self.node.store_maintenance().hash_at(0, None).await?;
        let question = HashQuestion { settled: true, ..question_of(&own) };
        let told = self.ask_all(question, self.patience(started.elapsed())).await;
        // Whatever the others had applied when they answered is applied here, too, after this.
        self.node.linearize().await?;
        let (revision, compacted) = (self.node.reader().revision(), self.node.reader().compacted());
        // They had settled: none of them may be behind what was applied here when the question was asked.
        let is_astray = |told: &HashTold| {
            told.revision > revision || told.compacted > compacted || told.revision < own.hash_revision
        };
        let astray: Vec<_> = told.iter().filter(|(_, told)| is_astray(told)).map(|(member, _)| *member).collect();
        let outcome = self.act(&own, self.said_with(&own, &told)).await;
        if astray.is_empty() {
            return Ok(outcome);
        }
        tracing::error!(members = hex(&astray), revision, compacted, "members are where the log has not led them");
        let alone = astray.len() >= majority(self.node.members().members.len());
        self.accuse(&if alone { vec![self.node.status().member_id] } else { astray }).await;
        Ok(Outcome::Differ)
    }

    /// Compares the newest compaction that all members remember, if it is newer than `checked`.
    async fn compare_compactions(&self, checked: &mut i64) -> Outcome {
        let mut outcome = Outcome::Idle;
        for own in self.node.reader().compaction_hashes() {
            if own.hash_revision <= *checked {
                break;
            }
            let question = HashQuestion { remembered: true, ..question_of(&own) };
            let told = self.ask_all(question, self.request_timeout).await;
            outcome = self.act(&own, self.said_with(&own, &told)).await;
            match outcome {
                Outcome::Agreed => {
                    *checked = own.hash_revision;
                    break;
                }
                Outcome::Differ => break,
                // An older one may be known to all.
                _ => {}
            }
        }
        outcome
    }

    /// What the others told and this member has, by member.
    fn said_with(&self, own: &KvHash, told: &[(u64, HashTold)]) -> Vec<(u64, u32)> {
        let mut hashes = hashes_of(told);
        hashes.push((self.node.status().member_id, own.hash));
        hashes
    }

    /// Judges what the members, this one included, have where this one has `own`, and raises the alarm for whoever differs.
    async fn act(&self, own: &KvHash, hashes: Vec<(u64, u32)>) -> Outcome {
        let (revision, compacted) = (own.hash_revision, own.compact_revision);
        let named = match judge(self.node.members().members.len(), &hashes) {
            Verdict::Agreed { complete: true } => {
                tracing::debug!(revision, compacted, "all members have the same keys");
                return Outcome::Agreed;
            }
            Verdict::Agreed { complete: false } => {
                tracing::info!(revision, compacted, compared = hashes.len(), "not all members could be compared");
                return Outcome::Incomplete;
            }
            Verdict::Differ(members) => members,
            Verdict::Torn => vec![ALL_MEMBERS],
        };
        let said: Vec<_> = hashes.iter().map(|(member, hash)| format!("{member:x}: {hash:08x}")).collect();
        tracing::error!(
            revision,
            compacted,
            hashes = said.join(", "),
            corrupt = if named == [ALL_MEMBERS] { "unknown: no majority agrees".to_owned() } else { hex(&named) },
            "the members' keys differ"
        );
        self.accuse(&named).await;
        self.hand_over(&named, &hashes);
        Outcome::Differ
    }

    /// Lets another member lead if this one is named: whoever leads sends snapshots of what it has.
    fn hand_over(&self, named: &[u64], hashes: &[(u64, u32)]) {
        let members = self.node.members();
        let votes = |member: &u64| members.members.get(member).is_some_and(|member| !member.is_learner);
        let mut right = hashes.iter().map(|(member, _)| *member).filter(|member| !named.contains(member));
        let status = self.node.status();
        if status.leader == status.member_id
            && named.contains(&status.member_id)
            && let Some(to) = right.find(votes)
        {
            tracing::warn!(to = format_args!("{to:x}"), "this member is not to lead: handing leadership over");
            self.node.membership().transfer_leader(to);
        }
    }

    /// Raises the alarm for members for which it is not raised yet.
    async fn accuse(&self, members: &[u64]) {
        for &member_id in members {
            if self.node.alarms().is_raised(AlarmType::Corrupt, member_id) {
                continue;
            }
            let alarm =
                AlarmRequest { action: AlarmAction::Activate.into(), member_id, alarm: AlarmType::Corrupt.into() };
            tracing::error!(member = format_args!("{member_id:x}"), "raising the alarm CORRUPT");
            if let Err(error) = self.node.proposer().propose_own(Request::Alarm(alarm)).await {
                tracing::warn!(%error, "the alarm CORRUPT could not be raised; the next comparison tries again");
            }
        }
    }

    /// Asks all other members at once; those that do not answer are left out, and said to be.
    async fn ask_all(&self, question: HashQuestion, wait_max: Duration) -> Vec<(u64, HashTold)> {
        let members = self.node.members();
        let own = self.node.status().member_id;
        let others: Vec<_> = members.members.values().filter(|member| member.id != own).collect();
        self.ask(&others, question, wait_max, true).await
    }

    /// Asks these members at once; those that do not answer are left out, and said to be if it is `loud`.
    async fn ask(
        &self,
        others: &[&Member],
        question: HashQuestion,
        wait_max: Duration,
        loud: bool,
    ) -> Vec<(u64, HashTold)> {
        let asked = others.iter().map(|member| async move {
            let told = self.peers.hash(&self.node, (member.id, &member.peer_urls), question, wait_max).await;
            told_by(member.id, question, told, loud).map(|told| (member.id, told))
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    fn patience(&self, own_took: Duration) -> Duration {
        self.request_timeout + WAIT_FACTOR * own_took
    }
}

/// The question for the same hash as `own`.
fn question_of(own: &KvHash) -> HashQuestion {
    HashQuestion { revision: own.hash_revision, compacted: own.compact_revision, remembered: false, settled: false }
}

/// What a member told, if it did; whatever there is to say of it is logged.
fn told_by(member: u64, question: HashQuestion, told: Result<HashTold, HashError>, loud: bool) -> Option<HashTold> {
    let HashQuestion { revision, compacted, remembered, .. } = question;
    let skipped = match &told {
        Err(error) => error.to_string(),
        Ok(HashTold { hash: Some(_), .. }) => return told.ok(),
        Ok(_) if remembered => "it does not remember this compaction's hash (yet)".to_owned(),
        Ok(told) if told.revision < revision => format!("it is at revision {} only", told.revision),
        Ok(told) if told.compacted > compacted => format!("it is compacted to {}", told.compacted),
        Ok(_) => "a compaction there did not wait for the hash".to_owned(),
    };
    let (member, reason) = (format!("{member:x}"), skipped);
    if loud {
        tracing::warn!(member, revision, compacted, reason, "a member is not compared");
    } else {
        tracing::debug!(member, revision, compacted, reason, "a member is not compared yet");
    }
    told.ok()
}

/// The hashes there are, by member.
fn hashes_of(told: &[(u64, HashTold)]) -> Vec<(u64, u32)> {
    told.iter().filter_map(|(member, told)| Some((*member, told.hash?))).collect()
}

fn hex(members: &[u64]) -> String {
    members.iter().map(|member| format!("{member:x}")).collect::<Vec<_>>().join(", ")
}

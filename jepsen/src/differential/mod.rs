//! The differential test: the same random requests to a genuine etcd and to Cairn, every answer equal.
//!
//! A sequence is a list of requests over a few hot keys. Revisions in it are symbolic (so many before or after the
//! newest), resolved while playing from the genuine server's answers, so that a sequence means the same wherever it
//! starts and stays meaningful when steps are taken out. Both servers live through many sequences: each begins by
//! deleting and compacting everything away. At the first difference the servers are thrown away and the sequence is
//! shrunk on fresh ones: steps, then operations inside transactions, are taken out as long as a difference remains.
//! Every fifth sequence also has watches on up to two streams; how they are compared is told in `watches`. Instead of
//! these, sequences may have `users`: each request has a caller, whose permissions change meanwhile.
//!
//! Cluster and member ids and terms are set aside; everything else of an answer or an error (code and text) is compared. What a genuine 3.5 does
//! otherwise than 3.7 is listed, with the reason, in [`exceptions`].

pub mod exceptions;
mod generate;
mod play;
mod shrink;
mod users;
mod watches;

use std::{collections::BTreeMap, fmt, path::PathBuf};

use anyhow::Result;
pub use generate::{Sequence, Step};
pub use play::{Difference, Pair, Played};

/// Sequences with users that a pair of servers lives through.
const SEQUENCES_WITH_USERS: u64 = 10;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The genuine server.
    pub etcd: PathBuf,
    /// Ours.
    pub cairn: PathBuf,
    /// The first seed.
    pub seed: u64,
    /// How many sequences.
    pub sequences: u64,
    /// Requests in each.
    pub steps: usize,
    /// Users, roles and permissions instead of watches.
    pub users: bool,
}

/// What a run covered.
#[derive(Debug, Default)]
pub struct Coverage {
    /// How often each option, operation and answer came up.
    pub seen: BTreeMap<String, u64>,
    /// Requests compared.
    pub requests: u64,
    /// Reads compared.
    pub reads: u64,
    /// Reads at an old, compacted or future revision.
    pub reads_elsewhere: u64,
    /// Events of watches compared.
    pub events: u64,
}

impl Coverage {
    fn note(&mut self, what: impl Into<String>) {
        *self.seen.entry(what.into()).or_default() += 1;
    }
}

impl fmt::Display for Coverage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let share = 100.0 * self.reads_elsewhere as f64 / self.reads.max(1) as f64;
        writeln!(
            f,
            "{} requests, {} reads, {share:.0} % of them not at the newest revision, {} events",
            self.requests, self.reads, self.events
        )?;
        for (what, times) in &self.seen {
            writeln!(f, "{times:>9}  {what}")?;
        }
        Ok(())
    }
}

/// A sequence on which the servers differ, made as small as it would go.
#[derive(Debug)]
pub struct Failure {
    /// The seed of the sequence.
    pub seed: u64,
    /// It is one with users.
    pub users: bool,
    /// What is left of it.
    pub sequence: Sequence,
    /// How the answers differ.
    pub difference: Difference,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} differs; {} steps are enough:", self.seed, self.sequence.steps.len())?;
        for step in &self.sequence.steps {
            writeln!(f, "  {step:?}")?;
        }
        let users = if self.users { " --users" } else { "" };
        write!(f, "{}\nrepeat: cairn-jepsen differential --seed {} --sequences 1{users}", self.difference, self.seed)
    }
}

/// Runs the plan until the first difference.
pub async fn run(plan: &Plan) -> Result<(Coverage, Option<Failure>)> {
    let mut coverage = Coverage::default();
    let mut pair = Pair::start(plan).await?;
    for seed in plan.seed..plan.seed + plan.sequences {
        // Ours lets a client that has tried many wrong passwords wait.
        if plan.users && (seed - plan.seed + 1).is_multiple_of(SEQUENCES_WITH_USERS) {
            pair = Pair::start(plan).await?;
        }
        let sequence = Sequence::generate(seed, plan.steps, plan.users);
        match pair.play(&sequence, &mut coverage).await? {
            Played::Equal => {}
            Played::GenuineEnded => pair = Pair::start(plan).await?,
            Played::Differs(difference) => {
                drop(pair);
                let (sequence, difference) = shrink::shrink(plan, sequence, *difference).await?;
                return Ok((coverage, Some(Failure { seed, users: plan.users, sequence, difference })));
            }
        }
    }
    Ok((coverage, None))
}

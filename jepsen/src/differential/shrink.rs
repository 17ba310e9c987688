//! Making a failing sequence small.

use anyhow::{Context, Result};
use cairn_proto::etcdserverpb::TxnRequest;

use super::{Coverage, Difference, Pair, Plan, Played, Sequence, Step};

/// Attempts, each on fresh servers, before the smallest sequence so far is good enough.
const ATTEMPTS_MAX: usize = 150;

/// Takes steps, then operations of transactions, out of `sequence` as long as the servers still differ.
pub async fn shrink(plan: &Plan, sequence: Sequence, difference: Difference) -> Result<(Sequence, Difference)> {
    let mut search = Search { plan, attempts: 0, best: (sequence, difference) };
    search.best.0.steps.truncate(search.best.1.step + 1);
    let mut chunk = search.best.0.steps.len() / 2;
    while chunk > 0 {
        let mut start = 0;
        while start < search.best.0.steps.len() {
            let mut smaller = search.best.0.clone();
            let end = (start + chunk).min(smaller.steps.len());
            smaller.steps.drain(start..end);
            if !search.try_smaller(smaller).await? {
                start += chunk;
            }
        }
        chunk /= 2;
    }
    for step in 0..search.best.0.steps.len() {
        let mut part = 0;
        while let Some(smaller) = without_part(&search.best.0, step, part) {
            if !search.try_smaller(smaller).await? {
                part += 1;
            }
        }
    }
    Ok(search.best)
}

struct Search<'a> {
    plan: &'a Plan,
    attempts: usize,
    best: (Sequence, Difference),
}

impl Search<'_> {
    /// Whether the servers differ on `smaller` too; then it is the best so far.
    async fn try_smaller(&mut self, smaller: Sequence) -> Result<bool> {
        if self.attempts == ATTEMPTS_MAX || smaller.steps.is_empty() {
            return Ok(false);
        }
        self.attempts += 1;
        let mut pair = Pair::start(self.plan).await.context("start fresh servers to shrink a sequence")?;
        let Played::Differs(difference) = pair.play(&smaller, &mut Coverage::default()).await? else {
            return Ok(false);
        };
        let mut smaller = smaller;
        smaller.steps.truncate(difference.step + 1);
        self.best = (smaller, *difference);
        Ok(true)
    }
}

/// The sequence without one compare or operation of the transaction at `step`; `None` past the last one.
fn without_part(sequence: &Sequence, step: usize, part: usize) -> Option<Sequence> {
    let mut smaller = sequence.clone();
    let mut step = smaller.steps.get_mut(step)?;
    while let Step::As(_, inner) = step {
        step = inner;
    }
    let Step::Txn(TxnRequest { compare, success, failure }) = step else { return None };
    let (compares, successes) = (compare.len(), success.len());
    if part < compares {
        compare.remove(part);
    } else if part < compares + successes {
        success.remove(part - compares);
    } else if part < compares + successes + failure.len() {
        failure.remove(part - compares - successes);
    } else {
        return None;
    }
    Some(smaller)
}

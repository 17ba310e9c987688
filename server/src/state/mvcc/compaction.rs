//! Compaction's physical half: removes superseded revisions from index and store, in small steps driven from outside.
//!
//! The logical half is over when a Compact command is applied: reads below the compacted revision are refused. What is
//! left to do is written down with it, so it survives a restart, and is done here:
//! ```text
//! hash   the hash that the compaction owes to HashKV (nothing may be removed before it is known)
//! wait   for reads pinned below the target; after a limit they are expired instead
//! sweep  the index, some keys at a time; what it drops is removed from the store in one small batch
//! done   the last batch also says how far this member has come; who waits for `physical=true` is woken
//! ```
//! No step holds the index for longer than [`STEP_KEYS`] keys take (well under a millisecond). Revision keys are
//! written once and removed once, which is what makes the store's cheaper single delete right.

use std::{mem, sync::Arc, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;

use super::{Mvcc, hash::HashWalk, revision::Revision};
use crate::{
    state::{StateError, record::finished},
    store::{Batch, StoreError, Table},
};

/// Keys examined while the index is locked once.
const STEP_KEYS: usize = 512;
/// Revisions removed in one step.
const STEP_REVISIONS: usize = 512;

/// What a step did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompactionStep {
    /// There is nothing to do until the next Compact command is applied.
    Idle,
    /// Some work, and there is more.
    Worked {
        /// Revisions removed.
        removed: usize,
    },
    /// A read pinned at this revision, or the store's back-pressure, holds it up; try again soon.
    Held {
        /// The pinned revision, if it is a read.
        by: Option<i64>,
    },
}

/// Does the physical part of compactions. There is one for each state, and one thread that drives it.
#[derive(Debug)]
pub struct Compactor {
    mvcc: Arc<Mvcc>,
    pin_hold_max: Duration,
    step_revisions: usize,
    job: Job,
}

#[derive(Debug)]
enum Job {
    None,
    Hash { revision: i64, walk: HashWalk },
    Wait { target: i64, since: Duration },
    Sweep(Sweep),
}

#[derive(Debug)]
struct Sweep {
    target: i64,
    /// Where to go on; `None`: the index is done.
    next: Option<Bytes>,
    /// Gone from the index, still in the store.
    removed: Vec<(Revision, bool)>,
}

impl Compactor {
    pub(in crate::state) fn new(mvcc: Arc<Mvcc>, pin_hold_max: Duration) -> Self {
        Self { mvcc, pin_hold_max, step_revisions: STEP_REVISIONS, job: Job::None }
    }

    /// Removes at most so many revisions in one step from now on; at least 1, and never more than the usual 512.
    pub fn limit_steps(&mut self, revisions: usize) {
        self.step_revisions = revisions.clamp(1, STEP_REVISIONS);
    }

    /// Does a little. `now` is any clock that only rises.
    pub fn step(&mut self, now: Duration) -> Result<CompactionStep, StateError> {
        match mem::replace(&mut self.job, Job::None) {
            Job::None => self.pick(now),
            Job::Hash { revision, mut walk } => {
                match walk.step(&self.mvcc)? {
                    Some(hash) => self.mvcc.horizon.lock().record_hash(revision, hash),
                    None => self.job = Job::Hash { revision, walk },
                }
                Ok(CompactionStep::Worked { removed: 0 })
            }
            Job::Wait { target, since } => Ok(self.wait(target, since, now)),
            Job::Sweep(sweep) => self.sweep(sweep),
        }
    }

    fn pick(&mut self, now: Duration) -> Result<CompactionStep, StateError> {
        let horizon = self.mvcc.horizon.lock();
        if let Some(owed) = horizon.hash_owed() {
            drop(horizon);
            let walk = HashWalk::new(&self.mvcc, owed.revision, owed.previous, true)?;
            self.job = Job::Hash { revision: owed.revision, walk };
            return Ok(CompactionStep::Worked { removed: 0 });
        }
        let target = horizon.compacted;
        if target <= horizon.finished {
            return Ok(CompactionStep::Idle);
        }
        drop(horizon);
        Ok(self.wait(target, now, now))
    }

    fn wait(&mut self, target: i64, since: Duration, now: Duration) -> CompactionStep {
        // From the moment compaction to the target was published, nobody pins below it any more; who did before is
        // waited for.
        match self.mvcc.horizon.lock().oldest_pin().filter(|pinned| *pinned < target) {
            Some(pinned) if now.saturating_sub(since) < self.pin_hold_max => {
                self.job = Job::Wait { target, since };
                return CompactionStep::Held { by: Some(pinned) };
            }
            Some(_) => {
                self.mvcc.expired_below.fetch_max(target, Ordering::AcqRel);
            }
            None => {}
        }
        self.job = Job::Sweep(Sweep { target, next: Some(Bytes::new()), removed: Vec::new() });
        CompactionStep::Worked { removed: 0 }
    }

    fn sweep(&mut self, mut sweep: Sweep) -> Result<CompactionStep, StateError> {
        if sweep.removed.is_empty()
            && let Some(from) = sweep.next.take()
        {
            sweep.next = self.mvcc.index.write().compact_step(
                sweep.target,
                &from,
                STEP_KEYS,
                self.step_revisions,
                &mut sweep.removed,
            );
        }
        let mut batch = Batch::default();
        for (at, tombstone) in &sweep.removed {
            batch.single_delete(Table::Rev, at.key(*tombstone));
        }
        let done = sweep.next.is_none();
        if done {
            let record = self.mvcc.horizon.lock().finished_record(sweep.target);
            batch.put(Table::Meta, finished::KEY, record.encode());
        }
        if !batch.is_empty() {
            match self.mvcc.store.write(&batch) {
                Ok(()) => {}
                Err(StoreError::Stalled) => {
                    self.job = Job::Sweep(sweep);
                    return Ok(CompactionStep::Held { by: None });
                }
                Err(error) => return Err(error.into()),
            }
        }
        let removed = sweep.removed.len();
        if done {
            self.finish(sweep.target);
        } else {
            sweep.removed.clear();
            self.job = Job::Sweep(sweep);
        }
        Ok(CompactionStep::Worked { removed })
    }

    fn finish(&self, target: i64) {
        let mut horizon = self.mvcc.horizon.lock();
        horizon.finished = target;
        let (done, waiting) =
            mem::take(&mut horizon.waiters).into_iter().partition(|(revision, _)| *revision <= target);
        horizon.waiters = waiting;
        drop(horizon);
        let done: Vec<_> = done;
        for (_, waker) in done {
            waker.wake();
        }
    }
}

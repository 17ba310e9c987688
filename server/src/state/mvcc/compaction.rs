//! Compaction's physical half: removes superseded revisions from index and store, in small steps driven from outside.
//!
//! The logical half is over when a Compact command is applied: reads below the compacted revision are refused. What is
//! left to do is written down with it, so it survives a restart, and is done here:
//! ```text
//! hash   the hash that the compaction owes to HashKV (nothing may be removed before it is known; the first removal records it)
//! wait   for reads pinned below the target; after a limit they are expired instead
//! sweep  the index, some keys at a time; what it drops is removed from the store in one small batch
//! done   the last batch also says how far this member has come; who waits for `physical=true` is woken
//! ```
//! The same thread writes the index image, between two compactions; see `imaging`.
//!
//! No step holds the index for longer than [`STEP_KEYS`] keys take (well under a millisecond). Revision keys are
//! written once and removed once, which is what makes the store's cheaper single delete right. (Only after a start from an
//! image in the middle of a compaction it is not known what is still there.)

use std::{mem, sync::Arc, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;

use super::{
    Mvcc,
    hash::HashWalk,
    imaging::{Imager, Writing, Written},
    revision::Revision,
};
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
    /// Some of the index image was written, and there is more: nothing is urgent.
    Imaged,
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
    imager: Imager,
    job: Job,
}

#[derive(Debug)]
enum Job {
    None,
    Hash { revision: i64, walk: HashWalk },
    Wait { target: i64, since: Duration },
    Sweep(Sweep),
    Image(Writing),
}

#[derive(Debug)]
struct Sweep {
    target: i64,
    /// Where to go on; `None`: the index is done.
    next: Option<Bytes>,
    /// Gone from the index, still in the store.
    removed: Vec<(Revision, bool)>,
    /// The hashes that cannot be computed any more are still to be written down.
    first: bool,
}

impl Compactor {
    pub(in crate::state) fn new(mvcc: Arc<Mvcc>, pin_hold_max: Duration, imager: Imager) -> Self {
        Self { mvcc, pin_hold_max, step_revisions: STEP_REVISIONS, imager, job: Job::None }
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
            Job::Image(writing) => self.image(writing),
        }
    }

    /// Writes an image of what is there now, at once; `false` if little changed since the last one, or a compaction is under way (the last one is right
    /// then too).
    pub fn write_image(&mut self, now: Duration) -> Result<bool, StateError> {
        match &self.job {
            // Begun at an older revision.
            Job::Image(_) => self.job = Job::None,
            Job::None | Job::Hash { .. } | Job::Wait { .. } => {}
            Job::Sweep(_) => return Ok(false),
        }
        if !self.imager.is_behind(&self.mvcc) {
            return Ok(false);
        }
        let Some(mut writing) = self.imager.begin(&self.mvcc, now)? else { return Ok(false) };
        loop {
            match writing.step(&self.mvcc)? {
                Ok(Written::Some(more)) => writing = more,
                Ok(Written::Waits(_)) => return Ok(false),
                Ok(Written::Done(image)) => {
                    self.imager.note(image);
                    return Ok(true);
                }
                Err(error) => return self.imager.give_up(&self.mvcc, &error).map(|()| false),
            }
        }
    }

    fn begin_image(&mut self, now: Duration) -> Result<CompactionStep, StateError> {
        if let Some(writing) = self.imager.begin(&self.mvcc, now)? {
            self.job = Job::Image(writing);
        }
        Ok(CompactionStep::Imaged)
    }

    fn image(&mut self, writing: Writing) -> Result<CompactionStep, StateError> {
        match writing.step(&self.mvcc)? {
            Ok(Written::Some(writing)) => self.job = Job::Image(writing),
            Ok(Written::Waits(writing)) => {
                self.job = Job::Image(writing);
                return Ok(CompactionStep::Held { by: None });
            }
            Ok(Written::Done(image)) => self.imager.note(image),
            Err(error) => self.imager.give_up(&self.mvcc, &error)?,
        }
        Ok(CompactionStep::Imaged)
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
        let finished = horizon.finished;
        drop(horizon);
        if target <= finished {
            return if self.imager.is_due(&self.mvcc, now) { self.begin_image(now) } else { Ok(CompactionStep::Idle) };
        }
        if !self.imager.allows(target) {
            if self.imager.replaces(now) {
                return self.begin_image(now);
            }
            self.imager.remove(self.mvcc.store.as_ref())?;
        }
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
        self.job = Job::Sweep(Sweep { target, next: Some(Bytes::new()), removed: Vec::new(), first: true });
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
            if at.main <= self.mvcc.doubtful_to {
                batch.delete(Table::Rev, at.key(*tombstone));
            } else {
                batch.single_delete(Table::Rev, at.key(*tombstone));
            }
        }
        let done = sweep.next.is_none();
        if done || sweep.first {
            let horizon = self.mvcc.horizon.lock();
            let record = horizon.finished_record(if done { sweep.target } else { horizon.finished }, sweep.target);
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
            sweep.first = false;
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

//! The horizon: which revisions may be read, and which may be removed.
//!
//! ```text
//! ------------|-----------------|----------------------|--------------> revision
//!          finished          compacted             published
//!  superseded revisions     new reads begin      newest revision
//!  are gone up to here      at or above here     readers see
//! ```
//! A read **pins** the revision it reads at. Compaction is logical at once (new reads below `compacted` are refused),
//! but nothing that a pinned read may still need is removed while the pin stands: physical removal up to C waits for
//! all pins below C. The wait has a limit; when it is over, the pins below C are *expired*: their reads end in
//! "compacted" instead of answering from a history with holes. The limit counts from the moment a compaction is held
//! up, so that pinning itself needs no clock.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    task::Waker,
};

use cairn_proto::ApiError;

use super::{Mvcc, ReadError};
use crate::state::record::{
    finished::Finished,
    scheduled::{SCHEDULED_MAX, Scheduled},
};

/// A compaction that was asked for, and its hash as soon as it is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compaction {
    pub(super) scheduled: Scheduled,
    pub(super) hash: Option<u32>,
}

/// See the module's text. Behind a mutex that is held for a few instructions at a time.
#[derive(Debug)]
pub(super) struct Horizon {
    /// The newest revision readers see.
    pub(super) revision: i64,
    /// The lowest revision new reads may ask for, -1 while nothing was compacted.
    pub(super) compacted: i64,
    /// Superseded revisions are gone up to here, -1 for none.
    pub(super) finished: i64,
    /// The newest compactions, oldest first; never more than [`SCHEDULED_MAX`].
    pub(super) compactions: VecDeque<Compaction>,
    /// Who waits for `finished` to reach a revision.
    pub(super) waiters: Vec<(i64, Waker)>,
    /// Pinned revisions and how often, in ascending order. Reads pin the newest revision, so the work is at the back.
    pins: VecDeque<(i64, u32)>,
}

impl Horizon {
    pub(super) fn new(revision: i64, scheduled: &[Scheduled], finished: &Finished) -> Self {
        let compaction = |scheduled: &Scheduled| Compaction {
            scheduled: *scheduled,
            hash: finished.hashes.iter().find(|(revision, _)| *revision == scheduled.revision).map(|(_, hash)| *hash),
        };
        Self {
            revision,
            compacted: scheduled.last().map_or(-1, |last| last.revision),
            finished: finished.revision,
            compactions: scheduled.iter().map(compaction).collect(),
            waiters: Vec::new(),
            pins: VecDeque::new(),
        }
    }

    pub(super) fn schedule(&mut self, scheduled: Scheduled) {
        self.compacted = scheduled.revision;
        self.compactions.push_back(Compaction { scheduled, hash: None });
        while self.compactions.len() > SCHEDULED_MAX {
            self.compactions.pop_front();
        }
    }

    /// Compactions whose hash has to be computed before anything more is removed, oldest first.
    pub(super) fn hash_owed(&self) -> Option<Scheduled> {
        self.compactions
            .iter()
            .find(|one| one.scheduled.revision > self.finished && one.scheduled.hashed && one.hash.is_none())
            .map(|one| one.scheduled)
    }

    pub(super) fn record_hash(&mut self, revision: i64, hash: u32) {
        if let Some(one) = self.compactions.iter_mut().find(|one| one.scheduled.revision == revision) {
            one.hash = Some(hash);
        }
    }

    /// The record of what is carried out, once everything superseded up to `revision` is gone, with the hashes of
    /// compactions up to `hashed`.
    pub(super) fn finished_record(&self, revision: i64, hashed: i64) -> Finished {
        let hashes = self.compactions.iter().filter(|one| one.scheduled.revision <= hashed);
        Finished {
            revision,
            hashes: hashes.filter_map(|one| one.hash.map(|hash| (one.scheduled.revision, hash))).collect(),
        }
    }

    /// The lowest pinned revision.
    pub(super) fn oldest_pin(&self) -> Option<i64> {
        self.pins.front().map(|(revision, _)| *revision)
    }

    /// Pins that stand.
    pub(super) fn pins(&self) -> u64 {
        self.pins.iter().map(|(_, count)| u64::from(*count)).sum()
    }

    fn add_pin(&mut self, revision: i64) {
        match self.pins.back_mut() {
            Some((newest, count)) if *newest == revision => *count += 1,
            Some((newest, _)) if *newest > revision => {
                match self.pins.binary_search_by_key(&revision, |(revision, _)| *revision) {
                    Ok(at) => self.pins[at].1 += 1,
                    Err(at) => self.pins.insert(at, (revision, 1)),
                }
            }
            _ => self.pins.push_back((revision, 1)),
        }
    }

    fn remove_pin(&mut self, revision: i64) {
        if let Ok(at) = self.pins.binary_search_by_key(&revision, |(revision, _)| *revision) {
            self.pins[at].1 -= 1;
            if self.pins[at].1 == 0 {
                self.pins.remove(at);
            }
        }
    }
}

/// Keeps one revision readable until it is dropped, or until a compaction has waited for it too long.
#[derive(Debug)]
pub struct Pin {
    mvcc: Arc<Mvcc>,
    revision: i64,
    header: i64,
}

impl Pin {
    /// The revision to read at.
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// The store's revision when the pin was taken: what the answer's header says.
    pub fn header_revision(&self) -> i64 {
        self.header
    }

    pub(super) fn mvcc(&self) -> &Arc<Mvcc> {
        &self.mvcc
    }

    /// Whether a compaction stopped waiting for this pin. What was read before a successful check is whole.
    pub(super) fn check(&self) -> Result<(), ReadError> {
        if self.mvcc.expired_below.load(Ordering::Acquire) > self.revision {
            Err(ReadError::Api(ApiError::Compacted))
        } else {
            Ok(())
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.mvcc.horizon.lock().remove_pin(self.revision);
    }
}

impl Mvcc {
    /// Pins `revision`, or the newest one if it is not positive.
    pub(super) fn pin(self: &Arc<Self>, revision: i64) -> Result<Pin, ApiError> {
        let mut horizon = self.horizon.lock();
        let header = horizon.revision;
        if revision > header {
            return Err(ApiError::FutureRevision);
        }
        let revision = if revision <= 0 { header } else { revision };
        if revision < horizon.compacted {
            return Err(ApiError::Compacted);
        }
        horizon.add_pin(revision);
        Ok(Pin { mvcc: self.clone(), revision, header })
    }

    /// Pins a revision that the caller knows to be there still.
    pub(super) fn pin_known(self: &Arc<Self>, horizon: &mut Horizon, revision: i64) -> Pin {
        horizon.add_pin(revision);
        Pin { mvcc: self.clone(), revision, header: horizon.revision }
    }

    /// Makes what was written visible: first the pins that answers need, then the compactions, then the revision.
    pub(in crate::state) fn publish(
        self: &Arc<Self>,
        revision: i64,
        scheduled: &[Scheduled],
        pins: impl Iterator<Item = Option<i64>>,
    ) -> Vec<Option<Pin>> {
        let mut horizon = self.horizon.lock();
        let pins = pins.map(|revision| revision.map(|revision| self.pin_known(&mut horizon, revision))).collect();
        for one in scheduled {
            horizon.schedule(*one);
        }
        horizon.revision = revision;
        self.compacted.store(horizon.compacted, Ordering::Release);
        self.revision.store(revision, Ordering::Release);
        pins
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn the_oldest_pin_is_known_whatever_the_order(pins in vec(0..20i64, 0..40), order in vec(any::<prop::sample::Index>(), 40)) {
            let mut horizon = Horizon::new(100, &[], &Finished::default());
            for pin in &pins {
                horizon.add_pin(*pin);
            }
            let mut left = pins;
            for index in order {
                prop_assert_eq!(horizon.oldest_pin(), left.iter().min().copied());
                if left.is_empty() {
                    break;
                }
                horizon.remove_pin(left.swap_remove(index.index(left.len())));
            }
        }
    }

    #[test]
    fn only_the_newest_compactions_are_remembered() {
        let mut horizon = Horizon::new(100, &[], &Finished::default());
        for revision in 0..15 {
            horizon.schedule(Scheduled { revision, previous: revision - 1, hashed: true });
        }
        assert_eq!(horizon.compactions.len(), SCHEDULED_MAX);
        assert_eq!(horizon.hash_owed().map(|owed| owed.revision), Some(5));
        horizon.record_hash(5, 7);
        assert_eq!(horizon.hash_owed().map(|owed| owed.revision), Some(6));
        assert_eq!(horizon.finished_record(14, 14), Finished { revision: 14, hashes: vec![(5, 7)] });
    }
}

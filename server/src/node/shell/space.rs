//! Gives back the space of what compactions have removed.
//!
//! RocksDB drops what was removed when it merges files, and it merges when there are enough of them. A large store is kept close to what it holds that way.
//! A small one of large values may be garbage many times over before anything is merged, which counts for the quota and shows as in use. So a store is
//! rewritten after a compaction if it is small, which takes a fraction of a second, and whatever its size before it is called full, once for all who wait.
//!
//! Neither may become all that a member does: the next rewrite has to wait until the store has grown by a part, or the last one was long enough ago.

use std::time::{Duration, Instant};

use super::{handle::StoreMaintenance, shared::Shared};
use crate::node::NodeError;

/// The largest store that is rewritten after a compaction, in bytes: four of RocksDB's buffers. With more it merges files by itself.
const SMALL_BYTES: u64 = 64 << 20;
/// A small store is rewritten again when it has grown by one part in so many and by so many bytes.
const SMALL_GROWTH: (u64, u64) = (2, 4 << 20);
/// Before a store is called full it is rewritten again when it has grown by one part in so many.
const FULL_GROWTH: (u64, u64) = (8, 0);
/// Or when the last rewrite is so many times longer ago than it took.
const REST_FACTOR: u32 = 9;

/// What the last rewrite left.
#[derive(Debug, Default)]
pub(super) struct LastRewrite {
    /// Bytes of the store.
    bytes: u64,
    /// Revisions that compactions had removed when it began.
    removed: u64,
    /// When it ended and how long it took.
    at: Option<(Instant, Duration)>,
}

impl LastRewrite {
    /// Whether another one may bring something and its time has come, at `now` with `bytes` in the store and `removed` revisions removed so far.
    fn allows(&self, now: Instant, bytes: u64, removed: u64, (part, least): (u64, u64)) -> bool {
        let grown = bytes.saturating_sub(self.bytes) >= least.max(self.bytes / part);
        let rested = self.at.is_none_or(|(at, took)| now.saturating_duration_since(at) >= took * REST_FACTOR);
        removed > self.removed && (grown || rested)
    }
}

impl Shared {
    fn rewrite_is_due(&self, growth: (u64, u64)) -> bool {
        let (bytes, removed) = (self.size().total, self.metrics.compaction_keys.get());
        self.last_rewrite.lock().allows(Instant::now(), bytes, removed, growth)
    }

    /// Rewrites the files without what was removed. Waits for the disk.
    fn rewrite(&self) -> Result<(), NodeError> {
        let (store, began) = (self.reader.store(), Instant::now());
        let removed = self.metrics.compaction_keys.get();
        let before = self.size().total;
        store.compact().map_err(|error| NodeError::State(error.into()))?;
        self.set_size(store.size().map_err(|error| NodeError::State(error.into()))?);
        let (bytes, took) = (self.size().total, began.elapsed());
        *self.last_rewrite.lock() = LastRewrite { bytes, removed, at: Some((Instant::now(), took)) };
        tracing::debug!(before, bytes, ?took, "rewrote the store's files");
        Ok(())
    }

    /// Rewrites a small store after a compaction, if that is worth it now; if it is not, a later call may find it so.
    pub(super) fn tidy(&self) -> Result<(), NodeError> {
        if self.size().total <= SMALL_BYTES && self.rewrite_is_due(SMALL_GROWTH) { self.rewrite() } else { Ok(()) }
    }
}

impl StoreMaintenance {
    /// Whether compactions have removed something whose space is to be given back before the store is called full.
    pub fn has_garbage(&self) -> bool {
        self.shared().rewrite_is_due(FULL_GROWTH)
    }

    /// Gives disk space back that deleted data still takes. Waits for the disk.
    pub fn give_back(&self) -> Result<(), NodeError> {
        self.shared().rewrite()
    }

    /// The same when an operator asks for it.
    pub fn defragment(&self) -> Result<(), NodeError> {
        let metrics = &self.shared().metrics;
        let started = Instant::now();
        metrics.defrags_running.inc();
        let done = self.shared().rewrite();
        metrics.defrags_running.dec();
        metrics.defrag.observe(started.elapsed().as_secs_f64());
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rewrite_waits_for_something_removed_and_for_growth_or_rest() {
        let now = Instant::now();
        let (long, short) = (now + Duration::from_secs(9), now + Duration::from_secs(8));
        let never = LastRewrite::default();
        assert!(never.allows(now, 1, 1, SMALL_GROWTH) && !never.allows(now, 1 << 30, 0, FULL_GROWTH));
        let last = LastRewrite { bytes: 800, removed: 5, at: Some((now, Duration::from_secs(1))) };
        assert!(last.allows(long, 800, 6, FULL_GROWTH), "it has rested");
        assert!(!last.allows(short, 899, 6, FULL_GROWTH), "neither rested nor grown");
        assert!(last.allows(short, 900, 6, FULL_GROWTH), "it has grown by an eighth");
        assert!(!last.allows(long, 9000, 5, FULL_GROWTH), "nothing was removed since");
        assert!(!last.allows(short, 1600, 6, SMALL_GROWTH) && last.allows(short, 800 + (4 << 20), 6, SMALL_GROWTH));
        assert!(!last.allows(short, 1, 6, FULL_GROWTH), "a store that shrank has not grown");
    }
}

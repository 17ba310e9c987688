//! The birth/death log: which keys came to life and which died, by revision.
//!
//! The tree counts the keys that live now. The count at an older revision is the count now, minus the births since, plus the deaths since. The log is
//! bounded in bytes; what falls off its old end moves `floor`, below which it cannot answer.

use std::collections::VecDeque;

use super::{RangeEnd, Revision};

#[derive(Debug)]
struct Change {
    at: Revision,
    key: Box<[u8]>,
    birth: bool,
}

/// Keys born and died since `floor`, oldest first.
#[derive(Debug)]
pub(super) struct Births {
    changes: VecDeque<Change>,
    bytes: usize,
    bytes_max: usize,
    /// The log is complete for everything after this.
    floor: Revision,
}

impl Births {
    pub fn new(bytes_max: usize) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, bytes_max, floor: Revision::new(0, 0) }
    }

    fn cost(key: &[u8]) -> usize {
        size_of::<Change>() + key.len()
    }

    /// Records that `key` came to life or died.
    pub fn push(&mut self, at: Revision, key: &[u8], birth: bool) {
        self.bytes += Self::cost(key);
        self.changes.push_back(Change { at, key: key.into(), birth });
        while self.bytes > self.bytes_max {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some(change) = self.changes.pop_front() {
            self.bytes -= Self::cost(&change.key);
            self.floor = self.floor.max(change.at);
        }
    }

    /// Forgets what nobody will ask for: changes at or before `at`.
    pub fn forget_to(&mut self, at: Revision) {
        while self.changes.front().is_some_and(|change| change.at <= at) {
            self.drop_oldest();
        }
        self.floor = self.floor.max(at);
    }

    /// Whether the log knows all changes after `at`.
    pub fn covers(&self, at: Revision) -> bool {
        at >= self.floor
    }

    /// How many changes came after `at`.
    pub fn len_after(&self, at: Revision) -> usize {
        self.changes.len() - self.changes.partition_point(|change| change.at <= at)
    }

    /// Births minus deaths within the range, of up to `max` changes after `after` and up to `until`; and the last change looked at, if any is left.
    pub fn net(
        &self,
        from: &[u8],
        end: &RangeEnd,
        after: Revision,
        until: Revision,
        max: usize,
    ) -> (i64, Option<Revision>) {
        let start = self.changes.partition_point(|change| change.at <= after);
        let stop = self.changes.partition_point(|change| change.at <= until);
        let cut = stop.min(start.saturating_add(max));
        let mut net = 0;
        for change in self.changes.range(start..cut.max(start)) {
            if end.contains(from, &change.key) {
                net += if change.birth { 1 } else { -1 };
            }
        }
        (net, (cut < stop).then(|| self.changes[cut - 1].at))
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

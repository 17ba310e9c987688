//! What of the log may go, and when the store must be flushed so that it may.
//!
//! The raft log is the store's write-ahead log: an entry may leave it once the store has flushed what it did. Beyond
//! that, some commands are kept for members that will lag a little, and a leader keeps what members need that it hears
//! from, or sends a snapshot to; both are bounded in bytes. Whoever needs more gets a snapshot.
//!
//! ```text
//!   before | purged next ... | kept for others ... | flushed | replayed after a crash ... | applied
//! ```

use std::collections::VecDeque;

/// Options of the log's retention.
#[derive(Debug, Clone)]
pub struct RetentionOptions {
    /// Commands after which the store is flushed and the log cut (`--snapshot-count`).
    pub snapshot_count: u64,
    /// Commands kept in the log when it is cut (`--snapshot-catchup-entries`).
    pub catchup_commands: u64,
    /// Bytes of them at most.
    pub catchup_bytes_max: u64,
    /// Bytes of log that a leader keeps at most for members that need them.
    pub needed_bytes_max: u64,
    /// Bytes of log that a start may have to replay: the store is flushed when there are more.
    pub unflushed_bytes_max: u64,
    /// Ticks between two flushes that were only asked for by `snapshot_count`: flushing a little very often helps
    /// nobody.
    pub flush_ticks_min: u64,
}

impl Default for RetentionOptions {
    fn default() -> Self {
        Self {
            snapshot_count: 10_000,
            catchup_commands: 5_000,
            catchup_bytes_max: 64 << 20,
            needed_bytes_max: 256 << 20,
            unflushed_bytes_max: 32 << 20,
            flush_ticks_min: 50,
        }
    }
}

/// A point of the log that was applied: commands and bytes since the start of the process up to and with an entry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Mark {
    index: u64,
    commands: u64,
    bytes: u64,
}

/// Keeps account of what is applied, flushed and kept.
#[derive(Debug)]
pub(super) struct Retention {
    options: RetentionOptions,
    /// Points up to which the log may be cut, oldest first, the first being where it is cut now.
    marks: VecDeque<Mark>,
    applied: Mark,
    flushed: Mark,
    flushing: bool,
    flushed_at: u64,
}

impl Retention {
    /// A log that begins after `before`, of which `flushed` is applied and flushed.
    pub(super) fn new(options: RetentionOptions, before: u64, flushed: u64) -> Self {
        let at = |index| Mark { index, ..Mark::default() };
        Self {
            options,
            marks: VecDeque::from([at(before), at(flushed)]),
            applied: at(flushed),
            flushed: at(flushed),
            flushing: false,
            flushed_at: 0,
        }
    }

    /// Notes that entries up to `index` are applied.
    pub(super) fn applied(&mut self, index: u64, commands: u64, bytes: u64) {
        self.applied = Mark { index, commands: self.applied.commands + commands, bytes: self.applied.bytes + bytes };
        let Some(last) = self.marks.back() else { return };
        let step_commands = self.options.catchup_commands / 16 + 1;
        let step_bytes = self.options.unflushed_bytes_max.min(self.options.catchup_bytes_max) / 16 + 1;
        if self.applied.commands - last.commands >= step_commands || self.applied.bytes - last.bytes >= step_bytes {
            self.marks.push_back(self.applied);
        }
    }

    /// Whether the store should be flushed now; from then on until [`Self::flushed`], no.
    pub(super) fn begin_flush(&mut self, now: u64) -> bool {
        if self.flushing {
            return false;
        }
        let many_bytes = self.applied.bytes - self.flushed.bytes > self.options.unflushed_bytes_max;
        let many_commands = self.applied.commands - self.flushed.commands >= self.options.snapshot_count
            && now >= self.flushed_at + self.options.flush_ticks_min;
        self.flushing = many_bytes || many_commands;
        self.flushing
    }

    /// Notes that a flush ended after which everything up to `index` is durable in the store.
    pub(super) fn flushed(&mut self, index: u64, now: u64) {
        self.flushing = false;
        self.flushed_at = now;
        let index = index.min(self.applied.index);
        if index <= self.flushed.index {
            return;
        }
        // The exact figures at `index` are not known: those of the last mark before it, so that less is taken for
        // flushed than is.
        let known = if index == self.applied.index {
            Some(self.applied)
        } else {
            self.marks.iter().rev().find(|mark| mark.index <= index).copied()
        };
        let known = known.filter(|known| known.index > self.flushed.index).unwrap_or(self.flushed);
        self.flushed = Mark { index, ..known };
    }

    /// The index up to which the log may be cut now, if that is further than before. Others are known to need what comes
    /// after `needed_after`: that is kept as long as it is not too much.
    pub(super) fn purge(&mut self, needed_after: u64) -> Option<u64> {
        let mut cut = None;
        while let Some(next) = self.marks.get(1).copied() {
            if next.index > self.flushed.index {
                break;
            }
            let kept_commands = self.flushed.commands - next.commands.min(self.flushed.commands);
            let kept_bytes = self.flushed.bytes - self.marks[0].bytes.min(self.flushed.bytes);
            let enough = if next.index <= needed_after {
                kept_commands >= self.options.catchup_commands || kept_bytes > self.options.catchup_bytes_max
            } else {
                kept_bytes > self.options.needed_bytes_max
            };
            if !enough {
                break;
            }
            self.marks.pop_front();
            if self.marks[0].index > 0 {
                cut = Some(next.index);
            }
        }
        cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retention(snapshot_count: u64, catchup_commands: u64) -> Retention {
        let options = RetentionOptions {
            snapshot_count,
            catchup_commands,
            catchup_bytes_max: 5000,
            needed_bytes_max: 20_000,
            unflushed_bytes_max: 1000,
            flush_ticks_min: 10,
        };
        Retention::new(options, 1, 1)
    }

    #[test]
    fn the_log_is_cut_only_where_it_is_flushed_and_far_enough_back() {
        let mut retention = retention(100, 10);
        for index in 2..=101 {
            retention.applied(index, 1, 1);
        }
        assert_eq!(retention.purge(u64::MAX), None, "nothing is flushed");
        assert!(retention.begin_flush(10) && !retention.begin_flush(10));
        retention.flushed(51, 11);
        assert_eq!(retention.purge(u64::MAX), Some(41));
        assert_eq!(retention.purge(u64::MAX), None);
        retention.flushed(101, 12);
        assert_eq!(retention.purge(u64::MAX), Some(91));
    }

    #[test]
    fn large_commands_are_not_kept_for_their_number() {
        let mut retention = retention(1_000, 1_000);
        for index in 2..=101 {
            retention.applied(index, 1, 100);
        }
        retention.flushed(101, 0);
        let cut = retention.purge(u64::MAX).unwrap();
        assert!((50..=55).contains(&cut), "5,000 bytes of 100 each are kept: {cut}");
    }

    #[test]
    fn what_others_need_is_kept_until_it_is_too_much() {
        let mut retention = retention(10, 1);
        for index in 2..=101 {
            retention.applied(index, 1, 100);
        }
        retention.flushed(101, 0);
        assert_eq!(retention.purge(40), Some(40));
        assert_eq!(retention.purge(40), None);
        for index in 102..=401 {
            retention.applied(index, 1, 100);
        }
        retention.flushed(401, 0);
        let cut = retention.purge(40).unwrap();
        assert!((190..=205).contains(&cut), "20,000 bytes of 100 each are kept: {cut}");
        assert_eq!(retention.purge(u64::MAX), Some(400));
    }

    #[test]
    fn many_bytes_ask_for_a_flush_at_once_and_many_commands_not_too_often() {
        let mut retention = retention(10, 1);
        retention.applied(12, 10, 10);
        assert!(!retention.begin_flush(9) && retention.begin_flush(10));
        retention.flushed(12, 10);
        retention.applied(13, 1, 1001);
        assert!(retention.begin_flush(11));
    }

    #[test]
    fn a_store_that_flushed_by_itself_counts() {
        let mut retention = retention(10, 1);
        retention.applied(12, 10, 10);
        retention.flushed(12, 0);
        assert!(!retention.begin_flush(100));
    }
}

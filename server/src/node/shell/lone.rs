//! Lone writes: when the replica's task syncs the log itself.
//!
//! A write that nobody shares the disk with spends more time in being handed to the log's thread and back than in a
//! quick disk's sync: two threads have to be woken, each on an idle processor. While a member that decides alone gets
//! one write at a time, its task therefore writes and syncs in place. Others on the same runtime wait for such a sync,
//! which is why it has to be a quick one: after a slow one, the thread does it again for a long time.

use std::time::Duration;

/// Lone writes in a row after which the next one is synced in place.
const STREAK_MIN: i32 = 8;
/// A sync that takes longer is a slow one.
const QUICK_MAX: Duration = Duration::from_millis(1);
/// Lone writes that go to the thread after a slow sync.
const PENALTY: i32 = 1024;

/// Counts lone writes.
#[derive(Debug, Default)]
pub(super) struct LoneWrites {
    streak: i32,
}

impl LoneWrites {
    /// Notes a write, which is a lone one or not; whether it is to be synced in place.
    pub(super) fn permits(&mut self, lone: bool) -> bool {
        self.streak = if lone { (self.streak + 1).min(STREAK_MIN) } else { self.streak.min(0) };
        self.streak >= STREAK_MIN
    }

    /// Notes how long a sync in place took.
    pub(super) fn took(&mut self, duration: Duration) {
        if duration > QUICK_MAX {
            self.streak = -PENALTY;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_row_of_lone_writes_is_synced_in_place() {
        let mut lone = LoneWrites::default();
        let rest = (1..STREAK_MIN).filter(|_| lone.permits(true)).count();
        assert_eq!(rest, 0);
        assert!(lone.permits(true) && lone.permits(true));
        assert!(!lone.permits(false) && !lone.permits(true), "company ends the row");
    }

    #[test]
    fn a_slow_sync_sends_writes_to_the_thread_for_long() {
        let mut lone = LoneWrites::default();
        while !lone.permits(true) {}
        lone.took(QUICK_MAX);
        assert!(lone.permits(true), "this one was quick");
        lone.took(QUICK_MAX * 2);
        assert!(!lone.permits(false), "company does not shorten the penalty");
        let waited = (0..2 * PENALTY).take_while(|_| !lone.permits(true)).count();
        assert_eq!(waited as i32, PENALTY + STREAK_MIN - 1);
    }
}

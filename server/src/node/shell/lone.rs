//! Lone writes: when the replica's task syncs the log itself.
//!
//! A write that nobody shares the disk with spends more time in being handed to the log's thread and back than in a
//! quick disk's sync: two threads have to be woken, each on an idle processor. While a member gets one small write at a
//! time and has nothing else to do until it is synced, its task therefore writes and syncs in place. So it is for a member that
//! decides alone, and for a follower, which the leader waits for. Others on the same runtime wait for such a sync, which is why the
//! disk has to be a quick one: when it is not, the thread does it again for a long time. That a single sync took long says
//! little about the disk: the processors may have had other work.

use std::time::Duration;

/// Lone writes in a row after which the next one is synced in place.
const STREAK_MIN: i32 = 8;
/// A sync that takes longer is a slow one.
const QUICK_MAX: Duration = Duration::from_millis(1);
/// So many slow syncs without a quick one between them are a slow disk's.
const SLOW_MAX: u32 = 8;
/// One sync that takes longer is enough to tell that the disk is not to be waited for.
const STALL: Duration = Duration::from_millis(50);
/// Lone writes that go to the thread when the disk is slow.
const PENALTY: i32 = 1024;

/// Counts lone writes.
#[derive(Debug, Default)]
pub(super) struct LoneWrites {
    streak: i32,
    slow: u32,
}

impl LoneWrites {
    /// Notes a write, which is a lone one or not; whether it is to be synced in place.
    pub(super) fn permits(&mut self, lone: bool) -> bool {
        self.streak = if lone { (self.streak + 1).min(STREAK_MIN) } else { self.streak.min(0) };
        self.streak >= STREAK_MIN
    }

    /// Notes how long a sync in place took.
    pub(super) fn took(&mut self, duration: Duration) {
        self.slow = if duration > QUICK_MAX { self.slow + 1 } else { 0 };
        if self.slow >= SLOW_MAX || duration > STALL {
            self.streak = -PENALTY;
            self.slow = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permitted() -> LoneWrites {
        let mut lone = LoneWrites::default();
        while !lone.permits(true) {}
        lone
    }

    /// Lone writes that go to the thread from here on.
    fn waited(lone: &mut LoneWrites) -> usize {
        (0..2 * PENALTY).take_while(|_| !lone.permits(true)).count()
    }

    #[test]
    fn only_a_row_of_lone_writes_is_synced_in_place() {
        let mut lone = LoneWrites::default();
        assert_eq!(waited(&mut lone) as i32, STREAK_MIN - 1);
        assert!(lone.permits(true) && lone.permits(true));
        assert!(!lone.permits(false) && !lone.permits(true), "company ends the row");
    }

    #[test]
    fn a_row_of_slow_syncs_sends_writes_to_the_thread_for_long() {
        let mut lone = permitted();
        for _ in 0..SLOW_MAX {
            assert!(lone.permits(true), "not slow often enough yet");
            lone.took(QUICK_MAX * 2);
        }
        assert!(!lone.permits(false), "company does not shorten the penalty");
        assert_eq!(waited(&mut lone) as i32, PENALTY + STREAK_MIN - 1);
    }

    #[test]
    fn slow_syncs_among_quick_ones_are_not_the_disk() {
        let mut lone = permitted();
        for _ in 0..10 * SLOW_MAX {
            lone.took(QUICK_MAX * 2);
            lone.took(QUICK_MAX);
        }
        assert!(lone.permits(true));
    }

    #[test]
    fn one_stall_is_enough() {
        let mut lone = permitted();
        lone.took(STALL * 2);
        assert_eq!(waited(&mut lone) as i32, PENALTY + STREAK_MIN - 1);
    }
}

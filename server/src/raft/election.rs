//! Election time-outs from a seed.
//!
//! raft-rs draws a new time-out from the thread's random generator whenever it resets itself. It cannot be told not to,
//! and does not say when it did. What can be seen from outside are the reasons: another term, role or leader, or a
//! campaign that began. So we draw at those, from our own generator, and set our value after every input, whatever
//! raft-rs drew in between.

use raft::StateRole;

/// What is seen of a member's standing.
type Seen = (u64, StateRole, u64);

/// Draws election time-outs.
pub(super) struct ElectionDice {
    state: u64,
    low: usize,
    high: usize,
    seen: Option<Seen>,
    ticks: usize,
}

impl ElectionDice {
    pub(super) fn new(seed: u64, election_ticks: usize) -> Self {
        Self { state: seed, low: election_ticks, high: 2 * election_ticks, seen: None, ticks: election_ticks }
    }

    /// The time-out that holds now.
    pub(super) fn ticks(&mut self, seen: Seen, campaigned: bool) -> usize {
        if campaigned || self.seen != Some(seen) {
            self.seen = Some(seen);
            self.ticks = self.low + (self.draw() % (self.high - self.low) as u64) as usize;
        }
        self.ticks
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

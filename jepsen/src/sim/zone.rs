//! Climate zones: where runs go to meet what the usual climate seldom brings.
//!
//! Some defects need several unlikely things at once, which the usual climate has too, but hardly together. A zone bends a
//! climate after it was drawn, so that the usual one stays what it is, and leaves the rest of it as it came. Each was made for
//! something that was found (`regression`).

use std::fmt;

use super::{
    chaos::Chaos,
    climate::Climate,
    clock::{MS, SECOND},
};

/// A climate zone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Zone {
    /// Nothing is bent.
    #[default]
    Usual,
    /// One member votes and others learn from it; the power often fails while it is slow to sync.
    LoneVoter,
    /// Members need snapshots all the time, sync them slowly, lose their leaders meanwhile, and their stores ask to wait.
    CatchingUp,
    /// Leadership moves all the time, and much of what is sent takes long.
    Restless,
    /// One of two voters is removed again and again while others learn, and links are cut.
    Pairs,
}

impl Zone {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Usual, Self::LoneVoter, Self::CatchingUp, Self::Restless, Self::Pairs];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Usual => "usual",
            Self::LoneVoter => "lone-voter",
            Self::CatchingUp => "catching-up",
            Self::Restless => "restless",
            Self::Pairs => "pairs",
        }
    }

    /// The one with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|zone| zone.name() == name)
    }

    /// Bends a climate.
    pub(super) fn bend(self, climate: &mut Climate) {
        match self {
            Self::Usual => {}
            Self::LoneVoter => {
                (climate.voters_max, climate.learners) = (1, 1.0);
                (climate.slow_syncs, climate.disk_faults) = (0.3, 0.05);
                climate.weather.delay_max = MS;
                climate.think_max = 60 * MS;
                disturb(climate, SECOND, &[(Chaos::Membership, 2), (Chaos::Crash, 2)]);
            }
            Self::CatchingUp => {
                (climate.slow_syncs, climate.election_ticks) = (0.2, 3);
                (climate.snapshot_count, climate.catchup_commands, climate.needed_bytes_max) = (5, 0, 500);
                (climate.piece_max, climate.settle_max) = (200 * MS, 3 * SECOND);
                (climate.think_max, climate.flush_one_in) = (60 * MS, 3);
                (climate.crash_after_vote, climate.crash_installing, climate.disk_faults) = (0.0, 0.05, 0.005);
                let kinds = [(Chaos::Crash, 1), (Chaos::CrashLeader, 1), (Chaos::Mute, 4)];
                disturb(climate, SECOND, &kinds);
            }
            Self::Restless => {
                climate.weather.delay_max = MS;
                (climate.weather.stragglers, climate.weather.straggler_max) = (0.1, 6 * SECOND);
                (climate.think_max, climate.election_ticks) = (60 * MS, 3);
                disturb(climate, 300 * MS, &[(Chaos::Transfer, 8), (Chaos::CrashLeader, 1)]);
            }
            Self::Pairs => {
                (climate.voters_max, climate.learners) = (2, 1.0);
                let kinds = [
                    (Chaos::Membership, 8),
                    (Chaos::Transfer, 1),
                    (Chaos::Away, 1),
                    (Chaos::OneWay, 2),
                    (Chaos::Mute, 2),
                ];
                disturb(climate, 300 * MS, &kinds);
            }
        }
    }
}

/// Lets these disturbances happen, each so many times as often as one that is in here once, and nothing else.
fn disturb(climate: &mut Climate, at_most_after: u64, kinds: &[(Chaos, usize)]) {
    climate.chaos_max = at_most_after;
    climate.chaos = kinds.iter().flat_map(|(kind, weight)| std::iter::repeat_n(*kind, *weight)).collect();
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

//! What is drawn once for a whole run, so that runs differ in kind: some have a quiet network and many crashes, some the
//! other way around, some tiny limits everywhere.

use rand::{Rng, rngs::StdRng};

use super::{
    chaos::Chaos,
    clock::{MS, SECOND},
    network::Weather,
    zone::Zone,
};

/// See the module's text.
#[derive(Debug, Clone)]
pub(super) struct Climate {
    pub(super) weather: Weather,
    /// Microseconds of a sync, at most.
    pub(super) sync_max: u64,
    /// How often a sync takes far longer.
    pub(super) slow_syncs: f64,
    /// How often the power fails, or the disk does, during a sync.
    pub(super) disk_faults: f64,
    /// Microseconds between two disturbances, at most.
    pub(super) chaos_max: u64,
    /// What may happen, each kind as often as it is in here.
    pub(super) chaos: Vec<Chaos>,
    /// Microseconds a client thinks between two requests, at most.
    pub(super) think_max: u64,
    /// Keys that clients write to.
    pub(super) keys: u32,
    /// One store flush in so many writes comes unasked.
    pub(super) flush_one_in: u32,
    /// Bytes of entries in memory.
    pub(super) cache_bytes: usize,
    pub(super) piece_entries_max: usize,
    pub(super) writes_in_flight_max: usize,
    pub(super) snapshot_count: u64,
    pub(super) catchup_commands: u64,
    /// Bytes of log that are kept for members that are there and need them.
    pub(super) needed_bytes_max: u64,
    pub(super) snapshot_silence_ticks: u64,
    pub(super) snapshot_idle_ticks: u64,
    /// Microseconds between two pieces of a snapshot, at most.
    pub(super) piece_max: u64,
    /// Microseconds until a state that was installed forgets that it was being installed, at most.
    pub(super) settle_max: u64,
    /// How often a member crashes at each step of receiving and installing a snapshot, to come back at once.
    pub(super) crash_installing: f64,
    pub(super) segment_bytes: u64,
    /// Bytes of recent events for watchers.
    pub(super) window_bytes: usize,
    /// Milliseconds after which a lease's remaining time is recorded.
    pub(super) lease_checkpoint_ms: u64,
    /// Ticks without a leader after which members campaign, at least. With few, several do at once.
    pub(super) election_ticks: usize,
    /// Members tick at the same moments, so that several campaign at the same one.
    pub(super) in_step: bool,
    pub(super) pre_vote: bool,
    /// How often a member crashes right after it gave somebody its vote, to come back at once.
    pub(super) crash_after_vote: f64,
    /// Whether members are removed until one is left, before others are added.
    pub(super) shrinks: bool,
    /// Learners are promoted while fewer members than this vote.
    pub(super) voters_max: usize,
    /// How often a member that is added is to learn first.
    pub(super) learners: f64,
    /// Whether clients raise an alarm now and then.
    pub(super) alarms: bool,
    /// Whether the index is written to files often.
    pub(super) images: bool,
}

fn one_of<T: Copy>(random: &mut StdRng, of: &[T]) -> T {
    of[random.random_range(0..of.len())]
}

impl Climate {
    /// What a run in a zone is like.
    pub(super) fn draw(random: &mut StdRng, zone: Zone) -> Self {
        let mut climate = Self::draw_usual(random);
        zone.bend(&mut climate);
        climate
    }

    fn draw_usual(random: &mut StdRng) -> Self {
        let weather = Weather {
            loss: one_of(random, &[0.0, 0.0, 0.01, 0.05, 0.15]),
            duplicates: one_of(random, &[0.0, 0.01, 0.1]),
            delay_max: one_of(random, &[MS, 5 * MS, 40 * MS]),
            stragglers: one_of(random, &[0.0, 0.01, 0.05]),
            straggler_max: one_of(random, &[200 * MS, SECOND, 6 * SECOND]),
        };
        let mut chaos = Vec::new();
        for kind in Chaos::ALL {
            let weight = one_of(random, if kind == Chaos::Membership { &[0, 2, 6, 12] } else { &[0, 1, 1, 3] });
            chaos.extend(std::iter::repeat_n(kind, weight));
        }
        Self {
            weather,
            sync_max: one_of(random, &[500, 5 * MS, 30 * MS]),
            slow_syncs: one_of(random, &[0.0, 0.0, 0.02]),
            disk_faults: one_of(random, &[0.0, 0.002, 0.01]),
            chaos_max: one_of(random, &[SECOND, 2 * SECOND, 6 * SECOND]),
            chaos,
            think_max: one_of(random, &[60 * MS, 200 * MS, 400 * MS]),
            keys: one_of(random, &[1, 3, 8]),
            flush_one_in: one_of(random, &[3, 20, 200]),
            cache_bytes: one_of(random, &[0, 2_000, 1 << 20]),
            piece_entries_max: one_of(random, &[1, 2, 64]),
            writes_in_flight_max: one_of(random, &[1, 2, 2, 4]),
            snapshot_count: one_of(random, &[5, 20, 100]),
            catchup_commands: one_of(random, &[0, 2, 10, 50]),
            needed_bytes_max: one_of(random, &[500, 12 << 10, u64::MAX]),
            snapshot_silence_ticks: one_of(random, &[5, 20, 50]),
            snapshot_idle_ticks: one_of(random, &[10, 40, 600]),
            piece_max: one_of(random, &[5 * MS, 100 * MS, SECOND]),
            settle_max: 20 * MS,
            crash_installing: one_of(random, &[0.0, 0.05, 0.3]),
            segment_bytes: one_of(random, &[8 << 10, 16 << 10, 64 << 10]),
            window_bytes: one_of(random, &[0, 1_500, 1 << 20]),
            lease_checkpoint_ms: one_of(random, &[1_000, 3_000, 300_000]),
            election_ticks: one_of(random, &[3, 5, 10]),
            in_step: random.random(),
            pre_vote: !random.random_bool(0.2),
            crash_after_vote: one_of(random, &[0.0, 0.2, 0.7]),
            shrinks: random.random_bool(0.3),
            voters_max: usize::MAX,
            learners: 0.6,
            alarms: random.random_bool(0.3),
            images: random.random_bool(0.3),
        }
    }
}

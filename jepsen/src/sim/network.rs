//! The simulated network: messages get lost, take their time, overtake each other, arrive twice; links are cut one way or
//! both.
//!
//! Messages outlive their sender's and their receiver's crashes: one that was sent to an earlier run may reach a later
//! one. A forwarded command is never doubled: the real transport sends each once.

use std::collections::BTreeSet;

use rand::{Rng, rngs::StdRng};

use super::clock::MS;

/// How the network is in a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Weather {
    /// How often a message is lost.
    pub(super) loss: f64,
    /// How often one arrives twice.
    pub(super) duplicates: f64,
    /// Microseconds that most take, at most.
    pub(super) delay_max: u64,
    /// How often one takes far longer.
    pub(super) stragglers: f64,
    /// Microseconds that these take, at most.
    pub(super) straggler_max: u64,
}

impl Weather {
    /// Nothing goes wrong.
    pub(super) const FAIR: Self =
        Self { loss: 0.0, duplicates: 0.0, delay_max: 2 * MS, stragglers: 0.0, straggler_max: MS };
}

/// What becomes of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// The sender may notice that there is no way.
    Cut,
    Lost,
    /// It arrives after so many microseconds.
    Arrives(u64),
    /// It arrives twice.
    Twice(u64, u64),
}

#[derive(Debug)]
pub(super) struct Network {
    pub(super) weather: Weather,
    /// Cut links, by sender and receiver.
    cut: BTreeSet<(u64, u64)>,
}

impl Network {
    pub(super) fn new(weather: Weather) -> Self {
        Self { weather, cut: BTreeSet::new() }
    }

    pub(super) fn is_cut(&self, from: u64, to: u64) -> bool {
        self.cut.contains(&(from, to))
    }

    pub(super) fn cut(&mut self, from: u64, to: u64) {
        self.cut.insert((from, to));
    }

    /// Mends all links.
    pub(super) fn mend(&mut self) {
        self.cut.clear();
    }

    /// What becomes of a message that is sent now.
    pub(super) fn fate(&self, random: &mut StdRng, from: u64, to: u64) -> Fate {
        let weather = self.weather;
        if self.is_cut(from, to) {
            return Fate::Cut;
        }
        if random.random_bool(weather.loss) {
            return Fate::Lost;
        }
        let first = self.delay(random);
        if random.random_bool(weather.duplicates) {
            return Fate::Twice(first, self.delay(random));
        }
        Fate::Arrives(first)
    }

    fn delay(&self, random: &mut StdRng) -> u64 {
        let weather = self.weather;
        let slow = random.random_bool(weather.stragglers);
        random.random_range(0..if slow { weather.straggler_max } else { weather.delay_max }) + 50
    }
}

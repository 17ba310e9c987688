//! Seeds that found something. They are run in the tests for good.
//!
//! A seed stands for its history only as long as the simulation draws in the same order; what it found has a test of its
//! own beside the code that was wrong.

use super::Plan;

/// A seed, and what it found.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// Members.
    pub members: u64,
    /// Events.
    pub steps: u64,
    /// What was wrong.
    pub what: &'static str,
}

impl Found {
    /// The run that found it.
    pub fn plan(&self) -> Plan {
        Plan { seed: self.seed, members: self.members, steps: self.steps, plant: None }
    }
}

/// All of them.
pub const FOUND: &[Found] = &[];

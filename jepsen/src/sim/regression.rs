//! Seeds that found something. They are run in the tests for good.
//!
//! A seed stands for its history only as long as the simulation draws in the same order, and the product does the same
//! between two draws; so what a seed found has a test of its own beside the code that was wrong. Whoever changes what is
//! drawn looks for new seeds with the defect put back.

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
pub const FOUND: &[Found] = &[
    Found {
        seed: 4,
        members: 3,
        steps: 8_000,
        what: "entries were put into an empty message that waited, whether they followed or not",
    },
    Found {
        seed: 145,
        members: 1,
        steps: 8_000,
        what: "an election between the installation of a snapshot and the sync of the log's reset ended the process",
    },
    Found {
        seed: 6,
        members: 3,
        steps: 8_000,
        what: "a leader that removed itself went on counting, which ended the process",
    },
];

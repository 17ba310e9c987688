//! Seeds that found something. They are run in the tests for good.
//!
//! A seed stands for its history only as long as the simulation draws in the same order, and the product does the same
//! between two draws; so what a seed found has a test of its own beside the code that was wrong. Whoever changes what is
//! drawn looks for new seeds with the defect put back. Each of these was seen to fail with its mend undone, and with nothing else
//! changed.

use super::{Plan, Zone};

/// A seed, and what it found.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    /// The seed.
    pub seed: u64,
    /// Members.
    pub members: u64,
    /// Events.
    pub steps: u64,
    /// Where it went.
    pub zone: Zone,
    /// What was wrong.
    pub what: &'static str,
    /// What it fails without.
    pub mend: &'static str,
}

impl Found {
    /// The run that found it.
    pub fn plan(&self) -> Plan {
        let Self { seed, members, steps, zone, .. } = *self;
        Plan { seed, members, steps, zone, plant: None, ungated: true }
    }
}

/// All of them.
pub const FOUND: &[Found] = &[
    Found {
        seed: 16,
        members: 3,
        steps: 8_000,
        zone: Zone::Usual,
        what: "entries were put into an empty message that waited, whether they followed or not",
        mend: "batching is off, `raft/options.rs`",
    },
    Found {
        seed: 200,
        members: 5,
        steps: 8_000,
        zone: Zone::Usual,
        what: "a leader that removed itself went on counting, which ended the process",
        mend: "it steps down, `Group::apply_conf_change`",
    },
    Found {
        seed: 42,
        members: 1,
        steps: 8_000,
        zone: Zone::Usual,
        what: "a leader with a learner read from what it had applied, while the learner showed more",
        mend: "only a member without any other reads locally, `CoreStatus::reads_locally`",
    },
    Found {
        seed: 44,
        members: 2,
        steps: 8_000,
        zone: Zone::Usual,
        what: "who removed the other one of two forgot in a crash that this was committed, and needed its vote",
        mend: "a removal is known on the disk before anybody is told, `Group::work`",
    },
    Found {
        seed: 8,
        members: 2,
        steps: 8_000,
        zone: Zone::Usual,
        what: "who led two with its own removal in the log went before the other one knew that it was committed",
        mend: "it waits until the other one says so, `node/core/leaving.rs`",
    },
    Found {
        seed: 501_530,
        members: 3,
        steps: 8_000,
        zone: Zone::Usual,
        what: "a snapshot that was offered only after a write was synced was not asked about when its member fell silent",
        mend: "such offers are noted, too, `Core::synced`",
    },
    Found {
        seed: 3,
        members: 1,
        steps: 8_000,
        zone: Zone::LoneVoter,
        what: "a lone voter sent learners entries of a term that it had not synced, and led it again with others",
        mend: "nothing of a term is sent before it is synced, `Group::work`",
    },
    Found {
        seed: 6,
        members: 3,
        steps: 8_000,
        zone: Zone::CatchingUp,
        what: "an election before the reset of the log was synced ended the process",
        mend: "time stands still for elections until then, `Group::tick` and `Group::step`",
    },
    Found {
        seed: 76,
        members: 5,
        steps: 8_000,
        zone: Zone::CatchingUp,
        what: "a state forgot that it was being installed on account of the snapshot before it, and did not start after a crash",
        mend: "what is forgotten is named, `mark_installed`",
    },
    Found {
        seed: 1,
        members: 3,
        steps: 8_000,
        zone: Zone::Restless,
        what: "a write that was forwarded before its member led was declared lost for good, and applied later",
        mend: "only what it did not forward is, `Waiters::leadership_lost`",
    },
    Found {
        seed: 751,
        members: 2,
        steps: 8_000,
        zone: Zone::Pairs,
        what: "one of two voters went because a learner said that it was removed, which had it from that voter",
        mend: "only a voter's word counts then, `Core::may_leave`",
    },
    Found {
        seed: 20_725,
        members: 1,
        steps: 8_000,
        zone: Zone::LoneVoter,
        what: "a snapshot was gone before its offer could be sent, and nobody listened when its member said so",
        mend: "whatever was offered is noted, there or not, `Core::see_sent`",
    },
];

//! Planted bugs: defects that the simulation must notice, to prove that it would notice them in the product.
//!
//! None is in the product: here the shell around the core, its disk or its network do something that the real ones must
//! not do.

use std::fmt;

/// A planted bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// The core is told that a write is synced when it has only begun.
    SyncSkipped,
    /// A member comes back without the vote it gave in its term.
    VoteForgotten,
    /// The leader hears that followers have stored what they have only been sent.
    AcknowledgedBeforeQuorum,
    /// The answer to an earlier request for a read index is taken for the answer to a later one.
    ReadContextReused,
    /// After a restart, the last entry that was applied is taken for not applied.
    AppliedTwice,
    /// A forwarded command arrives twice.
    ForwardedTwice,
    /// A leader takes what was forwarded in another term.
    TermIgnored,
    /// A watcher that catches up is not told of the first of several revisions.
    CatchUpSkips,
    /// A member that led goes on revoking the leases whose times it knew.
    DeposedLeaderRevokes,
    /// A snapshot lacks something.
    SnapshotIncomplete,
    /// A snapshot says that it holds an entry more than it does.
    SnapshotMislabelled,
    /// With a snapshot, raft is told of the membership before it.
    SnapshotMembershipIgnored,
    /// A state that is being installed does not say so.
    InstallNotMarked,
    /// The log is reset to a snapshot before that has taken the state's place.
    ResetBeforeSwitch,
    /// The log is not reset when a snapshot has taken the state's place.
    LogNotReset,
    /// The watch hub is not told that a snapshot has taken the state's place.
    JumpUnseen,
    /// A member comes back without knowing what was committed, beyond what it has applied.
    CommitForgotten,
    /// A member serves clients from its start on.
    ServesAtOnce,
}

impl Plant {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::SyncSkipped,
        Self::VoteForgotten,
        Self::AcknowledgedBeforeQuorum,
        Self::ReadContextReused,
        Self::AppliedTwice,
        Self::ForwardedTwice,
        Self::TermIgnored,
        Self::CatchUpSkips,
        Self::DeposedLeaderRevokes,
        Self::SnapshotIncomplete,
        Self::SnapshotMislabelled,
        Self::SnapshotMembershipIgnored,
        Self::InstallNotMarked,
        Self::ResetBeforeSwitch,
        Self::LogNotReset,
        Self::JumpUnseen,
        Self::CommitForgotten,
        Self::ServesAtOnce,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SyncSkipped => "sync-skipped",
            Self::VoteForgotten => "vote-forgotten",
            Self::AcknowledgedBeforeQuorum => "acknowledged-before-quorum",
            Self::ReadContextReused => "read-context-reused",
            Self::AppliedTwice => "applied-twice",
            Self::ForwardedTwice => "forwarded-twice",
            Self::TermIgnored => "term-ignored",
            Self::CatchUpSkips => "catch-up-skips",
            Self::DeposedLeaderRevokes => "deposed-leader-revokes",
            Self::SnapshotIncomplete => "snapshot-incomplete",
            Self::SnapshotMislabelled => "snapshot-mislabelled",
            Self::SnapshotMembershipIgnored => "snapshot-membership-ignored",
            Self::InstallNotMarked => "install-not-marked",
            Self::ResetBeforeSwitch => "reset-before-switch",
            Self::LogNotReset => "log-not-reset",
            Self::JumpUnseen => "jump-unseen",
            Self::CommitForgotten => "commit-forgotten",
            Self::ServesAtOnce => "serves-at-once",
        }
    }

    /// The one with a name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|plant| plant.name() == name)
    }
}

impl fmt::Display for Plant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

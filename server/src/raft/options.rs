//! What can be chosen about consensus, and the values raft-rs would otherwise leave unbounded.

/// Bytes of entries in one append message to a follower.
const MESSAGE_BYTES_MAX: u64 = 1 << 20;
/// Append messages on their way to one follower.
const MESSAGES_IN_FLIGHT_MAX: usize = 256;
/// Bytes of committed entries raft-rs names at once. They are named without their data, so this is a bound on the list,
/// not on memory.
const COMMITTED_BYTES_MAX: u64 = 16 << 20;

/// Options of a [`Group`](super::Group).
#[derive(Debug, Clone)]
pub struct RaftOptions {
    /// This member, not 0.
    pub member: u64,
    /// Ticks between a leader's heartbeats.
    pub heartbeat_ticks: usize,
    /// Ticks without a leader before a follower campaigns; the actual number is drawn between this and twice this.
    pub election_ticks: usize,
    /// Whether a member asks if it could win before it campaigns, so that one that comes back disturbs nobody.
    pub pre_vote: bool,
    /// Where the draws of election time-outs come from: the same seed and the same inputs give the same history.
    pub seed: u64,
    /// Bytes of entries kept in memory. Entries that are not applied are kept whatever this says.
    pub cache_bytes: usize,
}

impl RaftOptions {
    /// Bytes of entries kept in memory unless told otherwise.
    pub const CACHE_BYTES: usize = 32 << 20;

    /// The usual options: a heartbeat each tick, an election after ten.
    pub fn new(member: u64, seed: u64) -> Self {
        Self { member, heartbeat_ticks: 1, election_ticks: 10, pre_vote: true, seed, cache_bytes: Self::CACHE_BYTES }
    }

    /// As raft-rs wants them. Its own defaults for sizes are traps: one entry a message, everything else without limit.
    pub(super) fn to_raft(&self, applied: u64) -> raft::Config {
        raft::Config {
            id: self.member,
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            max_size_per_msg: MESSAGE_BYTES_MAX,
            max_inflight_msgs: MESSAGES_IN_FLIGHT_MAX,
            check_quorum: true,
            pre_vote: self.pre_vote,
            read_only_option: raft::ReadOnlyOption::Safe,
            // Followers serve reads and watches: they should learn of a commit as soon as it happens.
            skip_bcast_commit: false,
            // It would put entries into a message that already waits for the same follower, and raft-rs 0.7 does not look
            // whether they follow what an empty one asks about: the follower would acknowledge more than it has. The core
            // packs commands into entries before, so there is little to be put together anyway.
            batch_append: false,
            // The core stops proposing while too much is not applied, which also covers what is not committed.
            max_uncommitted_size: raft::NO_LIMIT,
            max_committed_size_per_ready: COMMITTED_BYTES_MAX,
            ..raft::Config::default()
        }
    }
}

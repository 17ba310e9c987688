//! What a core may do, and how much of it at once.

use std::time::Duration;

use super::RetentionOptions;
use crate::{lease::CHECKPOINT_INTERVAL, raft::RaftOptions};

/// Options of a [`Core`](super::Core).
#[derive(Debug, Clone)]
pub struct CoreOptions {
    /// Consensus.
    pub raft: RaftOptions,
    /// Drawn at random at each start, so that request ids and read contexts of two runs never meet.
    pub nonce: u64,
    /// Ticks after which a request is told that it took too long.
    pub request_ticks: u64,
    /// Ticks after which a read index that got no answer is asked for again.
    pub read_retry_ticks: u64,
    /// Writes to the log that may be unsynced before further commands wait in the queue.
    pub writes_in_flight_max: usize,
    /// Bytes of commands in one write, give or take one entry.
    pub write_bytes_max: usize,
    /// Commands that may wait in the queue.
    pub queue_commands_max: usize,
    /// Bytes of commands that may wait in the queue.
    pub queue_bytes_max: usize,
    /// Reads that may wait.
    pub reads_max: usize,
    /// Bytes of entries that are not applied before no more are proposed; at twice this, no more are taken from a
    /// leader.
    pub unapplied_bytes_max: usize,
    /// Bytes of entries applied in one piece, or one entry: a few thousand small commands, so some milliseconds.
    pub piece_bytes_max: usize,
    /// Entries applied in one piece.
    pub piece_entries_max: usize,
    /// What of the log is kept.
    pub retention: RetentionOptions,
    /// Time without a renewal after which the remaining time of a lease is recorded.
    pub lease_checkpoint: Duration,
    /// Ticks after which a member that does not fetch the snapshot that it was offered counts as one that cannot.
    pub snapshot_silence_ticks: u64,
    /// Ticks after which a snapshot that nobody is sent is let go of.
    pub snapshot_idle_ticks: u64,
}

impl CoreOptions {
    /// The usual limits.
    pub fn new(raft: RaftOptions, nonce: u64) -> Self {
        Self {
            raft,
            nonce,
            request_ticks: 70,
            read_retry_ticks: 5,
            writes_in_flight_max: 2,
            write_bytes_max: 4 << 20,
            queue_commands_max: 32 << 10,
            queue_bytes_max: 64 << 20,
            reads_max: 64 << 10,
            unapplied_bytes_max: 64 << 20,
            piece_bytes_max: 128 << 10,
            piece_entries_max: 128,
            retention: RetentionOptions::default(),
            lease_checkpoint: CHECKPOINT_INTERVAL,
            snapshot_silence_ticks: 50,
            snapshot_idle_ticks: 600,
        }
    }
}

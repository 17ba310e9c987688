//! What a core asks its caller to do, and how it is doing.

use raft::eraftpb::Message;

use super::{Drops, Forward, RefusedForward};
use crate::{
    log::EntryId,
    node::{ProposeError, ReadIndexError},
    raft::{Fetch, InFlight, Offer, Standing},
    state::{Answer, LeaseChange},
};

/// What is to be done. The caller takes it after each call of [`Core::advance`](super::Core::advance) and [`Core::apply`](super::Core::apply).
#[derive(Debug)]
pub struct Outputs<W, R> {
    /// To be written to the log in this order and synced; then [`Core::synced`](super::Core::synced).
    pub writes: Vec<InFlight>,
    /// To be sent to their members. They may get lost.
    pub messages: Vec<Message>,
    /// Commands for the leader to propose. They may get lost once they are sent; of one that cannot be sent
    /// [`Core::unsent`](super::Core::unsent) is to hear, of one that goes to a member of an earlier build
    /// [`Core::sent_loosely`](super::Core::sent_loosely).
    pub forwards: Vec<Forward>,
    /// Commands of other members that are not proposed, for those to hear. This may get lost.
    pub refusals: Vec<(u64, RefusedForward)>,
    /// Entries to be read from the log; then [`Core::fetched`](super::Core::fetched).
    pub fetches: Vec<Fetch>,
    /// Results of proposals.
    pub answers: Vec<(W, Result<Answer, ProposeError>)>,
    /// Reads that may go ahead, or may not.
    pub reads: Vec<(R, Result<(), ReadIndexError>)>,
    /// The store is to be flushed; then [`Core::flushed`](super::Core::flushed).
    pub flush: bool,
    /// The log may be cut up to and with this index.
    pub purge: Option<u64>,
    /// What happened to leases.
    pub lease_changes: Vec<LeaseChange>,
    /// A snapshot of the store is to be made; then [`Core::checkpointed`](super::Core::checkpointed).
    pub checkpoint: bool,
    /// Snapshots whose files nobody needs any more.
    pub discard: Vec<u64>,
    /// A snapshot is to be fetched from another member; then [`Core::received`](super::Core::received).
    pub receive: Option<Offer>,
    /// The member that is to hear that the snapshot of this number, which it had offered, did not come: it then offers one
    /// again. This may get lost.
    pub snapshot_failed: Option<(u64, u64)>,
    /// The received snapshot of this number is to take the state's place; then [`Core::installed`](super::Core::installed).
    pub install: Option<u64>,
    /// The received snapshot of this number is of no use.
    pub abandon: Option<u64>,
    /// The log goes on from the snapshot that was installed up to this entry: the state need not say any more that it was
    /// being installed.
    pub settled: Option<EntryId>,
}

impl<W, R> Default for Outputs<W, R> {
    fn default() -> Self {
        Self {
            writes: Vec::new(),
            messages: Vec::new(),
            forwards: Vec::new(),
            refusals: Vec::new(),
            fetches: Vec::new(),
            answers: Vec::new(),
            reads: Vec::new(),
            flush: false,
            purge: None,
            lease_changes: Vec::new(),
            checkpoint: false,
            discard: Vec::new(),
            receive: None,
            snapshot_failed: None,
            install: None,
            abandon: None,
            settled: None,
        }
    }
}

/// How a replica is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoreStatus {
    /// Term, role and leader.
    pub standing: Standing,
    /// The last entry known to be committed.
    pub committed: u64,
    /// The last entry applied.
    pub applied: u64,
    /// Whether this member has no vote.
    pub learner: bool,
    /// Whether the log has no entry yet, and never had one.
    pub blank: bool,
    /// Whether reads here are linearizable without asking anybody: this member has applied an entry of its own term, and
    /// there is no other, and was none, that could have shown what is not applied here yet.
    pub reads_locally: bool,
    /// Proposals without a result.
    pub pending: usize,
    /// Proposals that ended without a result so far.
    pub proposals_failed: u64,
    /// Leaders this member has seen so far.
    pub leader_changes: u64,
    /// How often leadership was given away because the disk did not finish a write.
    pub disk_stalls: u64,
    /// Read indexes that were asked for again so far.
    pub slow_reads: u64,
    /// Reads that were not confirmed in time so far.
    pub failed_reads: u64,
    /// What of other members was dropped so far.
    pub drops: Drops,
    /// Whether clients may be served: the member shows nothing older than what it has shown in an earlier run.
    pub serves: bool,
}

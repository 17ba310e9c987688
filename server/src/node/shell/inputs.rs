//! What the replica's task is told.

use bytes::Bytes;
use raft::eraftpb::{Entry, Message};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::delivery::Waiter;
use crate::{
    node::{NodeError, ProposeError, ReadIndexError, core::RefusedForward, snapshot::Received},
    raft::SnapshotMeta,
    state::{Answer, MemberChange},
};

/// Where a proposal's result goes.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) result: Waiter<Result<Answer, ProposeError>>,
    /// What the proposal takes of the budget.
    pub(super) bytes: usize,
}

/// Where a reader's leave goes.
pub(super) type ReadLeave = Waiter<Result<(), ReadIndexError>>;

/// What the replica task is told.
#[derive(Debug)]
pub(super) enum Input {
    Propose {
        counter: u64,
        command: Bytes,
        writer: Writer,
        /// It is the publication of the member's own name and URLs.
        publishes: bool,
    },
    Read(ReadLeave),
    /// A message of another member, and its room in what may wait.
    Message(Message, OwnedSemaphorePermit),
    /// A command that another member forwarded in a term, and its room in what may wait.
    Forwarded(u64, Bytes, OwnedSemaphorePermit),
    /// Commands that this member had forwarded and that the leader does not propose.
    ForwardsRefused(Vec<RefusedForward>, OwnedSemaphorePermit),
    /// A membership change, to be checked and proposed if this member leads.
    Change {
        counter: u64,
        change: MemberChange,
        writer: Writer,
    },
    /// Leadership is to be handed over.
    Transfer(u64),
    /// Another member, this one, says that this one was removed from the cluster.
    Removed(u64),
    Synced(u64),
    Purged {
        size_bytes: u64,
    },
    Fetched {
        id: u64,
        entries: Vec<Entry>,
    },
    Flushed(u64),
    /// A snapshot was made, or could not be made.
    Checkpointed(Option<SnapshotMeta>),
    /// A member fetches a snapshot.
    Heard {
        member: u64,
        id: u64,
    },
    /// A member says that it could not take the snapshot that it was offered.
    Unfetched {
        member: u64,
        id: u64,
    },
    /// A snapshot was fetched, or could not be.
    Received {
        id: u64,
        received: Option<Box<Received>>,
    },
    /// A snapshot has taken the state's place.
    Switched(Box<Received>),
    Failed(NodeError),
    Stop,
}

/// How the threads tell the replica task what they did. It does not keep the task alive: without handles the task ends.
#[derive(Debug, Clone)]
pub(super) struct Reports(mpsc::WeakUnboundedSender<Input>);

impl Reports {
    pub(super) fn new(inbox: &mpsc::UnboundedSender<Input>) -> Self {
        Self(inbox.downgrade())
    }

    /// Tells the task. If it has ended, nobody wants to know.
    pub(super) fn send(&self, input: Input) {
        if let Some(inbox) = self.0.upgrade() {
            let _ = inbox.send(input);
        }
    }
}

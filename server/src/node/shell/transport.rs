//! What carries messages to the other members, as the replica's task sees it.

use std::time::Duration;

use bytes::Bytes;
use raft::eraftpb::Message;

use crate::{
    node::core::RefusedForward,
    raft::{Offer, Refused},
    state::Members,
};

/// Carries messages to the other members. Called on the replica's task: nothing here may wait.
pub trait Transport: Send + Sync {
    /// Takes a message for the member that it names. `false`: it is lost, because there is no connection or too much
    /// waits for it already. A message that was taken may still get lost.
    fn send(&self, message: Message) -> bool;

    /// Takes an encoded command for the member `to` to propose in `term`.
    fn forward(&self, to: u64, term: u64, command: &Bytes) -> Sent;

    /// Tells the member `to` that a command that it had forwarded is not proposed. This may get lost.
    fn refuse_forward(&self, to: u64, refused: RefusedForward);

    /// Notes that a message of another member was refused. There may be many.
    fn refused(&self, why: &Refused);

    /// Notes who the members are now.
    fn members_changed(&self, members: &Members);

    /// For how long there has been a connection to `member` without an interruption; `None` if there is none.
    fn connected_for(&self, member: u64) -> Option<Duration>;

    /// Begins to fetch a snapshot that another member offers. Whatever comes of it, the node is told by
    /// [`PeerInbox::take_snapshot`](super::PeerInbox::take_snapshot) or
    /// [`PeerInbox::snapshot_failed`](super::PeerInbox::snapshot_failed). There is one at a time.
    fn fetch_snapshot(&self, offer: Offer);

    /// Tells the member `to` that snapshot `id`, which it has offered, did not come. This may get lost.
    fn snapshot_failed(&self, to: u64, id: u64);
}

/// What becomes of a command that is to be sent to another member. One that is sent may still get lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// It goes to a member that proposes it in its term or not at all.
    Bound,
    /// It goes to a member of an earlier build, which may propose it in every term.
    Loose,
    /// It is not sent, because there is no connection or too much waits for it already.
    Unsent,
}

/// The transport of a member that has no others.
#[derive(Debug, Clone, Copy)]
pub struct Alone;

impl Transport for Alone {
    fn send(&self, _: Message) -> bool {
        false
    }

    fn forward(&self, _: u64, _: u64, _: &Bytes) -> Sent {
        Sent::Unsent
    }

    fn refuse_forward(&self, _: u64, _: RefusedForward) {}

    fn refused(&self, _: &Refused) {}

    fn members_changed(&self, _: &Members) {}

    fn connected_for(&self, _: u64) -> Option<Duration> {
        None
    }

    fn fetch_snapshot(&self, _: Offer) {}

    fn snapshot_failed(&self, _: u64, _: u64) {}
}

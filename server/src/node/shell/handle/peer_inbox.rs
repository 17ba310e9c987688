//! What other members tell this one.

use std::sync::Arc;

use bytes::Bytes;
use raft::eraftpb::Message;
use tokio::sync::OwnedSemaphorePermit;

use super::PeerInbox;
use crate::{
    node::{
        core::RefusedForward,
        shell::{inputs::Input, shared::PEER_KIB_MAX},
        snapshot::{Held, Incoming, Reading, SnapshotError},
    },
    raft::Offer,
};

impl PeerInbox {
    /// Takes a message of another member, which had `bytes`. Waits while too much of other members waits already.
    pub async fn step(&self, message: Message, bytes: usize) {
        if let Some(room) = self.peer_room(bytes).await {
            // If the task has ended there is nobody to take it.
            let _ = self.inbox().send(Input::Message(message, room));
        }
    }

    /// Takes an encoded command that another member forwarded, to be proposed if this member leads in `term`, or leads
    /// at all if that is [`ANY_TERM`](crate::node::core::ANY_TERM). Waits like [`step`](Self::step).
    pub async fn forwarded(&self, term: u64, command: Bytes) {
        if let Some(room) = self.peer_room(command.len()).await {
            // If the task has ended there is nobody to take it.
            let _ = self.inbox().send(Input::Forwarded(term, command, room));
        }
    }

    /// Hears that the leader does not propose commands that this member had forwarded. Waits like [`step`](Self::step).
    pub async fn forwards_refused(&self, refused: Vec<RefusedForward>) {
        if let Some(room) = self.peer_room(size_of_val(&refused[..])).await {
            // If the task has ended there is nothing to forward anew.
            let _ = self.inbox().send(Input::ForwardsRefused(refused, room));
        }
    }

    async fn peer_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(PEER_KIB_MAX);
        // The semaphore is never closed.
        Arc::clone(&self.shared().peer_room).acquire_many_owned(kib).await.ok()
    }

    /// Notes that another member, `by`, says that this one was removed from the cluster.
    pub fn removed(&self, by: u64) {
        // If the task has ended there is nothing left to end.
        let _ = self.inbox().send(Input::Removed(by));
    }

    /// Begins to read snapshot `id` for another member, which has some of it already; `None` if there is no such snapshot.
    pub fn read_snapshot(&self, id: u64, held: &[Held]) -> Option<Reading> {
        self.shared().outgoing.read(id, held)
    }

    /// Notes that a member is at fetching or installing snapshot `id`.
    pub fn snapshot_heard(&self, member: u64, id: u64) {
        // If the task has ended there is nobody who would miss it.
        let _ = self.inbox().send(Input::Heard { member, id });
    }

    /// Notes that a member says that it could not take snapshot `id`.
    pub fn snapshot_unfetched(&self, member: u64, id: u64) {
        // If the task has ended there is nobody who would offer it again.
        let _ = self.inbox().send(Input::Unfetched { member, id });
    }

    /// Begins to receive a snapshot, or goes on with what is there of it. Waits for the disk.
    pub fn begin_snapshot(&self, offer: Offer) -> Result<Incoming, SnapshotError> {
        self.shared().installer.begin(offer)
    }

    /// Makes a state of a snapshot that was received, and hands it to the replica. Waits for the disk, and takes its time.
    pub fn take_snapshot(&self, incoming: Incoming) -> Result<(), SnapshotError> {
        let id = incoming.offer().id;
        let received = Some(Box::new(self.shared().installer.open(incoming)?));
        // If the task has ended, the next start removes it.
        let _ = self.inbox().send(Input::Received { id, received });
        Ok(())
    }

    /// Notes that snapshot `id` could not be received.
    pub fn snapshot_failed(&self, id: u64) {
        // If the task has ended there is nobody who waits for it.
        let _ = self.inbox().send(Input::Received { id, received: None });
    }
}

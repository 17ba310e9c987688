//! Changing who belongs to the cluster, and who leads it.

use std::sync::atomic::Ordering;

use super::Membership;
use crate::{
    node::{
        ProposeError,
        shell::inputs::{Input, Writer},
    },
    state::MemberChange,
};

impl Membership {
    /// Changes the membership, as leader: checks that the change is allowed, proposes it and waits until it is applied.
    pub async fn change_members(&self, change: MemberChange) -> Result<(), ProposeError> {
        let shared = self.shared();
        let counter = shared.counter.fetch_add(1, Ordering::Relaxed) + 1;
        if !shared.budget.take(0) {
            shared.metrics.requests_refused.inc();
            return Err(ProposeError::TooManyRequests);
        }
        let (result, answer) = self.shared().deliveries.wait();
        let writer = Writer { result, bytes: 0 };
        if self.inbox().send(Input::Change { counter, change, writer }).is_err() {
            return Err(ProposeError::Stopped);
        }
        let answer = answer.await.unwrap_or(Err(ProposeError::Stopped))?;
        answer.outcome.map(drop).map_err(ProposeError::Refused)
    }

    /// Begins to hand leadership over to another voter, if this member leads. Whether it succeeds shows in
    /// [`leader_seen`](super::ReplicaView::leader_seen).
    pub fn transfer_leader(&self, to: u64) {
        // If the task has ended it leads no more.
        let _ = self.inbox().send(Input::Transfer(to));
    }
}

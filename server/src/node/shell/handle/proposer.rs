//! Putting requests through the log.

use std::{sync::atomic::Ordering, time::Instant};

use super::Proposer;
use crate::{
    node::{
        ProposeError,
        shell::inputs::{Input, Writer},
    },
    state::{
        Answer,
        auth::{Authorizer, Permit},
        command::{self, Command, Request, RequestId, may_be_proposed},
    },
};

impl Proposer {
    /// Decides what principals may do.
    pub fn authorizer(&self) -> &Authorizer {
        &self.0.0.authorizer
    }

    /// Puts a permitted and validated request through the log and gives its result. Ends at the latest after the request
    /// time-out.
    ///
    /// ```
    /// # use cairn_server::{node::Proposer, state::{auth::Permit, command::Request}};
    /// async fn checked(node: &Proposer, permit: Permit, request: Request) {
    ///     let _ = node.propose(permit, request).await;
    /// }
    /// ```
    /// Without a permit it does not compile:
    ///
    /// ```compile_fail,E0061
    /// # use cairn_server::{node::Proposer, state::command::Request};
    /// async fn unchecked(node: &Proposer, request: Request) {
    ///     let _ = node.propose(request).await;
    /// }
    /// ```
    pub async fn propose(&self, permit: Permit, request: Request) -> Result<Answer, ProposeError> {
        self.propose_for(permit, request, false).await
    }

    /// Proposes a request of the member itself.
    pub async fn propose_own(&self, request: Request) -> Result<Answer, ProposeError> {
        self.propose(self.authorizer().own(), request).await
    }

    /// Publishes the member's name and client URLs to the cluster. The member [serves](super::ReplicaView::serves) once this
    /// is applied.
    pub async fn publish(&self, name: String, client_urls: Vec<String>) -> Result<Answer, ProposeError> {
        let request = Request::PublishMember { member: self.shared().identity.member, name, client_urls };
        self.propose_for(self.authorizer().own(), request, true).await
    }

    async fn propose_for(&self, permit: Permit, request: Request, publishes: bool) -> Result<Answer, ProposeError> {
        let (shared, level) = (self.shared(), self.command_level());
        may_be_proposed(request.since(), level).map_err(ProposeError::Refused)?;
        let (kind, began) = (request.kind(), Instant::now());
        let counter = shared.counter.fetch_add(1, Ordering::Relaxed) + 1;
        let id = RequestId { member: shared.identity.member, nonce: shared.nonce, counter };
        let command = command::encode(&Command { id, actor: permit.into_actor(), request }, level);
        let bytes = command.len();
        if !shared.budget.take(bytes) {
            shared.metrics.requests_refused.inc();
            return Err(ProposeError::TooManyRequests);
        }
        let (result, answer) = self.shared().deliveries.wait();
        let writer = Writer { result, bytes };
        if self.inbox().send(Input::Propose { counter, command, writer, publishes }).is_err() {
            return Err(ProposeError::Stopped);
        }
        let answer = answer.await.unwrap_or(Err(ProposeError::Stopped));
        shared.metrics.requested(kind, answer.is_ok(), began);
        answer
    }
}

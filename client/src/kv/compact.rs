//! Giving up history.

use cairn_proto::etcdserverpb as pb;

use super::sent_when_awaited;

/// Gives up the history below a revision.
#[derive(Debug, Clone)]
#[must_use = "a request is sent when it is awaited"]
pub struct Compact<S> {
    sender: S,
    request: pb::CompactionRequest,
}

impl<S> Compact<S> {
    pub(super) fn of(sender: S, revision: i64) -> Self {
        Self { sender, request: pb::CompactionRequest { revision, physical: false } }
    }

    /// Answers only when superseded keys are physically gone from the member asked. May take long; mind the time-out.
    pub fn physical(mut self) -> Self {
        self.request.physical = true;
        self
    }

    /// The request as it would be sent.
    pub fn into_request(self) -> pb::CompactionRequest {
        self.request
    }
}

sent_when_awaited!(Compact => pb::CompactionResponse);

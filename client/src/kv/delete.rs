//! Deleting keys.

use cairn_proto::etcdserverpb as pb;

use super::sent_when_awaited;
use crate::key::KeyRange;

/// Deletes a key or a range of keys.
#[derive(Debug, Clone)]
#[must_use = "a request is sent when it is awaited, or is an operation of a transaction"]
pub struct Delete<S = ()> {
    sender: S,
    request: pb::DeleteRangeRequest,
}

impl Delete {
    /// A delete to be an operation of a transaction.
    pub fn new(keys: impl Into<KeyRange>) -> Self {
        Self::of((), keys.into())
    }
}

impl<S> Delete<S> {
    pub(super) fn of(sender: S, keys: KeyRange) -> Self {
        let (key, range_end) = keys.into_parts();
        Self { sender, request: pb::DeleteRangeRequest { key, range_end, ..Default::default() } }
    }

    /// Returns the deleted keys.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// The request as it would be sent.
    pub fn into_request(self) -> pb::DeleteRangeRequest {
        self.request
    }
}

sent_when_awaited!(Delete => pb::DeleteRangeResponse);

//! Writing a key.

use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;

use super::sent_when_awaited;
use crate::key::IntoBytes;

/// Creates or overwrites a key.
#[derive(Debug, Clone)]
#[must_use = "a request is sent when it is awaited, or is an operation of a transaction"]
pub struct Put<S = ()> {
    sender: S,
    request: pb::PutRequest,
}

impl Put {
    /// A put to be an operation of a transaction.
    pub fn new(key: impl IntoBytes, value: impl IntoBytes) -> Self {
        Self::of((), key.into_bytes(), value.into_bytes())
    }
}

impl<S> Put<S> {
    pub(super) fn of(sender: S, key: Bytes, value: Bytes) -> Self {
        Self { sender, request: pb::PutRequest { key, value, ..Default::default() } }
    }

    /// Attaches the key to a lease: when the lease ends, the key is deleted.
    pub fn lease(mut self, lease: i64) -> Self {
        self.request.lease = lease;
        self
    }

    /// Returns the key as it was before.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// Keeps the present value. The key must exist, and the value given must be empty.
    pub fn ignore_value(mut self) -> Self {
        self.request.ignore_value = true;
        self
    }

    /// Keeps the present lease. The key must exist, and no lease may be given.
    pub fn ignore_lease(mut self) -> Self {
        self.request.ignore_lease = true;
        self
    }

    /// The request as it would be sent.
    pub fn into_request(self) -> pb::PutRequest {
        self.request
    }
}

sent_when_awaited!(Put => pb::PutResponse);

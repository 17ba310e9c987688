//! Looking after single members.
//!
//! These requests are about the member that answers them, so they go to one endpoint and to no other.

use std::sync::Arc;

use cairn_proto::etcdserverpb as pb;

use crate::{client::Client, endpoint::Endpoint, error::Error, peers::Peer};

/// A client of one endpoint of a [`Client`].
#[derive(Debug, Clone)]
pub struct EndpointClient {
    client: Client,
    endpoint: Endpoint,
}

impl Client {
    /// The part of this client that talks to `endpoint`; `None` if it is not one of its endpoints.
    pub fn at(&self, endpoint: &Endpoint) -> Option<EndpointClient> {
        self.each().find(|one| one.endpoint == *endpoint)
    }

    /// This client's endpoints one by one.
    pub fn each(&self) -> impl Iterator<Item = EndpointClient> {
        let one = |peer: &Arc<Peer>| EndpointClient { client: self.narrowed(peer), endpoint: peer.endpoint.clone() };
        self.peers().list().iter().map(one).collect::<Vec<_>>().into_iter()
    }

    /// The alarms of all members.
    pub async fn alarms(&self) -> Result<pb::AlarmResponse, Error> {
        self.call(pb::AlarmRequest::default()).await
    }
}

impl EndpointClient {
    /// The endpoint.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// For all other requests: a client that knows no other endpoint.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The member's state.
    pub async fn status(&self) -> Result<pb::StatusResponse, Error> {
        self.client.call(pb::StatusRequest::default()).await
    }

    /// A hash over everything the member has stored. Meant for tests: it differs between members with the same keys.
    pub async fn hash(&self) -> Result<pb::HashResponse, Error> {
        self.client.call(pb::HashRequest::default()).await
    }

    /// A hash over the member's keys up to `revision` (0: the latest), equal on members with the same history and the same
    /// compact revision.
    pub async fn hash_kv(&self, revision: i64) -> Result<pb::HashKvResponse, Error> {
        self.client.call(pb::HashKvRequest { revision }).await
    }

    /// Has the member give unused disk space back to its file system. May take long; mind the command time-out.
    pub async fn defragment(&self) -> Result<pb::DefragmentResponse, Error> {
        self.client.call(pb::DefragmentRequest::default()).await
    }
}

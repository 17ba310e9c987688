//! Talking to the server from within its process, without a socket.

use std::{io, sync::Arc};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, request_op::Request},
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
        ResignRequest, ResignResponse,
    },
    v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse},
};
use futures::{Stream, StreamExt};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::runtime;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::connection::{Endpoints, Gate, Port};
use crate::api::{Caller, Services, answer::Answer, refusal::Refusal};

/// Bytes that each direction of an in-process connection holds.
const PIPE_BYTES: usize = 256 * 1024;
/// What an in-process connection may reach.
const WITHIN: Port = Port { grpc: true, http: Some(Endpoints::All) };

/// Levels of a transaction whose answer decodes: a decoder of protobuf messages follows 100 of them, and a level takes two.
const TXN_DEPTH_MAX: usize = 48;

fn is_nested_within(txn: &pb::TxnRequest, levels: usize) -> bool {
    levels > 0
        && txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
            Some(Request::RequestTxn(nested)) => is_nested_within(nested, levels - 1),
            _ => true,
        })
}

/// Calls the server's services as functions: no connection, no frames, no copy of a value. Clones are cheap, and calls may come from any runtime.
///
/// Calls that this client does not have go through [`Server::channel`](super::Server::channel).
#[derive(Clone)]
pub struct LocalClient {
    services: Services,
    caller: Caller,
}

/// Makes the typed message of an answer.
fn message<A: Answer, M: Message + Default>(answer: &A) -> Result<M, Refusal> {
    answer.to_message().map_err(|error| Refusal::Internal(format!("a stored value does not decode: {error}").into()))
}

impl LocalClient {
    pub(super) fn new(services: Services) -> Self {
        Self { services, caller: Caller::default() }
    }

    /// Reads a range.
    pub async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Refusal> {
        message(&self.services.kv.range(&self.caller, request).await?)
    }

    /// Reads a range in pieces; merged, they are the answer of [`range`](Self::range).
    pub async fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> Result<impl Stream<Item = Result<pb::RangeStreamResponse, Refusal>> + Send + use<>, Refusal> {
        let pieces = self.services.kv.range_stream(&self.caller, request).await?;
        Ok(pieces.map(|piece| message(&piece?)))
    }

    /// Sets a key.
    pub async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Refusal> {
        message(&self.services.kv.put(&self.caller, request).await?)
    }

    /// Deletes a range.
    pub async fn delete_range(&self, request: pb::DeleteRangeRequest) -> Result<pb::DeleteRangeResponse, Refusal> {
        message(&self.services.kv.delete_range(&self.caller, request).await?)
    }

    /// Runs a transaction.
    ///
    /// At most 48 levels of transactions may be nested: the answer's generated types do not decode more.
    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Refusal> {
        if !is_nested_within(&request, TXN_DEPTH_MAX) {
            return Err(ApiError::TooManyOps.into());
        }
        message(&self.services.kv.txn(&self.caller, request).await?)
    }

    /// Drops the history below a revision.
    pub async fn compact(&self, request: pb::CompactionRequest) -> Result<pb::CompactionResponse, Refusal> {
        self.services.kv.compact(&self.caller, request).await
    }

    /// Creates a lease.
    pub async fn lease_grant(&self, request: pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Refusal> {
        self.services.lease.grant(&self.caller, request).await
    }

    /// Ends a lease and deletes its keys.
    pub async fn lease_revoke(&self, request: pb::LeaseRevokeRequest) -> Result<pb::LeaseRevokeResponse, Refusal> {
        self.services.lease.revoke(&self.caller, request).await
    }

    /// Renews leases, one for each request; the answers come in the same order. A lease that does not exist is answered with a TTL of 0.
    pub fn lease_keep_alive<S>(
        &self,
        requests: S,
    ) -> impl Stream<Item = Result<pb::LeaseKeepAliveResponse, Refusal>> + Send + use<S>
    where
        S: Stream<Item = pb::LeaseKeepAliveRequest> + Send + 'static,
    {
        self.services.lease.keep_alive(&self.caller, requests)
    }

    /// How long a lease lives, and which keys hang on it; of a lease that does not exist the TTL is -1.
    pub async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Refusal> {
        self.services.lease.time_to_live(&self.caller, request).await
    }

    /// All leases, the one that runs out first first.
    pub async fn lease_leases(&self, request: pb::LeaseLeasesRequest) -> Result<pb::LeaseLeasesResponse, Refusal> {
        self.services.lease.leases(&self.caller, request).await
    }

    /// Watches keys: requests in, what they lead to out. Ends when the answers are dropped, or the server stops.
    pub fn watch(
        &self,
        requests: impl Stream<Item = pb::WatchRequest> + Send + 'static,
    ) -> impl Stream<Item = Result<pb::WatchResponse, Refusal>> + Send + 'static {
        self.services.watch.watch(&self.caller, requests).map(|reply| message(&reply?))
    }

    /// Waits until the caller holds a lock. Dropping the call gives the place in the queue up.
    pub async fn lock(&self, request: LockRequest) -> Result<LockResponse, Refusal> {
        self.services.lock.lock(&self.caller, request).await
    }

    /// Gives a lock up.
    pub async fn unlock(&self, request: UnlockRequest) -> Result<UnlockResponse, Refusal> {
        self.services.lock.unlock(&self.caller, request).await
    }

    /// Waits until the caller leads an election. Dropping the call gives the place in the queue up.
    pub async fn campaign(&self, request: CampaignRequest) -> Result<CampaignResponse, Refusal> {
        self.services.election.campaign(&self.caller, request).await
    }

    /// Changes what the leader of an election proclaims.
    pub async fn proclaim(&self, request: ProclaimRequest) -> Result<ProclaimResponse, Refusal> {
        self.services.election.proclaim(&self.caller, request).await
    }

    /// Who leads an election.
    pub async fn leader(&self, request: LeaderRequest) -> Result<LeaderResponse, Refusal> {
        self.services.election.leader(&self.caller, request).await
    }

    /// What the leaders of an election proclaim. Ends when it is dropped, or the server stops.
    pub fn observe(
        &self,
        request: LeaderRequest,
    ) -> impl Stream<Item = Result<LeaderResponse, Refusal>> + Send + 'static {
        self.services.election.observe(&self.caller, request)
    }

    /// Gives the leadership of an election up.
    pub async fn resign(&self, request: ResignRequest) -> Result<ResignResponse, Refusal> {
        self.services.election.resign(&self.caller, request).await
    }

    /// The member's state.
    pub fn status(&self) -> Result<pb::StatusResponse, Refusal> {
        self.services.maintenance.status()
    }

    /// A hash over the keys up to a revision.
    pub async fn hash_kv(&self, request: pb::HashKvRequest) -> Result<pb::HashKvResponse, Refusal> {
        self.services.maintenance.hash_kv(request).await
    }

    /// The members of the cluster.
    pub async fn member_list(&self, request: pb::MemberListRequest) -> Result<pb::MemberListResponse, Refusal> {
        self.services.cluster.member_list(request).await
    }
}

/// A gRPC channel to `gate`, served on `runtime`. It connects when it is first used.
pub(super) fn channel(gate: Arc<Gate>, runtime: runtime::Handle) -> Channel {
    let connect = service_fn(move |_| {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        runtime.spawn(gate.clone().serve(theirs, WITHIN, true));
        async { Ok::<_, io::Error>(TokioIo::new(ours)) }
    });
    Endpoint::from_static("http://in.process").connect_with_connector_lazy(connect)
}

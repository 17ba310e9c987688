//! Talking to the server from within its process, without a socket.

use std::{io, sync::Arc, time::Duration};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, request_op::Request},
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
        ResignRequest, ResignResponse,
    },
    v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse},
};
use futures::{Stream, StreamExt, TryFutureExt};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::runtime;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::connection::{Endpoints, Gate, Port};
use crate::{
    api::{Caller, Services, answer::Answer, refusal::Refusal},
    node::NodeHandle,
};

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
///
/// While the member does not [serve](super::Server::ready) yet, calls wait: streams for as long as it takes, others for at
/// most the request time-out.
#[derive(Clone)]
pub struct LocalClient {
    services: Services,
    caller: Caller,
    request_timeout: Duration,
}

/// Makes the typed message of an answer.
fn message<A: Answer, M: Message + Default>(answer: &A) -> Result<M, Refusal> {
    answer.to_message().map_err(|error| Refusal::Internal(format!("a stored value does not decode: {error}").into()))
}

impl LocalClient {
    pub(super) fn new(services: Services, request_timeout: Duration) -> Self {
        Self { services, caller: Caller::default(), request_timeout }
    }

    /// The services, as soon as clients are served.
    async fn serving(&self) -> Result<&Services, Refusal> {
        if !self.services.node.serves() {
            let waiting = tokio::time::timeout(self.request_timeout, self.services.node.wait_to_serve());
            let served = waiting.await.map_err(|_| ApiError::Timeout)?;
            served.then_some(()).ok_or(ApiError::Stopped)?;
        }
        Ok(&self.services)
    }

    /// A stream that begins as soon as clients are served.
    fn stream_when_serving<T, S, B>(&self, begin: B) -> impl Stream<Item = Result<T, Refusal>> + Send + use<T, S, B>
    where
        B: FnOnce(&Services, &Caller) -> S + Send + 'static,
        S: Stream<Item = Result<T, Refusal>> + Send + 'static,
        T: 'static,
    {
        let (services, caller) = (self.services.clone(), self.caller.clone());
        let begun = async move {
            let serves = services.node.wait_to_serve().await;
            serves.then(|| begin(&services, &caller)).ok_or(Refusal::from(ApiError::Stopped))
        };
        begun.try_flatten_stream()
    }

    /// Reads a range.
    pub async fn range(&self, request: pb::RangeRequest) -> Result<pb::RangeResponse, Refusal> {
        message(&self.serving().await?.kv.range(&self.caller, request).await?)
    }

    /// Reads a range in pieces; merged, they are the answer of [`range`](Self::range).
    pub async fn range_stream(
        &self,
        request: pb::RangeRequest,
    ) -> Result<impl Stream<Item = Result<pb::RangeStreamResponse, Refusal>> + Send + use<>, Refusal> {
        let pieces = self.serving().await?.kv.range_stream(&self.caller, request).await?;
        Ok(pieces.map(|piece| message(&piece?)))
    }

    /// Sets a key.
    pub async fn put(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Refusal> {
        message(&self.serving().await?.kv.put(&self.caller, request).await?)
    }

    /// Deletes a range.
    pub async fn delete_range(&self, request: pb::DeleteRangeRequest) -> Result<pb::DeleteRangeResponse, Refusal> {
        message(&self.serving().await?.kv.delete_range(&self.caller, request).await?)
    }

    /// Runs a transaction.
    ///
    /// At most 48 levels of transactions may be nested: the answer's generated types do not decode more.
    pub async fn txn(&self, request: pb::TxnRequest) -> Result<pb::TxnResponse, Refusal> {
        if !is_nested_within(&request, TXN_DEPTH_MAX) {
            return Err(ApiError::TooManyOps.into());
        }
        message(&self.serving().await?.kv.txn(&self.caller, request).await?)
    }

    /// Drops the history below a revision.
    pub async fn compact(&self, request: pb::CompactionRequest) -> Result<pb::CompactionResponse, Refusal> {
        self.serving().await?.kv.compact(&self.caller, request).await
    }

    /// Creates a lease.
    pub async fn lease_grant(&self, request: pb::LeaseGrantRequest) -> Result<pb::LeaseGrantResponse, Refusal> {
        self.serving().await?.lease.grant(&self.caller, request).await
    }

    /// Ends a lease and deletes its keys.
    pub async fn lease_revoke(&self, request: pb::LeaseRevokeRequest) -> Result<pb::LeaseRevokeResponse, Refusal> {
        self.serving().await?.lease.revoke(&self.caller, request).await
    }

    /// Renews leases, one for each request; the answers come in the same order. A lease that does not exist is answered with a TTL of 0.
    pub fn lease_keep_alive<S>(
        &self,
        requests: S,
    ) -> impl Stream<Item = Result<pb::LeaseKeepAliveResponse, Refusal>> + Send + use<S>
    where
        S: Stream<Item = pb::LeaseKeepAliveRequest> + Send + 'static,
    {
        self.stream_when_serving(|services, caller| services.lease.keep_alive(caller, requests))
    }

    /// How long a lease lives, and which keys hang on it; of a lease that does not exist the TTL is -1.
    pub async fn lease_time_to_live(
        &self,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Refusal> {
        self.serving().await?.lease.time_to_live(&self.caller, request).await
    }

    /// All leases, the one that runs out first first.
    pub async fn lease_leases(&self, request: pb::LeaseLeasesRequest) -> Result<pb::LeaseLeasesResponse, Refusal> {
        self.serving().await?.lease.leases(&self.caller, request).await
    }

    /// Watches keys: requests in, what they lead to out. Ends when the answers are dropped, or the server stops.
    pub fn watch(
        &self,
        requests: impl Stream<Item = pb::WatchRequest> + Send + 'static,
    ) -> impl Stream<Item = Result<pb::WatchResponse, Refusal>> + Send + 'static {
        self.stream_when_serving(|services, caller| services.watch.watch(caller, requests))
            .map(|reply| message(&reply?))
    }

    /// Waits until the caller holds a lock. Dropping the call gives the place in the queue up.
    pub async fn lock(&self, request: LockRequest) -> Result<LockResponse, Refusal> {
        self.serving().await?.lock.lock(&self.caller, request).await
    }

    /// Gives a lock up.
    pub async fn unlock(&self, request: UnlockRequest) -> Result<UnlockResponse, Refusal> {
        self.serving().await?.lock.unlock(&self.caller, request).await
    }

    /// Waits until the caller leads an election. Dropping the call gives the place in the queue up.
    pub async fn campaign(&self, request: CampaignRequest) -> Result<CampaignResponse, Refusal> {
        self.serving().await?.election.campaign(&self.caller, request).await
    }

    /// Changes what the leader of an election proclaims.
    pub async fn proclaim(&self, request: ProclaimRequest) -> Result<ProclaimResponse, Refusal> {
        self.serving().await?.election.proclaim(&self.caller, request).await
    }

    /// Who leads an election.
    pub async fn leader(&self, request: LeaderRequest) -> Result<LeaderResponse, Refusal> {
        self.serving().await?.election.leader(&self.caller, request).await
    }

    /// What the leaders of an election proclaim. Ends when it is dropped, or the server stops.
    pub fn observe(
        &self,
        request: LeaderRequest,
    ) -> impl Stream<Item = Result<LeaderResponse, Refusal>> + Send + 'static {
        self.stream_when_serving(|services, caller| services.election.observe(caller, request))
    }

    /// Gives the leadership of an election up.
    pub async fn resign(&self, request: ResignRequest) -> Result<ResignResponse, Refusal> {
        self.serving().await?.election.resign(&self.caller, request).await
    }

    /// The member's state.
    pub async fn status(&self) -> Result<pb::StatusResponse, Refusal> {
        self.serving().await?.maintenance.status()
    }

    /// A hash over the keys up to a revision.
    pub async fn hash_kv(&self, request: pb::HashKvRequest) -> Result<pb::HashKvResponse, Refusal> {
        self.serving().await?.maintenance.hash_kv(request).await
    }

    /// The members of the cluster.
    pub async fn member_list(&self, request: pb::MemberListRequest) -> Result<pb::MemberListResponse, Refusal> {
        self.serving().await?.cluster.member_list(request).await
    }
}

/// A gRPC channel to `gate`, served on `runtime`. It connects when it is first used; the connection waits until `node` serves.
pub(super) fn channel(gate: Arc<Gate>, node: NodeHandle, runtime: runtime::Handle) -> Channel {
    let connect = service_fn(move |_| {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (gate, node) = (gate.clone(), node.clone());
        runtime.spawn(async move {
            if node.wait_to_serve().await {
                gate.serve(theirs, WITHIN, true).await;
            }
        });
        async { Ok::<_, io::Error>(TokioIo::new(ours)) }
    });
    Endpoint::from_static("http://in.process").connect_with_connector_lazy(connect)
}

//! Talking to the server from within its process, without a socket.

use std::{any::Any, future::ready, io, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, request_op::Request},
    rpc::{BidiStreaming, Method, ServerStreaming, Unary},
};
use futures::{Stream, StreamExt, TryFutureExt};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::runtime;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::{
    api::{
        framed::{Answers, Framed},
        grpc::message::too_large,
        refusal::Refusal,
        router::{Call, Origin, Router, Served},
    },
    http::Endpoints,
    net::connection::{Gate, Port},
    node::ReplicaView,
    state::auth::Principal,
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

/// Calls the server without a connection. Clones are cheap, and calls may come from any runtime.
///
/// Every request type of the [API](cairn_proto::rpc) can be sent; calls go the way of those that come over gRPC and are
/// refused what those are refused. Transactions may be nested 48 levels deep.
///
/// While the member does not [serve](super::Server::ready) yet, calls wait: streams for as long as it takes, others for at
/// most the request time-out.
#[derive(Clone)]
pub struct LocalClient {
    router: Arc<Router>,
    node: ReplicaView,
    request_timeout: Duration,
    max_receive_bytes: usize,
    wants_leader: bool,
    principal: Principal,
    origin: Arc<Origin>,
}

impl LocalClient {
    pub(super) fn new(
        router: Arc<Router>,
        node: ReplicaView,
        request_timeout: Duration,
        max_receive_bytes: usize,
    ) -> Self {
        Self {
            router,
            node,
            request_timeout,
            max_receive_bytes,
            wants_leader: false,
            principal: Principal::InProcess(None),
            origin: Arc::default(),
        }
    }

    /// Calls of the client fail while the member knows no leader, and its streams end.
    #[must_use]
    pub fn requiring_leader(self) -> Self {
        Self { wants_leader: true, ..self }
    }

    /// Calls of the client are those of a user, whose permissions count while authentication is on. Without one they are
    /// refused then, as those of any client.
    #[must_use]
    pub fn as_user(self, name: &str) -> Self {
        Self { principal: Principal::InProcess(Some(name.into())), ..self }
    }

    /// Calls of the client may do everything, whether or not authentication is on.
    #[must_use]
    pub fn trusted(self) -> Self {
        Self { principal: Principal::Server, ..self }
    }

    /// Sends a request and gives its answer. Dropping the call gives it up.
    ///
    /// # Errors
    /// As gRPC has them for the same request.
    pub async fn call<R: Unary>(&self, request: R) -> Result<R::Response, Refusal> {
        self.wait_to_serve().await?;
        let message = self.encoded(&request);
        match self.router.call(&self.call_of(R::METHOD), ready(message)).await? {
            Served::Message(answer) => decoded(answer),
            Served::Stream(_) => Err(contradiction()),
        }
    }

    /// Sends a request that has many answers. The answers end when they are dropped, or the server stops.
    ///
    /// # Errors
    /// As gRPC has them, as the last answer.
    pub fn stream<R: ServerStreaming>(
        &self,
        request: R,
    ) -> impl Stream<Item = Result<R::Response, Refusal>> + Send + use<R> {
        let client = self.clone();
        self.begin(move || async move {
            let message = client.encoded(&request);
            match client.router.call(&client.call_of(R::METHOD), ready(message)).await? {
                Served::Stream(answers) => Ok(answers),
                Served::Message(_) => Err(contradiction()),
            }
        })
    }

    /// Sends requests as they come, and gives answers as they come. They end when they are dropped, or the server stops.
    ///
    /// # Errors
    /// As gRPC has them, as the last answer.
    pub fn exchange<R, S>(&self, requests: S) -> impl Stream<Item = Result<R::Response, Refusal>> + Send + use<R, S>
    where
        R: BidiStreaming,
        S: Stream<Item = R> + Send + 'static,
    {
        let client = self.clone();
        let encoding = self.clone();
        let messages = requests.map(move |request| encoding.encoded(&request));
        self.begin(move || async move { client.router.stream(&client.call_of(R::METHOD), Box::pin(messages)) })
    }

    fn call_of(&self, method: Method) -> Call {
        Call {
            method,
            principal: self.principal.clone(),
            origin: self.origin.clone(),
            timeout: None,
            wants_leader: self.wants_leader,
        }
    }

    async fn wait_to_serve(&self) -> Result<(), Refusal> {
        if !self.node.serves() {
            let served = tokio::time::timeout(self.request_timeout, self.node.wait_to_serve()).await;
            served.map_err(|_| ApiError::Timeout)?.then_some(()).ok_or(ApiError::Stopped)?;
        }
        Ok(())
    }

    /// Answers that begin as soon as clients are served.
    fn begin<M, B, F>(&self, begin: B) -> impl Stream<Item = Result<M, Refusal>> + Send + use<M, B, F>
    where
        M: Message + Default + 'static,
        B: FnOnce() -> F + Send + 'static,
        F: Future<Output = Result<Answers, Refusal>> + Send + 'static,
    {
        let node = self.node.clone();
        let begun =
            async move { if node.wait_to_serve().await { begin().await } else { Err(ApiError::Stopped.into()) } };
        begun.try_flatten_stream().map(|answer| decoded(answer?))
    }

    fn encoded<R: Message + 'static>(&self, request: &R) -> Result<Bytes, Refusal> {
        let bytes = request.encoded_len();
        if bytes > self.max_receive_bytes {
            return Err(too_large(bytes, self.max_receive_bytes).into());
        }
        let txn = (request as &dyn Any).downcast_ref::<pb::TxnRequest>();
        if txn.is_some_and(|txn| !is_nested_within(txn, TXN_DEPTH_MAX)) {
            return Err(ApiError::TooManyOps.into());
        }
        Ok(request.encode_to_vec().into())
    }
}

fn decoded<M: Message + Default>(answer: Framed) -> Result<M, Refusal> {
    M::decode(answer.into_message())
        .map_err(|error| Refusal::Internal(format!("a stored value does not decode: {error}").into()))
}

fn contradiction() -> Refusal {
    Refusal::Internal("a call was answered as one of another kind".into())
}

/// A gRPC channel to `gate`, served on `runtime`. It connects when it is first used; the connection waits until `node` serves.
pub(super) fn channel(gate: Arc<Gate>, node: ReplicaView, runtime: runtime::Handle) -> Channel {
    let connect = service_fn(move |_| {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (gate, node) = (gate.clone(), node.clone());
        runtime.spawn(async move {
            if node.wait_to_serve().await {
                gate.serve(theirs, WITHIN, true, Origin::default()).await;
            }
        });
        async { Ok::<_, io::Error>(TokioIo::new(ours)) }
    });
    Endpoint::from_static("http://in.process").connect_with_connector_lazy(connect)
}

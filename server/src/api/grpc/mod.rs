//! The API as gRPC: from a request's head and body to the answer's.
//!
//! ```text
//!   path ─▶ Method ─▶ hasleader, learner? ─▶ Messages ─▶ decode ─▶ a service of api/ ─▶ Framed ─▶ Body
//! ```
//!
//! [`method`] lists the RPCs, [`message`] takes requests' messages out of their frames, [`encoding`] decompresses some of them, [`body`] frames answers, [`stream`] has the calls with many
//! messages and what ends them, `drained` receives their requests before they are asked for. [`health`] is the one service that is no part of the store's API. Tonic's own machinery serves
//! reflection only: doing the few steps here spares copies of large answers and gives refusals the texts that clients know.
//!
//! The one invariant: this folder decides nothing about the store. Whatever it calls can be called without gRPC.

pub mod body;
pub mod drained;
pub mod encoding;
pub mod health;
pub mod message;
pub mod method;
pub mod stream;

use std::{
    pin::{Pin, pin},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_proto::{ApiError, etcdserverpb as pb, health::HealthListRequest};
use futures::{Stream, StreamExt};
use http::{HeaderMap, HeaderValue, Request, Response, header::CONTENT_TYPE, request::Parts};
use hyper::body::Incoming;
use prost::Message;
use tonic::{Code, Status};
use tower::{Service, util::BoxCloneSyncService};

use self::{
    body::{Body, Framed, MessageStream},
    drained::{Drained, Waiting},
    encoding::Encoding,
    message::Messages,
    method::Method,
    stream::{Ends, Limits},
};
use super::{Caller, Services, answer::Answer, metrics::ApiMetrics, refusal::Refusal};
use crate::state::command::{self, TxnUnreadable};

/// Bytes of what a client is told of a message that does not decode.
const UNREADABLE_BYTES_MAX: usize = 256;

/// One of tonic's own services.
type TonicService = BoxCloneSyncService<Request<Incoming>, Response<tonic::body::Body>, std::convert::Infallible>;

/// Serves gRPC requests, whatever connection they come on.
pub struct Grpc {
    services: Services,
    metrics: Arc<ApiMetrics>,
    max_receive_bytes: usize,
    /// Unary calls that take longer are logged.
    slow_call: Duration,
    ends: Ends,
    reflection: TonicService,
    reflection_alpha: TonicService,
}

impl Grpc {
    /// Serves `services`, receiving messages of at most `max_receive_bytes`. Unary calls slower than `slow_call` are logged, streams end by `ends`.
    pub fn new(
        services: Services,
        metrics: Arc<ApiMetrics>,
        max_receive_bytes: usize,
        slow_call: Duration,
        ends: Ends,
    ) -> Self {
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(cairn_proto::FILE_DESCRIPTOR_SET)
        };
        let reason = "the descriptor set is generated and complete";
        Self {
            services,
            metrics,
            max_receive_bytes,
            slow_call,
            ends,
            reflection: BoxCloneSyncService::new(reflection().build_v1().expect(reason)),
            reflection_alpha: BoxCloneSyncService::new(reflection().build_v1alpha().expect(reason)),
        }
    }

    /// Serves one request of a connection whose calls have received `waiting` bytes ahead.
    pub async fn call(self: &Arc<Self>, request: Request<Incoming>, waiting: &Waiting) -> Response<Body> {
        let Some(method) = Method::of_path(request.uri().path()) else {
            return refused(&Status::unimplemented(method::unknown(request.uri().path())));
        };
        let call = Call { grpc: self.clone(), method, began: Instant::now(), ended: false };
        self.metrics.started(method, request.headers());
        // The clock is read once for all.
        let began = tokio::time::Instant::from_std(call.began);
        let deadline = timeout_of(request.headers()).and_then(|timeout| began.checked_add(timeout));
        let limits = Limits { deadline, wants_leader: wants_leader(request.headers()), endless: method.is_endless() };
        // In a box: the call's task would otherwise hold it twice, with and without a deadline, and is copied when it is spawned.
        let served = Box::pin(self.serve(method, request, waiting));
        let served = match deadline {
            None => served.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, served).await {
                Ok(served) => served,
                Err(_) => Err(Status::deadline_exceeded("context deadline exceeded")),
            },
        };
        match served {
            Ok(Served::Message(framed)) => {
                self.metrics.sent(method, framed.message_bytes());
                call.end(Code::Ok);
                answered(Body::Unary(framed))
            }
            Ok(Served::Stream(stream)) => answered(Body::Stream(call.follow(self.ends.guard(limits, stream)), None)),
            Ok(Served::Tonic(response)) => {
                call.end(Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code()));
                response.map(Body::Tonic)
            }
            Err(status) => {
                call.end(status.code());
                refused(&status)
            }
        }
    }

    /// Serves a call, but no longer than the server runs if it waits for as long as it takes.
    async fn serve(&self, method: Method, request: Request<Incoming>, waiting: &Waiting) -> Result<Served, Status> {
        let mut served = pin!(self.dispatch(method, request, waiting));
        if method.kind() != method::Kind::Unary || !method.is_endless() {
            return served.await;
        }
        tokio::select! {
            served = served.as_mut() => served,
            () = self.ends.stopping.cancelled() => Err(ApiError::Stopped.into()),
        }
    }

    async fn dispatch(&self, method: Method, request: Request<Incoming>, waiting: &Waiting) -> Result<Served, Status> {
        let services = &self.services;
        let encoding = Encoding::of(request.headers())?;
        self.admit(method, request.headers())?;
        let caller = Caller::default();
        let (head, body) = request.into_parts();
        let request = Arrived { grpc: self, method, encoding, body, waiting };
        match method {
            Method::Range => request.unary(async |message| services.kv.range(&caller, message).await).await,
            Method::Put => request.unary(async |message| services.kv.put(&caller, message).await).await,
            Method::DeleteRange => {
                request.unary(async |message| services.kv.delete_range(&caller, message).await).await
            }
            Method::Txn => request.unary_of(decode_txn, async |message| services.kv.txn(&caller, message).await).await,
            // In a box of its own, so that the calls that come by the thousand do not take as much memory as the largest one.
            _ => Box::pin(self.dispatch_seldom(request, caller, head)).await,
        }
    }

    /// Serves the methods that are not called all the time.
    async fn dispatch_seldom(&self, request: Arrived<'_>, caller: Caller, head: Parts) -> Result<Served, Status> {
        let services = &self.services;
        match request.method {
            Method::Compact => request.unary(async |message| services.kv.compact(&caller, message).await).await,
            Method::RangeStream => {
                request.server_stream(async |message| services.kv.range_stream(&caller, message).await).await
            }
            Method::LeaseGrant => request.unary(async |message| services.lease.grant(&caller, message).await).await,
            Method::LeaseRevoke => request.unary(async |message| services.lease.revoke(&caller, message).await).await,
            Method::LeaseKeepAlive => Ok(request.bidi(|requests| services.lease.keep_alive(&caller, requests))),
            Method::LeaseTimeToLive => {
                request.unary(async |message| services.lease.time_to_live(&caller, message).await).await
            }
            Method::LeaseLeases => request.unary(async |message| services.lease.leases(&caller, message).await).await,
            Method::Watch => Ok(request.bidi(|requests| services.watch.watch(&caller, requests))),
            Method::Lock => request.unary(async |message| services.lock.lock(&caller, message).await).await,
            Method::Unlock => request.unary(async |message| services.lock.unlock(&caller, message).await).await,
            Method::Campaign => request.unary(async |message| services.election.campaign(&caller, message).await).await,
            Method::Proclaim => request.unary(async |message| services.election.proclaim(&caller, message).await).await,
            Method::Leader => request.unary(async |message| services.election.leader(&caller, message).await).await,
            Method::Observe => {
                request.server_stream(async |message| Ok(services.election.observe(&caller, message))).await
            }
            Method::Resign => request.unary(async |message| services.election.resign(&caller, message).await).await,
            Method::MemberList => request.unary(async |message| services.cluster.member_list(message).await).await,
            Method::MemberAdd => request.unary(async |message| services.cluster.member_add(message).await).await,
            Method::MemberRemove => request.unary(async |message| services.cluster.member_remove(message).await).await,
            Method::MemberUpdate => request.unary(async |message| services.cluster.member_update(message).await).await,
            Method::MemberPromote => {
                request.unary(async |message| services.cluster.member_promote(message).await).await
            }
            Method::MoveLeader => request.unary(async |message| services.cluster.move_leader(message).await).await,
            Method::Alarm => request.unary(async |message| services.maintenance.alarm(&caller, message).await).await,
            Method::Status => request.unary(async |_: pb::StatusRequest| services.maintenance.status()).await,
            Method::Defragment => {
                request.unary(async |_: pb::DefragmentRequest| services.maintenance.defragment().await).await
            }
            Method::Hash => request.unary(async |_: pb::HashRequest| services.maintenance.hash().await).await,
            Method::HashKv => request.unary(async |message| services.maintenance.hash_kv(message).await).await,
            Method::HealthCheck => request.unary(async |message| health::check(&message)).await,
            Method::HealthWatch => request.server_stream(async |message| Ok(health::watch(&message))).await,
            Method::HealthList => request.unary(async |_: HealthListRequest| Ok(health::list())).await,
            Method::Reflection => tonic_service(&self.reflection, Request::from_parts(head, request.body)).await,
            Method::ReflectionAlpha => {
                tonic_service(&self.reflection_alpha, Request::from_parts(head, request.body)).await
            }
            // Nobody can create users yet, so there is nobody to be, as in an etcd without any: its clients then go on without a
            // token.
            Method::Authenticate => {
                let refused = Err::<pb::AuthenticateResponse, _>(ApiError::AuthNotEnabled.into());
                request.unary(async |_: pb::AuthenticateRequest| refused).await
            }
            missing => Err(Refusal::Missing(what_is_missing(missing)).into()),
        }
    }

    /// Whether a call may be served at all by this member now.
    fn admit(&self, method: Method, headers: &HeaderMap) -> Result<(), Status> {
        if method.service().starts_with("grpc.") {
            return Ok(());
        }
        let status = self.services.node.status();
        if status.leader == 0 && wants_leader(headers) {
            return Err(ApiError::NoLeader.into());
        }
        if status.is_learner
            && !matches!(method, Method::Range | Method::RangeStream | Method::Status | Method::Snapshot)
        {
            return Err(ApiError::NotSupportedForLearner.into());
        }
        Ok(())
    }
}

/// What a method that is not served yet belongs to.
fn what_is_missing(method: Method) -> &'static str {
    match method.service() {
        "etcdserverpb.Auth" => "authentication",
        _ => match method {
            Method::Snapshot => "sending a snapshot",
            Method::Downgrade => "downgrading the cluster",
            _ => "this call",
        },
    }
}

async fn tonic_service(service: &TonicService, request: Request<Incoming>) -> Result<Served, Status> {
    let Ok(response) = service.clone().call(request).await;
    Ok(Served::Tonic(response))
}

/// What serving a call gave.
enum Served {
    Message(Framed),
    Stream(MessageStream),
    Tonic(Response<tonic::body::Body>),
}

/// The request of a call that is being served.
struct Arrived<'a> {
    grpc: &'a Grpc,
    method: Method,
    encoding: Encoding,
    body: Incoming,
    waiting: &'a Waiting,
}

impl Arrived<'_> {
    fn messages(self) -> Messages<Incoming> {
        Messages::new(self.body, self.encoding, self.grpc.max_receive_bytes)
    }

    async fn message(self) -> Result<Bytes, Status> {
        let (grpc, method) = (self.grpc, self.method);
        let bytes = self.messages().only().await?;
        grpc.metrics.received(method, bytes.len());
        Ok(bytes)
    }

    async fn unary<M, A>(self, serve: impl AsyncFnOnce(M) -> Result<A, Refusal>) -> Result<Served, Status>
    where
        M: Message + Default,
        A: Answer,
    {
        self.unary_of(decode, serve).await
    }

    async fn unary_of<M, A>(
        self,
        decode: fn(Bytes) -> Result<M, Status>,
        serve: impl AsyncFnOnce(M) -> Result<A, Refusal>,
    ) -> Result<Served, Status>
    where
        A: Answer,
    {
        let answer = serve(decode(self.message().await?)?).await?;
        Ok(Served::Message(Framed::new(answer)))
    }

    async fn server_stream<M, A, S>(self, serve: impl AsyncFnOnce(M) -> Result<S, Refusal>) -> Result<Served, Status>
    where
        M: Message + Default,
        A: Answer,
        S: Stream<Item = Result<A, Refusal>> + Send + 'static,
    {
        let answers = serve(decode(self.message().await?)?).await?;
        Ok(Served::Stream(framed(answers)))
    }

    /// Serves a call with many messages each way: `serve` gets the requests and gives the answers.
    fn bidi<M, A, S>(self, serve: impl FnOnce(Requests<M>) -> S) -> Served
    where
        M: Message + Default + 'static,
        A: Answer,
        S: Stream<Item = Result<A, Refusal>> + Send + 'static,
    {
        let (method, metrics) = (self.method, self.grpc.metrics.clone());
        let messages =
            Messages::new(Drained::new(self.body, self.waiting.clone()), self.encoding, self.grpc.max_receive_bytes);
        let (requests, broken) = stream::requests(messages, method, metrics);
        let answers = framed(serve(Box::pin(requests)));
        Served::Stream(stream::guarded(answers, broken))
    }
}

/// The requests of a stream, as a service takes them.
type Requests<M> = Pin<Box<dyn Stream<Item = M> + Send>>;

fn framed<A: Answer>(answers: impl Stream<Item = Result<A, Refusal>> + Send + 'static) -> MessageStream {
    Box::pin(answers.map(|answer| answer.map(Framed::new).map_err(Status::from)))
}

fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Status> {
    M::decode(bytes).map_err(|error| unreadable(&error))
}

fn decode_txn(bytes: Bytes) -> Result<pb::TxnRequest, Status> {
    command::decode_txn(bytes).map_err(|error| match error {
        TxnUnreadable::TooDeep => ApiError::TooManyOps.into(),
        TxnUnreadable::Length | TxnUnreadable::Message(_) => unreadable(&error),
    })
}

/// A decoder tells the way to what it does not like, which can be long.
#[cold]
fn unreadable(error: &dyn std::error::Error) -> Status {
    let mut text = format!("grpc: error unmarshalling request: {error}");
    text.truncate(text.floor_char_boundary(UNREADABLE_BYTES_MAX));
    Status::internal(text)
}

/// A call from its start to its end, counted once. One that is dropped before its end was given up by the client.
struct Call {
    grpc: Arc<Grpc>,
    method: Method,
    began: Instant,
    ended: bool,
}

impl Call {
    fn end(mut self, code: Code) {
        self.count(code);
    }

    fn count(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.began.elapsed();
        self.grpc.metrics.handled(self.method, code, took);
        if took > self.grpc.slow_call && self.method.kind() == method::Kind::Unary && !self.method.is_endless() {
            let (service, method) = (self.method.service(), self.method.name());
            tracing::warn!(service, method, took = ?took, code = ?code, "a request took too long");
        }
    }

    /// Counts a stream's messages, and the call when it ends.
    fn follow(mut self, stream: MessageStream) -> MessageStream {
        let counted = stream.map(Some).chain(futures::stream::once(async { None })).filter_map(move |item| {
            let item = match item {
                Some(Ok(framed)) => {
                    self.grpc.metrics.sent(self.method, framed.message_bytes());
                    Some(Ok(framed))
                }
                Some(Err(status)) => {
                    self.count(status.code());
                    Some(Err(status))
                }
                None => {
                    self.count(Code::Ok);
                    None
                }
            };
            futures::future::ready(item)
        });
        Box::pin(counted)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.count(Code::Cancelled);
    }
}

/// Whether a request is meant for gRPC.
pub fn is_grpc<B>(request: &Request<B>) -> bool {
    request.version() == http::Version::HTTP_2
        && request.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

const GRPC_CONTENT: HeaderValue = HeaderValue::from_static("application/grpc");

fn answered(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, GRPC_CONTENT);
    response
}

/// An answer that is only a status.
fn refused(status: &Status) -> Response<Body> {
    let mut response = answered(Body::Empty);
    if status.add_header(response.headers_mut()).is_err() {
        response.headers_mut().insert("grpc-status", HeaderValue::from(status.code() as i32));
    }
    response
}

/// Whether a client would rather have its call fail than served without a leader.
fn wants_leader(headers: &HeaderMap) -> bool {
    headers.get("hasleader").is_some_and(|value| value == "true")
}

/// What a client allows its call to take: up to eight digits and a unit.
fn timeout_of(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = value.split_at_checked(value.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_hours(amount)),
        "M" => Some(Duration::from_mins(amount)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", HeaderValue::from_str(text).expect("a header value"));
            timeout_of(&headers)
        };
        assert_eq!(of("5S"), Some(Duration::from_secs(5)));
        assert_eq!(of("99999999n"), Some(Duration::from_nanos(99_999_999)));
        assert_eq!(of("2H"), Some(Duration::from_hours(2)));
        for bad in ["", "5", "S", "5x", "123456789S", "-1S", "5 S", "ä"] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(timeout_of(&HeaderMap::new()), None);
    }

    #[test]
    fn what_a_client_is_told_of_an_unreadable_message_is_bounded() {
        let status = unreadable(&std::io::Error::other("ä".repeat(5000)));
        // The limit is in the middle of a letter.
        assert_eq!((status.code(), status.message().len()), (Code::Internal, UNREADABLE_BYTES_MAX - 1));
        let short = decode::<pb::RangeRequest>(Bytes::from_static(b"\xff")).expect_err("no message");
        assert!(short.message().starts_with("grpc: error unmarshalling request: "), "{short}");
    }

    #[test]
    fn only_http2_requests_with_grpc_content_are_grpc() {
        let request = |version, content: &str| {
            let mut request = Request::new(());
            *request.version_mut() = version;
            request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_str(content).expect("a header value"));
            request
        };
        assert!(is_grpc(&request(http::Version::HTTP_2, "application/grpc+proto")));
        assert!(!is_grpc(&request(http::Version::HTTP_11, "application/grpc")));
        assert!(!is_grpc(&request(http::Version::HTTP_2, "application/json")));
    }
}

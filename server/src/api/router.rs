//! The way of every call, whichever transport brings it.
//!
//! ```text
//!   gRPC ───────┐           ┌──────── count, deadline, slow-call log ────────┐
//!   in process ─┼─▶ Call ─▶ │ admission ─▶ request ─▶ service ─▶ answer      │ ─▶ Served ─▶ the transport
//!   (gateway) ──┘           └────────────────────────────────────────────────┘
//!                             leader,      decoded     authorises, keeps      Framed, or a stream of them
//!                             learner                  the rules, proposes
//! ```
//!
//! A transport names the method, says who calls, and brings the request's bytes; it gets bytes back, which no transport
//! has to copy. What is decided here and in the services is decided for all of them.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use cairn_proto::{
    ApiError, etcdserverpb as pb, health as health_pb,
    rpc::{self, Kind, Method},
};
use futures::{Stream, StreamExt};
use prost::Message;
use tonic::Code;

use super::{
    Services,
    answer::Answer,
    framed::{Answers, Framed},
    health,
    metrics::ApiMetrics,
    refusal::Refusal,
    stream::{self, Ends, Limits, Messages, Requests},
};
use crate::{
    audit::{Audit, Caller, Outcome, Trail, Waiting},
    state::{
        auth::Principal,
        command::{self, TxnUnreadable},
    },
};

/// Bytes of what a client is told of a message that does not decode.
const UNREADABLE_BYTES_MAX: usize = 256;

/// A call as its transport describes it.
#[derive(Debug, Clone)]
pub struct Call {
    /// What is called.
    pub method: Method,
    /// Who calls.
    pub principal: Principal,
    /// Where the call comes from.
    pub origin: Arc<Origin>,
    /// How long the call may take, if its client has a limit.
    pub timeout: Option<Duration>,
    /// The call fails if the member knows no leader.
    pub wants_leader: bool,
}

/// Where calls come from: what those of one connection have in common.
#[derive(Debug, Clone, Default)]
pub struct Origin {
    /// The client's address, if it came by TCP.
    pub address: Option<SocketAddr>,
    /// The common name of its verified certificate.
    pub common_name: Option<Arc<str>>,
}

impl Origin {
    /// The client's address without its port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip())
    }
}

/// What a call is answered with.
pub enum Served {
    /// One message.
    Message(Framed),
    /// Many.
    Stream(Answers),
}

/// Takes calls to the services, and counts them.
pub struct Router {
    services: Services,
    metrics: Arc<ApiMetrics>,
    /// Puts calls on record, if there is to be one.
    audit: Option<Arc<Audit>>,
    /// Unary calls that take longer are logged.
    slow_call: Duration,
    ends: Ends,
}

impl Router {
    /// Calls `services`, on record in `audit`. Unary calls slower than `slow_call` are logged, streams end by `ends`.
    pub fn new(
        services: Services,
        metrics: Arc<ApiMetrics>,
        audit: Option<Arc<Audit>>,
        slow_call: Duration,
        ends: Ends,
    ) -> Arc<Self> {
        Arc::new(Self { services, metrics, audit, slow_call, ends })
    }

    /// What the router counts.
    pub fn metrics(&self) -> &ApiMetrics {
        &self.metrics
    }

    #[cfg(test)]
    pub(crate) fn services(&self) -> &Services {
        &self.services
    }

    /// Serves a call with one request, which `message` brings once the call is admitted.
    ///
    /// # Errors
    /// As the answer tells them: from admission, from the transport, from the service; [`Refusal::DeadlineExceeded`].
    pub async fn call(
        self: &Arc<Self>,
        call: &Call,
        message: impl Future<Output = Result<Bytes, Refusal>> + Send,
    ) -> Result<Served, Refusal> {
        let open = self.open_call(call.method);
        let limits = Limits::of(call, open.began);
        let mut trail = self.audit.as_ref().and_then(|audit| audit.follow(call.method, || self.caller(call)));
        // In a box: the call's task would otherwise hold it twice, with and without a deadline, and is copied when it is spawned.
        let served = Box::pin(self.serve(call, message, trail.as_mut()));
        let served = match limits.deadline {
            None => served.await,
            Some(deadline) => tokio::time::timeout_at(deadline, served).await.unwrap_or(Err(Refusal::DeadlineExceeded)),
        };
        if let Some(waiting) = trail.and_then(|trail| put_on_record(trail, &served)) {
            // In a box, because it is seldom there.
            Box::pin(waiting.wait()).await;
        }
        match served {
            Ok(Served::Message(framed)) => {
                self.metrics.sent(open.method, framed.message_bytes());
                open.end(Code::Ok);
                Ok(Served::Message(framed))
            }
            Ok(Served::Stream(answers)) => Ok(Served::Stream(open.follow(self.ends.guard(limits, answers)))),
            Err(refusal) => {
                open.end(refusal.code());
                Err(refusal)
            }
        }
    }

    /// Serves a call with many requests.
    ///
    /// # Errors
    /// From admission; what goes wrong later ends the answers.
    pub fn stream(self: &Arc<Self>, call: &Call, messages: Messages) -> Result<Answers, Refusal> {
        let open = self.open_call(call.method);
        let limits = Limits::of(call, open.began);
        match self.admit(call).and_then(|()| self.dispatch_stream(call, messages)) {
            Ok(answers) => Ok(open.follow(self.ends.guard(limits, answers))),
            Err(refusal) => {
                open.end(refusal.code());
                Err(refusal)
            }
        }
    }

    /// Counts a call that something else serves, from now until the result is ended or dropped.
    pub fn open_call(self: &Arc<Self>, method: Method) -> OpenCall {
        self.metrics.started(method);
        OpenCall { router: self.clone(), method, began: Instant::now(), ended: false }
    }

    /// Whether a call may be served at all by this member now.
    fn admit(&self, call: &Call) -> Result<(), Refusal> {
        if call.method.service().starts_with("grpc.") {
            return Ok(());
        }
        let status = self.services.node.status();
        if status.leader == 0 && call.wants_leader {
            return Err(ApiError::NoLeader.into());
        }
        if status.is_learner
            && !matches!(call.method, Method::Range | Method::RangeStream | Method::Status | Method::Snapshot)
        {
            return Err(ApiError::NotSupportedForLearner.into());
        }
        Ok(())
    }

    /// Who makes a call, as the record says it.
    fn caller(&self, call: &Call) -> Caller {
        let Origin { address, common_name } = &*call.origin;
        Caller { user: self.services.user_of(&call.principal), common_name: common_name.clone(), address: *address }
    }

    /// Serves a call, but no longer than the server runs if it waits for as long as it takes.
    async fn serve(
        &self,
        call: &Call,
        message: impl Future<Output = Result<Bytes, Refusal>> + Send,
        trail: Option<&mut Trail>,
    ) -> Result<Served, Refusal> {
        self.admit(call)?;
        let message = message.await?;
        if let Some(trail) = trail {
            trail.request(message.clone());
            if call.method == Method::LeaseRevoke {
                trail.revokes(|lease| self.services.lease.keys_of(lease));
            }
        }
        self.metrics.received(call.method, message.len());
        let endless = call.method.kind() == Kind::Unary && call.method.is_endless();
        let mut served = pin!(self.dispatch(call, message));
        if !endless {
            return served.await;
        }
        tokio::select! {
            served = served.as_mut() => served,
            () = self.ends.stopping.cancelled() => Err(ApiError::Stopped.into()),
        }
    }

    async fn dispatch(&self, call: &Call, message: Bytes) -> Result<Served, Refusal> {
        let (services, principal) = (&self.services, &call.principal);
        match call.method {
            Method::Range => unary(message, async |request| services.kv.range(principal, request).await).await,
            Method::Put => unary(message, async |request| services.kv.put(principal, request).await).await,
            Method::DeleteRange => {
                unary(message, async |request| services.kv.delete_range(principal, request).await).await
            }
            Method::Txn => answered(services.kv.txn(principal, decode_txn(message)?).await),
            // In a box of its own, so that the calls that come by the thousand do not take as much memory as the largest one.
            _ => Box::pin(self.dispatch_cold(call, message)).await,
        }
    }

    /// Serves the methods that are not called all the time.
    async fn dispatch_cold(&self, call: &Call, message: Bytes) -> Result<Served, Refusal> {
        let Call { method, principal, origin, .. } = call;
        let Services { kv, lease, lock, election, cluster, maintenance, auth, .. } = &self.services;
        match *method {
            Method::Compact => unary(message, async |request| kv.compact(principal, request).await).await,
            Method::RangeStream => Ok(server_stream(kv.range_stream(principal, decode(message)?).await?)),
            Method::LeaseGrant => unary(message, async |request| lease.grant(principal, request).await).await,
            Method::LeaseRevoke => unary(message, async |request| lease.revoke(principal, request).await).await,
            Method::LeaseTimeToLive => {
                unary(message, async |request| lease.time_to_live(principal, request).await).await
            }
            Method::LeaseLeases => unary(message, async |request| lease.leases(principal, request).await).await,
            Method::Lock => unary(message, async |request| lock.lock(principal, request).await).await,
            Method::Unlock => unary(message, async |request| lock.unlock(principal, request).await).await,
            Method::Campaign => unary(message, async |request| election.campaign(principal, request).await).await,
            Method::Proclaim => unary(message, async |request| election.proclaim(principal, request).await).await,
            Method::Leader => unary(message, async |request| election.leader(principal, request).await).await,
            Method::Observe => Ok(server_stream(election.observe(principal, decode(message)?))),
            Method::Resign => unary(message, async |request| election.resign(principal, request).await).await,
            Method::MemberList => unary(message, async |request| cluster.member_list(principal, request).await).await,
            Method::MemberAdd => unary(message, async |request| cluster.member_add(principal, request).await).await,
            Method::MemberRemove => {
                unary(message, async |request| cluster.member_remove(principal, request).await).await
            }
            Method::MemberUpdate => {
                unary(message, async |request| cluster.member_update(principal, request).await).await
            }
            Method::MemberPromote => {
                unary(message, async |request| cluster.member_promote(principal, request).await).await
            }
            Method::MoveLeader => unary(message, async |request| cluster.move_leader(principal, request).await).await,
            Method::Alarm => unary(message, async |request| maintenance.alarm(principal, request).await).await,
            Method::Status => unary(message, async |request| maintenance.status(principal, request)).await,
            Method::Defragment => {
                unary(message, async |request| maintenance.defragment(principal, request).await).await
            }
            Method::Hash => unary(message, async |request| maintenance.hash(principal, request).await).await,
            Method::HashKv => unary(message, async |request| maintenance.hash_kv(principal, request).await).await,
            Method::HealthCheck => unary(message, async |request| health::check(&request)).await,
            Method::HealthWatch => Ok(server_stream(health::watch(&decode(message)?))),
            Method::HealthList => unary(message, async |_: health_pb::HealthListRequest| Ok(health::list())).await,
            Method::Authenticate => unary(message, async |request| auth.authenticate(origin, request).await).await,
            Method::AuthStatus => unary(message, async |request| auth.status(request).await).await,
            Method::AuthEnable => unary(message, async |request| auth.enable(principal, request).await).await,
            Method::AuthDisable => unary(message, async |request| auth.disable(principal, request).await).await,
            Method::UserAdd => unary(message, async |request| auth.user_add(principal, request).await).await,
            Method::UserGet => unary(message, async |request| auth.user_get(principal, request).await).await,
            Method::UserList => unary(message, async |request| auth.user_list(principal, request).await).await,
            Method::UserDelete => unary(message, async |request| auth.user_delete(principal, request).await).await,
            Method::UserChangePassword => {
                unary(message, async |request| auth.user_change_password(principal, request).await).await
            }
            Method::UserGrantRole => {
                unary(message, async |request| auth.user_grant_role(principal, request).await).await
            }
            Method::UserRevokeRole => {
                unary(message, async |request| auth.user_revoke_role(principal, request).await).await
            }
            Method::RoleAdd => unary(message, async |request| auth.role_add(principal, request).await).await,
            Method::RoleGet => unary(message, async |request| auth.role_get(principal, request).await).await,
            Method::RoleList => unary(message, async |request| auth.role_list(principal, request).await).await,
            Method::RoleDelete => unary(message, async |request| auth.role_delete(principal, request).await).await,
            Method::RoleGrantPermission => {
                unary(message, async |request| auth.role_grant_permission(principal, request).await).await
            }
            Method::RoleRevokePermission => {
                unary(message, async |request| auth.role_revoke_permission(principal, request).await).await
            }
            missing => Err(Refusal::Missing(what_is_missing(missing))),
        }
    }

    fn dispatch_stream(&self, call: &Call, messages: Messages) -> Result<Answers, Refusal> {
        let (services, principal, metrics) = (&self.services, &call.principal, self.metrics.clone());
        match call.method {
            method @ Method::Watch => {
                let audit = self.audit.clone().map(|audit| (audit, self.caller(call)));
                Ok(bidi(messages, method, metrics, |requests| services.watch.watch(principal, requests, audit)))
            }
            method @ Method::LeaseKeepAlive => {
                Ok(bidi(messages, method, metrics, |requests| services.lease.keep_alive(principal, requests)))
            }
            missing => Err(Refusal::Missing(what_is_missing(missing))),
        }
    }
}

/// Puts a call on record that has ended, or whose answers begin.
fn put_on_record(trail: Trail, served: &Result<Served, Refusal>) -> Option<Waiting> {
    let text;
    let outcome = match served {
        Ok(Served::Message(framed)) => Outcome { code: Code::Ok, error: "", answer: framed.head() },
        Ok(Served::Stream(_)) => Outcome { code: Code::Ok, error: "", answer: &[] },
        Err(refusal) => {
            text = refusal.to_string();
            Outcome { code: refusal.code(), error: &text, answer: &[] }
        }
    };
    trail.end(&outcome)
}

/// What a method that is not served yet belongs to.
fn what_is_missing(method: Method) -> &'static str {
    match method {
        Method::Snapshot => "sending a snapshot",
        Method::Downgrade => "downgrading the cluster",
        _ => "this call",
    }
}

async fn unary<M: rpc::Unary, A: Answer>(
    message: Bytes,
    serve: impl AsyncFnOnce(M) -> Result<A, Refusal>,
) -> Result<Served, Refusal> {
    answered(serve(decode(message)?).await)
}

fn answered(answer: Result<impl Answer, Refusal>) -> Result<Served, Refusal> {
    Ok(Served::Message(Framed::new(answer?)))
}

fn server_stream<A: Answer>(answers: impl Stream<Item = Result<A, Refusal>> + Send + 'static) -> Served {
    Served::Stream(framed(answers))
}

/// Serves a call with many messages each way: `serve` gets the requests and gives the answers.
fn bidi<M, A, S>(
    messages: Messages,
    method: Method,
    metrics: Arc<ApiMetrics>,
    serve: impl FnOnce(Requests<M>) -> S,
) -> Answers
where
    M: rpc::BidiStreaming,
    A: Answer,
    S: Stream<Item = Result<A, Refusal>> + Send + 'static,
{
    let (requests, broken) = stream::requests(messages, method, metrics);
    stream::guarded(framed(serve(requests)), broken)
}

fn framed<A: Answer>(answers: impl Stream<Item = Result<A, Refusal>> + Send + 'static) -> Answers {
    Box::pin(answers.map(|answer| answer.map(Framed::new)))
}

pub(super) fn decode<M: Message + Default>(bytes: Bytes) -> Result<M, Refusal> {
    M::decode(bytes).map_err(|error| unreadable(&error))
}

fn decode_txn(bytes: Bytes) -> Result<pb::TxnRequest, Refusal> {
    command::decode_txn(bytes).map_err(|error| match error {
        TxnUnreadable::TooDeep => ApiError::TooManyOps.into(),
        TxnUnreadable::Length | TxnUnreadable::Message(_) => unreadable(&error),
    })
}

/// The decoder's words tell the way to the field at fault, which can be long.
#[cold]
fn unreadable(error: &dyn std::error::Error) -> Refusal {
    let mut text = format!("grpc: error unmarshalling request: {error}");
    text.truncate(text.floor_char_boundary(UNREADABLE_BYTES_MAX));
    Refusal::Internal(text.into())
}

/// A call from its start to its end, counted once. One that is dropped before its end was given up by the client.
pub struct OpenCall {
    router: Arc<Router>,
    method: Method,
    began: Instant,
    ended: bool,
}

impl OpenCall {
    /// The call has ended with `code`.
    pub fn end(mut self, code: Code) {
        self.count(code);
    }

    fn count(&mut self, code: Code) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.began.elapsed();
        self.router.metrics.handled(self.method, code, took);
        if took > self.router.slow_call && self.method.kind() == Kind::Unary && !self.method.is_endless() {
            let (service, method) = (self.method.service(), self.method.name());
            tracing::warn!(service, method, took = ?took, code = ?code, "a request took too long");
        }
    }

    /// Counts a stream's messages, and the call when it ends.
    fn follow(mut self, answers: Answers) -> Answers {
        let counted = answers.map(Some).chain(futures::stream::once(async { None })).filter_map(move |item| {
            let item = match item {
                Some(Ok(framed)) => {
                    self.router.metrics.sent(self.method, framed.message_bytes());
                    Some(Ok(framed))
                }
                Some(Err(refusal)) => {
                    self.count(refusal.code());
                    Some(Err(refusal))
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

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.count(Code::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_is_told_of_an_unreadable_message_is_bounded() {
        let refusal = unreadable(&std::io::Error::other("ä".repeat(5000)));
        // The limit is in the middle of a letter.
        assert_eq!((refusal.code(), refusal.to_string().len()), (Code::Internal, UNREADABLE_BYTES_MAX - 1));
        let short = decode::<pb::RangeRequest>(Bytes::from_static(b"\xff")).expect_err("no message");
        assert!(short.to_string().starts_with("grpc: error unmarshalling request: "), "{short}");
    }
}

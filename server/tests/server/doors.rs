//! The ways into a server refuse the same calls with the same words: every RPC, over gRPC and in process.

use std::{collections::HashSet, time::Duration};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction, request_op::Request as Op},
    health,
    rpc::{BidiStreaming, Method, ServerStreaming, Unary},
    v3electionpb as election, v3lockpb as lock,
};
use cairn_server::{
    api::refusal::Refusal,
    server::{Server, client::LocalClient},
};
use futures::{StreamExt, stream};
use http::uri::PathAndQuery;
use tonic::{Code, Request, client::Grpc, transport::Channel};
use tonic_prost::ProstCodec;

use super::{
    http::with_learner,
    support::{DEADLINE, TestServer, eventually},
    trio::Trio,
};

/// How a call ended.
type Ended = Result<(), (Code, String)>;

/// Both ways into one server.
struct Doors {
    grpc: Channel,
    local: LocalClient,
    wants_leader: bool,
    /// How calls ended, by method: over gRPC and in process.
    ended: Vec<(Method, [Ended; 2])>,
}

fn of_local<T>(answer: Result<T, Refusal>) -> Ended {
    answer.map(drop).map_err(|refusal| (refusal.code(), refusal.to_string()))
}

fn of_grpc<T>(answer: Result<T, tonic::Status>) -> Ended {
    answer.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
}

/// What the first answer says, if one comes soon.
async fn first<T>(answers: impl futures::Stream<Item = T>) -> Option<T> {
    let mut answers = std::pin::pin!(answers);
    tokio::time::timeout(Duration::from_millis(300), answers.next()).await.ok().flatten()
}

impl Doors {
    fn new(grpc: Channel, server: &Server, wants_leader: bool) -> Self {
        let local = if wants_leader { server.client().requiring_leader() } else { server.client() };
        Self { grpc, local, wants_leader, ended: Vec::new() }
    }

    async fn client(&self) -> Grpc<Channel> {
        let mut client = Grpc::new(self.grpc.clone());
        client.ready().await.expect("the server is there");
        client
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if self.wants_leader {
            request.metadata_mut().insert("hasleader", "true".parse().expect("a value"));
        }
        request
    }

    async fn unary<R: Unary + Clone>(&mut self, request: R) {
        let (path, codec) = (PathAndQuery::from_static(R::METHOD.path()), ProstCodec::<R, R::Response>::default());
        let grpc = self.client().await.unary(self.request(request.clone()), path, codec).await;
        let local = self.local.call(request).await;
        self.ended.push((R::METHOD, [of_grpc(grpc), of_local(local)]));
    }

    async fn server_stream<R: ServerStreaming + Clone>(&mut self, request: R) {
        let (path, codec) = (PathAndQuery::from_static(R::METHOD.path()), ProstCodec::<R, R::Response>::default());
        let grpc = match self.client().await.server_streaming(self.request(request.clone()), path, codec).await {
            Ok(answers) => first(answers.into_inner()).await.map_or(Ok(()), of_grpc),
            Err(status) => of_grpc(Err::<(), _>(status)),
        };
        let local = first(self.local.stream(request)).await.map_or(Ok(()), of_local);
        self.ended.push((R::METHOD, [grpc, local]));
    }

    async fn bidi<R: BidiStreaming + Clone>(&mut self, request: R) {
        let (path, codec) = (PathAndQuery::from_static(R::METHOD.path()), ProstCodec::<R, R::Response>::default());
        let requests = || stream::iter([request.clone()]).chain(stream::pending());
        let grpc = match self.client().await.streaming(self.request(requests()), path, codec).await {
            Ok(answers) => first(answers.into_inner()).await.map_or(Ok(()), of_grpc),
            Err(status) => of_grpc(Err::<(), _>(status)),
        };
        let local = first(self.local.exchange(requests())).await.map_or(Ok(()), of_local);
        self.ended.push((R::METHOD, [grpc, local]));
    }

    /// Calls every method but those of reflection, with empty requests.
    async fn every_method(&mut self) {
        macro_rules! call {
            ($($kind:ident: $($request:ty),+;)+) => { $($(self.$kind(<$request>::default()).await;)+)+ };
        }
        call! {
            unary: pb::RangeRequest, pb::PutRequest, pb::DeleteRangeRequest, pb::TxnRequest, pb::CompactionRequest,
                pb::LeaseGrantRequest, pb::LeaseRevokeRequest, pb::LeaseTimeToLiveRequest, pb::LeaseLeasesRequest,
                pb::MemberAddRequest, pb::MemberRemoveRequest, pb::MemberUpdateRequest, pb::MemberListRequest,
                pb::MemberPromoteRequest, pb::AlarmRequest, pb::StatusRequest, pb::DefragmentRequest, pb::HashRequest,
                pb::HashKvRequest, pb::MoveLeaderRequest, pb::DowngradeRequest, pb::AuthEnableRequest,
                pb::AuthDisableRequest, pb::AuthStatusRequest, pb::AuthenticateRequest, pb::AuthUserAddRequest,
                pb::AuthUserGetRequest, pb::AuthUserListRequest, pb::AuthUserDeleteRequest,
                pb::AuthUserChangePasswordRequest, pb::AuthUserGrantRoleRequest, pb::AuthUserRevokeRoleRequest,
                pb::AuthRoleAddRequest, pb::AuthRoleGetRequest, pb::AuthRoleListRequest, pb::AuthRoleDeleteRequest,
                pb::AuthRoleGrantPermissionRequest, pb::AuthRoleRevokePermissionRequest, lock::UnlockRequest,
                election::ProclaimRequest, election::LeaderRequest, election::ResignRequest,
                health::HealthCheckRequest, health::HealthListRequest;
            server_stream: pb::RangeRequest, pb::SnapshotRequest, election::LeaderRequest, health::HealthCheckRequest;
            bidi: pb::WatchRequest, pb::LeaseKeepAliveRequest;
        }
        // Each call has a queue of its own: it would wait for the other one.
        self.unary(lock::LockRequest::default()).await;
        self.unary(election::CampaignRequest { name: "election".into(), ..Default::default() }).await;
        let called: HashSet<_> = self.ended.iter().map(|(method, _)| *method).collect();
        let missing: Vec<_> = Method::ALL.iter().filter(|method| !called.contains(method)).collect();
        assert_eq!(missing, [&Method::Reflection, &Method::ReflectionAlpha]);
    }

    /// Both ways ended each call in the same manner: that which `expected` tells of its method.
    #[track_caller]
    fn ended_equally(&self, expected: impl Fn(Method) -> Option<ApiError>) {
        for (method, [grpc, local]) in &self.ended {
            assert_eq!(grpc, local, "{method:?}");
            if let Some(error) = expected(*method) {
                assert_eq!(grpc, &Err((error.code(), error.text().to_owned())), "{method:?}");
            }
        }
    }
}

fn is_of_the_store(method: Method) -> bool {
    !method.service().starts_with("grpc.")
}

#[tokio::test]
async fn a_learner_refuses_the_same_calls_over_grpc_and_in_process() {
    let (_voter, learner) = with_learner().await;
    assert!(learner.server.ready().await);
    let mut doors = Doors::new(learner.channel().await, &learner.server, false);
    doors.every_method().await;
    let served = [Method::Status, Method::Snapshot, Method::RangeStream, Method::Range];
    doors.ended_equally(|method| {
        (is_of_the_store(method) && !served.contains(&method)).then_some(ApiError::NotSupportedForLearner)
    });
    let status = doors.ended.iter().find(|(method, _)| *method == Method::Status);
    assert_eq!(status.expect("it was called").1, [Ok(()), Ok(())]);
}

#[tokio::test]
async fn without_a_leader_calls_that_want_one_are_refused_over_grpc_and_in_process() {
    let mut trio = Trio::start(|_| ()).await;
    trio.down(1).await;
    trio.down(2).await;
    let lonely = trio.of(0);
    eventually("it knows no leader", async || (lonely.node().status().leader == 0).then_some(())).await;
    let mut doors = Doors::new(trio.channel(0), lonely, true);
    doors.every_method().await;
    doors.ended_equally(|method| is_of_the_store(method).then_some(ApiError::NoLeader));
}

fn put(bytes: usize) -> pb::PutRequest {
    pb::PutRequest { key: "k".into(), value: vec![b'v'; bytes].into(), ..Default::default() }
}

fn txn(bytes: usize) -> pb::TxnRequest {
    let op = pb::RequestOp { request: Some(Op::RequestPut(put(bytes))) };
    pb::TxnRequest { success: vec![op], ..Default::default() }
}

#[tokio::test]
async fn a_member_with_an_alarm_refuses_the_same_calls_over_grpc_and_in_process() {
    for (alarm, writes, reads) in [
        (AlarmType::Nospace, ApiError::NoSpace, None),
        (AlarmType::Corrupt, ApiError::Corrupt, Some(ApiError::Corrupt)),
    ] {
        let server = TestServer::start().await;
        let member_id = server.server.node().status().member_id;
        let raise = pb::AlarmRequest { action: AlarmAction::Activate.into(), member_id, alarm: alarm.into() };
        server.server.client().call(raise).await.expect("the alarm is raised");
        let mut doors = Doors::new(server.channel().await, &server.server, false);
        doors.unary(put(1)).await;
        doors.unary(txn(1)).await;
        doors.unary(pb::LeaseGrantRequest { ttl: 60, id: 7 }).await;
        doors.ended_equally(|_| Some(writes));
        doors.ended.clear();
        let range = pb::RangeRequest { key: "k".into(), ..Default::default() };
        doors.unary(range.clone()).await;
        doors.server_stream(range).await;
        doors.ended_equally(|_| reads);
        assert!(reads.is_some() || doors.ended.iter().all(|(_, ended)| *ended == [Ok(()), Ok(())]));
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_over_grpc_and_in_process() {
    let server = TestServer::with(|config| config.max_request_bytes = 10_000).await;
    let mut doors = Doors::new(server.channel().await, &server.server, false);
    doors.unary(put(10_000)).await;
    doors.unary(txn(10_000)).await;
    doors.ended_equally(|_| Some(ApiError::RequestTooLarge));
    doors.ended.clear();
    // So much that the transport refuses to receive it.
    doors.unary(put(10_000_000)).await;
    doors
        .bidi(pb::WatchRequest {
            request_union: Some(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
                key: vec![b'k'; 10_000_000].into(),
                ..Default::default()
            })),
        })
        .await;
    for (method, [grpc, local]) in &doors.ended {
        assert_eq!(grpc, local, "{method:?}");
        let (code, text) = grpc.clone().expect_err("it is too large");
        assert_eq!(code, Code::ResourceExhausted, "{method:?}");
        assert!(text.starts_with("grpc: received message larger than max ("), "{method:?}: {text}");
    }
}

#[tokio::test]
async fn in_process_calls_are_counted_and_end_with_the_server() {
    let server = TestServer::start().await;
    let client = server.server.client();
    client.call(put(1)).await.expect("a put");
    client.call(pb::PutRequest::default()).await.expect_err("no key");
    let metrics = server.http("GET", "/metrics").await.body;
    for line in [
        r#"grpc_server_handled_total{grpc_code="OK",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#,
        r#"grpc_server_handled_total{grpc_code="InvalidArgument",grpc_method="Put",grpc_service="etcdserverpb.KV",grpc_type="unary"} 1"#,
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
    let create = pb::WatchRequest {
        request_union: Some(pb::watch_request::RequestUnion::CreateRequest(pb::WatchCreateRequest {
            key: "k".into(),
            ..Default::default()
        })),
    };
    let mut watching = Box::pin(client.exchange(stream::iter([create]).chain(stream::pending())));
    assert!(watching.next().await.expect("an answer").expect("the watcher is created").created);
    let TestServer { server, dir: _dir } = server;
    let ended = async { tokio::time::timeout(DEADLINE, watching.next()).await.expect("it ends") };
    let (ended, ()) = tokio::join!(ended, server.shutdown());
    assert_eq!(ended.expect("it says why").expect_err("the server stops"), ApiError::Stopped.into());
    assert!(watching.next().await.is_none());
}

//! Looking after a member: status, alarms, hashes, health, reflection, automatic compaction.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction},
    health::{
        HealthCheckRequest, HealthCheckResponse, HealthListRequest, health_check_response::ServingStatus,
        health_client::HealthClient,
    },
};
use cairn_server::config::AutoCompaction;
use tonic::Code;

use super::support::{TestServer, eventually};

async fn put(server: &TestServer, key: &'static str, value: &'static str) {
    server
        .kv()
        .await
        .put(pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() })
        .await
        .expect("a put");
}

#[tokio::test]
async fn the_status_tells_who_leads_and_how_far_the_log_is() {
    let server = TestServer::start().await;
    put(&server, "a", "1").await;
    let status = server.maintenance().await.status(pb::StatusRequest {}).await.expect("a status").into_inner();
    let header = status.header.expect("a header");
    assert_eq!((status.leader, header.revision), (header.member_id, 2));
    assert!(status.raft_index >= status.raft_applied_index && status.raft_applied_index > 0);
    assert!(status.raft_term > 0 && status.db_size > 0 && status.db_size >= status.db_size_in_use);
    assert_eq!((&status.version[..], &status.storage_version[..]), ("3.7.1", "3.7.0"));
    assert_eq!(status.db_size_quota, 2 * 1024 * 1024 * 1024);
    assert_eq!(status.downgrade_info, Some(pb::DowngradeInfo::default()));
    assert!(status.errors.is_empty() && !status.is_learner);
}

#[tokio::test]
async fn alarms_are_raised_once_listed_and_lowered() {
    let server = TestServer::start().await;
    let mut client = server.maintenance().await;
    let member_id = server.server.node().status().member_id;
    let mut set = async |action: AlarmAction, member_id, alarm: AlarmType| {
        let request = pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
        client.alarm(request).await.expect("the alarm is answered").into_inner().alarms
    };
    let raised = vec![pb::AlarmMember { member_id, alarm: AlarmType::Nospace.into() }];
    assert_eq!(set(AlarmAction::Activate, member_id, AlarmType::Nospace).await, raised);
    assert_eq!(set(AlarmAction::Activate, member_id, AlarmType::Nospace).await, raised);
    assert_eq!(set(AlarmAction::Get, 0, AlarmType::None).await, raised);
    assert_eq!(set(AlarmAction::Get, 0, AlarmType::Corrupt).await, []);
    assert_eq!(set(AlarmAction::Deactivate, member_id + 1, AlarmType::Nospace).await, []);
    assert_eq!(set(AlarmAction::Deactivate, member_id, AlarmType::Nospace).await, raised);
    assert_eq!(set(AlarmAction::Get, 0, AlarmType::None).await, []);
    let unknown = client.alarm(pb::AlarmRequest { action: 7, ..Default::default() }).await.expect_err("no such action");
    assert_eq!(unknown.code(), Code::InvalidArgument);
    let strange = |action: AlarmAction| pb::AlarmRequest { action: action.into(), member_id, alarm: 9 };
    let unknown = client.alarm(strange(AlarmAction::Activate)).await.expect_err("no such alarm");
    assert_eq!((unknown.code(), unknown.message()), (Code::InvalidArgument, "etcdserver: unknown alarm 9"));
    for action in [AlarmAction::Get, AlarmAction::Deactivate] {
        let there = client.alarm(strange(action)).await.expect("it is answered").into_inner();
        assert_eq!(there.alarms, [], "{action:?}");
    }
}

#[tokio::test]
async fn hashes_follow_the_keys_and_survive_a_defragmentation() {
    let server = TestServer::start().await;
    let mut client = server.maintenance().await;
    put(&server, "a", "1").await;
    let mut hash =
        async |revision| client.hash_kv(pb::HashKvRequest { revision }).await.map(tonic::Response::into_inner);
    let first = hash(0).await.expect("a hash");
    assert_eq!((first.compact_revision, first.hash_revision), (-1, 2));
    put(&server, "a", "2").await;
    let second = hash(0).await.expect("a hash");
    assert_ne!(first.hash, second.hash);
    assert_eq!(hash(2).await.expect("a hash").hash, first.hash);
    assert_eq!(hash(99).await.expect_err("a future revision").message(), ApiError::FutureRevision.text());
    server.maintenance().await.defragment(pb::DefragmentRequest {}).await.expect("it defragments");
    assert_eq!(hash(0).await.expect("a hash").hash, second.hash);
    server.maintenance().await.hash(pb::HashRequest {}).await.expect("a hash over everything");
}

#[tokio::test]
async fn the_hash_of_everything_changes_with_every_write_whatever_was_compacted() {
    let server = TestServer::start().await;
    let hash = async || server.maintenance().await.hash(pb::HashRequest {}).await.expect("a hash").into_inner().hash;
    server
        .kv()
        .await
        .compact(pb::CompactionRequest { physical: true, ..Default::default() })
        .await
        .expect("it compacts");
    let mut seen = vec![hash().await];
    for value in ["1", "2", "1"] {
        put(&server, "a", value).await;
        seen.push(hash().await);
    }
    server.kv().await.compact(pb::CompactionRequest { revision: 3, physical: true }).await.expect("it compacts");
    put(&server, "b", "1").await;
    seen.push(hash().await);
    assert_eq!(seen.iter().collect::<HashSet<_>>().len(), seen.len(), "{seen:?}");
}

#[tokio::test]
async fn the_server_as_a_whole_is_serving_and_no_other_name_is_known() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.channel().await);
    let of = |service: &str| HealthCheckRequest { service: service.into() };
    let serving = HealthCheckResponse { status: ServingStatus::Serving.into() };
    assert_eq!(health.check(of("")).await.expect("it is known").into_inner(), serving);
    for service in ["etcdserverpb.KV", "nope"] {
        let unknown = health.check(of(service)).await.expect_err("no such service");
        assert_eq!((unknown.code(), unknown.message()), (Code::NotFound, "unknown service"), "{service}");
    }
    let all = health.list(HealthListRequest {}).await.expect("a list").into_inner();
    assert_eq!(all.statuses, HashMap::from([(String::new(), serving)]));
}

#[tokio::test]
async fn a_watched_health_is_told_at_once_and_the_call_stays_open_until_the_server_stops() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.channel().await);
    let mut watches = Vec::new();
    for (service, status) in [("", ServingStatus::Serving), ("nope", ServingStatus::ServiceUnknown)] {
        let mut watch = health.watch(HealthCheckRequest { service: service.into() }).await.expect("it is watched");
        let told = watch.get_mut().message().await.expect("a message").expect("a status");
        assert_eq!(told.status(), status, "{service:?}");
        watches.push(watch.into_inner());
    }
    let stopped = server.server.shutdown();
    let ended = async {
        for watch in &mut watches {
            let end = watch.message().await.expect_err("the call ends with an error");
            assert_eq!((end.code(), end.message()), (Code::Unavailable, ApiError::Stopped.text()));
        }
    };
    tokio::join!(stopped, ended);
}

#[tokio::test]
async fn calls_that_need_a_leader_pass_while_there_is_one() {
    let server = TestServer::start().await;
    let mut request = tonic::Request::new(pb::RangeRequest { key: "a".into(), ..Default::default() });
    request.metadata_mut().insert("hasleader", "true".parse().expect("a metadata value"));
    eventually("a leader", async || {
        server.kv().await.range(pb::RangeRequest { key: "a".into(), ..Default::default() }).await.ok()
    })
    .await;
    server.kv().await.range(request).await.expect("there is a leader");
}

#[tokio::test]
async fn old_history_is_dropped_by_time() {
    let server =
        TestServer::with(|config| config.auto_compaction = AutoCompaction::Periodic(Duration::from_secs(1))).await;
    put(&server, "a", "1").await;
    put(&server, "a", "2").await;
    put(&server, "a", "3").await;
    let old = pb::RangeRequest { key: "a".into(), revision: 2, ..Default::default() };
    let error = eventually("a compaction", async || server.kv().await.range(old.clone()).await.err()).await;
    assert_eq!(error.message(), ApiError::Compacted.text());
    let kept =
        server.kv().await.range(pb::RangeRequest { key: "a".into(), ..Default::default() }).await.expect("a range");
    assert_eq!(kept.into_inner().kvs[0].value, "3");
}

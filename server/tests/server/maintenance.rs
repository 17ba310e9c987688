//! Looking after a member: status, alarms, hashes, health, reflection, automatic compaction.

use std::time::Duration;

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction},
};
use cairn_server::config::AutoCompaction;
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

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
async fn every_service_is_serving() {
    let server = TestServer::start().await;
    let mut health = HealthClient::new(server.channel().await);
    for service in ["", "etcdserverpb.KV", "etcdserverpb.Watch", "v3lockpb.Lock"] {
        let answer =
            health.check(HealthCheckRequest { service: service.into() }).await.expect("it is known").into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = health.check(HealthCheckRequest { service: "nope".into() }).await.expect_err("no such service");
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watched = health.watch(HealthCheckRequest::default()).await.expect("it is watched").into_inner();
    assert_eq!(watched.message().await.expect("a message").expect("a state").status(), ServingStatus::Serving);
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

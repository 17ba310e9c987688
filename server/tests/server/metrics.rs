//! Metrics get their values of ordinary traffic.

use std::time::Duration;

use cairn_proto::etcdserverpb::{
    self as pb, AlarmType, WatchCreateRequest, alarm_request::AlarmAction, request_op::Request as Op,
};

use cairn_server::config::MetricsLevel;

use super::{
    support::{TestServer, eventually},
    watch::client::{Watching, create},
};

/// Observations of a histogram, its labels as on the page.
fn count(page: &str, family: &str, labels: &str) -> u64 {
    let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let name = format!("{family}_count{labels} ");
    page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

async fn page(server: &TestServer) -> String {
    server.http("GET", "/metrics").await.body
}

fn put(key: &'static str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: "12".into(), lease, ..Default::default() }
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

/// Two puts and a refused one, a delete, a transaction that writes and one that reads, a lease, a lease that is not
/// there, a compaction and one in vain, an alarm.
async fn traffic(server: &TestServer) {
    let (mut kv, mut lease) = (server.kv().await, server.lease().await);
    let get = pb::RangeRequest { key: "a".into(), ..Default::default() };
    lease.lease_grant(pb::LeaseGrantRequest { id: 7, ttl: 60 }).await.expect("a lease");
    kv.put(put("a", 0)).await.expect("a put");
    kv.put(put("b", 7)).await.expect("a put");
    kv.put(put("c", 8)).await.expect_err("a put with a lease that is not there");
    let delete = pb::DeleteRangeRequest { key: "a".into(), ..Default::default() };
    kv.delete_range(delete).await.expect("a delete");
    let writes = vec![op(Op::RequestPut(put("d", 0)))];
    kv.txn(pb::TxnRequest { success: writes, ..Default::default() }).await.expect("a transaction");
    let reads = vec![op(Op::RequestRange(get.clone()))];
    kv.txn(pb::TxnRequest { success: reads, ..Default::default() }).await.expect("a transaction of reads");
    lease.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await.expect("it is revoked");
    lease.lease_revoke(pb::LeaseRevokeRequest { id: 7 }).await.expect_err("it is revoked already");
    kv.compact(pb::CompactionRequest { revision: 4, physical: true }).await.expect("it compacts");
    kv.compact(pb::CompactionRequest { revision: 4, physical: true }).await.expect_err("it is compacted already");
    kv.range(pb::RangeRequest { revision: 2, ..get }).await.expect_err("it is compacted");
    let alarm = pb::AlarmRequest { action: AlarmAction::Get.into(), member_id: 0, alarm: AlarmType::None.into() };
    server.maintenance().await.alarm(alarm).await.expect("the alarms");
}

#[tokio::test]
async fn applying_is_measured_by_what_was_asked_for_and_whether_it_was_done() {
    let server = TestServer::start().await;
    eventually("the cluster version is applied", async || {
        let labels = "version=\"v3\",op=\"ClusterVersionSet\",success=\"true\"";
        (count(&page(&server).await, "etcd_server_apply_duration_seconds", labels) == 1).then_some(())
    })
    .await;
    traffic(&server).await;
    let page = page(&server).await;
    for (op, succeeded, failed) in [
        ("Put", 2, 1),
        ("DeleteRange", 1, 0),
        ("Txn", 1, 0),
        // What is compacted already did not fail, as with etcd.
        ("Compaction", 2, 0),
        ("LeaseGrant", 1, 0),
        ("LeaseRevoke", 1, 1),
        ("Alarm", 1, 0),
        ("ClusterMemberAttrSet", 1, 0),
        ("LeaseCheckpoint", 0, 0),
    ] {
        for (success, expected) in [(true, succeeded), (false, failed)] {
            let labels = format!("version=\"v3\",op=\"{op}\",success=\"{success}\"");
            let found = count(&page, "etcd_server_apply_duration_seconds", &labels);
            assert_eq!(found, expected, "{labels}");
        }
    }
    // What never happened has no lines.
    assert!(!page.contains("op=\"LeaseCheckpoint\""));
}

#[tokio::test]
async fn requests_are_measured_by_type_and_ranges_for_themselves() {
    let server = TestServer::start().await;
    let family = "etcd_server_request_duration_seconds";
    let (ranges, failed) = ("type=\"Range\",success=\"true\"", "type=\"Range\",success=\"false\"");
    // Probes read, too.
    let before = count(&page(&server).await, family, ranges);
    traffic(&server).await;
    let get = pb::RangeRequest { key: "b".into(), ..Default::default() };
    server.kv().await.range(get.clone()).await.expect("a range");
    server.kv().await.range(pb::RangeRequest { serializable: true, ..get }).await.expect("a range");
    let page = page(&server).await;
    for (kind, expected) in [
        // A refusal is a result.
        ("Put", 3),
        ("DeleteRange", 1),
        ("Txn", 1),
        ("ReadonlyTxn", 1),
        ("Compaction", 2),
        ("LeaseGrant", 1),
        ("LeaseRevoke", 2),
        ("Alarm", 1),
        ("ClusterMemberAttrSet", 1),
    ] {
        assert_eq!(count(&page, family, &format!("type=\"{kind}\",success=\"true\"")), expected, "{kind}");
    }
    assert_eq!((count(&page, family, ranges), count(&page, family, failed)), (before + 2, 1));
    let family = "etcd_server_range_duration_seconds";
    assert_eq!(count(&page, family, "success=\"true\""), before + 2);
    assert_eq!(count(&page, family, "success=\"false\""), 1);
}

#[tokio::test]
async fn each_write_to_the_disk_is_measured_under_ordinary_traffic() {
    let server = TestServer::start().await;
    let before = page(&server).await;
    traffic(&server).await;
    let after = page(&server).await;
    let more = |family| count(&after, family, "") - count(&before, family, "");
    // Requests one after the other are as many writes of the log and batches of the store.
    for family in [
        "etcd_disk_wal_write_duration_seconds",
        "etcd_disk_wal_fsync_duration_seconds",
        "etcd_disk_backend_commit_duration_seconds",
    ] {
        assert!(more(family) >= 11, "{family}: {}", more(family));
    }
    assert_eq!(
        count(&after, "etcd_disk_wal_write_duration_seconds", ""),
        count(&after, "etcd_disk_wal_fsync_duration_seconds", "")
    );
}

#[tokio::test]
async fn what_is_sent_to_watchers_is_measured() {
    let server = TestServer::with(|config| config.watch_progress_notify_interval = Duration::from_millis(100)).await;
    let wanted = WatchCreateRequest { progress_notify: true, ..create("a", "") };
    let mut watching = Watching::with(&server, wanted).await;
    server.kv().await.put(put("a", 0)).await.expect("a put");
    while watching.next().await.events.is_empty() {}
    for family in [
        "watch_stream_duration_seconds",
        "watch_stream_duration_per_event_seconds",
        "control_stream_duration_seconds",
        "progress_duration_seconds",
    ] {
        let family = format!("etcd_debugging_server_watch_send_loop_{family}");
        eventually(&family, async || (count(&page(&server).await, &family, "") > 0).then_some(())).await;
    }
}

/// Histograms that have nothing to show in a cluster of one member that was just started.
const EMPTY: &[(&str, &str)] = &[
    ("cairn_node_flush_duration_seconds", "the store is flushed from time to time"),
    ("etcd_debugging_snap_save_total_duration_seconds", "no member needs a snapshot"),
    ("etcd_disk_backend_snapshot_duration_seconds", "no member needs a snapshot"),
    ("etcd_snap_db_fsync_duration_seconds", "no member sends a snapshot"),
    ("etcd_snap_db_save_total_duration_seconds", "no member sends a snapshot"),
    ("etcd_snap_fsync_duration_seconds", "no member sends a snapshot"),
];

/// Values of a counter or gauge, of all labels.
fn total(page: &str, family: &str) -> f64 {
    let of_family = |line: &&str| line.strip_prefix(family).is_some_and(|rest| rest.starts_with([' ', '{']));
    let value = |line: &str| line.rsplit_once(' ').and_then(|(_, value)| value.parse::<f64>().ok());
    page.lines().filter(of_family).filter_map(value).sum()
}

#[tokio::test]
async fn no_family_stays_empty_once_everything_was_used() {
    let server = TestServer::with(|config| {
        config.watch_progress_notify_interval = Duration::from_millis(100);
        config.metrics = MetricsLevel::Extensive;
    })
    .await;
    let mut watching = Watching::with(&server, WatchCreateRequest { progress_notify: true, ..create("a", "z") }).await;
    traffic(&server).await;
    while watching.next().await.events.is_empty() {}
    let mut maintenance = server.maintenance().await;
    maintenance.defragment(pb::DefragmentRequest {}).await.expect("it defragments");
    maintenance.hash(pb::HashRequest {}).await.expect("a hash");
    maintenance.hash_kv(pb::HashKvRequest { revision: 0 }).await.expect("a hash");
    let mut lease = server.lease().await;
    lease.lease_grant(pb::LeaseGrantRequest { id: 9, ttl: 1 }).await.expect("a lease");
    let renewal = pb::LeaseKeepAliveRequest { id: 9 };
    let mut renewed = lease.lease_keep_alive(tokio_stream::once(renewal)).await.expect("a stream").into_inner();
    assert!(renewed.message().await.expect("an answer").expect("an answer").ttl > 0);
    eventually("all families have values", async || {
        let page = page(&server).await;
        let histograms = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" histogram"));
        let of_peers = |family: &&str| family.starts_with("etcd_network_");
        let mut empty = histograms.filter(|family| {
            !of_peers(family)
                && total(&page, &format!("{family}_count")) == 0.0
                && !EMPTY.iter().any(|(expected, _)| expected == family)
        });
        let counted = [
            "etcd_debugging_lease_granted_total",
            "etcd_debugging_lease_renewed_total",
            "etcd_debugging_lease_revoked_total",
            "etcd_debugging_mvcc_compact_revision",
            "etcd_debugging_mvcc_current_revision",
            "etcd_debugging_mvcc_db_compaction_keys_total",
            "etcd_debugging_mvcc_db_total_size_in_bytes",
            "etcd_debugging_mvcc_events_total",
            "etcd_debugging_mvcc_keys_total",
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "etcd_debugging_mvcc_watch_stream_total",
            "etcd_debugging_mvcc_watcher_total",
            "etcd_debugging_server_lease_expired_total",
            "etcd_disk_wal_write_bytes_total",
            "etcd_mvcc_db_total_size_in_bytes",
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "etcd_network_client_grpc_received_bytes_total",
            "etcd_network_client_grpc_sent_bytes_total",
            "etcd_server_client_requests_total",
            "etcd_server_has_leader",
            "etcd_server_is_leader",
            "etcd_server_leader_changes_seen_total",
            "etcd_server_proposals_applied_total",
            "etcd_server_proposals_committed_total",
            "etcd_server_quota_backend_bytes",
            "grpc_server_handled_total",
            "grpc_server_msg_received_total",
            "grpc_server_msg_sent_total",
            "grpc_server_started_total",
            "process_cpu_seconds_total",
            "process_open_fds",
            "process_resident_memory_bytes",
        ];
        let missing = counted.iter().copied().find(|family| total(&page, family) <= 0.0);
        let missing = empty.next().or(missing);
        // Shown if the test fails.
        missing.inspect(|family| println!("{family} is empty")).is_none().then_some(())
    })
    .await;
}

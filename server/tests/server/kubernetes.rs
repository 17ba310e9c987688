//! The shapes a Kubernetes API server sends, through TLS with client certificates.

use cairn_proto::{
    ApiError,
    etcdserverpb::{
        self as pb, compare, kv_client::KvClient, maintenance_client::MaintenanceClient, request_op::Request as Op,
        response_op::Response as Answer,
    },
};
use tonic::{Status, transport::Channel};

use super::support::{TestServer, certs};

struct Cluster {
    kv: KvClient<Channel>,
    channel: Channel,
    _server: TestServer,
}

async fn cluster() -> Cluster {
    let server = TestServer::with_tls(certs()).await;
    let channel = certs().connect(&server, Some(certs())).await.expect("a client with a certificate connects");
    Cluster { kv: KvClient::new(channel.clone()).max_decoding_message_size(usize::MAX), channel, _server: server }
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn get(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), limit: 1, ..Default::default() }
}

fn prefix(prefix: &str) -> pb::RangeRequest {
    let mut end = prefix.as_bytes().to_vec();
    *end.last_mut().expect("a prefix") += 1;
    pb::RangeRequest { key: prefix.to_owned().into(), range_end: end.into(), ..Default::default() }
}

fn put(key: &str, value: &str) -> pb::RequestOp {
    op(Op::RequestPut(pb::PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..Default::default()
    }))
}

fn if_mod(key: &str, revision: i64) -> pb::Compare {
    pb::Compare {
        key: key.to_owned().into(),
        target: compare::CompareTarget::Mod.into(),
        result: compare::CompareResult::Equal.into(),
        target_union: Some(compare::TargetUnion::ModRevision(revision)),
        ..Default::default()
    }
}

/// A write at an expected revision; the key is read instead if it has another one.
fn at(key: &str, revision: i64, then: pb::RequestOp) -> pb::TxnRequest {
    pb::TxnRequest {
        compare: vec![if_mod(key, revision)],
        success: vec![then],
        failure: vec![op(Op::RequestRange(get(key)))],
    }
}

impl Cluster {
    async fn range(&mut self, request: pb::RangeRequest) -> pb::RangeResponse {
        self.kv.range(request).await.expect("the range is answered").into_inner()
    }

    async fn txn(&mut self, request: pb::TxnRequest) -> pb::TxnResponse {
        self.kv.txn(request).await.expect("the txn is answered").into_inner()
    }

    /// Creates an object and returns its revision.
    async fn create(&mut self, key: &str, value: &str) -> i64 {
        let request = pb::TxnRequest { compare: vec![if_mod(key, 0)], success: vec![put(key, value)], failure: vec![] };
        let created = self.txn(request).await;
        assert!(created.succeeded);
        revision(created.header)
    }

    async fn pods(&mut self, count: usize) -> i64 {
        let mut last = 0;
        for n in 0..count {
            last = self.create(&format!("/registry/pods/default/pod-{n:03}"), &format!("{{\"pod\":{n}}}")).await;
        }
        last
    }
}

fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.expect("a header").revision
}

fn keys(kvs: &[cairn_proto::mvccpb::KeyValue]) -> Vec<String> {
    kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect()
}

fn is(error: &Status, expected: ApiError) {
    assert_eq!((error.code(), error.message()), (expected.code(), expected.text()));
}

#[tokio::test]
async fn a_get_has_a_header_revision_even_if_the_key_is_missing() {
    let mut cluster = cluster().await;
    assert_eq!(revision(cluster.range(get("/registry/pods/default/none")).await.header), 1);
    let created = cluster.create("/registry/pods/default/a", "1").await;
    let found = cluster.range(get("/registry/pods/default/a")).await;
    assert_eq!((found.kvs.len(), found.kvs[0].mod_revision, revision(found.header)), (1, created, created));
    let missing = cluster.range(get("/registry/pods/default/none")).await;
    assert_eq!((missing.kvs.len(), missing.count, revision(missing.header)), (0, 0, created));
    // The current revision is asked for with the prefix itself, which is no key.
    assert_eq!(revision(cluster.range(get("/registry/pods")).await.header), created);
}

#[tokio::test]
async fn a_get_at_a_revision_sees_that_revision() {
    let mut cluster = cluster().await;
    let created = cluster.create("/registry/pods/default/a", "1").await;
    let updated = revision(
        cluster.txn(at("/registry/pods/default/a", created, put("/registry/pods/default/a", "2"))).await.header,
    );
    let old = cluster.range(pb::RangeRequest { revision: created, ..get("/registry/pods/default/a") }).await;
    assert_eq!((&old.kvs[0].value[..], revision(old.header)), (&b"1"[..], updated));
    let future = cluster.kv.range(pb::RangeRequest { revision: updated + 1, ..get("/registry/pods/default/a") }).await;
    is(&future.expect_err("a future revision"), ApiError::FutureRevision);
}

#[tokio::test]
async fn a_list_goes_on_in_pages_at_the_revision_of_its_first() {
    let mut cluster = cluster().await;
    let listed_at = cluster.pods(25).await;
    let first = cluster.range(pb::RangeRequest { limit: 10, ..prefix("/registry/pods/") }).await;
    assert_eq!((first.kvs.len(), first.count, first.more, revision(first.header)), (10, 25, true, listed_at));
    cluster.create("/registry/pods/default/pod-005b", "late").await;
    let mut all = keys(&first.kvs);
    let mut more = true;
    while more {
        let from = format!("{}\0", all.last().expect("a key"));
        let request =
            pb::RangeRequest { key: from.into(), limit: 10, revision: listed_at, ..prefix("/registry/pods/") };
        let page = cluster.range(request).await;
        assert_eq!(page.count as usize, 25 - all.len());
        more = page.more;
        assert_eq!(more, (page.kvs.len() as i64) < page.count);
        all.extend(keys(&page.kvs));
    }
    assert_eq!(all, (0..25).map(|n| format!("/registry/pods/default/pod-{n:03}")).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_streamed_list_is_the_list() {
    let mut cluster = cluster().await;
    cluster.pods(300).await;
    for request in [
        prefix("/registry/pods/"),
        pb::RangeRequest { limit: 100, ..prefix("/registry/pods/") },
        pb::RangeRequest { revision: 50, ..prefix("/registry/pods/") },
        pb::RangeRequest { count_only: true, ..prefix("/registry/pods/") },
        pb::RangeRequest { keys_only: true, ..prefix("/registry/pods/") },
        prefix("/registry/none/"),
    ] {
        let mut pieces = cluster.kv.range_stream(request.clone()).await.expect("the stream begins").into_inner();
        let mut merged = pb::RangeResponse::default();
        let mut headers = 0;
        while let Some(piece) = pieces.message().await.expect("the stream goes on") {
            let piece = piece.range_response.expect("a piece");
            headers += usize::from(piece.header.is_some());
            merged.kvs.extend(piece.kvs);
            merged.header = piece.header.or(merged.header);
            merged.more |= piece.more;
            merged.count += piece.count;
        }
        assert_eq!(headers, 1, "the header comes with the last piece only");
        assert_eq!(merged, cluster.range(request).await);
    }
}

#[tokio::test]
async fn counts_and_sizes_need_no_values() {
    let mut cluster = cluster().await;
    cluster.pods(7).await;
    let counted = cluster.range(pb::RangeRequest { count_only: true, ..prefix("/registry/pods/") }).await;
    assert_eq!((counted.count, counted.kvs.len(), counted.more), (7, 0, false));
    let listed = cluster.range(pb::RangeRequest { keys_only: true, ..prefix("/registry/pods/") }).await;
    assert!(listed.kvs.len() == 7 && listed.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
}

#[tokio::test]
async fn a_create_succeeds_once() {
    let mut cluster = cluster().await;
    cluster.create("/registry/pods/default/a", "1").await;
    let request = pb::TxnRequest {
        compare: vec![if_mod("/registry/pods/default/a", 0)],
        success: vec![put("/registry/pods/default/a", "2")],
        failure: vec![],
    };
    let again = cluster.txn(request).await;
    assert!(!again.succeeded && again.responses.is_empty());
    assert_eq!(revision(again.header), 2);
}

#[tokio::test]
async fn an_update_at_another_revision_gets_the_object_instead() {
    let mut cluster = cluster().await;
    let created = cluster.create("/registry/pods/default/a", "1").await;
    let updated = cluster.txn(at("/registry/pods/default/a", created, put("/registry/pods/default/a", "2"))).await;
    assert!(updated.succeeded && revision(updated.header) == created + 1);
    let late = cluster.txn(at("/registry/pods/default/a", created, put("/registry/pods/default/a", "3"))).await;
    assert!(!late.succeeded);
    let Some(Answer::ResponseRange(found)) = &late.responses[0].response else {
        panic!("a range was asked for: {late:?}")
    };
    assert_eq!((&found.kvs[0].value[..], found.kvs[0].mod_revision, found.kvs[0].version), (&b"2"[..], created + 1, 2));
}

#[tokio::test]
async fn a_delete_at_another_revision_gets_the_object_instead() {
    let mut cluster = cluster().await;
    let created = cluster.create("/registry/pods/default/a", "1").await;
    let delete = || {
        op(Op::RequestDeleteRange(pb::DeleteRangeRequest {
            key: "/registry/pods/default/a".into(),
            ..Default::default()
        }))
    };
    let wrong = cluster.txn(at("/registry/pods/default/a", created + 5, delete())).await;
    let Some(Answer::ResponseRange(found)) = &wrong.responses[0].response else {
        panic!("a range was asked for: {wrong:?}")
    };
    assert_eq!((wrong.succeeded, found.kvs.len()), (false, 1));
    let deleted = cluster.txn(at("/registry/pods/default/a", created, delete())).await;
    let Some(Answer::ResponseDeleteRange(gone)) = &deleted.responses[0].response else {
        panic!("a delete was asked for: {deleted:?}")
    };
    assert_eq!((deleted.succeeded, gone.deleted, revision(deleted.header)), (true, 1, created + 1));
    assert_eq!(cluster.range(get("/registry/pods/default/a")).await.count, 0);
}

#[tokio::test]
async fn compaction_is_agreed_on_through_a_key() {
    let mut cluster = cluster().await;
    let last = cluster.pods(10).await;
    let claim = |version, revision: i64| pb::TxnRequest {
        compare: vec![pb::Compare {
            key: "compact_rev_key".into(),
            target: compare::CompareTarget::Version.into(),
            target_union: Some(compare::TargetUnion::Version(version)),
            ..Default::default()
        }],
        success: vec![put("compact_rev_key", &revision.to_string())],
        failure: vec![op(Op::RequestRange(get("compact_rev_key")))],
    };
    assert!(cluster.txn(claim(0, last)).await.succeeded);
    let other = cluster.txn(claim(0, last)).await;
    let Some(Answer::ResponseRange(found)) = &other.responses[0].response else {
        panic!("a range was asked for: {other:?}")
    };
    assert_eq!((other.succeeded, found.kvs[0].version), (false, 1));

    let compacted =
        cluster.kv.compact(pb::CompactionRequest { revision: last, physical: false }).await.expect("it compacts");
    assert_eq!(revision(compacted.into_inner().header), last + 1);
    let read = cluster.kv.range(pb::RangeRequest { revision: last - 1, ..prefix("/registry/pods/") }).await;
    is(&read.expect_err("compacted"), ApiError::Compacted);
    let again = cluster.kv.compact(pb::CompactionRequest { revision: last, physical: true }).await;
    is(&again.expect_err("compacted"), ApiError::Compacted);
    let kept = cluster.range(pb::RangeRequest { revision: last, ..prefix("/registry/pods/") }).await;
    assert_eq!(kept.count, 10);
}

#[tokio::test]
async fn a_physical_compaction_is_done_when_it_is_answered() {
    let mut cluster = cluster().await;
    let mut last = cluster.create("/registry/a", "0").await;
    for n in 1..50 {
        last = revision(cluster.txn(at("/registry/a", last, put("/registry/a", &n.to_string()))).await.header);
    }
    cluster.kv.compact(pb::CompactionRequest { revision: last, physical: true }).await.expect("it compacts");
    let found = cluster.range(get("/registry/a")).await;
    assert_eq!((&found.kvs[0].value[..], found.kvs[0].version), (&b"49"[..], 50));
}

#[tokio::test]
async fn the_feature_check_finds_a_version_it_trusts() {
    let cluster = cluster().await;
    let mut maintenance = MaintenanceClient::new(cluster.channel.clone());
    let status = maintenance.status(pb::StatusRequest {}).await.expect("the status is answered").into_inner();
    let numbers: Vec<u32> = status.version.split('.').map(|part| part.parse().expect("a number")).collect();
    assert_eq!(numbers.len(), 3, "{}", status.version);
    assert!(numbers >= vec![3, 5, 13], "{}", status.version);
}

#[tokio::test]
async fn what_is_missing_says_so_and_leaves_the_connection_usable() {
    let mut cluster = cluster().await;
    let mut maintenance = pb::maintenance_client::MaintenanceClient::new(cluster.channel.clone());
    let error = maintenance.snapshot(pb::SnapshotRequest {}).await.map(drop).expect_err("it is missing");
    assert_eq!(error.code(), tonic::Code::Unimplemented);
    assert!(error.message().contains("snapshot"), "{}", error.message());
    cluster.create("/registry/health", "1").await;
}

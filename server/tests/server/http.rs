//! The HTTP endpoints, byte for byte.

use std::collections::HashMap;

use cairn_proto::{
    ApiError,
    etcdserverpb::{
        self as pb, AlarmType, alarm_request::AlarmAction, cluster_client::ClusterClient, request_op::Request as Op,
    },
};
use cairn_server::config::{ClusterState, Url};

use super::{
    cluster::free_port,
    support::{TestServer, eventually, http},
    trio::url,
};

async fn set_alarm(server: &TestServer, action: AlarmAction, alarm: AlarmType) {
    let member_id = server.server.node().status().member_id;
    let request = pb::AlarmRequest { action: action.into(), member_id, alarm: alarm.into() };
    server.maintenance().await.alarm(request).await.expect("the alarm is set");
}

#[tokio::test]
async fn the_version_is_told_as_json() {
    let server = TestServer::start().await;
    let expected = r#"{"etcdserver":"3.7.1","etcdcluster":"3.7.0","storage":"3.7.0"}"#;
    let answer = eventually("the cluster version", async || {
        let answer = server.http("GET", "/version").await;
        (answer.body == expected).then_some(answer)
    });
    let answer = answer.await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let wrong = server.http("POST", "/version").await;
    assert_eq!((wrong.status, wrong.header("allow"), &wrong.body[..]), (405, Some("GET"), "Method Not Allowed\n"));
}

#[tokio::test]
async fn a_healthy_member_says_so_without_a_newline() {
    let server = TestServer::start().await;
    for target in ["/health", "/health?serializable=true", "/health?exclude=NOSPACE"] {
        let answer = server.http("GET", target).await;
        assert_eq!((answer.status, &answer.body[..]), (200, r#"{"health":"true","reason":""}"#), "{target}");
        assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
        assert_eq!(answer.header("content-length"), Some("29"));
    }
    for method in ["POST", "HEAD", "PUT"] {
        assert_eq!(server.http(method, "/health").await.status, 405, "{method}");
    }
}

#[tokio::test]
async fn an_alarm_makes_a_member_unhealthy_unless_it_is_excluded() {
    let server = TestServer::start().await;
    set_alarm(&server, AlarmAction::Activate, AlarmType::Nospace).await;
    let answer = server.http("GET", "/health").await;
    assert_eq!((answer.status, &answer.body[..]), (503, "{\"health\":\"false\",\"reason\":\"ALARM NOSPACE\"}\n"));
    assert_eq!(server.http("GET", "/health?exclude=NOSPACE").await.status, 200);
    assert_eq!(server.http("GET", "/health?exclude=CORRUPT").await.status, 503);
    // Probes must not restart a member that is merely full.
    assert_eq!(server.http("GET", "/readyz").await.status, 200);
    assert_eq!(server.http("GET", "/livez").await.status, 200);
    set_alarm(&server, AlarmAction::Deactivate, AlarmType::Nospace).await;
    assert_eq!(server.http("GET", "/health").await.status, 200);
}

#[tokio::test]
async fn probes_are_ok_and_tell_their_checks_when_asked() {
    let server = TestServer::start().await;
    let ok = |body: &str| (200, body.to_owned());
    let all = "[+]data_corruption ok\n[+]linearizable_read ok\n[+]non_learner ok\n[+]serializable_read ok\nok\n";
    for (target, expected) in [
        ("/livez", ok("ok\n")),
        ("/livez?verbose", ok("[+]serializable_read ok\nok\n")),
        ("/livez/serializable_read", ok("ok\n")),
        ("/readyz", ok("ok\n")),
        ("/readyz?verbose", ok(all)),
        (
            "/readyz?verbose&exclude=non_learner&exclude=serializable_read",
            ok("[+]data_corruption ok\n[+]linearizable_read ok\nok\n"),
        ),
        ("/readyz/linearizable_read?verbose", ok("[+]linearizable_read ok\nok\n")),
        ("/readyz/nothing", (404, "404 page not found\n".to_owned())),
    ] {
        let answer = server.http("GET", target).await;
        assert_eq!((answer.status, answer.body), expected, "{target}");
    }
    assert_eq!(server.http("POST", "/readyz").await.status, 405);
}

/// A member with a vote and one without.
pub async fn with_learner() -> (TestServer, TestServer) {
    let urls = [url(free_port()), url(free_port())];
    let member = async |at: usize, state| {
        TestServer::with(|config| {
            config.name = format!("n{at}");
            config.listen_peer_urls = vec![urls[at].clone()];
            config.initial_advertise_peer_urls = vec![urls[at].clone()];
            config.initial_cluster = (0..=at).map(|at| (format!("n{at}"), urls[at].clone())).collect();
            config.initial_cluster_state = state;
        })
        .await
    };
    let voter = member(0, ClusterState::New).await;
    let add = pb::MemberAddRequest { peer_urls: vec![urls[1].to_string()], is_learner: true };
    ClusterClient::new(voter.channel().await).member_add(add).await.expect("it is added");
    let learner = member(1, ClusterState::Existing).await;
    (voter, learner)
}

#[tokio::test]
async fn a_learner_is_healthy_and_fails_only_the_probe_that_asks_for_a_vote() {
    let (voter, learner) = with_learner().await;
    let told = async |target| {
        let answer = learner.http("GET", target).await;
        (answer.status, answer.body)
    };
    let healthy = (200, r#"{"health":"true","reason":""}"#.to_owned());
    eventually("it hears of the leader", async || (told("/health").await == healthy).then_some(())).await;
    let refused = "[+]data_corruption ok\n[+]linearizable_read ok\n\
                   [-]non_learner failed: etcdserver: rpc not supported for learner\n[+]serializable_read ok\n\n";
    assert_eq!(told("/readyz").await, (503, refused.to_owned()));
    for target in ["/readyz?exclude=non_learner", "/readyz/linearizable_read", "/livez"] {
        assert_eq!(told(target).await, (200, "ok\n".to_owned()), "{target}");
    }
    // Clients are refused as before.
    let read = pb::RangeRequest { key: "a".into(), ..Default::default() };
    let error = learner.kv().await.range(read.clone()).await.expect_err("a learner reads for nobody");
    assert_eq!(error.message(), ApiError::NotSupportedForLearner.text());
    let own = pb::RangeRequest { serializable: true, ..read };
    learner.kv().await.range(own).await.expect("but for those who take what it has");

    // Its read is one of the cluster's, not of what it has itself.
    voter.server.shutdown().await;
    eventually("it misses the leader", async || (told("/health").await.0 == 503).then_some(())).await;
    assert_eq!(told("/health?serializable=true").await, healthy);
}

#[tokio::test]
async fn corruption_fails_the_probe_that_looks_for_it() {
    let server = TestServer::start().await;
    set_alarm(&server, AlarmAction::Activate, AlarmType::Corrupt).await;
    let answer = server.http("GET", "/readyz").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.starts_with("[-]data_corruption failed: alarm activated: CORRUPT\n"), "{}", answer.body);
    assert_eq!(server.http("GET", "/readyz?exclude=data_corruption").await.status, 200);
    assert_eq!(server.http("GET", "/livez").await.status, 200);
}

#[tokio::test]
async fn unknown_paths_are_not_found_and_the_gateway_says_that_it_is_missing() {
    let server = TestServer::start().await;
    let answer = server.http("GET", "/nothing").await;
    assert_eq!((answer.status, &answer.body[..]), (404, "404 page not found\n"));
    let gateway = server.http("POST", "/v3/kv/range").await;
    assert_eq!(gateway.status, 501);
    assert!(gateway.body.contains("\"code\":12"), "{}", gateway.body);
}

#[tokio::test]
async fn only_listed_hosts_and_origins_are_served_over_plain_http() {
    let server = TestServer::with(|config| {
        config.host_whitelist = vec!["127.0.0.1".to_owned()];
        config.cors = vec!["https://ui.example".to_owned()];
    })
    .await;
    assert_eq!(server.http("GET", "/health").await.status, 200);
    let ask = |host: &str, origin: &str| {
        format!("GET /health HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nConnection: close\r\n\r\n")
    };
    assert_eq!(http(server.addr(), &ask("evil.example", "https://ui.example")).await.status, 421);
    let allowed = http(server.addr(), &ask("127.0.0.1", "https://ui.example")).await;
    assert_eq!(allowed.header("access-control-allow-origin"), Some("https://ui.example"));
    let other = http(server.addr(), &ask("127.0.0.1", "https://evil.example")).await;
    assert_eq!(other.header("access-control-allow-origin"), None);
}

/// Metric families by name, with their types.
fn families(text: &str) -> HashMap<&str, &str> {
    text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect()
}

/// Families under etcd's names that the genuine list lacks: older ones that dashboards still ask for.
const OTHERS: &[&str] = &[
    "etcd_debugging_mvcc_db_total_size_in_bytes",
    "etcd_debugging_mvcc_delete_total",
    "etcd_debugging_mvcc_put_total",
    "etcd_debugging_mvcc_range_total",
    "etcd_debugging_mvcc_txn_total",
];

const NO_COLLECTOR: &str = "memory is not collected here";
const NO_HEAP: &str =
    "the allocator tells no figures to safe code, and process_resident_memory_bytes has what it holds";

/// Families of a genuine server that are not here, and why.
const ABSENT: &[(&str, &str)] = &[
    ("etcd_debugging_disk_backend_commit_rebalance_duration_seconds", "the store has no tree of pages"),
    ("etcd_debugging_disk_backend_commit_spill_duration_seconds", "the store has no tree of pages"),
    (
        "etcd_debugging_disk_backend_commit_write_duration_seconds",
        "a commit is one write: etcd_disk_backend_commit_duration_seconds",
    ),
    (
        "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
        "index and store are compacted in the same steps, which are measured",
    ),
    (
        "etcd_debugging_snap_save_marshalling_duration_seconds",
        "a snapshot is files of the store: nothing is encoded for it",
    ),
    ("etcd_debugging_store_expires_total", "there is no store of the v2 API"),
    ("etcd_debugging_store_reads_total", "there is no store of the v2 API"),
    ("etcd_debugging_store_watch_requests_total", "there is no store of the v2 API"),
    ("etcd_debugging_store_watchers", "there is no store of the v2 API"),
    ("etcd_debugging_store_writes_total", "there is no store of the v2 API"),
    ("go_gc_duration_seconds", NO_COLLECTOR),
    ("go_gc_gogc_percent", NO_COLLECTOR),
    ("go_gc_gomemlimit_bytes", NO_COLLECTOR),
    ("go_info", "this is not a program in Go"),
    ("go_memstats_alloc_bytes", NO_HEAP),
    ("go_memstats_alloc_bytes_total", NO_HEAP),
    ("go_memstats_buck_hash_sys_bytes", NO_HEAP),
    ("go_memstats_frees_total", NO_HEAP),
    ("go_memstats_gc_sys_bytes", NO_COLLECTOR),
    ("go_memstats_heap_alloc_bytes", NO_HEAP),
    ("go_memstats_heap_idle_bytes", NO_HEAP),
    ("go_memstats_heap_inuse_bytes", NO_HEAP),
    ("go_memstats_heap_objects", NO_HEAP),
    ("go_memstats_heap_released_bytes", NO_HEAP),
    ("go_memstats_heap_sys_bytes", NO_HEAP),
    ("go_memstats_last_gc_time_seconds", NO_COLLECTOR),
    ("go_memstats_mallocs_total", NO_HEAP),
    ("go_memstats_mcache_inuse_bytes", NO_HEAP),
    ("go_memstats_mcache_sys_bytes", NO_HEAP),
    ("go_memstats_mspan_inuse_bytes", NO_HEAP),
    ("go_memstats_mspan_sys_bytes", NO_HEAP),
    ("go_memstats_next_gc_bytes", NO_COLLECTOR),
    ("go_memstats_other_sys_bytes", NO_HEAP),
    ("go_memstats_stack_inuse_bytes", NO_HEAP),
    ("go_memstats_stack_sys_bytes", NO_HEAP),
    ("go_memstats_sys_bytes", NO_HEAP),
    ("etcd_grpc_proxy_cache_hits_total", "there is no proxy"),
    ("etcd_grpc_proxy_cache_keys_total", "there is no proxy"),
    ("etcd_grpc_proxy_cache_misses_total", "there is no proxy"),
    ("etcd_grpc_proxy_events_coalescing_total", "there is no proxy"),
    ("etcd_grpc_proxy_watchers_coalescing_total", "there is no proxy"),
    ("etcd_server_go_version", "this is not a program in Go"),
];

#[tokio::test]
async fn metrics_have_the_names_and_types_of_a_genuine_server() {
    let server = TestServer::start().await;
    server.kv().await.put(pb::PutRequest { key: "a".into(), ..Default::default() }).await.expect("a put");
    let answer = server.http("GET", "/metrics").await;
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let ours = families(&answer.body);
    let genuine: HashMap<&str, &str> =
        include_str!("testdata/etcd-3.7-metrics.txt").lines().filter_map(|line| line.split_once(' ')).collect();
    for (name, kind) in &ours {
        match genuine.get(name) {
            Some(expected) => assert_eq!(kind, expected, "type of {name}"),
            None => {
                assert!(name.starts_with("cairn_") || OTHERS.contains(name), "{name} is no metric of a genuine server");
            }
        }
    }
    let absent: HashMap<&str, &str> = ABSENT.iter().copied().collect();
    for name in genuine.keys() {
        match (ours.contains_key(name), absent.get(name)) {
            (false, None) => panic!("{name} is missing"),
            (true, Some(why)) => panic!("{name} is there: take it off the list, where it says {why:?}"),
            _ => {}
        }
    }
    let surplus: Vec<_> = absent.keys().filter(|name| !genuine.contains_key(*name)).collect();
    assert!(surplus.is_empty(), "{surplus:?} are no metrics of a genuine server");
    let declared_twice = answer.body.lines().filter(|line| line.starts_with("# TYPE ")).count() - ours.len();
    assert_eq!(declared_twice, 0);
}

#[tokio::test]
async fn members_gates_scrapes_and_the_runtime_are_shown() {
    let server = TestServer::with(|config| config.compact_hash_check = true).await;
    server.http("GET", "/metrics").await;
    let text = server.http("GET", "/metrics").await.body;
    let id = text.lines().find_map(|line| line.strip_prefix("etcd_server_id{server_id=\"")?.strip_suffix("\"} 1"));
    let id = id.expect("the member's id");
    for line in [
        &format!("etcd_network_known_peers{{Local=\"{id}\",Remote=\"{id}\"}} 1"),
        "etcd_server_feature_enabled{name=\"CompactHashCheck\",stage=\"ALPHA\"} 1",
        "etcd_server_feature_enabled{name=\"InitialCorruptCheck\",stage=\"ALPHA\"} 0",
        "promhttp_metric_handler_requests_total{code=\"200\"} 1",
        "promhttp_metric_handler_requests_total{code=\"500\"} 0",
        "promhttp_metric_handler_requests_in_flight 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
    }
    for name in ["go_goroutines", "go_threads", "go_sched_gomaxprocs_threads", "process_network_receive_bytes_total"] {
        assert!(metric(&server, name).await > 0, "{name}");
    }
}

/// The value of a metric, its labels included in the name.
async fn metric(server: &TestServer, name: &str) -> u64 {
    let text = server.http("GET", "/metrics").await.body;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("{name} is missing in\n{text}"))
}

#[tokio::test]
async fn what_happens_to_keys_is_counted() {
    let server = TestServer::start().await;
    let mut kv = server.kv().await;
    let put = |key: &'static str| pb::PutRequest { key: key.into(), value: "12".into(), ..Default::default() };
    let get = pb::RangeRequest { key: "a".into(), ..Default::default() };
    let op = |request| pb::RequestOp { request: Some(request) };
    // Ranges are counted by probes too.
    let ranges_before = metric(&server, "etcd_mvcc_range_total").await;
    for key in ["a", "a", "b"] {
        kv.put(put(key)).await.expect("a put");
    }
    kv.range(get.clone()).await.expect("a range");
    let both = vec![op(Op::RequestPut(put("c"))), op(Op::RequestRange(get.clone()))];
    kv.txn(pb::TxnRequest { success: both, ..Default::default() }).await.expect("a txn");
    let reads = vec![op(Op::RequestRange(get.clone())), op(Op::RequestRange(get.clone()))];
    kv.txn(pb::TxnRequest { success: reads, ..Default::default() }).await.expect("a txn of reads");
    kv.txn(pb::TxnRequest { success: vec![op(Op::RequestPut(put("d")))], ..Default::default() }).await.expect("a txn");
    let delete = pb::DeleteRangeRequest { key: "b".into(), range_end: "d".into(), ..Default::default() };
    kv.delete_range(delete).await.expect("a delete");
    kv.compact(pb::CompactionRequest { revision: 7, physical: true }).await.expect("it compacts");
    server.maintenance().await.defragment(pb::DefragmentRequest {}).await.expect("it defragments");
    let mut request = tonic::Request::new(get);
    request.metadata_mut().insert("client-api-version", "3.5.1".parse().expect("a metadata value"));
    kv.range(request).await.expect("a range");

    for (name, value) in [
        ("etcd_mvcc_put_total", 5),
        ("etcd_debugging_mvcc_total_put_size_in_bytes", 15),
        ("etcd_mvcc_delete_total", 1),
        ("etcd_mvcc_txn_total", 2),
        ("etcd_mvcc_range_total", ranges_before + 5),
        ("etcd_debugging_mvcc_put_total", 5),
        ("etcd_debugging_mvcc_delete_total", 1),
        ("etcd_debugging_mvcc_txn_total", 2),
        ("etcd_debugging_mvcc_range_total", ranges_before + 5),
        ("etcd_debugging_mvcc_keys_total", 2),
        ("etcd_mvcc_db_open_read_transactions", 0),
        ("etcd_disk_backend_defrag_duration_seconds_count", 1),
        ("etcd_disk_defrag_inflight", 0),
        ("etcd_server_client_requests_total{type=\"unary\",client_api_version=\"3.5.1\"}", 1),
        ("etcd_server_heartbeat_send_failures_total", 0),
    ] {
        assert_eq!(metric(&server, name).await, value, "{name}");
    }
    eventually("the compaction is measured", async || {
        let last = metric(&server, "etcd_debugging_mvcc_db_compaction_last").await;
        let total = metric(&server, "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds_count").await;
        (last > 1_000_000_000 && total == 1).then_some(())
    })
    .await;
    // What was put first under a, and what was deleted.
    assert_eq!(metric(&server, "etcd_debugging_mvcc_db_compaction_keys_total").await, 3);
    assert!(metric(&server, "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds_count").await >= 1);
}

#[tokio::test]
async fn calls_are_counted_by_method_and_code() {
    let server = TestServer::start().await;
    let mut kv = server.kv().await;
    kv.put(pb::PutRequest { key: "a".into(), ..Default::default() }).await.expect("a put");
    kv.put(pb::PutRequest::default()).await.expect_err("a put without a key");
    let text = server.http("GET", "/metrics").await.body;
    let labels = |code: &str| {
        format!("grpc_code=\"{code}\",grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"")
    };
    for line in [
        format!("grpc_server_handled_total{{{}}} 1", labels("OK")),
        format!("grpc_server_handled_total{{{}}} 1", labels("InvalidArgument")),
        format!("grpc_server_handled_total{{{}}} 0", labels("Unavailable")),
        "grpc_server_started_total{grpc_method=\"Put\",grpc_service=\"etcdserverpb.KV\",grpc_type=\"unary\"} 2"
            .to_owned(),
        "etcd_server_version{server_version=\"3.7.1\"} 1".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing");
    }
}

#[tokio::test]
async fn the_metrics_port_serves_metrics_and_health_only() {
    let server = TestServer::with(|config| {
        config.listen_metrics_urls = vec![Url::parse("http://127.0.0.1:0").expect("a valid URL")];
    })
    .await;
    assert!(server.server.ready().await, "it serves");
    let addr = server.server.addrs()[1];
    for (path, status) in
        [("/metrics", 200), ("/health", 200), ("/readyz", 200), ("/version", 404), ("/v3/kv/range", 404)]
    {
        let answer = http(addr, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")).await;
        assert_eq!(answer.status, status, "{path}");
    }
    let channel =
        tonic::transport::Endpoint::from_shared(format!("http://{addr}")).expect("a valid URL").connect().await;
    let kv = cairn_proto::etcdserverpb::kv_client::KvClient::new(channel.expect("the port accepts"));
    kv.clone().range(pb::RangeRequest { key: "a".into(), ..Default::default() }).await.expect_err("no gRPC there");
}

#[tokio::test]
async fn a_body_that_does_not_matter_is_read_to_its_end() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let server = TestServer::start().await;
    let mut stream = tokio::net::TcpStream::connect(server.addr()).await.expect("the server accepts");
    let body = vec![b'x'; 2 << 20];
    for path in ["/nothing", "/version", "/v3/nothing"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(head.as_bytes()).await.expect("the head is sent");
        stream.write_all(&body).await.expect("the body is sent whole");
        let mut answer = vec![0; 4096];
        let read = stream.read(&mut answer).await.expect("it is answered on the connection that goes on");
        assert!(answer[..read].starts_with(b"HTTP/1.1 "), "{:?}", String::from_utf8_lossy(&answer[..read]));
    }
}

#[tokio::test]
async fn variables_of_the_process_have_the_shape_of_expvar() {
    let server = TestServer::start().await;
    let answer = server.http("GET", "/debug/vars").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json; charset=utf-8")));
    let variables: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
    assert!(variables["cmdline"][0].as_str().is_some_and(|program| !program.is_empty()), "{variables}");
    assert!(variables["file_descriptor_limit"].as_f64().is_some_and(|limit| limit > 0.0), "{variables}");
    let raft = &variables["raft.status"];
    assert_eq!(raft["raftState"], "StateLeader");
    assert_eq!(raft["lead"], format!("{:x}", server.server.node().status().member_id));
}

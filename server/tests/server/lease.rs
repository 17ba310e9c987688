//! Leases, from outside.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, lease_client::LeaseClient, request_op::Request::RequestPut},
};
use futures::{StreamExt, stream};
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Request, Status, Streaming, transport::Channel};

use super::{
    process::Process,
    support::{DEADLINE, RawCodec, TestServer, builder, eventually},
};

/// A stream of keep-alives.
#[derive(Debug)]
pub struct KeepAlive {
    requests: mpsc::Sender<pb::LeaseKeepAliveRequest>,
    answers: Streaming<pb::LeaseKeepAliveResponse>,
}

impl KeepAlive {
    pub async fn open(client: &mut LeaseClient<Channel>) -> Self {
        let (requests, receiver) = mpsc::channel(16);
        let answers = client.lease_keep_alive(ReceiverStream::new(receiver)).await.expect("the stream opens");
        Self { requests, answers: answers.into_inner() }
    }

    /// Renews a lease; gives the seconds it was renewed for.
    pub async fn renew(&mut self, id: i64) -> i64 {
        self.try_renew(id).await.expect("an answer")
    }

    /// The same for a server that may not be able to.
    pub async fn try_renew(&mut self, id: i64) -> Result<i64, Status> {
        self.requests.send(pb::LeaseKeepAliveRequest { id }).await.expect("the stream is open");
        let answer = self.next().await?.expect("the stream goes on");
        assert_eq!(answer.id, id);
        assert!(answer.header.is_some_and(|header| header.revision > 0));
        Ok(answer.ttl)
    }

    async fn next(&mut self) -> Result<Option<pb::LeaseKeepAliveResponse>, Status> {
        tokio::time::timeout(DEADLINE, self.answers.message()).await.expect("an answer in time")
    }
}

fn grant(id: i64, ttl: i64) -> pb::LeaseGrantRequest {
    pb::LeaseGrantRequest { id, ttl }
}

fn is(error: &Status, expected: ApiError) -> bool {
    (error.code(), error.message()) == (expected.code(), expected.text())
}

#[tokio::test]
async fn a_lease_gets_the_id_and_the_time_it_asks_for_within_limits() {
    let server = TestServer::start().await;
    let mut client = server.lease().await;
    for (id, asked, given) in [(7, 60, 60), (-7, 0, 2), (i64::MIN, -5, 2), (8, 9_000_000_000, 9_000_000_000)] {
        let granted = client.lease_grant(grant(id, asked)).await.expect("granted").into_inner();
        assert_eq!((granted.id, granted.ttl, granted.error.as_str()), (id, given, ""));
        assert_eq!(granted.header.expect("a header").revision, 1);
    }
    let drawn = client.lease_grant(grant(0, 60)).await.expect("granted").into_inner().id;
    assert!(drawn > 0);
    let taken = client.lease_grant(grant(7, 60)).await.expect_err("it is taken");
    assert!(is(&taken, ApiError::LeaseExists), "{taken:?}");
    for id in [7, 9] {
        let huge = client.lease_grant(grant(id, 9_000_000_001)).await.expect_err("too long");
        assert!(is(&huge, ApiError::LeaseTtlTooLarge), "{huge:?}");
    }
    let mut ids: Vec<i64> = client
        .lease_leases(pb::LeaseLeasesRequest {})
        .await
        .expect("listed")
        .into_inner()
        .leases
        .into_iter()
        .map(|lease| lease.id)
        .collect();
    ids.sort_unstable();
    let mut expected = vec![7, -7, i64::MIN, 8, drawn];
    expected.sort_unstable();
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn a_revoke_deletes_the_keys_that_hang_on_the_lease() {
    let server = TestServer::start().await;
    let (mut client, mut kv) = (server.lease().await, server.kv().await);
    for id in [1, 2] {
        client.lease_grant(grant(id, 600)).await.expect("granted");
    }
    for (key, lease) in [("b", 1), ("a", 1), ("moved", 1), ("moved", 2), ("freed", 1), ("freed", 0), ("gone", 1)] {
        kv.put(put(key, lease)).await.expect("a put");
    }
    kv.delete_range(pb::DeleteRangeRequest { key: "gone".into(), ..Default::default() }).await.expect("a delete");
    let about = |id| pb::LeaseTimeToLiveRequest { id, keys: true };
    let found = client.lease_time_to_live(about(1)).await.expect("found").into_inner();
    assert_eq!((found.id, found.granted_ttl, found.keys), (1, 600, vec![Bytes::from("a"), Bytes::from("b")]));
    assert!((590..=600).contains(&found.ttl), "{}", found.ttl);

    let revoked = client.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.expect("revoked").into_inner();
    assert_eq!(revoked.header.expect("a header").revision, 10, "all keys go in one revision");
    let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let left = kv.range(all).await.expect("a range").into_inner().kvs;
    assert_eq!(left.iter().map(|kv| kv.key.clone()).collect::<Vec<_>>(), ["freed", "moved"]);

    let gone = client.lease_time_to_live(about(1)).await.expect("an answer").into_inner();
    assert_eq!((gone.id, gone.ttl, gone.granted_ttl, gone.keys), (1, -1, 0, vec![]));
    let again = client.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.expect_err("it is gone");
    assert!(is(&again, ApiError::LeaseNotFound), "{again:?}");
    let unknown = kv.put(put("a", 1)).await.expect_err("no such lease");
    assert!(is(&unknown, ApiError::LeaseNotFound), "{unknown:?}");
}

#[tokio::test]
async fn a_stream_renews_what_there_is_and_stays_open_for_what_there_is_not() {
    let server = TestServer::start().await;
    let mut client = server.lease().await;
    client.lease_grant(grant(5, 60)).await.expect("granted");
    let mut stream = KeepAlive::open(&mut client).await;
    assert_eq!(stream.renew(5).await, 60);
    for unknown in [0, -1, 6, i64::MIN] {
        assert_eq!(stream.renew(unknown).await, 0);
    }
    assert_eq!(stream.renew(5).await, 60);
    client.lease_revoke(pb::LeaseRevokeRequest { id: 5 }).await.expect("revoked");
    assert_eq!(stream.renew(5).await, 0, "a revoked lease is never renewed");
    let KeepAlive { requests, mut answers } = stream;
    drop(requests);
    assert!(answers.message().await.expect("it ends well").is_none());
}

#[tokio::test]
async fn a_message_that_cannot_be_read_ends_its_stream_only() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await.expect("the server accepts");
    let path = ::http::uri::PathAndQuery::from_static("/etcdserverpb.Lease/LeaseKeepAlive");
    let (requests, receiver) = mpsc::channel(2);
    let sent = Request::new(ReceiverStream::new(receiver));
    let mut answers = grpc.streaming(sent, path, RawCodec).await.expect("the stream opens").into_inner();
    requests.send(Bytes::from_static(b"\x08\x05")).await.expect("the stream is open");
    assert!(answers.message().await.expect("an answer").is_some());
    requests.send(Bytes::from_static(b"\xff\xff")).await.expect("the stream is open");
    let error = tokio::time::timeout(DEADLINE, answers.message()).await.expect("in time").expect_err("broken");
    assert_eq!(error.code(), Code::Internal);
    LeaseClient::new(channel).lease_grant(grant(1, 60)).await.expect("the connection is usable");
}

#[tokio::test]
async fn open_streams_end_with_their_deadline_and_with_the_server() {
    let server = TestServer::start().await;
    let mut client = server.lease().await;
    let (_requests, receiver) = mpsc::channel(1);
    let mut hasty = Request::new(ReceiverStream::new(receiver));
    // Longer than any keep-alive takes, shorter than the test waits.
    hasty.set_timeout(Duration::from_millis(100));
    let mut hasty = client.lease_keep_alive(hasty).await.expect("the stream opens").into_inner();
    let late = tokio::time::timeout(DEADLINE, hasty.message()).await.expect("in time").expect_err("it is late");
    assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");

    let mut stream = KeepAlive::open(&mut client).await;
    assert_eq!(stream.renew(1).await, 0);
    let (shutdown, ended) = tokio::join!(server.server.shutdown(), stream.next());
    let () = shutdown;
    assert!(is(&ended.expect_err("the server stops"), ApiError::Stopped));
}

#[tokio::test]
async fn messages_of_streams_are_counted() {
    let server = TestServer::start().await;
    let mut client = server.lease().await;
    let mut stream = KeepAlive::open(&mut client).await;
    for id in 1..=3 {
        stream.renew(id).await;
    }
    let labels = r#"{grpc_method="LeaseKeepAlive",grpc_service="etcdserverpb.Lease",grpc_type="bidi_stream"}"#;
    let metrics = server.http("GET", "/metrics").await.body;
    for (name, value) in [("started", 1), ("msg_received", 3), ("msg_sent", 3)] {
        let line = format!("grpc_server_{name}_total{labels} {value}");
        assert!(metrics.lines().any(|found| found == line), "{line} is missing");
    }
}

/// A server on which a lease lives for a second at least.
async fn quick() -> TestServer {
    TestServer::with(|config| {
        config.heartbeat_interval = Duration::from_millis(10);
        config.election_timeout = Duration::from_millis(100);
    })
    .await
}

fn put(key: &'static str, lease: i64) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), lease, ..Default::default() }
}

fn everything() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() }
}

#[tokio::test]
async fn a_lease_that_runs_out_takes_its_keys_with_it_in_one_revision() {
    let server = quick().await;
    let (mut client, mut kv) = (server.lease().await, server.kv().await);
    let granted = client.lease_grant(grant(1, 0)).await.expect("granted").into_inner();
    assert_eq!(granted.ttl, 1);
    let begun = Instant::now();
    for key in ["b", "c", "a"] {
        kv.put(put(key, 1)).await.expect("a put");
    }
    kv.put(put("stays", 0)).await.expect("a put");
    let left = eventually("the lease runs out", async || {
        let found = kv.range(everything()).await.expect("a range").into_inner();
        (found.count != 4).then_some(found)
    })
    .await;
    assert!(begun.elapsed() >= Duration::from_millis(900), "its second was not over");
    assert_eq!((left.count, left.header.expect("a header").revision), (1, 6), "all at once");
    let hash = server.maintenance().await.hash_kv(pb::HashKvRequest { revision: 6 }).await.expect("a hash");
    let same = TestServer::start().await;
    let mut kv = same.kv().await;
    same.lease().await.lease_grant(grant(1, 600)).await.expect("granted");
    for key in ["b", "c", "a"] {
        kv.put(put(key, 1)).await.expect("a put");
    }
    kv.put(put("stays", 0)).await.expect("a put");
    kv.delete_range(pb::DeleteRangeRequest { key: "a".into(), range_end: "d".into(), ..Default::default() })
        .await
        .expect("a delete");
    let expected = same.maintenance().await.hash_kv(pb::HashKvRequest { revision: 6 }).await.expect("a hash");
    assert_eq!(hash.into_inner().hash, expected.into_inner().hash, "in the order of the keys");
}

#[tokio::test]
async fn a_lease_lives_as_long_as_it_is_kept_alive_and_a_late_keep_alive_is_told_so() {
    let server = quick().await;
    let mut client = server.lease().await;
    client.lease_grant(grant(1, 1)).await.expect("granted");
    let mut stream = KeepAlive::open(&mut client).await;
    let until = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < until {
        assert_eq!(stream.renew(1).await, 1);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let about = pb::LeaseTimeToLiveRequest { id: 1, keys: false };
    eventually("the lease runs out", async || {
        let found = client.lease_time_to_live(about).await.expect("an answer").into_inner();
        (found.ttl == -1).then_some(())
    })
    .await;
    assert_eq!(stream.renew(1).await, 0);
    let metrics = server.http("GET", "/metrics").await.body;
    for line in [
        "etcd_debugging_lease_granted_total 1",
        "etcd_debugging_lease_revoked_total 1",
        "etcd_debugging_server_lease_expired_total 1",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is missing");
    }
}

#[tokio::test]
async fn a_keep_alive_of_a_lease_that_has_run_out_is_answered_when_its_keys_are_gone() {
    // So many keys that each is revoked by an entry of its own, and the last ones have to wait.
    const LEASES: i64 = 12;
    const KEYS: usize = 4_000;
    const TTL: i64 = 8;
    let server = TestServer::start().await;
    let (mut client, kv) = (server.lease().await, server.kv().await);
    for id in 1..=LEASES {
        client.lease_grant(grant(id, TTL)).await.expect("granted");
    }
    let numbers: Vec<usize> = (0..KEYS).collect();
    let parts = (1..=LEASES).flat_map(|id| numbers.chunks(125).map(move |part| (id, part)));
    stream::iter(parts)
        .for_each_concurrent(16, |(id, part)| {
            let mut kv = kv.clone();
            let put = |number| pb::PutRequest { key: format!("{id}/{number}").into(), lease: id, ..Default::default() };
            let puts = part.iter().map(|number| pb::RequestOp { request: Some(RequestPut(put(number))) });
            let txn = pb::TxnRequest { success: puts.collect(), ..Default::default() };
            async move { drop(kv.txn(txn).await.expect("the leases live")) }
        })
        .await;
    // They run out as close to each other as can be.
    let mut keep_alive = KeepAlive::open(&mut client).await;
    for id in 1..=LEASES {
        assert_eq!(keep_alive.renew(id).await, TTL);
    }
    let keys_of = async |id: i64| {
        let (key, range_end) = (format!("{id}/").into(), format!("{id}0").into());
        let count = pb::RangeRequest { key, range_end, count_only: true, ..Default::default() };
        kv.clone().range(count).await.expect("a range").into_inner().count
    };
    eventually("the first one runs out", async || (keys_of(1).await == 0).then_some(())).await;
    let mut ended = 0;
    for id in (2..=LEASES).rev() {
        if keep_alive.renew(id).await == 0 {
            assert_eq!(keys_of(id).await, 0, "lease {id} is said to be over and its keys are there");
            ended += 1;
        }
    }
    assert!(ended > 0, "all were renewed");
}

#[tokio::test]
async fn leases_are_listed_by_when_they_run_out() {
    let server = TestServer::start().await;
    let mut client = server.lease().await;
    for (id, ttl) in [(1, 300), (2, 100), (3, 200)] {
        client.lease_grant(grant(id, ttl)).await.expect("granted");
    }
    let mut ids = async || {
        let listed = client.lease_leases(pb::LeaseLeasesRequest {}).await.expect("listed").into_inner();
        listed.leases.iter().map(|lease| lease.id).collect::<Vec<_>>()
    };
    assert_eq!(ids().await, [2, 3, 1]);
    server.server.client().call(pb::LeaseRevokeRequest { id: 3 }).await.expect("revoked");
    assert_eq!(ids().await, [2, 1]);
}

#[tokio::test]
async fn a_full_store_grants_no_leases_but_revokes_them() {
    let server = TestServer::start().await;
    let mut client = server.lease().await;
    client.lease_grant(grant(1, 60)).await.expect("granted");
    let raise = pb::AlarmRequest { action: 1, member_id: 1, alarm: pb::AlarmType::Nospace.into() };
    server.maintenance().await.alarm(raise).await.expect("raised");
    for ttl in [60, 9_000_000_001] {
        let full = client.lease_grant(grant(2, ttl)).await.expect_err("there is no space");
        assert!(is(&full, ApiError::NoSpace), "{full:?}");
    }
    assert_eq!(KeepAlive::open(&mut client).await.renew(1).await, 60);
    client.lease_revoke(pb::LeaseRevokeRequest { id: 1 }).await.expect("revoked");
}

#[tokio::test]
async fn a_client_that_never_reads_its_answers_is_not_read_from_either() {
    let server = TestServer::start().await;
    let mut client = server.lease().await;
    client.lease_grant(grant(1, 60)).await.expect("granted");
    let (requests, receiver) = mpsc::channel(1);
    let answers = client.lease_keep_alive(ReceiverStream::new(receiver)).await.expect("the stream opens");
    // It asks until it is held up, or thrown out.
    let asking = tokio::spawn(async move { while requests.send(pb::LeaseKeepAliveRequest { id: 1 }).await.is_ok() {} });
    let mut before = 0;
    let read = eventually("the server stops reading", async || {
        let metrics = server.http("GET", "/metrics").await.body;
        let name = "grpc_server_msg_received_total{grpc_method=\"LeaseKeepAlive\"";
        let line = metrics.lines().find(|line| line.starts_with(name)).expect("it is counted");
        let now: u64 = line.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a count");
        // Longer than a request takes.
        tokio::time::sleep(Duration::from_millis(200)).await;
        (std::mem::replace(&mut before, now) == now && now > 0).then_some(now)
    })
    .await;
    assert!(read < 100_000, "{read} requests were read");
    asking.abort();
    drop(answers);
    assert_eq!(KeepAlive::open(&mut server.lease().await).await.renew(1).await, 60);
}

#[tokio::test]
async fn leases_and_what_hangs_on_them_are_there_after_a_restart() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = builder(&dir).start().await.expect("the server starts");
    let client = server.client();
    client.call(grant(7, 600)).await.expect("granted");
    client.call(put("a", 7)).await.expect("a put");
    drop(client);
    server.shutdown().await;
    let server = builder(&dir).start().await.expect("the server starts");
    let client = server.client();
    let found = client.call(pb::LeaseTimeToLiveRequest { id: 7, keys: true }).await.expect("found");
    assert_eq!((found.granted_ttl, found.keys), (600, vec![Bytes::from("a")]));
    assert!(found.ttl >= 590, "{}", found.ttl);
    let keep = tokio_stream::iter([7, 8].map(|id| pb::LeaseKeepAliveRequest { id }));
    let kept: Vec<_> = client.exchange(keep).map(|answer| answer.expect("an answer").ttl).collect().await;
    assert_eq!(kept, [600, 0]);
    assert_eq!(client.call(pb::LeaseLeasesRequest {}).await.expect("listed").leases.len(), 1);
    server.shutdown().await;
}

/// What a lease has left, in seconds, and when that was asked.
async fn left(lease: &mut LeaseClient<Channel>, id: i64) -> (i64, Instant) {
    let asked = Instant::now();
    let about = pb::LeaseTimeToLiveRequest { id, keys: false };
    (lease.lease_time_to_live(about).await.expect("an answer").into_inner().ttl, asked)
}

#[tokio::test]
async fn the_time_left_survives_a_kill_neither_shortened_nor_longer_by_more_than_it_is_recorded_every() {
    const TTL: i64 = 60;
    // An interval, the second that has begun, and what the disk may take for a record.
    const LONGER_MAX: i64 = 3;
    let flags = ["--lease-checkpoint-interval=1s"];
    let dir = TempDir::new().expect("a temporary directory");
    let mut told = (TTL, Instant::now());
    let mut renewed = Instant::now();
    for kill in 0..3 {
        let server = Process::start(dir.path(), &flags);
        let mut lease = LeaseClient::new(server.channel().await);
        if kill == 0 {
            for (id, ttl) in [(1, TTL), (2, TTL), (3, 2)] {
                lease.lease_grant(grant(id, ttl)).await.expect("granted");
            }
        }
        let (found, asked) = left(&mut lease, 1).await;
        // What was told before counts on; what it was recorded as may be an interval older, and the time in which nobody led does not count.
        let owed = told.0 - told.1.elapsed().as_secs() as i64 - 2;
        assert!(found >= owed, "after kill {kill} {found} seconds are left of {owed}");
        assert!(
            found <= told.0 + LONGER_MAX,
            "after kill {kill} {found} seconds are left, {} were told before",
            told.0
        );
        told = (found, asked);
        // Long enough for records to be made.
        let target = found - 4;
        eventually("time passes", async || {
            let (now, asked) = left(&mut lease, 1).await;
            assert!(now <= told.0, "it went up from {} to {now}", told.0);
            told = (now, asked);
            (now <= target).then_some(())
        })
        .await;
        if kill == 1 {
            // Renewed after it was recorded: the record must not cut the renewal short.
            renewed = Instant::now();
            assert_eq!(KeepAlive::open(&mut lease).await.renew(2).await, TTL);
        }
        server.kill();
    }
    let server = Process::start(dir.path(), &flags);
    let mut lease = LeaseClient::new(server.channel().await);
    let (first, (second, _)) = (left(&mut lease, 1).await.0, left(&mut lease, 2).await);
    let owed = TTL - renewed.elapsed().as_secs() as i64 - 2;
    assert!(first <= TTL - 3 * (4 - LONGER_MAX), "{first} seconds are left: the kills made it live on");
    // The one that was renewed counts from there.
    assert!(second >= owed, "{second} seconds are left of a renewed lease, {owed} are owed");
    assert_eq!(left(&mut lease, 3).await.0, -1, "a short one ran out meanwhile");
    server.kill();
}

#[tokio::test]
async fn every_number_is_a_lease_or_none() {
    let server = TestServer::start().await;
    let mut client = server.lease().await;
    for id in [0, 1, -1, i64::MIN, i64::MAX] {
        let about = pb::LeaseTimeToLiveRequest { id, keys: true };
        let found = client.lease_time_to_live(about).await.expect("an answer").into_inner();
        assert_eq!((found.id, found.ttl, found.granted_ttl), (id, -1, 0));
        let refused = client.lease_revoke(pb::LeaseRevokeRequest { id }).await.expect_err("no such lease");
        assert!(is(&refused, ApiError::LeaseNotFound), "{refused:?}");
    }
    for (id, ttl) in [(i64::MAX, i64::MIN), (i64::MIN, -1), (-1, 0)] {
        assert_eq!(client.lease_grant(grant(id, ttl)).await.expect("granted").into_inner().ttl, 2);
        assert_eq!(KeepAlive::open(&mut client).await.renew(id).await, 2);
    }
    let huge = client.lease_grant(grant(5, i64::MAX)).await.expect_err("too long");
    assert!(is(&huge, ApiError::LeaseTtlTooLarge), "{huge:?}");
    let taken = client.lease_grant(grant(i64::MIN, i64::MAX)).await.expect_err("too long, and taken");
    assert!(is(&taken, ApiError::LeaseTtlTooLarge), "the time is looked at first: {taken:?}");
    let negative = client.lease_grant(grant(-1, 60)).await.expect_err("it is taken");
    assert!(is(&negative, ApiError::LeaseExists), "{negative:?}");
}

#[tokio::test]
async fn who_floods_keep_alives_without_reading_costs_little_and_hurts_nobody() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Process::start(dir.path(), &[]);
    let mut client = LeaseClient::new(server.channel().await);
    client.lease_grant(grant(1, 600)).await.expect("granted");
    assert_eq!(KeepAlive::open(&mut client).await.renew(1).await, 600);
    let before = server.resident_bytes();
    let mut floods = Vec::new();
    for _ in 0..20 {
        let mut flooding = LeaseClient::new(server.channel().await);
        floods.push(tokio::spawn(async move {
            let (requests, receiver) = mpsc::channel(1);
            let _answers = flooding.lease_keep_alive(ReceiverStream::new(receiver)).await.expect("the stream opens");
            let mut sent = 0;
            // Until it is held up, or thrown out; what a client's own windows take is less than this.
            while sent < 2_000_000 {
                let send = requests.send(pb::LeaseKeepAliveRequest { id: 1 });
                match tokio::time::timeout(Duration::from_secs(2), send).await {
                    Ok(Ok(())) => sent += 1,
                    Ok(Err(_)) | Err(_) => break,
                }
            }
            // Others have their turn while it is stuck.
            let mut others = KeepAlive::open(&mut flooding).await;
            let renewed = others.try_renew(1).await;
            (sent, renewed.is_ok())
        }));
    }
    let mut steady = KeepAlive::open(&mut client).await;
    while floods.iter().any(|flood| !flood.is_finished()) {
        assert_eq!(steady.renew(1).await, 600);
    }
    for flood in floods {
        let (sent, goes_on) = flood.await.expect("it goes on");
        assert!(sent < 2_000_000, "nothing held it up");
        assert!(goes_on, "its connection serves other calls after {sent} requests");
    }
    let grown = server.resident_bytes().saturating_sub(before);
    println!("twenty floods: the process grew by {} KiB", grown >> 10);
    assert!(grown < 128 << 20, "the process grew by {grown} bytes");
    assert_eq!(steady.renew(1).await, 600);
}

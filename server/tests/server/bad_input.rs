//! What must not work, and must not hurt: each a clear error, and the server goes on.

use std::time::Duration;

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, kv_client::KvClient, watch_client::WatchClient, watch_request::RequestUnion},
};
use rand::RngCore;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};

use super::support::{Certs, DEADLINE, TestServer, builder, certs, eventually, raw};

async fn still_serves(server: &TestServer) {
    let request = pb::PutRequest { key: "alive".into(), ..Default::default() };
    server.kv().await.put(request).await.expect("the server goes on");
}

fn put_of(bytes: usize) -> pb::PutRequest {
    pb::PutRequest { key: "k".into(), value: vec![1; bytes].into(), ..Default::default() }
}

#[tokio::test]
async fn a_request_above_the_limit_is_too_large() {
    let server = TestServer::start().await;
    let mut kv = server.kv().await;
    // What a genuine server takes at most, to the byte.
    kv.put(put_of(1_572_840)).await.expect("the largest request");
    for bytes in [1_572_841, 2_000_000] {
        let error = kv.put(put_of(bytes)).await.expect_err("too large");
        assert_eq!((error.code(), error.message()), (Code::InvalidArgument, ApiError::RequestTooLarge.text()));
    }
    let error = kv.put(put_of(2_097_146)).await.expect_err("too large to be received");
    assert_eq!(error.code(), Code::ResourceExhausted);
    assert_eq!(error.message(), "grpc: received message larger than max (2097153 vs. 2097152)");
    still_serves(&server).await;
}

#[tokio::test]
async fn the_limits_of_a_request_are_those_of_the_configuration() {
    let server = TestServer::with(|config| {
        config.max_request_bytes = 1000;
        config.max_txn_ops = 2;
    })
    .await;
    let mut kv = server.kv().await;
    kv.put(put_of(900)).await.expect("small enough");
    assert_eq!(kv.put(put_of(1100)).await.expect_err("too large").message(), ApiError::RequestTooLarge.text());
    let compare = pb::Compare { key: "a".into(), ..Default::default() };
    let txn = pb::TxnRequest { compare: vec![compare; 3], ..Default::default() };
    assert_eq!(kv.txn(txn).await.expect_err("too many").message(), ApiError::TooManyOps.text());
}

#[tokio::test]
async fn large_metadata_is_taken_and_too_much_of_it_is_refused_without_harm_to_other_calls() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let with_metadata = |values: usize, bytes: usize| {
        let mut request = tonic::Request::new(pb::RangeRequest { key: "k".into(), ..Default::default() });
        for n in 0..values {
            let name = format!("x{n}").parse::<tonic::metadata::AsciiMetadataKey>().expect("a name");
            request.metadata_mut().insert(name, "v".repeat(bytes).parse().expect("a value"));
        }
        request
    };
    let mut kv = KvClient::new(channel.clone());
    let create = RequestUnion::CreateRequest(pb::WatchCreateRequest { key: "k".into(), ..Default::default() });
    let (requests_open, requests) = tokio::sync::mpsc::channel::<pb::WatchRequest>(1);
    requests_open.send(pb::WatchRequest { request_union: Some(create) }).await.expect("there is room");
    let mut watch =
        WatchClient::new(channel).watch(ReceiverStream::new(requests)).await.expect("it is watched").into_inner();
    assert!(watch.message().await.expect("open").expect("an answer").created);
    for (values, bytes) in [(1, 70_000), (1, 500_000), (60, 15_000)] {
        kv.range(with_metadata(values, bytes)).await.expect("as much as that is taken");
    }
    for _ in 0..3 {
        kv.range(with_metadata(80, 15_000)).await.expect_err("too much");
        kv.range(with_metadata(1, 1)).await.expect("other calls are served");
    }
    // On the same connection, which nothing has ended meanwhile.
    kv.put(put_of(1)).await.expect("a put");
    assert_eq!(watch.message().await.expect("it is still open").expect("an answer").events.len(), 1);
    drop(requests_open);
}

#[tokio::test]
async fn garbage_is_disconnected() {
    let server = TestServer::start().await;
    let tls_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc];
    let broken_frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
    for garbage in [&b"garbage\r\n\r\n"[..], &tls_hello, broken_frames, &[0; 4000], b"GET / HTTP/9.9\r\n\r\n"] {
        raw(server.addr(), garbage).await;
        still_serves(&server).await;
    }
}

#[tokio::test]
async fn a_client_that_pings_too_often_is_told_to_calm_down() {
    let server = TestServer::start().await;
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    for _ in 0..10 {
        bytes.extend(b"\0\0\x08\x06\0\0\0\0\0\x01\x02\x03\x04\x05\x06\x07\x08");
    }
    let answer = raw(server.addr(), &bytes).await;
    assert!(answer.windows(14).any(|words| words == b"too_many_pings"), "{answer:?}");
    still_serves(&server).await;
}

#[tokio::test]
async fn pings_may_come_as_often_as_the_configuration_allows_while_a_call_is_open() {
    let server = TestServer::with(|config| config.grpc_keepalive_min_time = Duration::ZERO).await;
    let mut stream = TcpStream::connect(server.addr()).await.expect("the server accepts");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    // A call that stays open: :method POST, :scheme http, :path, :authority and content-type, its body never ends.
    let mut headers = vec![0x83, 0x86, 0x04, 0x16];
    headers.extend(b"/etcdserverpb.KV/Range");
    headers.extend([0x01, 0x01, b'a', 0x0f, 0x10, 0x10]);
    headers.extend(b"application/grpc");
    bytes.extend([0, 0, headers.len() as u8, 1, 4, 0, 0, 0, 1]);
    bytes.extend(headers);
    stream.write_all(&bytes).await.expect("the call begins");
    for n in 0..20u8 {
        let mut ping = b"\0\0\x08\x06\0\0\0\0\0".to_vec();
        ping.extend([n; 8]);
        stream.write_all(&ping).await.expect("the connection is open");
    }
    let mut answer = Vec::new();
    let acked = async {
        // Answers to pings: type 6, flag ACK.
        while answer.windows(17).filter(|frame| frame.starts_with(b"\0\0\x08\x06\x01\0\0\0\0")).count() < 20 {
            assert!(stream.read_buf(&mut answer).await.expect("the connection is open") > 0, "closed after {answer:?}");
        }
    };
    tokio::time::timeout(DEADLINE, acked).await.expect("every ping is answered");
}

#[tokio::test]
async fn only_clients_with_a_certificate_of_the_right_authority_get_in() {
    let server = TestServer::with_tls(certs()).await;
    let other = Certs::new();
    let get = pb::RangeRequest { key: "a".into(), ..Default::default() };
    for identity in [None, Some(&other)] {
        // With TLS 1.3 a client learns only from its first call that its certificate was refused.
        if let Ok(channel) = certs().connect(&server, identity).await {
            KvClient::new(channel).range(get.clone()).await.expect_err("refused");
        }
    }
    // A client that does not trust the server stays away by itself.
    assert!(other.connect(&server, Some(&other)).await.is_err());
    let plain = raw(server.addr(), b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(!String::from_utf8_lossy(&plain).contains("health"), "{plain:?}");
    let channel = certs().connect(&server, Some(certs())).await.expect("the right certificate");
    KvClient::new(channel).range(get).await.expect("served");
}

#[tokio::test]
async fn two_servers_do_not_share_a_directory() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = builder(&dir).start().await.expect("the first starts");
    let error = builder(&dir).start().await.expect_err("the second does not").to_string();
    assert!(error.contains(&*dir.path().to_string_lossy()), "{error}");
    server.shutdown().await;
    builder(&dir).start().await.expect("it is free again").shutdown().await;
}

#[tokio::test]
async fn two_servers_do_not_share_a_port() {
    let server = TestServer::start().await;
    let dir = TempDir::new().expect("a temporary directory");
    let taken = server.addr().to_string();
    let url = cairn_server::config::Url::parse(&format!("http://{taken}")).expect("a valid URL");
    let error = builder(&dir).listen_client_urls([url]).start().await.expect_err("the port is taken").to_string();
    assert!(error.contains(&taken), "{error}");
}

#[tokio::test]
async fn a_contradicting_configuration_does_not_start() {
    let dir = TempDir::new().expect("a temporary directory");
    let error = builder(&dir).configure(|config| config.election_timeout = Duration::from_millis(1)).start().await;
    assert!(error.expect_err("it contradicts itself").to_string().contains("election-timeout"));
}

#[tokio::test]
async fn a_full_store_refuses_to_grow_until_the_alarm_is_lowered() {
    let server = TestServer::with(|config| config.quota_backend_bytes = 3_000_000).await;
    let mut kv = server.kv().await;
    let mut refused = None;
    for n in 0..100 {
        let request =
            pb::PutRequest { key: format!("k{n}").into(), value: vec![n; 100_000].into(), ..Default::default() };
        if let Err(error) = kv.put(request).await {
            refused = Some(error);
            break;
        }
    }
    let refused = refused.expect("the quota is reached");
    assert_eq!((refused.code(), refused.message()), (Code::ResourceExhausted, ApiError::NoSpace.text()));
    let status = server.maintenance().await.status(pb::StatusRequest {}).await.expect("a status").into_inner();
    assert_eq!(status.errors, [format!("memberID:{} alarm:NOSPACE", status.header.expect("a header").member_id)]);
    let delete = pb::DeleteRangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    assert!(kv.delete_range(delete).await.expect("deletes pass").into_inner().deleted > 0);
}

/// A hundred kilobytes that nothing makes smaller.
fn incompressible() -> Bytes {
    let mut bytes = vec![0; 100_000];
    rand::rng().fill_bytes(&mut bytes);
    bytes.into()
}

async fn compact(kv: &mut KvClient<Channel>, revision: i64) {
    kv.compact(pb::CompactionRequest { revision, physical: true }).await.expect("it is compacted");
}

#[tokio::test]
async fn a_store_of_few_large_values_that_are_overwritten_stays_below_a_small_quota() {
    // The first is given back by compactions, the second before the store is called full.
    for (quota, puts, compact_every) in [(32 << 20, 500, 20), (3_000_000, 150, 5)] {
        let server = TestServer::with(|config| config.quota_backend_bytes = quota).await;
        let mut kv = server.kv().await;
        for n in 1..=puts {
            let key = format!("hot{}", n % 10).into();
            let put = pb::PutRequest { key, value: incompressible(), ..Default::default() };
            let answer = kv.put(put).await.unwrap_or_else(|error| panic!("put {n} of {puts}: {error}")).into_inner();
            if n % compact_every == 0 {
                compact(&mut kv, answer.header.expect("a header").revision).await;
            }
        }
        let range = pb::RangeRequest { key: "hot".into(), range_end: "hou".into(), ..Default::default() };
        let there = kv.range(range).await.expect("a range").into_inner();
        assert!(there.count == 10 && there.kvs.iter().all(|kv| kv.value.len() == 100_000), "{}", there.count);
    }
}

#[tokio::test]
async fn what_is_deleted_and_compacted_is_in_use_no_more() {
    let server = TestServer::start().await;
    let mut kv = server.kv().await;
    for n in 0..140 {
        let put = pb::PutRequest { key: format!("k{n}").into(), value: incompressible(), ..Default::default() };
        kv.put(put).await.expect("a put");
    }
    let mut maintenance = server.maintenance().await;
    let mut status = async || maintenance.status(pb::StatusRequest {}).await.expect("a status").into_inner();
    assert!(status().await.db_size_in_use > 13_000_000);
    let delete = pb::DeleteRangeRequest { key: "k".into(), range_end: "l".into(), ..Default::default() };
    let deleted = kv.delete_range(delete).await.expect("a delete").into_inner();
    compact(&mut kv, deleted.header.expect("a header").revision).await;
    eventually("the space is given back", async || {
        let status = status().await;
        (status.db_size_in_use < 100_000 && status.db_size < 1_000_000).then_some(())
    })
    .await;
}

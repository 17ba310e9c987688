//! Answers as bytes: what is written by hand equals what any protobuf library writes for the same message.

use std::io::Write;

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, request_op::Request as Op},
};
use flate2::{Compression, write::GzEncoder};
use http_body_util::BodyExt;
use prost::Message;
use tonic::{Code, transport::Channel};
use tower::ServiceExt;

use super::support::{TestServer, call};

/// Calls, and checks that decoding and encoding again gives the same bytes.
async fn canonical<M: Message + Default + std::fmt::Debug>(
    channel: &Channel,
    path: &'static str,
    request: &impl Message,
) -> M {
    let bytes = call(channel, path, request.encode_to_vec()).await.expect("the call is answered");
    let message = M::decode(bytes.clone()).expect("the answer is a message");
    assert_eq!(Bytes::from(message.encode_to_vec()), bytes, "{path} {message:?}");
    message
}

fn op(request: Op) -> pb::RequestOp {
    pb::RequestOp { request: Some(request) }
}

fn put(key: &'static str, value: impl Into<Bytes>) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), prev_kv: true, ..Default::default() }
}

#[tokio::test]
async fn kv_answers_are_canonical_protobuf() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let first: pb::PutResponse = canonical(&channel, "/etcdserverpb.KV/Put", &put("a", "1")).await;
    let header = first.header.expect("a header");
    assert!(header.cluster_id != 0 && header.member_id != 0 && header.raft_term != 0);
    assert_eq!((header.revision, first.prev_kv), (2, None));
    let second: pb::PutResponse = canonical(&channel, "/etcdserverpb.KV/Put", &put("a", vec![0; 100_000])).await;
    assert_eq!(second.prev_kv.map(|kv| kv.value), Some("1".into()));
    canonical::<pb::PutResponse>(&channel, "/etcdserverpb.KV/Put", &put("b", "")).await;

    let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    for request in [
        all.clone(),
        pb::RangeRequest { limit: 1, ..all.clone() },
        pb::RangeRequest { count_only: true, ..all.clone() },
        pb::RangeRequest { keys_only: true, ..all.clone() },
        pb::RangeRequest { revision: 2, ..all.clone() },
        pb::RangeRequest { key: "none".into(), ..Default::default() },
    ] {
        canonical::<pb::RangeResponse>(&channel, "/etcdserverpb.KV/Range", &request).await;
    }

    let txn = pb::TxnRequest {
        success: vec![
            op(Op::RequestRange(all)),
            op(Op::RequestPut(put("a", "3"))),
            op(Op::RequestTxn(pb::TxnRequest {
                success: vec![op(Op::RequestDeleteRange(pb::DeleteRangeRequest {
                    key: "b".into(),
                    prev_kv: true,
                    ..Default::default()
                }))],
                ..Default::default()
            })),
        ],
        ..Default::default()
    };
    let answer: pb::TxnResponse = canonical(&channel, "/etcdserverpb.KV/Txn", &txn).await;
    assert_eq!(answer.responses.len(), 3);

    let delete = pb::DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), prev_kv: true };
    let deleted: pb::DeleteRangeResponse = canonical(&channel, "/etcdserverpb.KV/DeleteRange", &delete).await;
    assert_eq!((deleted.deleted, deleted.prev_kvs.len()), (1, 1));
    let compact = pb::CompactionRequest { revision: 3, physical: true };
    canonical::<pb::CompactionResponse>(&channel, "/etcdserverpb.KV/Compact", &compact).await;
}

#[tokio::test]
async fn large_answers_arrive_whole() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    for n in 0..8 {
        let request =
            pb::PutRequest { key: format!("k{n}").into(), value: vec![n; 1_000_000].into(), ..Default::default() };
        canonical::<pb::PutResponse>(&channel, "/etcdserverpb.KV/Put", &request).await;
    }
    for n in 0..2000 {
        let request =
            pb::PutRequest { key: format!("s{n:04}").into(), value: vec![7; 50].into(), ..Default::default() };
        call(&channel, "/etcdserverpb.KV/Put", request.encode_to_vec()).await.expect("a put");
    }
    let all = pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
    let answer: pb::RangeResponse = canonical(&channel, "/etcdserverpb.KV/Range", &all).await;
    assert_eq!((answer.kvs.len(), answer.count), (2008, 2008));
    assert!(answer.kvs[..8].iter().enumerate().all(|(n, kv)| kv.value.len() == 1_000_000 && kv.value[0] == n as u8));
}

/// A transaction in a transaction, and so on: so many levels, in the innermost `ops`.
fn nested_txn(levels: usize, ops: Vec<pb::RequestOp>) -> pb::TxnRequest {
    let innermost = pb::TxnRequest { success: ops, ..Default::default() };
    (1..levels)
        .fold(innermost, |inner, _| pb::TxnRequest { success: vec![op(Op::RequestTxn(inner))], ..Default::default() })
}

#[tokio::test]
async fn transactions_are_nested_as_deeply_as_a_genuine_server_takes_them() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let txn = async |levels, ops| {
        call(&channel, "/etcdserverpb.KV/Txn", nested_txn(levels, ops).encode_to_vec())
            .await
            .map_err(|status| (status.code(), status.message().to_owned()))
    };
    for levels in [49, 51, 128] {
        let answer = txn(levels, vec![op(Op::RequestPut(put("a", "1")))]).await.expect("it runs");
        assert!(answer.len() > 2 * levels, "{levels} levels are answered in {} bytes", answer.len());
    }
    txn(129, vec![]).await.expect("an empty one has room where no operation has");
    let kept: pb::RangeResponse =
        canonical(&channel, "/etcdserverpb.KV/Range", &pb::RangeRequest { key: "a".into(), ..Default::default() })
            .await;
    assert_eq!(kept.kvs[0].version, 3);
    let refused = Err((Code::InvalidArgument, ApiError::TooManyOps.text().to_owned()));
    assert_eq!(txn(129, vec![op(Op::RequestPut(put("a", "1")))]).await, refused);
    for levels in [130, 1000, 2000] {
        assert_eq!(txn(levels, vec![]).await, refused, "{levels}");
    }
}

/// Sends one frame as the request, its message compressed as `encoding` says, and gives how the call ended.
async fn send_frame(channel: &Channel, encoding: &str, compressed: bool, message: &[u8]) -> (Code, String) {
    let mut frame = vec![u8::from(compressed)];
    frame.extend((message.len() as u32).to_be_bytes());
    frame.extend(message);
    let request = http::Request::post("/etcdserverpb.KV/Put")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding)
        .body(tonic::body::Body::new(http_body_util::Full::new(Bytes::from(frame))))
        .expect("a request");
    let response = channel.clone().oneshot(request).await.expect("the call is answered");
    let head = tonic::Status::from_header_map(response.headers());
    let answer = response.into_body().collect().await.expect("the answer arrives");
    let status = head.or_else(|| tonic::Status::from_header_map(answer.trailers()?)).expect("a status");
    (status.code(), status.message().to_owned())
}

fn gzip(message: &impl Message) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&message.encode_to_vec()).expect("memory is there");
    encoder.finish().expect("memory is there")
}

#[tokio::test]
async fn requests_may_be_compressed_with_gzip_and_nothing_else() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let ok = (Code::Ok, String::new());
    assert_eq!(send_frame(&channel, "gzip", true, &gzip(&put("a", vec![0; 1_500_000]))).await, ok);
    assert_eq!(send_frame(&channel, "gzip", false, &put("a", "2").encode_to_vec()).await, ok);
    let found: pb::RangeResponse =
        canonical(&channel, "/etcdserverpb.KV/Range", &pb::RangeRequest { key: "a".into(), ..Default::default() })
            .await;
    assert_eq!((&found.kvs[0].value[..], found.kvs[0].version), (&b"2"[..], 2));
    // What counts is the size that it has without compression.
    let large = gzip(&put("a", vec![0; 3_000_000]));
    assert!(large.len() < 10_000);
    let (code, text) = send_frame(&channel, "gzip", true, &large).await;
    let told =
        format!("grpc: received message larger than max ({} vs. 2097152)", put("a", vec![0; 3_000_000]).encoded_len());
    assert_eq!((code, text), (Code::ResourceExhausted, told));
    assert_eq!(
        send_frame(&channel, "deflate", true, b"x").await,
        (Code::Unimplemented, "grpc: Decompressor is not installed for grpc-encoding \"deflate\"".to_owned())
    );
    assert_eq!(
        send_frame(&channel, "identity", true, b"x").await,
        (Code::Internal, "grpc: compressed flag set with identity or empty encoding".to_owned())
    );
    assert_eq!(send_frame(&channel, "gzip", true, b"x").await.0, Code::Internal);
}

#[tokio::test]
async fn answers_without_a_header_or_a_revision_have_none() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    let defragmented =
        call(&channel, "/etcdserverpb.Maintenance/Defragment", Bytes::new()).await.expect("it defragments");
    assert_eq!(defragmented, Bytes::new());
    let members: pb::MemberListResponse =
        canonical(&channel, "/etcdserverpb.Cluster/MemberList", &pb::MemberListRequest { linearizable: true }).await;
    let header = members.header.expect("a header");
    assert_eq!(header.revision, 0);
    assert_eq!(members.members.len(), 1);
    assert_eq!(members.members[0].id, header.member_id);
}

#[tokio::test]
async fn unknown_methods_and_broken_messages_are_told_apart() {
    let server = TestServer::start().await;
    let channel = server.channel().await;
    for (path, code, text) in [
        ("/etcdserverpb.KV/Nope", Code::Unimplemented, "unknown method Nope for service etcdserverpb.KV"),
        ("/etcdserverpb.Nope/Nope", Code::Unimplemented, "unknown service etcdserverpb.Nope"),
    ] {
        let error = call(&channel, path, Bytes::new()).await.expect_err("unknown");
        assert_eq!((error.code(), error.message()), (code, text));
    }
    let error = call(&channel, "/etcdserverpb.KV/Range", &b"\xff\xff"[..]).await.expect_err("broken");
    assert_eq!(error.code(), Code::Internal);
    assert!(error.message().starts_with("grpc: error unmarshalling request"), "{}", error.message());
}

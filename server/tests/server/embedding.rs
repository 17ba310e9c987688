//! The server inside another program.

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, kv_client::KvClient, request_op::Request as Op},
};
use cairn_server::server::Server;
use tempfile::TempDir;

use super::support::TestServer;

fn put(key: &'static str, value: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn get(key: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), ..Default::default() }
}

#[tokio::test]
async fn a_server_without_sockets_is_used_through_its_client() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Server::builder().data_dir(dir.path()).in_process_only().start().await.expect("the server starts");
    assert!(server.addrs().is_empty());
    let client = server.client();
    client.call(put("a", "1")).await.expect("a put");
    assert_eq!(client.call(get("a")).await.expect("a range").kvs[0].value, "1");
    assert_eq!(client.call(pb::StatusRequest {}).await.expect("a status").version, "3.7.1");
    server.shutdown().await;
    client.call(put("a", "2")).await.expect_err("the server is gone");
}

#[tokio::test]
async fn a_txn_whose_answer_would_not_decode_is_not_run() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Server::builder().data_dir(dir.path()).in_process_only().start().await.expect("the server starts");
    let client = server.client();
    let nested = |levels: usize| {
        let op = |request| pb::RequestOp { request: Some(request) };
        let innermost = pb::TxnRequest { success: vec![op(Op::RequestPut(put("a", "1")))], ..Default::default() };
        (1..levels).fold(innermost, |inner, _| pb::TxnRequest {
            success: vec![op(Op::RequestTxn(inner))],
            ..Default::default()
        })
    };
    assert!(client.call(nested(48)).await.expect("a txn").succeeded);
    let refused = client.call(nested(49)).await.expect_err("too deep");
    assert_eq!(refused, ApiError::TooManyOps.into());
    assert_eq!(client.call(get("a")).await.expect("a range").kvs[0].version, 1);
    server.shutdown().await;
}

#[tokio::test]
async fn generated_clients_work_through_a_channel_without_a_socket() {
    let dir = TempDir::new().expect("a temporary directory");
    let server = Server::builder().data_dir(dir.path()).in_process_only().start().await.expect("the server starts");
    let mut kv = KvClient::new(server.channel());
    kv.put(put("a", "1")).await.expect("a put");
    let found = kv.range(get("a")).await.expect("a range").into_inner();
    assert_eq!(found.kvs[0].value, "1");
    server.shutdown().await;
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart() {
    let dir = TempDir::new().expect("a temporary directory");
    for round in 0..3 {
        let server = Server::builder().data_dir(dir.path()).in_process_only().start().await.expect("the server starts");
        let found = server.client().call(get("a")).await.expect("a range");
        assert_eq!((found.count, found.header.expect("a header").revision), (i64::from(round > 0), 1 + round));
        server.client().call(put("a", "1")).await.expect("a put");
        server.shutdown().await;
    }
}

#[tokio::test]
async fn waiting_ends_with_the_shutdown() {
    let TestServer { server, dir: _dir } = TestServer::start().await;
    let waited = async {
        let failed = server.wait().await;
        assert!(failed.is_none(), "{failed:?}");
    };
    tokio::select! {
        () = waited => panic!("nothing happened yet"),
        () = tokio::task::yield_now() => {}
    }
    server.shutdown().await;
}

#[tokio::test]
async fn an_open_connection_does_not_hold_a_shutdown_up() {
    let TestServer { server, dir: _dir } = TestServer::start().await;
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{}", server.addrs()[0])).expect("a valid URL");
    let mut kv = KvClient::new(endpoint.connect().await.expect("the server accepts"));
    kv.put(put("a", "1")).await.expect("a put");
    server.shutdown().await;
    kv.put(put("a", "2")).await.expect_err("the server is gone");
}

#[test]
fn the_example_keeps_its_objects_from_run_to_run() {
    let program = std::env::current_exe().expect("this program");
    let program = program.ancestors().nth(2).expect("a folder above").join("examples/control_plane");
    let dir = TempDir::new().expect("a temporary directory");
    let run = || {
        let run = std::process::Command::new(&program).current_dir(dir.path()).output().expect("the example runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        String::from_utf8(run.stdout).expect("text")
    };
    let (first, second) = (run(), run());
    assert!(first.contains("created pods/web-0 at revision 2") && first.contains("web-0 runs"), "{first}");
    assert!(second.contains("pods/web-0 was there already") && second.contains("web-0 runs"), "{second}");
}

//! `check perf` against a genuine etcd, shortened: the load itself, and what surrounds it.

use std::time::Duration;

use crate::referee::{Given, Server, cairnctl, output, run, words};
use cairnctl::commands::check::load::Load;
use cairnctl::connection::{Connection, MAX_RECV_BYTES, MAX_REQUEST_BYTES, Options, TlsFiles};

fn connection(endpoint: &str) -> Connection {
    let options = Options {
        dial_timeout: Duration::from_secs(2),
        keepalive_time: Duration::from_secs(2),
        keepalive_timeout: Duration::from_secs(6),
        tls: TlsFiles::default(),
        insecure_transport: true,
        credentials: None,
        max_request_bytes: MAX_REQUEST_BYTES,
        max_recv_bytes: MAX_RECV_BYTES,
    };
    Connection::new(&[endpoint.to_owned()], options).expect("an endpoint")
}

#[tokio::test]
async fn every_put_of_the_load_arrives_under_the_prefix() {
    let server = Server::start("http", &[]);
    let clients = (0..4).map(|_| connection(&server.endpoint())).collect();
    let load = Load { limit: 50, clients: 4, duration: Duration::from_millis(500) };
    let results = load.run(clients, b"/check/").await;
    let (verdict, _) = results.judge(load.limit);
    assert!(!verdict.contains("ERROR"), "{verdict}");
    let line = format!("--endpoints {} get /check/ --prefix --keys-only --hex", server.endpoint());
    let keys = run(&cairnctl(), &words(&line), Given::default()).stdout;
    assert!(keys.lines().filter(|line| line.starts_with("\\x2f")).count() > 0, "{keys}");
}

#[test]
fn a_prefix_that_is_in_use_is_refused() {
    let server = Server::start("http", &[]);
    let ours =
        |line: &str| run(&cairnctl(), &words(&format!("--endpoints {} {line}", server.endpoint())), Given::default());
    assert_eq!(ours("put /etcdctl-check-perf/x 1").code, 0);
    let refused = "Error: prefix \"/etcdctl-check-perf/\" has keys. \
                   Delete with 'cairnctl del --prefix /etcdctl-check-perf/' first\n";
    assert_eq!(ours("check perf"), output(3, "", refused));
}

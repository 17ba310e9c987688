//! `check perf` against a genuine etcd, shortened: the load itself, and what surrounds it.

use std::time::Duration;

use crate::referee::{Given, Server, cairnctl, output, run, words};
use cairn_client::Client;
use cairnctl::commands::check::load::Load;

#[tokio::test]
async fn every_put_of_the_load_arrives_under_the_prefix() {
    let server = Server::start("http", &[]);
    let clients = (0..4).map(|_| Client::new([server.endpoint()]).expect("an endpoint")).collect();
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

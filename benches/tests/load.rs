//! `cairn-load` as it is typed.

use std::process::{Command, Output};

use cairn_proto::etcdserverpb as pb;
use cairn_server::{config::Url, server::Server};

fn load(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cairn-load"));
    command.args(arguments).env("RUST_BACKTRACE", "1").output().expect("the program runs")
}

#[test]
fn an_error_is_told_in_one_line_whatever_is_set_for_developers() {
    let ended = load(&["put", "--endpoints", "127.0.0.1:1", "--cacert", "/nonexistent/ca.pem"]);
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1));
    assert!(told.starts_with("Error: ") && told.contains("/nonexistent/ca.pem"), "{told}");
    assert!(told.contains("No such file"), "the cause is missing: {told}");
    assert_eq!(told.lines().count(), 1, "{told}");
}

#[tokio::test]
async fn leases_are_granted_attached_and_revoked_in_turn() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = Url::parse("http://127.0.0.1:0").expect("a valid URL");
    let builder = Server::builder().data_dir(dir.path()).listen_client_urls([url.clone()]);
    let server = builder.configure(|config| config.listen_peer_urls = vec![url]).start().await.expect("it starts");
    let endpoint = server.addrs()[0].to_string();
    let ended = tokio::task::spawn_blocking(move || {
        load(&["lease-churn", "--endpoints", &endpoint, "--total", "35", "--clients", "1"])
    });
    let ended = ended.await.expect("the program runs");
    let told = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{told}{}", String::from_utf8_lossy(&ended.stderr));
    for (kind, count) in [("grant", 12), ("attach", 12), ("revoke", 11)] {
        let line = told.lines().find(|line| line.starts_with(kind)).unwrap_or_else(|| panic!("no {kind}: {told}"));
        assert!(line.contains(&format!(" {count}   answered, p50 ")) && line.ends_with(" ms"), "{line}");
    }
    // What was granted last is revoked, though that was none of the requests, and with it went its key.
    let reader = server.node().reader();
    assert_eq!(reader.revision(), 1 + 12 + 12, "12 keys were put, and went with their leases");
    server.shutdown().await;
}

#[tokio::test]
async fn a_load_is_made_as_a_user() {
    let dir = tempfile::tempdir().expect("a directory");
    let url = Url::parse("http://127.0.0.1:0").expect("a valid URL");
    let builder = Server::builder().data_dir(dir.path()).listen_client_urls([url.clone()]);
    let configured = builder.configure(|config| {
        config.listen_peer_urls = vec![url];
        config.bcrypt_cost = 4;
    });
    let server = configured.start().await.expect("it starts");
    let client = server.client();
    let add = pb::AuthUserAddRequest { name: "root".into(), password: "pw".into(), ..Default::default() };
    client.call(add).await.expect("a user");
    client.call(pb::AuthRoleAddRequest { name: "root".into() }).await.expect("a role");
    let grant = pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() };
    client.call(grant).await.expect("a role of the user");
    client.call(pb::AuthEnableRequest {}).await.expect("it is on");
    let endpoint = server.addrs()[0].to_string();
    let ended = tokio::task::spawn_blocking(move || {
        [&["--user", "root:pw"][..], &["--user", "root:wrong"], &["--user", "root"], &[]].map(|user| {
            let put = ["put", "--endpoints", &endpoint, "--total", "5"];
            load(&[&put[..], user].concat()).status.code()
        })
    });
    assert_eq!(ended.await.expect("the program runs"), [Some(0), Some(1), Some(1), Some(1)]);
    server.shutdown().await;
}

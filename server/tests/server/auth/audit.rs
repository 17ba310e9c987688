//! The record of calls of users.

use std::{path::Path, time::Duration};

use cairn_proto::{etcdserverpb as pb, rpc::Method};
use cairn_server::config::{AuditConfig, LogOutput};

use super::{call, login, set_up};
use crate::support::{builder, eventually};

/// The lines of a file that are about an RPC, once there are as many.
async fn about(file: &Path, rpc: &str, count: usize) -> Vec<serde_json::Value> {
    eventually("the lines are written", async || {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let lines =
            whole.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")));
        let lines: Vec<serde_json::Value> = lines.filter(|line: &serde_json::Value| line["rpc"] == rpc).collect();
        (lines.len() >= count).then_some(lines)
    })
    .await
}

#[tokio::test]
async fn each_call_is_on_record_with_its_user_and_its_end() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (file, policy) = (dir.path().join("audit.log"), dir.path().join("policy.yaml"));
    std::fs::write(&policy, "default: true\n").expect("a file");
    let audit = AuditConfig {
        output: Some(LogOutput::File(file.clone())),
        policy_file: Some(policy),
        ..AuditConfig::default()
    };
    let data = dir.path().join("data");
    let start = builder(&dir).configure(|config| {
        config.data_dir = Some(data);
        config.bcrypt_cost = 4;
        config.audit = audit;
    });
    let server = start.start().await.expect("it starts");
    let url = format!("http://{}", server.addrs()[0]);
    let channel =
        tonic::transport::Endpoint::from_shared(url).expect("a valid URL").connect().await.expect("it accepts");
    let mut auth = set_up(channel.clone()).await;
    let (alice, bob) = (login(&mut auth, "alice").await, login(&mut auth, "bob").await);
    for (caller, token) in
        [("alice", Some(&*alice)), ("bob", Some(&*bob)), ("nobody", None), ("liar", Some("no.token"))]
    {
        for method in [Method::Put, Method::Range, Method::Watch, Method::Txn] {
            call(&channel, method, caller, token).await;
        }
    }
    // That of the set-up came before.
    for (rpc, before) in [("KV/Put", 1), ("KV/Range", 0), ("Watch/Watch", 0), ("KV/Txn", 0)] {
        let lines = about(&file, &format!("etcdserverpb.{rpc}"), before + 4).await;
        let ends: Vec<_> = lines[before..].iter().map(|line| (line["user"].as_str(), line["code"].as_str())).collect();
        let expected = [
            (Some("alice"), Some("Ok")),
            (Some("bob"), Some("PermissionDenied")),
            (None, Some("InvalidArgument")),
            (None, Some("Unauthenticated")),
        ];
        assert_eq!(ends, expected, "{rpc}");
        assert!(lines.iter().all(|line| line["keys"][0]["key"] == "k1"), "{lines:?}");
        assert!(lines.iter().all(|line| line["address"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:"))));
    }
    let refused = pb::AuthenticateRequest { name: "alice".into(), password: "wrong".into() };
    auth.authenticate(refused).await.expect_err("it is wrong");
    let logins = about(&file, "etcdserverpb.Auth/Authenticate", 3).await;
    let ends: Vec<_> = logins.iter().map(|line| (line["target"].as_str(), line["code"].as_str())).collect();
    let expected = [("alice", "Ok"), ("bob", "Ok"), ("alice", "InvalidArgument")].map(|(a, b)| (Some(a), Some(b)));
    assert_eq!(ends, expected);
    let in_process = server.client().as_user("alice");
    in_process.call(pb::PutRequest { key: "k9".into(), ..Default::default() }).await.expect("alice may");
    let puts = about(&file, "etcdserverpb.KV/Put", 6).await;
    assert_eq!((puts[5]["user"].as_str(), puts[5]["address"].as_str()), (Some("alice"), None));
    let text = std::fs::read_to_string(&file).expect("text");
    assert!(!text.contains("pw-") && !text.contains(&alice), "{text}");
    tokio::time::timeout(Duration::from_mins(1), server.shutdown()).await.expect("it ends");
}

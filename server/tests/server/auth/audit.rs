//! The record of calls of users.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use cairn_proto::{
    etcdserverpb::{self as pb, request_op::Request as Op},
    rpc::{Kind, Method},
    v3electionpb as election,
};
use cairn_server::config::{AuditConfig, LogOutput};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::client::Grpc;

use super::{call, first, login, set_up, with_token};
use crate::support::{RawCodec, TestServer, builder, eventually};

const SECRET: &str = "not-for-the-record";

/// A request with a secret in each field that may hold one: a value, a password. A new method does not compile without
/// an entry here.
fn secretive(method: Method) -> Vec<u8> {
    let (key, secret) = (Bytes::from("k"), || Bytes::from(SECRET));
    let put = || pb::PutRequest { key: key.clone(), value: secret(), ..Default::default() };
    let name = || "user".to_owned();
    match method {
        Method::Put => put().encode_to_vec(),
        Method::Txn => {
            let target_union = Some(pb::compare::TargetUnion::Value(secret()));
            let compare = pb::Compare { key: key.clone(), target_union, target: 3, ..Default::default() };
            let op = |request| pb::RequestOp { request: Some(request) };
            let inner = pb::TxnRequest { failure: vec![op(Op::RequestPut(put()))], ..Default::default() };
            let ops = vec![op(Op::RequestTxn(inner))];
            pb::TxnRequest { compare: vec![compare], success: ops.clone(), failure: ops }.encode_to_vec()
        }
        Method::Campaign => {
            election::CampaignRequest { name: "e".into(), value: secret(), ..Default::default() }.encode_to_vec()
        }
        Method::Proclaim => {
            let leader = election::LeaderKey { name: "e".into(), key: "e/1".into(), ..Default::default() };
            election::ProclaimRequest { leader: Some(leader), value: secret() }.encode_to_vec()
        }
        Method::Authenticate => pb::AuthenticateRequest { name: name(), password: SECRET.into() }.encode_to_vec(),
        Method::UserAdd => pb::AuthUserAddRequest {
            name: name(),
            password: SECRET.into(),
            hashed_password: SECRET.into(),
            options: None,
        }
        .encode_to_vec(),
        Method::UserChangePassword => {
            pb::AuthUserChangePasswordRequest { name: name(), password: SECRET.into(), hashed_password: SECRET.into() }
                .encode_to_vec()
        }
        // Their requests have neither. What they are sent does not decode, and is not to be told either.
        Method::Range
        | Method::RangeStream
        | Method::DeleteRange
        | Method::Compact
        | Method::Watch
        | Method::LeaseGrant
        | Method::LeaseRevoke
        | Method::LeaseKeepAlive
        | Method::LeaseTimeToLive
        | Method::LeaseLeases
        | Method::MemberAdd
        | Method::MemberRemove
        | Method::MemberUpdate
        | Method::MemberList
        | Method::MemberPromote
        | Method::Alarm
        | Method::Status
        | Method::Defragment
        | Method::Hash
        | Method::HashKv
        | Method::Snapshot
        | Method::MoveLeader
        | Method::Downgrade
        | Method::AuthEnable
        | Method::AuthDisable
        | Method::AuthStatus
        | Method::UserGet
        | Method::UserList
        | Method::UserDelete
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleGet
        | Method::RoleList
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission
        | Method::Lock
        | Method::Unlock
        | Method::Leader
        | Method::Observe
        | Method::Resign
        | Method::HealthCheck
        | Method::HealthWatch
        | Method::HealthList
        | Method::Reflection
        | Method::ReflectionAlpha => [&[0x07][..], SECRET.as_bytes()].concat(),
    }
}

#[tokio::test]
async fn no_secret_of_any_call_is_on_record() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let (file, policy) = (dir.path().join("audit.log"), dir.path().join("policy.yaml"));
    std::fs::write(&policy, "rules: [{values: hash}]\n").expect("a file");
    let server = TestServer::with(|config| {
        config.bcrypt_cost = 4;
        config.audit.output = Some(LogOutput::File(file.clone()));
        config.audit.policy_file = Some(policy);
        config.audit.blocking = true;
    })
    .await;
    let channel = server.channel().await;
    let soon = Duration::from_secs(10);
    // A user before a login, a leader before a proclamation.
    let first_ones = [Method::UserAdd, Method::Campaign];
    let others = Method::ALL.iter().filter(|method| !first_ones.contains(method));
    for method in first_ones.iter().chain(others).copied().filter(|method| method.kind() != Kind::BidiStream) {
        let mut client = Grpc::new(channel.clone());
        client.ready().await.expect("the server is there");
        let path = PathAndQuery::from_static(method.path());
        let request = with_token(Bytes::from(secretive(method)), Some(SECRET));
        if method.kind() == Kind::Unary {
            let _ = tokio::time::timeout(soon, client.unary(request, path, RawCodec)).await.expect("it ends");
        } else if let Ok(answers) = client.server_streaming(request, path, RawCodec).await {
            let _ = first(answers.into_inner(), soon).await;
        }
    }
    let puts = about(&file, "etcdserverpb.KV/Put", 1).await;
    assert_eq!(puts[0]["keys"][0]["value_bytes"], SECRET.len());
    server.server.shutdown().await;
    let text = std::fs::read_to_string(&file).expect("text");
    let kept = Method::ALL.iter().filter(|m| m.kind() != Kind::BidiStream && !m.service().starts_with("grpc.")).count();
    assert_eq!(text.lines().count(), kept, "{text}");
    assert!(!text.contains(SECRET), "{text}");
}

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

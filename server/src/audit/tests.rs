use cairn_proto::etcdserverpb::request_op::Request as Op;

use super::{record::read_answer, *};
use crate::config::LogOutput;

/// A record in a file, by a policy.
fn record(policy: &str) -> (tempfile::TempDir, Arc<Audit>) {
    let dir = tempfile::tempdir().expect("a folder");
    let policy_file = dir.path().join("policy.yaml");
    std::fs::write(&policy_file, policy).expect("a file");
    let config = AuditConfig {
        output: Some(LogOutput::File(dir.path().join("audit.log"))),
        policy_file: Some(policy_file),
        blocking: true,
        ..AuditConfig::default()
    };
    let audit = Audit::open(&config).expect("it opens").expect("there is one").of_member(0xca1);
    (dir, audit)
}

fn put(key: &'static [u8], value: &'static [u8]) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

/// The lines that calls of a user leave.
fn lines(policy: &str, user: &'static str, calls: &[(Method, Vec<u8>)]) -> Vec<serde_json::Value> {
    let (dir, audit) = record(policy);
    for (method, request) in calls {
        let user = (!user.is_empty()).then(|| Bytes::from(user));
        let caller = || Caller { user, common_name: Some("client".into()), address: "10.0.0.1:5".parse().ok() };
        let Some(mut trail) = audit.follow(*method, caller) else { continue };
        trail.request(request.clone().into());
        let header = pb::ResponseHeader { revision: 7, ..Default::default() };
        let answer = pb::PutResponse { header: Some(header), prev_kv: None }.encode_to_vec();
        // A queue for tests is short.
        if let Some(waiting) = trail.end(&Outcome { code: Code::Ok, error: "", answer: &answer }) {
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            runtime.block_on(waiting.wait());
        }
    }
    audit.queue().close(std::time::Duration::from_mins(1));
    let text = std::fs::read_to_string(dir.path().join("audit.log")).expect("a file");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"))).collect()
}

#[test]
fn a_line_says_who_did_what_to_which_keys_and_how_it_ended() {
    let calls = [(Method::Put, put(b"/a", b"secret").encode_to_vec())];
    let told = lines("default: true", "alice", &calls);
    let line = told[0].as_object().expect("an object");
    let mut rest = line.clone();
    for changing in ["time", "micros"] {
        rest.remove(changing).expect(changing);
    }
    let expected = serde_json::json!({
        "member": "ca1", "rpc": "etcdserverpb.KV/Put", "access": "write", "user": "alice", "common_name": "client",
        "address": "10.0.0.1:5", "keys": [{"access": "write", "key": "/a"}], "revision": 7, "code": "Ok",
    });
    assert_eq!(serde_json::Value::Object(rest), expected);
    assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')));
}

#[test]
fn bytes_that_are_no_text_stand_as_base64_and_values_as_the_policy_says() {
    let calls = [(Method::Put, put(b"\xff", b"secret").encode_to_vec())];
    for (values, bytes, hash) in [("none", None, false), ("size", Some(6), false), ("hash", Some(6), true)] {
        let told = lines(&format!("rules: [{{values: {values}}}]"), "", &calls);
        let key = &told[0]["keys"][0];
        assert_eq!((key["key_base64"].as_str(), key["key"].as_str()), (Some("/w=="), None));
        assert_eq!((key["value_bytes"].as_u64(), key["value_sha256"].is_string()), (bytes, hash), "{values}");
        assert!(told[0]["user"].is_null());
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let range = |key: &'static str, range_end: &'static str| {
        pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }.encode_to_vec()
    };
    let reads_of_secrets =
        "rules:\n- prefixes: [/s/]\n  access: [read]\n- {access: [read], record: false}\ndefault: true";
    let only_reads_of_secrets = "rules: [{prefixes: [/s/], access: [read]}]";
    let no_events = "rules: [{prefixes: [/e/], record: false}]\ndefault: true";
    let put_telling = |key: &'static str| pb::PutRequest { prev_kv: true, ..put(key.as_bytes(), b"") }.encode_to_vec();
    let delete_telling = |key: &'static str, range_end: &'static str| {
        pb::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), prev_kv: true }.encode_to_vec()
    };
    let op = |request| pb::RequestOp { request: Some(request) };
    let write_and_read = |written: &'static str, read: &'static str| {
        let read = pb::RangeRequest { key: read.into(), ..Default::default() };
        let ops = vec![op(Op::RequestPut(put(written.as_bytes(), b""))), op(Op::RequestRange(read))];
        pb::TxnRequest { failure: ops, ..Default::default() }.encode_to_vec()
    };
    let many_puts = |prefix: &str, count: usize| {
        let put = |at| pb::PutRequest { key: format!("{prefix}{at}").into(), ..Default::default() };
        let failure = (0..count).map(|at| op(Op::RequestPut(put(at)))).collect();
        pb::TxnRequest { failure, ..Default::default() }.encode_to_vec()
    };
    for (policy, user, call, told) in [
        ("default: false", "", (Method::Put, put(b"a", b"").encode_to_vec()), false),
        ("rules: [{users: [alice]}]", "alice", (Method::Put, put(b"a", b"").encode_to_vec()), true),
        ("rules: [{users: [alice]}]", "bob", (Method::Put, put(b"a", b"").encode_to_vec()), false),
        ("rules: [{users: ['']}]", "", (Method::Put, put(b"a", b"").encode_to_vec()), true),
        ("rules: [{rpcs: [KV/Range]}]", "", (Method::Put, put(b"a", b"").encode_to_vec()), false),
        (reads_of_secrets, "", (Method::Range, range("/s/a", "")), true),
        (reads_of_secrets, "", (Method::Range, range("/s/", "/s0")), true),
        // A wider range reads the secrets, too.
        (reads_of_secrets, "", (Method::Range, range("/s/a", "/t")), true),
        (reads_of_secrets, "", (Method::Range, range("/s/a", "\0")), true),
        (reads_of_secrets, "", (Method::Range, range("\0", "\0")), true),
        (reads_of_secrets, "", (Method::Range, range("/a", "/s/a")), true),
        (reads_of_secrets, "", (Method::Range, range("/a", "/s/")), false),
        (reads_of_secrets, "", (Method::Range, range("/s0", "\0")), false),
        (reads_of_secrets, "", (Method::Range, range("/a", "")), false),
        // So does a write that tells what was there, and a transaction that writes elsewhere.
        (only_reads_of_secrets, "", (Method::Put, put_telling("/s/a")), true),
        (only_reads_of_secrets, "", (Method::Put, put_telling("/a")), false),
        (only_reads_of_secrets, "", (Method::Put, put(b"/s/a", b"").encode_to_vec()), false),
        (only_reads_of_secrets, "", (Method::DeleteRange, delete_telling("/a", "/z")), true),
        (only_reads_of_secrets, "", (Method::Txn, write_and_read("/a", "/s/a")), true),
        (only_reads_of_secrets, "", (Method::Txn, write_and_read("/s/a", "/a")), false),
        // What is not to be on record is on record with anything else.
        (no_events, "", (Method::Put, put(b"/e/a", b"").encode_to_vec()), false),
        (no_events, "", (Method::Txn, write_and_read("/e/a", "/e/b")), false),
        (no_events, "", (Method::Txn, write_and_read("/e/a", "/b")), true),
        (no_events, "", (Method::DeleteRange, delete_telling("/e/a", "/e0")), false),
        (no_events, "", (Method::DeleteRange, delete_telling("/e/a", "/e1")), true),
        (no_events, "", (Method::Txn, many_puts("/e/", 1000)), false),
        (no_events, "", (Method::Txn, many_puts("/e/", 1001)), true),
        (reads_of_secrets, "", (Method::Put, put(b"/s/a", b"").encode_to_vec()), true),
        (reads_of_secrets, "", (Method::MemberList, Vec::new()), false),
        ("default: true", "", (Method::LeaseKeepAlive, Vec::new()), false),
        ("default: true", "", (Method::HealthCheck, Vec::new()), false),
    ] {
        let method = call.0;
        assert_eq!(lines(policy, user, &[call]).len(), usize::from(told), "{policy} {method:?}");
    }
}

#[test]
fn a_transaction_says_what_it_compared_and_the_branch_that_it_took() {
    let op = |request| pb::RequestOp { request: Some(request) };
    let txn = pb::TxnRequest {
        compare: vec![pb::Compare { key: "c".into(), ..Default::default() }],
        success: vec![op(pb::request_op::Request::RequestPut(put(b"s", b"secret")))],
        failure: vec![op(pb::request_op::Request::RequestRange(pb::RangeRequest {
            key: "f".into(),
            ..Default::default()
        }))],
    };
    for (succeeded, access, key) in [(true, "write", "s"), (false, "read", "f")] {
        let header = pb::ResponseHeader { revision: 9, ..Default::default() };
        let answer = pb::TxnResponse { header: Some(header), succeeded, responses: Vec::new() }.encode_to_vec();
        let (dir, audit) = record("default: true");
        let mut trail = audit.follow(Method::Txn, Caller::default).expect("it is wanted");
        trail.request(txn.encode_to_vec().into());
        assert!(trail.end(&Outcome { code: Code::Ok, error: "", answer: &answer }).is_none());
        audit.queue().close(std::time::Duration::from_mins(1));
        let text = std::fs::read_to_string(dir.path().join("audit.log")).expect("a file");
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        let keys: Vec<_> = line["keys"].as_array().expect("keys").iter().map(|key| key["key"].as_str()).collect();
        assert_eq!((line["access"].as_str(), keys), (Some(access), vec![Some("c"), Some(key)]), "{line}");
        assert_eq!(line["revision"], 9);
    }
}

#[test]
fn a_delete_says_how_many_keys_it_found_and_a_revoke_which_keys_it_deletes() {
    let header = Some(pb::ResponseHeader { revision: 9, ..Default::default() });
    let (dir, audit) = record("default: true");
    for deleted in [0, 300] {
        let mut trail = audit.follow(Method::DeleteRange, Caller::default).expect("it is wanted");
        trail.request(pb::DeleteRangeRequest { key: "a".into(), ..Default::default() }.encode_to_vec().into());
        let answer = pb::DeleteRangeResponse { header, deleted, ..Default::default() }.encode_to_vec();
        assert!(trail.end(&Outcome { code: Code::Ok, error: "", answer: &answer }).is_none());
    }
    let mut trail = audit.follow(Method::LeaseRevoke, Caller::default).expect("it is wanted");
    trail.request(pb::LeaseRevokeRequest { id: 0x77 }.encode_to_vec().into());
    trail.revokes(|lease| if lease == 0x77 { vec!["k1".into(), "k2".into()] } else { Vec::new() });
    let answer = pb::LeaseRevokeResponse { header }.encode_to_vec();
    assert!(trail.end(&Outcome { code: Code::Ok, error: "", answer: &answer }).is_none());
    audit.queue().close(std::time::Duration::from_mins(1));
    let text = std::fs::read_to_string(dir.path().join("audit.log")).expect("a file");
    let told: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((&told[0]["deleted"], &told[1]["deleted"]), (&0.into(), &300.into()));
    let keys = serde_json::json!([{"access": "write", "key": "k1"}, {"access": "write", "key": "k2"}]);
    assert_eq!((&told[2]["lease"], &told[2]["keys"]), (&"77".into(), &keys));
}

#[tokio::test]
async fn where_none_may_be_lost_a_call_that_gives_up_waiting_is_on_record_all_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("audit.log");
    let config = AuditConfig { output: Some(LogOutput::File(file.clone())), blocking: true, ..AuditConfig::default() };
    let audit = Audit::open(&config).expect("it opens").expect("there is one").of_member(1);
    let waiting = Waiting { audit: audit.clone(), line: b"given up\n".to_vec() };
    drop(waiting.wait());
    Waiting { audit: audit.clone(), line: b"waited\n".to_vec() }.wait().await;
    audit.queue().close(std::time::Duration::from_mins(1));
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "given up\nwaited\n");
    assert_eq!(audit.queue().lost(), 0);
}

#[test]
fn a_call_that_is_given_up_is_put_on_record_too() {
    let (dir, audit) = record("default: true");
    let mut trail = audit.follow(Method::Put, Caller::default).expect("it is wanted");
    trail.request(put(b"a", b"secret").encode_to_vec().into());
    drop(trail);
    audit.queue().close(std::time::Duration::from_mins(1));
    let text = std::fs::read_to_string(dir.path().join("audit.log")).expect("a file");
    assert!(text.contains("\"code\":\"Cancelled\"") && text.contains("\"key\":\"a\""), "{text}");
}

#[test]
fn no_line_of_any_method_has_a_value_a_password_or_a_token() {
    // The same bytes as a string, bytes, and a message, wherever a method has a field for them.
    let secrets: Vec<u8> = (1..12u8).flat_map(|field| [&[field << 3 | 2, 9][..], b"my-secret"].concat()).collect();
    let known = [
        (Method::Put, put(b"k", b"my-secret").encode_to_vec()),
        (
            Method::Authenticate,
            pb::AuthenticateRequest { name: "a".into(), password: "my-secret".into() }.encode_to_vec(),
        ),
        (
            Method::UserAdd,
            pb::AuthUserAddRequest { name: "a".into(), password: "my-secret".into(), ..Default::default() }
                .encode_to_vec(),
        ),
        (
            Method::UserChangePassword,
            pb::AuthUserChangePasswordRequest { name: "a".into(), password: "my-secret".into(), ..Default::default() }
                .encode_to_vec(),
        ),
        (
            Method::Campaign,
            cairn_proto::v3electionpb::CampaignRequest { name: "n".into(), value: "my-secret".into(), lease: 0 }
                .encode_to_vec(),
        ),
    ];
    let told = lines("rules: [{values: hash}]", "alice", &known);
    assert_eq!(told.len(), known.len());
    assert!(!format!("{told:?}").contains("my-secret"), "{told:?}");
    let any: Vec<_> = Method::ALL.iter().map(|method| (*method, secrets.clone())).collect();
    let kept = Method::ALL.iter().filter(|method| is_kept(**method)).count();
    assert_eq!(lines("default: true", "alice", &any).len(), kept);
}

#[test]
fn answers_tell_revision_and_branch_or_nothing() {
    let header = Some(pb::ResponseHeader { cluster_id: 1, member_id: 2, revision: 1 << 40, raft_term: 3 });
    let answer = pb::TxnResponse { header, succeeded: true, responses: Vec::new() }.encode_to_vec();
    let told = read_answer(&answer);
    assert_eq!((told.revision, told.second), (Some(1 << 40), Some(1)));
    for cut in 0..answer.len() {
        let _ = read_answer(&answer[..cut]);
    }
    assert_eq!(read_answer(b"\xff\xff").revision, None);
}

#[test]
fn a_record_that_cannot_be_kept_is_told_at_the_start() {
    let dir = tempfile::tempdir().expect("a folder");
    let missing = Some(LogOutput::File(dir.path().join("no/such/folder/audit.log")));
    let config = AuditConfig { output: missing, ..AuditConfig::default() };
    let error = Audit::open(&config).expect_err("there is no folder").to_string();
    assert!(error.starts_with("--audit-log: cannot open "), "{error}");
    for (text, reason) in [(None, "cannot be read"), (Some("rules: 1"), "policy.yaml")] {
        let policy_file = dir.path().join("policy.yaml");
        if let Some(text) = text {
            std::fs::write(&policy_file, text).expect("a file");
        }
        let config =
            AuditConfig { output: Some(LogOutput::Stderr), policy_file: Some(policy_file), ..AuditConfig::default() };
        let error = Audit::open(&config).expect_err("the policy is no good").to_string();
        assert!(error.starts_with("--audit-policy: ") && error.contains(reason), "{error}");
    }
    assert!(Audit::open(&AuditConfig::default()).expect("no error").is_none());
}

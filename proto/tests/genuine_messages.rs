//! Messages that a genuine client and a genuine etcd 3.7.1 wrote decode to the right fields and encode to the same bytes.
//!
//! `testdata/etcd-3.7.1.jsonl` holds one exchange a line: method, request, and what came back (answer, pieces of a stream,
//! or events of a watch), each as base64 of the bytes on the wire. `text` is the request as its client printed it.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

use std::{collections::HashSet, fmt::Debug};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use cairn_proto::{
    ApiError, authpb,
    etcdserverpb::{self as pb, compare, range_request, request_op, response_op, watch_create_request, watch_request},
    mvccpb,
};
use prost::Message;
use tonic::{Code, Status};

#[derive(serde::Deserialize)]
struct Exchange {
    name: String,
    method: String,
    request: String,
    code: i32,
    #[serde(default)]
    message: String,
    response: Option<String>,
    #[serde(default)]
    responses: Vec<String>,
    #[serde(default)]
    events: Vec<String>,
}

fn exchanges() -> Vec<Exchange> {
    include_str!("../testdata/etcd-3.7.1.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Decodes, and checks that encoding gives the same bytes again.
fn message<M: Message + Default + Debug>(name: &str, base64: &str) -> M {
    let bytes = Bytes::from(STANDARD.decode(base64).unwrap());
    let message = M::decode(bytes.clone()).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert_eq!(message.encode_to_vec(), bytes, "{name}: {message:?}");
    message
}

fn both<Q, A>(exchange: &Exchange)
where
    Q: Message + Default + Debug,
    A: Message + Default + Debug,
{
    message::<Q>(&exchange.name, &exchange.request);
    for answer in exchange.response.iter().chain(&exchange.responses) {
        message::<A>(&exchange.name, answer);
    }
    for event in &exchange.events {
        message::<mvccpb::Event>(&exchange.name, event);
    }
}

#[test]
fn genuine_messages_survive_decoding_and_encoding() {
    let mut methods = HashSet::new();
    for e in exchanges() {
        match e.method.as_str() {
            "/etcdserverpb.KV/Put" => both::<pb::PutRequest, pb::PutResponse>(&e),
            "/etcdserverpb.KV/Range" => both::<pb::RangeRequest, pb::RangeResponse>(&e),
            "/etcdserverpb.KV/RangeStream" => {
                both::<pb::RangeRequest, pb::RangeStreamResponse>(&e);
            }
            "/etcdserverpb.KV/DeleteRange" => {
                both::<pb::DeleteRangeRequest, pb::DeleteRangeResponse>(&e);
            }
            "/etcdserverpb.KV/Txn" => both::<pb::TxnRequest, pb::TxnResponse>(&e),
            "/etcdserverpb.KV/Compact" => both::<pb::CompactionRequest, pb::CompactionResponse>(&e),
            "/etcdserverpb.Watch/Watch" => both::<pb::WatchRequest, pb::WatchResponse>(&e),
            "/etcdserverpb.Maintenance/HashKV" => both::<pb::HashKvRequest, pb::HashKvResponse>(&e),
            "/etcdserverpb.Lease/LeaseGrant" => {
                both::<pb::LeaseGrantRequest, pb::LeaseGrantResponse>(&e);
            }
            "/etcdserverpb.Lease/LeaseRevoke" => {
                both::<pb::LeaseRevokeRequest, pb::LeaseRevokeResponse>(&e);
            }
            "/etcdserverpb.Lease/LeaseKeepAlive" => {
                both::<pb::LeaseKeepAliveRequest, pb::LeaseKeepAliveResponse>(&e);
            }
            "/etcdserverpb.Lease/LeaseTimeToLive" => {
                both::<pb::LeaseTimeToLiveRequest, pb::LeaseTimeToLiveResponse>(&e);
            }
            "/etcdserverpb.Lease/LeaseLeases" => {
                both::<pb::LeaseLeasesRequest, pb::LeaseLeasesResponse>(&e);
            }
            "/etcdserverpb.Auth/AuthEnable" => {
                both::<pb::AuthEnableRequest, pb::AuthEnableResponse>(&e);
            }
            "/etcdserverpb.Auth/AuthDisable" => {
                both::<pb::AuthDisableRequest, pb::AuthDisableResponse>(&e);
            }
            "/etcdserverpb.Auth/AuthStatus" => {
                both::<pb::AuthStatusRequest, pb::AuthStatusResponse>(&e);
            }
            "/etcdserverpb.Auth/Authenticate" => {
                both::<pb::AuthenticateRequest, pb::AuthenticateResponse>(&e);
            }
            "/etcdserverpb.Auth/UserAdd" => {
                both::<pb::AuthUserAddRequest, pb::AuthUserAddResponse>(&e);
            }
            "/etcdserverpb.Auth/UserGet" => {
                both::<pb::AuthUserGetRequest, pb::AuthUserGetResponse>(&e);
            }
            "/etcdserverpb.Auth/UserList" => {
                both::<pb::AuthUserListRequest, pb::AuthUserListResponse>(&e);
            }
            "/etcdserverpb.Auth/UserDelete" => {
                both::<pb::AuthUserDeleteRequest, pb::AuthUserDeleteResponse>(&e);
            }
            "/etcdserverpb.Auth/UserGrantRole" => {
                both::<pb::AuthUserGrantRoleRequest, pb::AuthUserGrantRoleResponse>(&e);
            }
            "/etcdserverpb.Auth/UserRevokeRole" => {
                both::<pb::AuthUserRevokeRoleRequest, pb::AuthUserRevokeRoleResponse>(&e);
            }
            "/etcdserverpb.Auth/RoleAdd" => {
                both::<pb::AuthRoleAddRequest, pb::AuthRoleAddResponse>(&e);
            }
            "/etcdserverpb.Auth/RoleGet" => {
                both::<pb::AuthRoleGetRequest, pb::AuthRoleGetResponse>(&e);
            }
            "/etcdserverpb.Auth/RoleList" => {
                both::<pb::AuthRoleListRequest, pb::AuthRoleListResponse>(&e);
            }
            "/etcdserverpb.Auth/RoleGrantPermission" => {
                both::<pb::AuthRoleGrantPermissionRequest, pb::AuthRoleGrantPermissionResponse>(&e);
            }
            "/etcdserverpb.Auth/RoleRevokePermission" => {
                both::<pb::AuthRoleRevokePermissionRequest, pb::AuthRoleRevokePermissionResponse>(&e);
            }
            other => panic!("{}: no types for {other}", e.name),
        }
        if e.code != 0 {
            let error = ApiError::from_status(&Status::new(Code::from(e.code), &e.message));
            assert_eq!(error.map(ApiError::text), Some(e.message.as_str()), "{}", e.name);
            assert_eq!(error.map(ApiError::code), Some(Code::from(e.code)), "{}", e.name);
        }
        methods.insert(e.method);
    }
    assert_eq!(methods.len(), 28, "an exchange is missing from the test data");
}

fn exchange(name: &str) -> Exchange {
    let found = exchanges().into_iter().find(|e| e.name == name);
    found.unwrap_or_else(|| panic!("no exchange {name:?} in the test data"))
}

fn request<M: Message + Default + Debug>(name: &str) -> M {
    message(name, &exchange(name).request)
}

fn response<M: Message + Default + Debug>(name: &str) -> M {
    message(name, &exchange(name).response.unwrap())
}

#[test]
fn a_genuine_put_has_the_right_fields() {
    let put: pb::PutRequest = request("put with lease");
    let wanted = pb::PutRequest { key: "/registry/leases/n1".into(), lease: 101, prev_kv: true, ..Default::default() };
    assert_eq!(put, wanted);

    let answer: pb::PutResponse = response("put with lease");
    assert_eq!(answer.header.unwrap().revision, 35);
    let before = answer.prev_kv.unwrap();
    assert_eq!(before.key, "/registry/leases/n1");
    assert_eq!((before.create_revision, before.mod_revision, before.version), (5, 8, 3));
}

#[test]
fn a_genuine_range_has_the_right_fields() {
    let range: pb::RangeRequest = request("range with limit, revision and sort");
    let wanted = pb::RangeRequest {
        key: "c".into(),
        range_end: "z/1".into(),
        limit: 100,
        revision: 6,
        sort_order: range_request::SortOrder::Ascend.into(),
        sort_target: range_request::SortTarget::Value.into(),
        ..Default::default()
    };
    assert_eq!(range, wanted);

    let answer: pb::RangeResponse = response("range with limit, revision and sort");
    assert_eq!(answer.header.unwrap().revision, 13);
    assert_eq!((answer.count, answer.more), (2, false));
    assert_eq!(answer.kvs[0].key, &b"k\xff"[..]);
    assert_eq!(answer.kvs[1].value, ">");

    let range: pb::RangeRequest = request("range with three revision filters");
    let filters = (range.min_mod_revision, range.max_mod_revision, range.max_create_revision);
    assert_eq!(filters, (3, 8, 32));
    assert!(range.count_only && range.revision == 30);

    let range: pb::RangeRequest = request("range at a negative revision");
    assert_eq!(range.revision, -1);
    assert!(range.serializable && range.keys_only);
    assert_eq!(range.sort_order(), range_request::SortOrder::Descend);
}

#[test]
fn a_genuine_nested_txn_has_the_right_fields() {
    let txn: pb::TxnRequest = request("nested txn");
    let guard = &txn.compare[0];
    assert_eq!(guard.result(), compare::CompareResult::Less);
    assert_eq!(guard.target(), compare::CompareTarget::Mod);
    assert_eq!(guard.target_union, Some(compare::TargetUnion::ModRevision(63)));

    let Some(request_op::Request::RequestTxn(inner)) = &txn.success[0].request else {
        panic!("{txn:?}");
    };
    assert_eq!(inner.compare[0].target_union, Some(compare::TargetUnion::Version(2)));
    let Some(request_op::Request::RequestTxn(innermost)) = &inner.failure[0].request else {
        panic!("{inner:?}");
    };
    let Some(request_op::Request::RequestRange(range)) = &innermost.success[0].request else {
        panic!("{innermost:?}");
    };
    assert_eq!(range.range_end, "/registry0");
    assert_eq!(range.max_create_revision, 41);
    let Some(request_op::Request::RequestPut(put)) = &txn.failure[0].request else {
        panic!("{txn:?}");
    };
    assert_eq!((put.key.as_ref(), put.value.len()), (&b"/registry/leases/n2"[..], 40));

    let answer: pb::TxnResponse = response("nested txn");
    assert!(answer.succeeded);
    let Some(response_op::Response::ResponseTxn(inner)) = &answer.responses[0].response else {
        panic!("{answer:?}");
    };
    assert_eq!(inner.header, Some(pb::ResponseHeader::default()), "present but empty");
    assert!(!inner.succeeded);
}

#[test]
fn a_genuine_delete_has_the_right_fields() {
    let delete: pb::DeleteRangeRequest = request("delete with prev_kv");
    assert_eq!((delete.key.as_ref(), delete.prev_kv), (&b"/registry/"[..], true));
    let answer: pb::DeleteRangeResponse = response("delete with prev_kv");
    assert_eq!((answer.deleted, answer.prev_kvs.len()), (3, 3));
    assert_eq!(answer.prev_kvs[1].key, "/registry/pods/default/web");
    assert_eq!(answer.prev_kvs[1].value, "G");
}

#[test]
fn genuine_pieces_of_a_streamed_range_have_the_right_fields() {
    let pieces = exchange("range stream").responses;
    let last: pb::RangeStreamResponse = message("range stream", pieces.last().unwrap());
    let range = last.range_response.unwrap();
    assert_eq!(range.header.unwrap().revision, 22);
    assert_eq!((range.kvs.len(), range.more, range.count), (3, true, 13));
}

#[test]
fn a_genuine_compaction_and_hash_have_the_right_fields() {
    let compaction: pb::CompactionRequest = request("compact");
    assert_eq!((compaction.revision, compaction.physical), (0, true));

    let hash: pb::HashKvRequest = request("hash kv");
    assert_eq!(hash.revision, 6);
    let hash: pb::HashKvResponse = response("hash kv");
    assert_eq!((hash.hash, hash.compact_revision, hash.hash_revision), (1_737_891_389, 0, 6));
}

#[test]
fn genuine_leases_have_the_right_fields() {
    let grant: pb::LeaseGrantRequest = request("negative lease id");
    assert_eq!((grant.ttl, grant.id), (9_000_000_000, -5));
    let granted: pb::LeaseGrantResponse = response("negative lease id");
    assert_eq!((granted.ttl, granted.id), (9_000_000_000, -5));

    let left: pb::LeaseTimeToLiveRequest = request("lease TimeToLive");
    assert_eq!((left.id, left.keys), (-7, true));
    let left: pb::LeaseTimeToLiveResponse = response("lease TimeToLive");
    assert_eq!((left.id, left.ttl, left.granted_ttl), (-7, -1, 0));

    let leases: pb::LeaseLeasesResponse = response("lease Leases");
    let ids: Vec<i64> = leases.leases.iter().map(|lease| lease.id).collect();
    assert_eq!(ids, [100, 102, -7]);
}

#[test]
fn genuine_users_and_roles_have_the_right_fields() {
    let user: pb::AuthUserAddRequest = request("user without password");
    assert_eq!(user.name, "certonly");
    assert_eq!(user.options, Some(authpb::UserAddOptions { no_password: true }));

    let login: pb::AuthenticateRequest = request("auth Authenticate");
    assert_eq!((login.name.as_str(), login.password.as_str()), ("root", "pw-root"));
    let login: pb::AuthenticateResponse = response("auth Authenticate");
    assert!(!login.token.is_empty());

    let status: pb::AuthStatusResponse = response("auth AuthStatus");
    assert_eq!((status.enabled, status.auth_revision), (false, 21));

    let role: pb::AuthRoleGetResponse = response("role with permissions");
    let types: Vec<_> = role.perm.iter().map(authpb::Permission::perm_type).collect();
    assert_eq!(
        types,
        [authpb::permission::Type::Write, authpb::permission::Type::Write, authpb::permission::Type::Readwrite]
    );
    assert_eq!(role.perm[2].range_end, "z0");
}

#[test]
fn genuine_watch_messages_have_the_right_fields() {
    let watch: pb::WatchRequest = request("watch");
    let Some(watch_request::RequestUnion::CreateRequest(create)) = watch.request_union else {
        panic!("{watch:?}");
    };
    assert_eq!((create.start_revision, create.watch_id, create.prev_kv), (1, 5, true));
    let filters: Vec<_> = create.filters().collect();
    assert_eq!(filters, [watch_create_request::FilterType::Nodelete]);

    let events: Vec<mvccpb::Event> = exchange("watch").events.iter().map(|event| message("watch", event)).collect();
    assert_eq!(events[1].r#type(), mvccpb::event::EventType::Put);
    assert_eq!(events[1].kv.as_ref().unwrap().version, 2);
    assert_eq!(events[1].prev_kv, events[0].kv);
}

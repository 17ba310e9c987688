use cairn_proto::{
    ApiError,
    authpb::{Permission, permission::Type},
    etcdserverpb::{self as pb, request_op::Request as Op},
};

use super::*;
use crate::state::command::Request;

/// Leases with these keys.
struct Leases(&'static [(i64, &'static str)]);

impl LeaseKeys for Leases {
    fn all_keys(&self, lease: i64, look: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        self.0.iter().filter(|(id, _)| *id == lease).all(|(_, key)| look(&Bytes::from(*key)))
    }

    fn all_keys_of_all(&self, look: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        self.0.iter().all(|(_, key)| look(&Bytes::from(*key)))
    }
}

fn add_user(name: &str) -> AuthRequest {
    AuthRequest::UserAdd(pb::AuthUserAddRequest {
        name: name.into(),
        hashed_password: "hash".into(),
        ..Default::default()
    })
}

fn add_role(name: &str) -> AuthRequest {
    AuthRequest::RoleAdd(pb::AuthRoleAddRequest { name: name.into() })
}

fn grant_role(user: &str, role: &str) -> AuthRequest {
    AuthRequest::UserGrantRole(pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() })
}

fn revoke_role(name: &str, role: &str) -> AuthRequest {
    AuthRequest::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name: name.into(), role: role.into() })
}

fn grant(role: &str, perm_type: Type, key: &'static str, range_end: &'static str) -> AuthRequest {
    let perm = Some(Permission { perm_type: perm_type.into(), key: key.into(), range_end: range_end.into() });
    AuthRequest::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name: role.into(), perm })
}

fn revoke(role: &str, key: &'static str, range_end: &'static str) -> AuthRequest {
    let (key, range_end) = (key.into(), range_end.into());
    AuthRequest::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest { role: role.into(), key, range_end })
}

fn delete_user(name: &str) -> AuthRequest {
    AuthRequest::UserDelete(pb::AuthUserDeleteRequest { name: name.into() })
}

fn delete_role(role: &str) -> AuthRequest {
    AuthRequest::RoleDelete(pb::AuthRoleDeleteRequest { role: role.into() })
}

fn all(store: &mut AuthStore, requests: impl IntoIterator<Item = AuthRequest>) {
    for request in requests {
        store.evaluate(&request).unwrap_or_else(|error| panic!("{request:?}: {error}"));
    }
}

/// A store in which authentication is on: alice may write in `[a, c)` and read in `[a, e)`, bob has no role.
fn store() -> AuthStore {
    let mut store = AuthStore::default();
    let requests = [
        add_user(ROOT),
        add_user("alice"),
        add_user("bob"),
        add_role(ROOT),
        add_role("team"),
        grant_role(ROOT, ROOT),
        grant_role("alice", "team"),
        grant("team", Type::Readwrite, "a", "c"),
        grant("team", Type::Read, "c", "e"),
        AuthRequest::Enable,
    ];
    all(&mut store, requests);
    store
}

fn user(store: &AuthStore, name: &'static str) -> Actor {
    Actor::User { name: name.into(), auth_revision: store.revision() }
}

#[test]
fn requests_are_judged_as_etcd_judges_them() {
    let mut store = AuthStore::default();
    assert_eq!((store.revision(), store.evaluate(&AuthRequest::Enable)), (1, Err(ApiError::RootUserNotExist)));
    all(&mut store, [add_user(ROOT)]);
    assert_eq!(store.evaluate(&AuthRequest::Enable), Err(ApiError::RootRoleNotGranted));
    all(&mut store, [grant_role(ROOT, ROOT), add_role(ROOT), add_role("r"), add_user("u"), AuthRequest::Enable]);
    let refused = [
        (add_user("u"), ApiError::UserExists),
        (add_user(""), ApiError::UserEmpty),
        (add_role("r"), ApiError::RoleExists),
        (add_role(""), ApiError::RoleEmpty),
        (grant_role("x", "r"), ApiError::UserNotFound),
        (grant_role("u", "x"), ApiError::RoleNotFound),
        (revoke_role("x", "r"), ApiError::UserNotFound),
        (revoke_role("u", "r"), ApiError::RoleNotGranted),
        (revoke_role(ROOT, ROOT), ApiError::InvalidAuthManagement),
        (delete_user(ROOT), ApiError::InvalidAuthManagement),
        (delete_user("x"), ApiError::UserNotFound),
        (delete_role(ROOT), ApiError::InvalidAuthManagement),
        (delete_role("x"), ApiError::RoleNotFound),
        (grant("x", Type::Read, "a", ""), ApiError::RoleNotFound),
        (grant("r", Type::Read, "", ""), ApiError::InvalidAuthManagement),
        (grant("r", Type::Read, "b", "a"), ApiError::InvalidAuthManagement),
        (grant("r", Type::Read, "a", "a"), ApiError::InvalidAuthManagement),
        (revoke("r", "a", ""), ApiError::PermissionNotGranted),
        (revoke("x", "a", ""), ApiError::RoleNotFound),
        (
            AuthRequest::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name: "r".into(), perm: None }),
            ApiError::PermissionNotGiven,
        ),
    ];
    let revision = store.revision();
    for (request, error) in refused {
        assert_eq!(store.evaluate(&request), Err(error), "{request:?}");
    }
    // What changes nothing raises no revision.
    all(&mut store, [AuthRequest::Enable, grant_role(ROOT, ROOT)]);
    assert_eq!(store.revision(), revision);
    all(&mut store, [grant_role("u", "r"), AuthRequest::Disable, AuthRequest::Disable, delete_user(ROOT)]);
    assert_eq!((store.revision(), store.is_enabled()), (revision + 3, false));
}

#[test]
fn what_is_written_restores_the_store() {
    let (mut store, mut switch) = (AuthStore::default(), None);
    let (mut users, mut roles) = (std::collections::BTreeMap::new(), std::collections::BTreeMap::new());
    let requests = [
        add_user(ROOT),
        add_user("u"),
        add_user("gone"),
        add_role("r"),
        add_role("lost"),
        grant_role(ROOT, ROOT),
        grant_role("u", "r"),
        grant_role("u", "lost"),
        grant("r", Type::Readwrite, "a", "c"),
        AuthRequest::Enable,
        delete_user("gone"),
        delete_role("lost"),
    ];
    for request in requests {
        for written in store.evaluate(&request).unwrap() {
            match written {
                Written::Switch => switch = Some((store.is_enabled(), store.revision())),
                Written::User(name, Some(user)) => drop(users.insert(name, user)),
                Written::User(name, None) => drop(users.remove(&name)),
                Written::Role(name, Some(role)) => drop(roles.insert(name, role)),
                Written::Role(name, None) => drop(roles.remove(&name)),
            }
        }
    }
    let restored = AuthStore::restored(switch, users.into_iter(), roles.into_iter());
    assert_eq!((restored.is_enabled(), restored.revision()), (true, store.revision()));
    assert!(restored.user_names().eq(store.user_names()) && restored.role_names().eq(store.role_names()));
    assert_eq!(
        (restored.roles_of("u"), restored.permissions_of("r")),
        (store.roles_of("u"), store.permissions_of("r"))
    );
    assert_eq!(restored.roles_of("u"), Ok(vec!["r".into()]));
}

fn range(key: &'static str, range_end: &'static str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

fn put(key: &'static str) -> pb::PutRequest {
    pb::PutRequest { key: key.into(), ..Default::default() }
}

fn delete(key: &'static str, range_end: &'static str) -> pb::DeleteRangeRequest {
    pb::DeleteRangeRequest { key: key.into(), range_end: range_end.into(), ..Default::default() }
}

fn txn(ops: Vec<Op>) -> pb::TxnRequest {
    let ops = ops.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
    // The branch that is not taken counts as well.
    pb::TxnRequest { failure: ops, ..Default::default() }
}

/// Whether alice may apply each of these.
#[test]
fn a_request_needs_everything_that_it_touches() {
    let store = store();
    let leases = Leases(&[(1, "a"), (2, "a"), (2, "z"), (3, "d")]);
    let compare = |key: &'static str, range_end: &'static str| pb::Compare {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    };
    let nested = |op| Request::Txn(txn(vec![Op::RequestTxn(txn(vec![op]))]));
    let table = [
        (Request::Put(put("b")), true),
        (Request::Put(put("c")), false),
        (Request::Put(pb::PutRequest { prev_kv: true, ..put("b") }), true),
        (Request::Put(pb::PutRequest { lease: 1, ..put("b") }), true),
        (Request::Put(pb::PutRequest { lease: 2, ..put("b") }), false),
        (Request::Put(pb::PutRequest { lease: 9, ..put("b") }), true),
        (Request::DeleteRange(delete("a", "c")), true),
        (Request::DeleteRange(delete("a", "d")), false),
        (Request::DeleteRange(delete("a", "\0")), false),
        (Request::Txn(txn(vec![Op::RequestPut(put("a")), Op::RequestRange(range("a", "e"))])), true),
        (Request::Txn(txn(vec![Op::RequestRange(range("a", "f"))])), false),
        (nested(Op::RequestPut(put("a"))), true),
        (nested(Op::RequestPut(put("d"))), false),
        (nested(Op::RequestDeleteRange(pb::DeleteRangeRequest { prev_kv: true, ..delete("b", "") })), true),
        (Request::Txn(pb::TxnRequest { compare: vec![compare("d", "")], ..Default::default() }), true),
        (Request::Txn(pb::TxnRequest { compare: vec![compare("d", "\0")], ..Default::default() }), false),
        (Request::LeaseGrant(pb::LeaseGrantRequest::default()), true),
        (Request::LeaseRevoke { id: 1, expired_in_term: None }, true),
        (Request::LeaseRevoke { id: 2, expired_in_term: None }, false),
        (Request::LeaseRevoke { id: 3, expired_in_term: None }, false),
        (Request::Alarm(pb::AlarmRequest::default()), true),
        (Request::Alarm(pb::AlarmRequest { action: 1, ..Default::default() }), false),
        (Request::Compact(pb::CompactionRequest::default()), false),
        (Request::CommandLevel(9), false),
        (Request::PublishMember { member: 1, name: "n".into(), client_urls: Vec::new() }, false),
        (Request::Auth(AuthRequest::Disable), false),
        (Request::Token { user: "root".into(), token: "t".into(), made: 0 }, false),
    ];
    for (request, allowed) in table {
        let need = Need::Apply(&request);
        let expected = if allowed { Ok(()) } else { Err(ApiError::PermissionDenied) };
        assert_eq!(store.check(&user(&store, "alice"), need, &leases), expected, "{request:?}");
        assert_eq!(store.check(&user(&store, ROOT), need, &leases), Ok(()), "{request:?}");
        assert_eq!(store.check(&Actor::Server, need, &leases), Ok(()), "{request:?}");
        assert_eq!(store.check(&Actor::Anonymous, need, &leases), Err(ApiError::UserEmpty), "{request:?}");
    }
    // With a permission to write only, the previous value stays hidden.
    let mut store = store;
    all(&mut store, [grant("team", Type::Write, "x", "")]);
    let hidden = pb::PutRequest { prev_kv: true, ..put("x") };
    let alice = user(&store, "alice");
    assert_eq!(store.check(&alice, Need::Apply(&Request::Put(put("x"))), &leases), Ok(()));
    let denied = Err(ApiError::PermissionDenied);
    assert_eq!(store.check(&alice, Need::Apply(&Request::Put(hidden)), &leases), denied);
}

#[test]
fn reads_watches_and_leases_need_their_keys() {
    let store = store();
    let (mine, others) = (Leases(&[(1, "a"), (2, "d")]), Leases(&[(1, "a"), (2, "z")]));
    let alice = |need: Need<'_>, leases: &Leases| store.check(&user(&store, "alice"), need, leases).is_ok();
    assert!(alice(Need::Range(&range("a", "e")), &mine) && !alice(Need::Range(&range("a", "f")), &mine));
    assert!(
        alice(Need::Watch(b"d", &RangeEnd::Single), &mine) && !alice(Need::Watch(b"d", &RangeEnd::Unbounded), &mine)
    );
    assert!(!alice(Need::Watch(b"\0", &RangeEnd::Single), &mine));
    assert!(alice(Need::RenewLease(1), &mine) && !alice(Need::RenewLease(2), &mine));
    assert!(
        alice(Need::SeeLease { id: 2, keys: true }, &mine) && alice(Need::SeeLease { id: 2, keys: false }, &others)
    );
    assert!(!alice(Need::SeeLease { id: 2, keys: true }, &others));
    assert!(alice(Need::Leases, &mine) && !alice(Need::Leases, &others));
    assert!(alice(Need::UserOf("alice"), &mine) && !alice(Need::UserOf("bob"), &mine));
    assert!(alice(Need::Role("team"), &mine) && !alice(Need::Role(ROOT), &mine));
    assert!(alice(Need::User, &mine) && !alice(Need::Root, &mine));
}

#[test]
fn a_check_is_good_for_one_auth_revision() {
    let mut store = store();
    let before = user(&store, "alice");
    let read = range("a", "");
    let check = |store: &AuthStore, actor: &Actor| store.check(actor, Need::Range(&read), &Leases(&[]));
    assert_eq!(check(&store, &before), Ok(()));
    all(&mut store, [revoke("team", "a", "c")]);
    assert_eq!(check(&store, &before), Err(ApiError::AuthOldRevision));
    assert_eq!(check(&store, &user(&store, "alice")), Err(ApiError::PermissionDenied));
    all(&mut store, [grant("team", Type::Read, "a", "")]);
    assert_eq!(check(&store, &user(&store, "alice")), Ok(()));
    all(&mut store, [delete_role("team")]);
    assert_eq!(check(&store, &user(&store, "alice")), Err(ApiError::PermissionDenied));
    all(&mut store, [delete_user("alice")]);
    assert_eq!(check(&store, &user(&store, "alice")), Err(ApiError::PermissionDenied));
    all(&mut store, [AuthRequest::Disable]);
    assert_eq!(check(&store, &Actor::Anonymous), Ok(()));
}

/// The order in which etcd lists permissions, and which of those with one key a second grant replaces.
#[test]
fn permissions_are_sorted_by_key_and_a_grant_replaces_the_same_range() {
    let mut store = store();
    let listed = |store: &AuthStore| {
        let all = store.permissions_of("team").unwrap();
        all.iter()
            .map(|one| format!("{:?} {:?} {}", one.key, one.range_end, one.perm_type))
            .collect::<Vec<_>>()
            .join(", ")
    };
    all(&mut store, [grant("team", Type::Read, "a", ""), grant("team", Type::Write, "b", "z")]);
    assert_eq!(listed(&store), r#"b"a" b"c" 2, b"a" b"" 0, b"b" b"z" 1, b"c" b"e" 0"#);
    all(&mut store, [grant("team", Type::Write, "a", "c"), revoke("team", "b", "z")]);
    assert_eq!(listed(&store), r#"b"a" b"c" 1, b"a" b"" 0, b"c" b"e" 0"#);
}

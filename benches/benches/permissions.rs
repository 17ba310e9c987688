//! Benches of what a permission costs where there are many: 1,000 users, each with one of 100 roles of 1,000 ranges.

use std::hint::black_box;

use bytes::Bytes;
use cairn_proto::{
    authpb::{Permission, permission::Type},
    etcdserverpb as pb,
};
use cairn_server::state::{
    auth::{Actor, AuthRequest, AuthStore, LeaseKeys, Need},
    command::Request,
    mvcc::index::RangeEnd,
};
use criterion::{Criterion, criterion_group, criterion_main};

const USERS: usize = 1000;
const ROLES: usize = 100;
const RANGES: usize = 1000;

/// There are no leases.
struct NoLeases;

impl LeaseKeys for NoLeases {
    fn all_keys(&self, _lease: i64, _look: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        true
    }

    fn all_keys_of_all(&self, _look: &mut dyn FnMut(&Bytes) -> bool) -> bool {
        true
    }
}

/// The keys of a range of a role, which neither overlap nor touch.
fn range(role: usize, range: usize) -> (Bytes, Bytes) {
    (format!("/{role:03}/{range:04}/a").into(), format!("/{role:03}/{range:04}/b").into())
}

fn store() -> AuthStore {
    let mut store = AuthStore::default();
    let mut change = |request| drop(store.evaluate(&request).expect("a change"));
    for role in 0..ROLES {
        change(AuthRequest::RoleAdd(pb::AuthRoleAddRequest { name: format!("r{role}") }));
        for at in 0..RANGES {
            let (key, range_end) = range(role, at);
            let perm = Some(Permission { perm_type: Type::Readwrite.into(), key, range_end });
            let name = format!("r{role}");
            change(AuthRequest::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm }));
        }
    }
    change(AuthRequest::RoleAdd(pb::AuthRoleAddRequest { name: "root".into() }));
    for (name, role) in (0..USERS).map(|user| (format!("u{user}"), format!("r{}", user % ROLES))) {
        change(AuthRequest::UserAdd(pb::AuthUserAddRequest { name: name.clone(), ..Default::default() }));
        change(AuthRequest::UserGrantRole(pb::AuthUserGrantRoleRequest { user: name, role }));
    }
    change(AuthRequest::UserAdd(pb::AuthUserAddRequest { name: "root".into(), ..Default::default() }));
    change(AuthRequest::UserGrantRole(pb::AuthUserGrantRoleRequest { user: "root".into(), role: "root".into() }));
    store
}

fn permissions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("permission");
    let off = store();
    let mut on = off.clone();
    on.evaluate(&AuthRequest::Enable).expect("there is a root");
    for (mode, store) in [("off", off), ("on", on)] {
        let auth_revision = store.revision();
        let actors: Vec<_> =
            (0..USERS).map(|user| Actor::User { name: format!("u{user}").into(), auth_revision }).collect();
        let keys: Vec<_> = (0..USERS).map(|user| range(user % ROLES, user * 7 % RANGES).0).collect();
        let requests: Vec<_> =
            keys.iter().map(|key| Request::Put(pb::PutRequest { key: key.clone(), ..Default::default() })).collect();
        let check = |user: usize, need: Need<'_>| {
            store.check(black_box(&actors[user]), need, &NoLeases).expect("it is permitted");
        };
        for (user, key) in keys.iter().enumerate() {
            // Permissions are merged when they are first asked for.
            check(user, Need::Watch(key, &RangeEnd::Single));
        }
        let mut at = 0;
        let mut next = || {
            at = (at + 1) % USERS;
            at
        };
        group.bench_function(format!("put, auth {mode}"), |bench| {
            bench.iter(|| {
                let user = next();
                check(user, Need::Apply(&requests[user]));
            });
        });
        group.bench_function(format!("watch, auth {mode}"), |bench| {
            bench.iter(|| {
                let user = next();
                check(user, Need::Watch(&keys[user], &RangeEnd::Single));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, permissions);
criterion_main!(benches);

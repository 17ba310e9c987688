//! Users, roles and permissions in sequences: who sends a request, and changes of who may.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use bytes::Bytes;
use cairn_proto::{
    ApiError,
    authpb::{Permission, UserAddOptions, permission::Type},
    etcdserverpb::{self as pb, auth_client::AuthClient},
};
use tonic::{Request, Status, transport::Channel};

use super::generate::{LEASES, Random, Step};

/// Few, so that changes meet.
const USERS: [&str; 4] = ["root", "alice", "bob", "carol"];
const ROLES: [&str; 4] = ["root", "one", "two", "three"];
const ROOT: usize = 0;
/// Words that stand for nobody.
const GARBAGE: &str = "no.token";

/// Who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// A client without a token.
    Nobody,
    /// The holder of the newest token that this user got, which may be worth nothing by now.
    User(usize),
    /// The holder of a token that no server has given.
    Liar,
}

/// A request of the Auth service. Users and roles are numbers of a few; passwords are right or wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum AuthStep {
    Enable,
    Disable,
    Status,
    Authenticate(usize, bool),
    UserAdd(usize, bool),
    UserGet(usize),
    UserList,
    UserDelete(usize),
    UserGrantRole(usize, usize),
    UserRevokeRole(usize, usize),
    RoleAdd(usize),
    RoleGet(usize),
    RoleList,
    RoleDelete(usize),
    RoleGrant(usize, i32, Bytes, Bytes),
    RoleRevoke(usize, Bytes, Bytes),
}

/// The tokens that a server has given.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    newest: BTreeMap<usize, String>,
    now: Option<String>,
    /// Authentication is on. While it is off, a genuine 3.5 refuses a token that it does not know, and 3.7 takes
    /// anything: none is sent then.
    wanted: bool,
}

impl Tokens {
    /// The next requests are this caller's.
    pub(super) fn call_as(&mut self, caller: Caller) {
        self.now = match caller {
            Caller::Nobody => None,
            _ if !self.wanted => None,
            // Who was never let in has none.
            Caller::User(user) => self.newest.get(&user).cloned(),
            Caller::Liar => Some(GARBAGE.to_owned()),
        };
    }

    /// A request with the caller's token.
    pub(super) fn on<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(token) = self.now.as_ref().and_then(|token| token.parse().ok()) {
            request.metadata_mut().insert("token", token);
        }
        request
    }
}

fn has_backward_range(step: &Step) -> bool {
    let backward = |key: &Bytes, end: &Bytes| !matches!(&end[..], [] | [0]) && end <= key;
    match step {
        Step::Range(range) => backward(&range.key, &range.range_end),
        Step::DeleteRange(delete) => backward(&delete.key, &delete.range_end),
        Step::Txn(txn) => {
            let ops = txn.success.iter().chain(&txn.failure);
            txn.compare.iter().any(|compare| backward(&compare.key, &compare.range_end))
                || ops.filter_map(|op| op.request.as_ref()).any(|op| match op {
                    pb::request_op::Request::RequestRange(range) => backward(&range.key, &range.range_end),
                    pb::request_op::Request::RequestDeleteRange(delete) => backward(&delete.key, &delete.range_end),
                    _ => false,
                })
        }
        _ => false,
    }
}

fn is_nested(op: &pb::RequestOp) -> bool {
    matches!(op.request, Some(pb::request_op::Request::RequestTxn(_)))
}

fn user(at: usize) -> String {
    USERS[at % USERS.len()].to_owned()
}

fn role(at: usize) -> String {
    ROLES[at % ROLES.len()].to_owned()
}

fn password(user: usize, right: bool) -> String {
    format!("{}{}", if right { "pw-" } else { "no-" }, USERS[user % USERS.len()])
}

impl Random {
    /// What makes most of the later steps succeed or fail for a reason: users with roles, and authentication on.
    pub(super) fn user_prologue(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for at in 0..USERS.len() {
            steps.extend([AuthStep::UserAdd(at, true), AuthStep::RoleAdd(at)]);
        }
        for at in 0..ROLES.len() {
            if at != ROOT {
                steps.extend((0..2).map(|_| self.grant(at)));
            }
            steps.push(AuthStep::UserGrantRole(at, at));
        }
        let grants = LEASES.map(|id| Step::Grant(pb::LeaseGrantRequest { id, ttl: 9_000_000_000 }));
        steps.push(AuthStep::Enable);
        steps.extend((0..USERS.len()).map(|at| AuthStep::Authenticate(at, true)));
        grants.into_iter().chain(steps.into_iter().map(Step::Auth)).collect()
    }

    /// A request of any caller, or a change of users and roles, mostly by root.
    pub(super) fn user_step(&mut self) -> Step {
        if self.chance(70) {
            let caller = match self.below(20) {
                0 => Caller::Nobody,
                1 => Caller::Liar,
                2..5 => Caller::User(ROOT),
                _ => Caller::User(1 + self.below(USERS.len() - 1)),
            };
            return Step::As(caller, Box::new(self.step_under_permissions()));
        }
        let caller = match self.below(10) {
            0 => Caller::Nobody,
            1 => Caller::User(1 + self.below(USERS.len() - 1)),
            _ => Caller::User(ROOT),
        };
        Step::As(caller, Box::new(Step::Auth(self.auth_step())))
    }

    /// What a genuine 3.5 asks no permission for and 3.7 does, as the recordings hold it, is left out: requests about
    /// leases, compactions, transactions in transactions; and ranges that end before they begin, where the answer of
    /// 3.5 depends on the order of the grants.
    fn step_under_permissions(&mut self) -> Step {
        loop {
            match self.step() {
                Step::TimeToLive(_)
                | Step::KeepAlive(_)
                | Step::Leases
                | Step::Grant(_)
                | Step::Revoke(_)
                | Step::Compact(_) => {}
                Step::Txn(txn) if txn.success.iter().chain(&txn.failure).any(is_nested) => {}
                step if has_backward_range(&step) => {}
                Step::Txn(mut txn) => {
                    // A genuine etcd looks for neither permission in a transaction.
                    for op in txn.success.iter_mut().chain(&mut txn.failure) {
                        if let Some(pb::request_op::Request::RequestPut(put)) = &mut op.request {
                            (put.prev_kv, put.lease) = (false, 0);
                        }
                    }
                    return Step::Txn(txn);
                }
                step => return step,
            }
        }
    }

    fn auth_step(&mut self) -> AuthStep {
        let (user, role) = (self.below(USERS.len()), self.below(ROLES.len()));
        match self.below(40) {
            0 => AuthStep::Enable,
            1 => AuthStep::Disable,
            2..4 => AuthStep::Status,
            4..13 => AuthStep::Authenticate(user, self.chance(90)),
            // Who has no password cannot turn authentication off.
            13..16 => AuthStep::UserAdd(user, user == ROOT || self.chance(90)),
            16 => AuthStep::UserGet(user),
            17 => AuthStep::UserList,
            18 => AuthStep::UserDelete(user),
            19..23 => AuthStep::UserGrantRole(user, role),
            23..26 => AuthStep::UserRevokeRole(user, role),
            26..28 => AuthStep::RoleAdd(role),
            // Of root, a genuine 3.5 tells nothing, and 3.7 everything.
            28 => AuthStep::RoleGet(role.max(1)),
            29 => AuthStep::RoleList,
            30 => AuthStep::RoleDelete(role),
            31..37 => self.grant(role),
            _ => {
                let (key, range_end) = self.span();
                AuthStep::RoleRevoke(role, key, range_end)
            }
        }
    }

    /// Of a range that ends behind its begin: a genuine 3.5 takes any.
    fn grant(&mut self, role: usize) -> AuthStep {
        let (key, range_end) = loop {
            let (key, range_end) = self.span();
            if !key.is_empty() && (matches!(&range_end[..], [] | [0]) || key < range_end) {
                break (key, range_end);
            }
        };
        let kind = [Type::Read, Type::Write, Type::Readwrite][self.below(3)];
        AuthStep::RoleGrant(role, kind.into(), key, range_end)
    }
}

/// Asks, and tells the answer as text without what two equal servers may differ in, and its revision.
pub(super) async fn ask(
    auth: &mut AuthClient<Channel>,
    tokens: &mut Tokens,
    step: AuthStep,
) -> Result<(String, Option<pb::ResponseHeader>), Status> {
    /// Takes the header out of an answer.
    macro_rules! told {
        ($method:ident($request:expr)) => {{
            let request = tokens.on($request);
            let mut answer = auth.$method(request).await?.into_inner();
            let header = answer.header.take();
            (format!("{answer:?}"), header)
        }};
    }
    Ok(match step {
        AuthStep::Enable => {
            let told = told!(auth_enable(pb::AuthEnableRequest {}));
            tokens.wanted = true;
            told
        }
        AuthStep::Disable => {
            let told = told!(auth_disable(pb::AuthDisableRequest {}));
            tokens.wanted = false;
            told
        }
        AuthStep::Status => told!(auth_status(pb::AuthStatusRequest {})),
        AuthStep::Authenticate(at, right) => {
            let request = pb::AuthenticateRequest { name: user(at), password: password(at, right) };
            let answer = auth.authenticate(request).await?.into_inner();
            tokens.newest.insert(at, answer.token);
            ("a token".to_owned(), answer.header)
        }
        AuthStep::UserAdd(at, has_password) => {
            let options = Some(UserAddOptions { no_password: !has_password });
            let password = if has_password { password(at, true) } else { String::new() };
            told!(user_add(pb::AuthUserAddRequest { name: user(at), password, options, ..Default::default() }))
        }
        AuthStep::UserGet(at) => told!(user_get(pb::AuthUserGetRequest { name: user(at) })),
        AuthStep::UserList => told!(user_list(pb::AuthUserListRequest {})),
        AuthStep::UserDelete(at) => told!(user_delete(pb::AuthUserDeleteRequest { name: user(at) })),
        AuthStep::UserGrantRole(at, to) => {
            told!(user_grant_role(pb::AuthUserGrantRoleRequest { user: user(at), role: role(to) }))
        }
        AuthStep::UserRevokeRole(at, from) => {
            told!(user_revoke_role(pb::AuthUserRevokeRoleRequest { name: user(at), role: role(from) }))
        }
        AuthStep::RoleAdd(at) => told!(role_add(pb::AuthRoleAddRequest { name: role(at) })),
        AuthStep::RoleGet(at) => told!(role_get(pb::AuthRoleGetRequest { role: role(at) })),
        AuthStep::RoleList => told!(role_list(pb::AuthRoleListRequest {})),
        AuthStep::RoleDelete(at) => told!(role_delete(pb::AuthRoleDeleteRequest { role: role(at) })),
        AuthStep::RoleGrant(at, perm_type, key, range_end) => {
            let perm = Some(Permission { perm_type, key, range_end });
            told!(role_grant_permission(pb::AuthRoleGrantPermissionRequest { name: role(at), perm }))
        }
        AuthStep::RoleRevoke(at, key, range_end) => {
            told!(role_revoke_permission(pb::AuthRoleRevokePermissionRequest { role: role(at), key, range_end }))
        }
    })
}

/// Turns authentication off, and deletes all users and roles.
pub(super) async fn clear(auth: &mut AuthClient<Channel>, tokens: &mut Tokens) -> Result<()> {
    *tokens = Tokens::default();
    // A genuine 3.5 tells only users whether authentication is on.
    match ask(auth, tokens, AuthStep::Authenticate(ROOT, true)).await {
        Ok(_) => {
            tokens.wanted = true;
            tokens.call_as(Caller::User(ROOT));
            ask(auth, tokens, AuthStep::Disable).await?;
            *tokens = Tokens::default();
        }
        Err(status) => ensure!(status.message() == ApiError::AuthNotEnabled.text(), "root is not let in: {status}"),
    }
    for name in auth.user_list(pb::AuthUserListRequest {}).await?.into_inner().users {
        auth.user_delete(pb::AuthUserDeleteRequest { name }).await?;
    }
    for role in auth.role_list(pb::AuthRoleListRequest {}).await?.into_inner().roles {
        auth.role_delete(pb::AuthRoleDeleteRequest { role }).await?;
    }
    Ok(())
}

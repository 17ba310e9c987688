//! Users, roles and tokens: who may do what through which RPC, and what becomes of it over restarts and changes.

mod audit;
mod revocation;
mod tokens;

use std::time::Duration;

use bytes::Bytes;
use cairn_proto::{
    ApiError, authpb,
    etcdserverpb::{self as pb, auth_client::AuthClient, watch_request::RequestUnion},
    rpc::{Kind, Method},
    v3electionpb as election, v3lockpb as lock,
};
use futures::{StreamExt, stream};
use http::uri::PathAndQuery;
use prost::Message;
use tonic::{Code, Request, client::Grpc, transport::Channel};

use super::support::{RawCodec, TestServer, certs};

/// What a method wants of its caller while authentication is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Nothing.
    Open,
    /// A user.
    User,
    /// A user with permissions on the keys of the request.
    Keys,
    /// A user that may do everything.
    Root,
    /// The server does not have the method yet.
    Missing,
}

/// A new method does not compile without an entry here.
const fn door(method: Method) -> Door {
    match method {
        Method::AuthStatus
        | Method::Authenticate
        | Method::HealthCheck
        | Method::HealthWatch
        | Method::HealthList
        | Method::Reflection
        | Method::ReflectionAlpha => Door::Open,
        Method::LeaseGrant | Method::MemberList | Method::Status | Method::Alarm => Door::User,
        Method::Range
        | Method::RangeStream
        | Method::Put
        | Method::DeleteRange
        | Method::Txn
        | Method::Watch
        | Method::LeaseRevoke
        | Method::LeaseKeepAlive
        | Method::LeaseTimeToLive
        | Method::LeaseLeases
        | Method::Lock
        | Method::Unlock
        | Method::Campaign
        | Method::Proclaim
        | Method::Leader
        | Method::Observe
        | Method::Resign => Door::Keys,
        Method::Compact
        | Method::MemberAdd
        | Method::MemberRemove
        | Method::MemberUpdate
        | Method::MemberPromote
        | Method::Defragment
        | Method::Hash
        | Method::HashKv
        | Method::MoveLeader
        | Method::AuthEnable
        | Method::AuthDisable
        | Method::UserAdd
        | Method::UserGet
        | Method::UserList
        | Method::UserDelete
        | Method::UserChangePassword
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleGet
        | Method::RoleList
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission => Door::Root,
        Method::Snapshot | Method::Downgrade => Door::Missing,
    }
}

/// The lease that hangs on the key `k1`.
const LEASE: i64 = 77;

/// A request of `caller` about keys that begin with `k`.
fn request(method: Method, caller: &str) -> Bytes {
    let key = Bytes::from("k1");
    let bytes = match method {
        Method::Range | Method::RangeStream => pb::RangeRequest { key, ..Default::default() }.encode_to_vec(),
        Method::Put => pb::PutRequest { key, lease: LEASE, ..Default::default() }.encode_to_vec(),
        Method::DeleteRange => pb::DeleteRangeRequest { key: "k2".into(), ..Default::default() }.encode_to_vec(),
        Method::Txn => {
            pb::TxnRequest { compare: vec![pb::Compare { key, ..Default::default() }], ..Default::default() }
                .encode_to_vec()
        }
        Method::Watch => {
            let create = pb::WatchCreateRequest { key, ..Default::default() };
            pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }.encode_to_vec()
        }
        Method::LeaseRevoke => pb::LeaseRevokeRequest { id: LEASE }.encode_to_vec(),
        Method::LeaseKeepAlive => pb::LeaseKeepAliveRequest { id: LEASE }.encode_to_vec(),
        Method::LeaseTimeToLive => pb::LeaseTimeToLiveRequest { id: LEASE, keys: true }.encode_to_vec(),
        Method::Lock => lock::LockRequest { name: format!("k{caller}").into(), ..Default::default() }.encode_to_vec(),
        Method::Unlock => lock::UnlockRequest { key }.encode_to_vec(),
        Method::Campaign => {
            election::CampaignRequest { name: format!("ke{caller}").into(), ..Default::default() }.encode_to_vec()
        }
        Method::Leader | Method::Observe => election::LeaderRequest { name: "kl".into() }.encode_to_vec(),
        Method::Proclaim => election::ProclaimRequest { leader: Some(leader()), ..Default::default() }.encode_to_vec(),
        Method::Resign => election::ResignRequest { leader: Some(leader()) }.encode_to_vec(),
        Method::MemberUpdate => pb::MemberUpdateRequest { id: 1, ..Default::default() }.encode_to_vec(),
        Method::UserAdd => pb::AuthUserAddRequest { name: "new".into(), ..Default::default() }.encode_to_vec(),
        Method::UserGet => pb::AuthUserGetRequest { name: "nobody".into() }.encode_to_vec(),
        Method::RoleGet => pb::AuthRoleGetRequest { role: "none".into() }.encode_to_vec(),
        _ => Vec::new(),
    };
    bytes.into()
}

fn leader() -> election::LeaderKey {
    election::LeaderKey { name: "kl".into(), key: "kl/1".into(), rev: 1, lease: LEASE }
}

fn with_token<T>(message: T, token: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(token) = token {
        request.metadata_mut().insert("token", token.parse().expect("a value"));
    }
    request
}

/// How a call ends: its code, and its text or that of a refused watch.
async fn call(channel: &Channel, method: Method, caller: &str, token: Option<&str>) -> (Code, String) {
    let mut client = Grpc::new(channel.clone());
    client.ready().await.expect("the server is there");
    let (path, message) = (PathAndQuery::from_static(method.path()), request(method, caller));
    let short = Duration::from_secs(2);
    let answered = match method.kind() {
        Kind::Unary => client.unary(with_token(message, token), path, RawCodec).await.map(tonic::Response::into_inner),
        Kind::ServerStream => match client.server_streaming(with_token(message, token), path, RawCodec).await {
            Ok(answers) => first(answers.into_inner(), short).await,
            Err(status) => Err(status),
        },
        Kind::BidiStream => {
            let messages = stream::iter([message]).chain(stream::pending());
            match client.streaming(with_token(messages, token), path, RawCodec).await {
                Ok(answers) => first(answers.into_inner(), short).await,
                Err(status) => Err(status),
            }
        }
    };
    match answered {
        Ok(bytes) if method == Method::Watch => {
            let answer = pb::WatchResponse::decode(bytes).expect("an answer");
            let reasons = [ApiError::UserEmpty, ApiError::InvalidAuthToken, ApiError::PermissionDenied];
            let reason = reasons.into_iter().find(|error| answer.cancel_reason.ends_with(error.text()));
            assert_eq!(answer.canceled, reason.is_some(), "{answer:?}");
            reason.map_or((Code::Ok, String::new()), |error| (error.code(), error.text().to_owned()))
        }
        Ok(_) => (Code::Ok, String::new()),
        // Lock and Election tell errors without their code.
        Err(status) => {
            let known = [ApiError::UserEmpty, ApiError::InvalidAuthToken, ApiError::PermissionDenied];
            let error = known.into_iter().find(|error| error.text() == status.message());
            (error.map_or(status.code(), ApiError::code), status.message().to_owned())
        }
    }
}

/// The first message of a stream; an empty one if none comes soon.
async fn first(mut answers: tonic::Streaming<Bytes>, within: Duration) -> Result<Bytes, tonic::Status> {
    match tokio::time::timeout(within, answers.next()).await {
        Ok(Some(answer)) => answer,
        Ok(None) | Err(_) => Ok(Bytes::new()),
    }
}

async fn login(auth: &mut AuthClient<Channel>, name: &str) -> String {
    let request = pb::AuthenticateRequest { name: name.into(), password: format!("pw-{name}") };
    auth.authenticate(request).await.unwrap_or_else(|error| panic!("{name}: {error}")).into_inner().token
}

fn permission(key: &'static str, range_end: &'static str) -> authpb::Permission {
    let perm_type = authpb::permission::Type::Readwrite.into();
    authpb::Permission { perm_type, key: key.into(), range_end: range_end.into() }
}

/// Users root, alice (everything that begins with k), bob (nothing) and client, whom certificates name; authentication
/// is on.
async fn set_up(channel: Channel) -> AuthClient<Channel> {
    let mut lease = pb::lease_client::LeaseClient::new(channel.clone());
    lease.lease_grant(pb::LeaseGrantRequest { id: LEASE, ttl: 600 }).await.expect("a lease");
    let mut kv = pb::kv_client::KvClient::new(channel.clone());
    let put = pb::PutRequest { key: "k1".into(), lease: LEASE, ..Default::default() };
    kv.put(put).await.expect("a put");
    let mut auth = AuthClient::new(channel);
    for name in ["root", "alice", "bob", "client"] {
        let request =
            pb::AuthUserAddRequest { name: name.into(), password: format!("pw-{name}"), ..Default::default() };
        auth.user_add(request).await.expect("a user");
    }
    for name in ["root", "team"] {
        auth.role_add(pb::AuthRoleAddRequest { name: name.into() }).await.expect("a role");
    }
    let grant = pb::AuthRoleGrantPermissionRequest { name: "team".into(), perm: Some(permission("k", "l")) };
    auth.role_grant_permission(grant).await.expect("a permission");
    for (user, role) in [("root", "root"), ("alice", "team"), ("client", "team")] {
        let grant = pb::AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
        auth.user_grant_role(grant).await.expect("a role of the user");
    }
    auth.auth_enable(pb::AuthEnableRequest {}).await.expect("it is on");
    auth
}

async fn cheap() -> TestServer {
    TestServer::with(|config| config.bcrypt_cost = 4).await
}

#[tokio::test]
async fn every_method_wants_of_its_caller_what_the_table_says() {
    let server = cheap().await;
    let channel = server.channel().await;
    let mut auth = set_up(channel.clone()).await;
    let (root, alice, bob) =
        (login(&mut auth, "root").await, login(&mut auth, "alice").await, login(&mut auth, "bob").await);
    let refused = |error: ApiError| (error.code(), error.text().to_owned());
    let refusals = [ApiError::UserEmpty, ApiError::InvalidAuthToken, ApiError::PermissionDenied].map(refused);
    for method in Method::ALL.iter().copied() {
        let door = door(method);
        let callers = [
            ("nobody", None),
            ("liar", Some("no.token")),
            ("bob", Some(&*bob)),
            ("alice", Some(&*alice)),
            ("root", Some(&*root)),
        ];
        for (caller, token) in callers {
            // It would go too far with what the others still need.
            if matches!(method, Method::AuthDisable | Method::LeaseRevoke) && matches!(caller, "root" | "alice") {
                continue;
            }
            let ended = call(&channel, method, caller, token).await;
            let expected = match (door, caller) {
                (Door::Open | Door::Missing, _) => None,
                (_, "nobody") => Some(refused(ApiError::UserEmpty)),
                (_, "liar") => Some(refused(ApiError::InvalidAuthToken)),
                (Door::Keys | Door::Root, "bob") | (Door::Root, "alice") => Some(refused(ApiError::PermissionDenied)),
                _ => None,
            };
            match expected {
                Some(expected) => assert_eq!(ended, expected, "{method:?} by {caller}"),
                None => assert!(!refusals.contains(&ended), "{method:?} by {caller}: {ended:?}"),
            }
            if door == Door::Missing {
                assert_eq!(ended.0, Code::Unimplemented, "{method:?}");
            }
        }
    }
    assert_eq!(call(&channel, Method::LeaseRevoke, "alice", Some(&alice)).await.0, Code::Ok);
    assert_eq!(call(&channel, Method::AuthDisable, "root", Some(&root)).await.0, Code::Ok);
    assert_eq!(call(&channel, Method::Range, "nobody", None).await.0, Code::Ok);
}

#[tokio::test]
async fn certificates_name_users_where_clients_must_show_them() {
    for (verified, expected) in [(true, Code::Ok), (false, Code::InvalidArgument)] {
        let server = TestServer::with(|config| {
            config.bcrypt_cost = 4;
            config.listen_client_urls = vec![cairn_server::config::Url::parse("https://127.0.0.1:0").expect("a URL")];
            config.client_tls.cert_file = Some(certs().path("server.crt"));
            config.client_tls.key_file = Some(certs().path("server.key"));
            if verified {
                config.client_tls.trusted_ca_file = Some(certs().path("ca.crt"));
                config.client_tls.client_cert_auth = true;
            }
        })
        .await;
        let channel = certs().connect(&server, Some(certs())).await.expect("it connects");
        let mut auth = set_up(channel.clone()).await;
        assert_eq!(call(&channel, Method::Put, "client", None).await.0, expected);
        // A token counts more than the certificate.
        let bob = login(&mut auth, "bob").await;
        assert_eq!(call(&channel, Method::Put, "client", Some(&bob)).await.0, Code::PermissionDenied);
    }
}

#[tokio::test]
async fn changes_of_users_roles_and_passwords_count_at_once_and_survive_a_restart() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let start = async || {
        let builder = super::support::builder(&dir).configure(|config| config.bcrypt_cost = 4);
        let server = builder.start().await.expect("the server starts");
        let url = format!("http://{}", server.addrs()[0]);
        let endpoint = tonic::transport::Endpoint::from_shared(url).expect("a valid URL");
        let channel = endpoint.connect().await.expect("the server accepts");
        (server, channel)
    };
    let (server, channel) = start().await;
    let mut auth = set_up(channel.clone()).await;
    let root = login(&mut auth, "root").await;
    let alice = login(&mut auth, "alice").await;
    let revoke = pb::AuthRoleRevokePermissionRequest { role: "team".into(), key: "k".into(), range_end: "l".into() };
    auth.role_revoke_permission(with_token(revoke, Some(&root))).await.expect("it is taken");
    assert_eq!(call(&channel, Method::Put, "alice", Some(&alice)).await.0, Code::PermissionDenied);
    let grant = pb::AuthRoleGrantPermissionRequest { name: "team".into(), perm: Some(permission("k1", "")) };
    auth.role_grant_permission(with_token(grant, Some(&root))).await.expect("it is given");
    assert_eq!(call(&channel, Method::Put, "alice", Some(&alice)).await.0, Code::Ok);
    // A changed password ends the user's tokens.
    let change =
        pb::AuthUserChangePasswordRequest { name: "alice".into(), password: "new".into(), ..Default::default() };
    auth.user_change_password(with_token(change, Some(&root))).await.expect("it is changed");
    assert_eq!(call(&channel, Method::Put, "alice", Some(&alice)).await.0, Code::Unauthenticated);
    let again = |password: &str| pb::AuthenticateRequest { name: "alice".into(), password: password.into() };
    let old = auth.authenticate(again("pw-alice")).await.expect_err("the old password");
    assert_eq!(old.message(), ApiError::AuthFailed.text());
    auth.authenticate(again("new")).await.expect("the new password");
    server.shutdown().await;

    let (server, channel) = start().await;
    let mut auth = AuthClient::new(channel.clone());
    assert_eq!(call(&channel, Method::Put, "nobody", None).await.0, Code::InvalidArgument);
    let alice = auth.authenticate(again("new")).await.expect("the new password").into_inner().token;
    assert_eq!(call(&channel, Method::Put, "alice", Some(&alice)).await.0, Code::Ok);
    assert_eq!(call(&channel, Method::Lock, "alice", Some(&alice)).await.0, Code::PermissionDenied);
    server.shutdown().await;
}

#[tokio::test]
async fn passwords_of_any_length_have_a_defined_answer() {
    let server = cheap().await;
    let mut auth = AuthClient::new(server.channel().await).max_encoding_message_size(usize::MAX);
    let add = |name: &str, password: usize| pb::AuthUserAddRequest {
        name: name.into(),
        password: "p".repeat(password),
        ..Default::default()
    };
    for (name, bytes) in [("empty", 0), ("longest", 72)] {
        auth.user_add(add(name, bytes)).await.expect("a user");
    }
    for (name, bytes) in [("long", 73), ("huge", 1 << 20)] {
        let refused = auth.user_add(add(name, bytes)).await.expect_err("bcrypt takes no more");
        assert_eq!((refused.code(), refused.message()), (Code::Unknown, "bcrypt: password length exceeds 72 bytes"));
    }
    let users = auth.user_list(pb::AuthUserListRequest {}).await.expect("a list").into_inner().users;
    assert_eq!(users, ["empty", "longest"]);
    let unknown = pb::AuthenticateRequest { name: "longest".into(), password: "p".repeat(72) };
    let off = auth.authenticate(unknown).await.expect_err("it is off");
    assert_eq!(off.message(), ApiError::AuthNotEnabled.text());
}

#[tokio::test]
async fn the_program_around_the_server_is_nobody_a_user_or_trusted() {
    let server = cheap().await;
    let _auth = set_up(server.channel().await).await;
    let client = server.server.client();
    let put = |key: &'static str| pb::PutRequest { key: key.into(), ..Default::default() };
    assert_eq!(client.call(put("k2")).await.expect_err("no user"), ApiError::UserEmpty.into());
    client.clone().as_user("alice").call(put("k2")).await.expect("alice may write it");
    let denied = client.clone().as_user("bob").call(put("k2")).await.expect_err("bob may not");
    assert_eq!(denied, ApiError::PermissionDenied.into());
    client.clone().as_user("nobody").call(put("k2")).await.expect_err("there is no such user");
    client.trusted().call(put("other")).await.expect("it may everything");
}

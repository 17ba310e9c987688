//! Sockets in the file system: clients and members that come through them, and what becomes of their files.

use std::{os::unix::fs::FileTypeExt, path::Path};

use cairn_proto::etcdserverpb::{
    self as pb, cluster_client::ClusterClient, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use cairn_server::config::Url;
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{
    cluster::{Cluster, free_port},
    process::{Process, refused},
    support::{DEADLINE, certs, eventually},
};

fn temporary() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

/// A connection through the socket at `path`, over TLS if `tls`.
async fn connected(path: &Path, tls: bool) -> Result<Channel, tonic::transport::Error> {
    let path = path.to_owned();
    let through = service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    let endpoint = if tls {
        // The connector's stream is wrapped where the URL says https.
        Endpoint::from_static("https://localhost").tls_config(certs().client_tls(Some(certs())))?
    } else {
        endpoint
    };
    endpoint.connect_with_connector(through).await
}

async fn put(channel: Channel, key: &str) {
    let request = pb::PutRequest { key: key.to_owned().into(), value: "1".into(), ..Default::default() };
    KvClient::new(channel).put(request).await.expect("a put");
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|there| there.file_type().is_socket())
}

/// A listening client port beside the socket, by which the test knows when the server is ready.
const TCP: &str = "http://127.0.0.1:0";

#[tokio::test]
async fn clients_come_through_a_file_and_are_told_of_it() {
    let dir = temporary();
    let (socket, http) = (dir.path().join("name:0"), dir.path().join("http"));
    let url = format!("unix://{}", socket.display());
    let flags = [
        format!("--listen-client-urls={url},{TCP}"),
        format!("--advertise-client-urls={url}"),
        format!("--listen-metrics-urls=unix://{}", http.display()),
    ];
    let server = Process::start(dir.path(), &flags.each_ref().map(String::as_str));
    put(connected(&socket, false).await.expect("it accepts"), "a").await;
    assert_eq!(server.get("a").await.as_deref(), Some(&b"1"[..]));
    let mut cluster = ClusterClient::new(connected(&socket, false).await.expect("it accepts"));
    let members = cluster.member_list(pb::MemberListRequest::default()).await.expect("the members").into_inner();
    assert_eq!(members.members[0].client_urls, [url.as_str()]);
    for path in [&socket, &http] {
        let mut stream = UnixStream::connect(path).await.expect("it accepts");
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await.expect("it is sent");
        let mut answer = String::new();
        let read = tokio::time::timeout(DEADLINE, stream.read_to_string(&mut answer)).await;
        read.expect("it answers in time").expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#"{"health":"true""#), "{answer}");
    }
    // A process that is killed leaves its socket, and the next one takes its place.
    server.kill();
    assert!(is_socket(&socket));
    let server = Process::start(dir.path(), &flags.each_ref().map(String::as_str));
    put(connected(&socket, false).await.expect("it accepts"), "b").await;
    server.stop();
    assert!(!socket.exists() && !http.exists());
}

#[tokio::test]
async fn tls_is_spoken_through_a_file_beside_plain_text() {
    let dir = temporary();
    let (only, both) = (dir.path().join("only"), dir.path().join("both"));
    let [cert, key, ca] = ["server.crt", "server.key", "ca.crt"].map(|name| certs().path(name).display().to_string());
    let flags = [
        format!(
            "--listen-client-urls=unixs://{},unix://{both},unixs://{both},{TCP}",
            only.display(),
            both = both.display()
        ),
        "--advertise-client-urls=unixs://only".to_owned(),
        format!("--cert-file={cert}"),
        format!("--key-file={key}"),
        format!("--trusted-ca-file={ca}"),
    ];
    let server = Process::start(dir.path(), &flags.each_ref().map(String::as_str));
    put(connected(&only, true).await.expect("it speaks TLS"), "a").await;
    put(connected(&both, true).await.expect("it speaks TLS"), "b").await;
    put(connected(&both, false).await.expect("it speaks plain text"), "c").await;
    let plain = async {
        let mut maintenance = MaintenanceClient::new(connected(&only, false).await.ok()?);
        maintenance.status(pb::StatusRequest {}).await.ok()
    };
    assert!(plain.await.is_none(), "nothing is served without TLS there");
    for key in ["a", "b", "c"] {
        assert!(server.get(key).await.is_some(), "{key}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let dir = temporary();
    let path = dir.path().join("file");
    std::fs::write(&path, "text").expect("the file is written");
    let flags = [format!("--listen-client-urls=unix://{}", path.display()), format!("--advertise-client-urls={TCP}")];
    let path = path.display().to_string();
    refused(dir.path(), &flags.each_ref().map(String::as_str)).says(&["cannot listen on", &path, "no socket"]);
    assert_eq!(std::fs::read_to_string(&path).expect("the file is there"), "text");
}

/// Three members that reach each other at `urls`.
async fn members_at(urls: &[Url]) -> Cluster {
    let listed: Vec<_> = urls.iter().enumerate().map(|(at, url)| (format!("n{at}"), url.clone())).collect();
    let cluster = Cluster::of_three("http", |at, config| {
        config.listen_peer_urls = vec![urls[at].clone()];
        config.initial_advertise_peer_urls = vec![urls[at].clone()];
        config.initial_cluster.clone_from(&listed);
        if urls[at].is_tls() {
            config.peer_tls.cert_file = Some(certs().path("server.crt"));
            config.peer_tls.key_file = Some(certs().path("server.key"));
            config.peer_tls.trusted_ca_file = Some(certs().path("ca.crt"));
        }
    })
    .await;
    cluster.put_here_read_there(0, 1).await;
    cluster.put_here_read_there(2, 0).await;
    cluster
}

#[tokio::test]
async fn members_reach_each_other_through_files() {
    for scheme in ["unix", "unixs"] {
        let dir = temporary();
        // A certificate has to be for the name of the file.
        let url = |at: usize| Url::parse(&format!("{scheme}://{}/localhost:{at}", dir.path().display()));
        let urls: Vec<Url> = (0..3).map(|at| url(at).expect("a valid URL")).collect();
        let cluster = members_at(&urls).await;
        assert!(urls.iter().all(|url| url.socket().is_some_and(is_socket)));
        cluster.shutdown().await;
        let files = async || urls.iter().all(|url| url.socket().is_some_and(|path| !path.exists())).then_some(());
        eventually("the files are gone", files).await;
    }
}

#[tokio::test]
async fn members_reach_each_other_at_addresses_with_a_zone() {
    let url = |_| Url::parse(&format!("http://[::1%25lo]:{}", free_port())).expect("a valid URL");
    members_at(&[0, 1, 2].map(url)).await.shutdown().await;
}

#[tokio::test]
async fn an_address_with_a_zone_is_listened_on_and_dialed() {
    let dir = temporary();
    let (client, peer) = (free_port(), free_port());
    let peer_url = format!("http://[::1%25lo]:{peer}");
    let flags = [
        format!("--listen-client-urls=http://[::1%25lo]:{client},{TCP}"),
        format!("--advertise-client-urls=http://[::1%25lo]:{client}"),
        format!("--listen-peer-urls={peer_url}"),
        format!("--initial-advertise-peer-urls={peer_url}"),
        format!("--initial-cluster=default={peer_url}"),
    ];
    let server = Process::start(dir.path(), &flags.each_ref().map(String::as_str));
    let mut cluster = ClusterClient::new(server.channel().await);
    let list = cluster.member_list(pb::MemberListRequest::default()).await.expect("the members").into_inner();
    assert_eq!(list.members[0].peer_urls, [peer_url]);
    assert_eq!(list.members[0].client_urls, [format!("http://[::1%25lo]:{client}")]);
    for port in [client, peer] {
        TcpStream::connect(("::1", port)).await.expect("it listens there");
    }
}

//! Several members in one process: TLS between them, and what must not get past the peer port.

use std::net::TcpListener;

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, cluster_client::ClusterClient},
    peer::{Answer, Frame, Hello, peer_client::PeerClient, refusal::Reason},
};
use cairn_server::{
    config::{Config, Url},
    server::Server,
    state::{
        auth::Actor,
        command::{COMMAND_LEVEL, Command, Request, RequestId, encode},
    },
};
use futures::{FutureExt, future::join_all};
use semver::Version;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    support::{Certs, DEADLINE, TestServer, builder, certs, eventually, http},
    trio::Trio,
};

/// Ports that are drawn from: below those that the system gives to outgoing connections, which would take one that is not
/// listened on yet.
const PORTS: std::ops::Range<u16> = 12_000..32_000;
/// How many are tried.
const PORTS_TRIED_MAX: usize = 100;

/// A free loopback port.
pub fn free_port() -> u16 {
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let mut drawn = std::iter::repeat_with(|| rand::random_range(PORTS)).take(PORTS_TRIED_MAX);
    drawn.find(free).expect("a free port")
}

fn url(scheme: &str, port: u16) -> Url {
    Url::parse(&format!("{scheme}://127.0.0.1:{port}")).expect("a valid URL")
}

/// Members of one cluster, and their directories.
pub struct Cluster {
    pub servers: Vec<Server>,
    _dirs: Vec<TempDir>,
}

impl Cluster {
    /// Three members that reach each other by `scheme`, each with its own changes.
    pub async fn of_three(scheme: &str, change: impl Fn(usize, &mut Config)) -> Self {
        let urls: Vec<Url> = (0..3).map(|_| url(scheme, free_port())).collect();
        let listed: Vec<_> = urls.iter().enumerate().map(|(at, url)| (format!("n{at}"), url.clone())).collect();
        let dirs: Vec<_> = (0..3).map(|_| TempDir::new().expect("a temporary directory")).collect();
        let starts = dirs.iter().enumerate().map(|(at, dir)| {
            builder(dir)
                .configure(|config| {
                    config.name = format!("n{at}");
                    config.listen_peer_urls = vec![urls[at].clone()];
                    config.initial_advertise_peer_urls = vec![urls[at].clone()];
                    config.initial_cluster.clone_from(&listed);
                    change(at, config);
                })
                .start()
        });
        let servers = join_all(starts).await.into_iter().map(|server| server.expect("a member starts")).collect();
        Self { servers, _dirs: dirs }
    }

    /// What is put at one member is read at another one.
    pub async fn put_here_read_there(&self, here: usize, there: usize) {
        let put = pb::PutRequest { key: "key".into(), value: "value".into(), ..Default::default() };
        let written = async {
            // There may be no leader yet.
            while self.servers[here].client().call(put.clone()).await.is_err() {
                sleep(std::time::Duration::from_millis(10)).await;
            }
        };
        timeout(DEADLINE, written).await.expect("a write is acknowledged");
        let range = pb::RangeRequest { key: "key".into(), ..Default::default() };
        let read = self.servers[there].client().call(range).await.expect("a read is answered");
        assert_eq!(read.kvs.first().map(|kv| &kv.value[..]), Some(&b"value"[..]));
    }

    pub async fn shutdown(self) {
        join_all(self.servers.into_iter().map(Server::shutdown)).await;
    }
}

fn with_certificate(config: &mut Config, certs: &Certs) {
    config.peer_tls.cert_file = Some(certs.path("server.crt"));
    config.peer_tls.key_file = Some(certs.path("server.key"));
    config.peer_tls.trusted_ca_file = Some(certs.path("ca.crt"));
    config.peer_tls.client_cert_auth = true;
}

#[tokio::test]
async fn members_with_certificates_of_one_authority_are_a_cluster() {
    let cluster = Cluster::of_three("https", |_, config| {
        with_certificate(config, certs());
        config.peer_tls.allowed_common_names = vec!["server".to_owned()];
    })
    .await;
    cluster.put_here_read_there(0, 1).await;
    cluster.put_here_read_there(2, 0).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn members_may_make_their_certificates_themselves() {
    let cluster = Cluster::of_three("https", |_, config| config.peer_tls.auto_tls = true).await;
    cluster.put_here_read_there(1, 2).await;
    cluster.shutdown().await;
}

#[tokio::test]
async fn a_member_with_a_certificate_of_another_authority_stays_outside() {
    let others = Certs::new();
    let cluster = Cluster::of_three("https", |at, config| {
        with_certificate(config, if at == 2 { &others } else { certs() });
    })
    .await;
    cluster.put_here_read_there(0, 1).await;
    cluster.put_here_read_there(1, 0).await;
    assert_eq!(cluster.servers[2].node().status().leader, 0, "nobody talks to it");
    cluster.shutdown().await;
}

/// A server whose peer port is known.
pub async fn with_peer_port() -> (TestServer, u16) {
    let port = free_port();
    let server = TestServer::with(|config| config.listen_peer_urls = vec![url("http", port)]).await;
    (server, port)
}

pub async fn still_serves(server: &TestServer) {
    let put = pb::PutRequest { key: "alive".into(), ..Default::default() };
    server.server.client().call(put).await.expect("the server goes on");
}

/// Opens a stream that begins with `frames` and stays open.
pub async fn stream(port: u16, frames: Vec<Frame>) -> Result<Streaming<Answer>, Status> {
    let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).expect("a valid URL");
    let mut client = PeerClient::new(channel.connect().await.expect("the peer port accepts"));
    let frames = futures::stream::iter(frames);
    let open = futures::StreamExt::chain(frames, futures::stream::pending());
    client.stream(open).await.map(tonic::Response::into_inner)
}

pub async fn answer(answers: &mut Streaming<Answer>) -> Result<Answer, Status> {
    let answer = timeout(DEADLINE, answers.message()).await.expect("an answer comes in time");
    answer.map(|answer| answer.expect("the stream goes on"))
}

pub fn hello(server: &TestServer, from: u64) -> Hello {
    let status = server.server.node().status();
    let version = "3.7.1".to_owned();
    Hello {
        protocol: 1,
        version,
        cluster_id: status.cluster_id,
        from,
        to: status.member_id,
        peer_urls: vec![],
        blank: false,
        run: 0,
        command_level: COMMAND_LEVEL,
        heeds_terms: false,
    }
}

pub fn introduced(hello: Hello) -> Frame {
    Frame { hello: Some(hello), ..Frame::default() }
}

#[tokio::test]
async fn the_peer_port_answers_probes_and_tools_as_etcd_does() {
    let (server, port) = with_peer_port().await;
    let status = server.server.node().status();
    let ask = async |method: &str, path: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        http(([127, 0, 0, 1], port).into(), &request).await
    };
    let known = eventually("the member's name is known", async || {
        let answer = ask("GET", "/members").await;
        answer.body.contains("name").then_some(answer)
    })
    .await;
    let (id, client) = (status.member_id, server.addr());
    let expected = format!(
        r#"[{{"id":{id},"peerURLs":["http://localhost:2380"],"name":"default","clientURLs":["http://{client}"]}}]"#
    );
    assert_eq!(known.header("x-etcd-cluster-id"), Some(&format!("{:x}", status.cluster_id)[..]));
    assert_eq!((known.status, known.body), (200, expected + "\n"));
    let downgrade = ask("GET", "/downgrade/enabled").await;
    assert_eq!(
        (downgrade.status, &downgrade.body[..], downgrade.header("content-type")),
        (200, "false", Some("text/plain"))
    );
    for method in ["GET", "POST"] {
        let probed = ask(method, "/raft/probing").await;
        let time = probed.body.strip_prefix("{\"OK\":true,\"Now\":\"").and_then(|rest| rest.strip_suffix("\"}\n"));
        let time = time.unwrap_or_else(|| panic!("{}", probed.body));
        humantime::parse_rfc3339(time).expect("a time");
        assert_eq!((probed.status, probed.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    }
    for path in ["/version", "/members", "/downgrade/enabled"] {
        let refused = ask("POST", path).await;
        assert_eq!(
            (refused.status, refused.header("allow"), &refused.body[..]),
            (405, Some("GET"), "Method Not Allowed\n")
        );
    }
    assert_eq!(ask("GET", "/health").await.status, 404);
}

#[tokio::test]
async fn garbage_on_the_peer_port_hurts_nobody() {
    let (server, port) = with_peer_port().await;
    for garbage in [&b"\x16\x03\x01\x00\xff nonsense"[..], b"GET / HTTP/9.9\r\n\r\n", &[0xff; 4096]] {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("it accepts");
        socket.write_all(garbage).await.expect("it takes bytes");
        socket.shutdown().await.expect("we are done");
        let mut rest = Vec::new();
        // However it hangs up is right.
        let _ = timeout(DEADLINE, socket.read_to_end(&mut rest)).await.expect("it hangs up");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn whoever_is_somebody_else_is_told_why_it_is_refused() {
    let (server, port) = with_peer_port().await;
    let own = server.server.node().status().member_id;
    eventually("the cluster has a version", async || server.server.node().cluster_version().map(drop)).await;
    let level = async || (server.server.node().command_level() == COMMAND_LEVEL).then_some(());
    eventually("the cluster has this program's command level", level).await;
    let served = |version: &str| Hello { version: version.to_owned(), ..hello(&server, 7) };
    let too_low = format!("it applies commands up to level 1, the cluster is at level {COMMAND_LEVEL}");
    let cases = [
        (served("3.6.9"), "it serves version 3.6.9, the cluster is at 3.7.0"),
        (served("new"), "its version, \"new\", makes no sense"),
        (Hello { command_level: 0, ..hello(&server, 7) }, &too_low),
        (Hello { cluster_id: 5, ..hello(&server, 7) }, "it is of cluster 5"),
        (Hello { to: 9, ..hello(&server, 7) }, "it wants member 9"),
        (Hello { protocol: 99, ..hello(&server, 7) }, "it speaks protocol 99"),
        (hello(&server, own), "it says that it is this member"),
    ];
    for (hello, reason) in cases {
        let mut answers = stream(port, vec![introduced(hello)]).await.expect("the stream opens");
        let refusal = answer(&mut answers).await.expect("an answer").refusal.expect("a refusal");
        assert!(refusal.text.contains(reason), "{}", refusal.text);
        assert_eq!(refusal.reason(), Reason::Other);
    }
    let error = stream(port, vec![Frame { ping: 1, ..Frame::default() }]).await.expect_err("no introduction");
    assert_eq!(error.code(), Code::InvalidArgument);
    still_serves(&server).await;
}

/// A message of raft from member 7: field 1 is its kind, 2 the receiver, 3 the sender, 4 the term, 7 an entry.
fn raft_message(kind: u64, to: u64, term: u64, rest: &[u8]) -> Bytes {
    let mut message = Vec::new();
    for (field, value) in [(1, kind), (2, to), (3, 7), (4, term)] {
        prost::encoding::uint64::encode(field, &value, &mut message);
    }
    message.extend_from_slice(rest);
    message.into()
}

#[tokio::test]
async fn messages_that_decode_but_make_no_sense_are_refused_and_their_sender_is_told_once() {
    const MANY: u64 = 30;
    let (server, port) = with_peer_port().await;
    let own = server.server.node().status().member_id;
    // An entry that is not the one after entry 0.
    let gap = [0x3a, 2, 0x18, 9];
    // A leader's entry 1 whose data are a command of three bytes.
    let unreadable = [0x3a, 10, 0x10, 1, 0x18, 1, 0x22, 4, 3, 1, 1, 1];
    let nonsense = [
        (raft_message(99, own, 1, &[]), "unknown kind of message"),
        // To campaign is up to each member.
        (raft_message(0, own, 1, &[]), "MsgHup, which peers do not send"),
        (raft_message(3, 9, 1, &[]), "is for member 9"),
        (raft_message(5, own, 0, &[]), "the term is missing"),
        (raft_message(5, own, u64::MAX, &[]), "a term or index is too large"),
        (raft_message(3, own, 1, &gap), "its entries have a gap"),
        (raft_message(3, own, 9, &unreadable), "its entry 1 cannot be applied here: a command's bytes are damaged"),
        (raft_message(5, own, 1, &gap), "entries where none belong"),
        (raft_message(15, own, 0, &[]), "a read request has exactly one context"),
        (raft_message(7, own, 1, &[]), "a snapshot is announced, and there is none"),
    ];
    let mut refused = 0;
    for (message, reason) in nonsense {
        let (say, said) = tokio::sync::mpsc::channel(4);
        let channel = Channel::from_shared(format!("http://127.0.0.1:{port}")).expect("a valid URL");
        let mut client = PeerClient::new(channel.connect().await.expect("the peer port accepts"));
        let opened = client.stream(tokio_stream::wrappers::ReceiverStream::new(said));
        say.send(introduced(hello(&server, 7))).await.expect("it listens");
        let mut answers = opened.await.expect("the stream opens").into_inner();
        assert!(answer(&mut answers).await.expect("an answer").welcome.is_some());
        for _ in 0..MANY {
            let frame = Frame { messages: vec![message.clone()], ..Frame::default() };
            say.send(frame).await.expect("it listens");
        }
        refused += MANY;
        let told = answer(&mut answers).await.expect("an answer").complaint;
        assert!(told.starts_with("a message is refused: ") && told.contains(reason), "{told}");
        let counted = format!("etcd_network_peer_received_failures_total{{From=\"7\"}} {refused}");
        eventually("all of them are counted", async || {
            let request = "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
            let page = http(server.addr(), request).await.body;
            page.lines().any(|line| line == counted).then_some(())
        })
        .await;
        // All were refused by now, and the sender was told no more of it.
        say.send(Frame { ping: 5, ..Frame::default() }).await.expect("it listens");
        assert_eq!(answer(&mut answers).await.expect("an answer"), Answer { pong: 5, ..Answer::default() }, "{reason}");
    }
    still_serves(&server).await;
}

#[tokio::test]
async fn well_formed_nonsense_ends_the_stream_and_nothing_else() {
    let (server, port) = with_peer_port().await;
    let command_of = |member, request| {
        let id = RequestId { member, nonce: 1, counter: 1 };
        encode(&Command { id, actor: Actor::Anonymous, request }, COMMAND_LEVEL)
    };
    let forwarded = |request| command_of(7, request);
    let foreign = command_of(8, Request::CommandLevel(1));
    let nonsense = [
        (
            Frame { commands: vec![forwarded(Request::ClusterVersion(Version::new(3, 99, 0)))], ..Frame::default() },
            "raises the cluster's version to 3.99.0",
        ),
        (
            Frame { commands: vec![forwarded(Request::CommandLevel(99))], ..Frame::default() },
            "raises the command level to 99",
        ),
        (Frame { messages: vec![vec![0xff; 20].into()], ..Frame::default() }, "a message of raft does not decode"),
        // A message of somebody else.
        (Frame { messages: vec![vec![0x18, 8].into()], ..Frame::default() }, "names member 8 as its sender"),
        (Frame { commands: vec![vec![1, 2, 3].into()], ..Frame::default() }, "a forwarded command does not decode"),
        (
            Frame {
                commands: vec![forwarded(Request::CommandLevel(1))],
                command_terms: vec![2, 2],
                ..Frame::default()
            },
            "2 terms come with 1 forwarded commands",
        ),
        (
            Frame { commands: vec![foreign], command_terms: vec![2], ..Frame::default() },
            "a command of member 8 is forwarded in a term, on the stream of member 7",
        ),
        (introduced(hello(&server, 7)), "a second introduction"),
    ];
    for (frame, reason) in nonsense {
        let mut answers = stream(port, vec![introduced(hello(&server, 7)), frame]).await.expect("the stream opens");
        assert!(answer(&mut answers).await.expect("an answer").welcome.is_some());
        let end = answer(&mut answers).await.expect_err("the end");
        assert_eq!(end.code(), Code::InvalidArgument);
        assert!(end.message().contains(reason), "{}", end.message());
    }
    still_serves(&server).await;
    assert!(server.server.wait().now_or_never().is_none(), "the server did not fail");
}

#[tokio::test]
async fn membership_changes_that_come_together_are_made_one_after_the_other() {
    let trio = Trio::start(|_| ()).await;
    let updates = |round: usize| {
        let trio = &trio;
        join_all((0..9).map(move |number| async move {
            let at = number % 3;
            let update = pb::MemberUpdateRequest { id: trio.id(at), peer_urls: vec![trio.urls[at].to_string()] };
            ClusterClient::new(trio.of((at + round) % 3).channel()).member_update(update).await
        }))
    };
    for updated in updates(0).await {
        updated.expect("one that is under way is waited for");
    }
    for round in 0..6 {
        let to = (trio.leader().await + 1) % 3;
        let (updated, ()) = tokio::join!(updates(round), trio.lead(to));
        // What was under way when leadership moved may be lost; a leader that is new is waited for.
        let unhealthy = updated
            .iter()
            .filter_map(|updated| updated.as_ref().err())
            .find(|refused| ApiError::from_status(refused) == Some(ApiError::Unhealthy));
        assert!(unhealthy.is_none(), "{unhealthy:?}");
    }
    trio.shutdown().await;
}

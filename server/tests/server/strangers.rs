//! Members that are not whom they should be, as processes: who is refused is told why, and so is who refuses.

use std::{
    path::Path,
    pin::Pin,
    time::{Duration, Instant},
};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, cluster_client::ClusterClient},
    peer::{
        Answer, ChangeRequest, ChangeResponse, Frame, HashRequest, HashResponse, Hello, LeasesRequest, LeasesResponse,
        MembersRequest, MembersResponse, SnapshotPiece, SnapshotRequest,
        peer_server::{Peer, PeerServer},
    },
};
use futures::{
    Stream, StreamExt,
    stream::{iter, pending},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{
    cluster::free_port,
    process::{Process, refused},
    support::{Certs, DEADLINE, certs, eventually},
    trio::{Places, spawn},
};

/// Waits until a member has logged one line with all of these words.
async fn says(process: &Process, words: &[&str]) {
    let deadline = Instant::now() + DEADLINE;
    while !process.log().lines().any(|line| words.iter().all(|word| line.contains(word))) {
        assert!(Instant::now() < deadline, "no line has {words:?}:\n{}", process.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A write is acknowledged, as soon as there is a leader.
async fn serves(process: &mut Process) {
    process.serves().expect("it serves");
    eventually("a write is acknowledged", async || {
        let put = pb::PutRequest { key: "key".into(), ..Default::default() };
        process.kv().await.put(put).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_member_with_another_token_is_refused_and_both_sides_say_why() {
    let places = Places::new("http");
    let mut members = [places.spawn(0, &[]), places.spawn(1, &[])];
    let stranger = places.spawn(2, &["--initial-cluster-token=another"]);
    serves(&mut members[0]).await;
    for member in &members {
        says(member, &["refused a member", "it is of cluster", "--initial-cluster-token"]).await;
        says(member, &["no connection to a member", "it refuses this member", "it is of cluster"]).await;
    }
    says(&stranger, &["refused a member", "it is of cluster", "--initial-cluster-token"]).await;
    says(&stranger, &["no connection to a member", "it refuses this member", "--initial-cluster-token"]).await;
}

/// Starts member `at`, which shows the certificate for servers of `certs` and trusts their authority.
fn spawn_with(places: &Places, at: usize, certs: &Certs) -> Process {
    spawn_with_flags(places, at, certs, &[])
}

/// The same with further flags.
fn spawn_with_flags(places: &Places, at: usize, certs: &Certs, more: &[String]) -> Process {
    let flags = [
        format!("--peer-cert-file={}", certs.path("server.crt").display()),
        format!("--peer-key-file={}", certs.path("server.key").display()),
        format!("--peer-trusted-ca-file={}", certs.path("ca.crt").display()),
        "--peer-client-cert-auth".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().chain(more).map(String::as_str).collect();
    places.spawn(at, &flags)
}

#[tokio::test]
async fn a_member_whose_certificate_is_for_another_host_is_refused_unless_that_is_skipped() {
    // The certificate for clients is for a host that is not here.
    let mut flags = vec![
        format!("--peer-client-cert-file={}", certs().path("client.crt").display()),
        format!("--peer-client-key-file={}", certs().path("client.key").display()),
    ];
    let start = |places: &Places, flags: &[String]| [0, 1].map(|at| spawn_with_flags(places, at, certs(), flags));
    let places = Places::new("https");
    for member in &start(&places, &flags) {
        says(member, &["rejected connection on peer endpoint", "does not fit the address", "127.0.0.1", "client"])
            .await;
    }
    flags.push("--peer-skip-client-san-verification".to_owned());
    let places = Places::new("https");
    for member in &mut start(&places, &flags) {
        serves(member).await;
    }
}

#[tokio::test]
async fn a_member_of_another_authority_is_refused_and_both_sides_say_why() {
    let places = Places::new("https");
    let mut members = [spawn_with(&places, 0, certs()), spawn_with(&places, 1, certs())];
    let others = Certs::new();
    let stranger = spawn_with(&places, 2, &others);
    serves(&mut members[0]).await;
    for process in members.iter().chain([&stranger]) {
        says(process, &["rejected connection on peer endpoint", "TLS handshake failed"]).await;
        says(process, &["no connection to a member", "cannot be reached", "certificate"]).await;
    }
}

#[tokio::test]
async fn members_that_share_a_certificate_that_signs_itself_let_each_other_in_and_nobody_else() {
    let places = Places::new("https");
    let shared = Certs::of_itself();
    let mut members = [spawn_with(&places, 0, &shared), spawn_with(&places, 1, &shared)];
    let others = Certs::of_itself();
    let stranger = spawn_with(&places, 2, &others);
    for member in &mut members {
        serves(member).await;
    }
    for process in members.iter().chain([&stranger]) {
        says(process, &["no connection to a member", "cannot be reached", "certificate"]).await;
    }
}

#[tokio::test]
async fn a_member_with_the_directory_of_another_one_does_not_start() {
    let places = Places::new("http");
    let mut members: Vec<_> = (0..3).map(|at| places.spawn(at, &[])).collect();
    for member in &mut members {
        serves(member).await;
    }
    eventually("all names are known", async || {
        let list = pb::MemberListRequest { linearizable: false };
        let listed = ClusterClient::new(members[0].channel().await).member_list(list).await.ok()?.into_inner().members;
        listed.iter().all(|member| !member.name.is_empty()).then_some(())
    })
    .await;
    for _ in 0..2 {
        members.remove(0).stop();
    }
    // Member 1 is given what was member 0's.
    let (own, other) = (places.dir(1).join("data"), places.dir(0).join("data"));
    std::fs::rename(&own, places.dir(1).join("kept")).expect("its directory is put away");
    std::fs::rename(&other, &own).expect("the other one is put in its place");
    let flags = places.flags(1, &[]);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let url = places.url(1);
    refused(places.dir(1), &flags).says(&["data directory", "it is that of member", "\"n0\"", &url, "\"n1\""]);
    // Nothing is lost.
    std::fs::rename(&own, &other).expect("it is put back");
    std::fs::rename(places.dir(1).join("kept"), &own).expect("and its own one");
    members.extend([places.spawn(0, &[]), places.spawn(1, &[])]);
    for member in &mut members {
        serves(member).await;
    }
}

#[tokio::test]
async fn duplicates_in_the_initial_cluster_are_named() {
    let dir = TempDir::new().expect("a temporary directory");
    let own = "http://127.0.0.1:23";
    let flags = |listed: &str| {
        vec![
            "--name=a".to_owned(),
            format!("--initial-advertise-peer-urls={own}"),
            format!("--initial-cluster={listed}"),
        ]
    };
    let cases = [
        (format!("a={own},b={own}"), "--initial-cluster has the URL http://127.0.0.1:23 twice"),
        (format!("a={own},a=http://127.0.0.1:24"), "missing from --initial-advertise-peer-urls"),
        (format!("b={own}"), "couldn't find local name \"a\""),
    ];
    for (listed, words) in cases {
        let flags = flags(&listed);
        refused(dir.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>()).says(&[words]);
    }
}

#[tokio::test]
async fn nobody_is_added_with_the_url_of_another_one_and_nobody_joins_uninvited() {
    let places = Places::new("http");
    let mut members: Vec<_> = (0..3).map(|at| places.spawn(at, &[])).collect();
    serves(&mut members[0]).await;
    let add = |url: String| pb::MemberAddRequest { peer_urls: vec![url], is_learner: true };
    // Until all have been connected for a while, nobody is added at all.
    eventually("the address is refused", async || {
        let taken = ClusterClient::new(members[0].channel().await).member_add(add(places.url(1))).await;
        match ApiError::from_status(&taken.expect_err("it is taken")) {
            Some(ApiError::PeerUrlExists) => Some(()),
            error => {
                assert_eq!(error, Some(ApiError::Unhealthy));
                None
            }
        }
    })
    .await;

    let dir = TempDir::new().expect("a temporary directory");
    let uninvited = format!("http://127.0.0.1:{}", free_port());
    let flags = [
        "--name=n3".to_owned(),
        format!("--listen-peer-urls={uninvited}"),
        format!("--initial-advertise-peer-urls={uninvited}"),
        format!("--initial-cluster={},n3={uninvited}", places.listed()),
        "--initial-cluster-state=existing".to_owned(),
    ];
    refused(dir.path(), &flags.each_ref().map(String::as_str))
        .says(&["--initial-cluster does not name the cluster's members"]);
}

#[tokio::test]
async fn garbage_on_the_peer_port_is_answered_and_logged() {
    let places = Places::new("http");
    let member = places.spawn(0, &[]);
    says(&member, &["serving other members"]).await;
    let mut socket = TcpStream::connect(("127.0.0.1", places.ports[0])).await.expect("it accepts");
    socket.write_all(b"this is no protocol\r\n\r\n").await.expect("it takes bytes");
    let mut answer = Vec::new();
    // A reset is a way of closing.
    let _ = timeout(DEADLINE, socket.read_to_end(&mut answer)).await.expect("it hangs up");
    assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request"), "{}", String::from_utf8_lossy(&answer));
    says(&member, &["rejected connection on peer endpoint", "it does not speak HTTP"]).await;
}

/// Copies a directory, as an operator would.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("the copy's directory");
    for entry in std::fs::read_dir(from).expect("the directory") {
        let entry = entry.expect("an entry");
        let (path, copied) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &copied);
        } else {
            std::fs::copy(&path, &copied).expect("a file is copied");
        }
    }
}

#[tokio::test]
async fn a_copy_of_a_member_at_a_new_address_is_refused_by_all_and_they_say_why() {
    let places = Places::new("http");
    let [first, mut second, mut third] = places.start(&[]);
    serves(&mut second).await;
    first.stop();
    let elsewhere = TempDir::new().expect("a temporary directory");
    copy(&places.dir(0).join("data"), &elsewhere.path().join("data"));
    let mut first = places.spawn(0, &[]);
    first.serves().expect("it serves");

    let url = format!("http://127.0.0.1:{}", free_port());
    let moved = [
        "--name=n0".to_owned(),
        format!("--listen-peer-urls={url}"),
        format!("--initial-advertise-peer-urls={url}"),
        "--heartbeat-interval=50".to_owned(),
        "--election-timeout=500".to_owned(),
    ];
    let twin = spawn(elsewhere.path(), &moved);
    says(&twin, &["the cluster knows this member at other peer URLs", &url]).await;
    says(&twin, &["no connection to a member", "it refuses this member", "another process with the identity of"]).await;
    for member in [&second, &third] {
        says(member, &["refused a member", "another process with the identity of", "is connected, from 127.0.0.1"])
            .await;
    }
    says(&first, &["a member complains of this one", "a second process with this member's identity calls"]).await;
    for member in [&mut first, &mut second, &mut third] {
        serves(member).await;
    }
    assert!(!twin.log().contains("ready to serve"), "it must not serve:\n{}", twin.log());
    twin.kill();

    // A member that is moved is no copy: what it was is not there any more.
    first.stop();
    let moved_to = TempDir::new().expect("a temporary directory");
    std::fs::rename(places.dir(0).join("data"), moved_to.path().join("data")).expect("its directory is moved");
    let mut first = spawn(moved_to.path(), &moved);
    serves(&mut first).await;
}

/// A member that answers at the address of another one, with something else than that would.
pub struct Impostor {
    pub answer: fn() -> Result<Answer, Status>,
    /// What it is sent after the introduction.
    pub heard: mpsc::UnboundedSender<Frame>,
}

type Pieces = Pin<Box<dyn Stream<Item = Result<SnapshotPiece, Status>> + Send>>;

fn nothing<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("an impostor does nothing"))
}

#[tonic::async_trait]
impl Peer for Impostor {
    type StreamStream = Pin<Box<dyn Stream<Item = Result<Answer, Status>> + Send>>;
    type SnapshotStream = Pieces;

    async fn stream(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::StreamStream>, Status> {
        let mut frames = request.into_inner();
        let hello = frames.message().await?.and_then(|frame| frame.hello).expect("an introduction");
        let own = Hello { from: hello.to, to: hello.from, peer_urls: Vec::new(), blank: true, run: 1, ..hello };
        let (say, heard) = (self.answer, self.heard.clone());
        tokio::spawn(async move {
            while let Ok(Some(frame)) = frames.message().await {
                // Not every test wants to know.
                let _ = heard.send(frame);
            }
        });
        let welcome = Answer { welcome: Some(own), ..Answer::default() };
        let answers = iter(std::iter::once(Ok(welcome)).chain((0..MANY).map(move |_| say())));
        Ok(Response::new(Box::pin(answers.chain(pending()))))
    }

    async fn members(&self, _: Request<MembersRequest>) -> Result<Response<MembersResponse>, Status> {
        nothing()
    }

    async fn change(&self, _: Request<ChangeRequest>) -> Result<Response<ChangeResponse>, Status> {
        nothing()
    }

    async fn snapshot(&self, _: Request<SnapshotRequest>) -> Result<Response<Pieces>, Status> {
        nothing()
    }

    async fn leases(&self, _: Request<LeasesRequest>) -> Result<Response<LeasesResponse>, Status> {
        nothing()
    }

    async fn hash(&self, _: Request<HashRequest>) -> Result<Response<HashResponse>, Status> {
        nothing()
    }
}

/// How often an impostor says what it says.
const MANY: usize = 100;

#[tokio::test]
async fn a_member_logs_what_another_one_refuses_of_it_but_not_every_time() {
    let places = Places::new("http");
    let answers: [fn() -> Result<Answer, Status>; 2] = [
        || Ok(Answer { complaint: "a message is refused: unknown kind of message".to_owned(), ..Answer::default() }),
        || Err(Status::invalid_argument("a message of raft does not decode: not at all")),
    ];
    for (at, answer) in answers.into_iter().enumerate() {
        let impostor = PeerServer::new(Impostor { answer, heard: mpsc::unbounded_channel().0 });
        let socket = TcpListener::bind(("127.0.0.1", places.ports[at + 1])).await.expect("it listens");
        let incoming = TcpListenerStream::new(socket);
        tokio::spawn(Server::builder().add_service(impostor).serve_with_incoming(incoming));
    }
    let member = places.spawn(0, &[]);
    says(&member, &["a member complains of this one", "a message is refused: unknown kind of message"]).await;
    says(
        &member,
        &["no connection to a member", "it could not make sense of this member", "does not decode: not at all"],
    )
    .await;
    let complaints = || member.log().lines().filter(|line| line.contains("a member complains of this one")).count();
    assert!((1..10).contains(&complaints()), "{MANY} complaints are too many lines:\n{}", member.log());
}

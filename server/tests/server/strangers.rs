//! Members that are not whom they should be, as processes: who is refused is told why, and so is who refuses.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use cairn_proto::etcdserverpb as pb;
use cairn_proto::{ApiError, etcdserverpb::cluster_client::ClusterClient};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    cluster::free_port,
    process::{Process, refused},
    support::{Certs, DEADLINE, certs, eventually},
};

/// Members that know each other's addresses, running or not.
struct Trio {
    ports: [u16; 3],
    dirs: Vec<TempDir>,
    scheme: &'static str,
}

impl Trio {
    fn new(scheme: &'static str) -> Self {
        let dirs = (0..3).map(|_| TempDir::new().expect("a temporary directory")).collect();
        Self { ports: std::array::from_fn(|_| free_port()), dirs, scheme }
    }

    fn dir(&self, at: usize) -> &Path {
        self.dirs[at].path()
    }

    fn url(&self, at: usize) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.ports[at])
    }

    fn flags(&self, at: usize, more: &[String]) -> Vec<String> {
        let listed: Vec<_> = (0..3).map(|at| format!("n{at}={}", self.url(at))).collect();
        let url = self.url(at);
        let mut flags = vec![
            format!("--name=n{at}"),
            format!("--listen-peer-urls={url}"),
            format!("--initial-advertise-peer-urls={url}"),
            format!("--initial-cluster={}", listed.join(",")),
        ];
        flags.extend_from_slice(more);
        flags
    }

    fn start(&self, at: usize, more: &[String]) -> Process {
        let flags = self.flags(at, more);
        Process::spawn(self.dir(at), &flags.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

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
    let trio = Trio::new("http");
    let mut members = [trio.start(0, &[]), trio.start(1, &[])];
    let stranger = trio.start(2, &["--initial-cluster-token=another".to_owned()]);
    serves(&mut members[0]).await;
    for member in &members {
        says(member, &["refused a member", "it is of cluster", "--initial-cluster-token"]).await;
        says(member, &["no connection to a member", "it refuses this member", "it is of cluster"]).await;
    }
    says(&stranger, &["refused a member", "it is of cluster", "--initial-cluster-token"]).await;
    says(&stranger, &["no connection to a member", "it refuses this member", "--initial-cluster-token"]).await;
}

fn tls_flags(certs: &Certs) -> Vec<String> {
    vec![
        format!("--peer-cert-file={}", certs.path("server.crt").display()),
        format!("--peer-key-file={}", certs.path("server.key").display()),
        format!("--peer-trusted-ca-file={}", certs.path("ca.crt").display()),
        "--peer-client-cert-auth".to_owned(),
    ]
}

#[tokio::test]
async fn a_member_of_another_authority_is_refused_and_both_sides_say_why() {
    let trio = Trio::new("https");
    let mut members = [trio.start(0, &tls_flags(certs())), trio.start(1, &tls_flags(certs()))];
    let others = Certs::new();
    let stranger = trio.start(2, &tls_flags(&others));
    serves(&mut members[0]).await;
    for process in members.iter().chain([&stranger]) {
        says(process, &["rejected connection on peer endpoint", "TLS handshake failed"]).await;
        says(process, &["no connection to a member", "cannot be reached", "certificate"]).await;
    }
}

#[tokio::test]
async fn a_member_with_the_directory_of_another_one_does_not_start() {
    let trio = Trio::new("http");
    let mut members: Vec<_> = (0..3).map(|at| trio.start(at, &[])).collect();
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
        assert!(members.remove(0).stop().success());
    }
    // Member 1 is given what was member 0's.
    let (own, other) = (trio.dir(1).join("data"), trio.dir(0).join("data"));
    std::fs::rename(&own, trio.dir(1).join("kept")).expect("its directory is put away");
    std::fs::rename(&other, &own).expect("the other one is put in its place");
    let flags = trio.flags(1, &[]);
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let url = trio.url(1);
    refused(trio.dir(1), &flags).says(&["data directory", "it is that of member", "\"n0\"", &url, "\"n1\""]);
    // Nothing is lost.
    std::fs::rename(&own, &other).expect("it is put back");
    std::fs::rename(trio.dir(1).join("kept"), &own).expect("and its own one");
    members.extend([trio.start(0, &[]), trio.start(1, &[])]);
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
    let trio = Trio::new("http");
    let mut members: Vec<_> = (0..3).map(|at| trio.start(at, &[])).collect();
    serves(&mut members[0]).await;
    let add = |url: String| pb::MemberAddRequest { peer_urls: vec![url], is_learner: true };
    // Until all have been connected for a while, nobody is added at all.
    eventually("the address is refused", async || {
        let taken = ClusterClient::new(members[0].channel().await).member_add(add(trio.url(1))).await;
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
    let listed: Vec<_> = (0..3).map(|at| format!("n{at}={}", trio.url(at))).collect();
    let flags = [
        "--name=n3".to_owned(),
        format!("--listen-peer-urls={uninvited}"),
        format!("--initial-advertise-peer-urls={uninvited}"),
        format!("--initial-cluster={},n3={uninvited}", listed.join(",")),
        "--initial-cluster-state=existing".to_owned(),
    ];
    refused(dir.path(), &flags.each_ref().map(String::as_str))
        .says(&["--initial-cluster does not name the cluster's members"]);
}

#[tokio::test]
async fn garbage_on_the_peer_port_is_answered_and_logged() {
    let trio = Trio::new("http");
    let member = trio.start(0, &[]);
    says(&member, &["serving other members"]).await;
    let mut socket = TcpStream::connect(("127.0.0.1", trio.ports[0])).await.expect("it accepts");
    socket.write_all(b"this is no protocol\r\n\r\n").await.expect("it takes bytes");
    let mut answer = Vec::new();
    // A reset is a way of closing.
    let _ = timeout(DEADLINE, socket.read_to_end(&mut answer)).await.expect("it hangs up");
    assert!(answer.starts_with(b"HTTP/1.1 400 Bad Request"), "{}", String::from_utf8_lossy(&answer));
    says(&member, &["rejected connection on peer endpoint", "it does not speak HTTP"]).await;
}

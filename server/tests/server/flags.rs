//! Flags whose effect shows from outside, on the server's binary. What the others come to is tested beside the code.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, cluster_client::ClusterClient, kv_client::KvClient},
    peer::{MembersRequest, peer_client::PeerClient},
};
use rustls::{
    ClientConfig, RootCertStore, SupportedProtocolVersion,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
    version::{TLS12, TLS13},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tonic::transport::Endpoint;

use super::{
    cluster::free_port,
    process::{Process, command, refused},
    support::{Certs, DEADLINE, certs, eventually, http},
};

fn temporary() -> TempDir {
    TempDir::new().expect("a temporary directory")
}

async fn members(server: &Process) -> pb::MemberListResponse {
    let mut cluster = ClusterClient::new(server.channel().await);
    cluster.member_list(pb::MemberListRequest::default()).await.expect("the members").into_inner()
}

#[tokio::test]
async fn the_log_has_a_directory_of_its_own() {
    let dir = temporary();
    let wal = dir.path().join("wal");
    let wal_dir = format!("--wal-dir={}", wal.display());
    let server = Process::start(dir.path(), &[&wal_dir]);
    server.put("a", "1").await;
    assert!(wal.join("log-0000000000000001").is_file() && !dir.path().join("data/member/wal").exists());
    let other = temporary();
    refused(other.path(), &[&wal_dir]).says(&[&format!("{} is in use by process {}", wal.display(), server.id())]);
    server.kill();
    let server = Process::start(dir.path(), &[&wal_dir]);
    assert_eq!(server.get("a").await.as_deref(), Some(&b"1"[..]));
    server.stop();
    refused(dir.path(), &[]).says(&["the raft log is missing"]);
    let server = Process::start(dir.path(), &[&wal_dir]);
    assert_eq!(server.get("a").await.as_deref(), Some(&b"1"[..]));
}

#[tokio::test]
async fn a_member_has_the_name_and_urls_it_was_given() {
    let (dir, other) = (temporary(), temporary());
    let flags = [
        "--name=m1",
        "--initial-advertise-peer-urls=http://127.0.0.1:12380",
        "--initial-cluster=m1=http://127.0.0.1:12380",
        "--initial-cluster-token=one",
        "--listen-client-urls=http://127.0.0.1:0",
        "--advertise-client-urls=http://127.0.0.1:12379",
    ];
    let server = Process::start(dir.path(), &flags);
    let list = members(&server).await;
    let member = &list.members[0];
    assert_eq!(member.name, "m1");
    assert_eq!(member.peer_urls, ["http://127.0.0.1:12380"]);
    assert_eq!(member.client_urls, ["http://127.0.0.1:12379"]);
    let mut flags = flags;
    flags[3] = "--initial-cluster-token=two";
    let elsewhere = members(&Process::start(other.path(), &flags)).await;
    let ids = |list: &pb::MemberListResponse| list.header.as_ref().map(|header| (header.cluster_id, header.member_id));
    assert_ne!(ids(&list), ids(&elsewhere), "the token goes into the ids");
}

#[tokio::test]
async fn the_data_directory_is_named_after_the_member() {
    let dir = temporary();
    let child = command()
        .current_dir(dir.path())
        .args(["--name=m1", "--initial-cluster=m1=http://localhost:2380"])
        .args(["--listen-client-urls=http://127.0.0.1:0", "--advertise-client-urls=http://127.0.0.1:2379"])
        .args(["--listen-peer-urls=http://127.0.0.1:0"])
        .stderr(std::process::Stdio::null())
        .spawn();
    let mut child = child.expect("the binary runs");
    eventually("the data directory", async || dir.path().join("m1.cairn/member").is_dir().then_some(())).await;
    child.kill().and_then(|()| child.wait()).expect("the process runs");
}

#[tokio::test]
async fn a_config_file_says_what_flags_say() {
    let dir = temporary();
    let file = dir.path().join("cairn.yaml");
    let data = dir.path().join("elsewhere");
    let text = format!(
        "name: m1\ndata-dir: {}\nlisten-client-urls: http://127.0.0.1:0\nadvertise-client-urls: http://127.0.0.1:12379\n\
         listen-peer-urls: http://127.0.0.1:0\ninitial-cluster: m1=http://localhost:2380\nmax-txn-ops: 1\n",
        data.display()
    );
    fs::write(&file, text).expect("the file is written");
    let server = Process::start(dir.path(), &[&format!("--config-file={}", file.display())]);
    assert_eq!(members(&server).await.members[0].name, "m1");
    assert!(data.join("member").is_dir());
    let compare = pb::Compare { key: "a".into(), ..Default::default() };
    let txn = pb::TxnRequest { compare: vec![compare; 2], ..Default::default() };
    assert_eq!(server.kv().await.txn(txn).await.expect_err("too many").message(), ApiError::TooManyOps.text());
}

#[tokio::test]
async fn limits_of_requests_and_size_are_kept() {
    let dir = temporary();
    let server =
        Process::start(dir.path(), &["--max-request-bytes=200000", "--max-txn-ops=1", "--quota-backend-bytes=3000000"]);
    let mut kv = server.kv().await;
    let mut put = async |bytes: usize| {
        let request = pb::PutRequest { key: "k".into(), value: vec![1; bytes].into(), ..Default::default() };
        kv.put(request).await.map_err(|status| status.message().to_owned())
    };
    assert_eq!(put(200_001).await.err().as_deref(), Some(ApiError::RequestTooLarge.text()));
    let mut refused = None;
    for _ in 0..100 {
        refused = put(100_000).await.err();
        if refused.is_some() {
            break;
        }
    }
    assert_eq!(refused.as_deref(), Some(ApiError::NoSpace.text()));
    let status = server.maintenance().await.status(pb::StatusRequest {}).await.expect("a status").into_inner();
    assert_eq!(status.db_size_quota, 3_000_000);
}

#[tokio::test]
async fn what_is_there_at_the_start_counts_for_the_quota() {
    let dir = temporary();
    let server = Process::start(dir.path(), &[]);
    let put = |key: &str, byte: u8| pb::PutRequest {
        key: key.to_owned().into(),
        value: vec![byte; 100_000].into(),
        ..Default::default()
    };
    for number in 0..30 {
        server.kv().await.put(put(&format!("k{number}"), number)).await.expect("a put");
    }
    server.stop();
    let server = Process::start(dir.path(), &["--quota-backend-bytes=500000"]);
    let refused = server.kv().await.put(put("more", 1)).await.expect_err("the first put is over the quota");
    assert_eq!(refused.message(), ApiError::NoSpace.text());
}

#[tokio::test]
async fn metrics_have_a_port_of_their_own() {
    let dir = temporary();
    let server = Process::start(dir.path(), &["--listen-metrics-urls=http://127.0.0.1:0", "--metrics=extensive"]);
    server.put("a", "1").await;
    let request = "GET /metrics HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = http(server.addrs[1], request).await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("grpc_server_handling_seconds_bucket"), "{}", answer.body);
}

#[tokio::test]
async fn other_members_are_served_where_the_flag_says() {
    let (dir, other) = (temporary(), temporary());
    let (first, second) = (free_port(), free_port());
    let flag = format!("--listen-peer-urls=http://127.0.0.1:{first},http://127.0.0.1:{second}");
    let server = Process::start(dir.path(), &[&flag]);
    let known = members(&server).await.members;
    for port in [first, second] {
        let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("a valid URL");
        let mut peer = PeerClient::new(channel.connect().await.expect("the peer port accepts"));
        let told = peer.members(MembersRequest {}).await.expect("the members").into_inner();
        assert_eq!(told.members.len(), known.len(), "port {port}");
    }
    let taken = format!("--listen-peer-urls=http://127.0.0.1:{first}");
    refused(other.path(), &[&taken]).says(&[&format!("127.0.0.1:{first}"), "in use"]);
}

#[tokio::test]
async fn http_has_a_port_of_its_own_and_leaves_the_clients() {
    let dir = temporary();
    let server = Process::start(dir.path(), &["--listen-client-http-urls=http://127.0.0.1:0"]);
    server.put("a", "1").await;
    let request = "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    assert_eq!(http(server.addrs[0], request).await.status, 404, "HTTP is taken away from where clients are");
    assert_eq!(http(server.addrs[1], request).await.status, 200);
    let channel = Endpoint::from_shared(format!("http://{}", server.addrs[1])).expect("a valid URL").connect().await;
    let range = pb::RangeRequest { key: "a".into(), ..Default::default() };
    KvClient::new(channel.expect("it accepts")).range(range).await.expect_err("no gRPC is served there");
}

#[tokio::test]
async fn servers_share_a_port_only_if_all_of_them_are_told_to() {
    let (one, two) = (temporary(), temporary());
    let at = format!("--listen-client-urls=http://127.0.0.1:{}", free_port());
    let flags = [at.as_str(), "--advertise-client-urls=http://127.0.0.1:2379", "--socket-reuse-port"];
    let _first = Process::start(one.path(), &flags);
    refused(two.path(), &flags[..2]).says(&["in use"]);
    let second = Process::start(two.path(), &flags);
    second.stop();
}

#[tokio::test]
async fn a_request_that_takes_longer_than_allowed_is_logged() {
    for (flag, is_logged) in [("1ns", true), ("1h", false)] {
        let dir = temporary();
        let server = Process::start(dir.path(), &[&format!("--warning-unary-request-duration={flag}")]);
        server.put("a", "1").await;
        let logged =
            || server.log().lines().any(|line| line.contains("a request took too long") && line.contains("Put"));
        if is_logged {
            eventually("the line", async || logged().then_some(())).await;
        } else {
            assert!(!logged(), "{}", server.log());
        }
    }
}

#[tokio::test]
async fn a_silent_connection_between_members_counts_as_dead_after_the_time_that_is_set() {
    let silent = async |read_timeout: &str| {
        let (dir, port) = (temporary(), free_port());
        let at = format!("--listen-peer-urls=http://127.0.0.1:{port}");
        let _server = Process::start(dir.path(), &[&at, &format!("--raft-read-timeout={read_timeout}")]);
        let mut stream = greeted(([127, 0, 0, 1], port).into()).await;
        frame(&mut stream, 6, 1).await;
        // A reset is a way of closing.
        let _ = stream.read_to_end(&mut Vec::new()).await;
    };
    let mut patient = std::pin::pin!(silent("1m"));
    tokio::select! {
        () = silent("3s") => {}
        () = &mut patient => panic!("the one that may be silent for a minute is left first"),
        () = tokio::time::sleep(Duration::from_secs(30)) => panic!("who says nothing is not left"),
    }
    let soon = tokio::time::timeout(Duration::from_secs(6), patient).await;
    assert!(soon.is_err(), "one that may be silent for a minute is left after seconds");
}

#[tokio::test]
async fn recent_events_are_kept_in_memory_up_to_the_size_that_is_set() {
    const VALUES: u64 = 160;
    const VALUE_BYTES: u64 = 1 << 20;
    let after_writes = async |flag: &str| {
        let dir = temporary();
        let server = Process::start(dir.path(), &[flag]);
        for number in 0..VALUES {
            server.put("a", vec![number as u8; VALUE_BYTES as usize]).await;
        }
        server.resident_bytes()
    };
    let (small, large) =
        (after_writes("--watch-window-bytes=1048576").await, after_writes("--watch-window-bytes=1073741824").await);
    assert!(large > small + VALUES * VALUE_BYTES / 2, "{small} bytes with a small window, {large} with a large one");
}

/// The flags of a member of a cluster whose clients nobody cares for.
fn member(name: &str, port: u16, cluster: &str, state: &str) -> [String; 5] {
    [
        format!("--name={name}"),
        format!("--listen-peer-urls=http://127.0.0.1:{port}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{port}"),
        format!("--initial-cluster={cluster}"),
        format!("--initial-cluster-state={state}"),
    ]
}

/// Who a member is, which learners tell, too.
async fn header(server: &Process) -> pb::ResponseHeader {
    let status = server.maintenance().await.status(pb::StatusRequest {}).await.expect("a status");
    status.into_inner().header.expect("a header")
}

#[tokio::test]
async fn a_member_joins_a_cluster_that_exists_only_if_it_is_told_to() {
    let (one, two) = (temporary(), temporary());
    let (first, second) = (free_port(), free_port());
    let alone = format!("one=http://127.0.0.1:{first}");
    let both = format!("{alone},two=http://127.0.0.1:{second}");
    let joining = member("two", second, &both, "existing");
    let joining: Vec<_> = joining.iter().map(String::as_str).collect();
    let nobody = member("two", second, &format!("two=http://127.0.0.1:{second}"), "existing");
    let nobody: Vec<_> = nobody.iter().map(String::as_str).collect();
    refused(two.path(), &nobody).says(&["could not fetch the cluster's members", "--initial-cluster-state=existing"]);
    refused(two.path(), &joining).says(&["could not fetch the cluster's members"]);

    let flags = member("one", first, &alone, "new");
    let server = Process::start(one.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>());
    server.put("a", "1").await;
    refused(two.path(), &joining).says(&["--initial-cluster does not name the cluster's members"]);
    let mut cluster = ClusterClient::new(server.channel().await);
    let urls = vec![format!("http://127.0.0.1:{second}")];
    let request = pb::MemberAddRequest { peer_urls: urls, is_learner: true };
    cluster.member_add(request).await.expect("it is added");
    let joined = Process::start(two.path(), &joining);
    let ids = |list: &pb::MemberListResponse| -> Vec<_> { list.members.iter().map(|member| member.id).collect() };
    let listed = eventually("its name is known", async || {
        let list = members(&server).await;
        list.members.iter().any(|member| member.name == "two").then_some(list)
    })
    .await;
    let header = header(&joined).await;
    assert!(ids(&listed).contains(&header.member_id), "it is the one that was added");
    assert_eq!(Some(header.cluster_id), listed.header.map(|header| header.cluster_id));
    // Once there is data the flag counts no more.
    joined.stop();
    let again = member("two", second, &both, "new");
    let again = Process::start(two.path(), &again.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(self::header(&again).await.member_id, header.member_id);
}

#[tokio::test]
async fn history_older_than_the_retention_is_given_up_by_itself() {
    let dir = temporary();
    let server = Process::start(dir.path(), &["--auto-compaction-mode=periodic", "--auto-compaction-retention=1s"]);
    for value in ["1", "2", "3"] {
        server.put("a", value).await;
    }
    let mut kv = server.kv().await;
    eventually("revision 2 is given up", async || {
        let request = pb::RangeRequest { key: "a".into(), revision: 2, ..Default::default() };
        let refused = kv.range(request).await.err()?;
        (ApiError::from_status(&refused) == Some(ApiError::Compacted)).then_some(())
    })
    .await;
    assert_eq!(server.get("a").await.as_deref(), Some(&b"3"[..]));
    assert!(server.log().contains("completed auto compaction"), "{}", server.log());

    let kept = temporary();
    let server = Process::start(kept.path(), &["--auto-compaction-retention=0"]);
    server.put("a", "1").await;
    assert!(!server.log().contains("auto compaction"), "{}", server.log());
    refused(kept.path(), &["--auto-compaction-mode=sometimes"]).says(&["--auto-compaction-mode", "sometimes"]);
    let unreadable = ["--auto-compaction-mode=revision", "--auto-compaction-retention=1h"];
    refused(kept.path(), &unreadable).says(&["--auto-compaction-retention"]);
}

/// Reads HTTP/2 frames until one of `kind` comes without `not_flag`; returns its payload.
async fn frame(stream: &mut TcpStream, kind: u8, not_flag: u8) -> Vec<u8> {
    let found = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.expect("a frame");
            let mut payload = vec![0; usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.expect("a frame's payload");
            if head[3] == kind && head[4] & not_flag == 0 {
                return payload;
            }
        }
    };
    tokio::time::timeout(DEADLINE, found).await.expect("the frame comes")
}

async fn http2(server: &Process) -> TcpStream {
    greeted(server.addrs[0]).await
}

/// A connection on which a client has said that it speaks HTTP/2, and no more.
async fn greeted(addr: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(addr).await.expect("the server accepts");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("the preface is sent");
    stream
}

#[tokio::test]
async fn a_connection_may_have_so_many_streams() {
    let dir = temporary();
    let server = Process::start(dir.path(), &["--max-concurrent-streams=7"]);
    let settings = frame(&mut http2(&server).await, 4, 1).await;
    assert!(settings.chunks(6).any(|setting| setting == [0, 3, 0, 0, 0, 7]), "{settings:?}");
}

#[tokio::test]
async fn an_idle_client_is_asked_whether_it_lives_and_left_if_it_does_not_answer() {
    let dir = temporary();
    let server = Process::start(dir.path(), &["--grpc-keepalive-interval=100ms", "--grpc-keepalive-timeout=100ms"]);
    let mut stream = http2(&server).await;
    frame(&mut stream, 6, 1).await;
    let ended = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await;
    // A reset is a way of closing.
    let _ = ended.expect("the connection is closed");
}

#[tokio::test]
async fn log_lines_are_of_the_level_and_form_asked_for_and_go_where_they_should() {
    let dir = temporary();
    let file = dir.path().join("lines");
    let outputs = format!("--log-outputs=stderr,{}", file.display());
    let server = Process::start(dir.path(), &["--log-format=console", &outputs]);
    let copy = fs::read_to_string(&file).expect("the file");
    assert!(copy.contains("ready to serve client requests"), "{copy}");
    assert!(copy.lines().all(|line| line.split('\t').nth(1) == Some("info") && !line.starts_with('{')), "{copy}");
    drop(server);
    let silent = refused(dir.path(), &["--log-level=error", "--data-dir=/proc/nowhere"]);
    assert!(!silent.stderr.contains(r#""level":"info""#), "{}", silent.stderr);
    assert!(silent.stderr.contains(r#""level":"error""#), "{}", silent.stderr);
}

fn tls_flags() -> Vec<String> {
    let file = |name: &str| certs().path(name).display().to_string();
    vec![
        "--listen-client-urls=https://127.0.0.1:0".to_owned(),
        "--advertise-client-urls=https://127.0.0.1:2379".to_owned(),
        format!("--cert-file={}", file("server.crt")),
        format!("--key-file={}", file("server.key")),
    ]
}

/// What a TLS client that speaks `versions` and trusts the certificate in `ca` agrees on with the server.
async fn agreed(server: &Process, versions: &[&'static SupportedProtocolVersion], ca: &Path) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).expect("a certificate")).expect("a certificate to trust");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
    let connector = TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth()));
    let stream = TcpStream::connect(server.addrs[0]).await.expect("the server accepts");
    let stream = connector.connect(ServerName::try_from("localhost").expect("a name"), stream).await.ok()?;
    let suite = stream.get_ref().1.negotiated_cipher_suite()?.suite();
    Some(format!("{:?} {suite:?}", stream.get_ref().1.protocol_version()?))
}

#[tokio::test]
async fn tls_versions_and_suites_are_those_asked_for() {
    let ca = certs().path("ca.crt");
    let started = |flag: &str| {
        let dir = temporary();
        let mut flags = tls_flags();
        flags.push(flag.to_owned());
        let server = Process::start(dir.path(), &flags.iter().map(String::as_str).collect::<Vec<_>>());
        (dir, server)
    };
    let (_dir, newest) = started("--tls-min-version=TLS1.3");
    assert_eq!(agreed(&newest, &[&TLS12], &ca).await, None);
    assert!(agreed(&newest, &[&TLS12, &TLS13], &ca).await.expect("agreed").starts_with("TLSv1_3"));
    let (_dir, older) = started("--tls-max-version=TLS1.2");
    assert_eq!(agreed(&older, &[&TLS13], &ca).await, None);
    assert!(agreed(&older, &[&TLS12, &TLS13], &ca).await.expect("agreed").starts_with("TLSv1_2"));
    let (_dir, picky) = started("--cipher-suites=TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
    assert_eq!(
        agreed(&picky, &[&TLS12], &ca).await.as_deref(),
        Some("TLSv1_2 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
    );
}

#[tokio::test]
async fn clients_need_a_certificate_of_the_authority_that_is_named() {
    for flags in [&["--client-cert-auth"][..], &[]] {
        let dir = temporary();
        let mut all = tls_flags();
        all.push(format!("--trusted-ca-file={}", certs().path("ca.crt").display()));
        all.extend(flags.iter().map(|&flag| flag.to_owned()));
        let server = Process::start(dir.path(), &all.iter().map(String::as_str).collect::<Vec<_>>());
        let range = pb::RangeRequest { key: "a".into(), ..Default::default() };
        let known = certs().connect_to(server.addrs[0], Some(certs())).await.expect("a client it knows");
        KvClient::new(known).range(range.clone()).await.expect("it is served");
        let others = Certs::new();
        for identity in [None, Some(&others)] {
            // The client may believe that it is connected until it is told otherwise.
            if let Ok(channel) = certs().connect_to(server.addrs[0], identity).await {
                KvClient::new(channel).range(range.clone()).await.expect_err("a client it does not know");
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_is_made_when_none_is_given() {
    let dir = temporary();
    let flags = [
        "--auto-tls",
        "--self-signed-cert-validity=3",
        "--listen-client-urls=https://127.0.0.1:0",
        "--advertise-client-urls=https://localhost:1",
    ];
    let server = Process::start(dir.path(), &flags);
    let made = fs::read_dir(dir.path().join("data/fixtures/client")).expect("where the certificate is kept");
    let certificate = made
        .map(|entry| entry.expect("an entry").path())
        .find(|path| fs::read_to_string(path).is_ok_and(|text| text.contains("BEGIN CERTIFICATE")));
    let certificate = certificate.expect("a certificate");
    assert!(agreed(&server, &[&TLS12, &TLS13], &certificate).await.is_some());
    let made = CertificateDer::from_pem_file(certificate).expect("a certificate");
    let (_, made) = x509_parser::parse_x509_certificate(&made).expect("a certificate");
    let seconds = made.validity().not_after.timestamp() - made.validity().not_before.timestamp();
    assert_eq!(seconds, 3 * 365 * 24 * 3600);
}

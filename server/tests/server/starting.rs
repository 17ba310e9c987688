//! What a member that starts shows: nothing of its past, by any way in, and what is asked about the member itself at once.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use cairn_proto::{
    ApiError,
    etcdserverpb::{
        self as pb, cluster_client::ClusterClient, kv_client::KvClient, maintenance_client::MaintenanceClient,
        watch_client::WatchClient, watch_request::RequestUnion,
    },
};
use cairn_server::server::Server;
use futures::{StreamExt, stream};
use tempfile::TempDir;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use super::{
    cluster::free_port,
    process::Process,
    support::{DEADLINE, builder, eventually, http},
    trio::{Places, Trio, url},
};

/// Puts that a member has to replay: enough that it is seen at it.
const PUTS: u64 = 6_000;
/// Puts under way at a time.
const PUTS_AT_ONCE: usize = 256;
/// How long a call to a member that does not serve is waited for.
const NOT_SERVED_WITHIN: Duration = Duration::from_millis(500);

fn channel(port: u16) -> Channel {
    Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("a valid URL").connect_lazy()
}

fn everything() -> pb::RangeRequest {
    pb::RangeRequest { key: "\0".into(), range_end: "\0".into(), serializable: true, limit: 1, ..Default::default() }
}

/// Puts one key over and over, and gives the revision that the last put made.
async fn fill(port: u16) -> i64 {
    let client = KvClient::new(channel(port));
    let newest = AtomicI64::new(0);
    stream::iter(0..PUTS)
        .for_each_concurrent(PUTS_AT_ONCE, async |number| {
            let put = pb::PutRequest { key: format!("{}", number % 10).into(), ..Default::default() };
            let answer = client.clone().put(put).await.expect("a put").into_inner();
            newest.fetch_max(answer.header.expect("a header").revision, Ordering::Relaxed);
        })
        .await;
    newest.into_inner()
}

/// A client that asks a member for its revision, in all ways there are, from before it serves.
struct Onlooker {
    port: u16,
    metrics: SocketAddr,
}

impl Onlooker {
    /// Asks until the member was seen at `newest` by each way, and holds every answer against it.
    async fn sees_nothing_before(&self, newest: i64) {
        let status = self.asks(newest, async |channel| {
            let status = MaintenanceClient::new(channel).status(pb::StatusRequest {}).await.ok()?.into_inner();
            Some(status.header?.revision)
        });
        let read = self.asks(newest, async |channel| {
            Some(KvClient::new(channel).range(everything()).await.ok()?.into_inner().header?.revision)
        });
        let metrics = eventually("the metrics show the revision", async || {
            tokio::net::TcpStream::connect(self.metrics).await.ok()?;
            let page = page(self.metrics, "/metrics").await;
            let shown = page.lines().find_map(|line| line.strip_prefix("etcd_debugging_mvcc_current_revision "))?;
            let shown = shown.parse::<i64>().expect("a revision");
            assert!(shown >= newest, "the metrics show {shown}, {newest} was shown before");
            Some(())
        });
        tokio::join!(status, read, metrics, self.watches(newest));
    }

    async fn asks(&self, newest: i64, revision: impl AsyncFn(Channel) -> Option<i64>) {
        eventually("an answer", async || {
            let shown = revision(channel(self.port)).await?;
            assert!(shown >= newest, "it shows {shown}, and {newest} was shown before");
            Some(())
        })
        .await;
    }

    /// A watch without a start revision is told the next change, and nothing before it.
    async fn watches(&self, newest: i64) {
        let create = pb::WatchCreateRequest { key: "\0".into(), range_end: "\0".into(), ..Default::default() };
        let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let open = async || {
            let requests = stream::iter([request.clone()]).chain(stream::pending());
            Some(WatchClient::new(channel(self.port)).watch(requests).await.ok()?.into_inner())
        };
        let mut answers = eventually("a watch", open).await;
        let created = answers.next().await.expect("an answer").expect("it is created");
        assert!(created.created && created.header.expect("a header").revision >= newest);
        let put = pb::PutRequest { key: "next".into(), ..Default::default() };
        KvClient::new(channel(self.port)).put(put).await.expect("a put");
        let told = answers.next().await.expect("an answer").expect("an event");
        let keys: Vec<_> = told.events.iter().filter_map(|event| event.kv.as_ref()).map(|kv| &kv.key[..]).collect();
        assert_eq!(keys, [b"next"], "it is told what was there before");
    }
}

async fn page(addr: SocketAddr, path: &str) -> String {
    http(addr, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")).await.body
}

/// Ports of a member for clients and for metrics, and the flags that say so.
struct Ports {
    client: u16,
    metrics: u16,
    flags: [String; 3],
}

impl Ports {
    fn new() -> Self {
        let (client, metrics) = (free_port(), free_port());
        let flags = [
            format!("--listen-client-urls=http://127.0.0.1:{client}"),
            format!("--advertise-client-urls=http://127.0.0.1:{client}"),
            format!("--listen-metrics-urls=http://127.0.0.1:{metrics}"),
        ];
        Self { client, metrics, flags }
    }

    fn flags(&self) -> Vec<&str> {
        self.flags.iter().map(String::as_str).collect()
    }

    fn onlooker(&self) -> Onlooker {
        Onlooker { port: self.client, metrics: self.metrics_addr() }
    }

    fn metrics_addr(&self) -> SocketAddr {
        ([127, 0, 0, 1], self.metrics).into()
    }

    /// A client is not answered, though its connection is taken.
    async fn serve_nobody(&self) {
        let status = MaintenanceClient::new(channel(self.client));
        let asked = async { status.clone().status(pb::StatusRequest {}).await };
        let answer = tokio::time::timeout(NOT_SERVED_WITHIN, asked).await;
        assert!(answer.is_err(), "a member that cannot know what it has shown answers {answer:?}");
    }
}

#[tokio::test]
async fn a_member_that_was_killed_shows_nothing_of_its_past() {
    let (dir, ports) = (TempDir::new().expect("a temporary directory"), Ports::new());
    let mut member = Process::start(dir.path(), &ports.flags());
    let newest = fill(ports.client).await;
    for _ in 0..2 {
        member.kill();
        member = Process::spawn(dir.path(), &ports.flags());
        // Its watch's put makes one more revision each time.
        ports.onlooker().sees_nothing_before(newest).await;
    }
    member.kill();
}

#[tokio::test]
async fn one_of_three_serves_nothing_without_the_others_and_nothing_old_with_them() {
    let places = Places::new("http");
    let ports: [Ports; 3] = std::array::from_fn(|_| Ports::new());
    let start = |at: usize| places.spawn(at, &ports[at].flags());
    let mut members: [Option<Process>; 3] = std::array::from_fn(|at| Some(start(at)));
    members.iter_mut().flatten().for_each(|member| member.serves().expect("it serves"));
    let newest = fill(ports[0].client).await;
    // Serializable reads have shown it at the one that comes back alone.
    let everywhere = async || {
        let read = KvClient::new(channel(ports[2].client)).range(everything()).await.ok()?.into_inner();
        (read.header?.revision >= newest).then_some(())
    };
    eventually("the puts are everywhere", everywhere).await;
    for member in &mut members {
        member.take().expect("it runs").kill();
    }

    members[2] = Some(start(2));
    let metrics = ports[2].metrics_addr();
    let reached = || tokio::net::TcpStream::connect(metrics);
    eventually("it answers probes", async || reached().await.ok()).await;
    assert_eq!(page(metrics, "/livez").await, "ok\n", "it lives");
    let ready = page(metrics, "/readyz").await;
    assert!(ready.contains("[-]linearizable_read failed: the member does not serve clients yet"), "{ready}");
    assert!(!page(metrics, "/metrics").await.contains("etcd_debugging_mvcc_current_revision"));
    ports[2].serve_nobody().await;

    let onlooker = ports[2].onlooker();
    members[1] = Some(start(1));
    onlooker.sees_nothing_before(newest).await;

    // It goes on serving what it has when it is alone again.
    members[1].take().expect("it runs").kill();
    let read = KvClient::new(channel(ports[2].client)).range(everything()).await.expect("a serializable read");
    assert!(read.into_inner().header.expect("a header").revision >= newest);
}

#[tokio::test]
async fn a_member_that_joins_is_a_voter_with_everything_for_its_first_client() {
    let places = Places::new("http");
    let ports: [Ports; 2] = std::array::from_fn(|_| Ports::new());
    let flags = |at: usize, cluster: &str, state: &str| -> Vec<String> {
        let own = [
            format!("--name=n{at}"),
            format!("--listen-peer-urls={}", places.url(at)),
            format!("--initial-advertise-peer-urls={}", places.url(at)),
            format!("--initial-cluster={cluster}"),
            format!("--initial-cluster-state={state}"),
        ];
        own.into_iter().chain(ports[at].flags.clone()).collect()
    };
    let spawn = |at: usize, flags: Vec<String>| super::trio::spawn(places.dir(at), &flags);
    let alone = format!("n0={}", places.url(0));
    let mut first = spawn(0, flags(0, &alone, "new"));
    first.serves().expect("it serves");
    let newest = fill(ports[0].client).await;
    let add = pb::MemberAddRequest { peer_urls: vec![places.url(1)], is_learner: false };
    ClusterClient::new(channel(ports[0].client)).member_add(add).await.expect("it is added");

    let _second = spawn(1, flags(1, &format!("{alone},n1={}", places.url(1)), "existing"));
    let answer = eventually("the first answer", async || {
        match KvClient::new(channel(ports[1].client))
            .range(pb::RangeRequest { serializable: false, ..everything() })
            .await
        {
            Ok(answer) => Some(answer.into_inner()),
            Err(refused) => {
                assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
                assert!(
                    refused.message().contains("transport error") || refused.message().contains("connect"),
                    "{refused:?}"
                );
                None
            }
        }
    })
    .await;
    assert!(answer.header.expect("a header").revision >= newest && !answer.kvs.is_empty());
    ports[1].onlooker().sees_nothing_before(newest).await;
}

#[tokio::test]
async fn calls_within_the_process_wait_until_the_member_serves_but_no_longer_than_a_request_may_take() {
    let mut trio = Trio::start(|_| ()).await;
    for at in 0..3 {
        trio.down(at).await;
    }
    trio.up(0).await;
    let alone = trio.of(0).client();
    let (status, read) = tokio::join!(alone.call(pb::StatusRequest {}), alone.call(everything()));
    for refused in [status.err(), read.err()] {
        let refused = refused.expect("it cannot know what it has shown");
        assert_eq!(refused, ApiError::Timeout.into());
    }
    let within = MaintenanceClient::new(trio.of(0).channel());
    let asked = async { within.clone().status(pb::StatusRequest {}).await };
    assert!(tokio::time::timeout(NOT_SERVED_WITHIN, asked).await.is_err(), "nor over a channel");
    trio.up(1).await;
    let status = eventually("it serves", async || alone.call(pb::StatusRequest {}).await.ok()).await;
    assert!(status.header.expect("a header").revision > 1);
    trio.shutdown().await;
}

#[tokio::test]
async fn a_member_that_stops_before_it_served_tells_those_who_wait() {
    let dir = TempDir::new().expect("a temporary directory");
    let (own, other) = (url(free_port()), url(free_port()));
    let listed = vec![("n0".to_owned(), own.clone()), ("n1".to_owned(), other)];
    let started = builder(&dir).configure(|config| {
        config.name = "n0".to_owned();
        config.listen_peer_urls = vec![own.clone()];
        config.initial_advertise_peer_urls = vec![own];
        config.initial_cluster = listed;
    });
    let server: Server = started.start().await.expect("it starts");
    let client = server.client();
    let waiting = tokio::spawn(async move { client.call(pb::StatusRequest {}).await });
    let watching = server.client().exchange(stream::pending::<pb::WatchRequest>());
    assert!(!server.node().serves());
    server.shutdown().await;
    let answer = tokio::time::timeout(DEADLINE, waiting).await.expect("it is told").expect("it does not panic");
    assert_eq!(answer.expect_err("it never served"), ApiError::Stopped.into());
    let told: Vec<_> = tokio::time::timeout(DEADLINE, watching.collect()).await.expect("it ends");
    assert!(matches!(&told[..], [Err(refused)] if *refused == ApiError::Stopped.into()), "{told:?}");
}

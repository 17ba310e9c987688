//! Three members, in one process or as processes of their own, any of which may be stopped and started again.

use std::{path::Path, time::Duration};

use cairn_proto::etcdserverpb as pb;
use cairn_server::{
    config::{Config, Url},
    server::{Server, StartError},
};
use futures::future::join_all;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use super::{
    cluster::free_port,
    process::Process,
    support::{HttpAnswer, builder, eventually, http},
};

/// A loopback URL.
pub fn url(port: u16) -> Url {
    Url::parse(&format!("http://127.0.0.1:{port}")).expect("a valid URL")
}

/// Three members, any of which may be down.
pub struct Trio {
    pub servers: [Option<Server>; 3],
    pub dirs: [TempDir; 3],
    pub urls: [Url; 3],
    client_ports: [u16; 3],
    pub change: fn(&mut Config),
}

impl Trio {
    pub async fn start(change: fn(&mut Config)) -> Self {
        let mut trio = Self {
            servers: [const { None }; 3],
            dirs: std::array::from_fn(|_| TempDir::new().expect("a temporary directory")),
            urls: std::array::from_fn(|_| url(free_port())),
            client_ports: std::array::from_fn(|_| free_port()),
            change,
        };
        let started = join_all((0..3).map(|at| trio.try_up(at, change))).await;
        for (at, server) in started.into_iter().enumerate() {
            trio.servers[at] = Some(server.expect("a member starts"));
        }
        trio.put(0, "key", "value").await;
        let written = trio.of(0).node().reader().revision();
        for at in 1..3 {
            let there = async || (trio.of(at).node().reader().revision() >= written).then_some(());
            eventually("the write is everywhere", there).await;
        }
        trio
    }

    pub async fn try_up(&self, at: usize, change: impl FnOnce(&mut Config)) -> Result<Server, StartError> {
        let listed = self.urls.iter().enumerate().map(|(at, url)| (format!("n{at}"), url.clone())).collect();
        let start = builder(&self.dirs[at]).configure(|config| {
            config.name = format!("n{at}");
            config.listen_client_urls = vec![url(self.client_ports[at])];
            // Served before clients are.
            config.listen_metrics_urls = vec![url(0)];
            config.listen_peer_urls = vec![self.urls[at].clone()];
            config.initial_advertise_peer_urls = vec![self.urls[at].clone()];
            config.initial_cluster = listed;
            config.heartbeat_interval = Duration::from_millis(50);
            config.election_timeout = Duration::from_millis(500);
            change(config);
        });
        start.start().await
    }

    pub async fn up(&mut self, at: usize) {
        self.servers[at] = Some(self.try_up(at, self.change).await.expect("the member starts"));
    }

    pub async fn down(&mut self, at: usize) {
        self.servers[at].take().expect("it runs").shutdown().await;
    }

    pub fn of(&self, at: usize) -> &Server {
        self.servers[at].as_ref().expect("it runs")
    }

    /// A connection that is there whenever the member is. (One within the process would keep a stopped member's store open.)
    pub fn channel(&self, at: usize) -> Channel {
        let port = self.client_ports[at];
        Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("a valid URL").connect_lazy()
    }

    pub fn id(&self, at: usize) -> u64 {
        self.of(at).node().status().member_id
    }

    pub fn running(&self) -> impl Iterator<Item = usize> {
        (0..3).filter(|at| self.servers[*at].is_some())
    }

    /// Writes as soon as there is a leader.
    pub async fn put(&self, at: usize, key: &str, value: &str) {
        let put = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
        eventually("a write is acknowledged", async || self.of(at).client().call(put.clone()).await.ok()).await;
    }

    pub async fn leader(&self) -> usize {
        eventually("all know one leader", async || {
            let known: Vec<_> = self.running().map(|at| self.of(at).node().status().leader).collect();
            let leader = self.running().find(|at| self.id(*at) == known[0])?;
            known.iter().all(|one| *one == known[0]).then_some(leader)
        })
        .await
    }

    pub async fn lead(&self, to: usize) {
        let target = self.id(to);
        eventually("the leader moves", async || {
            let leader = self.leader().await;
            self.of(leader).node().membership().transfer_leader(target);
            (leader == to).then_some(())
        })
        .await;
    }

    pub async fn http(&self, at: usize, path: &str) -> HttpAnswer {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n");
        http(self.of(at).addrs()[0], &request).await
    }

    /// The sum of the samples of a metric with these labels, over all members.
    pub async fn counted(&self, name: &str, labels: &str) -> u64 {
        let mut sum = 0;
        for at in self.running() {
            let metrics = *self.of(at).addrs().last().expect("it listens");
            let page =
                http(metrics, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").await.body;
            let samples =
                page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(labels));
            sum += samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum::<u64>();
        }
        sum
    }

    pub async fn shutdown(self) {
        join_all(self.servers.into_iter().flatten().map(Server::shutdown)).await;
    }
}

/// Where three members are, as processes that know each other's addresses.
pub struct Places {
    pub ports: [u16; 3],
    dirs: [TempDir; 3],
    scheme: &'static str,
}

impl Places {
    pub fn new(scheme: &'static str) -> Self {
        let dirs = std::array::from_fn(|_| TempDir::new().expect("a temporary directory"));
        Self { ports: std::array::from_fn(|_| free_port()), dirs, scheme }
    }

    pub fn dir(&self, at: usize) -> &Path {
        self.dirs[at].path()
    }

    pub fn url(&self, at: usize) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.ports[at])
    }

    /// The initial cluster.
    pub fn listed(&self) -> String {
        (0..3).map(|at| format!("n{at}={}", self.url(at))).collect::<Vec<_>>().join(",")
    }

    pub fn flags(&self, at: usize, more: &[&str]) -> Vec<String> {
        let url = self.url(at);
        let own = [
            format!("--name=n{at}"),
            format!("--listen-peer-urls={url}"),
            format!("--initial-advertise-peer-urls={url}"),
            format!("--initial-cluster={}", self.listed()),
            "--heartbeat-interval=50".to_owned(),
            "--election-timeout=500".to_owned(),
        ];
        own.into_iter().chain(more.iter().map(|&flag| flag.to_owned())).collect()
    }

    /// Starts a member without waiting for it.
    pub fn spawn(&self, at: usize, more: &[&str]) -> Process {
        spawn(self.dir(at), &self.flags(at, more))
    }

    /// Starts all members and waits until they serve.
    pub fn start(&self, more: &[&str]) -> [Process; 3] {
        let mut members = std::array::from_fn(|at| self.spawn(at, more));
        for member in &mut members {
            member.serves().expect("it serves");
        }
        members
    }
}

/// Starts a process with these flags without waiting for it.
pub fn spawn(dir: &Path, flags: &[String]) -> Process {
    Process::spawn(dir, &flags.iter().map(String::as_str).collect::<Vec<_>>())
}

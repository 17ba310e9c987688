//! The members of a cluster under test.

use std::{net::TcpListener, path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use cairn_proto::{
    ApiError,
    etcdserverpb::{
        AlarmRequest, CompactionRequest, HashKvRequest, MemberListRequest, MoveLeaderRequest, PutRequest, RangeRequest,
        StatusRequest, StatusResponse, cluster_client::ClusterClient, kv_client::KvClient,
        maintenance_client::MaintenanceClient,
    },
};
use tempfile::TempDir;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    time::{Instant, timeout},
};
use tonic::Request;

use super::DEADLINE;
use crate::{
    network::{
        Network, Place,
        namespaces::{self, Namespaces},
    },
    process::Member,
};

/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(20);
/// How long a call may take whose success is not expected.
const NO_ANSWER: Duration = Duration::from_secs(1);

/// All members are compared all the time: whatever is done to them, none of them may be taken for corrupt.
const COMPARED: [&str; 3] =
    ["--corrupt-check-time=500ms", "--compact-hash-check-time=500ms", "--feature-gates=CompactHashCheck=true"];
/// What members count of these comparisons.
const COMPARISONS: &str = "cairn_corruption_checks_total";
/// Revisions that a compaction leaves.
const KEPT: i64 = 20;

/// Members that form a cluster. Dropping them kills them.
pub struct Members {
    all: Vec<Member>,
    /// The proxies between them, if there are any.
    network: Option<Network>,
    /// The namespaces that they run in, if each has its own.
    namespaces: Option<Namespaces>,
    /// Removed after the processes.
    directories: Vec<TempDir>,
}

impl Members {
    /// `count` members that were not started yet.
    pub fn new(cairn: &Path, count: usize) -> Result<Self> {
        Self::with_arguments(cairn, count, &["--log-level", "warn"])
    }

    /// The same with more arguments.
    pub fn with_arguments(cairn: &Path, count: usize, arguments: &[&str]) -> Result<Self> {
        Self::bare(cairn, count, &[&COMPARED, arguments].concat())
    }

    /// The same with these arguments only, which a genuine etcd knows, too: what it holds is not compared.
    pub fn bare(server: &Path, count: usize, arguments: &[&str]) -> Result<Self> {
        let mut directories = Vec::new();
        let mut members = Vec::new();
        for number in 1..=count {
            let directory = TempDir::new().context("make a directory for a member")?;
            members.push(Member::named(&format!("n{number}"), server, directory.path(), arguments)?);
            directories.push(directory);
        }
        let mut members = Self { all: members, network: None, namespaces: None, directories };
        members.list_all();
        Ok(members)
    }

    /// The same with proxies between them.
    pub fn in_network(cairn: &Path, count: usize, arguments: &[&str], seed: u64) -> Result<Self> {
        let mut members = Self::with_arguments(cairn, count, arguments)?;
        let place = |member: &mut Member| {
            let (reached_at, target_port) = member.move_behind()?;
            let listener = TcpListener::bind(("127.0.0.1", reached_at)).context("listen in a member's place")?;
            Ok(Place { listener, target_port })
        };
        let places = members.all.iter_mut().map(place).collect::<Result<_>>()?;
        members.network = Some(Network::start(places, seed)?);
        Ok(members)
    }

    /// The same with each member in a network namespace of its own. The calling thread is moved to where it reaches them, so it has
    /// to be the only one of its runtime.
    pub fn in_namespaces(cairn: &Path, count: usize, arguments: &[&str]) -> Result<Self> {
        let flavor = Handle::try_current().context("there is no runtime")?.runtime_flavor();
        ensure!(flavor == RuntimeFlavor::CurrentThread, "members in namespaces need a runtime of one thread");
        let made = Namespaces::start(count)?;
        made.enter()?;
        let mut members = Self::with_arguments(cairn, count, arguments)?;
        for (number, member) in members.all.iter_mut().enumerate() {
            let (client, peer) = (namespaces::client_host(number), namespaces::peer_host(number));
            member.move_into(made.path(number), client, peer);
        }
        members.list_all();
        members.namespaces = Some(made);
        Ok(members)
    }

    /// Tells each member of all.
    fn list_all(&mut self) {
        let listed = self.all.iter().map(Member::listed).collect::<Vec<_>>().join(",");
        self.all.iter_mut().for_each(|member| member.set_initial_cluster(&listed));
    }

    /// One more, which was not started yet. Gives its number.
    pub fn add(&mut self, cairn: &Path, name: &str, arguments: &[&str]) -> Result<usize> {
        let directory = TempDir::new().context("make a directory for a member")?;
        self.all.push(Member::named(name, cairn, directory.path(), arguments)?);
        self.directories.push(directory);
        Ok(self.len() - 1)
    }

    /// The proxies between them.
    pub fn network(&self) -> Result<&Network> {
        self.network.as_ref().context("there are no proxies between the members")
    }

    /// The namespaces that they run in, if each has its own.
    pub fn namespaces(&self) -> Option<&Namespaces> {
        self.namespaces.as_ref()
    }

    /// Undoes what was done to the network between them.
    pub fn heal(&self) -> Result<()> {
        match &self.namespaces {
            Some(namespaces) => namespaces.heal(),
            None => self.network().map(Network::heal),
        }
    }

    /// Ends the connections between them; in namespaces, interrupts them.
    pub fn reset(&self) -> Result<()> {
        match &self.namespaces {
            Some(namespaces) => namespaces.blink(),
            None => self.network().map(Network::reset),
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// One of them.
    pub fn member(&mut self, member: usize) -> &mut Member {
        &mut self.all[member]
    }

    /// Forgets these members, which are none any more.
    pub fn drop_all(&mut self, gone: &[usize]) -> Result<()> {
        for &member in gone {
            self.kill(member)?;
        }
        let mut number = 0;
        self.all.retain(|_| {
            number += 1;
            !gone.contains(&(number - 1))
        });
        Ok(())
    }

    /// All client URLs.
    pub fn urls(&self) -> Vec<String> {
        self.all.iter().map(Member::url).collect()
    }

    /// Starts all and waits until each of them serves.
    pub async fn start_all(&mut self) -> Result<()> {
        for member in 0..self.len() {
            self.spawn(member)?;
        }
        self.wait_until_serving().await
    }

    /// Starts one, without waiting for it.
    pub fn spawn(&mut self, member: usize) -> Result<()> {
        self.all[member].spawn()?;
        if let Some(network) = &self.network {
            network.set_process(member, self.all[member].pid());
        }
        Ok(())
    }

    /// Starts one and waits until it serves.
    pub async fn start(&mut self, member: usize) -> Result<()> {
        self.spawn(member)?;
        self.all[member].wait_until_serving().await.map(drop)
    }

    /// Kills one without warning.
    pub fn kill(&mut self, member: usize) -> Result<()> {
        self.all[member].kill()
    }

    /// Asks one to end, and waits for it.
    pub async fn terminate(&mut self, member: usize) -> Result<()> {
        self.all[member].terminate().await
    }

    /// Waits until every member answers a linearizable read.
    pub async fn wait_until_serving(&mut self) -> Result<()> {
        for number in 0..self.len() {
            let deadline = Instant::now() + DEADLINE;
            loop {
                let member = &mut self.all[number];
                if read(member).await.is_ok() {
                    break;
                }
                if let Some(status) = member.ended() {
                    bail!("{} ended with {status}:\n{}", member.name(), member.log_tail());
                }
                ensure!(Instant::now() < deadline, "{} does not serve:\n{}", member.name(), member.log_tail());
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// Whether a member answers a linearizable read now.
    pub async fn serves(&self, member: usize) -> bool {
        timeout(NO_ANSWER, read(&self.all[member])).await.is_ok_and(|revision| revision.is_ok())
    }

    /// The number of the member that leads, as soon as there is one.
    pub async fn leader(&self) -> Result<usize> {
        self.leader_among(|_| true).await
    }

    /// The number of the member that leads, as soon as there is one among those for whom `included` holds.
    pub async fn leader_among(&self, included: impl Fn(usize) -> bool) -> Result<usize> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            for number in (0..self.len()).filter(|&number| included(number)) {
                let Ok(status) = self.status(number).await else { continue };
                if status.header.is_some_and(|header| header.member_id == status.leader && status.leader != 0) {
                    return Ok(number);
                }
            }
            ensure!(Instant::now() < deadline, "there is no leader");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// What a member says about itself.
    pub async fn status(&self, member: usize) -> Result<StatusResponse> {
        let mut client = MaintenanceClient::new(self.all[member].connect().await?);
        Ok(timeout(NO_ANSWER, client.status(StatusRequest {})).await.context("no answer")??.into_inner())
    }

    /// A member's id.
    pub async fn id(&self, member: usize) -> Result<u64> {
        let list = ClusterClient::new(self.all[member].connect().await?);
        let list = { list }.member_list(MemberListRequest { linearizable: false }).await?.into_inner();
        Ok(list.header.context("an answer without a header")?.member_id)
    }

    /// Moves leadership from one member to another.
    pub async fn move_leader(&self, from: usize, to: usize) -> Result<()> {
        let target_id = self.id(to).await?;
        let mut client = MaintenanceClient::new(self.all[from].connect().await?);
        match client.move_leader(MoveLeaderRequest { target_id }).await {
            Ok(_) => Ok(()),
            // It may have lost it meanwhile.
            Err(status) if ApiError::from_status(&status) == Some(ApiError::NotLeader) => Ok(()),
            Err(status) => Err(status).context("move the leadership"),
        }
    }

    /// Waits until a member says that there is no leader to those who want one.
    pub async fn expect_no_leader(&self, member: usize) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        let mut client = KvClient::new(self.all[member].connect().await?);
        loop {
            let mut request = Request::new(RangeRequest { key: "x".into(), serializable: true, ..Default::default() });
            request.metadata_mut().insert("hasleader", "true".parse()?);
            if let Err(status) = client.range(request).await
                && ApiError::from_status(&status) == Some(ApiError::NoLeader)
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "a member alone still claims to have a leader");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Neither a write nor a linearizable read succeeds at a member, but a serializable one does.
    pub async fn expect_no_acknowledgement(&self, member: usize) -> Result<()> {
        let mut client = KvClient::new(self.all[member].connect().await?);
        let put = PutRequest { key: "/registry/without-majority".into(), ..Default::default() };
        let written = timeout(NO_ANSWER, client.put(put)).await;
        ensure!(!matches!(written, Ok(Ok(_))), "a write was acknowledged without a majority");
        let range = RangeRequest { key: "x".into(), ..Default::default() };
        let seen = timeout(NO_ANSWER, client.range(range.clone())).await;
        ensure!(!matches!(seen, Ok(Ok(_))), "a linearizable read succeeded without a majority");
        client.range(RangeRequest { serializable: true, ..range }).await.context("a serializable read")?;
        Ok(())
    }

    /// Drops the history of all keys, but for the newest revisions.
    pub async fn compact(&self) -> Result<()> {
        let member = &self.all[self.leader().await?];
        let compaction = CompactionRequest { revision: read(member).await? - KEPT, physical: false };
        KvClient::new(member.connect().await?).compact(compaction).await.context("compact")?;
        Ok(())
    }

    /// Waits until every member serves, and checks that all hold the same, and that nobody has ever doubted it.
    pub async fn wait_until_equal(&mut self) -> Result<()> {
        self.wait_until_serving().await?;
        let mut newest = 0;
        for member in &self.all {
            newest = newest.max(read(member).await?);
        }
        let mut hashes = Vec::new();
        for member in &self.all {
            let seen = read(member).await?;
            ensure!(seen >= newest, "{} is at revision {seen}, another one at {newest}", member.name());
            let mut client = MaintenanceClient::new(member.connect().await?);
            let hash = client.hash_kv(HashKvRequest { revision: newest }).await?.into_inner();
            hashes.push((hash.hash, hash.compact_revision));
        }
        ensure!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "members differ at revision {newest}: {hashes:?}");
        for member in &self.all {
            let mut client = MaintenanceClient::new(member.connect().await?);
            let alarms = client.alarm(AlarmRequest::default()).await?.into_inner().alarms;
            ensure!(alarms.is_empty(), "{} knows of alarms: {alarms:?}\n{}", member.name(), member.log_tail());
        }
        self.wait_until_compared().await
    }

    /// Waits until a comparison has ended that was begun since, with all members in it: that nobody was doubted proves nothing if
    /// nobody looked.
    async fn wait_until_compared(&self) -> Result<()> {
        // One may have been under way.
        let wanted = self.comparisons("Agreed").await? + 2;
        let deadline = Instant::now() + DEADLINE;
        while self.comparisons("Agreed").await? < wanted {
            ensure!(Instant::now() < deadline, "the leader does not get to compare all members");
            tokio::time::sleep(LOOK).await;
        }
        let differ = self.comparisons("Differ").await?;
        ensure!(differ == 0, "{differ} comparisons found a difference");
        Ok(())
    }

    /// Comparisons of all keys, by what came of them, that the members have made since they were last started.
    async fn comparisons(&self, outcome: &str) -> Result<u64> {
        let sample = format!("{COMPARISONS}{{check=\"Periodic\",outcome=\"{outcome}\"}} ");
        let mut sum = 0;
        for member in &self.all {
            let page = member.page("/metrics").await.with_context(|| format!("the metrics of {}", member.name()))?;
            let count = page.lines().find_map(|line| line.strip_prefix(&sample));
            sum += count.map_or(Ok(0), str::parse::<u64>).context("a sample")?;
        }
        Ok(sum)
    }
}

/// A linearizable read. Gives the member's revision.
async fn read(member: &Member) -> Result<i64> {
    let mut client = KvClient::new(member.connect().await?);
    let range = RangeRequest { key: "probe".into(), ..Default::default() };
    let answer = timeout(DEADLINE, client.range(range)).await.context("no answer")??.into_inner();
    Ok(answer.header.context("an answer without a header")?.revision)
}

//! Members that lag too far for the log, and members that come and go: everything that needs snapshots.
//!
//! The members keep next to nothing of their logs, so that who is away for a moment needs a snapshot of the store. It is
//! sent slowly, so that the receiver can be killed while it comes, and while it is being installed. Clients write all the
//! time, and a watcher at the member that lags is held against one at a member that does not: both must be told the same.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cairn_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};
use tokio::time::Instant;
use tonic::transport::Endpoint;

use super::{
    DEADLINE, Members,
    client::Load,
    watcher::{Watcher, compare},
};

/// A member keeps 50 commands of its log, looks every second whether it can be cut, and sends 4 MiB of a snapshot in a second.
const ARGUMENTS: [&str; 14] = [
    "--log-level",
    "info",
    "--snapshot-count",
    "200",
    "--snapshot-catchup-entries",
    "50",
    "--heartbeat-interval",
    "20",
    "--election-timeout",
    "400",
    "--raft-read-timeout",
    "3s",
    "--snapshot-send-bytes-per-second",
    "4194304",
];
/// Bytes of the values that make snapshots take their time.
const BALLAST_BYTES: usize = 64 << 10;
/// How many there are.
const BALLAST_COUNT: usize = 96;
/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// How a member is made to lag, and what happens to it while it catches up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lag {
    /// It is killed, and started again.
    Killed,
    /// It is stopped in the middle of whatever it does, and goes on later: watchers and readers stay.
    Frozen,
    /// It is killed, and killed again while the snapshot comes.
    KilledInTransfer,
    /// It is killed, and killed again while the snapshot is being installed.
    KilledInInstallation,
}

impl Lag {
    /// All ways.
    pub const ALL: [Self; 4] = [Self::Killed, Self::Frozen, Self::KilledInTransfer, Self::KilledInInstallation];
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub cairn: PathBuf,
    /// Seed of everything that is chosen.
    pub seed: u64,
    /// Members.
    pub members: usize,
    /// Concurrent clients.
    pub clients: usize,
    /// What happens, one after the other.
    pub lags: Vec<Lag>,
}

/// What a run saw.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// Times that a member caught up by a snapshot.
    pub snapshots: usize,
    /// Kills while a snapshot came or was being installed.
    pub kills: usize,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Events that both watchers were told.
    pub events: usize,
}

/// Runs the plan.
pub async fn run(plan: &Plan) -> Result<Summary> {
    let mut members = Members::with_arguments(&plan.cairn, plan.members, &ARGUMENTS)?;
    members.start_all().await?;
    let mut random = StdRng::seed_from_u64(plan.seed);
    load_ballast(&members.urls()[0], &mut random).await?;
    let mut summary = Summary::default();
    let load = Load::start(plan.seed, plan.clients, &members.urls());
    for (round, &lag) in plan.lags.iter().enumerate() {
        let context = || format!("seed {}, round {round}, {lag:?}", plan.seed);
        let leader = members.leader().await?;
        let victim = (leader + 1 + random.random_range(0..members.len() - 1)) % members.len();
        let watchers = [leader, victim].map(|at| Watcher::start(members.urls()[at].clone()));
        for watcher in &watchers {
            watcher.wait_for_events(1).await.with_context(context)?;
        }
        summary.kills += catch_up(&mut members, &load, victim, lag, &mut random).await.with_context(context)?;
        summary.snapshots += 1;
        load.wait_for_writes(50).await.with_context(context)?;
        summary.events += compare(&watchers).await.with_context(context)?;
    }
    finish(members, load, &mut summary).await?;
    Ok(summary)
}

/// Writes values that are of no interest but for their size.
async fn load_ballast(url: &str, random: &mut StdRng) -> Result<()> {
    let mut kv = KvClient::new(Endpoint::from_shared(url.to_owned())?.connect().await?);
    for number in 0..BALLAST_COUNT {
        let mut value = vec![0; BALLAST_BYTES];
        random.fill_bytes(&mut value);
        let put = PutRequest { key: format!("/ballast/{number}").into(), value: value.into(), ..Default::default() };
        kv.put(put).await?;
    }
    Ok(())
}

async fn finish(mut members: Members, load: Load, summary: &mut Summary) -> Result<()> {
    let clients = load.stop().await?;
    members.wait_until_equal().await.context("at the end")?;
    for url in members.urls() {
        for client in &clients {
            client.check(&url).await.with_context(|| format!("read from {url}"))?;
        }
    }
    summary.acknowledged = clients.iter().map(|client| client.acknowledged).sum();
    ensure!(summary.acknowledged > 0, "nothing was written");
    Ok(())
}

/// Makes a member lag, and has it catch up. How often it was killed meanwhile.
async fn catch_up(members: &mut Members, load: &Load, victim: usize, lag: Lag, random: &mut StdRng) -> Result<usize> {
    let state = members.state(victim)?;
    if lag == Lag::Frozen {
        members.member(victim).freeze()?;
    } else {
        members.kill(victim)?;
    }
    load.wait_for_writes(500).await?;
    let others: Vec<usize> = (0..members.len()).filter(|&member| member != victim).collect();
    // Beyond all that the member that lags may have in its log.
    let index = members.raft_index(others[0]).await?;
    members.wait_until_cut(&others, index).await?;
    let dir = members.member(victim).data_dir().join("member");
    let mut kills = 0;
    match lag {
        Lag::Frozen => members.member(victim).thaw()?,
        Lag::Killed => members.spawn(victim)?,
        Lag::KilledInTransfer => {
            for _ in 0..3 {
                members.spawn(victim)?;
                wait_for_entry(&dir, "incoming-", None).await?;
                tokio::time::sleep(Duration::from_millis(random.random_range(0..600))).await;
                members.kill(victim)?;
                kills += 1;
            }
            members.spawn(victim)?;
        }
        Lag::KilledInInstallation => {
            for _ in 0..3 {
                members.spawn(victim)?;
                wait_for_entry(&dir, "state-", Some(state.trim_end())).await?;
                tokio::time::sleep(Duration::from_millis(random.random_range(0..40))).await;
                members.kill(victim)?;
                kills += 1;
                if members.state(victim)? != state {
                    // It was killed when it was about to be over, or over.
                    break;
                }
            }
            members.spawn(victim)?;
        }
    }
    members.wait_until_serving().await?;
    let deadline = Instant::now() + DEADLINE;
    while members.state(victim)? == state {
        ensure!(Instant::now() < deadline, "no snapshot was installed:\n{}", members.member(victim).log_tail());
        tokio::time::sleep(LOOK).await;
    }
    Ok(kills)
}

/// Waits for a file or directory whose name begins with `prefix` and is another than `except`.
async fn wait_for_entry(dir: &Path, prefix: &str, except: Option<&str>) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = std::fs::read_dir(dir)?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .any(|name| name.starts_with(prefix) && Some(&name[..]) != except);
        if found {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "no {prefix}… appears in {}", dir.display());
        tokio::time::sleep(LOOK).await;
    }
}

/// Grows a cluster of one member that has long cut its log to three and to five, replaces a member that is lost, and shrinks
/// it to three, all under load.
pub async fn grow_and_shrink(cairn: &Path, seed: u64, clients: usize) -> Result<Summary> {
    let mut members = Members::with_arguments(cairn, 6, &ARGUMENTS)?;
    let alone = members.member(0).listed();
    members.member(0).set_initial_cluster(&alone);
    members.start(0).await?;
    let mut random = StdRng::seed_from_u64(seed);
    load_ballast(&members.urls()[0], &mut random).await?;
    let mut summary = Summary::default();
    let load = Load::start(seed, clients, &members.urls());
    load.wait_for_writes(500).await?;
    members.wait_until_cut(&[0], 2).await?;
    for new in 1..5 {
        members.join(0, new).await.with_context(|| format!("member {new} joins"))?;
        ensure!(members.state(new)?.trim_end() != "state-1", "member {new} did not join by a snapshot");
        summary.snapshots += 1;
        load.wait_for_writes(50).await?;
    }
    // One is lost with its disk. It is not let in as what it was; another one takes its place.
    let lost = members.id(4).await?;
    members.kill(4)?;
    members.wipe(4)?;
    members.spawn(4)?;
    members.wait_for_end(4).await.context("a member that lost everything is refused")?;
    let log = members.member(4).log_tail();
    ensure!(log.contains("has been part of the cluster before"), "it does not say why:\n{log}");
    members.remove(0, lost).await.context("the lost member is removed")?;
    members.join(0, 5).await.context("another one takes its place")?;
    summary.snapshots += 1;
    load.wait_for_writes(50).await?;
    // The leader goes first, and the one that all began with.
    let mut gone = vec![4];
    let leader = members.leader().await?;
    for victim in [leader, usize::from(leader == 0)] {
        let id = members.id(victim).await?;
        let at = (0..6).find(|at| *at != victim && !gone.contains(at)).context("nobody is left")?;
        members.remove(at, id).await.with_context(|| format!("member {victim} is removed"))?;
        members.wait_for_end(victim).await?;
        gone.push(victim);
        load.wait_for_writes(50).await?;
    }
    members.drop_all(&gone)?;
    finish(members, load, &mut summary).await?;
    Ok(summary)
}

//! Members that go on without others: one that lost its majority for good, and one of two whose other half was removed.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use cairn_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::Instant;

use super::{DEADLINE, Members, client::Load};

/// What the server is told to do, as a variable: it can be taken back.
const FORCE: &str = "ETCD_FORCE_NEW_CLUSTER";
/// Long logs, so that what was refused, and why, can be looked up.
const ARGUMENTS: [&str; 2] = ["--log-level", "info"];
/// The longest time that a member may run before it is killed while it drops the others.
const KILLED_WITHIN: Duration = Duration::from_millis(300);
/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(10);

/// What a run saw.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// Acknowledged writes, all of which the survivor has.
    pub acknowledged: u64,
    /// Kills that left the old cluster.
    pub old: usize,
    /// Kills that left the new one.
    pub new: usize,
}

/// Three members, of which two are lost for good. The third is told to go on alone, is killed `kills` times while it does so,
/// goes on with everything that was acknowledged, and grows to three again. A lost one that comes back is refused.
pub async fn force_new_cluster(cairn: &Path, seed: u64, clients: usize, kills: usize) -> Result<Summary> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut members = Members::with_arguments(cairn, 3, &ARGUMENTS)?;
    members.start_all().await?;
    let load = Load::start(seed, clients, &members.urls());
    load.wait_for_writes(500).await?;
    let clients = load.stop().await?;
    members.wait_until_equal().await?;
    let acknowledged = clients.iter().map(|client| client.acknowledged).sum();
    let mut summary = Summary { acknowledged, ..Summary::default() };

    let survivor = random.random_range(0..members.len());
    let id = members.id(survivor).await?;
    let lost: Vec<usize> = (0..members.len()).filter(|&member| member != survivor).collect();
    for member in 0..members.len() {
        members.kill(member)?;
    }
    for _ in 0..kills {
        members.member(survivor).set_env(FORCE, "true");
        members.spawn(survivor)?;
        tokio::time::sleep(KILLED_WITHIN.mul_f64(random.random())).await;
        members.kill(survivor)?;
        members.member(survivor).set_env(FORCE, "false");
        members.spawn(survivor)?;
        match listed(&mut members, survivor).await? {
            1 => summary.new += 1,
            3 => summary.old += 1,
            count => anyhow::bail!("the cluster has {count} members"),
        }
        members.kill(survivor)?;
    }
    members.member(survivor).set_env(FORCE, "true");
    members.start(survivor).await.context("alone, for the first time")?;
    members.member(survivor).set_env(FORCE, "false");
    members.terminate(survivor).await?;
    members.start(survivor).await.context("alone, without the flag")?;
    ensure!(members.id(survivor).await? == id, "the member has another id");
    ensure!(listed(&mut members, survivor).await? == 1, "there are other members");
    let url = members.urls()[survivor].clone();
    for client in &clients {
        client.check(&url).await.context("what was acknowledged")?;
    }

    // Who comes back is told that it is none any more, and whoever it meets says why it is refused.
    members.spawn(lost[0])?;
    members.wait_for_end(lost[0]).await.context("a lost member comes back")?;
    let log = members.member(lost[0]).log_tail();
    ensure!(log.contains("was removed from the cluster"), "it does not say why it ends:\n{log}");
    let log = members.member(survivor).log_tail();
    ensure!(
        log.contains("refused a member") && log.contains("was removed from the cluster"),
        "the survivor does not say whom it refused, and why:\n{log}"
    );

    let new = [members.add(cairn, "n4", &ARGUMENTS)?, members.add(cairn, "n5", &ARGUMENTS)?];
    for member in new {
        members.join(survivor, member).await.context("a new member joins")?;
        put(&mut members, member).await?;
    }
    members.drop_all(&lost)?;
    members.wait_until_equal().await?;
    for url in members.urls() {
        for client in &clients {
            client.check(&url).await.with_context(|| format!("read from {url}"))?;
        }
    }
    Ok(summary)
}

/// Two members, of which one is removed: the leader, or the other one. The one that is left is killed as soon as the removal is
/// acknowledged, and started again when the removed one is gone: it must know that it is alone.
pub async fn remove_one_of_two(cairn: &Path, leader_goes: bool) -> Result<()> {
    let mut members = Members::with_arguments(cairn, 2, &ARGUMENTS)?;
    members.start_all().await?;
    let leader = members.leader().await?;
    let (goes, stays) = if leader_goes { (leader, 1 - leader) } else { (1 - leader, leader) };
    put(&mut members, stays).await?;
    let id = members.id(goes).await?;
    members.remove(stays, id).await.context("a member is removed")?;
    members.kill(stays)?;
    members.kill(goes)?;
    members.start(stays).await.context("the member that is left")?;
    ensure!(listed(&mut members, stays).await? == 1, "there are other members");
    put(&mut members, stays).await
}

/// How many members a member knows, as soon as it answers other members: without a majority it answers no client.
async fn listed(members: &mut Members, member: usize) -> Result<usize> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Ok(known) = members.known_to(member).await {
            return Ok(known.members.len());
        }
        ensure!(Instant::now() < deadline, "it does not answer:\n{}", members.member(member).log_tail());
        tokio::time::sleep(LOOK).await;
    }
}

async fn put(members: &mut Members, member: usize) -> Result<()> {
    let mut kv = KvClient::new(members.member(member).connect().await?);
    kv.put(PutRequest { key: format!("/registry/after/{member}").into(), ..Default::default() }).await?;
    Ok(())
}

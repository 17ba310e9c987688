//! Members between which the network is disturbed.

use anyhow::{Context, Result, ensure};
use cairn_jepsen::{
    cluster::{self, Between, Fault, Members, Trouble},
    network::Way,
    process,
};
use cairn_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_mins(1);

async fn disturbed(members: usize, between: Between, faults: Vec<Fault>) -> Result<()> {
    let rounds = faults.len();
    let plan = cluster::Plan { cairn: process::cairn_binary()?, seed: 7, members, clients: 12, between, faults };
    let summary = cluster::run(&plan).await?;
    println!("{summary}");
    ensure!(summary.faults == rounds, "the run ended early: {summary}");
    ensure!(summary.events as u64 >= summary.acknowledged, "watchers missed something: {summary}");
    Ok(())
}

/// Three members, and everything that can be done to what is between them.
async fn disturbed_in_every_way(between: Between) -> Result<()> {
    disturbed(3, between, between.troubles().into_iter().map(Fault::Network).collect()).await
}

#[tokio::test]
async fn three_members_lose_nothing_whatever_becomes_of_the_network() -> Result<()> {
    disturbed_in_every_way(Between::Proxies).await
}

#[tokio::test]
async fn five_members_lose_nothing_when_the_network_and_members_fail() -> Result<()> {
    let faults = vec![
        Fault::Network(Trouble::Split),
        Fault::KillLeader,
        Fault::Network(Trouble::Bridge),
        Fault::Network(Trouble::LeaderMute),
        Fault::KillFollower,
        Fault::Network(Trouble::Reordered),
    ];
    disturbed(5, Between::Proxies, faults).await
}

#[tokio::test]
async fn three_members_lose_nothing_whatever_becomes_of_the_links_of_their_namespaces() -> Result<()> {
    disturbed_in_every_way(Between::Namespaces).await
}

#[tokio::test]
async fn five_members_in_namespaces_lose_nothing_when_links_and_members_fail() -> Result<()> {
    let faults = vec![
        Fault::Network(Trouble::Split),
        Fault::KillLeader,
        Fault::Network(Trouble::LeaderDeaf),
        Fault::KillFollower,
        Fault::Network(Trouble::LeaderInBlackHole),
    ];
    disturbed(5, Between::Namespaces, faults).await
}

#[test]
fn who_may_make_no_namespaces_is_told_so_and_nothing_passes_for_having_run() -> Result<()> {
    let output = std::process::Command::new("setpriv")
        .args(["--bounding-set", "-sys_admin", env!("CARGO_BIN_EXE_cairn-jepsen")])
        .args(["cluster", "--namespaces", "--rounds", "1"])
        .output()
        .context("run setpriv")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!output.status.success(), "it says that all went well");
    let told = "network namespaces are not available here";
    ensure!(said.contains(told) && said.contains("Operation not permitted"), "{said}");
    Ok(())
}

/// Three members whose elections take their time, so that a busy machine does not cause any.
async fn three() -> Result<Members> {
    let arguments = ["--log-level", "info", "--heartbeat-interval", "100", "--election-timeout", "2000"];
    let mut members = Members::in_network(&process::cairn_binary()?, 3, &arguments, 1)?;
    members.start_all().await?;
    Ok(members)
}

async fn put(members: &mut Members, at: usize) -> Result<()> {
    let mut kv = KvClient::new(members.member(at).connect().await?);
    kv.put(PutRequest { key: "key".into(), value: "value".into(), ..Default::default() }).await?;
    Ok(())
}

/// Looks until it is so.
async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + DEADLINE;
    while !holds().await.with_context(|| what.to_owned())? {
        ensure!(Instant::now() < deadline, "{what} does not come true");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_leader_cut_off_from_both_followers_acknowledges_nothing_and_another_one_leads() -> Result<()> {
    let mut members = three().await?;
    let leader = members.leader().await?;
    put(&mut members, leader).await?;
    let term = members.status(leader).await?.raft_term;
    let network = members.network()?;
    network.change(|ways| ways.split(|member| member == leader, Way::Held));
    // From the moment of the cut, not only from when it notices.
    members.expect_no_acknowledgement(leader).await?;
    members.expect_no_leader(leader).await?;
    members.expect_no_acknowledgement(leader).await?;
    let next = members.leader_among(|member| member != leader).await?;
    put(&mut members, next).await?;
    ensure!(members.status(next).await?.raft_term > term, "another leader in the same term");
    ensure!(members.status(leader).await?.raft_term == term, "who is cut off changes the term");
    members.network()?.heal();
    members.wait_until_equal().await?;
    let status = members.status(leader).await?;
    ensure!(status.leader != status.header.context("a header")?.member_id, "it leads again");
    Ok(())
}

#[tokio::test]
async fn a_follower_that_the_leader_does_not_reach_campaigns_in_vain_and_changes_no_term() -> Result<()> {
    let mut members = three().await?;
    let leader = members.leader().await?;
    let deaf = (leader + 1) % 3;
    let before = members.status(leader).await?;
    members.network()?.change(|ways| ways.set(leader, deaf, Way::Held));
    let delivered = |members: &Members| -> Result<_> {
        let network = members.network()?;
        Ok((network.delivered(leader, deaf), network.delivered(deaf, leader)))
    };
    // What was on its way when the cut came has arrived when the follower misses its leader.
    members.expect_no_leader(deaf).await?;
    let cut = delivered(&members)?;
    until("its campaigns reach the leader", async || Ok(delivered(&members)?.1 > cut.1)).await?;
    for _ in 0..20 {
        put(&mut members, leader).await?;
    }
    ensure!(delivered(&members)?.0 == cut.0, "the cut lets something through");
    members.expect_no_acknowledgement(deaf).await?;
    let now = members.status(leader).await?;
    ensure!((now.raft_term, now.leader) == (before.raft_term, before.leader), "{now:?} after {before:?}");
    members.network()?.heal();
    members.wait_until_equal().await?;
    let healed = members.status(deaf).await?;
    ensure!((healed.raft_term, healed.leader) == (before.raft_term, before.leader), "{healed:?} after {before:?}");
    Ok(())
}

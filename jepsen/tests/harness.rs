//! Short runs of the harness against real processes.

use anyhow::{Context, Result, ensure};
use cairn_jepsen::{
    cluster,
    cluster::{Fault, lagging, lagging::Lag, recovery, upgrade},
    crash, differential, failover, process, succession, watch,
};
use cairn_server::state::command::COMMAND_LEVEL;

#[tokio::test]
async fn random_requests_get_the_answers_of_a_genuine_etcd() -> Result<()> {
    let plan = differential::Plan {
        etcd: process::etcd_binary()?,
        cairn: process::cairn_binary()?,
        seed: 1,
        sequences: 300,
        steps: 100,
        users: false,
    };
    let (coverage, failure) = differential::run(&plan).await?;
    println!("{coverage}");
    ensure!(failure.is_none(), "{}", failure.expect("there is one"));
    ensure!(coverage.requests >= 25_000, "only {} requests were compared", coverage.requests);
    ensure!(
        coverage.reads_elsewhere * 5 >= coverage.reads,
        "too few reads at other than the newest revision:\n{coverage}"
    );
    ensure!(coverage.events >= 1_000, "only {} events of watches were compared:\n{coverage}", coverage.events);
    Ok(())
}

#[tokio::test]
async fn users_may_do_what_a_genuine_etcd_lets_them() -> Result<()> {
    let (etcd, cairn) = (process::etcd_binary()?, process::cairn_binary()?);
    let plan = differential::Plan { etcd, cairn, seed: 1, sequences: 40, steps: 60, users: true };
    let (coverage, failure) = differential::run(&plan).await?;
    println!("{coverage}");
    ensure!(failure.is_none(), "{}", failure.expect("there is one"));
    for answer in ["answered", "refused: PermissionDenied etcdserver: permission denied"] {
        let seen = coverage.seen.iter().filter(|(what, _)| what.ends_with(answer)).map(|(_, times)| times).sum::<u64>();
        ensure!(seen >= 200, "{answer}: only {seen} times\n{coverage}");
    }
    Ok(())
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_or_applied_twice_when_the_server_is_killed() -> Result<()> {
    crash_rounds(false).await
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_all_that_was_not_synced_is_gone() -> Result<()> {
    crash_rounds(true).await
}

async fn crash_rounds(cut_to_synced: bool) -> Result<()> {
    let plan = crash::Plan { cairn: process::cairn_binary()?, seed: 7, rounds: 10, clients: 16, cut_to_synced };
    let summary = crash::run(&plan).await?;
    println!("{summary:?}");
    ensure!(summary.rounds == 10 && summary.acknowledged > 0, "the run was idle: {summary:?}");
    Ok(())
}

#[tokio::test]
async fn three_members_lose_nothing_when_some_or_all_of_them_die() -> Result<()> {
    let faults = vec![
        Fault::KillLeader,
        Fault::KillFollower,
        Fault::StopLeader,
        Fault::MoveLeader,
        Fault::KillMajority,
        Fault::KillLeader,
        Fault::KillAll,
    ];
    let rounds = faults.len();
    let between = cluster::Between::Nothing;
    let plan = cluster::Plan { cairn: process::cairn_binary()?, seed: 7, members: 3, clients: 12, between, faults };
    let summary = cluster::run(&plan).await?;
    println!("{summary}");
    ensure!(summary.faults == rounds, "the run ended early: {summary}");
    Ok(())
}

#[tokio::test]
async fn watchers_are_told_everything_once_and_in_order_whatever_happens() -> Result<()> {
    let time = std::time::Duration::from_mins(1);
    let plan = watch::Plan { cairn: process::cairn_binary()?, seed: 7, time, writers: 4, watchers: 16 };
    let summary = watch::run(&plan).await?;
    println!("{summary:?}");
    ensure!(summary.kills > 2 && summary.compactions > 5 && summary.events > 1000, "the run was idle: {summary:?}");
    ensure!(summary.bookmarks > 10 && summary.compacted > 0, "something did not come up: {summary:?}");
    ensure!(summary.notified > 10 && summary.canceled > 10, "something did not come up: {summary:?}");
    ensure!(summary.large > 10 && summary.fragments > 5, "something did not come up: {summary:?}");
    ensure!(summary.leases_revoked > 0 && summary.leases_expired > 0, "no lease ended: {summary:?}");
    Ok(())
}

#[tokio::test]
async fn a_member_that_lags_too_far_catches_up_by_a_snapshot_wherever_it_is_killed() -> Result<()> {
    let lags = Lag::ALL.to_vec();
    let rounds = lags.len();
    let plan = lagging::Plan { cairn: process::cairn_binary()?, seed: 7, members: 3, clients: 8, lags };
    let summary = lagging::run(&plan).await?;
    println!("{summary:?}");
    ensure!(summary.snapshots == rounds && summary.kills >= 4, "the run was idle: {summary:?}");
    ensure!(summary.events > 1000, "the watchers were idle: {summary:?}");
    Ok(())
}

#[tokio::test]
async fn a_cluster_whose_log_was_cut_grows_to_five_members_and_shrinks_to_three_under_load() -> Result<()> {
    let summary = lagging::grow_and_shrink(&process::cairn_binary()?, 7, 8).await?;
    println!("{summary:?}");
    ensure!(summary.snapshots == 5, "members joined without snapshots: {summary:?}");
    Ok(())
}

#[tokio::test]
async fn a_member_goes_on_alone_when_the_majority_is_lost_wherever_it_is_killed_and_grows_again() -> Result<()> {
    let summary = recovery::force_new_cluster(&process::cairn_binary()?, 7, 8, 6).await?;
    println!("{summary:?}");
    ensure!(summary.acknowledged >= 500 && summary.old + summary.new == 6, "the run was idle: {summary:?}");
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_lost_is_succeeded_and_what_that_takes_is_measured() -> Result<()> {
    let summary = failover::run(&failover::Plan { server: process::cairn_binary()?, trials: 1, rate: 200 }).await?;
    println!("{summary}");
    let [killed, stopped] = &summary.trials[..] else { anyhow::bail!("there are other trials: {summary}") };
    ensure!((killed.loss, stopped.loss) == (failover::Loss::Killed, failover::Loss::Stopped), "{summary}");
    // Nobody looks for another leader before the election time-out of a second, less the interval of heartbeats.
    ensure!(killed.pause >= std::time::Duration::from_millis(500), "the pause was not seen: {summary}");
    Ok(())
}

#[tokio::test]
async fn no_write_through_the_others_fails_or_waits_longer_than_the_election_when_the_leader_is_killed() -> Result<()> {
    let summary = succession::run(&succession::Plan { cairn: process::cairn_binary()?, kills: 5 }).await?;
    println!("{summary}");
    ensure!(summary.kills == 5 && summary.met >= 5 * 8, "no write met a kill: {summary}");
    Ok(())
}

#[tokio::test]
async fn members_are_started_anew_one_by_one_and_nothing_is_lost() -> Result<()> {
    let cairn = process::cairn_binary()?;
    let plan = upgrade::Plan { from: cairn.clone(), to: cairn, level: COMMAND_LEVEL, seed: 1, clients: 8 };
    let summary = upgrade::run(&plan).await?;
    println!("{summary}");
    ensure!(summary.turns == 7 && summary.events > 0 && summary.refusal.is_none(), "{summary}");
    Ok(())
}

#[tokio::test]
async fn who_is_left_of_two_members_needs_nobody_when_it_starts_again() -> Result<()> {
    for leader_goes in [false, true] {
        recovery::remove_one_of_two(&process::cairn_binary()?, leader_goes)
            .await
            .with_context(|| format!("the leader goes: {leader_goes}"))?;
    }
    Ok(())
}

//! Members are taken from one build to another, back, and forward again, one at a time and under load.
//!
//! The way back is open while not all members are of the new build: until then the cluster's command level stays.
//! Checked is what the [cluster test](super) checks: nothing acknowledged is lost or applied twice, revisions never go
//! back, the watchers at all members are told everything once and the same, and all members hold the same in the end.
//! Beyond that, leases that were granted live on with their keys, and those that were revoked stay gone (`leases`); the
//! level ends at that of the new build; and the old build starts on the data if it has shown that it applies that
//! level, else it refuses.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cairn_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, kv_client::KvClient, lease_client::LeaseClient,
};

use super::{DEADLINE, Members, WRITES_BETWEEN, client::Load, compare, leases::Lessees, watcher::Watcher};

/// Members.
const MEMBERS: usize = 3;
/// Who gets which build: two of three go forward and back, then all forward.
const TURNS: [(usize, Build); 7] = [
    (0, Build::To),
    (1, Build::To),
    (1, Build::From),
    (0, Build::From),
    (0, Build::To),
    (1, Build::To),
    (2, Build::To),
];
/// A lease of the old build, longer than any run.
const LEASE: LeaseGrantRequest = LeaseGrantRequest { id: 4711, ttl: 3600 };
/// Its key.
const LEASED_KEY: &str = "/leased";
/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(50);
/// What tells the command level. Builds without one are at the first.
const LEVEL: &str = "cairn_command_level ";
const FIRST_LEVEL: u32 = 1;
/// What a member says of another one whose build is below the command level.
const REFUSED: &str = "it applies commands up to level";

/// A build of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Build {
    From,
    To,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The build that the cluster begins with.
    pub from: PathBuf,
    /// The build that it ends with.
    pub to: PathBuf,
    /// The command level of that build.
    pub level: u32,
    /// Seed of the clients.
    pub seed: u64,
    /// Concurrent clients.
    pub clients: usize,
}

/// What a run saw.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// How often a member was stopped and started with another build.
    pub turns: usize,
    /// The longest time that a member was away.
    pub away_max: Duration,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Writes that ended without an outcome.
    pub unknown: u64,
    /// Events that the watchers of all members were told.
    pub events: usize,
    /// Leases that are known to be there or to be revoked.
    pub leases: usize,
    /// The highest command level while members of the old build ran, and the one in the end.
    pub levels: (u32, u32),
    /// What the old build said when it was started on the data in the end; none if it served, being of the same level.
    pub refusal: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turns, away_max, acknowledged, unknown, events, leases, levels: (before, after), refusal } = self;
        writeln!(
            f,
            "{turns} members taken to another build, away for {away_max:?} at most; {acknowledged} writes acknowledged, \
             {unknown} without an outcome, {events} events told everywhere, {leases} leases; command level {before}, then {after}"
        )?;
        match refusal {
            Some(text) => write!(f, "the old build does not start on the new data: {text}"),
            None => write!(f, "the old build is of the same command level, and serves the new data"),
        }
    }
}

/// Runs the plan.
///
/// # Errors
/// If anything was lost, told twice or differed; if a member of either build did not start where it must, or did where
/// it must not.
pub async fn run(plan: &Plan) -> Result<Summary> {
    let mut members = Members::new(&plan.from, MEMBERS)?;
    members.start_all().await?;
    settle(&mut members).await?;
    let before = level(&mut members, 0).await?;
    let mut summary = Summary { levels: (before, before), ..Summary::default() };
    attach_lease(&mut members).await.context("before the first member")?;
    let load = Load::start(plan.seed, plan.clients, &members.urls());
    let lessees = Lessees::start(&members.urls());
    let watchers: Vec<_> = members.urls().into_iter().map(Watcher::start).collect();
    for (turn, (member, build)) in TURNS.into_iter().enumerate() {
        let context = || format!("turn {turn}: member {member} to {build:?}");
        load.wait_for_writes(WRITES_BETWEEN).await.with_context(context)?;
        let binary = if build == Build::To { &plan.to } else { &plan.from };
        let begun = Instant::now();
        take_to(&mut members, member, binary).await.with_context(context)?;
        summary.away_max = summary.away_max.max(begun.elapsed());
        summary.turns += 1;
        load.wait_for_writes(WRITES_BETWEEN).await.with_context(context)?;
        if turn + 1 < TURNS.len() {
            let now = level(&mut members, member).await?;
            ensure!(now == before, "{}: the level went from {before} to {now} before all were new", context());
        }
    }
    summary.levels.1 = risen(&mut members, plan.level).await?;
    load.wait_for_writes(WRITES_BETWEEN).await.context("at the new level")?;
    let clients = load.stop().await?;
    summary.leases = lessees.stop_and_check(&members.urls()).await?;
    members.wait_until_equal().await.context("at the end")?;
    summary.events = compare(&watchers).await?;
    for url in members.urls() {
        for client in &clients {
            client.check(&url).await.with_context(|| format!("read from {url}"))?;
        }
    }
    check_lease(&mut members).await.context("at the end")?;
    summary.acknowledged = clients.iter().map(|client| client.acknowledged).sum();
    summary.unknown = clients.iter().map(|client| client.unknown).sum();
    ensure!(summary.acknowledged > 0 && summary.leases > 0, "nothing was written");
    summary.refusal = refusal(&mut members, plan).await.context("the old build on the new data")?;
    judge(summary.levels, summary.refusal.as_deref())?;
    members.wait_until_equal().await.context("after that")?;
    Ok(summary)
}

/// Whether the level rose when it might, by the highest one while members of the old build ran, the one in the end, and
/// what the old build said of the data then.
fn judge((before, after): (u32, u32), refusal: Option<&str>) -> Result<()> {
    ensure!(before <= after, "the command level fell from {before} to {after}");
    let Some(words) = refusal else {
        ensure!(before == after, "a build of command level {before} serves data of level {after}");
        return Ok(());
    };
    ensure!(before < after, "the level was {after} while members of the old build ran, which refuses it: {words}");
    ensure!(words.contains("command"), "the old build does not say why it refuses the data: {words}");
    Ok(())
}

async fn take_to(members: &mut Members, member: usize, binary: &Path) -> Result<()> {
    members.terminate(member).await?;
    members.member(member).set_binary(binary);
    members.start(member).await
}

/// The command level that a member tells.
async fn level(members: &mut Members, member: usize) -> Result<u32> {
    let page = members.member(member).page("/metrics").await?;
    let told = page.lines().find_map(|line| line.strip_prefix(LEVEL));
    told.map_or(Ok(FIRST_LEVEL), |level| level.trim().parse().context("a level"))
}

/// Waits until a new cluster of a build that tells its level, which is above the first, has gone there.
async fn settle(members: &mut Members) -> Result<()> {
    let (deadline, first) = (Instant::now() + DEADLINE, format!("{LEVEL}{FIRST_LEVEL}"));
    for member in 0..MEMBERS {
        while members.member(member).page("/metrics").await?.lines().any(|line| line == first) {
            ensure!(Instant::now() < deadline, "member {member} stays at the first command level");
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(())
}

/// Waits until all members tell this level.
async fn risen(members: &mut Members, newest: u32) -> Result<u32> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut levels = Vec::new();
        for member in 0..MEMBERS {
            levels.push(level(members, member).await?);
        }
        if levels.iter().all(|one| *one == newest) {
            return Ok(newest);
        }
        ensure!(Instant::now() < deadline, "the members tell command levels {levels:?} instead of {newest}");
        tokio::time::sleep(LOOK).await;
    }
}

async fn attach_lease(members: &mut Members) -> Result<()> {
    let channel = members.member(0).connect().await?;
    LeaseClient::new(channel.clone()).lease_grant(LEASE).await?;
    let put = PutRequest { key: LEASED_KEY.into(), lease: LEASE.id, ..PutRequest::default() };
    KvClient::new(channel).put(put).await?;
    Ok(())
}

async fn check_lease(members: &mut Members) -> Result<()> {
    for member in 0..MEMBERS {
        let mut client = LeaseClient::new(members.member(member).connect().await?);
        let asked = LeaseTimeToLiveRequest { id: LEASE.id, keys: true };
        let lease = client.lease_time_to_live(asked).await?.into_inner();
        ensure!(lease.ttl > 0 && lease.keys == [LEASED_KEY], "member {member} says of the lease: {lease:?}");
    }
    Ok(())
}

/// Starts the old build on the data of a member. What is said if it does not serve: its last words, or, if it knows of
/// no levels and so runs on, those of a member that refuses to talk with it.
async fn refusal(members: &mut Members, plan: &Plan) -> Result<Option<String>> {
    let last = MEMBERS - 1;
    members.terminate(last).await?;
    members.member(last).set_binary(&plan.from);
    members.spawn(last)?;
    let deadline = Instant::now() + DEADLINE;
    let words = loop {
        if members.serves(last).await {
            break None;
        }
        if let Some(status) = members.member(last).ended() {
            ensure!(!status.success(), "it ended as if all were well");
            break Some(members.member(last).log_tail().lines().last().unwrap_or_default().to_owned());
        }
        let logs: Vec<_> = (0..last).map(|other| members.member(other).log_tail()).collect();
        if let Some(line) = logs.iter().flat_map(|log| log.lines()).find(|line| line.contains(REFUSED)) {
            break Some(line.to_owned());
        }
        ensure!(Instant::now() < deadline, "it neither serves nor ends, and no member refuses it");
        tokio::time::sleep(LOOK).await;
    };
    members.kill(last)?;
    take_to(members, last, &plan.to).await?;
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::judge;

    #[test]
    fn a_level_that_rises_too_early_falls_or_is_not_minded_is_found() {
        let words = Some("command level 4 is above 2, which this build applies");
        judge((1, 4), words).expect("it rose when all were new, and the old build refuses");
        judge((4, 4), None).expect("both builds are of one level");
        assert!(judge((4, 4), words).is_err(), "it rose while members of the old build ran");
        assert!(judge((1, 4), None).is_err(), "the old build serves what it cannot apply");
        assert!(judge((4, 1), None).is_err(), "it fell");
        assert!(judge((1, 4), Some("Segmentation fault")).is_err(), "the refusal does not say why");
    }
}

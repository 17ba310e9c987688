//! Members are taken from one build to another, back, and forward again, one at a time and under load.
//!
//! The way back is open while not all members are of the new build: until then the cluster's command level stays. Checked
//! is what the [cluster test](super) checks: nothing acknowledged is lost or applied twice, revisions never go back, the
//! watchers at all members are told everything once and the same, and all members hold the same in the end. Beyond that, a lease of the
//! old build lives on with its key, and when the level has risen, the old build serves nothing from the new data.

use std::{
    fmt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cairn_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseTimeToLiveRequest, PutRequest, RangeRequest, kv_client::KvClient, lease_client::LeaseClient,
};

use tokio::time::timeout;

use super::{DEADLINE, Members, WRITES_BETWEEN, client::Load, compare, watcher::Watcher};

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
/// How long a build that knows of no levels is looked at.
const MUTE: Duration = Duration::from_secs(15);
/// What tells the command level. Builds without one are at the first.
const LEVEL: &str = "cairn_command_level ";
const FIRST_LEVEL: u32 = 1;

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
    /// The command level before and after.
    pub levels: (u32, u32),
    /// What the old build said when it was started on data of the new level; none if the level has not risen.
    pub refusal: Option<String>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { turns, away_max, acknowledged, unknown, events, levels: (before, after), refusal } = self;
        writeln!(
            f,
            "{turns} members taken to another build, away for {away_max:?} at most; {acknowledged} writes acknowledged, \
             {unknown} without an outcome, {events} events told everywhere; command level {before}, then {after}"
        )?;
        match refusal {
            Some(text) => write!(f, "the old build serves nothing from the new data: {text}"),
            None => write!(f, "the command level has not risen: the old build may start on the data"),
        }
    }
}

/// Runs the plan.
///
/// # Errors
/// If anything was lost, told twice or differed; if a member of either build did not start where it must, or did where it
/// must not.
pub async fn run(plan: &Plan) -> Result<Summary> {
    let mut members = Members::new(&plan.from, MEMBERS)?;
    members.start_all().await?;
    let before = settled(&mut members).await?;
    let knows_levels = told_level(&mut members, 0).await?.is_some();
    let mut summary = Summary { levels: (before, before), ..Summary::default() };
    attach_lease(&mut members).await.context("before the first member")?;
    let load = Load::start(plan.seed, plan.clients, &members.urls());
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
            ensure!(now == before, "{}: the level rose from {before} to {now} before all were new", context());
        }
    }
    summary.levels.1 = risen(&mut members, before, plan.from == plan.to).await?;
    load.wait_for_writes(WRITES_BETWEEN).await.context("at the new level")?;
    let clients = load.stop().await?;
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
    ensure!(summary.acknowledged > 0, "nothing was written");
    if summary.levels.1 > before {
        summary.refusal =
            Some(refused(&mut members, plan, knows_levels).await.context("the old build on the new data")?);
        members.wait_until_equal().await.context("after that")?;
    }
    Ok(summary)
}

async fn take_to(members: &mut Members, member: usize, binary: &Path) -> Result<()> {
    members.terminate(member).await?;
    members.member(member).set_binary(binary);
    members.start(member).await
}

/// The command level that a member tells, if its build tells one.
async fn told_level(members: &mut Members, member: usize) -> Result<Option<u32>> {
    let page = members.member(member).page("/metrics").await?;
    let told = page.lines().find_map(|line| line.strip_prefix(LEVEL));
    told.map(|level| level.trim().parse().context("a level")).transpose()
}

async fn level(members: &mut Members, member: usize) -> Result<u32> {
    Ok(told_level(members, member).await?.unwrap_or(FIRST_LEVEL))
}

/// The command level of a cluster of one build. One that tells its level has a higher one than the first, to which a new
/// cluster goes at once.
async fn settled(members: &mut Members) -> Result<u32> {
    let deadline = Instant::now() + DEADLINE;
    for member in 0..MEMBERS {
        while told_level(members, member).await? == Some(FIRST_LEVEL) {
            ensure!(Instant::now() < deadline, "member {member} stays at the first level");
            tokio::time::sleep(LOOK).await;
        }
    }
    level(members, 0).await
}

/// Waits until all members tell the same level, which is higher than before unless the builds are one.
async fn risen(members: &mut Members, before: u32, same_build: bool) -> Result<u32> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let mut levels = Vec::new();
        for member in 0..MEMBERS {
            levels.push(level(members, member).await?);
        }
        if levels.iter().all(|one| *one == levels[0]) && (levels[0] > before || same_build) {
            return Ok(levels[0]);
        }
        // Builds may have the same level.
        if Instant::now() > deadline && levels.iter().all(|one| *one == before) {
            return Ok(before);
        }
        ensure!(Instant::now() < deadline, "the members tell levels {levels:?}, and told {before} before");
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

/// Starts the old build on the data of a member, which has to end, or at least to serve nothing if it knows of no levels.
/// Its last words.
async fn refused(members: &mut Members, plan: &Plan, knows_levels: bool) -> Result<String> {
    let last = MEMBERS - 1;
    members.terminate(last).await?;
    members.member(last).set_binary(&plan.from);
    members.spawn(last)?;
    let deadline = Instant::now() + if knows_levels { DEADLINE } else { MUTE };
    while members.member(last).ended().is_none_or(|status| status.success()) {
        ensure!(!serves(members, last).await, "it serves:\n{}", members.member(last).log_tail());
        if Instant::now() > deadline {
            ensure!(!knows_levels, "it runs on:\n{}", members.member(last).log_tail());
            break;
        }
        tokio::time::sleep(LOOK).await;
    }
    let words = members.member(last).log_tail().lines().last().unwrap_or_default().to_owned();
    members.kill(last)?;
    members.member(last).set_binary(&plan.to);
    members.start(last).await?;
    Ok(words)
}

/// Whether a member answers a linearizable read.
async fn serves(members: &mut Members, member: usize) -> bool {
    let Ok(channel) = members.member(member).connect().await else { return false };
    let read = RangeRequest { key: LEASED_KEY.into(), ..RangeRequest::default() };
    let read = timeout(LOOK, KvClient::new(channel).range(read)).await;
    read.is_ok_and(|answer| answer.is_ok())
}

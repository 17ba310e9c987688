//! The cluster test: several members as real processes, of which some are killed, stopped and started again while many
//! clients write.
//!
//! Each client owns a few keys and writes rising numbers to them, only where the key still has the revision that it knows
//! (compare and put). So a write whose outcome is unknown can take effect later, but never over a newer one. Checked:
//! * no acknowledged write is lost, none is applied twice, and nobody else's appears (`client`);
//! * while no majority runs, nothing is acknowledged, and calls that ask for a leader are told that there is none;
//! * every member serves the same in the end: same revision, same HashKV (`members`), and no comparison that the leader
//!   makes meanwhile, of keys or of the hashes of the compaction after each fault, finds anything else;
//! * the same holds for members that catch up or join by a snapshot ([`lagging`]);
//! * the revision that a client is told never goes back;
//! * where the network is disturbed, too ([`Trouble`]), watchers at all members are told the same, everything once.

mod client;
pub mod lagging;
mod leases;
mod members;
mod membership;
pub mod recovery;
mod trouble;
pub mod upgrade;
mod watcher;

use std::{fmt, path::PathBuf, time::Duration};

use anyhow::{Context, Result, ensure};
use rand::{Rng, SeedableRng, rngs::StdRng};

use self::{
    client::Load,
    watcher::{Watcher, compare},
};
pub use self::{members::Members, trouble::Trouble};

/// How long anything may take that must come true.
const DEADLINE: Duration = Duration::from_mins(1);
/// Writes that have to be acknowledged before a fault and after it.
const WRITES_BETWEEN: u64 = 50;

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The leader is killed without warning, and started again.
    KillLeader,
    /// A follower is killed without warning, and started again.
    KillFollower,
    /// The leader is asked to stop, and started again: leadership is handed over.
    StopLeader,
    /// Leadership is moved to another member.
    MoveLeader,
    /// All but one are killed, and nothing may be acknowledged until they are back.
    KillMajority,
    /// All are killed at once.
    KillAll,
    /// The network between the members is disturbed.
    Network(Trouble),
}

impl Fault {
    /// All kinds of faults of members.
    pub const ALL: [Self; 6] =
        [Self::KillLeader, Self::KillFollower, Self::StopLeader, Self::MoveLeader, Self::KillMajority, Self::KillAll];

    /// Random faults, the same for the same seed; where there is a network that can be disturbed, half of them of it.
    pub fn drawn(seed: u64, count: usize, between: Between) -> Vec<Self> {
        let mut random = StdRng::seed_from_u64(seed);
        let mut draw = || {
            let troubles = between.troubles();
            if !troubles.is_empty() && random.random() {
                return Self::Network(troubles[random.random_range(0..troubles.len())]);
            }
            Self::ALL[random.random_range(0..Self::ALL.len())]
        };
        (0..count).map(|_| draw()).collect()
    }
}

/// What there is between the members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Between {
    /// Nothing that could be disturbed.
    Nothing,
    /// Proxies.
    Proxies,
    /// The links of network namespaces, one for each member.
    Namespaces,
}

impl Between {
    /// What can be done to it.
    pub fn troubles(self) -> Vec<Trouble> {
        let is_possible = |trouble: &Trouble| match self {
            Self::Nothing => false,
            Self::Proxies => true,
            Self::Namespaces => trouble.is_of_links(),
        };
        Trouble::ALL.into_iter().filter(is_possible).collect()
    }
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub cairn: PathBuf,
    /// Seed of the clients.
    pub seed: u64,
    /// Members.
    pub members: usize,
    /// Concurrent clients.
    pub clients: usize,
    /// What there is between the members.
    pub between: Between,
    /// What happens, one after the other.
    pub faults: Vec<Fault>,
}

/// What a run saw.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// Faults survived.
    pub faults: usize,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Writes that ended without an outcome.
    pub unknown: u64,
    /// Of these, those that took effect.
    pub unknown_applied: u64,
    /// Events that the watchers of all members were told.
    pub events: usize,
    /// From each fault to the first write acknowledged after it, in the order of the faults.
    pub recoveries: Vec<(Fault, Duration)>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} faults, {} writes acknowledged, {} without an outcome of which {} took effect, {} events told everywhere",
            self.faults, self.acknowledged, self.unknown, self.unknown_applied, self.events
        )?;
        for kind in Fault::ALL.into_iter().chain(Trouble::ALL.map(Fault::Network)) {
            let mut took: Vec<_> =
                self.recoveries.iter().filter(|(fault, _)| *fault == kind).map(|(_, took)| took.as_millis()).collect();
            took.sort_unstable();
            if let (Some(median), Some(longest)) = (took.get(took.len() / 2), took.last()) {
                writeln!(
                    f,
                    "{kind:?}: {} times, first write after {median} ms (median), {longest} ms (longest)",
                    took.len()
                )?;
            }
        }
        Ok(())
    }
}

/// Runs the plan.
pub async fn run(plan: &Plan) -> Result<Summary> {
    let disturbed = plan.between != Between::Nothing;
    let mut members = match plan.between {
        Between::Nothing => Members::new(&plan.cairn, plan.members)?,
        Between::Proxies => Members::in_network(&plan.cairn, plan.members, &trouble::ARGUMENTS, plan.seed)?,
        Between::Namespaces => Members::in_namespaces(&plan.cairn, plan.members, &trouble::ARGUMENTS)?,
    };
    members.start_all().await?;
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut summary = Summary::default();
    let load = Load::start(plan.seed, plan.clients, &members.urls());
    let watchers: Vec<_> = members.urls().into_iter().filter(|_| disturbed).map(Watcher::start).collect();
    for (round, &fault) in plan.faults.iter().enumerate() {
        let context = || format!("seed {}, round {round}, {fault:?}", plan.seed);
        load.wait_for_writes(WRITES_BETWEEN).await.with_context(context)?;
        let took = inflict(fault, &mut members, &load, &mut random).await.with_context(context)?;
        // The watchers of a disturbed network start at the first revision, maybe only after a while.
        if !disturbed {
            members.compact().await.with_context(context)?;
        }
        summary.recoveries.push((fault, took));
        summary.faults += 1;
    }
    load.wait_for_writes(WRITES_BETWEEN).await.context("after the last fault")?;
    let clients = load.stop().await?;
    members.wait_until_equal().await.context("at the end")?;
    summary.events = compare(&watchers).await.with_context(|| format!("seed {}", plan.seed))?;
    for url in members.urls() {
        for client in &clients {
            client.check(&url).await.with_context(|| format!("seed {}, read from {url}", plan.seed))?;
        }
    }
    for client in &clients {
        summary.acknowledged += client.acknowledged;
        summary.unknown += client.unknown;
        summary.unknown_applied += client.unknown_applied;
    }
    ensure!(summary.acknowledged > 0, "nothing was written");
    Ok(summary)
}

/// Does it, and undoes it. How long it took until a write was acknowledged again.
async fn inflict(fault: Fault, members: &mut Members, load: &Load, random: &mut StdRng) -> Result<Duration> {
    let leader = members.leader().await?;
    let follower = (leader + 1 + random.random_range(0..members.len() - 1)) % members.len();
    match fault {
        Fault::KillLeader => {
            let recovery = load.recovery();
            members.kill(leader)?;
            let took = recovery.await?;
            members.start(leader).await?;
            Ok(took)
        }
        Fault::KillFollower => {
            let recovery = load.recovery();
            members.kill(follower)?;
            let took = recovery.await?;
            load.wait_for_writes(WRITES_BETWEEN).await?;
            members.start(follower).await?;
            Ok(took)
        }
        Fault::StopLeader => {
            members.terminate(leader).await?;
            let took = load.recovery().await?;
            members.start(leader).await?;
            Ok(took)
        }
        Fault::MoveLeader => {
            members.move_leader(leader, follower).await?;
            load.recovery().await
        }
        Fault::KillMajority => {
            for member in (0..members.len()).filter(|&member| member != follower) {
                members.kill(member)?;
            }
            members.expect_no_leader(follower).await?;
            members.expect_no_acknowledgement(follower).await?;
            let recovery = load.recovery();
            for member in (0..members.len()).filter(|&member| member != follower) {
                members.spawn(member)?;
            }
            let took = recovery.await?;
            members.wait_until_serving().await?;
            Ok(took)
        }
        Fault::KillAll => {
            for member in 0..members.len() {
                members.kill(member)?;
            }
            let recovery = load.recovery();
            for member in 0..members.len() {
                members.spawn(member)?;
            }
            let took = recovery.await?;
            members.wait_until_serving().await?;
            Ok(took)
        }
        Fault::Network(trouble) => trouble.inflict(members, load, leader, follower, random).await,
    }
}

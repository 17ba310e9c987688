//! The simulation: whole clusters in one thread, from one seed.
//!
//! ```text
//!   clients, watchers ──requests──▶ member: Core + raft + State + Log + LeaseClock + Hub + Compactor   (the product, unchanged)
//!          ▲                          │ writes        │ messages        │ flush
//!          │ answers                  ▼               ▼                 ▼
//!        judge                     SimDisk         network           MemStore        (faults drawn from the seed)
//!          └──▶ history, consensus, leases: what must hold, looked at after every event
//!
//!   world    what happens next        shell    around the core: what threads, disks and sockets do otherwise
//!   clock    when                     member   a member and its disks          network   what becomes of messages
//!   climate  what a run is like       zone     where it goes for that
//!   chaos    crashes, pauses, cuts, moves of leadership, membership changes
//!   snapshots         made, fetched in pieces, installed, with crashes at every step
//!   client, request   what is asked   watcher  streams and what they are told
//!   judge    linearizability          history  the one history of the keys     consensus terms, logs, states
//!   leases, alarms    promises kept   end      healing, and what must be equal then
//!   plant    bugs to be found         regression   seeds that found some       report, trace    what is printed
//! ```
//!
//! A member is the real `node/core` over the real `raft/`, `state/`, `log/`, `lease/` and `watch/`; only what is below
//! [`Disk`](cairn_server::log::Disk) and [`Store`](cairn_server::store::Store), above the core's inputs and outputs, and
//! the clock is simulated. The log disk loses what was not synced when the power fails, tears writes and fails; the store
//! forgets everything since its last atomic flush and flushes at random moments. The logs are cut behind tiny limits, so
//! that members that were away, are slow or are new need snapshots; what a leader sends them is a checkpoint of its store,
//! in pieces over connections that break, and what they install may be cut short by a crash at any step.
//!
//! # What is checked
//!
//! After every event: one leader a term; log matching; what anybody knows to be committed is synced by a majority, stays,
//! and every later leader has it (`consensus`); applied and committed never go back within a run, and a start never
//! falls behind what was durable; members in the same place are in the same state, and a snapshot is in that of its last
//! entry; raft counts with the membership that the state has; every revision is the same on all who publish it, and what is
//! stored at a start or received is part of the history and nothing of it is missing (`history`). Of every
//! answer: that it is right at the revision it names and not older than it may be, from which linearizability follows
//! (`judge`); of every lease that it lives as long as was told (`leases`); of the alarm of full disks that it refuses what
//! it has to and nothing else (`alarms`); of every watch the nine guarantees (`watcher`). In the end everything is healed: the cluster must settle, acknowledge a write, let all leases run out,
//! bring every watcher up to date, and have the same HashKV on every member (`end`).
//!
//! # Repeatable
//!
//! Everything that is drawn comes from the seed. A run writes its history as lines, of which a digest is kept; the second
//! run of a seed must have the same digest. A run that fails is repeated to print its last lines, with the command that
//! repeats it once more.
//!
//! # Caveats
//!
//! What the real shell, transport and API do is not simulated: their order of work is written anew in `shell`, as
//! little as that is. Clocks of members run at the same rate. Files of snapshots are not simulated: how they are cut into
//! pieces, checked and put together has tests of its own in `server/src/node/snapshot/`.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Result, ensure};

/// Adds a line to the history.
macro_rules! note {
    ($world:expr, $($what:tt)*) => {
        $world.trace.note($world.clock.now(), format_args!($($what)*))
    };
}

mod alarms;
mod chaos;
mod client;
mod climate;
mod clock;
mod consensus;
mod end;
mod history;
mod judge;
mod leases;
mod member;
mod network;
mod plant;
pub mod regression;
mod report;
mod request;
mod shell;
mod snapshots;
mod trace;
mod watcher;
mod world;
mod zone;

pub use plant::Plant;
pub use report::{Coverage, Failure};
pub use trace::Keep;
use world::World;
pub use zone::Zone;

/// Events of a run, unless told otherwise.
pub const STEPS: u64 = 8_000;
/// Lines of the history that a failure shows.
const LINES_SHOWN: usize = 40;
/// Ticks that a member goes on after it was removed, so that the others learn of it.
const LEAVE_TICKS: u32 = 10;

/// One run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Seed of everything that is drawn.
    pub seed: u64,
    /// Members that the cluster begins with.
    pub members: u64,
    /// Events before everything is healed.
    pub steps: u64,
    /// Where it goes.
    pub zone: Zone,
    /// A bug to plant.
    pub plant: Option<Plant>,
    /// Members serve clients from their start on, and what they show of their past is not judged: so did the product when
    /// the seeds of [`regression`] were found.
    pub ungated: bool,
}

/// How a run went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What happened.
    pub coverage: Coverage,
    /// Lines of its history, and their digest.
    pub digest: (u64, u64),
}

fn run_once(plan: &Plan, keep: Keep) -> (Result<Outcome>, Vec<String>) {
    let mut world = None;
    let outcome = report::catching(|| {
        let world = world.insert(World::new(plan, keep)?);
        world.run()?;
        Ok(Outcome { coverage: world.coverage, digest: world.trace.digest() })
    });
    (outcome, world.map(|world| world.trace.into_lines()).unwrap_or_default())
}

/// Runs a plan; with `twice`, once more, and demands the same history.
///
/// # Errors
/// If something that must hold did not.
pub fn simulate(plan: &Plan, twice: bool) -> Result<Outcome, Box<Failure>> {
    let (first, _) = run_once(plan, Keep::Digest);
    let checked = first.and_then(|first| {
        if twice {
            let second = run_once(plan, Keep::Digest).0?;
            ensure!(first == second, "one seed has two histories: {:?} and {:?}", first.digest, second.digest);
        }
        Ok(first)
    });
    checked.map_err(|error| {
        let (_, lines) = run_once(plan, Keep::Last(LINES_SHOWN));
        Box::new(Failure { plan: plan.clone(), what: format!("{error:#}"), lines })
    })
}

/// Prints the whole history of a plan.
///
/// # Errors
/// If something that must hold did not.
pub fn print(plan: &Plan) -> Result<Outcome> {
    run_once(plan, Keep::Print).0
}

/// How many runs went how.
#[derive(Debug)]
pub struct Summary {
    /// Runs that ended well.
    pub runs: u64,
    /// What happened in them.
    pub coverage: Coverage,
    /// The failed run with the lowest seed among those that were looked at.
    pub failure: Option<Box<Failure>>,
    /// Seconds it took.
    pub seconds: f64,
}

/// Runs `seeds` plans from the seed of `first` on, on as many threads as there are processors, until one fails. Every
/// `twice_every`-th seed is run twice.
pub fn simulate_many(first: &Plan, seeds: u64, twice_every: u64) -> Summary {
    let started = Instant::now();
    let next = AtomicU64::new(0);
    let summary = Mutex::new(Summary { runs: 0, coverage: Coverage::default(), failure: None, seconds: 0.0 });
    let work = || loop {
        let at = next.fetch_add(1, Ordering::Relaxed);
        if at >= seeds {
            return;
        }
        let plan = Plan { seed: first.seed + at, ..first.clone() };
        let outcome = simulate(&plan, at.is_multiple_of(twice_every));
        let mut summary = summary.lock().unwrap_or_else(PoisonError::into_inner);
        match outcome {
            Ok(outcome) => {
                summary.runs += 1;
                summary.coverage.add(&outcome.coverage);
            }
            Err(failure) => {
                next.store(seeds, Ordering::Relaxed);
                if summary.failure.as_ref().is_none_or(|known| known.plan.seed > failure.plan.seed) {
                    summary.failure = Some(failure);
                }
            }
        }
    };
    thread::scope(|scope| {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        (0..threads).for_each(|_| drop(scope.spawn(work)));
    });
    let mut summary = summary.into_inner().unwrap_or_else(PoisonError::into_inner);
    summary.seconds = started.elapsed().as_secs_f64();
    summary
}

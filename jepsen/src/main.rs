//! The harness as a command.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result, bail};
use cairn_jepsen::{cluster, cluster::lagging, crash, differential, failover, process, sim, succession, watch};
use cairn_server::state::command::COMMAND_LEVEL;
use clap::{Parser, Subcommand};

/// Tries to break Cairn. Every run is seeded and bounded.
#[derive(Parser)]
#[command(name = "cairn-jepsen")]
struct Arguments {
    /// The server under test; by default the one built beside this program
    #[arg(long, global = true)]
    cairn: Option<PathBuf>,
    #[command(subcommand)]
    run: Run,
}

#[derive(Subcommand)]
enum Run {
    /// Sends the same random requests to a genuine etcd and to Cairn and compares every answer
    Differential {
        /// The genuine server; by default the one on the path
        #[arg(long)]
        etcd: Option<PathBuf>,
        /// The first seed
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How many sequences
        #[arg(long, default_value_t = 300)]
        sequences: u64,
        /// Requests in each
        #[arg(long, default_value_t = 100)]
        steps: usize,
        /// Users, roles and permissions, instead of watches
        #[arg(long)]
        users: bool,
    },
    /// Watches under writes, compactions and kills, and checks everything that watchers are told
    Watch {
        /// Seed of everything that is chosen
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// How long
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Concurrent writers
        #[arg(long, default_value_t = 4)]
        writers: usize,
        /// Concurrent watchers
        #[arg(long, default_value_t = 16)]
        watchers: usize,
    },
    /// Kills the server at random moments under load and checks what it kept
    Crash {
        /// Seed of the kill times
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Kills
        #[arg(long, default_value_t = 200)]
        rounds: usize,
        /// Concurrent clients
        #[arg(long, default_value_t = 32)]
        clients: usize,
        /// Cut the log back to its last completed fdatasync before each restart
        #[arg(long)]
        cut_to_synced: bool,
    },
    /// Runs whole clusters in one thread, with faults drawn from seeds, and checks everything after every event
    Sim {
        /// How many seeds
        #[arg(long, default_value_t = 100)]
        seeds: u64,
        /// The first one
        #[arg(long, default_value_t = 1)]
        first_seed: u64,
        /// Members that the cluster begins with
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=9))]
        members: u64,
        /// Events before everything is healed
        #[arg(long, default_value_t = sim::STEPS)]
        steps: u64,
        /// What runs are like: "usual", or a climate that brings more of something
        #[arg(long, default_value_t = sim::Zone::Usual, value_parser = zone_named)]
        climate: sim::Zone,
        /// Run every so-manieth seed twice and compare
        #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..))]
        twice_every: u64,
        /// Plant a bug, which then has to be caught: a name, or "all" for one after the other
        #[arg(long)]
        plant: Option<String>,
        /// Print the whole history of the first seed
        #[arg(long)]
        trace: bool,
    },
    /// Kills, stops and restarts members of a cluster under load and checks what it kept
    Cluster {
        /// Seed of the faults
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Members
        #[arg(long, default_value_t = 3)]
        members: usize,
        /// Faults
        #[arg(long, default_value_t = 50)]
        rounds: usize,
        /// Concurrent clients
        #[arg(long, default_value_t = 32)]
        clients: usize,
        /// Disturb the network between the members, too: cut it one way or both, delay, reorder and end connections
        #[arg(long)]
        network: bool,
        /// The same with packets instead of connections: each member in a network namespace of its own, whose links are unplugged,
        /// taken down, or lead nowhere in one direction. Takes the rights of root
        #[arg(long, conflicts_with = "network")]
        namespaces: bool,
    },
    /// Measures how long writes are not acknowledged when the leader is killed, and when it is stopped
    Failover {
        /// How often in each way
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=1000))]
        trials: u64,
        /// Writes a second
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
        rate: u32,
        /// Of a genuine etcd, this one, instead of Cairn
        #[arg(long)]
        etcd: Option<PathBuf>,
    },
    /// Kills the leader again and again: no write through the other members may fail, or wait much longer than the
    /// election
    Succession {
        /// How often
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1000))]
        kills: u64,
    },
    /// Takes the members of a cluster from another build to this one, back, and forward again, one at a time and under
    /// load
    Upgrade {
        /// The build that the cluster begins with
        #[arg(long)]
        from: PathBuf,
        /// The command level that the cluster has to end at: that of the new build
        #[arg(long, default_value_t = COMMAND_LEVEL)]
        level: u32,
        /// Seed of the clients
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Concurrent clients
        #[arg(long, default_value_t = 16)]
        clients: usize,
    },
    /// Makes members of a cluster lag so far that they need snapshots, kills them while they catch up, and checks what they have
    Lagging {
        /// Seed of everything that is chosen
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Members
        #[arg(long, default_value_t = 3)]
        members: usize,
        /// How often a member lags
        #[arg(long, default_value_t = 20)]
        rounds: usize,
        /// Concurrent clients
        #[arg(long, default_value_t = 16)]
        clients: usize,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        // Returned, it would be shown with the place in this program where it was made.
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<()> {
    let cairn = || arguments.cairn.clone().map_or_else(process::cairn_binary, Ok);
    match arguments.run {
        Run::Sim { seeds, first_seed, members, steps, climate, twice_every, plant, trace } => {
            let plan = sim::Plan { seed: first_seed, members, steps, zone: climate, plant: None, ungated: false };
            match plant.as_deref() {
                plant if trace => print_history(&sim::Plan { plant: plant.map(plant_named).transpose()?, ..plan }),
                None => simulate(&plan, seeds, twice_every),
                Some("all") => {
                    let caught: Vec<_> = sim::Plant::ALL.iter().map(|&plant| catch(&plan, seeds, plant)).collect();
                    caught.into_iter().collect::<Result<()>>()?;
                }
                Some(name) => catch(&plan, seeds, plant_named(name)?)?,
            }
        }
        Run::Differential { etcd, seed, sequences, steps, users } => {
            let etcd = etcd.map_or_else(process::etcd_binary, Ok)?;
            let (coverage, failure) =
                differential::run(&differential::Plan { etcd, cairn: cairn()?, seed, sequences, steps, users }).await?;
            println!("{coverage}");
            if let Some(failure) = failure {
                bail!("{failure}");
            }
            println!("{sequences} sequences of {steps} requests from seed {seed}: every answer equal");
        }
        Run::Watch { seed, seconds, writers, watchers } => {
            let time = std::time::Duration::from_secs(seconds);
            let summary = watch::run(&watch::Plan { cairn: cairn()?, seed, time, writers, watchers }).await?;
            println!("{summary:?}");
        }
        Run::Crash { seed, rounds, clients, cut_to_synced } => {
            let summary = crash::run(&crash::Plan { cairn: cairn()?, seed, rounds, clients, cut_to_synced }).await?;
            println!("{summary:?}");
        }
        Run::Cluster { seed, members, rounds, clients, network, namespaces } => {
            let between = match (network, namespaces) {
                (true, _) => cluster::Between::Proxies,
                (false, true) => cluster::Between::Namespaces,
                (false, false) => cluster::Between::Nothing,
            };
            let faults = cluster::Fault::drawn(seed, rounds, between);
            let plan = cluster::Plan { cairn: cairn()?, seed, members, clients, between, faults };
            let summary = cluster::run(&plan).await?;
            println!("{summary}");
        }
        Run::Failover { trials, rate, etcd } => {
            let server = etcd.map_or_else(cairn, Ok)?;
            let plan = failover::Plan { server, trials: usize::try_from(trials)?, rate };
            println!("{}", failover::run(&plan).await?);
        }
        Run::Succession { kills } => {
            let plan = succession::Plan { cairn: cairn()?, kills: usize::try_from(kills)? };
            println!("{}", succession::run(&plan).await?);
        }
        Run::Upgrade { from, level, seed, clients } => {
            let plan = cluster::upgrade::Plan { from, to: cairn()?, level, seed, clients };
            println!("{}", cluster::upgrade::run(&plan).await?);
        }
        Run::Lagging { seed, members, rounds, clients } => {
            let lags = (0..rounds).map(|round| lagging::Lag::ALL[round % lagging::Lag::ALL.len()]).collect();
            let summary = lagging::run(&lagging::Plan { cairn: cairn()?, seed, members, clients, lags }).await?;
            println!("{summary:?}");
        }
    }
    Ok(())
}

fn simulate(plan: &sim::Plan, seeds: u64, twice_every: u64) {
    let summary = sim::simulate_many(plan, seeds, twice_every);
    println!("{}", summary.coverage);
    if let Some(failure) = summary.failure {
        // Of an error that is returned the place where it was made would be shown too, which says nothing.
        eprintln!("{failure}");
        std::process::exit(1);
    }
    let rate = summary.runs as f64 / summary.seconds;
    println!(
        "{seeds} seeds from {} of {} members, climate {}, over {} events: nothing broken, {rate:.1} seeds a second",
        plan.seed, plan.members, plan.zone, plan.steps
    );
}

fn print_history(plan: &sim::Plan) {
    let outcome = sim::print(plan).unwrap_or_else(|error| {
        eprintln!("{error:#}");
        std::process::exit(1);
    });
    println!("{}", outcome.coverage);
    println!("{} lines, digest {:016x}", outcome.digest.0, outcome.digest.1);
}

fn plant_named(name: &str) -> Result<sim::Plant> {
    let names = || sim::Plant::ALL.map(sim::Plant::name).join(", ");
    sim::Plant::named(name).with_context(|| format!("there is no planted bug {name:?}; there are: {}, all", names()))
}

fn zone_named(name: &str) -> Result<sim::Zone> {
    let names = || sim::Zone::ALL.map(sim::Zone::name).join(", ");
    sim::Zone::named(name).with_context(|| format!("there is no climate {name:?}; there are: {}", names()))
}

/// Looks for the first seed that catches a planted bug.
fn catch(plan: &sim::Plan, seeds: u64, plant: sim::Plant) -> Result<()> {
    for tried in 1..=seeds {
        let plan = sim::Plan { seed: plan.seed + tried - 1, plant: Some(plant), ..plan.clone() };
        if let Err(failure) = sim::simulate(&plan, false) {
            println!("{plant:<28} caught by seed {:>3} after {tried:>3} seeds: {}", plan.seed, failure.what);
            return Ok(());
        }
    }
    bail!("{plant} was not caught by {seeds} seeds")
}

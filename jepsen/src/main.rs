//! The harness as a command.

use std::path::PathBuf;

use anyhow::{Result, bail};
use cairn_jepsen::{cluster, cluster::lagging, crash, differential, process, watch};
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
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let cairn = arguments.cairn.map_or_else(process::cairn_binary, Ok)?;
    match arguments.run {
        Run::Differential { etcd, seed, sequences, steps } => {
            let etcd = etcd.map_or_else(process::etcd_binary, Ok)?;
            let (coverage, failure) =
                differential::run(&differential::Plan { etcd, cairn, seed, sequences, steps }).await?;
            println!("{coverage}");
            if let Some(failure) = failure {
                bail!("{failure}");
            }
            println!("{sequences} sequences of {steps} requests from seed {seed}: every answer equal");
        }
        Run::Watch { seed, seconds, writers, watchers } => {
            let time = std::time::Duration::from_secs(seconds);
            let summary = watch::run(&watch::Plan { cairn, seed, time, writers, watchers }).await?;
            println!("{summary:?}");
        }
        Run::Crash { seed, rounds, clients, cut_to_synced } => {
            let summary = crash::run(&crash::Plan { cairn, seed, rounds, clients, cut_to_synced }).await?;
            println!("{summary:?}");
        }
        Run::Cluster { seed, members, rounds, clients } => {
            let faults = cluster::Fault::drawn(seed, rounds);
            let summary = cluster::run(&cluster::Plan { cairn, seed, members, clients, faults }).await?;
            println!("{summary}");
        }
        Run::Lagging { seed, members, rounds, clients } => {
            let lags = (0..rounds).map(|round| lagging::Lag::ALL[round % lagging::Lag::ALL.len()]).collect();
            let summary = lagging::run(&lagging::Plan { cairn, seed, members, clients, lags }).await?;
            println!("{summary:?}");
        }
    }
    Ok(())
}

//! `cairn-load`: load for any etcd endpoint, with honest latencies.
//!
//! ```text
//! options      the command line
//! connection   one HTTP/2 connection, plain or TLS, with as little between us and the wire as gRPC allows
//! work         what a client sends: put, range, txn, leases, a control plane's mixture
//! lease        the lease calls of a client
//! watchers     watchers, and what they got and when
//! run          closed loop (each client waits for its answer) and open loop (requests leave on schedule, late or not)
//! holding      many leases of one client, and how many it lost
//! keyspace     what many keys cost: memory, disk, lists, a restart
//! report       throughput, latency percentiles, the server's CPU time per operation
//! compare      puts, transactions, reads and keep-alives on a genuine etcd and on Cairn, as a table
//! ```
//! In the open loop a latency counts from the moment the request should have left, so that a stalled server is charged for the requests it delayed.

mod cluster;
mod compare;
mod connection;
mod holding;
mod keyspace;
mod lease;
mod options;
mod report;
mod run;
mod watchers;
mod work;

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match run(&options::Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Returned, it would be shown with the place in this program where it was made.
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &options::Options) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the runtime")?;
    if let options::Work::Compare(plan) = &options.work {
        return runtime.block_on(compare::compare(options, plan));
    }
    if let options::Work::Keyspace(settings) = &options.work {
        return runtime.block_on(keyspace::run(options, settings));
    }
    if let options::Work::LeaseHold(settings) = &options.work {
        return runtime.block_on(holding::run(options, settings));
    }
    let report = runtime.block_on(run::run(options))?;
    if options.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{report}");
    }
    anyhow::ensure!(
        report.errors == 0 || options.tolerate_errors,
        "{} requests failed, the first with: {}",
        report.errors,
        report.first_error
    );
    Ok(())
}

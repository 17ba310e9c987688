//! `cairn-load compare`: puts, transactions, reads and keep-alives on a genuine etcd and on Cairn, with as many members, side by side on this machine.
//!
//! For each load both clusters start on empty directories and are measured in turn, so that whatever else the machine
//! does meets both. What is printed are medians over the runs, as a Markdown table.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{
    cluster::Cluster,
    options::{Compare, Consistency, Options, Work},
    report::Report,
    run,
};

/// How long a run may take.
const RUN_SECONDS_MAX: u64 = 15;

/// One row of the table.
struct Load {
    name: &'static str,
    work: Work,
    connections: usize,
    clients: usize,
    value_size: usize,
    total: u64,
}

fn loads() -> [Load; 8] {
    let get = |consistency| Work::Range { consistency, limit: 1, fill: true };
    let keep_alive = |stream_a_call| Work::LeaseKeepalive { stream_a_call, ttl: 60 };
    let many = |name, work, total| Load { name, work, connections: 100, clients: 1000, value_size: 256, total };
    [
        Load {
            name: "put 256 B, one client",
            work: Work::Put,
            connections: 1,
            clients: 1,
            value_size: 256,
            total: 6_000,
        },
        many("put 256 B, 100 connections, 1,000 clients", Work::Put, 80_000),
        Load {
            name: "put 1 KB, 8 connections, 64 clients",
            work: Work::Put,
            connections: 8,
            clients: 64,
            value_size: 1024,
            total: 40_000,
        },
        many("compare and put 256 B, 100 connections, 1,000 clients", Work::Txn, 60_000),
        many("linearizable get, 100 connections, 1,000 clients", get(Consistency::L), 120_000),
        many("serializable get, 100 connections, 1,000 clients", get(Consistency::S), 120_000),
        many("keep-alive, a stream each, 100 connections, 1,000 clients", keep_alive(true), 100_000),
        many("keep-alive on open streams, 100 connections, 1,000 clients", keep_alive(false), 300_000),
    ]
}

/// Measures every load and prints the table as it grows.
pub async fn compare(options: &Options, plan: &Compare) -> Result<()> {
    ensure!(plan.runs >= 1 && plan.members >= 1, "--runs and --members must be at least 1");
    println!("{}\n", machine());
    let (etcd, cairn) = (version(&plan.etcd)?, version(&plan.cairn)?);
    println!("Members: {}. Medians of {} runs in turn, {etcd} against {cairn}.\n", plan.members, plan.runs);
    println!("| work | | requests/s | p50 ms | p99 ms | server CPU µs a request |");
    println!("|---|---|---|---|---|---|");
    for load in loads() {
        let mut sides = [Side::start(&plan.etcd, plan).await?, Side::start(&plan.cairn, plan).await?];
        for nth in 0..plan.runs {
            for side in &mut sides {
                side.measure(options, &load, nth == 0).await?;
            }
        }
        let [etcd, cairn] = sides.map(|side| Medians::of(&side.reports));
        println!("| {} | etcd | {etcd} |", load.name);
        println!("| | Cairn | {cairn} |");
        println!("| | ratio | {} |", cairn.over(&etcd));
    }
    Ok(())
}

/// A cluster and what it did.
struct Side {
    cluster: Cluster,
    reports: Vec<Report>,
}

impl Side {
    async fn start(binary: &Path, plan: &Compare) -> Result<Self> {
        Ok(Self { cluster: Cluster::start(binary, &plan.dir, plan.members).await?, reports: Vec::new() })
    }

    async fn measure(&mut self, options: &Options, load: &Load, first: bool) -> Result<()> {
        let mut work = load.work.clone();
        if let Work::Range { fill, .. } = &mut work {
            *fill = first;
        }
        let mut options = options.clone();
        options.target.endpoints = self.cluster.endpoints();
        options.server_pid = self.cluster.processes();
        options.work = work;
        (options.connections, options.clients) = (load.connections, load.clients);
        (options.value_size, options.total, options.rate) = (load.value_size, load.total, None);
        options.warmup = load.total / 10;
        options.seconds_max = RUN_SECONDS_MAX;
        let report = run::run(&options).await?;
        ensure!(report.errors == 0, "{} requests failed, the first with: {}", report.errors, report.first_error);
        self.reports.push(report);
        Ok(())
    }
}

/// What one cluster did in the middle of its runs.
struct Medians {
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
}

impl Medians {
    fn of(reports: &[Report]) -> Self {
        let percentile = |report: &Report, wanted: f64| {
            let found = report.percentiles_us.iter().find(|(percentile, _)| (percentile - wanted).abs() < 0.01);
            found.map_or(0.0, |(_, us)| *us as f64 / 1000.0)
        };
        Self {
            per_second: median(reports.iter().map(|report| report.per_second)),
            p50_ms: median(reports.iter().map(|report| percentile(report, 50.0))),
            p99_ms: median(reports.iter().map(|report| percentile(report, 99.0))),
            cpu_us: median(reports.iter().map(|report| report.server_cpu_us.unwrap_or(0.0))),
        }
    }

    fn over(&self, other: &Self) -> String {
        let ratio = |ours: f64, theirs: f64| format!("{:.2}", ours / theirs.max(f64::MIN_POSITIVE));
        [
            ratio(self.per_second, other.per_second),
            ratio(self.p50_ms, other.p50_ms),
            ratio(self.p99_ms, other.p99_ms),
            ratio(self.cpu_us, other.cpu_us),
        ]
        .join(" | ")
    }
}

impl std::fmt::Display for Medians {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { per_second, p50_ms, p99_ms, cpu_us } = self;
        write!(f, "{per_second:.0} | {p50_ms:.3} | {p99_ms:.2} | {cpu_us:.1}")
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        len if len % 2 == 1 => values[len / 2],
        len => f64::midpoint(values[len / 2 - 1], values[len / 2]),
    }
}

/// Processor and kernel, for the reader of the table.
fn machine() -> String {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {}, Linux {}.", model.unwrap_or("an unknown processor"), kernel.trim())
}

/// The first line that the server prints about itself.
fn version(binary: &Path) -> Result<String> {
    let told = Command::new(binary).arg("--version").output();
    let told = told.with_context(|| format!("run {} --version", binary.display()))?;
    let name = binary.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    let own = text.lines().find(|line| line.starts_with("Cairn")).or_else(|| text.lines().next());
    Ok(format!("{name} ({})", own.unwrap_or("no version")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let median = |values: &[f64]| median(values.iter().copied()).to_string();
        assert_eq!(median(&[3.0, 1.0, 2.0]), "2");
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), "2.5");
        assert_eq!(median(&[]), "0");
    }
}

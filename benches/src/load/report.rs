//! What a run measured.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::Serialize;

/// Clock ticks a second in `/proc/<pid>/stat`; fixed on Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// Throughput, latencies and cost of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Requests answered.
    pub answered: u64,
    /// Requests failed.
    pub errors: u64,
    /// The first failure's text.
    pub first_error: String,
    /// Seconds from the first request to the last answer.
    pub seconds: f64,
    /// Requests answered a second.
    pub per_second: f64,
    /// Mean latency, microseconds.
    pub mean_us: f64,
    /// Latency percentiles, microseconds.
    pub percentiles_us: Vec<(f64, u64)>,
    /// Longest latency, microseconds.
    pub max_us: u64,
    /// CPU time of the servers per answered request, microseconds, where their process ids were given.
    pub server_cpu_us: Option<f64>,
    /// The same by kind of request, where there is more than one: kind, answered, latency percentiles in microseconds.
    pub kinds: Vec<(&'static str, u64, Percentiles)>,
    /// What watchers got, where there are any.
    pub events: Option<Events>,
    /// Seconds until all leases that were to expire were gone, counted from the moment the first could go.
    pub expired_after_seconds: Option<f64>,
}

/// Percentiles and their values.
type Percentiles = Vec<(f64, u64)>;

/// What the watchers of a run got.
#[derive(Debug, Serialize)]
pub struct Events {
    /// Events delivered, each watcher's counted.
    pub delivered: u64,
    /// Events delivered a second, the time included until the last one came.
    pub per_second: f64,
    /// From the moment a put left, or should have, to its event: percentiles in microseconds.
    pub percentiles_us: Percentiles,
    /// Longest, microseconds.
    pub max_us: u64,
    /// CPU time of the servers per event, microseconds, that of the puts included.
    pub server_cpu_us: Option<f64>,
}

impl Events {
    /// From what the watchers measured; `server_cpu` in seconds.
    pub fn new(latencies: &Histogram<u64>, seconds: f64, server_cpu: Option<f64>) -> Self {
        let delivered = latencies.len();
        Self {
            delivered,
            per_second: delivered as f64 / seconds,
            percentiles_us: percentiles(latencies),
            max_us: latencies.max(),
            server_cpu_us: server_cpu.map(|cpu| cpu * 1e6 / delivered.max(1) as f64),
        }
    }
}

/// Those that are reported.
fn percentiles(latencies: &Histogram<u64>) -> Percentiles {
    [50.0, 90.0, 99.0, 99.9].map(|p| (p, latencies.value_at_percentile(p))).to_vec()
}

impl Report {
    /// From what the clients measured, in all and by kind of request; `server_cpu` in seconds.
    pub fn new(
        latencies: &Histogram<u64>,
        kinds: &BTreeMap<&'static str, Histogram<u64>>,
        seconds: f64,
        errors: u64,
        first_error: String,
        server_cpu: Option<f64>,
    ) -> Self {
        let answered = latencies.len();
        Self {
            answered,
            errors,
            first_error,
            seconds,
            per_second: answered as f64 / seconds,
            mean_us: latencies.mean(),
            percentiles_us: percentiles(latencies),
            max_us: latencies.max(),
            server_cpu_us: server_cpu.map(|cpu| cpu * 1e6 / answered.max(1) as f64),
            kinds: match kinds.len() {
                1 => Vec::new(),
                _ => kinds.iter().map(|(kind, latencies)| (*kind, latencies.len(), percentiles(latencies))).collect(),
            },
            events: None,
            expired_after_seconds: None,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "answered    {:>12}   in {:.2} s", self.answered, self.seconds)?;
        writeln!(f, "failed      {:>12}   {}", self.errors, self.first_error)?;
        writeln!(f, "throughput  {:>12.0}   requests/s", self.per_second)?;
        writeln!(f, "mean        {:>12.3}   ms of latency", self.mean_us / 1000.0)?;
        for (percentile, us) in &self.percentiles_us {
            writeln!(f, "p{percentile:<10} {:>12.3}   ms", *us as f64 / 1000.0)?;
        }
        write!(f, "max         {:>12.3}   ms", self.max_us as f64 / 1000.0)?;
        if let Some(cpu) = self.server_cpu_us {
            write!(f, "\nserver CPU  {cpu:>12.1}   us per request")?;
        }
        for (kind, answered, percentiles) in &self.kinds {
            write!(f, "\n{kind:<11} {answered:>12}   answered,{}", in_ms(percentiles))?;
        }
        if let Some(events) = &self.events {
            write!(f, "\nevents      {:>12}   {:.0} events/s", events.delivered, events.per_second)?;
            write!(
                f,
                "\nput to event              {} max {:.3} ms",
                in_ms(&events.percentiles_us),
                events.max_us as f64 / 1000.0
            )?;
            if let Some(cpu) = events.server_cpu_us {
                write!(f, "\nserver CPU  {cpu:>12.2}   us per event")?;
            }
        }
        if let Some(seconds) = self.expired_after_seconds {
            write!(f, "\nexpired     {seconds:>12.2}   s until the last lease was gone")?;
        }
        Ok(())
    }
}

/// One line of percentiles.
fn in_ms(percentiles: &Percentiles) -> String {
    percentiles.iter().fold(String::new(), |line, (p, us)| format!("{line} p{p} {:.3} ms", *us as f64 / 1000.0))
}

/// CPU time used so far by some processes, in ticks.
#[derive(Clone, Copy)]
pub struct CpuTime(Option<u64>);

impl CpuTime {
    /// Of a process at its start.
    pub const NONE: Self = Self(Some(0));

    /// Of these processes; of none, nothing is reported.
    pub fn of(pids: &[u32]) -> Result<Self> {
        if pids.is_empty() {
            return Ok(Self(None));
        }
        let mut ticks = 0;
        for pid in pids {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .with_context(|| format!("read the CPU time of process {pid}"))?;
            // Fields 14 and 15 are user and system time; the second field, the name in parentheses, may hold spaces.
            let behind_name = stat.rsplit_once(')').context("an unreadable /proc stat line")?.1;
            let mut times = behind_name.split_whitespace().skip(11).map(str::parse::<u64>);
            ticks += times.next().context("no user time")?? + times.next().context("no system time")??;
        }
        Ok(Self(Some(ticks)))
    }

    /// Seconds used since `earlier`.
    pub fn since(&self, earlier: &Self) -> Option<f64> {
        Some((self.0? - earlier.0?) as f64 / TICKS_PER_SECOND)
    }
}

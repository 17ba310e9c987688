//! What a run measured.

use std::fmt;

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
}

impl Report {
    /// From what the clients measured; `server_cpu` in seconds.
    pub fn new(
        latencies: &Histogram<u64>,
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
            percentiles_us: [50.0, 90.0, 99.0, 99.9].map(|p| (p, latencies.value_at_percentile(p))).to_vec(),
            max_us: latencies.max(),
            server_cpu_us: server_cpu.map(|cpu| cpu * 1e6 / answered.max(1) as f64),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "answered    {:>12}   in {:.2} s", self.answered, self.seconds)?;
        writeln!(f, "failed      {:>12}   {}", self.errors, self.first_error)?;
        writeln!(f, "throughput  {:>12.0}   requests/s", self.per_second)?;
        writeln!(f, "mean        {:>12.3}   ms", self.mean_us / 1000.0)?;
        for (percentile, us) in &self.percentiles_us {
            writeln!(f, "p{percentile:<10} {:>12.3}   ms", *us as f64 / 1000.0)?;
        }
        write!(f, "max         {:>12.3}   ms", self.max_us as f64 / 1000.0)?;
        if let Some(cpu) = self.server_cpu_us {
            write!(f, "\nserver CPU  {cpu:>12.1}   us per request")?;
        }
        Ok(())
    }
}

/// CPU time used so far by some processes, in ticks.
pub struct CpuTime(Option<u64>);

impl CpuTime {
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

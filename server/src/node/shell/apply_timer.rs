//! How long applying takes, step by step.
//!
//! Commands are evaluated one after the other into one batch, which is then written to the store. The clock is read at
//! the end of each step, which is the beginning of the next one.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use cairn_proto::ApiError;

use crate::{
    node::NodeMetrics,
    state::{ApplyObserver, command::RequestKind},
};

/// Measures applying for [`NodeMetrics`]. Only the thread that applies begins and ends steps.
pub(super) struct ApplyTimer {
    metrics: NodeMetrics,
    /// What all times are counted from.
    started: Instant,
    /// When the last step ended, in nanoseconds.
    step_ended: AtomicU64,
}

impl ApplyTimer {
    pub(super) fn new(metrics: NodeMetrics) -> Self {
        Self { metrics, started: Instant::now(), step_ended: AtomicU64::new(0) }
    }

    pub(super) fn metrics(&self) -> &NodeMetrics {
        &self.metrics
    }

    /// Time since this timer was made.
    pub(super) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The first step begins now, unless applying is `resumed`: the write that the store asked to wait with has been a
    /// step all the time. Gives the time.
    pub(super) fn begin(&self, resumed: bool) -> Duration {
        let now = self.uptime();
        if !resumed {
            self.step_ended.store(nanos(now), Ordering::Relaxed);
        }
        now
    }

    /// Time from `began` to the end of the last step.
    pub(super) fn took(&self, began: Duration) -> Duration {
        Duration::from_nanos(self.step_ended.load(Ordering::Relaxed)).saturating_sub(began)
    }

    /// A step has ended: how long it took.
    fn step(&self) -> Duration {
        let now = self.uptime();
        let before = Duration::from_nanos(self.step_ended.load(Ordering::Relaxed));
        self.step_ended.store(nanos(now), Ordering::Relaxed);
        now.saturating_sub(before)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl ApplyObserver for ApplyTimer {
    fn evaluated(&self, kind: RequestKind, outcome: Result<(), ApiError>) {
        // As etcd: what is compacted already was asked for in vain, but nothing failed.
        let success = matches!(outcome, Ok(()) | Err(ApiError::Compacted));
        self.metrics.applied(kind, success, self.step());
    }

    fn written(&self) {
        self.metrics.backend_commit.observe(self.step());
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, registry::Registry};

    use super::*;

    /// The sum of a histogram, and its observations.
    fn seen(metrics: &NodeMetrics, family: &str, labels: &str) -> (f64, u64) {
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        let value = |part| {
            let name = format!("{family}_{part}{labels} ");
            page.lines().find_map(|line| line.strip_prefix(&name)?.parse::<f64>().ok()).unwrap_or(0.0)
        };
        (value("sum"), value("count") as u64)
    }

    /// Waits until some time has passed, and gives how long it was.
    fn some_time(timer: &ApplyTimer) -> f64 {
        let began = timer.uptime();
        while timer.uptime() < began + Duration::from_millis(2) {
            std::hint::spin_loop();
        }
        0.002
    }

    #[test]
    fn each_step_lasts_from_the_end_of_the_one_before() {
        let metrics = NodeMetrics::default();
        let timer = ApplyTimer::new(metrics.clone());
        some_time(&timer);
        let began = timer.begin(false);
        let first = some_time(&timer);
        timer.evaluated(RequestKind::Put, Ok(()));
        let second = some_time(&timer);
        timer.evaluated(RequestKind::Txn, Err(ApiError::NoSpace));
        timer.evaluated(RequestKind::Compact, Err(ApiError::Compacted));
        let written = some_time(&timer);
        timer.written();
        let apply = |op, success| {
            let labels = format!("{{version=\"v3\",op=\"{op}\",success=\"{success}\"}}");
            seen(&metrics, "etcd_server_apply_duration_seconds", &labels)
        };
        let (put, txn, compact) = (apply("Put", true), apply("Txn", false), apply("Compaction", true));
        assert!(put.0 >= first && put.1 == 1, "{put:?}");
        assert!(txn.0 >= second && txn.1 == 1, "{txn:?}");
        assert_eq!(compact.1, 1);
        let commit = seen(&metrics, "etcd_disk_backend_commit_duration_seconds", "");
        assert!(commit.0 >= written && commit.1 == 1, "{commit:?}");
        let all = put.0 + txn.0 + compact.0 + commit.0;
        assert!((timer.took(began).as_secs_f64() - all).abs() < 1e-6, "the steps are the whole");
    }

    #[test]
    fn a_write_that_the_store_asked_to_wait_with_lasts_until_it_is_done() {
        let metrics = NodeMetrics::default();
        let timer = ApplyTimer::new(metrics.clone());
        timer.begin(false);
        timer.evaluated(RequestKind::Put, Ok(()));
        let waited = some_time(&timer);
        let again = timer.begin(true);
        assert_eq!(timer.took(again), Duration::ZERO);
        timer.written();
        let commit = seen(&metrics, "etcd_disk_backend_commit_duration_seconds", "");
        assert!(commit.0 >= waited && commit.1 == 1, "{commit:?}");
    }
}

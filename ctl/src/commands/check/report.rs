//! What came back from the load, and the verdict on it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// A share of the asked-for rate that must be reached.
const THROUGHPUT_MIN: f64 = 0.9;
/// The slowest a put may be, in seconds.
const SLOWEST_MAX: f64 = 0.5;
/// The largest standard deviation of all latencies, in seconds.
const STDDEV_MAX: f64 = 0.1;

/// Latencies and errors of many puts.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Results {
    /// From the first put handed out to the last answer.
    pub total: Duration,
    latencies: Vec<f64>,
    errors: BTreeMap<String, u64>,
}

impl Results {
    /// A put that worked.
    pub fn latency(&mut self, latency: Duration) {
        self.latencies.push(latency.as_secs_f64());
    }

    /// A put that did not.
    pub fn error(&mut self, text: String) {
        *self.errors.entry(text).or_default() += 1;
    }

    /// Adds another's.
    pub fn merge(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        for (text, count) in other.errors {
            *self.errors.entry(text).or_default() += count;
        }
    }

    /// What went wrong, as text; empty if nothing did.
    pub fn errors(&self) -> String {
        if self.errors.is_empty() {
            return String::new();
        }
        let mut text = String::from("FAIL: too many errors\n");
        for (error, count) in &self.errors {
            let _ = writeln!(text, "FAIL: ERROR({error}) -> {count}");
        }
        text
    }

    /// The verdict as text, and whether it is a good one.
    pub fn judge(&self, limit: u32) -> (String, bool) {
        let count = self.latencies.len().max(1) as f64;
        let rate = self.latencies.len() as f64 / self.total.as_secs_f64().max(f64::MIN_POSITIVE);
        let slowest = self.latencies.iter().copied().fold(0.0, f64::max);
        let mean = self.latencies.iter().sum::<f64>() / count;
        let stddev = (self.latencies.iter().map(|latency| (latency - mean).powi(2)).sum::<f64>() / count).sqrt();

        let mut text = self.errors();
        let mut passed = text.is_empty();
        let shown_rate = rate as u64 + 1;
        let mut line = |good: bool, pass: String, fail: String| {
            text.push_str(if good { &pass } else { &fail });
            text.push('\n');
            passed &= good;
        };
        line(
            rate / f64::from(limit) > THROUGHPUT_MIN,
            format!("PASS: Throughput is {shown_rate} writes/s"),
            format!("FAIL: Throughput too low: {shown_rate} writes/s"),
        );
        line(
            slowest <= SLOWEST_MAX,
            format!("PASS: Slowest request took {slowest:.6}s"),
            format!("Slowest request took too long: {slowest:.6}s"),
        );
        line(stddev <= STDDEV_MAX, format!("PASS: Stddev is {stddev:.6}s"), format!("Stddev too high: {stddev:.6}s"));
        text.push_str(if passed { "PASS\n" } else { "FAIL\n" });
        (text, passed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(latencies: &[u64]) -> Results {
        let mut results = Results { total: Duration::from_secs(1), ..Default::default() };
        for milliseconds in latencies {
            results.latency(Duration::from_millis(*milliseconds));
        }
        results
    }

    #[test]
    fn a_fast_and_even_run_passes() {
        let (text, passed) = results(&[10, 20, 30]).judge(3);
        assert!(passed);
        assert_eq!(
            text,
            "PASS: Throughput is 4 writes/s\nPASS: Slowest request took 0.030000s\nPASS: Stddev is 0.008165s\nPASS\n"
        );
    }

    #[test]
    fn every_weakness_is_named_and_fails_the_run() {
        let mut slow = results(&[10, 900]);
        slow.error("context deadline exceeded".to_owned());
        let (text, passed) = slow.judge(10);
        assert!(!passed);
        assert_eq!(
            text,
            "FAIL: too many errors\nFAIL: ERROR(context deadline exceeded) -> 1\n\
             FAIL: Throughput too low: 3 writes/s\nSlowest request took too long: 0.900000s\n\
             Stddev too high: 0.445000s\nFAIL\n"
        );
    }
}

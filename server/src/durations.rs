//! Histograms of durations for what happens with every request.
//!
//! The metrics library's histogram is a list behind a lock. Here each bound is twice the one before, so that the bucket
//! of a duration is computed, and an observation is two relaxed additions.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// A histogram of durations. Clones share their values.
#[derive(Debug, Clone)]
pub struct Durations {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The lowest bound.
    first_nanos: u64,
    /// Observations up to each bound and above the one before; the last bucket has no bound.
    counts: Box<[AtomicU64]>,
    sum_nanos: AtomicU64,
}

impl Durations {
    /// A histogram of so many bounds, of which the lowest is `first`.
    pub fn new(first: Duration, bounds: usize) -> Self {
        let counts = (0..=bounds).map(|_| AtomicU64::new(0)).collect();
        Self { inner: Arc::new(Inner { first_nanos: nanos(first).max(1), counts, sum_nanos: AtomicU64::new(0) }) }
    }

    /// Adds an observation.
    pub fn observe(&self, took: Duration) {
        let Inner { first_nanos, counts, sum_nanos } = &*self.inner;
        let nanos = nanos(took);
        let bucket = u64::BITS - (nanos.saturating_sub(1) / first_nanos).leading_zeros();
        counts[(bucket as usize).min(counts.len() - 1)].fetch_add(1, Ordering::Relaxed);
        sum_nanos.fetch_add(nanos, Ordering::Relaxed);
    }

    /// The number of observations.
    fn count(&self) -> u64 {
        self.inner.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Inner { first_nanos, counts, sum_nanos } = &*self.inner;
        let mut bound = Duration::from_nanos(*first_nanos).as_secs_f64();
        let mut buckets = Vec::with_capacity(counts.len());
        for count in counts {
            buckets.push((bound, count.load(Ordering::Relaxed)));
            bound *= 2.0;
        }
        if let Some((bound, _)) = buckets.last_mut() {
            *bound = f64::INFINITY;
        }
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = Duration::from_nanos(sum_nanos.load(Ordering::Relaxed)).as_secs_f64();
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// Histograms of one family, one for each set of labels, which are known from the start. Clones share their values.
///
/// Those without an observation are not written out.
#[derive(Debug, Clone)]
pub struct DurationFamily<L> {
    histograms: Arc<[(L, Durations)]>,
}

impl<L> DurationFamily<L> {
    /// A family of histograms as [`Durations::new`] makes them.
    pub fn new(first: Duration, bounds: usize, labels: impl IntoIterator<Item = L>) -> Self {
        Self { histograms: labels.into_iter().map(|labels| (labels, Durations::new(first, bounds))).collect() }
    }

    /// Adds an observation to the histogram whose labels came at this place.
    ///
    /// # Panics
    /// If there is no such place.
    pub fn observe(&self, place: usize, took: Duration) {
        self.histograms[place].1.observe(took);
    }
}

impl<L: EncodeLabelSet> EncodeMetric for DurationFamily<L> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (labels, histogram) in self.histograms.iter().filter(|(_, histogram)| histogram.count() > 0) {
            histogram.encode(encoder.encode_family(labels)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::{encoding::text, metrics::histogram, registry::Registry};

    use super::*;

    #[test]
    fn a_duration_counts_up_to_the_first_bound_that_is_not_below_it() {
        // Three bounds: 100, 200 and 400 ns.
        let cases = [(0, 0), (1, 0), (100, 0), (101, 1), (200, 1), (201, 2), (400, 2), (401, 3), (u64::MAX, 3)];
        for (nanos, bucket) in cases {
            let durations = Durations::new(Duration::from_nanos(100), 3);
            durations.observe(Duration::from_nanos(nanos));
            let counts: Vec<_> = durations.inner.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
            let expected: Vec<_> = (0..4).map(|at| u64::from(at == bucket)).collect();
            assert_eq!(counts, expected, "{nanos} ns");
        }
    }

    fn text_of(registry: &Registry) -> String {
        let mut out = String::new();
        text::encode(&mut out, registry).unwrap();
        out
    }

    #[test]
    fn it_is_written_as_the_librarys_own_histogram() {
        let mut registries = [Registry::default(), Registry::default()];
        let ours = Durations::new(Duration::from_micros(100), 20);
        let theirs = histogram::Histogram::new(histogram::exponential_buckets(0.0001, 2.0, 20));
        registries[0].register("a", "b", ours.clone());
        registries[1].register("a", "b", theirs.clone());
        for micros in [0, 100, 101, 250_000, 60_000_000] {
            ours.observe(Duration::from_micros(micros));
            theirs.observe(Duration::from_micros(micros).as_secs_f64());
        }
        assert_eq!(text_of(&registries[0]), text_of(&registries[1]));
    }

    #[test]
    fn labels_without_an_observation_are_left_out() {
        let family = DurationFamily::new(Duration::from_secs(1), 1, [[("op", "Put")], [("op", "Txn")]]);
        family.observe(1, Duration::from_secs(2));
        let mut registry = Registry::default();
        registry.register("a", "b", family);
        let text = text_of(&registry);
        assert!(text.contains("a_bucket{le=\"1.0\",op=\"Txn\"} 0\na_bucket{le=\"+Inf\",op=\"Txn\"} 1\n"), "{text}");
        assert!(text.contains("a_sum{op=\"Txn\"} 2.0\na_count{op=\"Txn\"} 1\n"), "{text}");
        assert!(!text.contains("Put"), "{text}");
    }
}

//! What is counted about the connections between members, under etcd's names.

use std::time::Instant;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "labels are written as etcd writes them")]
struct To {
    To: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "labels are written as etcd writes them")]
struct From {
    From: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "labels are written as etcd writes them")]
struct Pair {
    Local: String,
    Remote: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
#[expect(non_snake_case, reason = "labels are written as etcd writes them")]
struct Dropped {
    To: String,
    reason: &'static str,
}

/// What was to be sent without a connection.
const NOT_CONNECTED: &str = "not_connected";

/// Upper bounds of a round trip, in seconds: etcd's.
fn round_trip_buckets() -> impl Iterator<Item = f64> {
    (0..16).map(|power| 0.000_1 * f64::from(1 << power))
}

/// What becomes of snapshots that go one way, by the member at the other end.
#[derive(Debug, Clone)]
struct SnapshotMetrics<L> {
    inflights: Family<L, Gauge>,
    success: Family<L, Counter>,
    failures: Family<L, Counter>,
    seconds: Family<L, Histogram, fn() -> Histogram>,
}

impl<L: Clone + std::hash::Hash + Eq> Default for SnapshotMetrics<L> {
    fn default() -> Self {
        Self {
            inflights: Family::default(),
            success: Family::default(),
            failures: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.1, 2.0, 10))),
        }
    }
}

impl<L> SnapshotMetrics<L>
where
    L: Clone + std::hash::Hash + Eq + EncodeLabelSet + std::fmt::Debug + Send + Sync + 'static,
{
    /// Enters everything into a registry; `way` is `send` or `receive`.
    fn register(&self, registry: &mut Registry, way: &str) {
        let prefix = format!("etcd_network_snapshot_{way}");
        let total = format!("Total number of successful snapshot {way}s");
        registry.register(format!("{prefix}_success"), total, self.success.clone());
        let total = format!("Total number of snapshot {way} failures");
        registry.register(format!("{prefix}_failures"), total, self.failures.clone());
        let total = format!("Total number of inflight snapshot {way}s");
        registry.register(format!("{prefix}_inflights_total"), total, self.inflights.clone());
        let latency = format!("Total latency distributions of v3 snapshot {way}s");
        registry.register_with_unit(format!("{prefix}_total_duration"), latency, Unit::Seconds, self.seconds.clone());
    }

    fn begin(&self, labels: &L) -> Transfer {
        let transfer = Transfer {
            inflights: self.inflights.get_or_create_owned(labels),
            success: self.success.get_or_create_owned(labels),
            failures: self.failures.get_or_create_owned(labels),
            seconds: self.seconds.get_or_create_owned(labels),
            started: Instant::now(),
            succeeded: false,
        };
        transfer.inflights.inc();
        transfer
    }
}

/// A snapshot under way. Dropped before it [`succeeded`](Self::succeeded), it has failed.
#[derive(Debug)]
pub(super) struct Transfer {
    inflights: Gauge,
    success: Counter,
    failures: Counter,
    seconds: Histogram,
    started: Instant,
    succeeded: bool,
}

impl Transfer {
    pub(super) fn succeeded(mut self) {
        self.succeeded = true;
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.inflights.dec();
        if self.succeeded {
            self.success.inc();
            self.seconds.observe(self.started.elapsed().as_secs_f64());
        } else {
            self.failures.inc();
        }
    }
}

/// Counters of all connections. Clones share their values.
#[derive(Debug, Clone)]
pub struct PeerMetrics {
    sent_bytes: Family<To, Counter>,
    received_bytes: Family<From, Counter>,
    sent_failures: Family<To, Counter>,
    dropped: Family<Dropped, Counter>,
    received_failures: Family<From, Counter>,
    active: Family<Pair, Gauge>,
    disconnected: Family<Pair, Counter>,
    round_trip: Family<To, Histogram, fn() -> Histogram>,
    snapshots_sent: SnapshotMetrics<To>,
    snapshots_received: SnapshotMetrics<From>,
    pub(super) lease_questions: Gauge,
    pub(super) lease_rounds: Counter,
}

impl Default for PeerMetrics {
    fn default() -> Self {
        Self {
            sent_bytes: Family::default(),
            received_bytes: Family::default(),
            sent_failures: Family::default(),
            dropped: Family::default(),
            received_failures: Family::default(),
            active: Family::default(),
            disconnected: Family::default(),
            round_trip: Family::new_with_constructor(|| Histogram::new(round_trip_buckets())),
            snapshots_sent: SnapshotMetrics::default(),
            snapshots_received: SnapshotMetrics::default(),
            lease_questions: Gauge::default(),
            lease_rounds: Counter::default(),
        }
    }
}

/// Counters of the connection to one member, looked up once.
#[derive(Debug, Clone)]
pub(super) struct LinkMetrics {
    pub(super) sent_bytes: Counter,
    pub(super) sent_failures: Counter,
    /// What was to be sent without a connection.
    pub(super) unconnected: Counter,
    /// What was to be sent while too much waited.
    pub(super) queue_full: Counter,
    /// What waited when the connection ended.
    pub(super) disconnected_with: Counter,
    pub(super) active: Gauge,
    pub(super) disconnected: Counter,
    pub(super) round_trip: Histogram,
}

/// Counters of what one member sends here, looked up once.
#[derive(Debug, Clone)]
pub(super) struct InboundMetrics {
    pub(super) received_bytes: Counter,
    pub(super) received_failures: Counter,
}

impl PeerMetrics {
    /// Enters everything into a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "etcd_network_peer_sent_bytes",
            "The total number of bytes sent to peers",
            self.sent_bytes.clone(),
        );
        registry.register(
            "etcd_network_peer_received_bytes",
            "The total number of bytes received from peers",
            self.received_bytes.clone(),
        );
        registry.register(
            "etcd_network_peer_sent_failures",
            "The total number of send failures to peers",
            self.sent_failures.clone(),
        );
        registry.register(
            "cairn_peer_dropped",
            "Messages, commands and refusals for other members that were dropped before they were sent",
            self.dropped.clone(),
        );
        registry.register(
            "etcd_network_peer_received_failures",
            "The total number of receive failures from peers",
            self.received_failures.clone(),
        );
        registry.register(
            "etcd_network_active_peers",
            "The current number of active peer connections",
            self.active.clone(),
        );
        registry.register(
            "etcd_network_disconnected_peers",
            "The total number of disconnected peers",
            self.disconnected.clone(),
        );
        registry.register_with_unit(
            "etcd_network_peer_round_trip_time",
            "Round-Trip-Time histogram between peers",
            Unit::Seconds,
            self.round_trip.clone(),
        );
        self.snapshots_sent.register(registry, "send");
        self.snapshots_received.register(registry, "receive");
        registry.register(
            "cairn_peer_lease_questions",
            "Questions about leases that wait to be sent to the leader",
            self.lease_questions.clone(),
        );
        registry.register(
            "cairn_peer_lease_rounds",
            "Calls to the leader with all questions about leases that waited",
            self.lease_rounds.clone(),
        );
    }

    pub(super) fn link(&self, own: u64, member: u64) -> LinkMetrics {
        let to = To { To: format!("{member:x}") };
        let dropped = |reason| self.dropped.get_or_create_owned(&Dropped { To: to.To.clone(), reason });
        let pair = Pair { Local: format!("{own:x}"), Remote: to.To.clone() };
        LinkMetrics {
            sent_bytes: self.sent_bytes.get_or_create_owned(&to),
            sent_failures: self.sent_failures.get_or_create_owned(&to),
            unconnected: dropped(NOT_CONNECTED),
            queue_full: dropped("queue_full"),
            disconnected_with: dropped("connection_lost"),
            active: self.active.get_or_create_owned(&pair),
            disconnected: self.disconnected.get_or_create_owned(&pair),
            round_trip: self.round_trip.get_or_create_owned(&to),
        }
    }

    /// Something for `member` was dropped, to which there is no link.
    pub(super) fn unlinked(&self, member: u64) {
        self.dropped.get_or_create(&Dropped { To: format!("{member:x}"), reason: NOT_CONNECTED }).inc();
    }

    /// A snapshot begins to be sent to `member`.
    pub(super) fn send_snapshot(&self, member: u64) -> Transfer {
        self.snapshots_sent.begin(&To { To: format!("{member:x}") })
    }

    /// A snapshot begins to be received from `member`.
    pub(super) fn receive_snapshot(&self, member: u64) -> Transfer {
        self.snapshots_received.begin(&From { From: format!("{member:x}") })
    }

    pub(super) fn inbound(&self, member: u64) -> InboundMetrics {
        let from = From { From: format!("{member:x}") };
        InboundMetrics {
            received_bytes: self.received_bytes.get_or_create_owned(&from),
            received_failures: self.received_failures.get_or_create_owned(&from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_counted_under_the_names_that_dashboards_know() {
        let metrics = PeerMetrics::default();
        let (lost, done) = (metrics.send_snapshot(0xab), metrics.send_snapshot(0xab));
        let coming = metrics.receive_snapshot(0xcd);
        let text = || {
            let mut registry = Registry::default();
            metrics.register(&mut registry);
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let has = |lines: &[&str]| {
            let text = text();
            for line in lines {
                assert!(text.lines().any(|found| found == *line), "{line} is missing in\n{text}");
            }
        };
        has(&[
            "etcd_network_snapshot_send_inflights_total{To=\"ab\"} 2",
            "etcd_network_snapshot_receive_inflights_total{From=\"cd\"} 1",
        ]);
        drop(lost);
        done.succeeded();
        coming.succeeded();
        has(&[
            "etcd_network_snapshot_send_inflights_total{To=\"ab\"} 0",
            "etcd_network_snapshot_send_success_total{To=\"ab\"} 1",
            "etcd_network_snapshot_send_failures_total{To=\"ab\"} 1",
            "etcd_network_snapshot_send_total_duration_seconds_count{To=\"ab\"} 1",
            "etcd_network_snapshot_receive_success_total{From=\"cd\"} 1",
            "etcd_network_snapshot_receive_failures_total{From=\"cd\"} 0",
            "etcd_network_snapshot_receive_total_duration_seconds_bucket{le=\"51.2\",From=\"cd\"} 1",
        ]);
    }
}

//! What is counted about the connections between members, under etcd's names.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
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

/// Upper bounds of a round trip, in seconds: etcd's.
fn round_trip_buckets() -> impl Iterator<Item = f64> {
    (0..16).map(|power| 0.000_1 * f64::from(1 << power))
}

/// Counters of all connections. Clones share their values.
#[derive(Debug, Clone)]
pub struct PeerMetrics {
    sent_bytes: Family<To, Counter>,
    received_bytes: Family<From, Counter>,
    sent_failures: Family<To, Counter>,
    received_failures: Family<From, Counter>,
    active: Family<Pair, Gauge>,
    disconnected: Family<Pair, Counter>,
    round_trip: Family<To, Histogram, fn() -> Histogram>,
    pub(super) lease_questions: Gauge,
}

impl Default for PeerMetrics {
    fn default() -> Self {
        Self {
            sent_bytes: Family::default(),
            received_bytes: Family::default(),
            sent_failures: Family::default(),
            received_failures: Family::default(),
            active: Family::default(),
            disconnected: Family::default(),
            round_trip: Family::new_with_constructor(|| Histogram::new(round_trip_buckets())),
            lease_questions: Gauge::default(),
        }
    }
}

/// Counters of the connection to one member, looked up once.
#[derive(Debug, Clone)]
pub(super) struct LinkMetrics {
    pub(super) sent_bytes: Counter,
    pub(super) sent_failures: Counter,
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
        registry.register(
            "cairn_peer_lease_questions",
            "Questions about leases that wait to be sent to the leader",
            self.lease_questions.clone(),
        );
    }

    pub(super) fn link(&self, own: u64, member: u64) -> LinkMetrics {
        let to = To { To: format!("{member:x}") };
        let pair = Pair { Local: format!("{own:x}"), Remote: to.To.clone() };
        LinkMetrics {
            sent_bytes: self.sent_bytes.get_or_create_owned(&to),
            sent_failures: self.sent_failures.get_or_create_owned(&to),
            active: self.active.get_or_create_owned(&pair),
            disconnected: self.disconnected.get_or_create_owned(&pair),
            round_trip: self.round_trip.get_or_create_owned(&to),
        }
    }

    pub(super) fn inbound(&self, member: u64) -> InboundMetrics {
        let from = From { From: format!("{member:x}") };
        InboundMetrics {
            received_bytes: self.received_bytes.get_or_create_owned(&from),
            received_failures: self.received_failures.get_or_create_owned(&from),
        }
    }
}

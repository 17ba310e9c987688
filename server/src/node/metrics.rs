//! What a replica counts and measures, under the names that etcd gave to the same things.

use prometheus_client::{
    metrics::{
        counter::Counter,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// Upper bounds for what waits for a disk, in seconds: etcd's fourteen from 1 ms up, and three finer ones for fast
/// disks.
fn disk_buckets() -> impl Iterator<Item = f64> {
    (0..17).map(|power| 0.000_125 * f64::from(1 << power))
}

/// A replica's metrics. Clones share their values.
#[derive(Debug, Clone)]
pub struct NodeMetrics {
    /// `etcd_server_has_leader`: whether a leader is known.
    pub has_leader: Gauge,
    /// `etcd_server_is_leader`: whether this member leads.
    pub is_leader: Gauge,
    /// `etcd_server_is_learner`: whether this member has no vote.
    pub is_learner: Gauge,
    /// `etcd_server_leader_changes_seen_total`: leaders seen.
    pub leader_changes_seen: Counter,
    /// `cairn_node_disk_stalls_total`: times that leadership was given away because the disk did not finish a write.
    pub disk_stalls: Counter,
    /// `etcd_server_proposals_committed_total`: index of the last committed entry.
    pub proposals_committed: Gauge,
    /// `etcd_server_proposals_applied_total`: index of the last applied entry.
    pub proposals_applied: Gauge,
    /// `etcd_server_proposals_pending`: proposals that wait for their result.
    pub proposals_pending: Gauge,
    /// `etcd_server_proposals_failed_total`: proposals that ended without a result.
    pub proposals_failed: Counter,
    /// `etcd_server_slow_read_indexes_total`: read indexes asked for again because no answer came.
    pub slow_read_indexes: Counter,
    /// `etcd_server_read_indexes_failed_total`: reads that were not confirmed in time.
    pub read_indexes_failed: Counter,
    /// `etcd_server_slow_apply_total`: pieces of the log whose applying took over 100 ms.
    pub slow_apply: Counter,
    /// `etcd_disk_wal_fsync_duration_seconds`: `fdatasync` of the raft log.
    pub wal_fsync: Histogram,
    /// `etcd_disk_wal_write_bytes_total`: bytes written to the raft log.
    pub wal_write_bytes: Gauge,
    /// `etcd_disk_backend_commit_duration_seconds`: the store's flush.
    pub backend_commit: Histogram,
    /// `etcd_disk_backend_snapshot_duration_seconds`: making a snapshot for other members.
    pub backend_snapshot: Histogram,
    /// `etcd_server_snapshot_apply_in_progress_total`: whether a received snapshot is taking the state's place.
    pub snapshot_applying: Gauge,
    /// `etcd_mvcc_hash_duration_seconds`: hashing everything stored.
    pub hash: Histogram,
    /// `etcd_mvcc_hash_rev_duration_seconds`: hashing all keys at a revision.
    pub hash_at: Histogram,
    /// `etcd_mvcc_db_total_size_in_bytes`: the store's files.
    pub db_size: Gauge,
    /// `etcd_mvcc_db_total_size_in_use_in_bytes`: live data in them, estimated.
    pub db_size_in_use: Gauge,
    /// `etcd_debugging_lease_granted_total`: leases granted.
    pub leases_granted: Counter,
    /// `etcd_debugging_lease_revoked_total`: leases revoked, for whatever reason.
    pub leases_revoked: Counter,
    /// `etcd_debugging_lease_renewed_total`: keep-alives that this member has answered as leader.
    pub leases_renewed: Counter,
    /// `etcd_debugging_server_lease_expired_total`: leases that ran out.
    pub leases_expired: Counter,
    /// `etcd_debugging_lease_ttl_total`: seconds that leases were granted for.
    pub lease_ttl: Histogram,
    /// `cairn_node_apply_stalls_total`: times that applying waited for the store.
    pub apply_stalls: Counter,
    /// `cairn_node_requests_refused_total`: requests refused because too many waited.
    pub requests_refused: Counter,
    /// `cairn_node_entry_cache_bytes`: entries of the raft log in memory.
    pub entry_cache_bytes: Gauge,
    /// `cairn_node_wal_size_bytes`: the raft log's files.
    pub wal_size: Gauge,
}

impl Default for NodeMetrics {
    fn default() -> Self {
        Self {
            has_leader: Gauge::default(),
            is_leader: Gauge::default(),
            is_learner: Gauge::default(),
            leader_changes_seen: Counter::default(),
            disk_stalls: Counter::default(),
            proposals_committed: Gauge::default(),
            proposals_applied: Gauge::default(),
            proposals_pending: Gauge::default(),
            proposals_failed: Counter::default(),
            slow_read_indexes: Counter::default(),
            read_indexes_failed: Counter::default(),
            slow_apply: Counter::default(),
            wal_fsync: Histogram::new(disk_buckets()),
            wal_write_bytes: Gauge::default(),
            backend_commit: Histogram::new(disk_buckets()),
            // 10 ms to 11 minutes.
            backend_snapshot: Histogram::new(exponential_buckets(0.01, 2.0, 17)),
            snapshot_applying: Gauge::default(),
            // 10 ms to 164 s.
            hash: Histogram::new(exponential_buckets(0.01, 2.0, 15)),
            hash_at: Histogram::new(exponential_buckets(0.01, 2.0, 15)),
            db_size: Gauge::default(),
            db_size_in_use: Gauge::default(),
            leases_granted: Counter::default(),
            leases_revoked: Counter::default(),
            leases_renewed: Counter::default(),
            leases_expired: Counter::default(),
            // A second to three months.
            lease_ttl: Histogram::new(exponential_buckets(1.0, 2.0, 24)),
            apply_stalls: Counter::default(),
            requests_refused: Counter::default(),
            entry_cache_bytes: Gauge::default(),
            wal_size: Gauge::default(),
        }
    }
}

impl NodeMetrics {
    /// Enters everything into a registry. Counters get the suffix `_total` and histograms their unit when they are
    /// written out.
    pub fn register(&self, registry: &mut Registry) {
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("etcd_server_has_leader", "Whether or not a leader exists. 1 is existence, 0 is not", &self.has_leader);
        gauge("etcd_server_is_leader", "Whether or not this member is a leader. 1 if is, 0 otherwise", &self.is_leader);
        gauge(
            "etcd_server_is_learner",
            "Whether or not this member is a learner. 1 if is, 0 otherwise",
            &self.is_learner,
        );
        gauge(
            "etcd_server_proposals_committed_total",
            "The total number of consensus proposals committed",
            &self.proposals_committed,
        );
        gauge(
            "etcd_server_proposals_applied_total",
            "The total number of consensus proposals applied",
            &self.proposals_applied,
        );
        gauge(
            "etcd_server_proposals_pending",
            "The current number of pending proposals to commit",
            &self.proposals_pending,
        );
        gauge("etcd_disk_wal_write_bytes_total", "Total number of bytes written in WAL", &self.wal_write_bytes);
        gauge(
            "etcd_mvcc_db_total_size_in_bytes",
            "Total size of the underlying database physically allocated in bytes",
            &self.db_size,
        );
        gauge(
            "etcd_mvcc_db_total_size_in_use_in_bytes",
            "Total size of the underlying database logically in use in bytes",
            &self.db_size_in_use,
        );
        gauge(
            "etcd_server_snapshot_apply_in_progress_total",
            "1 if the server is applying the incoming snapshot. 0 if none",
            &self.snapshot_applying,
        );
        gauge("cairn_node_entry_cache_bytes", "Bytes of raft log entries in memory", &self.entry_cache_bytes);
        gauge("cairn_node_wal_size_bytes", "Bytes of the raft log's files", &self.wal_size);
        let mut counter = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("etcd_server_leader_changes_seen", "The number of leader changes seen", &self.leader_changes_seen);
        counter(
            "cairn_node_disk_stalls",
            "Times that leadership was given away because the disk did not finish a write to the raft log",
            &self.disk_stalls,
        );
        counter("etcd_server_proposals_failed", "The total number of failed proposals seen", &self.proposals_failed);
        counter(
            "etcd_server_slow_read_indexes",
            "The total number of pending read indexes not in sync with leader's or timed out read index requests",
            &self.slow_read_indexes,
        );
        counter(
            "etcd_server_read_indexes_failed",
            "The total number of failed read indexes seen",
            &self.read_indexes_failed,
        );
        counter(
            "etcd_server_slow_apply",
            "The total number of slow apply requests (likely overloaded from slow disk)",
            &self.slow_apply,
        );
        counter("etcd_debugging_lease_granted", "The total number of granted leases", &self.leases_granted);
        counter("etcd_debugging_lease_revoked", "The total number of revoked leases", &self.leases_revoked);
        counter(
            "etcd_debugging_lease_renewed",
            "The number of renewed leases seen by the leader",
            &self.leases_renewed,
        );
        counter("etcd_debugging_server_lease_expired", "The total number of expired leases", &self.leases_expired);
        counter("cairn_node_apply_stalls", "Times that applying waited for the store", &self.apply_stalls);
        counter(
            "cairn_node_requests_refused",
            "Requests refused because too many were waiting",
            &self.requests_refused,
        );
        registry.register("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs", self.lease_ttl.clone());
        let mut seconds = |name: &str, help: &str, histogram: &Histogram| {
            registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        };
        seconds("etcd_disk_wal_fsync_duration", "The latency distributions of fsync called by WAL", &self.wal_fsync);
        seconds(
            "etcd_disk_backend_commit_duration",
            "The latency distributions of commit called by backend",
            &self.backend_commit,
        );
        seconds(
            "etcd_disk_backend_snapshot_duration",
            "The latency distribution of backend snapshots",
            &self.backend_snapshot,
        );
        seconds("etcd_mvcc_hash_duration", "The latency distribution of storage hash operation", &self.hash);
        seconds(
            "etcd_mvcc_hash_rev_duration",
            "The latency distribution of storage hash by revision operation",
            &self.hash_at,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_ones_dashboards_know() {
        let metrics = NodeMetrics::default();
        metrics.proposals_failed.inc();
        let mut registry = Registry::default();
        metrics.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "etcd_server_has_leader 0",
            "etcd_server_proposals_committed_total 0",
            "etcd_server_proposals_failed_total 1",
            "etcd_server_slow_read_indexes_total 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0",
            "etcd_disk_backend_commit_duration_seconds_count 0",
            "etcd_mvcc_db_total_size_in_bytes 0",
            "etcd_server_snapshot_apply_in_progress_total 0",
            "etcd_disk_backend_snapshot_duration_seconds_count 0",
            "etcd_mvcc_hash_duration_seconds_bucket{le=\"0.01\"} 0",
            "etcd_mvcc_hash_rev_duration_seconds_count 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}

//! What a replica counts and measures, under the names that etcd gave to the same things.

use std::time::{Duration, Instant};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Metric, Registry, Unit},
};

use crate::{
    durations::{DurationFamily, Durations},
    node::core::{DropReason, Drops},
    state::{command::RequestKind, mvcc::Counts},
};

/// Upper bounds for what waits for a disk, in seconds: etcd's fourteen from 1 ms up, and three finer ones for fast
/// disks.
fn disk_buckets() -> impl Iterator<Item = f64> {
    (0..17).map(|power| 0.000_125 * f64::from(1 << power))
}

/// Requests that go through the log, as etcd calls them, in the order of [`RequestKind`]. Cairn's own is the last.
const REQUESTS: [&str; 13] = [
    "Put",
    "DeleteRange",
    "Txn",
    "Compaction",
    "LeaseGrant",
    "LeaseRevoke",
    "LeaseCheckpoint",
    "Alarm",
    "ClusterMemberAttrSet",
    "ClusterVersionSet",
    "CommandLevel",
    "Auth",
    "Authenticate",
];

/// Reads, as etcd calls them, in the order of [`ReadKind`].
const READS: [&str; 2] = ["Range", "ReadonlyTxn"];

/// What reads without the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadKind {
    /// A range.
    Range,
    /// A transaction of nothing but ranges.
    Txn,
}

#[derive(Debug, Clone, EncodeLabelSet)]
struct ApplyLabels {
    version: &'static str,
    op: &'static str,
    success: &'static str,
}

/// Both labels of `success`, in the order of `bool`.
const SUCCESS: [&str; 2] = ["false", "true"];

/// The place of a kind and its success among histograms.
fn place(kind: usize, success: bool) -> usize {
    2 * kind + usize::from(success)
}

fn apply_durations() -> DurationFamily<ApplyLabels> {
    let labels = REQUESTS.iter().flat_map(|op| SUCCESS.map(|success| ApplyLabels { version: "v3", op, success }));
    // 0.1 ms to 52 s.
    DurationFamily::new(Duration::from_micros(100), 20, labels)
}

/// Names and values of labels.
type Labels<const N: usize> = [(&'static str, &'static str); N];

fn request_durations() -> DurationFamily<Labels<2>> {
    let names = REQUESTS.iter().chain(&READS);
    let labels = names.flat_map(|name| SUCCESS.map(|success| [("type", *name), ("success", success)]));
    // 1 ms to 8 s.
    DurationFamily::new(Duration::from_millis(1), 14, labels)
}

/// What is measured of snapshots that other members send.
#[derive(Debug, Clone)]
pub struct ReceivedMetrics {
    /// `etcd_snap_db_fsync_duration_seconds`: a sync of one of its files.
    pub file_sync: Durations,
    /// `etcd_snap_db_save_total_duration_seconds`: receiving and saving all files.
    pub save: Durations,
    /// `etcd_snap_fsync_duration_seconds`: making durable that it is the state to start from.
    pub switch: Durations,
}

impl Default for ReceivedMetrics {
    fn default() -> Self {
        // 1 ms to 8 s, but 0.1 s to 51 s for the whole.
        let durations = || Durations::new(Duration::from_millis(1), 14);
        let save = Durations::new(Duration::from_millis(100), 10);
        Self { file_sync: durations(), save, switch: durations() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Dropped {
    reason: &'static str,
}

/// Counters for all reasons, from the start on.
fn dropped() -> Family<Dropped, Counter> {
    let dropped = Family::<Dropped, Counter>::default();
    for reason in DropReason::ALL {
        drop(dropped.get_or_create(&Dropped { reason: reason.name() }));
    }
    dropped
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
    /// `etcd_server_slow_apply_total`: pieces of the log whose applying took longer than `--warning-apply-duration`.
    pub slow_apply: Counter,
    /// `etcd_server_apply_duration_seconds`: evaluating one command, by kind and success.
    apply: DurationFamily<ApplyLabels>,
    /// `etcd_server_request_duration_seconds`: from a request to its result, by kind and success.
    requests: DurationFamily<Labels<2>>,
    /// `etcd_server_range_duration_seconds`: reading a range, by success.
    range: DurationFamily<Labels<1>>,
    /// `etcd_server_heartbeat_send_failures_total`: times that this member, as leader, was late with its heartbeats.
    pub heartbeats_late: Counter,
    /// `etcd_server_learner_promote_successes`: learners that were promoted through this member.
    pub learner_promotions: Counter,
    /// `etcd_mvcc_range_total`: ranges, in txns or not.
    pub ranges: Counter,
    /// `etcd_mvcc_put_total`: keys set.
    pub puts: Counter,
    /// `etcd_mvcc_delete_total`: deletes of a key or range.
    pub deletes: Counter,
    /// `etcd_mvcc_txn_total`: requests of more than one operation.
    pub txns: Counter,
    /// `etcd_debugging_mvcc_total_put_size_in_bytes`: bytes of keys and values set.
    pub put_bytes: Gauge,
    /// `etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds`: one step of a compaction.
    pub compaction_pause: Histogram,
    /// `etcd_debugging_mvcc_db_compaction_total_duration_milliseconds`: a compaction with all its pauses.
    pub compaction_total: Histogram,
    /// `etcd_debugging_mvcc_db_compaction_keys_total`: revisions removed.
    pub compaction_keys: Counter,
    /// `etcd_debugging_mvcc_db_compaction_last`: when the last one ended, in seconds since 1970; 0 for never.
    pub compaction_last: Gauge,
    /// `etcd_disk_backend_defrag_duration_seconds`: a defragmentation.
    pub defrag: Histogram,
    /// `etcd_disk_defrag_inflight`: defragmentations that run.
    pub defrags_running: Gauge,
    /// `etcd_disk_wal_fsync_duration_seconds`: `fdatasync` of the raft log.
    pub wal_fsync: Histogram,
    /// `etcd_disk_wal_write_duration_seconds`: the write before it.
    pub wal_write: Durations,
    /// `etcd_disk_wal_write_bytes_total`: bytes written to the raft log.
    pub wal_write_bytes: Gauge,
    /// `etcd_disk_backend_commit_duration_seconds`: writing to the store what a piece of the log did.
    pub backend_commit: Durations,
    /// `cairn_node_flush_duration_seconds`: making durable what was written to the store.
    pub flush: Histogram,
    /// What is measured of snapshots that other members send.
    pub received: ReceivedMetrics,
    /// `etcd_disk_backend_snapshot_duration_seconds`: making a snapshot for other members.
    pub backend_snapshot: Histogram,
    /// `etcd_debugging_snap_save_total_duration_seconds`: the same, in the buckets of this name.
    pub snap_save: Histogram,
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
    /// `cairn_node_dropped_total`: what of other members was dropped, by the reason.
    dropped: Family<Dropped, Counter>,
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
            apply: apply_durations(),
            requests: request_durations(),
            range: DurationFamily::new(Duration::from_micros(100), 20, SUCCESS.map(|success| [("success", success)])),
            heartbeats_late: Counter::default(),
            learner_promotions: Counter::default(),
            ranges: Counter::default(),
            puts: Counter::default(),
            deletes: Counter::default(),
            txns: Counter::default(),
            put_bytes: Gauge::default(),
            // 1 ms to 4 s.
            compaction_pause: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            // 0.1 s to 14 minutes.
            compaction_total: Histogram::new(exponential_buckets(100.0, 2.0, 14)),
            compaction_keys: Counter::default(),
            compaction_last: Gauge::default(),
            // 0.1 s to 7 minutes.
            defrag: Histogram::new(exponential_buckets(0.1, 2.0, 13)),
            defrags_running: Gauge::default(),
            wal_fsync: Histogram::new(disk_buckets()),
            wal_write: Durations::new(Duration::from_millis(1), 14),
            wal_write_bytes: Gauge::default(),
            // As `disk_buckets`.
            backend_commit: Durations::new(Duration::from_micros(125), 17),
            flush: Histogram::new(disk_buckets()),
            received: ReceivedMetrics::default(),
            // 10 ms to 11 minutes.
            backend_snapshot: Histogram::new(exponential_buckets(0.01, 2.0, 17)),
            // 1 ms to 8 s.
            snap_save: Histogram::new(exponential_buckets(0.001, 2.0, 14)),
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
            dropped: dropped(),
            entry_cache_bytes: Gauge::default(),
            wal_size: Gauge::default(),
        }
    }
}

fn seconds<M: Metric + Clone>(registry: &mut Registry, name: &str, help: &str, metric: &M) {
    registry.register_with_unit(name, help, Unit::Seconds, metric.clone());
}

impl NodeMetrics {
    /// A command was evaluated.
    pub fn applied(&self, kind: RequestKind, success: bool, took: Duration) {
        self.apply.observe(place(kind as usize, success), took);
    }

    /// A request that began then has its result of the log, which may be that it is refused, or has failed to get one.
    pub fn requested(&self, kind: RequestKind, success: bool, began: Instant) {
        self.requests.observe(place(kind as usize, success), began.elapsed());
    }

    /// A read that began then has ended. `reading` is when it had waited for all that was acknowledged before it.
    pub fn read(&self, kind: ReadKind, success: bool, began: Instant, reading: Option<Instant>) {
        let now = Instant::now();
        self.requests.observe(place(REQUESTS.len() + kind as usize, success), now - began);
        if let Some(reading) = reading.filter(|_| kind == ReadKind::Range) {
            self.range.observe(usize::from(success), now - reading);
        }
    }

    /// Counts what was dropped between two looks.
    pub(super) fn count_drops(&self, before: Drops, now: Drops) {
        for (reason, (before, now)) in DropReason::ALL.iter().zip(before.into_iter().zip(now)) {
            if now > before {
                self.dropped.get_or_create(&Dropped { reason: reason.name() }).inc_by(now - before);
            }
        }
    }

    /// Counts what commands or reads have done.
    pub fn count(&self, counts: Counts) {
        for (counter, by) in [
            (&self.ranges, counts.ranges),
            (&self.puts, counts.puts),
            (&self.deletes, counts.deletes),
            (&self.txns, counts.txns),
        ] {
            if by > 0 {
                counter.inc_by(by);
            }
        }
        if counts.put_bytes > 0 {
            self.put_bytes.inc_by(counts.put_bytes as i64);
        }
    }

    /// Enters what is counted about keys.
    fn register_keys(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        let ranges = "Total number of ranges seen by this member";
        counter("etcd_mvcc_range", ranges, &self.ranges);
        counter("etcd_debugging_mvcc_range", ranges, &self.ranges);
        // The debugging names of these are older than 3.5, and still asked for.
        counter("etcd_debugging_mvcc_put", "Total number of puts seen by this member", &self.puts);
        counter("etcd_debugging_mvcc_delete", "Total number of deletes seen by this member", &self.deletes);
        counter("etcd_debugging_mvcc_txn", "Total number of txns seen by this member", &self.txns);
        counter("etcd_mvcc_put", "Total number of puts seen by this member", &self.puts);
        counter("etcd_mvcc_delete", "Total number of deletes seen by this member", &self.deletes);
        counter("etcd_mvcc_txn", "Total number of txns seen by this member", &self.txns);
        counter("etcd_debugging_mvcc_db_compaction_keys", "Total number of db keys compacted", &self.compaction_keys);
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge(
            "etcd_debugging_mvcc_db_total_size_in_bytes",
            "Total size of the underlying database physically allocated in bytes",
            &self.db_size,
        );
        gauge(
            "etcd_debugging_mvcc_total_put_size_in_bytes",
            "The total size of put kv pairs seen by this member",
            &self.put_bytes,
        );
        gauge(
            "etcd_debugging_mvcc_db_compaction_last",
            "The unix time of the last db compaction. Resets to 0 on start",
            &self.compaction_last,
        );
        gauge(
            "etcd_disk_defrag_inflight",
            "Whether or not defrag is active on the member. 1 means active, 0 means not",
            &self.defrags_running,
        );
        registry.register(
            "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
            "Bucketed histogram of db compaction pause duration",
            self.compaction_pause.clone(),
        );
        registry.register(
            "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
            "Bucketed histogram of db compaction total duration",
            self.compaction_total.clone(),
        );
    }

    /// Enters what is measured with every request, and what is measured likewise.
    fn register_durations(&self, registry: &mut Registry) {
        seconds(
            registry,
            "etcd_server_apply_duration",
            "The latency distributions of applying a command, without the write to the store that all commands of a \
             piece of the log share",
            &self.apply,
        );
        seconds(
            registry,
            "etcd_server_request_duration",
            "Response latency distribution in seconds for each type",
            &self.requests,
        );
        seconds(registry, "etcd_server_range_duration", "The latency distributions of reading a range", &self.range);
        seconds(
            registry,
            "etcd_disk_wal_write_duration",
            "The latency distributions of write called by WAL",
            &self.wal_write,
        );
        seconds(
            registry,
            "etcd_disk_backend_commit_duration",
            "The latency distributions of writing what a piece of the log did to the store, waits for the store included",
            &self.backend_commit,
        );
        seconds(
            registry,
            "etcd_snap_db_fsync_duration",
            "The latency distributions of syncing a file of a received snapshot",
            &self.received.file_sync,
        );
        seconds(
            registry,
            "etcd_snap_db_save_total_duration",
            "The total latency distributions of receiving and saving a snapshot",
            &self.received.save,
        );
        seconds(
            registry,
            "etcd_snap_fsync_duration",
            "The latency distributions of making a received snapshot the state to start from",
            &self.received.switch,
        );
    }

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
        registry.register("cairn_node_dropped", "What of other members was dropped", self.dropped.clone());
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
        counter(
            "etcd_server_heartbeat_send_failures",
            "The total number of leader heartbeat send failures (likely overloaded from slow disk)",
            &self.heartbeats_late,
        );
        counter(
            "etcd_server_learner_promote_successes",
            "The total number of successful learner promotions while this member is leader",
            &self.learner_promotions,
        );
        self.register_keys(registry);
        self.register_durations(registry);
        registry.register("etcd_debugging_lease_ttl_total", "Bucketed histogram of lease TTLs", self.lease_ttl.clone());
        seconds(
            registry,
            "etcd_disk_wal_fsync_duration",
            "The latency distributions of fsync called by WAL",
            &self.wal_fsync,
        );
        seconds(registry, "cairn_node_flush_duration", "Making durable what was written to the store", &self.flush);
        seconds(
            registry,
            "etcd_disk_backend_snapshot_duration",
            "The latency distribution of backend snapshots",
            &self.backend_snapshot,
        );
        seconds(
            registry,
            "etcd_debugging_snap_save_total_duration",
            "The total latency distributions of saving a snapshot",
            &self.snap_save,
        );
        seconds(registry, "etcd_mvcc_hash_duration", "The latency distribution of storage hash operation", &self.hash);
        seconds(
            registry,
            "etcd_mvcc_hash_rev_duration",
            "The latency distribution of storage hash by revision operation",
            &self.hash_at,
        );
        seconds(
            registry,
            "etcd_disk_backend_defrag_duration",
            "The latency distribution of backend defragmentation",
            &self.defrag,
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
            "cairn_node_dropped_total{reason=\"queue_full\"} 0",
            "etcd_disk_wal_fsync_duration_seconds_bucket{le=\"0.001\"} 0",
            "etcd_disk_backend_commit_duration_seconds_count 0",
            "etcd_mvcc_db_total_size_in_bytes 0",
            "etcd_server_snapshot_apply_in_progress_total 0",
            "etcd_disk_backend_snapshot_duration_seconds_count 0",
            "etcd_debugging_snap_save_total_duration_seconds_bucket{le=\"8.192\"} 0",
            "etcd_mvcc_hash_duration_seconds_bucket{le=\"0.01\"} 0",
            "etcd_mvcc_hash_rev_duration_seconds_count 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is missing in\n{text}");
        }
    }
}

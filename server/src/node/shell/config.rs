//! What a node is started with.

use std::{path::PathBuf, time::Duration};

use crate::{
    lease::CHECKPOINT_INTERVAL,
    log::LogOptions,
    node::{
        ChangeRules,
        core::RetentionOptions,
        identity::{InitialMember, Origin},
    },
    raft::RaftOptions,
    state::{PIN_HOLD_MAX, mvcc::ImageOptions},
    store::RocksOptions,
};

/// Configuration of a node. [`NodeConfig::new`] gives etcd's defaults.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where the raft log is kept, if not under `data_dir`.
    pub wal_dir: Option<PathBuf>,
    /// This member's name among `initial_cluster`. Only looked at when the data directory is empty, like the next two.
    pub name: String,
    /// The initial members.
    pub initial_cluster: Vec<InitialMember>,
    /// Tells clusters apart whose members have the same URLs.
    pub token: String,
    /// Where the other members reach this one, as its flags say.
    pub peer_urls: Vec<String>,
    /// For a member that joins a running cluster, what that one told; it counts instead of the flags above.
    pub origin: Option<Origin>,
    /// Whether this member drops all others and goes on alone with what it has (`--force-new-cluster`). Has no effect on an
    /// empty data directory.
    pub force_new_cluster: bool,
    /// Time between a leader's heartbeats, which is a tick.
    pub heartbeat: Duration,
    /// Time without a leader until a follower campaigns, a multiple of `heartbeat`.
    pub election: Duration,
    /// Whether a member asks if it could win an election before it campaigns.
    pub pre_vote: bool,
    /// Which membership changes are allowed.
    pub rules: ChangeRules,
    /// Bytes of raft log entries kept in memory; those not applied are kept whatever this says.
    pub entry_cache_bytes: usize,
    /// What of the raft log is kept.
    pub retention: RetentionOptions,
    /// Size of a file of the raft log.
    pub segment_bytes: u64,
    /// Requests that may wait at once.
    pub requests_max: usize,
    /// Bytes of writes that may wait at once.
    pub requests_bytes_max: usize,
    /// Writes to the log that may be unsynced before further commands wait, to be written together.
    pub writes_in_flight_max: usize,
    /// The store.
    pub store: RocksOptions,
    /// How fast compactions go.
    pub compaction: CompactionPace,
    /// Bytes of recent events kept in memory for watchers.
    pub watch_window_bytes: usize,
    /// When the key index is written to a file.
    pub image: ImageOptions,
    /// How long a compaction waits for a running read.
    pub pin_hold_max: Duration,
    /// Time without a renewal after which the remaining time of a lease is recorded.
    pub lease_checkpoint: Duration,
    /// Applying a piece of the log for longer than this is logged.
    pub slow_apply: Duration,
    /// Notes beside the log what its completed syncs have covered, and keeps the store as it was last flushed, so that a test can destroy everything else.
    pub record_syncs: bool,
}

/// How fast compactions go: quickly enough to keep up, slowly enough to leave the disk to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompactionPace {
    /// Revisions removed between pauses, at least 1.
    pub revisions: usize,
    /// How long a pause is.
    pub pause: Duration,
}

impl Default for CompactionPace {
    fn default() -> Self {
        Self { revisions: 1000, pause: Duration::from_millis(10) }
    }
}

impl NodeConfig {
    /// The defaults, for a cluster of one member that is named `default`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let name = "default".to_owned();
        let peer_urls = vec!["http://localhost:2380".to_owned()];
        Self {
            data_dir: data_dir.into(),
            wal_dir: None,
            initial_cluster: vec![InitialMember { name: name.clone(), peer_urls: peer_urls.clone() }],
            peer_urls,
            name,
            token: "etcd-cluster".to_owned(),
            origin: None,
            force_new_cluster: false,
            heartbeat: Duration::from_millis(100),
            election: Duration::from_secs(1),
            pre_vote: true,
            rules: ChangeRules::default(),
            entry_cache_bytes: RaftOptions::CACHE_BYTES,
            retention: RetentionOptions::default(),
            segment_bytes: LogOptions::SEGMENT_BYTES,
            requests_max: 32 << 10,
            requests_bytes_max: 64 << 20,
            writes_in_flight_max: 2,
            store: RocksOptions::default(),
            compaction: CompactionPace::default(),
            watch_window_bytes: 16 << 20,
            image: ImageOptions::default(),
            pin_hold_max: PIN_HOLD_MAX,
            lease_checkpoint: CHECKPOINT_INTERVAL,
            slow_apply: Duration::from_millis(100),
            record_syncs: false,
        }
    }

    /// Ticks without a leader until a follower campaigns.
    pub(super) fn election_ticks(&self) -> usize {
        let ticks = self.election.as_nanos().div_ceil(self.heartbeat.as_nanos().max(1));
        // raft-rs wants more than one heartbeat in it.
        usize::try_from(ticks).unwrap_or(usize::MAX).max(2)
    }

    /// Ticks that pass in a time, at least.
    pub(super) fn ticks(&self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos().div_ceil(self.heartbeat.as_nanos().max(1))).unwrap_or(u64::MAX)
    }

    /// Ticks after which a request is told that it took too long: 5 seconds and two elections.
    pub(super) fn request_ticks(&self) -> u64 {
        self.ticks(Duration::from_secs(5) + 2 * self.election)
    }

    /// Ticks after which a read index is asked for again: half a second.
    pub(super) fn read_retry_ticks(&self) -> u64 {
        self.ticks(Duration::from_millis(500))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_counted_in_heartbeats() {
        let mut config = NodeConfig::new("x");
        assert_eq!((config.election_ticks(), config.request_ticks(), config.read_retry_ticks()), (10, 70, 5));
        config.heartbeat = Duration::from_millis(30);
        assert_eq!((config.election_ticks(), config.request_ticks()), (34, 234));
    }
}

//! Times, sizes and counts: what they may be, and what a value beyond that is taken for.
//!
//! As in etcd, most values that make no sense are replaced and not refused: the getters here give what counts, and
//! [`Config::validate`] says what was replaced. What ends an etcd, or what a Cairn could not live with, is an error.

use std::time::Duration;

use super::error::{ConfigError, Notice};
use super::settings::{AutoCompaction, Config};
use super::validate::invalid;

/// The longest election time-out: etcd's limit, beyond which a cluster is dead for too long to call it highly
/// available.
const MAX_ELECTION_TIMEOUT: Duration = Duration::from_secs(50);

/// The shortest `--raft-read-timeout`: three signs of life may get lost.
const MIN_READ_TIMEOUT: Duration = Duration::from_secs(3);

/// The shortest `--watch-progress-notify-interval`, as in etcd.
const MIN_PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Above this, `--max-request-bytes` is warned about: 10 MiB, as in etcd.
const RECOMMENDED_MAX_REQUEST_BYTES: usize = 10 * 1024 * 1024;

/// The largest request: 1 GiB, so that with its overhead a message length fits what gRPC can frame.
const MAX_REQUEST_BYTES: usize = 1024 * 1024 * 1024;

/// The smallest memtable that RocksDB does not silently enlarge: 64 KiB.
const MIN_MEMTABLE_BYTES: usize = 64 * 1024;

/// What stands for the default when it is zero.
macro_rules! unless_zero {
    ($($(#[$doc:meta])* $field:ident: $type:ty;)*) => {$(
        $(#[$doc])*
        pub fn $field(&self) -> $type {
            if self.$field == <$type>::default() { Config::default().$field } else { self.$field }
        }
    )*};
}

impl Config {
    unless_zero! {
        /// Commands after which the log may be cut.
        snapshot_count: u64;
        /// Commands kept in the log when it is cut.
        snapshot_catchup_entries: u64;
        /// Revisions removed in one step of a compaction.
        compaction_batch_limit: usize;
        /// The pause between steps of a compaction.
        compaction_sleep_interval: Duration;
        /// Streams that a connection may have open.
        max_concurrent_streams: u32;
    }

    /// The largest request in bytes.
    pub fn max_request_bytes(&self) -> usize {
        self.max_request_bytes.min(MAX_REQUEST_BYTES)
    }

    /// The silence on a connection between members after which it counts as dead.
    pub fn peer_read_timeout(&self) -> Duration {
        self.raft_read_timeout.max(MIN_READ_TIMEOUT)
    }

    /// The silence after which a watcher that asked for it is told the revision.
    pub fn watch_progress_notify_interval(&self) -> Duration {
        match self.watch_progress_notify_interval {
            Duration::ZERO => Config::default().watch_progress_notify_interval,
            interval => interval.max(MIN_PROGRESS_INTERVAL),
        }
    }

    pub(super) fn validate_timers(&self, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
        let (heartbeat, election) = (self.heartbeat_interval.as_millis(), self.election_timeout.as_millis());
        if heartbeat == 0 {
            return invalid("--heartbeat-interval must be >0 (set to 0ms)");
        }
        if election == 0 {
            return invalid("--election-timeout must be >0 (set to 0ms)");
        }
        if heartbeat.saturating_mul(5) > election {
            return invalid(format!(
                "--election-timeout[{election}ms] should be at least as 5 times as --heartbeat-interval[{heartbeat}ms]"
            ));
        }
        if self.election_timeout > MAX_ELECTION_TIMEOUT {
            return invalid(format!(
                "--election-timeout[{election}ms] is too long, and should be set less than {}ms",
                MAX_ELECTION_TIMEOUT.as_millis()
            ));
        }
        if self.compact_hash_check_time.is_zero() {
            return invalid("--compact-hash-check-time must be >0 (set to 0s)");
        }
        if self.auto_compaction == AutoCompaction::Periodic(Duration::ZERO) {
            return invalid("--auto-compaction-retention must be >0, or off");
        }
        if self.raft_read_timeout < MIN_READ_TIMEOUT {
            let text = format!(
                "{:?} is raised to {MIN_READ_TIMEOUT:?}: members give signs of life every second",
                self.raft_read_timeout
            );
            notices.push(Notice::new("--raft-read-timeout", text));
        }
        let progress = self.watch_progress_notify_interval();
        if progress != self.watch_progress_notify_interval {
            let text = format!("{:?} is raised to {progress:?}", self.watch_progress_notify_interval);
            notices.push(Notice::new("--watch-progress-notify-interval", text));
        }
        if self.compaction_sleep_interval.is_zero() {
            let text = format!("0s stands for the default, {:?}", self.compaction_sleep_interval());
            notices.push(Notice::new("--compaction-sleep-interval", text));
        }
        Ok(())
    }

    pub(super) fn validate_limits(&self, notices: &mut Vec<Notice>) -> Result<(), ConfigError> {
        if self.max_request_bytes == 0 {
            return invalid("--max-request-bytes must be >0: without requests a member cannot join its cluster");
        }
        if self.max_request_bytes > RECOMMENDED_MAX_REQUEST_BYTES {
            let text = format!(
                "{} bytes exceed the recommended {RECOMMENDED_MAX_REQUEST_BYTES}; {MAX_REQUEST_BYTES} is the most",
                self.max_request_bytes
            );
            notices.push(Notice::new("--max-request-bytes", text));
        }
        for (flag, given, counts) in [
            ("--snapshot-count", self.snapshot_count, self.snapshot_count()),
            ("--snapshot-catchup-entries", self.snapshot_catchup_entries, self.snapshot_catchup_entries()),
            ("--compaction-batch-limit", self.compaction_batch_limit as u64, self.compaction_batch_limit() as u64),
            (
                "--max-concurrent-streams",
                u64::from(self.max_concurrent_streams),
                u64::from(self.max_concurrent_streams()),
            ),
        ] {
            if given != counts {
                notices.push(Notice::new(flag, format!("{given} stands for the default, {counts}")));
            }
        }
        if self.max_txn_ops == 0 {
            notices.push(Notice::new("--max-txn-ops", "0 refuses every transaction that is not empty"));
        }
        if self.snapshot_send_bytes_per_second == 0 {
            return invalid("--snapshot-send-bytes-per-second must be >0");
        }
        if self.memtable_bytes < MIN_MEMTABLE_BYTES {
            return invalid(format!(
                "--memtable-bytes must be at least {MIN_MEMTABLE_BYTES} (set to {})",
                self.memtable_bytes
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap_err().to_string()
    }

    fn notices(change: impl FnOnce(&mut Config)) -> Vec<String> {
        let mut config = Config::default();
        change(&mut config);
        config.validate().unwrap().into_iter().map(|notice| format!("{}: {}", notice.setting, notice.text)).collect()
    }

    #[test]
    fn an_election_takes_at_least_five_heartbeats_and_at_most_fifty_seconds() {
        assert_eq!(
            error(|c| c.election_timeout = Duration::from_millis(499)),
            "--election-timeout[499ms] should be at least as 5 times as --heartbeat-interval[100ms]"
        );
        assert_eq!(
            error(|c| c.election_timeout = Duration::from_millis(50_001)),
            "--election-timeout[50001ms] is too long, and should be set less than 50000ms"
        );
        assert_eq!(error(|c| c.heartbeat_interval = Duration::ZERO), "--heartbeat-interval must be >0 (set to 0ms)");
        assert!(notices(|c| c.election_timeout = Duration::from_millis(500)).is_empty());
    }

    #[test]
    fn limits_below_what_a_member_can_live_with_are_refused() {
        assert!(error(|c| c.max_request_bytes = 0).contains("--max-request-bytes must be >0"));
        assert!(
            error(|c| c.snapshot_send_bytes_per_second = 0).contains("--snapshot-send-bytes-per-second must be >0")
        );
        assert!(error(|c| c.memtable_bytes = 1).contains("--memtable-bytes must be at least"));
        assert!(error(|c| c.compact_hash_check_time = Duration::ZERO).contains("must be >0 (set to 0s)"));
    }

    #[test]
    fn what_is_out_of_range_is_replaced_and_said() {
        let zeros = |c: &mut Config| {
            (c.snapshot_count, c.snapshot_catchup_entries, c.compaction_batch_limit) = (0, 0, 0);
            (c.max_concurrent_streams, c.max_txn_ops) = (0, 0);
            (c.compaction_sleep_interval, c.watch_progress_notify_interval) = (Duration::ZERO, Duration::ZERO);
        };
        assert_eq!(notices(zeros).len(), 7, "{:?}", notices(zeros));
        let mut config = Config::default();
        zeros(&mut config);
        let default = Config::default();
        assert_eq!((config.snapshot_count(), config.snapshot_catchup_entries()), (10_000, 5_000));
        assert_eq!((config.compaction_batch_limit(), config.max_concurrent_streams()), (1_000, u32::MAX));
        assert_eq!(config.compaction_sleep_interval(), default.compaction_sleep_interval);
        assert_eq!(config.watch_progress_notify_interval(), default.watch_progress_notify_interval);
        config.watch_progress_notify_interval = Duration::from_nanos(1);
        assert_eq!(config.watch_progress_notify_interval(), Duration::from_millis(100));
        config.max_request_bytes = usize::MAX;
        assert_eq!(config.max_request_bytes(), MAX_REQUEST_BYTES);
        assert_eq!(notices(|c| c.max_request_bytes = 11 << 20).len(), 1);
    }
}

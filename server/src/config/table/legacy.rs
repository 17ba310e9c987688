//! Names from older releases of etcd: those that only moved, and those that no release does anything with.

use super::super::flag::{
    Class::{Alias, Dropped, Effect, Ignored},
    Draft, Flag, Group, Kind, put,
};
use super::{rows, set};

pub(super) static OLDER: &[Flag] = rows! { Older:
    "experimental-bootstrap-defrag-threshold-megabytes" Uint "0", "", Alias("bootstrap-defrag-threshold-megabytes");
    "experimental-compact-hash-check-time" Duration "1m", "", Alias("compact-hash-check-time");
    "experimental-compaction-batch-limit" Uint "1000", "", Alias("compaction-batch-limit");
    "experimental-compaction-sleep-interval" Duration "10ms", "", Alias("compaction-sleep-interval");
    "experimental-corrupt-check-time" Duration "0s", "", Alias("corrupt-check-time");
    "experimental-distributed-tracing-address" Text "localhost:4317", "", Alias("distributed-tracing-address");
    "experimental-distributed-tracing-instance-id" Text "", "", Alias("distributed-tracing-instance-id");
    "experimental-distributed-tracing-sampling-rate" Int "0", "", Alias("distributed-tracing-sampling-rate");
    "experimental-distributed-tracing-service-name" Text "etcd", "", Alias("distributed-tracing-service-name");
    "experimental-downgrade-check-time" Duration "5s", "", Alias("downgrade-check-time");
    "experimental-enable-distributed-tracing" Bool "false", "", Alias("enable-distributed-tracing");
    "experimental-max-learners" Uint "1", "", Alias("max-learners");
    "experimental-memory-mlock" Bool "false", "", Alias("memory-mlock");
    "experimental-peer-skip-client-san-verification" Bool "false", "", Alias("peer-skip-client-san-verification");
    "experimental-snapshot-catchup-entries" Uint "5000", "", Alias("snapshot-catchup-entries");
    "experimental-warning-apply-duration" Duration "100ms", "", Alias("warning-apply-duration");
    "experimental-warning-unary-request-duration" Duration "300ms", "", Alias("warning-unary-request-duration");
    "experimental-watch-progress-notify-interval" Duration "10m", "", Alias("watch-progress-notify-interval");
    "experimental-compact-hash-check-enabled" Bool "false", "Opens the gate CompactHashCheck of --feature-gates.", Effect(set!(compact_hash_check));
    "experimental-enable-lease-checkpoint" Bool "false", "the remaining time of leases longer than --lease-checkpoint-interval is always recorded", Ignored;
    "experimental-enable-lease-checkpoint-persist" Bool "false", "what is recorded is always kept", Ignored;
    "experimental-initial-corrupt-check" Bool "false", "Opens the gate InitialCorruptCheck of --feature-gates.", Effect(set!(initial_corrupt_check));
    "experimental-set-member-localaddr" Bool "false", "the system chooses the local address of peer connections", Ignored;
    "experimental-stop-grpc-service-on-defrag" Bool "false", "there is no defragmentation that would stop requests", Ignored;
    "experimental-txn-mode-write-with-shared-buffer" Bool "true", "there is no bbolt transaction", Ignored;
    "experimental-enable-v2v3" Text "", "the v2 API is not served", Dropped;
    "enable-v2" Bool "false", "the v2 API is not served", Dropped;
    "v2-deprecation" Text "write-only", "Accepted if it is write-only, write-only-drop-data or gone: there is no v2 store.", Effect(|_, text| check_v2_deprecation(text));
    "proxy" Text "off", "the v2 proxy is not served", Dropped;
    "proxy-failure-wait" Uint "5000", "the v2 proxy is not served", Ignored;
    "proxy-refresh-interval" Uint "30000", "the v2 proxy is not served", Ignored;
    "proxy-dial-timeout" Uint "1000", "the v2 proxy is not served", Ignored;
    "proxy-write-timeout" Uint "5000", "the v2 proxy is not served", Ignored;
    "proxy-read-timeout" Uint "0", "the v2 proxy is not served", Ignored;
    "cluster-active-size" Any "", "etcd ignores it too", Ignored;
    "cluster-remove-delay" Any "", "etcd ignores it too", Ignored;
    "cluster-sync-interval" Any "", "etcd ignores it too", Ignored;
    "config" Any "", "etcd ignores it too; the config file is --config-file", Ignored;
    "force" Any "", "etcd ignores it too", Ignored;
    "max-result-buffer" Any "", "etcd ignores it too", Ignored;
    "max-retry-attempts" Any "", "etcd ignores it too", Ignored;
    "peer-heartbeat-interval" Any "", "etcd ignores it too; the flag is --heartbeat-interval", Ignored;
    "peer-election-timeout" Any "", "etcd ignores it too; the flag is --election-timeout", Ignored;
    "retry-interval" Any "", "etcd ignores it too", Ignored;
    "snapshot" Any "", "etcd ignores it too", Ignored;
    "v" Any "", "etcd ignores it too", Ignored;
    "vv" Any "", "etcd ignores it too", Ignored;
};

/// etcd 3.7 has no stage any more at which the v2 store is written and read.
fn check_v2_deprecation(text: &str) -> Result<(), String> {
    match text {
        "write-only" | "write-only-drop-data" | "gone" => Ok(()),
        _ => Err("expected write-only, write-only-drop-data or gone: there is no v2 store".to_owned()),
    }
}

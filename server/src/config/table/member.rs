//! Flags of the member itself: storage, limits, client port, monitoring, logging, memory.

use super::super::flag::{
    Class::{Action, Effect, Ignored, Pending, Refused},
    Draft, Flag, Group, Kind, put,
};
use super::super::settings::MetricsLevel;
use super::super::value::millis;
use super::{rows, set};

pub(super) static MEMBER: &[Flag] = rows! { Member:
    "name" Text "default", "Human-readable name for this member.", Effect(set!(name));
    "data-dir" Text "", "Path to the data directory (empty: ${name}.cairn).", Effect(set!(data_dir));
    "wal-dir" Text "", "Path to a directory of its own for the raft log (empty: in the data directory).", Effect(set!(wal_dir));
    "snapshot-count" Uint "10000", "Number of committed commands after which the raft log may be cut.", Effect(set!(snapshot_count));
    "snapshot-catchup-entries" Uint "5000", "Number of commands kept in the raft log when it is cut, of 64 MiB at most; who lags further is sent a snapshot.", Effect(set!(snapshot_catchup_entries));
    "heartbeat-interval" Millis "100", "Time (in milliseconds) of a heartbeat interval.", Effect(|draft, text| { draft.config.heartbeat_interval = millis(text)?; Ok(()) });
    "election-timeout" Millis "1000", "Time (in milliseconds) for an election to timeout; at least 5 heartbeat intervals.", Effect(|draft, text| { draft.config.election_timeout = millis(text)?; Ok(()) });
    "initial-election-tick-advance" Bool "true", "a member that starts waits the whole election time-out, and one without others campaigns at once", Ignored;
    "listen-peer-urls" Urls "http://localhost:2380", "List of URLs to listen on for peer traffic.", Effect(set!(listen_peer_urls));
    "listen-client-urls" Urls "http://localhost:2379", "List of URLs to listen on for client gRPC traffic, and HTTP as long as --listen-client-http-urls is not given. http and https may be mixed.", Effect(set!(listen_client_urls));
    "listen-client-http-urls" Urls "", "List of URLs to listen on for HTTP-only client traffic. Takes HTTP away from --listen-client-urls.", Effect(set!(listen_client_http_urls));
    "max-snapshots" Uint "5", "snapshots are not kept as files", Ignored;
    "max-wals" Uint "5", "log segments are recycled, and kept only as long as they are needed", Ignored;
    "quota-backend-bytes" Int "0", "Raise the NOSPACE alarm when the state exceeds this many bytes (0: 2 GiB, negative: no limit).", Effect(set!(quota_backend_bytes));
    "backend-bbolt-freelist-type" Text "map", "there is no bbolt file", Ignored;
    "backend-batch-interval" Duration "0s", "every batch of commands is one write to the store", Ignored;
    "backend-batch-limit" Int "0", "every batch of commands is one write to the store", Ignored;
    "max-txn-ops" Uint "128", "Maximum number of operations permitted in a transaction.", Effect(set!(max_txn_ops));
    "max-request-bytes" Uint "1572864", "Maximum client request size in bytes the server will accept.", Effect(set!(max_request_bytes));
    "max-concurrent-streams" Uint "4294967295", "Maximum concurrent streams that each client can open at a time.", Effect(set!(max_concurrent_streams));
    "enable-grpc-gateway" Bool "true", "Serve the JSON gateway.", Pending(set!(enable_grpc_gateway), "the JSON gateway is not served yet");
    "grpc-keepalive-min-time" Duration "5s", "Minimum duration that a client should wait before pinging the server.", Effect(set!(grpc_keepalive_min_time));
    "grpc-keepalive-interval" Duration "2h", "Frequency of server-to-client pings to check if a connection is alive (0 to disable).", Effect(set!(grpc_keepalive_interval));
    "grpc-keepalive-timeout" Duration "20s", "Additional duration of wait before closing a non-responsive connection (0 to disable).", Effect(set!(grpc_keepalive_timeout));
    "socket-reuse-port" Bool "false", "Set SO_REUSEPORT on listeners, allowing other processes to bind the same ports.", Effect(set!(socket_reuse_port));
    "socket-reuse-address" Bool "false", "listeners always set SO_REUSEADDR, so that a restart need not wait", Ignored;
    "raft-read-timeout" Duration "5s", "Silence on a connection between members after which it counts as dead.", Effect(set!(raft_read_timeout));
    "raft-write-timeout" Duration "5s", "a connection that takes nothing shows in answers that do not come: see --raft-read-timeout", Ignored;
    "compaction-batch-limit" Uint "1000", "Maximum revisions removed in each step of a compaction.", Effect(set!(compaction_batch_limit));
    "compaction-sleep-interval" Duration "10ms", "Pause between the steps of a compaction.", Effect(set!(compaction_sleep_interval));
    "watch-progress-notify-interval" Duration "10m", "Duration of periodic watch progress notifications.", Effect(set!(watch_progress_notify_interval));
    "lease-checkpoint-interval" Duration "5m", "Time without a renewal after which the remaining time of a lease is recorded, so that it survives a change of leader (1s at least).", Effect(set!(lease_checkpoint_interval));
    "bootstrap-defrag-threshold-megabytes" Uint "0", "there is no defragmentation to do", Ignored;
    "memory-mlock" Bool "false", "memory is not locked", Ignored;
    "unsafe-no-fsync" Bool "false", "an acknowledged write is always on disk", Ignored;
};

pub(super) static MONITORING: &[Flag] = rows! { Monitoring:
    "metrics" Text "basic", "Set level of detail for exported metrics; extensive adds a latency histogram for every RPC. Anything else is basic.", Effect(|draft, text| { draft.config.metrics = MetricsLevel::named(text); Ok(()) });
    "listen-metrics-urls" Urls "", "List of URLs to listen on for the /metrics and health endpoints. https uses the client port's TLS.", Effect(set!(listen_metrics_urls));
    "warning-apply-duration" Duration "100ms", "Log a warning when applying a piece of the log takes longer.", Effect(set!(warning_apply_duration));
    "warning-unary-request-duration" Duration "300ms", "Log a warning when a unary request takes longer.", Effect(set!(warning_unary_request_duration));
    "enable-pprof" Bool "false", "there is no Go runtime to profile", Ignored;
    "enable-distributed-tracing" Bool "false", "traces are not exported", Ignored;
    "distributed-tracing-address" Text "localhost:4317", "traces are not exported", Ignored;
    "distributed-tracing-service-name" Text "etcd", "traces are not exported", Ignored;
    "distributed-tracing-instance-id" Text "", "traces are not exported", Ignored;
    "distributed-tracing-sampling-rate" Int "0", "traces are not exported", Ignored;
};

pub(super) static LOGGING: &[Flag] = rows! { Logging:
    "logger" Text "zap", "log lines have the form of etcd's zap logger, and no other; etcd takes no other either", Refused;
    "log-outputs" List "default", "Comma-separated list of stderr, stdout (default: stderr) and files to append to.", Effect(set!(log.outputs));
    "log-level" Text "info", "Least severe level to log: debug, info, warn, error, panic or fatal.", Effect(set!(log.level));
    "log-format" Text "json", "Form of log lines: json or console.", Effect(set!(log.format));
    "enable-log-rotation" Bool "false", "Put the one file among --log-outputs aside when it gets large, as --log-rotation-config-json says.", Effect(|draft, text| put(&mut draft.rotates_log, text));
    "log-rotation-config-json" Text "{\"maxsize\": 100, \"maxage\": 0, \"maxbackups\": 0, \"localtime\": false, \"compress\": false}", "For --enable-log-rotation, in JSON: maxsize in MiB (0: 100), maxage in days and maxbackups (0: no limit) of files that were put aside, whether the times in their names are localtime, whether to compress them.", Effect(|draft, text| { text.clone_into(&mut draft.log_rotation); Ok(()) });
    "disable-log-sampling" Bool "false", "log lines are never sampled", Ignored;
};

pub(super) static MEMORY: &[Flag] = rows! { Memory:
    "memtable-bytes" Uint "16777216", "Size of one of the store's two memtables.", Effect(set!(memtable_bytes));
    "block-cache-bytes" Uint "33554432", "Size of the store's cache of data blocks.", Effect(set!(block_cache_bytes));
    "entry-cache-bytes" Uint "33554432", "Size of the cache of recent raft entries.", Effect(set!(entry_cache_bytes));
    "watch-window-bytes" Uint "16777216", "Size of the window of recent events for watchers.", Effect(set!(watch_window_bytes));
    "snapshot-send-bytes-per-second" Uint "268435456", "Bytes of snapshots sent to other members in a second.", Effect(set!(snapshot_send_bytes_per_second));
    "api-threads" Uint "0", "Threads that serve clients (0: one for each core).", Effect(set!(api_threads));
};

pub(super) static COMMANDS: &[Flag] = rows! { Commands:
    "config-file" Text "", "Path to a YAML file with all settings; other flags and environment variables are then ignored.", Action;
    "version" Bool "false", "Print the version and exit.", Action;
    "help" Bool "false", "Print this text and exit.", Action;
};

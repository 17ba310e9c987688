use std::collections::BTreeSet;
use std::time::Duration;

use super::super::flag::{Class, Draft, Origin};
use super::super::log_settings::{LogConfig, LogFormat, LogLevel, LogOutput, LogRotation};
use super::super::settings::{AutoCompaction, ClusterState, Config, MetricsLevel};
use super::super::tls::{CipherSuite, TlsVersion};
use super::*;
use crate::types::Url;

/// The configuration after one or more flags.
fn given(settings: &[(&str, &str)]) -> Config {
    let mut draft = Draft::default();
    for (name, value) in settings {
        draft.apply(find(name).unwrap_or_else(|| panic!("no flag {name}")), value, Origin::Flag).unwrap();
    }
    draft.finish().unwrap().0
}

fn urls(texts: &[&str]) -> Vec<Url> {
    texts.iter().map(|text| Url::parse(text).unwrap()).collect()
}

/// Holds that a flag set to `value` changes the default configuration in exactly the way of `change`.
#[track_caller]
fn takes_effect(name: &str, value: &str, change: impl FnOnce(&mut Config)) {
    let mut expected = Config::default();
    change(&mut expected);
    assert_ne!(expected, Config::default(), "{name}={value} must change something");
    assert_eq!(given(&[(name, value)]), expected, "{name}={value}");
    assert!(matches!(find(name).unwrap().class, Class::Effect(_) | Class::Pending(..)), "{name}");
}

#[test]
fn names_are_unique_and_grouped() {
    let mut names = BTreeSet::new();
    for flag in flags() {
        assert!(names.insert(flag.name), "{} is there twice", flag.name);
    }
    for group in GROUPS {
        assert!(group.windows(2).all(|pair| pair[0].group == pair[1].group));
    }
}

#[test]
fn every_default_in_the_table_is_the_default_of_the_configuration() {
    for flag in flags() {
        let mut draft = Draft::default();
        draft.apply(flag, flag.default, Origin::Flag).unwrap_or_else(|error| panic!("{}: {error}", flag.name));
        let aliases: usize = usize::from(matches!(flag.class, Class::Alias(_)));
        let (config, notices) = draft.finish().unwrap();
        assert_eq!(config, Config::default(), "{}", flag.name);
        assert_eq!(notices.len(), aliases, "{}: {notices:?}", flag.name);
    }
}

#[test]
fn every_older_name_stands_for_a_flag_of_the_same_syntax_and_default() {
    for flag in flags() {
        if let Class::Alias(target) = flag.class {
            let target = find(target).unwrap_or_else(|| panic!("{} stands for nothing", flag.name));
            assert!(!matches!(target.class, Class::Alias(_) | Class::Action));
            assert_eq!((flag.kind, flag.default), (target.kind, target.default), "{}", flag.name);
        }
    }
}

#[test]
fn every_flag_without_effect_says_why() {
    for flag in flags() {
        assert_eq!(flag.text.is_empty(), matches!(flag.class, Class::Alias(_)), "{}", flag.name);
    }
}

#[test]
fn member_flags_take_effect() {
    takes_effect("name", "a", |c| c.name = "a".to_owned());
    takes_effect("data-dir", "/d", |c| c.data_dir = Some("/d".into()));
    takes_effect("wal-dir", "/w", |c| c.wal_dir = Some("/w".into()));
    takes_effect("snapshot-count", "7", |c| c.snapshot_count = 7);
    takes_effect("snapshot-catchup-entries", "7", |c| c.snapshot_catchup_entries = 7);
    takes_effect("heartbeat-interval", "50", |c| c.heartbeat_interval = Duration::from_millis(50));
    takes_effect("election-timeout", "700", |c| c.election_timeout = Duration::from_millis(700));
    takes_effect("listen-peer-urls", "http://h:1", |c| c.listen_peer_urls = urls(&["http://h:1"]));
    takes_effect("listen-client-urls", "https://b:1,http://a:1", |c| {
        c.listen_client_urls = urls(&["http://a:1", "https://b:1"]);
    });
    takes_effect("listen-client-http-urls", "http://h:1", |c| c.listen_client_http_urls = urls(&["http://h:1"]));
    takes_effect("quota-backend-bytes", "-1", |c| c.quota_backend_bytes = -1);
    takes_effect("max-txn-ops", "7", |c| c.max_txn_ops = 7);
    takes_effect("max-request-bytes", "7", |c| c.max_request_bytes = 7);
    takes_effect("max-concurrent-streams", "7", |c| c.max_concurrent_streams = 7);
    takes_effect("enable-grpc-gateway", "false", |c| c.enable_grpc_gateway = false);
    takes_effect("grpc-keepalive-min-time", "1s", |c| c.grpc_keepalive_min_time = Duration::from_secs(1));
    takes_effect("grpc-keepalive-interval", "0", |c| c.grpc_keepalive_interval = Duration::ZERO);
    takes_effect("grpc-keepalive-timeout", "1m", |c| c.grpc_keepalive_timeout = Duration::from_mins(1));
    takes_effect("socket-reuse-port", "true", |c| c.socket_reuse_port = true);
    takes_effect("compaction-batch-limit", "7", |c| c.compaction_batch_limit = 7);
    takes_effect("compaction-sleep-interval", "7ms", |c| c.compaction_sleep_interval = Duration::from_millis(7));
    takes_effect("watch-progress-notify-interval", "5s", |c| c.watch_progress_notify_interval = Duration::from_secs(5));
    takes_effect("lease-checkpoint-interval", "5s", |c| c.lease_checkpoint_interval = Duration::from_secs(5));
}

#[test]
fn clustering_flags_take_effect() {
    takes_effect("initial-advertise-peer-urls", "http://h:1", |c| {
        c.initial_advertise_peer_urls = urls(&["http://h:1"]);
    });
    takes_effect("initial-cluster", "a=http://a:1,b=http://b:1", |c| {
        c.initial_cluster = vec![
            ("a".to_owned(), Url::parse("http://a:1").unwrap()),
            ("b".to_owned(), Url::parse("http://b:1").unwrap()),
        ];
    });
    takes_effect("initial-cluster-state", "existing", |c| c.initial_cluster_state = ClusterState::Existing);
    takes_effect("initial-cluster-token", "t", |c| c.initial_cluster_token = "t".to_owned());
    takes_effect("advertise-client-urls", "http://h:1", |c| c.advertise_client_urls = urls(&["http://h:1"]));
    takes_effect("force-new-cluster", "true", |c| c.force_new_cluster = true);
    takes_effect("strict-reconfig-check", "false", |c| c.strict_reconfig_check = false);
    takes_effect("max-learners", "2", |c| c.max_learners = 2);
    takes_effect("raft-read-timeout", "7s", |c| c.raft_read_timeout = Duration::from_secs(7));
    takes_effect("pre-vote", "false", |c| c.pre_vote = false);
    takes_effect("auto-compaction-retention", "2", |c| {
        c.auto_compaction = AutoCompaction::Periodic(Duration::from_hours(2));
    });
    takes_effect("corrupt-check-time", "5m", |c| c.corrupt_check_time = Duration::from_mins(5));
    takes_effect("compact-hash-check-time", "5m", |c| c.compact_hash_check_time = Duration::from_mins(5));
}

#[test]
fn gates_are_opened_by_name_as_a_group_or_by_their_older_flags() {
    takes_effect("feature-gates", "InitialCorruptCheck=true", |c| c.initial_corrupt_check = true);
    takes_effect("feature-gates", "CompactHashCheck=true", |c| c.compact_hash_check = true);
    takes_effect("feature-gates", "CompactHashCheck=false,AllAlpha=true", |c| c.initial_corrupt_check = true);
    takes_effect("experimental-initial-corrupt-check", "true", |c| c.initial_corrupt_check = true);
    takes_effect("experimental-compact-hash-check-enabled", "true", |c| c.compact_hash_check = true);
    let older = ("experimental-initial-corrupt-check", "false");
    let config = given(&[("feature-gates", "AllAlpha=true"), older]);
    assert!(config.compact_hash_check && !config.initial_corrupt_check, "what is named counts more than the group");
    let mut draft = Draft::default();
    for (name, value) in [older, ("feature-gates", "InitialCorruptCheck=true")] {
        draft.apply(find(name).unwrap(), value, Origin::Flag).unwrap();
    }
    assert!(draft.finish().unwrap_err().to_string().ends_with("set the same thing: keep one of the two"));
}

#[test]
fn a_gate_that_opens_nothing_is_warned_about() {
    let mut draft = Draft::default();
    draft
        .apply(find("feature-gates").unwrap(), "LeaseCheckpoint=true,CompactHashCheck=true", Origin::Variable)
        .unwrap();
    let (config, notices) = draft.finish().unwrap();
    assert!(config.compact_hash_check);
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].setting, "ETCD_FEATURE_GATES");
    assert!(notices[0].text.starts_with("accepted, but without effect: LeaseCheckpoint: "), "{notices:?}");
}

#[test]
fn mode_and_retention_of_auto_compaction_come_in_any_order() {
    let (mode, retention) = (("auto-compaction-mode", "revision"), ("auto-compaction-retention", "1000"));
    let expected = Config { auto_compaction: AutoCompaction::Revision(1000), ..Config::default() };
    assert_eq!(given(&[mode, retention]), expected);
    assert_eq!(given(&[retention, mode]), expected);
}

#[test]
fn rotation_is_described_by_one_flag_and_switched_on_by_another() {
    let (on, small) = (("enable-log-rotation", "true"), ("log-rotation-config-json", "{\"maxsize\": 1}"));
    let rotation = LogRotation { max_size_mib: 1, ..LogRotation::default() };
    assert_eq!(given(&[on, small]).log.rotation, Some(rotation));
    assert_eq!(given(&[small]).log.rotation, None);
    let broken = ("log-rotation-config-json", "{");
    assert_eq!(given(&[broken]).log.rotation, None, "etcd looks at it only if files are rotated");
    let mut draft = Draft::default();
    for (name, value) in [on, broken] {
        draft.apply(find(name).unwrap(), value, Origin::Flag).unwrap();
    }
    let error = draft.finish().unwrap_err().to_string();
    assert!(error.contains("for --log-rotation-config-json: improperly formatted log rotation config"), "{error}");
}

#[test]
fn security_flags_take_effect() {
    takes_effect("cert-file", "c", |c| c.client_tls.cert_file = Some("c".into()));
    takes_effect("key-file", "k", |c| c.client_tls.key_file = Some("k".into()));
    takes_effect("trusted-ca-file", "ca", |c| c.client_tls.trusted_ca_file = Some("ca".into()));
    takes_effect("client-cert-auth", "true", |c| c.client_tls.client_cert_auth = true);
    takes_effect("client-crl-file", "r", |c| c.client_tls.client_crl_file = Some("r".into()));
    takes_effect("client-cert-allowed-hostname", "a,b", |c| {
        c.client_tls.client_cert_allowed_hostnames = vec!["a".to_owned(), "b".to_owned()];
    });
    takes_effect("peer-cert-file", "c", |c| c.peer_tls.cert_file = Some("c".into()));
    takes_effect("peer-key-file", "k", |c| c.peer_tls.key_file = Some("k".into()));
    takes_effect("peer-trusted-ca-file", "ca", |c| c.peer_tls.trusted_ca_file = Some("ca".into()));
    takes_effect("peer-client-cert-file", "c", |c| c.peer_tls.dialing_cert_file = Some("c".into()));
    takes_effect("peer-client-key-file", "k", |c| c.peer_tls.dialing_key_file = Some("k".into()));
    takes_effect("peer-skip-client-san-verification", "true", |c| c.peer_tls.skip_client_san_verification = true);
    takes_effect("client-cert-allowed-cn", "a", |c| c.client_tls.allowed_common_names = vec!["a".to_owned()]);
    takes_effect("peer-client-cert-auth", "true", |c| c.peer_tls.client_cert_auth = true);
    takes_effect("peer-crl-file", "r", |c| c.peer_tls.client_crl_file = Some("r".into()));
    takes_effect("peer-auto-tls", "true", |c| c.peer_tls.auto_tls = true);
    takes_effect("peer-cert-allowed-cn", "a,b", |c| {
        c.peer_tls.allowed_common_names = vec!["a".to_owned(), "b".to_owned()];
    });
    takes_effect("peer-cert-allowed-hostname", "a", |c| {
        c.peer_tls.client_cert_allowed_hostnames = vec!["a".to_owned()];
    });
    takes_effect("auto-tls", "true", |c| c.client_tls.auto_tls = true);
    takes_effect("self-signed-cert-validity", "3", |c| c.client_tls.self_signed_cert_validity_years = 3);
    takes_effect("cipher-suites", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", |c| {
        c.client_tls.cipher_suites = vec![CipherSuite::EcdheRsaAes128GcmSha256];
    });
    takes_effect("tls-min-version", "TLS1.3", |c| c.client_tls.min_version = TlsVersion::Tls13);
    takes_effect("tls-max-version", "TLS1.2", |c| c.client_tls.max_version = TlsVersion::Tls12);
    takes_effect("host-whitelist", "a", |c| c.host_whitelist = vec!["a".to_owned()]);
    takes_effect("cors", "http://a", |c| c.cors = vec!["http://a".to_owned()]);
}

#[test]
fn monitoring_logging_and_memory_flags_take_effect() {
    takes_effect("metrics", "extensive", |c| c.metrics = MetricsLevel::Extensive);
    takes_effect("listen-metrics-urls", "http://h:1", |c| c.listen_metrics_urls = urls(&["http://h:1"]));
    takes_effect("warning-apply-duration", "1s", |c| c.warning_apply_duration = Duration::from_secs(1));
    takes_effect("warning-unary-request-duration", "1s", |c| c.warning_unary_request_duration = Duration::from_secs(1));
    takes_effect("log-level", "debug", |c| c.log = LogConfig { level: LogLevel::Debug, ..LogConfig::default() });
    takes_effect("log-format", "console", |c| c.log = LogConfig { format: LogFormat::Console, ..LogConfig::default() });
    takes_effect("log-outputs", "stdout,/x", |c| c.log.outputs = vec![LogOutput::Stdout, LogOutput::File("/x".into())]);
    takes_effect("enable-log-rotation", "true", |c| c.log.rotation = Some(LogRotation::default()));
    takes_effect("snapshot-send-bytes-per-second", "7", |c| c.snapshot_send_bytes_per_second = 7);
    takes_effect("memtable-bytes", "7", |c| c.memtable_bytes = 7);
    takes_effect("block-cache-bytes", "7", |c| c.block_cache_bytes = 7);
    takes_effect("entry-cache-bytes", "7", |c| c.entry_cache_bytes = 7);
    takes_effect("watch-window-bytes", "7", |c| c.watch_window_bytes = 7);
    takes_effect("api-threads", "7", |c| c.api_threads = 7);
}

/// Flags that `etcd --help` of 3.5.1 lists, and those hidden from it but defined in that binary.
const ETCD_3_5: &str = "
    name data-dir wal-dir snapshot-count heartbeat-interval election-timeout initial-election-tick-advance
    listen-peer-urls listen-client-urls max-snapshots max-wals quota-backend-bytes backend-bbolt-freelist-type
    backend-batch-interval backend-batch-limit max-txn-ops max-request-bytes grpc-keepalive-min-time
    grpc-keepalive-interval grpc-keepalive-timeout socket-reuse-port socket-reuse-address
    initial-advertise-peer-urls initial-cluster initial-cluster-state initial-cluster-token advertise-client-urls
    discovery discovery-fallback discovery-proxy discovery-srv discovery-srv-name strict-reconfig-check pre-vote
    auto-compaction-retention auto-compaction-mode enable-v2 v2-deprecation cert-file key-file client-cert-auth
    client-crl-file client-cert-allowed-hostname trusted-ca-file auto-tls peer-cert-file peer-key-file
    peer-client-cert-auth peer-trusted-ca-file peer-cert-allowed-cn peer-cert-allowed-hostname peer-auto-tls
    self-signed-cert-validity peer-crl-file cipher-suites cors host-whitelist auth-token bcrypt-cost auth-token-ttl
    enable-pprof metrics listen-metrics-urls logger log-outputs log-level enable-log-rotation
    log-rotation-config-json experimental-enable-distributed-tracing experimental-distributed-tracing-address
    experimental-distributed-tracing-service-name experimental-distributed-tracing-instance-id proxy
    proxy-failure-wait proxy-refresh-interval proxy-dial-timeout proxy-write-timeout proxy-read-timeout
    experimental-initial-corrupt-check experimental-corrupt-check-time experimental-enable-v2v3
    experimental-enable-lease-checkpoint experimental-compaction-batch-limit
    experimental-peer-skip-client-san-verification experimental-watch-progress-notify-interval
    experimental-warning-apply-duration experimental-txn-mode-write-with-shared-buffer
    experimental-bootstrap-defrag-threshold-megabytes force-new-cluster unsafe-no-fsync config-file version
    client-cert-file client-key-file peer-client-cert-file peer-client-key-file enable-grpc-gateway
    experimental-downgrade-check-time experimental-memory-mlock
    cluster-active-size cluster-remove-delay cluster-sync-interval config force max-result-buffer max-retry-attempts
    peer-heartbeat-interval peer-election-timeout retry-interval snapshot v vv";

/// Flags that came with later releases of 3.5, with 3.6 and with 3.7.
const SINCE_ETCD_3_5: &str = "
    listen-client-http-urls max-concurrent-streams log-format raft-read-timeout raft-write-timeout tls-min-version
    tls-max-version experimental-compact-hash-check-enabled experimental-compact-hash-check-time
    experimental-enable-lease-checkpoint-persist experimental-compaction-sleep-interval
    experimental-stop-grpc-service-on-defrag experimental-distributed-tracing-sampling-rate
    experimental-warning-unary-request-duration experimental-max-learners experimental-snapshot-catchup-entries
    experimental-set-member-localaddr warning-unary-request-duration warning-apply-duration corrupt-check-time
    compact-hash-check-time compaction-batch-limit compaction-sleep-interval watch-progress-notify-interval
    downgrade-check-time memory-mlock bootstrap-defrag-threshold-megabytes max-learners snapshot-catchup-entries
    peer-skip-client-san-verification feature-gates enable-distributed-tracing distributed-tracing-address
    distributed-tracing-service-name distributed-tracing-instance-id distributed-tracing-sampling-rate
    disable-log-sampling discovery-endpoints discovery-token discovery-dial-timeout discovery-request-timeout
    discovery-keepalive-time discovery-keepalive-timeout discovery-insecure-transport
    discovery-insecure-skip-tls-verify discovery-cert discovery-key discovery-cacert discovery-user
    discovery-password";

#[test]
fn every_flag_of_etcd_is_in_the_table_and_every_other_is_our_own() {
    let etcd: BTreeSet<&str> = ETCD_3_5.split_whitespace().chain(SINCE_ETCD_3_5.split_whitespace()).collect();
    for name in &etcd {
        assert!(find(name).is_some(), "--{name} is missing");
    }
    let own: Vec<&str> = flags().map(|flag| flag.name).filter(|name| !etcd.contains(name)).collect();
    assert_eq!(
        own,
        [
            "lease-checkpoint-interval",
            "client-cert-allowed-cn",
            "audit-log",
            "audit-policy",
            "audit-rotation",
            "audit-blocking",
            "memtable-bytes",
            "block-cache-bytes",
            "entry-cache-bytes",
            "watch-window-bytes",
            "snapshot-send-bytes-per-second",
            "api-threads",
            "help"
        ]
    );
}

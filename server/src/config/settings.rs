//! The typed configuration of a server: what the embedding program fills in, and what the flags are read into.

use std::path::PathBuf;
use std::time::Duration;

use super::audit::AuditConfig;
use super::auth_token::AuthToken;
use super::log_settings::LogConfig;
use super::tls::TlsConfig;
use super::value::{Value, parse_duration};
use crate::types::Url;

/// Bytes in a MiB.
const MIB: usize = 1024 * 1024;

/// The quota that `quota_backend_bytes: 0` stands for: 2 GiB, etcd's default.
pub const DEFAULT_QUOTA_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// What the gRPC receive limit is above `max_request_bytes`: 512 KiB, as in etcd.
pub const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

/// Everything a server can be told.
///
/// `Config::default()` is a single member that listens on localhost with etcd's ports and defaults:
///
/// ```
/// use cairn_server::config::{Config, Url};
///
/// let config = Config {
///     data_dir: Some("/var/lib/control-plane/store".into()),
///     listen_client_urls: vec![Url::parse("http://127.0.0.1:0")?],
///     ..Config::default()
/// };
/// assert!(config.validate().is_ok());
/// # Ok::<(), String>(())
/// ```
///
/// The binary fills one from flags, environment variables or a config file ([`fn@super::load`]); every field names its flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `--name`: the member's name, unique in the cluster. Default `default`.
    pub name: String,
    /// `--data-dir`: where everything is kept. Default `${name}.cairn` in the working directory; see [`Config::data_dir`].
    pub data_dir: Option<PathBuf>,
    /// `--wal-dir`: where the raft log is kept instead of under the data directory. Default none.
    pub wal_dir: Option<PathBuf>,

    /// `--listen-client-urls`: where gRPC and HTTP are served. Default `http://localhost:2379`.
    pub listen_client_urls: Vec<Url>,
    /// `--listen-client-http-urls`: where HTTP is served alone; when not empty, `listen_client_urls` serve only gRPC. Default empty.
    pub listen_client_http_urls: Vec<Url>,
    /// `--advertise-client-urls`: where clients are told to come. Default empty, which means the listen URLs;
    /// see [`Config::advertise_client_urls`].
    pub advertise_client_urls: Vec<Url>,
    /// `--listen-metrics-urls`: where `/metrics` and the health endpoints are served in addition. Default empty.
    pub listen_metrics_urls: Vec<Url>,
    /// `--listen-peer-urls`: where other members connect. Default `http://localhost:2380`.
    pub listen_peer_urls: Vec<Url>,
    /// `--initial-advertise-peer-urls`: where other members are told to come; the member's id is made from them.
    /// Default `http://localhost:2380`.
    pub initial_advertise_peer_urls: Vec<Url>,

    /// `--initial-cluster`: name and peer URL of every first member, a name repeated for each of its URLs.
    /// Default empty, which means this member alone, at `initial_advertise_peer_urls`.
    pub initial_cluster: Vec<(String, Url)>,
    /// `--initial-cluster-state`: whether the members of `initial_cluster` start together or this one joins them.
    /// Ignored once the data directory exists. Default new.
    pub initial_cluster_state: ClusterState,
    /// `--initial-cluster-token`: goes into member and cluster ids, so that clusters never mix. Default `etcd-cluster`.
    pub initial_cluster_token: String,
    /// `--force-new-cluster`: drop all other members and go on alone with the data that is here. Default false.
    pub force_new_cluster: bool,
    /// `--strict-reconfig-check`: refuse membership changes that would lose quorum. Default true.
    pub strict_reconfig_check: bool,
    /// `--max-learners`: how many learners the cluster may have. Default 1.
    pub max_learners: u32,

    /// `--heartbeat-interval`: time between a leader's heartbeats, one raft tick. Whole milliseconds, default 100 ms.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`: silence after which followers elect a new leader. Whole milliseconds, default 1,000 ms.
    pub election_timeout: Duration,
    /// `--raft-read-timeout`: silence on a connection between members after which it counts as dead. Default 5 s.
    pub raft_read_timeout: Duration,
    /// `--pre-vote`: ask for votes before disturbing the cluster with a new term. Default true.
    pub pre_vote: bool,
    /// `--snapshot-count`: commands (not raft entries) after which the log may be cut. Default 10,000.
    pub snapshot_count: u64,
    /// `--snapshot-catchup-entries`: commands kept in the log for members that lag a little, when it is cut. Default 5,000.
    pub snapshot_catchup_entries: u64,

    /// `--feature-gates=InitialCorruptCheck=true`: compare with the other members before serving. Default false.
    pub initial_corrupt_check: bool,
    /// `--corrupt-check-time`: time between two comparisons of all members' keys; zero is never. Default zero.
    pub corrupt_check_time: Duration,
    /// `--feature-gates=CompactHashCheck=true`: compare the hashes of compactions. Default false.
    pub compact_hash_check: bool,
    /// `--compact-hash-check-time`: time between two of these comparisons. Default 1 m.
    pub compact_hash_check_time: Duration,

    /// `--max-request-bytes`: largest request, in bytes. Default 1.5 MiB.
    pub max_request_bytes: usize,
    /// `--max-txn-ops`: operations in a transaction, counted for compares, then and else apart. Default 128.
    pub max_txn_ops: usize,
    /// `--auth-token`: the kind of tokens. Default simple.
    pub auth_token: AuthToken,
    /// `--auth-token-ttl`: how long a simple token lives that is not used. Default 5 m.
    pub auth_token_ttl: Duration,
    /// `--bcrypt-cost`: cost of hashing a password, as a power of two. Default 10.
    pub bcrypt_cost: u32,
    /// `--audit-log` and what belongs to it: which calls are put on record. Default none.
    pub audit: AuditConfig,
    /// `--max-concurrent-streams`: gRPC streams a connection may have open. Default `u32::MAX`.
    pub max_concurrent_streams: u32,
    /// `--quota-backend-bytes`: size of the state in bytes at which writes are refused. 0 is 2 GiB, negative is no limit;
    /// see [`Config::quota_bytes`]. Default 0.
    pub quota_backend_bytes: i64,

    /// `--auto-compaction-mode` and `--auto-compaction-retention`: what history is dropped by itself. Default off.
    pub auto_compaction: AutoCompaction,
    /// `--compaction-batch-limit`: revisions removed in one step of a compaction. Default 1,000.
    pub compaction_batch_limit: usize,
    /// `--compaction-sleep-interval`: pause between steps of a compaction. Default 10 ms.
    pub compaction_sleep_interval: Duration,

    /// `--grpc-keepalive-min-time`: a client that pings more often than this is disconnected. Default 5 s.
    pub grpc_keepalive_min_time: Duration,
    /// `--grpc-keepalive-interval`: how often the server pings an idle client; zero is never. Default 2 h.
    pub grpc_keepalive_interval: Duration,
    /// `--grpc-keepalive-timeout`: how long an answer to such a ping may take before the connection is closed; zero is for ever.
    /// Default 20 s.
    pub grpc_keepalive_timeout: Duration,
    /// `--socket-reuse-port`: let other processes listen on the same ports (SO_REUSEPORT). Default false.
    pub socket_reuse_port: bool,

    /// TLS on the client port: `--cert-file` and what belongs to it. Default none.
    pub client_tls: TlsConfig,
    /// TLS between members: `--peer-cert-file` and what belongs to it; cipher suites, versions and the validity of generated
    /// certificates are those of `client_tls`, see [`Config::peer_tls`]. Default none.
    pub peer_tls: TlsConfig,
    /// `--host-whitelist`: host names that plain HTTP requests may be addressed to; empty or `*` is any.
    /// Keeps web pages from reaching the server by DNS rebinding. Default `*`.
    pub host_whitelist: Vec<String>,
    /// `--cors`: origins whose web pages may use the HTTP endpoints; empty or `*` is any. Default `*`.
    pub cors: Vec<String>,
    /// `--enable-grpc-gateway`: serve the JSON gateway. Default true.
    pub enable_grpc_gateway: bool,

    /// `--metrics`: how much `/metrics` shows. Default basic.
    pub metrics: MetricsLevel,
    /// What is logged and where.
    pub log: LogConfig,
    /// `--warning-apply-duration`: applying a piece of the log for longer than this is logged. Default 100 ms.
    pub warning_apply_duration: Duration,
    /// `--warning-unary-request-duration`: serving a unary request for longer than this is logged. Default 300 ms.
    pub warning_unary_request_duration: Duration,
    /// `--watch-progress-notify-interval`: silence after which a watcher that asked for it is told the revision. Default 10 m.
    pub watch_progress_notify_interval: Duration,
    /// `--lease-checkpoint-interval`: time without a renewal after which the remaining time of a lease is recorded. Default 5 m, at least 1 s.
    pub lease_checkpoint_interval: Duration,

    /// `--snapshot-send-bytes-per-second`: bytes of snapshots that are sent to other members in a second. Default 64 MiB.
    pub snapshot_send_bytes_per_second: u64,
    /// `--memtable-bytes`: size of one of RocksDB's two memtables, in bytes. Default 16 MiB.
    pub memtable_bytes: usize,
    /// `--block-cache-bytes`: RocksDB's cache of data blocks, in bytes. Default 32 MiB.
    pub block_cache_bytes: usize,
    /// `--entry-cache-bytes`: most recent raft entries kept in memory, in bytes. Default 32 MiB.
    pub entry_cache_bytes: usize,
    /// `--watch-window-bytes`: most recent events kept in memory for watchers that start a little late, in bytes. Default 16 MiB.
    pub watch_window_bytes: usize,
    /// `--api-threads`: threads that serve clients; 0 is one for each core. Default 0.
    pub api_threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        let local = |port| vec![Url::parse(&format!("http://localhost:{port}")).expect("a literal URL is valid")];
        Self {
            name: "default".to_owned(),
            data_dir: None,
            wal_dir: None,
            listen_client_urls: local(2379),
            listen_client_http_urls: Vec::new(),
            advertise_client_urls: Vec::new(),
            listen_metrics_urls: Vec::new(),
            listen_peer_urls: local(2380),
            initial_advertise_peer_urls: local(2380),
            initial_cluster: Vec::new(),
            initial_cluster_state: ClusterState::New,
            initial_cluster_token: "etcd-cluster".to_owned(),
            force_new_cluster: false,
            strict_reconfig_check: true,
            max_learners: 1,
            heartbeat_interval: Duration::from_millis(100),
            election_timeout: Duration::from_secs(1),
            raft_read_timeout: Duration::from_secs(5),
            pre_vote: true,
            snapshot_count: 10_000,
            snapshot_catchup_entries: 5_000,
            initial_corrupt_check: false,
            corrupt_check_time: Duration::ZERO,
            compact_hash_check: false,
            compact_hash_check_time: Duration::from_mins(1),
            max_request_bytes: 3 * MIB / 2,
            max_txn_ops: 128,
            auth_token: AuthToken::Simple,
            auth_token_ttl: Duration::from_mins(5),
            bcrypt_cost: 10,
            audit: AuditConfig::default(),
            max_concurrent_streams: u32::MAX,
            quota_backend_bytes: 0,
            auto_compaction: AutoCompaction::Off,
            compaction_batch_limit: 1_000,
            compaction_sleep_interval: Duration::from_millis(10),
            grpc_keepalive_min_time: Duration::from_secs(5),
            grpc_keepalive_interval: Duration::from_hours(2),
            grpc_keepalive_timeout: Duration::from_secs(20),
            socket_reuse_port: false,
            client_tls: TlsConfig::default(),
            peer_tls: TlsConfig::between_members(),
            host_whitelist: vec!["*".to_owned()],
            cors: vec!["*".to_owned()],
            enable_grpc_gateway: true,
            metrics: MetricsLevel::Basic,
            log: LogConfig::default(),
            warning_apply_duration: Duration::from_millis(100),
            warning_unary_request_duration: Duration::from_millis(300),
            watch_progress_notify_interval: Duration::from_mins(10),
            lease_checkpoint_interval: Duration::from_mins(5),
            snapshot_send_bytes_per_second: 256 << 20,
            memtable_bytes: 16 * MIB,
            block_cache_bytes: 32 * MIB,
            entry_cache_bytes: 32 * MIB,
            watch_window_bytes: 16 * MIB,
            api_threads: 0,
        }
    }
}

impl Config {
    /// The data directory, made from the name where none is given.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}.cairn", self.name)))
    }

    /// The first members' names and peer URLs, this one alone where none are given.
    pub fn initial_cluster(&self) -> Vec<(String, Url)> {
        if self.initial_cluster.is_empty() {
            self.initial_advertise_peer_urls.iter().map(|url| (self.name.clone(), url.clone())).collect()
        } else {
            self.initial_cluster.clone()
        }
    }

    /// Where clients are told to come: the listen URLs where nothing else is given.
    pub fn advertise_client_urls(&self) -> &[Url] {
        if self.advertise_client_urls.is_empty() { &self.listen_client_urls } else { &self.advertise_client_urls }
    }

    /// The quota in bytes; none if there is no limit.
    pub fn quota_bytes(&self) -> Option<u64> {
        match self.quota_backend_bytes {
            0 => Some(DEFAULT_QUOTA_BYTES),
            bytes => u64::try_from(bytes).ok(),
        }
    }

    /// How many raft ticks (heartbeat intervals) make an election time-out. At least 5 in a valid configuration.
    pub fn election_ticks(&self) -> usize {
        (self.election_timeout.as_millis() / self.heartbeat_interval.as_millis().max(1)) as usize
    }

    /// How long a request may wait for its outcome: 5 s and two elections, as in etcd.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout
    }

    /// TLS between members, with the settings that it has in common with the client port.
    pub fn peer_tls(&self) -> TlsConfig {
        TlsConfig {
            self_signed_cert_validity_years: self.client_tls.self_signed_cert_validity_years,
            cipher_suites: self.client_tls.cipher_suites.clone(),
            min_version: self.client_tls.min_version,
            max_version: self.client_tls.max_version,
            ..self.peer_tls.clone()
        }
    }

    /// Whether members are served with TLS.
    pub fn serves_peer_tls(&self) -> bool {
        self.listen_peer_urls.iter().any(Url::is_tls)
    }

    /// The largest gRPC message to receive, in bytes.
    pub fn max_receive_bytes(&self) -> usize {
        self.max_request_bytes() + GRPC_OVERHEAD_BYTES
    }

    /// Every URL that clients are served at, TLS or not.
    pub fn client_urls(&self) -> impl Iterator<Item = &Url> {
        self.listen_client_urls.iter().chain(&self.listen_client_http_urls).chain(&self.listen_metrics_urls)
    }

    /// Whether any client URL is served with TLS.
    pub fn serves_tls(&self) -> bool {
        self.client_urls().any(Url::is_tls)
    }

    /// Whether a plain HTTP request whose `Host` header is `host` may be served (`--host-whitelist`). The port does not count.
    /// A refused one gets status 421 in etcd. Requests over TLS are not asked.
    pub fn allows_host(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inner, _)) => inner,
            None => host.rsplit_once(':').filter(|(name, _)| !name.contains(':')).map_or(host, |(name, _)| name),
        };
        allows(&self.host_whitelist, name)
    }

    /// Whether web pages of `origin` may use the HTTP endpoints (`--cors`).
    pub fn allows_origin(&self, origin: &str) -> bool {
        allows(&self.cors, origin)
    }
}

/// Whether a list of `--cors` or `--host-whitelist` lets `value` in.
fn allows(list: &[String], value: &str) -> bool {
    list.is_empty() || list.iter().any(|allowed| allowed == "*" || allowed == value)
}

/// What `--initial-cluster-state` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterState {
    /// All first members start together.
    #[default]
    New,
    /// This member was added to a running cluster.
    Existing,
}

impl Value for ClusterState {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "new" => Ok(Self::New),
            "existing" => Ok(Self::Existing),
            _ => Err("expected new or existing".to_owned()),
        }
    }
}

/// What history is dropped without being asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None.
    #[default]
    Off,
    /// What is older than this.
    Periodic(Duration),
    /// What lies more than this many revisions back.
    Revision(u64),
}

impl AutoCompaction {
    /// Puts mode and retention together. Without a unit, a periodic retention counts hours; zero is off.
    pub(crate) fn from_flags(mode: CompactionMode, retention: &str) -> Result<Self, String> {
        if let Ok(number) = retention.parse::<u32>() {
            return Ok(match (mode, number) {
                (_, 0) => Self::Off,
                (CompactionMode::Periodic, hours) => Self::Periodic(Duration::from_secs(3600 * u64::from(hours))),
                (CompactionMode::Revision, count) => Self::Revision(u64::from(count)),
            });
        }
        match mode {
            CompactionMode::Periodic => {
                let retention = parse_duration(retention)?;
                Ok(if retention.is_zero() { Self::Off } else { Self::Periodic(retention) })
            }
            CompactionMode::Revision => {
                retention.parse().map(Self::Revision).map_err(|_| "expected a number of revisions".to_owned())
            }
        }
    }
}

/// What `--auto-compaction-mode` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum CompactionMode {
    #[default]
    Periodic,
    Revision,
}

impl Value for CompactionMode {
    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "periodic" => Ok(Self::Periodic),
            "revision" => Ok(Self::Revision),
            _ => Err("expected periodic or revision".to_owned()),
        }
    }
}

/// How much `/metrics` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MetricsLevel {
    /// Counters and gauges of everything, histograms of what matters.
    #[default]
    Basic,
    /// Also a latency histogram of every RPC.
    Extensive,
}

impl MetricsLevel {
    /// The level of a name; etcd knows but one, and takes every other text for basic.
    pub(crate) fn named(text: &str) -> Self {
        if text == "extensive" { Self::Extensive } else { Self::Basic }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_defaults_to_the_name() {
        let config = Config { name: "infra0".to_owned(), ..Config::default() };
        assert_eq!(config.data_dir(), PathBuf::from("infra0.cairn"));
        let config = Config { data_dir: Some("/data".into()), ..config };
        assert_eq!(config.data_dir(), PathBuf::from("/data"));
    }

    #[test]
    fn the_initial_cluster_defaults_to_this_member_alone() {
        let config = Config {
            name: "a".to_owned(),
            initial_advertise_peer_urls: vec![Url::parse("http://a:1").unwrap(), Url::parse("http://b:1").unwrap()],
            ..Config::default()
        };
        let text: Vec<_> = config.initial_cluster().iter().map(|(name, url)| format!("{name}={url}")).collect();
        assert_eq!(text, ["a=http://a:1", "a=http://b:1"]);
    }

    #[test]
    fn retention_is_hours_durations_or_revisions() {
        let parse = AutoCompaction::from_flags;
        let (periodic, revision) = (CompactionMode::Periodic, CompactionMode::Revision);
        assert_eq!(parse(periodic, "0"), Ok(AutoCompaction::Off));
        assert_eq!(parse(periodic, "1"), Ok(AutoCompaction::Periodic(Duration::from_hours(1))));
        assert_eq!(parse(periodic, "5m"), Ok(AutoCompaction::Periodic(Duration::from_mins(5))));
        assert_eq!(parse(periodic, "1h30m"), Ok(AutoCompaction::Periodic(Duration::from_mins(90))));
        assert_eq!(parse(periodic, "0s"), Ok(AutoCompaction::Off));
        assert_eq!(parse(revision, "0"), Ok(AutoCompaction::Off));
        assert_eq!(parse(revision, "1000"), Ok(AutoCompaction::Revision(1000)));
        assert_eq!(parse(revision, "5000000000"), Ok(AutoCompaction::Revision(5_000_000_000)));
        assert!(parse(revision, "5m").is_err());
        assert!(parse(periodic, "-1").is_err());
        assert!(parse(periodic, "often").is_err());
    }

    #[test]
    fn a_quota_of_zero_is_the_default_and_a_negative_one_none() {
        let quota = |quota_backend_bytes| Config { quota_backend_bytes, ..Config::default() }.quota_bytes();
        assert_eq!(quota(0), Some(2_147_483_648));
        assert_eq!(quota(1), Some(1));
        assert_eq!(quota(-1), None);
    }

    #[test]
    fn the_host_whitelist_looks_at_the_name_alone() {
        let config = Config { host_whitelist: vec!["node1".to_owned(), "::1".to_owned()], ..Config::default() };
        assert!(config.allows_host("node1"));
        assert!(config.allows_host("node1:2379"));
        assert!(config.allows_host("[::1]:2379"));
        assert!(config.allows_host("[::1]"));
        assert!(!config.allows_host("evil.example:2379"));
        assert!(!config.allows_host(""));
        assert!(Config::default().allows_host("anything"));
        assert!(Config { host_whitelist: Vec::new(), ..Config::default() }.allows_host("anything"));
    }

    #[test]
    fn origins_are_matched_whole() {
        let config = Config { cors: vec!["https://ui.example".to_owned()], ..Config::default() };
        assert!(config.allows_origin("https://ui.example"));
        assert!(!config.allows_origin("https://ui.example.evil"));
        assert!(Config::default().allows_origin("https://any.example"));
    }

    #[test]
    fn derived_times_and_sizes_are_those_of_etcd() {
        let config = Config::default();
        assert_eq!(config.election_ticks(), 10);
        assert_eq!(config.request_timeout(), Duration::from_secs(7));
        assert_eq!(config.max_receive_bytes(), 2_097_152);
    }
}

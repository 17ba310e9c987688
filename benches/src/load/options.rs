//! The command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::{holding::Holding, keyspace::Keyspace};

/// Load for any etcd endpoint, with honest latencies.
#[derive(Parser, Clone)]
#[command(name = "cairn-load", version)]
pub struct Options {
    #[command(subcommand)]
    pub work: Work,
    #[command(flatten)]
    pub target: Target,
    /// Connections, spread over the endpoints
    #[arg(long, global = true, default_value_t = 1)]
    pub connections: usize,
    /// Concurrent clients, spread over the connections
    #[arg(long, global = true, default_value_t = 1)]
    pub clients: usize,
    /// Requests in all
    #[arg(long, global = true, default_value_t = 10_000)]
    pub total: u64,
    /// Stop after this many seconds even if requests are left
    #[arg(long, global = true, default_value_t = 600)]
    pub seconds_max: u64,
    /// Requests a second, leaving on schedule whether answers come or not (open loop); without it each client waits for its answer (closed loop)
    #[arg(long, global = true)]
    pub rate: Option<u64>,
    /// Requests before measuring begins
    #[arg(long, global = true, default_value_t = 0)]
    pub warmup: u64,
    /// Seconds after which a request counts as failed
    #[arg(long, global = true, default_value_t = 30)]
    pub timeout_seconds: u64,
    /// Keys in use
    #[arg(long, global = true, default_value_t = 10_000)]
    pub key_space: u64,
    /// Bytes of a key, the prefix included
    #[arg(long, global = true, default_value_t = 32)]
    pub key_size: usize,
    /// Bytes of a value
    #[arg(long, global = true, default_value_t = 256)]
    pub value_size: usize,
    /// What every key begins with
    #[arg(long, global = true, default_value = "/load/")]
    pub prefix: String,
    /// Keys in order instead of at random
    #[arg(long, global = true)]
    pub sequential: bool,
    /// Seed of keys and values
    #[arg(long, global = true, default_value_t = 1)]
    pub seed: u64,
    /// Process ids of the servers on this machine, to report their CPU time per operation
    #[arg(long, global = true, value_delimiter = ',')]
    pub server_pid: Vec<u32>,
    /// One line of JSON instead of the table
    #[arg(long, global = true)]
    pub json: bool,
    /// Exit with 0 even if requests failed
    #[arg(long, global = true)]
    pub tolerate_errors: bool,
}

impl Options {
    /// Who watches, if anybody does.
    pub fn watchers(&self) -> Option<Watchers> {
        match self.work {
            Work::Watch { watchers, .. } | Work::ControlPlane { watchers, .. } => Some(watchers),
            Work::WatchLatency => Some(Watchers { count: 1, per_stream: 1, spread: Spread::Prefix, prev_kv: false }),
            _ => None,
        }
    }

    /// The time a request may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }
}

/// Where to and how.
#[derive(Args, Clone)]
pub struct Target {
    /// host:port or URL, several separated by commas
    #[arg(long, global = true, value_delimiter = ',', default_value = "127.0.0.1:2379")]
    pub endpoints: Vec<String>,
    /// Certificates that the server's is checked against (PEM); turns TLS on
    #[arg(long, global = true)]
    pub cacert: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, global = true, requires = "key")]
    pub cert: Option<PathBuf>,
    /// Key of the client certificate (PEM)
    #[arg(long, global = true, requires = "cert")]
    pub key: Option<PathBuf>,
    /// A user that all calls are made as: its name and its password, with a colon between
    #[arg(long, global = true)]
    pub user: Option<String>,
}

/// What to send.
#[derive(Subcommand, Clone)]
pub enum Work {
    /// Puts of one key each
    Put,
    /// Reads
    Range {
        /// `l`: linearizable, `s`: serializable
        #[arg(long, value_enum, default_value_t = Consistency::L)]
        consistency: Consistency,
        /// Keys of one answer: 1 reads a single key, more read a range from a random key on
        #[arg(long, default_value_t = 1)]
        limit: i64,
        /// Write the key space first
        #[arg(long)]
        fill: bool,
    },
    /// Compare-and-put transactions as a control plane sends them: create if absent, else update at the revision last seen
    Txn,
    /// Puts, and watchers that get them as events: how many a second, and how long from the put to the event
    Watch {
        #[command(flatten)]
        watchers: Watchers,
        /// Write everything first, then measure how long watchers take that start before it
        #[arg(long)]
        catch_up: bool,
    },
    /// One watcher, and how long from the put to the event: to be used with `--rate`
    WatchLatency,
    /// Keep-alives, each client its own lease
    LeaseKeepalive {
        /// A stream for every call instead of one that stays open
        #[arg(long)]
        stream_a_call: bool,
        /// Seconds a lease lives
        #[arg(long, default_value_t = 60)]
        ttl: i64,
    },
    /// Grant a lease, put a key with it, revoke it; or, with `--expire`, puts while many leases end at once
    LeaseChurn {
        /// Grant this many leases with a key each, and put while they expire
        #[arg(long, default_value_t = 0)]
        expire: u64,
        /// Seconds a lease lives
        #[arg(long, default_value_t = 60)]
        ttl: i64,
    },
    /// One client keeps many leases alive on one stream, and counts those that it lost
    LeaseHold(Holding),
    /// What a control plane sends: 55 updates at the revision last seen, 20 reads, 5 pages of a list, 15 events with a lease and 5 keep-alives in a hundred,
    /// while watchers follow
    ControlPlane {
        #[command(flatten)]
        watchers: Watchers,
        /// Keys of a page
        #[arg(long, default_value_t = 500)]
        page: i64,
    },
    /// Puts, transactions, reads and keep-alives on a genuine etcd and on Cairn, which it starts itself; prints a table
    Compare(Compare),
    /// Writes the key space once and measures memory, disk, pages, the whole list, and a restart after kill -9
    Keyspace(Keyspace),
}

/// Who watches what.
#[derive(Args, Clone, Copy)]
pub struct Watchers {
    /// Watchers
    #[arg(long = "watchers", default_value_t = 1)]
    pub count: usize,
    /// Watchers on one stream
    #[arg(long, default_value_t = 100)]
    pub per_stream: usize,
    /// `prefix`: each watches all keys, `own`: each one key, `mixed`: every second one all keys
    #[arg(long, value_enum, default_value_t = Spread::Prefix)]
    pub spread: Spread,
    /// Ask for the previous values
    #[arg(long)]
    pub prev_kv: bool,
}

/// What the watchers watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Spread {
    /// All keys.
    Prefix,
    /// A key each.
    Own,
    /// Every second one all keys, the others a key each.
    Mixed,
}

/// What to compare.
#[derive(Args, Clone)]
pub struct Compare {
    /// The genuine server
    #[arg(long, default_value = "etcd")]
    pub etcd: PathBuf,
    /// The server beside it; by default the one built beside this program
    #[arg(long, default_value_os_t = beside_this("cairn"))]
    pub cairn: PathBuf,
    /// Runs of each load on each server
    #[arg(long, default_value_t = 5)]
    pub runs: usize,
    /// Members of each cluster
    #[arg(long, default_value_t = 1)]
    pub members: usize,
    /// Where the servers keep their data
    #[arg(long, default_value_os_t = std::env::temp_dir())]
    pub dir: PathBuf,
}

/// Path of a program in this program's directory.
fn beside_this(name: &str) -> PathBuf {
    std::env::current_exe().map_or_else(|_| name.into(), |path| path.with_file_name(name))
}

/// How fresh a read has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Consistency {
    /// Linearizable.
    L,
    /// Serializable.
    S,
}

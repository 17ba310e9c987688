//! A running server: threads, sockets, the replica and the API on top of it, put together.
//!
//! What lives here: [`Builder`] and [`Server`], the whole of what an embedding program and the binary use; [`client`], which
//! calls the API in process.
//! Nothing below knows this layer. The one invariant: what [`Server::start`](Builder::start) started, [`Server::shutdown`] ends; nothing else does, and
//! nothing is left running.
//!
//! A fatal error of the replica poisons the server: nothing is acknowledged any more, every call is answered with "server stopped", and
//! [`Server::wait`] returns the error. The process goes on; only the binary chooses to end then.

pub mod client;
#[cfg(test)]
mod flag_tests;

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use prometheus_client::registry::Registry;
use tokio::{
    runtime,
    sync::{oneshot, watch},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use self::client::LocalClient;
pub use crate::monitor::corruption::Inconsistent;
use crate::{
    api::{Context, Services, grpc::Grpc, metrics::ApiMetrics, router::Router, stream::Ends},
    audit::{Audit, AuditError},
    config::{ClusterState, Config, ConfigError, InitialCluster, Place, Url},
    http::Http,
    lease,
    monitor::{
        Duty, Monitor, compaction,
        corruption::{self, Guard},
        leader, publication, token_keys, version,
    },
    net::{
        connection::{Gate, Limits},
        listener::{self, ListenError, Listener},
        threads::Threads,
    },
    node::{self, ChangeRules, CompactionPace, NodeConfig, NodeError, NodeHandle, identity::InitialMember},
    peer::{self, Dialer, PeerOptions, Peers, join::JoinError},
    security::{self, AcceptLimits, Acceptor, Callers, JwtError, TlsError},
};

/// How long a server that is dropped waits for its threads.
const DROP_WAIT_MAX: Duration = Duration::from_secs(10);
/// How long open calls may go on after a shutdown began.
const CALLS_END_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last lines of the record of calls may take.
const AUDIT_END_TIMEOUT: Duration = Duration::from_secs(5);
/// How often is looked whether they have ended.
const CALLS_END_POLL: Duration = Duration::from_millis(10);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The keys of tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] JwtError),
    /// There can be no record of calls.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The member cannot join its cluster.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// The replica does not start.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// The member's keys are not those of the others.
    #[error(transparent)]
    Inconsistent(#[from] Inconsistent),
    /// The system gives no threads.
    #[error("cannot start the server's threads: {0}")]
    Threads(#[source] io::Error),
    /// Starting ended without a result.
    #[error("starting ended unexpectedly; this is a defect of the program")]
    Lost,
}

/// What a server is started with.
#[derive(Debug, Clone, Default)]
pub struct Builder {
    config: Config,
    in_process_only: bool,
    record_syncs: bool,
}

impl Builder {
    /// Replaces the whole configuration.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Where everything is kept.
    #[must_use]
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.data_dir = Some(path.into());
        self
    }

    /// The member's name.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.config.name = name.into();
        self
    }

    /// Where clients are served.
    #[must_use]
    pub fn listen_client_urls(mut self, urls: impl IntoIterator<Item = Url>) -> Self {
        self.config.listen_client_urls = urls.into_iter().collect();
        self
    }

    /// Opens no sockets for clients: the server is reached through [`Server::client`] and [`Server::channel`] only. Nor
    /// for other members, if the configuration names none.
    #[must_use]
    pub fn in_process_only(mut self) -> Self {
        self.in_process_only = true;
        self
    }

    /// Writes beside the raft log what its completed syncs have covered, for tests that destroy everything else
    /// ([`cut_back`](crate::log::cut_back)).
    #[must_use]
    pub fn record_syncs(mut self, record: bool) -> Self {
        self.record_syncs = record;
        self
    }

    /// Changes any other setting.
    #[must_use]
    pub fn configure(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(&mut self.config);
        self
    }

    /// Starts the server. Its sockets are open when this returns. Clients are served from when it is
    /// [ready](Server::ready): connections to client URLs wait until then, as do calls of [`Server::client`], for at most
    /// the request time-out. URLs for metrics are served at once.
    pub async fn start(self) -> Result<Server, StartError> {
        let (started, start) = oneshot::channel();
        // Opening files and replaying the log blocks.
        let run = move || {
            let _ = started.send(self.start_blocking());
        };
        thread::Builder::new().name("cairn-start".into()).spawn(run).map_err(StartError::Threads)?;
        start.await.unwrap_or(Err(StartError::Lost))
    }

    fn start_blocking(self) -> Result<Server, StartError> {
        for notice in self.config.validate()? {
            notice.log();
        }
        let config = Arc::new(self.config);
        let tls = security::client_tls(&config)?;
        let jwt = security::jwt(&config)?;
        let audit = Audit::open(&config.audit)?;
        let listeners = if self.in_process_only { Vec::new() } else { listener::listen(&config)? };
        let places =
            listeners.iter().map(Listener::place).collect::<Result<Vec<_>, _>>().map_err(StartError::Threads)?;
        let threads = Arc::new(Threads::start(threads_of(&config)).map_err(StartError::Threads)?);
        let alone = config.initial_cluster().iter().all(|(name, _)| *name == config.name);
        let peer_listeners =
            if self.in_process_only && alone { Vec::new() } else { listener::listen_for_members(&config)? };
        let peer_tls = security::peer_tls(&config)?;
        let dialer = Dialer::new(peer_tls.as_ref().map(|tls| tls.dialing.clone()));
        let mut node_config = NodeConfig { record_syncs: self.record_syncs, ..node_config(&config) };
        if node::shell::is_new(&config.data_dir()) {
            node_config.origin = match config.initial_cluster_state {
                ClusterState::New => InitialCluster::from_config(&config).map(|_| None)?,
                ClusterState::Existing => {
                    let told = threads.last().block_on(peer::join::learn(&config, &dialer))?;
                    Some(peer::join::origin(&config, &told)?)
                }
            };
        }
        let peers = Peers::new(peer_options(&config), dialer, threads.first().clone());
        let node = node::shell::start_member(&node_config, threads.first(), peers.transport())?;
        threads.others().for_each(|thread| drop(thread.spawn(node.deliveries())));
        let guard = Guard::new(node.clone(), peers.clone(), config.request_timeout());
        let mut begun = None;
        if config.initial_corrupt_check {
            begun = threads.last().block_on(async {
                let checked = guard.check_at_start().await;
                if checked.is_err() {
                    node.shutdown().await;
                }
                checked
            })?;
        }
        peers.start(&node);
        let peers_stopping = CancellationToken::new();
        let peer_gate =
            peer::Gate::new(peers.clone(), !config.peer_tls.skip_client_san_verification, peers_stopping.clone());
        for (listen, socket) in peer_listeners {
            tracing::info!(address = %listen.place, "serving other members");
            let acceptor = Acceptor::for_listener(
                &listen,
                peer_tls.as_ref().map(|tls| &tls.serving),
                Callers::Members,
                AcceptLimits::default(),
            );
            threads.first().spawn(peer_gate.clone().accept(socket, acceptor));
        }

        let mut registry = Registry::default();
        let audit = audit.map(|audit| audit.of_member(node.status().member_id));
        if let Some(audit) = &audit {
            audit.queue().register(&mut registry);
        }
        node.metrics().register(&mut registry);
        peers.metrics().register(&mut registry);
        node.hub().metrics().register(&mut registry);
        guard.register(&mut registry);
        let metrics =
            Arc::new(ApiMetrics::new(&mut registry, config.metrics == crate::config::MetricsLevel::Extensive));
        let services =
            Services::new(&Context::new(&node, peers.clone(), &config, jwt.clone(), threads.first().clone()));
        let stopping = CancellationToken::new();
        let (without_leader, leaderless) = watch::channel(());
        let monitor = Monitor::new(&mut registry, stopping.clone());
        let (view, election) = (node.view(), config.election_timeout);
        monitor.spawn(Duty::LeaderWatch, threads.last(), |turns| leader::watch(view, election, without_leader, turns));
        let router = Router::new(
            services.clone(),
            metrics.clone(),
            audit.clone(),
            config.warning_unary_request_duration,
            Ends { stopping: stopping.clone(), leaderless },
        );
        let grpc = Grpc::new(router.clone(), config.max_receive_bytes());
        let gate = Arc::new(Gate {
            grpc: Arc::new(grpc),
            http: Arc::new(Http::new(services.clone(), config.clone(), metrics, registry)),
            limits: limits_of(&config),
            stopping: stopping.clone(),
        });

        let urls = advertised(&config, &listeners);
        let ready = CancellationToken::new();
        let (proposer, ready_then) = (node.proposer(), ready.clone());
        let (published, shown) = (config.clone(), places.clone());
        monitor.spawn(Duty::Publication, threads.first(), |turns| {
            publication::publish(proposer, published, urls, shown, ready_then, turns)
        });
        let (proposer, others) = (node.proposer(), peers.clone());
        monitor.spawn(Duty::ClusterVersion, threads.first(), |turns| version::keep(proposer, others, turns));
        if !config.corrupt_check_time.is_zero() {
            let (guard, every) = (guard.clone(), config.corrupt_check_time);
            monitor.spawn(Duty::PeriodicHashCheck, threads.last(), |turns| {
                guard.run(corruption::Kind::Periodic, every, turns)
            });
        }
        if config.compact_hash_check {
            let (guard, every) = (guard.clone(), config.compact_hash_check_time);
            monitor.spawn(Duty::CompactHashCheck, threads.last(), |turns| {
                guard.run(corruption::Kind::Compaction, every, turns)
            });
        }
        if let Some(jwt) = jwt {
            monitor.spawn(Duty::TokenKeys, threads.last(), |turns| token_keys::reload(jwt, turns));
        }
        let (mode, view, kv) = (config.auto_compaction, node.view(), services.kv.clone());
        monitor.spawn(Duty::AutoCompaction, threads.last(), |turns| compaction::run(mode, view, kv, turns));
        let addrs = places.iter().filter_map(tcp_addr).collect();
        let server = Server {
            config,
            addrs,
            router,
            node,
            peers,
            gate,
            audit,
            monitor,
            threads,
            stopping,
            peers_stopping,
            ready,
            ending: false,
        };
        let Server { gate, threads, node, .. } = &server;
        if let Some(begun) = begun {
            // If this member is wrong, the server that was started so far ends.
            let settled = threads.last().block_on(guard.settle(begun))?;
            server.monitor.spawn(Duty::InitialHashCheck, threads.last(), |turns| guard.finish(settled, turns));
        }
        for listener in listeners {
            let acceptor =
                Acceptor::for_listener(&listener.listen, tls.as_ref(), Callers::Clients, AcceptLimits::default());
            let accepting = listener::accept(listener, acceptor, gate.clone(), threads.clone(), node.view());
            threads.last().spawn(accepting);
        }
        Ok(server)
    }
}

/// A running server. Dropping it without [`shutdown`](Self::shutdown) ends it without waiting for open calls.
pub struct Server {
    config: Arc<Config>,
    addrs: Vec<SocketAddr>,
    router: Arc<Router>,
    node: NodeHandle,
    peers: Arc<Peers>,
    gate: Arc<Gate>,
    audit: Option<Arc<Audit>>,
    monitor: Monitor,
    threads: Arc<Threads>,
    stopping: CancellationToken,
    peers_stopping: CancellationToken,
    /// Cancelled once the member serves and has said so in the log.
    ready: CancellationToken,
    /// Somebody waits, or has waited, for the end.
    ending: bool,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("name", &self.config.name).field("addrs", &self.addrs).finish_non_exhaustive()
    }
}

impl Server {
    /// What a server is started with, to be filled in.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// The record of calls, if there is one.
    pub fn audit(&self) -> Option<Arc<Audit>> {
        self.audit.clone()
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where clients are served by TCP, in the order of the configuration's URLs: client, HTTP, metrics. Sockets in the
    /// file system are left out.
    pub fn addrs(&self) -> &[SocketAddr] {
        &self.addrs
    }

    /// A client that calls the server in this process.
    pub fn client(&self) -> LocalClient {
        let (timeout, bytes_max) = (self.config.request_timeout(), self.config.max_receive_bytes());
        LocalClient::new(self.router.clone(), self.node.view(), timeout, bytes_max)
    }

    /// A gRPC channel to the server that needs no socket, for any client generated from the API's protobuf files. To be used within a tokio runtime.
    pub fn channel(&self) -> Channel {
        client::channel(self.gate.clone(), self.node.view(), self.threads.last().clone())
    }

    #[cfg(test)]
    pub(crate) fn services(&self) -> &Services {
        self.router.services()
    }

    /// The running replica.
    pub fn node(&self) -> &NodeHandle {
        &self.node
    }

    /// Waits until the member serves clients, which is when the cluster has heard of it and everything that it had applied
    /// or acknowledged before is applied again. `false` if it fails or stops before.
    pub async fn ready(&self) -> bool {
        tokio::select! {
            () = self.ready.cancelled() => true,
            _ = self.wait() => false,
        }
    }

    /// Waits until the server fails, and returns why; returns nothing when it was shut down.
    pub async fn wait(&self) -> Option<Arc<NodeError>> {
        let mut fatal = self.node.fatal();
        tokio::select! {
            () = self.stopping.cancelled() => None,
            failed = fatal.wait_for(Option::is_some) => failed.ok().and_then(|error| error.clone()),
        }
    }

    /// Stops: no new connections, open calls get some time to end, then everything is closed in order.
    pub async fn shutdown(mut self) {
        self.ending = true;
        self.stopping.cancel();
        let deadline = Instant::now() + CALLS_END_TIMEOUT;
        let threads = self.threads.clone();
        let ended = self.threads.last().spawn(async move {
            while threads.connections() > 0 && Instant::now() < deadline {
                tokio::time::sleep(CALLS_END_POLL).await;
            }
        });
        // It cannot fail, but for a panic that was reported.
        let _ = ended.await;
        // The other members are talked to until the leadership is handed over.
        self.node.shutdown().await;
        self.monitor.ended().await;
        self.peers_stopping.cancel();
        self.peers.stop();
        self.threads.stop().await;
        if let Some(audit) = self.audit.clone() {
            // It cannot fail, but for a panic that was reported.
            let _ = tokio::task::spawn_blocking(move || audit.queue().close(AUDIT_END_TIMEOUT)).await;
        }
        tracing::info!("server stopped");
    }
}

/// Stops the server without waiting for open calls, and blocks until its threads have ended: RocksDB must not be at work when the process ends and what it
/// stands on is destroyed. In asynchronous code [`Server::shutdown`] is the better way.
impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.cancel();
        self.peers_stopping.cancel();
        self.peers.stop();
        if self.ending {
            return;
        }
        let (node, threads) = (self.node.clone(), self.threads.clone());
        let (ended, end) = std::sync::mpsc::channel::<()>();
        let stop = move || {
            // Dropped at the end, which is the sign.
            let _ended = ended;
            match runtime::Builder::new_current_thread().build() {
                Ok(runtime) => runtime.block_on(async {
                    node.shutdown().await;
                    threads.stop().await;
                }),
                Err(error) => tracing::warn!(%error, "cannot wait for the end of the server"),
            }
        };
        if thread::Builder::new().name("cairn-drop".into()).spawn(stop).is_ok()
            && end.recv_timeout(DROP_WAIT_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout)
        {
            tracing::warn!("the server's threads do not end; going on without them");
        }
    }
}

fn node_config(config: &Config) -> NodeConfig {
    let mut initial_cluster: Vec<InitialMember> = Vec::new();
    for (name, url) in config.initial_cluster() {
        match initial_cluster.iter_mut().find(|member| member.name == name) {
            Some(member) => member.peer_urls.push(url.to_string()),
            None => initial_cluster.push(InitialMember { name, peer_urls: vec![url.to_string()] }),
        }
    }
    let mut node = NodeConfig::new(config.data_dir());
    node.wal_dir.clone_from(&config.wal_dir);
    node.name.clone_from(&config.name);
    node.initial_cluster = initial_cluster;
    node.token.clone_from(&config.initial_cluster_token);
    node.peer_urls = config.initial_advertise_peer_urls.iter().map(Url::to_string).collect();
    node.force_new_cluster = config.force_new_cluster;
    node.pre_vote = config.pre_vote;
    node.rules = ChangeRules { strict: config.strict_reconfig_check, learners_max: config.max_learners as usize };
    node.slow_apply = config.warning_apply_duration;
    node.heartbeat = config.heartbeat_interval;
    node.election = config.election_timeout;
    node.entry_cache_bytes = config.entry_cache_bytes;
    node.retention.snapshot_count = config.snapshot_count();
    node.retention.catchup_commands = config.snapshot_catchup_entries();
    node.compaction =
        CompactionPace { revisions: config.compaction_batch_limit(), pause: config.compaction_sleep_interval() };
    node.watch_window_bytes = config.watch_window_bytes;
    node.lease_checkpoint = config.lease_checkpoint_interval.max(lease::CHECKPOINT_INTERVAL_MIN);
    node.store.memtable_bytes = config.memtable_bytes;
    node.store.block_cache_bytes = config.block_cache_bytes;
    node
}

fn peer_options(config: &Config) -> PeerOptions {
    PeerOptions {
        own_urls: config.initial_advertise_peer_urls.iter().map(Url::to_string).collect(),
        read_timeout: config.peer_read_timeout(),
        request_timeout: config.request_timeout(),
        request_bytes_max: config.max_request_bytes(),
        snapshot_bytes_per_second: config.snapshot_send_bytes_per_second,
    }
}

fn threads_of(config: &Config) -> usize {
    match config.api_threads {
        0 => thread::available_parallelism().map_or(1, usize::from),
        count => count,
    }
}

fn limits_of(config: &Config) -> Limits {
    let unless_zero = |duration: Duration| (!duration.is_zero()).then_some(duration);
    Limits {
        ping_min_time: config.grpc_keepalive_min_time,
        ping_interval: unless_zero(config.grpc_keepalive_interval).filter(|_| !config.grpc_keepalive_timeout.is_zero()),
        ping_timeout: config.grpc_keepalive_timeout,
        max_streams: config.max_concurrent_streams(),
    }
}

fn tcp_addr(place: &Place) -> Option<SocketAddr> {
    match place {
        Place::Tcp(addr) => Some(*addr),
        Place::Unix(_) => None,
    }
}

/// The URLs that clients are told: those of the configuration, or where the server really listens.
fn advertised(config: &Config, listeners: &[Listener]) -> Vec<String> {
    if !config.advertise_client_urls.is_empty() {
        return config.advertise_client_urls.iter().map(Url::to_string).collect();
    }
    let urls = listeners
        .iter()
        .filter(|listener| listener.port.grpc)
        .filter_map(|listener| Some(listener.place().ok()?.url(listener.listen.tls)));
    urls.collect()
}

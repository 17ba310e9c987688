//! What the replica shows to other threads.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;
use tokio::sync::{Semaphore, watch};

use super::{apply_timer::ApplyTimer, budget::Budget, delivery::Deliveries, hashing::HASHES_MAX, space::LastRewrite};
use crate::{
    node::{
        NodeError, NodeMetrics,
        core::CoreStatus,
        identity::Identity,
        snapshot::{Installer, Outgoing},
    },
    state::Reader,
    store::StoreSize,
};

/// KiB of messages of other members that may wait for the replica's task; then their connections have to wait.
pub(super) const PEER_KIB_MAX: u32 = 64 << 10;

/// How a node is doing. Read without asking the replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeStatus {
    /// This member.
    pub member_id: u64,
    /// Its cluster.
    pub cluster_id: u64,
    /// The leader it knows, 0 for none.
    pub leader: u64,
    /// Its term.
    pub term: u64,
    /// The last entry known to be committed.
    pub raft_index: u64,
    /// The last entry applied.
    pub applied_index: u64,
    /// Whether this member has no vote.
    pub is_learner: bool,
}

/// How far back a member's log goes.
#[derive(Debug, Clone, PartialEq)]
pub struct History {
    /// The members that the cluster began with, before the first entry there ever was; empty if that is not known.
    pub initial: Vec<cairn_proto::etcdserverpb::Member>,
    /// Index of the first entry that the log still holds.
    pub first_index: u64,
}

/// What the replica shows to everybody.
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) nonce: u64,
    pub(super) counter: AtomicU64,
    pub(super) budget: Budget,
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) metrics: NodeMetrics,
    pub(super) apply_timer: Arc<ApplyTimer>,
    pub(super) reader: Reader,
    pub(super) outgoing: Outgoing,
    pub(super) installer: Installer,
    pub(super) leader: AtomicU64,
    pub(super) term: AtomicU64,
    pub(super) committed: AtomicU64,
    pub(super) applied: AtomicU64,
    /// Index of the first entry that the log still holds.
    pub(super) first_index: AtomicU64,
    pub(super) learner: AtomicBool,
    /// The log has no entry yet.
    pub(super) blank: AtomicBool,
    pub(super) reads_locally: AtomicBool,
    size: Mutex<StoreSize>,
    pub(super) last_rewrite: Mutex<LastRewrite>,
    /// Clients may be served.
    pub(super) serves: watch::Sender<bool>,
    /// Leases were revoked, or this member's standing has changed.
    pub(super) lease_news: watch::Sender<()>,
    /// The members have changed.
    pub(super) members_seen: watch::Sender<()>,
    failed: AtomicBool,
    /// Room for what other members sent.
    pub(super) peer_room: Arc<Semaphore>,
    /// Turns to hash all keys.
    pub(super) hashes: Arc<Semaphore>,
    pub(super) leader_seen: watch::Sender<u64>,
    pub(super) fatal: watch::Sender<Option<Arc<NodeError>>>,
    pub(super) stopped: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(
        identity: Identity,
        nonce: u64,
        budget: Budget,
        reader: Reader,
        outgoing: Outgoing,
        installer: Installer,
        apply_timer: Arc<ApplyTimer>,
    ) -> Self {
        Self {
            identity,
            nonce,
            counter: AtomicU64::new(0),
            budget,
            deliveries: Arc::new(Deliveries::new()),
            metrics: apply_timer.metrics().clone(),
            apply_timer,
            reader,
            outgoing,
            installer,
            leader: AtomicU64::new(0),
            term: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            first_index: AtomicU64::new(u64::MAX),
            learner: AtomicBool::new(false),
            blank: AtomicBool::new(false),
            reads_locally: AtomicBool::new(false),
            size: Mutex::default(),
            last_rewrite: Mutex::default(),
            serves: watch::Sender::new(false),
            lease_news: watch::Sender::new(()),
            members_seen: watch::Sender::new(()),
            failed: AtomicBool::new(false),
            peer_room: Arc::new(Semaphore::new(PEER_KIB_MAX as usize)),
            hashes: Arc::new(Semaphore::new(HASHES_MAX)),
            leader_seen: watch::Sender::new(0),
            fatal: watch::Sender::new(None),
            stopped: watch::Sender::new(false),
        }
    }

    pub(super) fn publish(&self, status: &CoreStatus) {
        self.blank.store(status.blank, Ordering::Relaxed);
        self.leader.store(status.standing.leader, Ordering::Relaxed);
        self.term.store(status.standing.term, Ordering::Relaxed);
        self.committed.store(status.committed, Ordering::Relaxed);
        self.applied.store(status.applied, Ordering::Relaxed);
        self.learner.store(status.learner, Ordering::Relaxed);
        // Who sees it set also sees what the state machine published before.
        self.reads_locally.store(status.reads_locally && !self.has_failed(), Ordering::Release);
        self.leader_seen.send_if_modified(|leader| std::mem::replace(leader, status.standing.leader) != *leader);
        self.serves.send_if_modified(|serves| std::mem::replace(serves, status.serves) != *serves);
    }

    /// Milliseconds since the node was started: the time that leases live by.
    pub(super) fn uptime_ms(&self) -> u64 {
        u64::try_from(self.apply_timer.uptime().as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn set_size(&self, size: StoreSize) {
        *self.size.lock() = size;
        let StoreSize { total, in_use } = self.size();
        self.metrics.db_size.set(total as i64);
        self.metrics.db_size_in_use.set(in_use as i64);
    }

    pub(super) fn size(&self) -> StoreSize {
        let unflushed = self.reader.store().unflushed_bytes();
        let files = *self.size.lock();
        StoreSize { total: files.total + unflushed, in_use: files.in_use + unflushed }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    /// Notes the first error. From now on nothing is acknowledged.
    pub(super) fn fail(&self, error: NodeError) {
        self.failed.store(true, Ordering::Release);
        self.reads_locally.store(false, Ordering::Release);
        self.fatal.send_if_modified(|fatal| {
            let first = fatal.is_none();
            if first {
                tracing::error!(%error, "the replica has failed; nothing is acknowledged any more");
                *fatal = Some(Arc::new(error));
            }
            first
        });
    }

    pub(super) fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    pub(super) fn stopped(&self) {
        self.reads_locally.store(false, Ordering::Release);
        self.stopped.send_replace(true);
        self.lease_news.send_replace(());
    }
}

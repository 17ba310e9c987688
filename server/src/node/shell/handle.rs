//! The handle: how the rest of the server talks to the replica.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use raft::eraftpb::{Entry, Message};
use tokio::sync::{mpsc, oneshot, watch};

use super::budget::Budget;
use crate::{
    node::{NodeError, NodeMetrics, ProposeError, ReadIndexError, core::CoreStatus, identity::Identity},
    state::{
        Alarms, Answer, Members, Reader, Views,
        command::{self, Command, Request, RequestId},
    },
    store::{Store, StoreSize},
};

/// What is stored says everything that this version of the API can say.
const STORAGE_VERSION: &str = "3.7.0";

/// Where a proposal's result goes.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) result: oneshot::Sender<Result<Answer, ProposeError>>,
    /// What the proposal takes of the budget.
    pub(super) bytes: usize,
}

/// Where a reader's leave goes.
pub(super) type ReadLeave = oneshot::Sender<Result<(), ReadIndexError>>;

/// What the replica task is told.
#[derive(Debug)]
pub(super) enum Input {
    Propose { counter: u64, command: Bytes, writer: Writer },
    Read(ReadLeave),
    Message(Message),
    Unreachable(u64),
    Synced(u64),
    Purged { size_bytes: u64 },
    Fetched { id: u64, entries: Vec<Entry> },
    Flushed(u64),
    Failed(NodeError),
    Stop,
}

/// How the threads tell the replica task what they did. It does not keep the task alive: without handles the task ends.
#[derive(Debug, Clone)]
pub(super) struct Reports(mpsc::WeakUnboundedSender<Input>);

impl Reports {
    pub(super) fn new(inbox: &mpsc::UnboundedSender<Input>) -> Self {
        Self(inbox.downgrade())
    }

    /// Tells the task. If it has ended, nobody wants to know.
    pub(super) fn send(&self, input: Input) {
        if let Some(inbox) = self.0.upgrade() {
            let _ = inbox.send(input);
        }
    }
}

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

/// What the replica shows to everybody.
pub(super) struct Shared {
    pub(super) identity: Identity,
    pub(super) nonce: u64,
    counter: AtomicU64,
    pub(super) budget: Budget,
    pub(super) metrics: NodeMetrics,
    pub(super) store: Arc<dyn Store>,
    leader: AtomicU64,
    term: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    learner: AtomicBool,
    reads_locally: AtomicBool,
    size: parking_lot::Mutex<StoreSize>,
    failed: AtomicBool,
    fatal: watch::Sender<Option<Arc<NodeError>>>,
    stopped: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn new(identity: Identity, nonce: u64, budget: Budget, store: Arc<dyn Store>) -> Self {
        Self {
            identity,
            nonce,
            counter: AtomicU64::new(0),
            budget,
            metrics: NodeMetrics::default(),
            store,
            leader: AtomicU64::new(0),
            term: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            applied: AtomicU64::new(0),
            learner: AtomicBool::new(false),
            reads_locally: AtomicBool::new(false),
            size: parking_lot::Mutex::default(),
            failed: AtomicBool::new(false),
            fatal: watch::Sender::new(None),
            stopped: watch::Sender::new(false),
        }
    }

    pub(super) fn publish(&self, status: &CoreStatus) {
        self.leader.store(status.standing.leader, Ordering::Relaxed);
        self.term.store(status.standing.term, Ordering::Relaxed);
        self.committed.store(status.committed, Ordering::Relaxed);
        self.applied.store(status.applied, Ordering::Relaxed);
        self.learner.store(status.learner, Ordering::Relaxed);
        // Who sees it set also sees what the state machine published before.
        self.reads_locally.store(status.reads_locally && !self.has_failed(), Ordering::Release);
    }

    pub(super) fn set_size(&self, size: StoreSize) {
        *self.size.lock() = size;
        self.metrics.db_size.set(size.total as i64);
        self.metrics.db_size_in_use.set(size.in_use as i64);
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

    pub(super) fn stopped(&self) {
        self.reads_locally.store(false, Ordering::Release);
        self.stopped.send_replace(true);
    }
}

/// Talks to a running node. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct NodeHandle {
    inbox: mpsc::UnboundedSender<Input>,
    shared: Arc<Shared>,
    views: Arc<Views>,
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl NodeHandle {
    pub(super) fn new(inbox: mpsc::UnboundedSender<Input>, shared: Arc<Shared>, views: Views) -> Self {
        Self { inbox, shared, views: Arc::new(views) }
    }

    /// Puts a request through the log and gives its result, which was validated and authorised before. `user` and
    /// `auth_revision` say on whose behalf and as of which permissions. Ends at the latest after the request time-out.
    pub async fn propose(&self, request: Request, user: Bytes, auth_revision: u64) -> Result<Answer, ProposeError> {
        let shared = &*self.shared;
        let counter = shared.counter.fetch_add(1, Ordering::Relaxed) + 1;
        let id = RequestId { member: shared.identity.member, nonce: shared.nonce, counter };
        let command = command::encode(&Command { id, user, auth_revision, request });
        let bytes = command.len();
        if !shared.budget.take(bytes) {
            shared.metrics.requests_refused.inc();
            return Err(ProposeError::TooManyRequests);
        }
        let (result, answer) = oneshot::channel();
        let writer = Writer { result, bytes };
        if self.inbox.send(Input::Propose { counter, command, writer }).is_err() {
            return Err(ProposeError::Stopped);
        }
        answer.await.unwrap_or(Err(ProposeError::Stopped))
    }

    /// Waits until everything that was acknowledged by any member before now can be read here. Does not wait, nor ask
    /// anybody, if this member decides alone.
    pub async fn linearize(&self) -> Result<(), ReadIndexError> {
        let shared = &*self.shared;
        if shared.reads_locally.load(Ordering::Acquire) {
            return Ok(());
        }
        if !shared.budget.take(0) {
            shared.metrics.requests_refused.inc();
            return Err(ReadIndexError::TooManyRequests);
        }
        let (leave, granted) = oneshot::channel();
        if self.inbox.send(Input::Read(leave)).is_err() {
            return Err(ReadIndexError::Stopped);
        }
        granted.await.unwrap_or(Err(ReadIndexError::Stopped))
    }

    /// Reads keys.
    pub fn reader(&self) -> &Reader {
        &self.views.reader
    }

    /// Reads the small replicated tables.
    pub fn views(&self) -> &Views {
        &self.views
    }

    /// How the node is doing.
    pub fn status(&self) -> NodeStatus {
        let shared = &*self.shared;
        NodeStatus {
            member_id: shared.identity.member,
            cluster_id: shared.identity.cluster,
            leader: shared.leader.load(Ordering::Relaxed),
            term: shared.term.load(Ordering::Relaxed),
            raft_index: shared.committed.load(Ordering::Relaxed),
            applied_index: shared.applied.load(Ordering::Relaxed),
            is_learner: shared.learner.load(Ordering::Relaxed),
        }
    }

    /// The members, as of the last applied change.
    pub fn members(&self) -> Arc<Members> {
        self.views.members()
    }

    /// The raised alarms.
    pub fn alarms(&self) -> Arc<Alarms> {
        self.views.alarms()
    }

    /// The replicated cluster version, once it was set.
    pub fn cluster_version(&self) -> Arc<Option<String>> {
        self.views.cluster_version()
    }

    /// The version of what is stored, as the API names it.
    pub fn storage_version(&self) -> &'static str {
        STORAGE_VERSION
    }

    /// The store's size: its files as of about a second ago, and what was written since but is not in them yet.
    pub fn size(&self) -> StoreSize {
        let unflushed = self.shared.store.unflushed_bytes();
        let files = *self.shared.size.lock();
        StoreSize { total: files.total + unflushed, in_use: files.in_use + unflushed }
    }

    /// Gives disk space back that deleted data still takes. Waits for the disk.
    pub fn defragment(&self) -> Result<(), NodeError> {
        self.shared.store.compact().map_err(|error| NodeError::State(error.into()))
    }

    /// What the node counts and measures.
    pub fn metrics(&self) -> &NodeMetrics {
        &self.shared.metrics
    }

    /// The error that ended the replica, once there is one.
    pub fn fatal(&self) -> watch::Receiver<Option<Arc<NodeError>>> {
        self.shared.fatal.subscribe()
    }

    /// Reports an error that must end the replica, met by somebody else than the replica: a read that found the store
    /// damaged. Only the first one counts.
    pub fn fail(&self, error: NodeError) {
        // If the task has ended there is nothing left to end.
        let _ = self.inbox.send(Input::Failed(error));
    }

    /// Takes a message of another member.
    pub fn step(&self, message: Message) {
        // If the task has ended there is nobody to take it.
        let _ = self.inbox.send(Input::Message(message));
    }

    /// Notes that messages to another member were lost.
    pub fn unreachable(&self, member: u64) {
        // If the task has ended nobody cares.
        let _ = self.inbox.send(Input::Unreachable(member));
    }

    /// Stops the replica: what was accepted is finished, log and store are brought to a point from which the next start
    /// is quick, the data directory is unlocked. Whoever still waits is told that the server stops. May be called
    /// again. The store itself is closed with the last handle, reader or pin that is dropped.
    pub async fn shutdown(&self) {
        let mut stopped = self.shared.stopped.subscribe();
        // If the task has ended it has said so.
        let _ = self.inbox.send(Input::Stop);
        // The sender is in `self.shared`, so it cannot be gone.
        let _ = stopped.wait_for(|stopped| *stopped).await;
    }
}

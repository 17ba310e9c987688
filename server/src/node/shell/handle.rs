//! The handle: how the rest of the server talks to the replica.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use cairn_proto::etcdserverpb::AlarmType;
use parking_lot::Mutex;
use raft::eraftpb::{Entry, Message};
use semver::Version;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::{
    apply_timer::ApplyTimer,
    budget::Budget,
    delivery::{Deliveries, Waiter},
    hashing::HASHES_MAX,
    space::LastRewrite,
};
use crate::{
    lease::{LeaseClock, NotLeading, Renewal, TimeLeft},
    node::{
        NodeError, NodeMetrics, ProposeError, ReadIndexError,
        core::CoreStatus,
        identity::Identity,
        snapshot::{Held, Incoming, Installer, Outgoing, Reading, Received, SnapshotError},
    },
    raft::{Offer, SnapshotMeta},
    state::{
        Alarms, Answer, MemberChange, Members, Reader, Views,
        auth::{Authorizer, Permit},
        command::{self, Command, Request, RequestId, may_be_proposed},
    },
    store::StoreSize,
    watch::Hub,
};

/// KiB of messages of other members that may wait for the replica's task; then their connections have to wait.
const PEER_KIB_MAX: u32 = 64 << 10;

/// Where a proposal's result goes.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) result: Waiter<Result<Answer, ProposeError>>,
    /// What the proposal takes of the budget.
    pub(super) bytes: usize,
}

/// Where a reader's leave goes.
pub(super) type ReadLeave = Waiter<Result<(), ReadIndexError>>;

/// What the replica task is told.
#[derive(Debug)]
pub(super) enum Input {
    Propose {
        counter: u64,
        command: Bytes,
        writer: Writer,
        /// It is the publication of the member's own name and URLs.
        publishes: bool,
    },
    Read(ReadLeave),
    /// A message of another member, and its room in what may wait.
    Message(Message, OwnedSemaphorePermit),
    /// A command that another member forwarded.
    Forwarded(Bytes, OwnedSemaphorePermit),
    /// A membership change, to be checked and proposed if this member leads.
    Change {
        counter: u64,
        change: MemberChange,
        writer: Writer,
    },
    /// Leadership is to be handed over.
    Transfer(u64),
    /// Another member, this one, says that this one was removed from the cluster.
    Removed(u64),
    Synced(u64),
    Purged {
        size_bytes: u64,
    },
    Fetched {
        id: u64,
        entries: Vec<Entry>,
    },
    Flushed(u64),
    /// A snapshot was made, or could not be made.
    Checkpointed(Option<SnapshotMeta>),
    /// A member fetches a snapshot.
    Heard {
        member: u64,
        id: u64,
    },
    /// A member says that it could not take the snapshot that it was offered.
    Unfetched {
        member: u64,
        id: u64,
    },
    /// A snapshot was fetched, or could not be.
    Received {
        id: u64,
        received: Option<Box<Received>>,
    },
    /// A snapshot has taken the state's place.
    Switched(Box<Received>),
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
    counter: AtomicU64,
    pub(super) budget: Budget,
    pub(super) deliveries: Arc<Deliveries>,
    pub(super) metrics: NodeMetrics,
    pub(super) apply_timer: Arc<ApplyTimer>,
    pub(super) reader: Reader,
    pub(super) outgoing: Outgoing,
    pub(super) installer: Installer,
    leader: AtomicU64,
    term: AtomicU64,
    committed: AtomicU64,
    applied: AtomicU64,
    /// Index of the first entry that the log still holds.
    pub(super) first_index: AtomicU64,
    learner: AtomicBool,
    /// The log has no entry yet.
    blank: AtomicBool,
    reads_locally: AtomicBool,
    size: Mutex<StoreSize>,
    pub(super) last_rewrite: Mutex<LastRewrite>,
    /// Clients may be served.
    pub(super) serves: watch::Sender<bool>,
    /// Leases were revoked, or this member's standing has changed.
    pub(super) lease_news: watch::Sender<()>,
    failed: AtomicBool,
    /// Room for what other members sent.
    peer_room: Arc<Semaphore>,
    /// Turns to hash all keys.
    pub(super) hashes: Arc<Semaphore>,
    leader_seen: watch::Sender<u64>,
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

/// Talks to a running node. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct NodeHandle {
    inbox: mpsc::UnboundedSender<Input>,
    pub(super) shared: Arc<Shared>,
    views: Arc<Views>,
    lease_clock: Arc<Mutex<LeaseClock>>,
    hub: Hub,
    authorizer: Authorizer,
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl NodeHandle {
    pub(super) fn new(
        inbox: mpsc::UnboundedSender<Input>,
        shared: Arc<Shared>,
        views: Views,
        lease_clock: &Arc<Mutex<LeaseClock>>,
        hub: Hub,
    ) -> Self {
        Self {
            inbox,
            shared,
            views: Arc::new(views),
            lease_clock: Arc::clone(lease_clock),
            hub,
            authorizer: Authorizer::default(),
        }
    }

    /// Decides what principals may do.
    pub fn authorizer(&self) -> &Authorizer {
        &self.authorizer
    }

    /// Puts a permitted and validated request through the log and gives its result. Ends at the latest after the request
    /// time-out. The permit is what cannot be left out:
    ///
    /// ```compile_fail
    /// async fn unchecked(node: &cairn_server::node::NodeHandle, request: cairn_server::state::command::Request) {
    ///     let _ = node.propose(request).await;
    /// }
    /// ```
    pub async fn propose(&self, permit: Permit, request: Request) -> Result<Answer, ProposeError> {
        self.propose_for(permit, request, false).await
    }

    /// Proposes a request of the member itself.
    pub async fn propose_own(&self, request: Request) -> Result<Answer, ProposeError> {
        self.propose(self.authorizer.own(), request).await
    }

    pub(super) async fn propose_for(
        &self,
        permit: Permit,
        request: Request,
        publishes: bool,
    ) -> Result<Answer, ProposeError> {
        let (shared, level) = (&*self.shared, self.command_level());
        may_be_proposed(request.since(), level).map_err(ProposeError::Refused)?;
        let (kind, began) = (request.kind(), Instant::now());
        let counter = shared.counter.fetch_add(1, Ordering::Relaxed) + 1;
        let id = RequestId { member: shared.identity.member, nonce: shared.nonce, counter };
        let command = command::encode(&Command { id, actor: permit.into_actor(), request }, level);
        let bytes = command.len();
        if !shared.budget.take(bytes) {
            shared.metrics.requests_refused.inc();
            return Err(ProposeError::TooManyRequests);
        }
        let (result, answer) = self.shared.deliveries.wait();
        let writer = Writer { result, bytes };
        if self.inbox.send(Input::Propose { counter, command, writer, publishes }).is_err() {
            return Err(ProposeError::Stopped);
        }
        let answer = answer.await.unwrap_or(Err(ProposeError::Stopped));
        shared.metrics.requested(kind, answer.is_ok(), began);
        answer
    }

    /// Waits until everything that was acknowledged by any member before now can be read here, and says whether it had
    /// to. Does not wait, nor ask anybody, if this member decides alone.
    pub async fn linearize(&self) -> Result<bool, ReadIndexError> {
        let shared = &*self.shared;
        if shared.reads_locally.load(Ordering::Acquire) {
            return Ok(false);
        }
        if !shared.budget.take(0) {
            shared.metrics.requests_refused.inc();
            return Err(ReadIndexError::TooManyRequests);
        }
        let (leave, granted) = shared.deliveries.wait();
        if self.inbox.send(Input::Read(leave)).is_err() {
            return Err(ReadIndexError::Stopped);
        }
        granted.await.unwrap_or(Err(ReadIndexError::Stopped))?;
        Ok(true)
    }

    /// Gives out the answers for whoever waits on the thread that runs this, which must be its runtime's only one: they are
    /// brought there together. The replica's thread has no need of it.
    pub fn deliveries(&self) -> impl Future<Output = ()> + Send + use<> {
        let deliveries = Arc::clone(&self.shared.deliveries);
        async move { deliveries.give_out().await }
    }

    /// Reads keys.
    pub fn reader(&self) -> &Reader {
        &self.views.reader
    }

    /// Gives a lease its whole time. Only after [`Self::linearize`] has ended, called after the wish to renew it had come.
    pub fn renew_lease(&self, id: i64) -> Result<Renewal, NotLeading> {
        let renewal = self.lease_clock.lock().renew(id, self.shared.uptime_ms())?;
        if matches!(renewal, Renewal::Renewed(_)) {
            self.shared.metrics.leases_renewed.inc();
        }
        Ok(renewal)
    }

    /// How long a lease has left, if it exists. Only after [`Self::linearize`] as well.
    pub fn lease_time_left(&self, id: i64) -> Result<Option<TimeLeft>, NotLeading> {
        self.lease_clock.lock().time_left(id, self.shared.uptime_ms())
    }

    /// The keys that hang on a lease.
    pub fn lease_keys(&self, _permit: &Permit, id: i64) -> Vec<Bytes> {
        self.views.leases.keys(id)
    }

    /// All leases and when they run out, in no order. Only after [`Self::linearize`] as well.
    pub fn lease_expiries(&self) -> Result<Vec<(u64, u64, i64)>, NotLeading> {
        self.lease_clock.lock().expiries()
    }

    /// Changes when leases were revoked, when the leader changes, and when the node stops.
    pub fn lease_news(&self) -> watch::Receiver<()> {
        self.shared.lease_news.subscribe()
    }

    /// Tells of changes. Closed when the replica ends.
    pub fn hub(&self) -> &Hub {
        &self.hub
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

    /// How far back the log goes.
    pub fn history(&self) -> History {
        let initial = self.members().initial.clone();
        History { initial, first_index: self.shared.first_index.load(Ordering::Relaxed) }
    }

    /// The raised alarms.
    pub fn alarms(&self) -> Arc<Alarms> {
        self.views.alarms()
    }

    /// Whether the alarm is raised that this member's data are not those of the others.
    pub fn is_corrupt(&self) -> bool {
        self.views.is_raised(AlarmType::Corrupt, self.shared.identity.member)
    }

    /// The replicated cluster version, once it was set.
    pub fn cluster_version(&self) -> Option<Arc<Version>> {
        self.views.cluster_version()
    }

    /// The replicated command level: all members apply the commands up to it.
    pub fn command_level(&self) -> u32 {
        self.views.command_level()
    }

    /// The store's size: its files as of about a second ago, and what was written since but is not in them yet.
    pub fn size(&self) -> StoreSize {
        self.shared.size()
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

    /// Takes a message of another member, which had `bytes`. Waits while too much of other members waits already.
    pub async fn step(&self, message: Message, bytes: usize) {
        if let Some(room) = self.peer_room(bytes).await {
            // If the task has ended there is nobody to take it.
            let _ = self.inbox.send(Input::Message(message, room));
        }
    }

    /// Takes an encoded command that another member forwarded, to be proposed if this member leads. Waits like
    /// [`step`](Self::step).
    pub async fn forwarded(&self, command: Bytes) {
        if let Some(room) = self.peer_room(command.len()).await {
            // If the task has ended there is nobody to take it.
            let _ = self.inbox.send(Input::Forwarded(command, room));
        }
    }

    async fn peer_room(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(PEER_KIB_MAX);
        // The semaphore is never closed.
        Arc::clone(&self.shared.peer_room).acquire_many_owned(kib).await.ok()
    }

    /// Begins to read snapshot `id` for another member, which has some of it already; `None` if there is no such snapshot.
    pub fn read_snapshot(&self, id: u64, held: &[Held]) -> Option<Reading> {
        self.shared.outgoing.read(id, held)
    }

    /// Notes that a member is at fetching or installing snapshot `id`.
    pub fn snapshot_heard(&self, member: u64, id: u64) {
        // If the task has ended there is nobody who would miss it.
        let _ = self.inbox.send(Input::Heard { member, id });
    }

    /// Notes that a member says that it could not take snapshot `id`.
    pub fn snapshot_unfetched(&self, member: u64, id: u64) {
        // If the task has ended there is nobody who would offer it again.
        let _ = self.inbox.send(Input::Unfetched { member, id });
    }

    /// Begins to receive a snapshot, or goes on with what is there of it. Waits for the disk.
    pub fn begin_snapshot(&self, offer: Offer) -> Result<Incoming, SnapshotError> {
        self.shared.installer.begin(offer)
    }

    /// Makes a state of a snapshot that was received, and hands it to the replica. Waits for the disk, and takes its time.
    pub fn take_snapshot(&self, incoming: Incoming) -> Result<(), SnapshotError> {
        let id = incoming.offer().id;
        let received = Some(Box::new(self.shared.installer.open(incoming)?));
        // If the task has ended, the next start removes it.
        let _ = self.inbox.send(Input::Received { id, received });
        Ok(())
    }

    /// Notes that snapshot `id` could not be received.
    pub fn snapshot_failed(&self, id: u64) {
        // If the task has ended there is nobody who waits for it.
        let _ = self.inbox.send(Input::Received { id, received: None });
    }

    /// Whether this member's log has no entry yet: it has never been told anything, or has lost it.
    pub fn is_blank(&self) -> bool {
        self.shared.blank.load(Ordering::Relaxed)
    }

    /// Notes that another member, `by`, says that this one was removed from the cluster.
    pub fn removed(&self, by: u64) {
        // If the task has ended there is nothing left to end.
        let _ = self.inbox.send(Input::Removed(by));
    }

    /// Changes the membership, as leader: checks that the change is allowed, proposes it and waits until it is applied.
    pub async fn change_members(&self, change: MemberChange) -> Result<(), ProposeError> {
        let shared = &*self.shared;
        let counter = shared.counter.fetch_add(1, Ordering::Relaxed) + 1;
        if !shared.budget.take(0) {
            shared.metrics.requests_refused.inc();
            return Err(ProposeError::TooManyRequests);
        }
        let (result, answer) = self.shared.deliveries.wait();
        let writer = Writer { result, bytes: 0 };
        if self.inbox.send(Input::Change { counter, change, writer }).is_err() {
            return Err(ProposeError::Stopped);
        }
        let answer = answer.await.unwrap_or(Err(ProposeError::Stopped))?;
        answer.outcome.map(drop).map_err(ProposeError::Refused)
    }

    /// Begins to hand leadership over to another voter, if this member leads. Whether it succeeds shows in
    /// [`leader_seen`](Self::leader_seen).
    pub fn transfer_leader(&self, to: u64) {
        // If the task has ended it leads no more.
        let _ = self.inbox.send(Input::Transfer(to));
    }

    /// The leader that this member knows, 0 for none, as it changes.
    pub fn leader_seen(&self) -> watch::Receiver<u64> {
        self.shared.leader_seen.subscribe()
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
        self.wait_for_hashes().await;
    }
}

//! What all services need: the replica, the limits, and a place to wait for the disk.

use std::{sync::Arc, time::Duration};

use cairn_proto::{
    ApiError,
    etcdserverpb::{AlarmRequest, AlarmType, alarm_request::AlarmAction},
};
use tokio::{
    runtime,
    sync::{Mutex, Semaphore},
};

use super::{answer::Header, quota, refusal::Refusal};
use crate::{
    config::Config,
    lease,
    node::{Leases, Membership, NodeError, NodeHandle, Proposer, StoreMaintenance},
    peer::Peers,
    security::Jwt,
    state::{
        auth::{Authorizer, Identification, Need, Permit, Principal, ReadToken},
        command::{Reply, Request},
        mvcc::{Pin, ReadError},
    },
    watch::{CatchUp, CaughtUp},
};

/// How much may be on the blocking pool at a time; the next ones wait for their turn.
const ON_POOL_MAX: usize = 32;

/// How many passwords may be hashed or compared at a time: reads that take the disk keep their turns, and writes the
/// cores.
const HASHING_MAX: usize = 2;
/// How many may wait for that; more are refused.
const HASHING_WAITING_MAX: usize = 16_384;

/// How many watchers may catch up from the store at a time: they are many after a restart, and nobody else is to notice.
const CATCHING_UP_MAX: usize = 2;

/// What all services share.
pub struct Context {
    /// Decides what principals may do.
    pub authorizer: Authorizer,
    /// Signs tokens, where they are signed.
    pub jwt: Option<Arc<Jwt>>,
    /// The cost of hashing a password, as a power of two.
    pub bcrypt_cost: u32,
    /// The running replica.
    pub node: Proposer,
    /// Its members.
    pub membership: Membership,
    /// The leader's clock over leases.
    pub leases: Leases,
    /// Looking after its store.
    pub store: StoreMaintenance,
    /// The other members.
    pub peers: Arc<Peers>,
    /// How long a request may wait for its outcome.
    pub request_timeout: Duration,
    /// Silence of a leader after which there is an election.
    pub election_timeout: Duration,
    /// Largest request to be proposed, in bytes.
    pub max_request_bytes: usize,
    /// Bound of a transaction.
    pub max_txn_ops: usize,
    /// Size of the store at which it stops growing.
    pub quota_bytes: Option<u64>,
    /// Shortest time to live of a lease, in seconds.
    pub lease_ttl_min: i64,
    /// Silence after which watchers that asked for it are told the revision.
    pub watch_progress_notify_interval: Duration,
    pool: runtime::Handle,
    turns: Semaphore,
    hashing: Semaphore,
    hashing_waiting: Semaphore,
    catching_up: Semaphore,
    /// The turn to give garbage back.
    giving_back: Arc<Mutex<()>>,
}

impl Context {
    /// The context of services of `node` that wait for the disk on `pool`.
    pub fn new(
        node: &NodeHandle,
        peers: Arc<Peers>,
        config: &Config,
        jwt: Option<Arc<Jwt>>,
        pool: runtime::Handle,
    ) -> Arc<Self> {
        let proposer = node.proposer();
        let how = Identification {
            signed: jwt.clone().map(|jwt| jwt as Arc<dyn ReadToken>),
            token_ttl: config.auth_token_ttl,
            by_certificate: config.client_tls.client_cert_auth,
        };
        Arc::new(Self {
            authorizer: proposer.authorizer().clone().with(how),
            jwt,
            bcrypt_cost: config.bcrypt_cost,
            node: node.proposer(),
            membership: node.membership(),
            leases: node.leases(),
            store: node.store_maintenance(),
            peers,
            request_timeout: config.request_timeout(),
            election_timeout: config.election_timeout,
            max_request_bytes: config.max_request_bytes(),
            max_txn_ops: config.max_txn_ops,
            quota_bytes: config.quota_bytes(),
            lease_ttl_min: lease::ttl_min(config.heartbeat_interval, config.election_timeout),
            watch_progress_notify_interval: config.watch_progress_notify_interval(),
            pool,
            turns: Semaphore::new(ON_POOL_MAX),
            hashing: Semaphore::new(HASHING_MAX),
            hashing_waiting: Semaphore::new(HASHING_WAITING_MAX),
            catching_up: Semaphore::new(CATCHING_UP_MAX),
            giving_back: Arc::default(),
        })
    }

    /// The header of an answer at `revision`, 0 for answers that have none.
    pub fn header(&self, revision: i64) -> Header {
        let status = self.node.status();
        Header { cluster_id: status.cluster_id, member_id: status.member_id, revision, raft_term: status.term }
    }

    /// Proposes a request that the principal may make, and waits for its result.
    pub async fn propose(&self, principal: &Principal, mut request: Request) -> Result<(Reply, Option<Pin>), Refusal> {
        loop {
            let permit = self.authorize(principal, Need::Apply(&request))?;
            let again = permit.may_grow_old().then(|| request.clone());
            let answer = self.node.propose(permit, request).await.map_err(ApiError::from)?;
            match (answer.outcome, again) {
                // Users or roles were changed meanwhile: it is checked again.
                (Err(ApiError::AuthOldRevision), Some(again)) => request = again,
                (outcome, _) => return Ok((outcome?, answer.pin)),
            }
        }
    }

    /// Permits a principal what it needs, or refuses.
    pub fn authorize(&self, principal: &Principal, need: Need<'_>) -> Result<Permit, Refusal> {
        Ok(self.authorizer.authorize(principal, need)?)
    }

    /// Refuses to read what is known not to be what the other members have.
    pub fn check_intact(&self) -> Result<(), ApiError> {
        if self.node.is_corrupt() { Err(ApiError::Corrupt) } else { Ok(()) }
    }

    /// Sees to it that the store has room for `cost` bytes, or raises the alarm that there is none.
    pub async fn make_room(&self, cost: u64) -> Result<(), Refusal> {
        if self.has_room(cost) {
            return Ok(());
        }
        // Rare, and not to make every put's future larger.
        Box::pin(self.make_room_or_refuse(cost)).await
    }

    async fn make_room_or_refuse(&self, cost: u64) -> Result<(), Refusal> {
        let status = self.node.status();
        let alarm = AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: status.member_id,
            alarm: AlarmType::Nospace.into(),
        };
        let raised = self.node.alarms().list(alarm.alarm).iter().any(|raised| raised.member_id == status.member_id);
        if !raised {
            let given_back = tokio::time::timeout(self.request_timeout, self.give_back(cost)).await;
            if given_back.unwrap_or(Err(ApiError::Timeout.into()))? {
                return Ok(());
            }
            tracing::warn!(
                size = self.node.size().total,
                quota = self.quota_bytes,
                "the store has reached its quota; raising the alarm NOSPACE"
            );
            // Whether or not the alarm gets through, this request is refused, and the next one tries again.
            let _ = self.node.propose_own(Request::Alarm(alarm)).await;
        }
        Err(ApiError::NoSpace.into())
    }

    fn has_room(&self, cost: u64) -> bool {
        quota::has_room(self.node.size().total, cost, self.quota_bytes)
    }

    /// Gives back what only garbage takes, once for all who wait for it. Whether there is room for `cost` bytes then.
    async fn give_back(&self, cost: u64) -> Result<bool, Refusal> {
        let turn = self.giving_back.clone().lock_owned().await;
        if self.has_room(cost) || !self.store.has_garbage() {
            return Ok(self.has_room(cost));
        }
        let (store, before) = (self.store.clone(), self.node.size().total);
        // It goes on if the caller goes away, and keeps its turn.
        let work = move || {
            let done = store.give_back();
            drop(turn);
            done
        };
        if let Err(error) = self.on_pool(work).await? {
            self.node.fail(error);
            return Err(ApiError::Stopped.into());
        }
        tracing::info!(before, size = self.node.size().total, "the store reached its quota; gave garbage back");
        Ok(self.has_room(cost))
    }

    /// Runs a read that may wait for the disk.
    pub async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let read = self.on_pool(read).await?;
        self.read(read)
    }

    /// Runs what may wait for the disk.
    pub async fn on_pool<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let _turn = self.turns.acquire().await;
        self.run(work).await
    }

    /// Hashes a password, or signs, which takes a core for a while.
    pub async fn hashing<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        let done = self.hashing_unless(|| false, work).await?;
        done.ok_or_else(|| self.contradiction("a hash that nothing spares was not made"))
    }

    /// Likewise, unless `is_spared` says at the turn that it need not be done. None if so.
    pub async fn hashing_unless<T: Send + 'static>(
        &self,
        is_spared: impl FnOnce() -> bool,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<Option<T>, Refusal> {
        let _waiting = self.hashing_waiting.try_acquire().map_err(|_| ApiError::TooManyRequests)?;
        let _turn = self.hashing.acquire().await;
        if is_spared() { Ok(None) } else { self.run(work).await.map(Some) }
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        // The pool is shutting down, or the work panicked, which has been reported.
        self.pool.spawn_blocking(work).await.map_err(|_| ApiError::Stopped.into())
    }

    /// Runs a piece of a watcher's catching up.
    pub async fn catch_up(&self, job: CatchUp) -> Result<Result<CaughtUp, ReadError>, Refusal> {
        let _turn = self.catching_up.acquire().await;
        self.on_pool(move || job.run()).await
    }

    /// Does what has to be done even if the caller goes away meanwhile.
    pub fn spawn<F>(&self, work: F) -> impl Future<Output = Result<F::Output, Refusal>> + use<F>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        let task = self.pool.spawn(work);
        // The server is stopping, or the work panicked, which has been reported.
        async { task.await.map_err(|_| ApiError::Stopped.into()) }
    }

    /// A read's result; an error that is no answer ends the replica.
    pub fn read<T>(&self, read: Result<T, ReadError>) -> Result<T, Refusal> {
        read.map_err(|error| {
            if let ReadError::Api(error) = error {
                return Refusal::Api(error);
            }
            self.node.fail(NodeError::State(error.into()));
            Refusal::Api(ApiError::Stopped)
        })
    }

    /// A result that cannot be.
    pub fn contradiction(&self, what: &'static str) -> Refusal {
        tracing::error!(what, "an answer does not fit its request; this is a defect of the program");
        Refusal::Internal(what.into())
    }
}

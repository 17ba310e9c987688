//! What may be seen of a running replica by every part of the server.

use std::sync::{Arc, atomic::Ordering};

use cairn_proto::etcdserverpb::AlarmType;
use parking_lot::Mutex;
use semver::Version;
use tokio::sync::{mpsc, watch};

use crate::{
    lease::LeaseClock,
    node::{
        NodeError, NodeMetrics, ReadIndexError,
        shell::{
            inputs::Input,
            shared::{History, NodeStatus, Shared},
        },
    },
    state::{Alarms, Members, Reader, Views, auth::Authorizer},
    store::StoreSize,
    watch::Hub,
};

/// What the parts of a handle share.
pub(in crate::node::shell) struct Inner {
    pub(super) inbox: mpsc::UnboundedSender<Input>,
    pub(super) shared: Arc<Shared>,
    pub(super) views: Views,
    pub(super) lease_clock: Arc<Mutex<LeaseClock>>,
    pub(super) hub: Hub,
    pub(super) authorizer: Authorizer,
}

/// Reads a running replica. Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct ReplicaView(pub(super) Arc<Inner>);

impl ReplicaView {
    /// Another view of the same replica.
    #[must_use]
    pub fn view(&self) -> Self {
        self.clone()
    }

    pub(in crate::node::shell) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(super) fn inbox(&self) -> &mpsc::UnboundedSender<Input> {
        &self.0.inbox
    }

    pub(super) fn views(&self) -> &Views {
        &self.0.views
    }
}

impl ReplicaView {
    /// Reads keys.
    pub fn reader(&self) -> &Reader {
        &self.0.views.reader
    }

    /// Tells of changes. Closed when the replica ends.
    pub fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// How the node is doing.
    pub fn status(&self) -> NodeStatus {
        let shared = self.shared();
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
        self.views().members()
    }

    /// How far back the log goes.
    pub fn history(&self) -> History {
        let initial = self.members().initial.clone();
        History { initial, first_index: self.shared().first_index.load(Ordering::Relaxed) }
    }

    /// The raised alarms.
    pub fn alarms(&self) -> Arc<Alarms> {
        self.views().alarms()
    }

    /// Whether the alarm is raised that this member's data are not those of the others.
    pub fn is_corrupt(&self) -> bool {
        self.views().is_raised(AlarmType::Corrupt, self.shared().identity.member)
    }

    /// The replicated cluster version, once it was set.
    pub fn cluster_version(&self) -> Option<Arc<Version>> {
        self.views().cluster_version()
    }

    /// The revision of users, roles and permissions.
    pub fn auth_revision(&self) -> u64 {
        self.0.authorizer.store().revision()
    }

    /// The replicated command level: all members apply the commands up to it.
    pub fn command_level(&self) -> u32 {
        self.views().command_level()
    }

    /// The store's size: its files as of about a second ago, and what was written since but is not in them yet.
    pub fn size(&self) -> StoreSize {
        self.shared().size()
    }

    /// What the node counts and measures.
    pub fn metrics(&self) -> &NodeMetrics {
        &self.shared().metrics
    }

    /// The leader that this member knows, 0 for none, as it changes.
    pub fn leader_seen(&self) -> watch::Receiver<u64> {
        self.shared().leader_seen.subscribe()
    }

    /// Changes when [`members`](Self::members) gives others than before.
    pub fn members_seen(&self) -> watch::Receiver<()> {
        self.shared().members_seen.subscribe()
    }

    /// Changes when leases were revoked, when the leader changes, and when the node stops.
    pub fn lease_news(&self) -> watch::Receiver<()> {
        self.shared().lease_news.subscribe()
    }

    /// Whether this member's log has no entry yet: it has never been told anything, or has lost it.
    pub fn is_blank(&self) -> bool {
        self.shared().blank.load(Ordering::Relaxed)
    }

    /// Waits until everything that was acknowledged by any member before now can be read here, and says whether it had
    /// to. Does not wait, nor ask anybody, if this member decides alone.
    pub async fn linearize(&self) -> Result<bool, ReadIndexError> {
        let shared = self.shared();
        if shared.reads_locally.load(Ordering::Acquire) {
            return Ok(false);
        }
        if !shared.budget.take(0) {
            shared.metrics.requests_refused.inc();
            return Err(ReadIndexError::TooManyRequests);
        }
        let (leave, granted) = shared.deliveries.wait();
        if self.inbox().send(Input::Read(leave)).is_err() {
            return Err(ReadIndexError::Stopped);
        }
        granted.await.unwrap_or(Err(ReadIndexError::Stopped))?;
        Ok(true)
    }

    /// The error that ended the replica, once there is one.
    pub fn fatal(&self) -> watch::Receiver<Option<Arc<NodeError>>> {
        self.shared().fatal.subscribe()
    }

    /// Reports an error that must end the replica, met by somebody else than the replica: a read that found the store
    /// damaged. Only the first one counts.
    pub fn fail(&self, error: NodeError) {
        // If the task has ended there is nothing left to end.
        let _ = self.inbox().send(Input::Failed(error));
    }
}

//! The v3 API: services free of transport, and gRPC on top of them.
//!
//! ```text
//!   grpc/ ──┐
//!   http/ ──┼─▶ Services { kv, lease, … } ─▶ rules ─▶ node (propose, linearize) and state's reader ─▶ answer
//!   client ─┘
//! ```
//!
//! What lives here: [`kv`], [`lease`], [`watch`], [`lock`], [`election`], [`maintenance`] and
//! [`cluster`] serve requests, after those of the wrong shape were refused by [rules](crate::state::command::rules) that hold for other members, too (locks and elections are [`queue`]s of keys, made with the first three), [`answer`] writes what they say on the wire, [`refusal`] is what they say instead, [`quota`] keeps the store from outgrowing its limit, [`compactor`] drops old history.
//! What may call it: connections (`server/`), `http/`, and an embedding program through its client.
//!
//! The one invariant: whatever is not deterministic is decided here, before a command is proposed, and never afterwards.

pub mod answer;
pub mod cluster;
pub mod compactor;
mod context;
pub mod election;
pub mod grpc;
pub mod kv;
pub mod lease;
pub mod lock;
pub mod maintenance;
pub mod metrics;
pub mod queue;
pub mod quota;
pub mod refusal;
mod requesters;
pub mod watch;
mod wire;

use std::sync::Arc;

use bytes::Bytes;

use self::{
    cluster::Cluster, election::Election, kv::Kv, lease::Lease, lock::Lock, maintenance::Maintenance, queue::Queues,
    watch::Watches,
};
use crate::node::NodeHandle;
pub use context::Context;

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The authenticated user, empty without authentication.
    pub user: Bytes,
    /// The auth revision at which the user's permissions were checked.
    pub auth_revision: u64,
}

/// The services of one member. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Services {
    /// Keys.
    pub kv: Kv,
    /// Leases.
    pub lease: Lease,
    /// Who hears of which change.
    pub watch: Watches,
    /// Locks.
    pub lock: Lock,
    /// Elections.
    pub election: Election,
    /// Looking after the member.
    pub maintenance: Maintenance,
    /// Membership.
    pub cluster: Cluster,
    /// The running replica under them.
    pub node: NodeHandle,
}

impl Services {
    /// The services on `context`.
    pub fn new(context: &Arc<Context>) -> Self {
        let kv = Kv::new(context.clone());
        let lease = Lease::new(context.clone());
        let watch = Watches::new(context.clone());
        let queues = Queues::new(context, &kv, &lease, &watch);
        Self {
            kv,
            lease,
            watch,
            lock: Lock::new(queues.clone()),
            election: Election::new(queues),
            maintenance: Maintenance::new(context.clone()),
            cluster: Cluster::new(context.clone()),
            node: context.node.clone(),
        }
    }
}

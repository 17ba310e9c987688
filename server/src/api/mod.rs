//! The v3 API: a router and services that know no transport, and gRPC on top of them.
//!
//! ```text
//!   grpc/ ─────┐
//!   in process ┼─▶ Router: admission, deadline, metrics ─▶ Services: rules, authorisation ─▶ node, state's reader ─▶ answer
//!   (gateway) ─┘
//! ```
//!
//! | part | what it does |
//! |---|---|
//! | [`router`] | takes every call, whichever transport brings it, to its service |
//! | [`stream`], [`framed`] | requests and answers of calls with many of them; answers as bytes |
//! | [`kv`], [`lease`], [`watch`], [`lock`], [`election`], [`maintenance`], [`cluster`], [`health`] | the services |
//! | [`auth`], `passwords` | users and roles, tokens; checks of passwords |
//! | `leader` | asks the leader what only it can answer or do |
//! | [`queue`] | what locks and elections are made of |
//! | [`answer`], [`refusal`] | what services give |
//! | [`quota`] | room in the store |
//! | [`metrics`] | what is counted of calls |
//! | [`grpc`] | frames and metadata |
//!
//! Requests of the wrong shape are refused by [rules](crate::state::command::rules) that hold for other members, too. What may
//! call this folder: connections (`server/`), `http/`, and an embedding program through its client.
//!
//! The one invariant: whatever is not deterministic is decided here, before a command is proposed, and never afterwards.

pub mod answer;
pub mod auth;
pub mod cluster;
mod context;
pub mod election;
pub mod framed;
pub mod grpc;
pub mod health;
pub mod kv;
mod leader;
pub mod lease;
pub mod lock;
pub mod maintenance;
pub mod metrics;
mod passwords;
pub mod queue;
pub mod quota;
pub mod refusal;
mod requesters;
pub mod router;
pub mod stream;
pub mod watch;
mod wire;

use std::sync::Arc;

use self::{
    auth::Auth, cluster::Cluster, election::Election, kv::Kv, lease::Lease, lock::Lock, maintenance::Maintenance,
    queue::Queues, watch::Watches,
};
use bytes::Bytes;

use crate::{node::ReplicaView, state::auth::Principal};
pub use context::Context;

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
    /// Users and roles.
    pub auth: Auth,
    /// The running replica under them.
    pub node: ReplicaView,
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
            auth: Auth::new(context.clone()),
            node: context.node.view(),
        }
    }

    /// The user that a principal is taken for, if authentication is on.
    pub fn user_of(&self, principal: &Principal) -> Option<Bytes> {
        self.auth.user_of(principal)
    }
}

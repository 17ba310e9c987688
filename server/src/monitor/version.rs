//! The cluster's version and its command level: the highest that all members know, agreed on through the log.
//!
//! The leader proposes each once it has heard from every member, and again when it rises. Commands of a newer kind or format
//! may be proposed only from their level on, so it never falls. The version is etcd's: what clients are told.

use std::{sync::Arc, time::Duration};

use super::Turns;
use crate::{node::Proposer, peer::Peers, state::command::Request};

/// How often the leader looks while the cluster has no version, and after a proposal.
const LOOK_FIRST: Duration = Duration::from_millis(100);
/// How often it looks afterwards.
const LOOK: Duration = Duration::from_secs(4);

/// Keeps the cluster's version and command level while this member leads.
pub async fn keep(node: Proposer, peers: Arc<Peers>, turns: Turns) {
    let mut pause = Duration::ZERO;
    while turns.after(pause).await {
        let due = if node.status().leader == node.status().member_id { due(&node, &peers) } else { None };
        pause = if due.is_some() || node.cluster_version().is_none() { LOOK_FIRST } else { LOOK };
        let Some(request) = due else { continue };
        tracing::info!(?request, "proposing what all members know");
        match turns.unless_stopping(node.propose_own(request)).await {
            None => return,
            Some(Ok(_)) => {}
            Some(Err(error)) => tracing::warn!(%error, "could not propose what all members know; trying again"),
        }
    }
}

/// What the leader has to propose next, if anything.
fn due(node: &Proposer, peers: &Peers) -> Option<Request> {
    let version = peers.common_version().filter(|version| node.cluster_version().is_none_or(|now| *now < *version));
    let level = || peers.common_command_level().filter(|level| node.command_level() < *level);
    version.map(Request::ClusterVersion).or_else(|| level().map(Request::CommandLevel))
}

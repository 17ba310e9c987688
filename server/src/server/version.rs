//! The cluster's version: the highest that all members serve, agreed on through the log.
//!
//! The leader proposes it once it has heard from every member, and again when it rises. Commands of a newer kind may be
//! proposed only from their version on, so it never falls by itself.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::{node::NodeHandle, peer::Peers, state::command::Request};

/// How often the leader looks while the cluster has no version.
const LOOK_FIRST: Duration = Duration::from_millis(100);
/// How often it looks afterwards.
const LOOK: Duration = Duration::from_secs(4);

/// Keeps the cluster's version while this member leads.
pub(super) async fn keep(node: NodeHandle, peers: Arc<Peers>, stopping: CancellationToken) {
    loop {
        if node.status().leader == node.status().member_id
            && let Some(version) = peers.common_version()
            && node.cluster_version().is_none_or(|present| *present < version)
        {
            tracing::info!(%version, "proposing the cluster's version");
            let proposed = tokio::select! {
                () = stopping.cancelled() => return,
                proposed = node.propose(Request::ClusterVersion(version), Bytes::new(), 0) => proposed,
            };
            if let Err(error) = proposed {
                tracing::warn!(%error, "could not propose the cluster's version; trying again");
            }
        }
        let pause = if node.cluster_version().is_none() { LOOK_FIRST } else { LOOK };
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

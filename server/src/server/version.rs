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
            && is_higher(&version, node.cluster_version().as_deref())
        {
            tracing::info!(version, "proposing the cluster's version");
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

/// Whether `version` is higher than `present`, or there is none at present.
fn is_higher(version: &str, present: Option<&str>) -> bool {
    let numbers = |version: &str| -> Vec<u64> { version.split('.').filter_map(|part| part.parse().ok()).collect() };
    present.is_none_or(|present| numbers(version) > numbers(present))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number_and_only_rise() {
        assert!(is_higher("3.7.0", None) && is_higher("3.10.0", Some("3.7.0")));
        assert!(!is_higher("3.7.0", Some("3.7.0")) && !is_higher("3.6.0", Some("3.7.0")));
    }
}

//! Publishes a member's name and URLs at its start.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::Turns;
use crate::{config::Config, node::Proposer, types::Place};

/// Pause before the name and the URLs are proposed again.
const PAUSE: Duration = Duration::from_millis(500);

/// Publishes the member until the cluster has heard of it, and cancels `ready` then.
pub async fn publish(
    node: Proposer,
    config: Arc<Config>,
    urls: Vec<String>,
    places: Vec<Place>,
    ready: CancellationToken,
    turns: Turns,
) {
    let propose = async || {
        // A member with a name must have something in its log: see `peer`.
        node.linearize().await.map_err(|error| error.to_string())?;
        // A publication that was forwarded to a leader that has failed is lost. Publishing twice is harmless, and clients wait.
        let publishing = node.publish(config.name.clone(), urls.clone());
        match tokio::time::timeout(config.election_timeout, publishing).await {
            Ok(published) => published.map(drop).map_err(|error| error.to_string()),
            Err(_) => Err("it is not applied within an election time-out".to_owned()),
        }
    };
    let mut pause = Duration::ZERO;
    while turns.after(pause).await {
        match turns.unless_stopping(propose()).await {
            None => return,
            Some(Err(error)) => tracing::warn!(%error, "could not publish the member's name and URLs; trying again"),
            Some(Ok(())) => {
                tracing::info!(name = config.name, client_urls = ?urls, "published the member to the cluster");
                for place in places {
                    tracing::info!(address = %place, "ready to serve client requests");
                }
                ready.cancel();
                return;
            }
        }
        pause = PAUSE;
    }
}

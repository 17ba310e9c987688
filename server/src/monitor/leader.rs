//! Tells streams when there has been no leader for too long.

use std::time::Duration;

use tokio::sync::watch;

use super::Turns;
use crate::node::ReplicaView;

/// Election time-outs without a leader after which streams that want one are ended.
const LEADERLESS_TIMEOUTS_MAX: u32 = 3;

/// Looks once in each `election` time-out whether there is a leader.
pub async fn watch(node: ReplicaView, election: Duration, leaderless: watch::Sender<()>, turns: Turns) {
    let mut without = 0;
    while turns.after(election).await {
        without = if node.status().leader == 0 { without + 1 } else { 0 };
        if without >= LEADERLESS_TIMEOUTS_MAX {
            leaderless.send_replace(());
        }
    }
}

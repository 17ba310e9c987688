//! From when on clients are served.
//!
//! A member that starts replays its log, so for a while its state is older than what it has shown before. Nothing is served
//! to clients until an entry that this run has proposed, the publication of the member's name and URLs, is applied: all that
//! any member had applied or acknowledged before the start precedes it in the log. Without a leader that does not happen,
//! and a member that was killed cannot know on its own what it has shown.

use super::handle::ReplicaView;

impl ReplicaView {
    /// Whether clients may be served: a publication of this run is applied, so that the member shows nothing older than
    /// what it has shown in an earlier run. It stays so until the node stops.
    pub fn serves(&self) -> bool {
        *self.shared().serves.borrow()
    }

    /// Waits until clients may be served. `false` if the node stops or fails before.
    pub async fn wait_to_serve(&self) -> bool {
        let shared = self.shared();
        let (mut serves, mut stopped, mut fatal) =
            (shared.serves.subscribe(), shared.stopped.subscribe(), shared.fatal.subscribe());
        // The senders are in `self.shared`, so they cannot be gone.
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => false,
            _ = fatal.wait_for(Option::is_some) => false,
            _ = serves.wait_for(|serves| *serves) => true,
        }
    }
}

//! How the rest of the server talks to the replica: a handle for each right.
//!
//! | handle | what it may do | holders |
//! |---|---|---|
//! | [`ReplicaView`] | read: status, members, keys, metrics, a read index | all |
//! | [`Proposer`] | put permitted requests through the log | API, the member's own duties |
//! | [`Membership`] | change the members and the leader | API, members whose clients ask for it |
//! | [`Leases`] | renew and look at leases | API, members whose clients ask for it |
//! | [`PeerInbox`] | hand over what other members say | peers |
//! | [`StoreMaintenance`] | rewrite and hash the store | API, corruption checks |
//! | [`NodeHandle`] | give out the others, publish, stop | the server |
//!
//! All of them show what a [`ReplicaView`] shows.

mod leases;
mod membership;
mod peer_inbox;
mod proposer;
mod view;

use std::{fmt, ops::Deref, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use self::view::Inner;
pub use self::view::ReplicaView;
use super::{inputs::Input, shared::Shared};
use crate::{lease::LeaseClock, state::Views, watch::Hub};

macro_rules! handles {
    ($($(#[$doc:meta])* $handle:ident $give:ident;)+) => {
        $(
            $(#[$doc])*
            #[derive(Clone)]
            pub struct $handle(ReplicaView);

            impl Deref for $handle {
                type Target = ReplicaView;

                fn deref(&self) -> &ReplicaView {
                    &self.0
                }
            }
        )+

        impl NodeHandle {
            $(
                $(#[$doc])*
                pub fn $give(&self) -> $handle {
                    $handle(self.0.clone())
                }
            )+
        }
    };
}

handles! {
    /// Puts permitted requests through the log.
    Proposer proposer;
    /// Changes the members and the leader.
    Membership membership;
    /// Renews and looks at leases.
    Leases leases;
    /// Hands over what other members say.
    PeerInbox peer_inbox;
    /// Rewrites and hashes the store.
    StoreMaintenance store_maintenance;
}

/// A running node as the server that started it has it: everything a [`ReplicaView`] shows, all other handles, and its end.
/// Cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct NodeHandle(ReplicaView);

impl Deref for NodeHandle {
    type Target = ReplicaView;

    fn deref(&self) -> &ReplicaView {
        &self.0
    }
}

impl fmt::Debug for NodeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeHandle").field("status", &self.status()).finish_non_exhaustive()
    }
}

impl NodeHandle {
    pub(super) fn new(
        inbox: mpsc::UnboundedSender<Input>,
        shared: Arc<Shared>,
        views: Views,
        lease_clock: &Arc<Mutex<LeaseClock>>,
        hub: Hub,
    ) -> Self {
        let (lease_clock, authorizer) = (Arc::clone(lease_clock), views.authorizer().clone());
        Self(ReplicaView(Arc::new(Inner { inbox, shared, views, lease_clock, hub, authorizer })))
    }

    /// Gives out the answers for whoever waits on the thread that runs this, which must be its runtime's only one: they are
    /// brought there together. The replica's thread has no need of it.
    pub fn deliveries(&self) -> impl Future<Output = ()> + Send + use<> {
        let deliveries = Arc::clone(&self.shared().deliveries);
        async move { deliveries.give_out().await }
    }

    /// Stops the replica: what was accepted is finished, log and store are brought to a point from which the next start
    /// is quick, the data directory is unlocked. Whoever still waits is told that the server stops. May be called
    /// again. The store itself is closed with the last handle, reader or pin that is dropped.
    pub async fn shutdown(&self) {
        let mut stopped = self.shared().stopped.subscribe();
        // If the task has ended it has said so.
        let _ = self.inbox().send(Input::Stop);
        // The sender is in `self.shared`, so it cannot be gone.
        let _ = stopped.wait_for(|stopped| *stopped).await;
        self.wait_for_hashes().await;
    }
}

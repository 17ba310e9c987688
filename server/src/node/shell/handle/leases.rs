//! The leader's clock over leases.

use super::Leases;
use crate::{
    lease::{NotLeading, Renewal, TimeLeft},
    state::auth::Permit,
};
use bytes::Bytes;

impl Leases {
    /// Gives a lease its whole time. Only after [`linearize`](super::ReplicaView::linearize) has ended, called after the wish to renew it had come.
    pub fn renew(&self, id: i64) -> Result<Renewal, NotLeading> {
        let renewal = self.0.0.lease_clock.lock().renew(id, self.shared().uptime_ms())?;
        if matches!(renewal, Renewal::Renewed(_)) {
            self.shared().metrics.leases_renewed.inc();
        }
        Ok(renewal)
    }

    /// How long a lease has left, if it exists. Only after [`linearize`](super::ReplicaView::linearize) as well.
    pub fn time_left(&self, id: i64) -> Result<Option<TimeLeft>, NotLeading> {
        self.0.0.lease_clock.lock().time_left(id, self.shared().uptime_ms())
    }

    /// The keys that hang on a lease.
    pub fn keys(&self, _permit: &Permit, id: i64) -> Vec<Bytes> {
        self.views().leases.keys(id)
    }

    /// All leases and when they run out, in no order. Only after [`linearize`](super::ReplicaView::linearize) as well.
    pub fn expiries(&self) -> Result<Vec<(u64, u64, i64)>, NotLeading> {
        self.0.0.lease_clock.lock().expiries()
    }
}

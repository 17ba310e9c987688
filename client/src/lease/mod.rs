//! Leases: time limits that keys are attached to.
//!
//! A lease ends when nobody renewed it for its time to live, or when it is revoked, and all keys attached to it
//! ([`Put::lease`](crate::Put::lease)) are deleted with it. [`Client::keep_alive`] renews one for as long as somebody holds
//! the handle, and tells when that failed: whoever relies on the keys must stop then.

mod keep_alive;

use cairn_proto::{etcdserverpb as pb, rpc::Method};

pub use keep_alive::{KeepAlive, LeaseLost};

use crate::{client::Client, error::Error};

const KEEP_ALIVE_PATH: &str = Method::LeaseKeepAlive.path();

impl Client {
    /// Grants a lease of `ttl` seconds. The server raises a time that is too short; the answer tells the real one.
    ///
    /// An `id` of 0 lets the server choose one. An id in use is refused
    /// ([`LeaseExists`](cairn_proto::ApiError::LeaseExists)).
    pub async fn lease_grant(&self, ttl: i64, id: i64) -> Result<pb::LeaseGrantResponse, Error> {
        self.call(pb::LeaseGrantRequest { ttl, id }).await
    }

    /// Ends a lease and deletes its keys.
    pub async fn lease_revoke(&self, id: i64) -> Result<pb::LeaseRevokeResponse, Error> {
        self.call(pb::LeaseRevokeRequest { id }).await
    }

    /// The remaining and the granted time of a lease in seconds, and if asked its keys. A lease that is not there has a
    /// remaining time of -1.
    pub async fn lease_time_to_live(&self, id: i64, keys: bool) -> Result<pb::LeaseTimeToLiveResponse, Error> {
        self.call(pb::LeaseTimeToLiveRequest { id, keys }).await
    }

    /// All leases.
    pub async fn leases(&self) -> Result<pb::LeaseLeasesResponse, Error> {
        self.call(pb::LeaseLeasesRequest {}).await
    }

    /// Renews a lease once. Of a lease that is not there (any more) the answer's time to live is 0.
    pub async fn lease_keep_alive_once(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Error> {
        self.exchange(KEEP_ALIVE_PATH, pb::LeaseKeepAliveRequest { id }).await
    }

    /// Renews a lease now, and again whenever a third of its time has passed, until the handle is dropped.
    pub fn keep_alive(&self, id: i64) -> KeepAlive {
        KeepAlive::start(self.clone(), id)
    }
}

//! The Lock service: a lock is held by the first of a [`queue`](super::queue).
//!
//! The answer's key and the create revision of that key are the fencing token: a lock whose lease ran out is held by somebody else, whatever its former
//! holder believes.

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::DeleteRangeRequest,
    v3lockpb::{LockRequest, LockResponse, UnlockRequest, UnlockResponse},
};

use super::{queue::Queues, refusal::Refusal};
use crate::state::auth::Principal;

/// The Lock service. Clones are cheap.
#[derive(Clone)]
pub struct Lock {
    queues: Queues,
}

impl Lock {
    pub(super) fn new(queues: Queues) -> Self {
        Self { queues }
    }

    /// Waits until the caller holds the lock. A caller that gives up gives up its place.
    pub async fn lock(&self, principal: &Principal, request: LockRequest) -> Result<LockResponse, Refusal> {
        self.wait_for(principal, request).await.map_err(Refusal::without_code)
    }

    async fn wait_for(&self, principal: &Principal, request: LockRequest) -> Result<LockResponse, Refusal> {
        let LockRequest { name, lease } = request;
        let queues = &self.queues;
        let lease = queues.lease(principal, lease).await?;
        let taken = queues.take(principal, &name, lease, &Bytes::new()).await?;
        let header = if taken.is_first {
            taken.header
        } else {
            let held = queues.wait(principal, &name, taken.standing.place()).await?;
            Some(held.ok_or(ApiError::LockSessionExpired)?)
        };
        Ok(LockResponse { header, key: taken.standing.keep().key })
    }

    /// Gives the lock up.
    pub async fn unlock(&self, principal: &Principal, request: UnlockRequest) -> Result<UnlockResponse, Refusal> {
        let delete = DeleteRangeRequest { key: request.key, ..DeleteRangeRequest::default() };
        let deleted = self.queues.kv.delete_range(principal, delete).await.map_err(Refusal::without_code)?;
        Ok(UnlockResponse { header: Some(deleted.header.into()) })
    }
}

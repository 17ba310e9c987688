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

use super::{Caller, queue::Queues, refusal::Refusal};

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
    pub async fn lock(&self, caller: &Caller, request: LockRequest) -> Result<LockResponse, Refusal> {
        self.wait_for(caller, request).await.map_err(Refusal::without_code)
    }

    async fn wait_for(&self, caller: &Caller, request: LockRequest) -> Result<LockResponse, Refusal> {
        let LockRequest { name, lease } = request;
        let queues = &self.queues;
        let lease = queues.lease(caller, lease).await?;
        let taken = queues.take(caller, &name, lease, &Bytes::new()).await?;
        let header = if taken.is_first {
            taken.header
        } else {
            let held = queues.wait(caller, &name, taken.standing.place()).await?;
            Some(held.ok_or(ApiError::LockSessionExpired)?)
        };
        Ok(LockResponse { header, key: taken.standing.keep().key })
    }

    /// Gives the lock up.
    pub async fn unlock(&self, caller: &Caller, request: UnlockRequest) -> Result<UnlockResponse, Refusal> {
        let delete = DeleteRangeRequest { key: request.key, ..DeleteRangeRequest::default() };
        let deleted = self.queues.kv.delete_range(caller, delete).await.map_err(Refusal::without_code)?;
        Ok(UnlockResponse { header: Some(deleted.header.into()) })
    }
}

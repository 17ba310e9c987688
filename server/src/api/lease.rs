//! The Lease service.
//!
//! A **grant** and a **revoke** go through the log. The id of a lease that the client leaves open is drawn here, before the command is proposed, and so
//! is the time to live that it really gets.

use std::sync::Arc;

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, AlarmType},
};
use futures::{Stream, StreamExt};

use super::{Caller, Context, quota, refusal::Refusal};
use crate::{
    lease::TTL_MAX,
    state::command::{Reply, Request},
};

/// Keep-alives of one stream that are served at a time; they are answered in the order in which they came.
const KEEP_ALIVES_MAX: usize = 64;
/// What the time to live of an unknown lease is said to be.
const TTL_UNKNOWN: i64 = -1;

/// The Lease service. Clones are cheap.
#[derive(Clone)]
pub struct Lease {
    context: Arc<Context>,
}

impl Lease {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Creates a lease.
    pub async fn grant(
        &self,
        caller: &Caller,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, Refusal> {
        let context = &self.context;
        context.make_room(quota::LEASE_BYTES).await?;
        if context.node.alarms().any(AlarmType::Nospace) {
            return Err(ApiError::NoSpace.into());
        }
        if request.ttl > TTL_MAX {
            return Err(ApiError::LeaseTtlTooLarge.into());
        }
        let ttl = request.ttl.max(context.lease_ttl_min);
        loop {
            let id = if request.id == 0 { draw_id() } else { request.id };
            let granted = context.propose(caller, Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl })).await;
            let (revision, id, ttl) = match granted {
                Ok((Reply::Lease { revision, id, ttl }, _)) => (revision, id, ttl),
                // The client did not ask for this one.
                Err(Refusal::Api(ApiError::LeaseExists)) if request.id == 0 => continue,
                Err(refusal) => return Err(refusal),
                Ok(_) => return Err(context.contradiction("a grant was answered as something else")),
            };
            let header = Some(context.header(revision).into());
            return Ok(pb::LeaseGrantResponse { header, id, ttl, error: String::new() });
        }
    }

    /// Ends a lease and deletes its keys.
    pub async fn revoke(
        &self,
        caller: &Caller,
        request: pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, Refusal> {
        let revoke = Request::LeaseRevoke { id: request.id, expired_in_term: None };
        let Reply::Lease { revision, .. } = self.context.propose(caller, revoke).await?.0 else {
            return Err(self.context.contradiction("a revoke was answered as something else"));
        };
        Ok(pb::LeaseRevokeResponse { header: Some(self.context.header(revision).into()) })
    }

    /// Renews leases, one for each request, until there are no more requests.
    pub fn keep_alive<S>(
        &self,
        _caller: &Caller,
        requests: S,
    ) -> impl Stream<Item = Result<pb::LeaseKeepAliveResponse, Refusal>> + Send + use<S>
    where
        S: Stream<Item = pb::LeaseKeepAliveRequest> + Send + 'static,
    {
        let lease = self.clone();
        let renewed = move |request: pb::LeaseKeepAliveRequest| {
            let lease = lease.clone();
            async move { lease.renew(request.id).await }
        };
        requests.map(renewed).buffered(KEEP_ALIVES_MAX)
    }

    async fn renew(&self, id: i64) -> Result<pb::LeaseKeepAliveResponse, Refusal> {
        // From before the renewal: whoever sees the lease alive at this revision knows that it was.
        let header = Some(self.header());
        self.context.node.linearize().await.map_err(ApiError::from)?;
        let ttl = self.context.node.views().leases.get(id).map_or(0, |lease| lease.ttl);
        Ok(pb::LeaseKeepAliveResponse { header, id, ttl })
    }

    /// How long a lease lives and lived, and which keys hang on it.
    pub async fn time_to_live(
        &self,
        _caller: &Caller,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Refusal> {
        self.context.node.linearize().await.map_err(ApiError::from)?;
        let leases = &self.context.node.views().leases;
        let (ttl, granted_ttl) = leases.get(request.id).map_or((TTL_UNKNOWN, 0), |lease| (lease.ttl, lease.ttl));
        let keys = if request.keys { leases.keys(request.id) } else { Vec::new() };
        Ok(pb::LeaseTimeToLiveResponse { header: Some(self.header()), id: request.id, ttl, granted_ttl, keys })
    }

    /// All leases.
    pub async fn leases(
        &self,
        _caller: &Caller,
        _request: pb::LeaseLeasesRequest,
    ) -> Result<pb::LeaseLeasesResponse, Refusal> {
        self.context.node.linearize().await.map_err(ApiError::from)?;
        let leases = self.context.node.views().leases.all();
        let leases = leases.into_iter().map(|lease| pb::LeaseStatus { id: lease.id }).collect();
        Ok(pb::LeaseLeasesResponse { header: Some(self.header()), leases })
    }

    fn header(&self) -> pb::ResponseHeader {
        self.context.header(self.context.node.reader().revision()).into()
    }
}

/// A lease id that is most probably free: positive, as clients expect of those they did not choose.
fn draw_id() -> i64 {
    loop {
        let id = (rand::random::<u64>() >> 1) as i64;
        if id != 0 {
            return id;
        }
    }
}

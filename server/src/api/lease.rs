//! The Lease service.
//!
//! A **grant** and a **revoke** go through the log. The id of a lease that the client leaves open is drawn here, before the command is proposed, and so
//! is the time to live that it really gets.
//!
//! A **keep-alive** changes nothing but the leader's clock ([`crate::lease`]). It first waits for a read index that was asked for after it came, which all
//! keep-alives that wait share; who cannot get one does not lead, whatever it believes. A lease that has run out is answered when its revoke was applied.
//!
//! Everything about time is the leader's to answer. A member that follows sees that in `Lease::at_leader`: there is the one place where
//! a request is to be handed to the leader.

use std::{sync::Arc, time::Duration};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, AlarmType},
};
use futures::{Stream, StreamExt};
use tokio::sync::watch;

use super::{Caller, Context, quota, refusal::Refusal};
use crate::{
    lease::{NotLeading, Renewal, TTL_MAX},
    state::command::{Reply, Request},
};

/// Keep-alives of one stream that are served at a time; they are answered in the order in which they came.
const KEEP_ALIVES_MAX: usize = 64;
/// What the time to live of an unknown lease is said to be.
const TTL_UNKNOWN: i64 = -1;
/// How often a member that should lead, but does not say so yet, is asked again at least.
const ASK_AGAIN: Duration = Duration::from_millis(100);

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
        caller: &Caller,
        requests: S,
    ) -> impl Stream<Item = Result<pb::LeaseKeepAliveResponse, Refusal>> + Send + use<S>
    where
        S: Stream<Item = pb::LeaseKeepAliveRequest> + Send + 'static,
    {
        let (lease, caller) = (self.clone(), caller.clone());
        let renewed = move |request: pb::LeaseKeepAliveRequest| {
            let (lease, caller) = (lease.clone(), caller.clone());
            async move {
                // From before the renewal: whoever is told that the lease was alive at this revision is told the truth.
                let header = Some(lease.header());
                let ttl = lease.renew(&caller, request.id).await?;
                Ok(pb::LeaseKeepAliveResponse { header, id: request.id, ttl })
            }
        };
        requests.map(renewed).buffered(KEEP_ALIVES_MAX)
    }

    /// Renews a lease: the seconds it has now, 0 if there is none.
    async fn renew(&self, caller: &Caller, id: i64) -> Result<i64, Refusal> {
        let node = &self.context.node;
        let mut news = node.lease_news();
        loop {
            news.mark_unchanged();
            match self.at_leader(&mut news, || node.renew_lease(id)).await? {
                Renewal::Renewed(ttl) => {
                    node.metrics().leases_renewed.inc();
                    return Ok(ttl);
                }
                Renewal::Unknown => return Ok(0),
                Renewal::Recorded => {
                    let whole = pb::LeaseCheckpoint { id, remaining_ttl: 0 };
                    let record = Request::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints: vec![whole] });
                    self.context.propose(caller, record).await?;
                }
                Renewal::Expired => heard(&mut news).await?,
            }
        }
    }

    /// How long a lease lives and lived, and which keys hang on it.
    pub async fn time_to_live(
        &self,
        _caller: &Caller,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Refusal> {
        let pb::LeaseTimeToLiveRequest { id, keys } = request;
        let node = &self.context.node;
        let time = self.at_leader(&mut node.lease_news(), || node.lease_time_left(id)).await?;
        let (ttl, granted_ttl) = match time {
            None => (TTL_UNKNOWN, 0),
            // The second that has begun does not count.
            // The clock goes in ticks: what is left may seem to be a little more than was granted.
            Some(time) => ((time.left_ms as i64).min(time.ttl.saturating_mul(1000)).saturating_sub(1) / 1000, time.ttl),
        };
        let keys = if keys { node.views().leases.keys(id) } else { Vec::new() };
        Ok(pb::LeaseTimeToLiveResponse { header: Some(self.header()), id, ttl, granted_ttl, keys })
    }

    /// All leases, the one that runs out first first.
    pub async fn leases(
        &self,
        _caller: &Caller,
        _request: pb::LeaseLeasesRequest,
    ) -> Result<pb::LeaseLeasesResponse, Refusal> {
        let node = &self.context.node;
        let mut expiries = self.at_leader(&mut node.lease_news(), || node.lease_expiries()).await?;
        let header = Some(self.header());
        // There may be a million.
        let sorted = move || {
            expiries.sort_unstable();
            expiries.into_iter().map(|(_, _, id)| pb::LeaseStatus { id }).collect()
        };
        Ok(pb::LeaseLeasesResponse { header, leases: self.context.on_pool(sorted).await? })
    }

    /// Asks the clock when it is certain that this member led after the request had come.
    async fn at_leader<T>(
        &self,
        news: &mut watch::Receiver<()>,
        ask: impl Fn() -> Result<T, NotLeading>,
    ) -> Result<T, Refusal> {
        let node = &self.context.node;
        loop {
            node.linearize().await.map_err(ApiError::from)?;
            if let Ok(answer) = ask() {
                return Ok(answer);
            }
            let status = node.status();
            if status.leader != 0 && status.leader != status.member_id {
                return Err(ApiError::LeaderChanged.into());
            }
            // It has just been deposed, or elected: the next read index tells.
            if let Ok(told) = tokio::time::timeout(ASK_AGAIN, heard(news)).await {
                told?;
            }
        }
    }

    fn header(&self) -> pb::ResponseHeader {
        self.context.header(self.context.node.reader().revision()).into()
    }
}

/// Waits until leases were revoked, or another leader was seen.
async fn heard(news: &mut watch::Receiver<()>) -> Result<(), Refusal> {
    news.changed().await.map_err(|_| ApiError::Stopped.into())
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

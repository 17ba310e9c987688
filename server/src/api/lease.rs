//! The Lease service.
//!
//! A **grant** and a **revoke** go through the log. The id of a lease that the client leaves open is drawn here, before the command is proposed, and so
//! is the time to live that it really gets.
//!
//! A **keep-alive** changes nothing but the leader's clock ([`crate::lease`]). It first waits for a read index that was asked for after it came, which all
//! keep-alives that wait share; who cannot get one does not lead, whatever it believes. A lease that has run out is answered when its revoke was applied.
//!
//! Everything about time is the leader's to answer. A member that follows asks it ([`Peers`]), and asks again if there is another one, for as long as a
//! request may take. What comes from there is a little old when it arrives: that much is taken off, so that nobody is told more time than there is.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, AlarmType},
};
use futures::{Stream, StreamExt};
use tokio::{sync::watch, time::Instant};

use super::{
    Context,
    leader::{Leader, heard},
    quota,
    refusal::Refusal,
};
use crate::{
    lease::{NotLeading, Renewal},
    peer::{Peers, Told, Untold},
    state::{
        auth::{Need, Principal},
        command::{Reply, Request, rules},
    },
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

    /// The keys of a lease, for the record of calls.
    pub(super) fn keys_of(&self, lease: i64) -> Vec<Bytes> {
        self.context.leases.keys(&self.context.authorizer.own(), lease)
    }

    /// Creates a lease.
    pub async fn grant(
        &self,
        principal: &Principal,
        request: pb::LeaseGrantRequest,
    ) -> Result<pb::LeaseGrantResponse, Refusal> {
        let context = &self.context;
        context.make_room(quota::LEASE_BYTES).await?;
        if context.node.alarms().any(AlarmType::Nospace) {
            return Err(ApiError::NoSpace.into());
        }
        let _permit = context.authorize(principal, Need::User)?;
        rules::ttl(request.ttl)?;
        let ttl = request.ttl.max(context.lease_ttl_min);
        loop {
            let id = if request.id == 0 { draw_id() } else { request.id };
            let granted = context.propose(principal, Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl })).await;
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
        principal: &Principal,
        request: pb::LeaseRevokeRequest,
    ) -> Result<pb::LeaseRevokeResponse, Refusal> {
        let revoke = Request::LeaseRevoke { id: request.id, expired_in_term: None };
        let Reply::Lease { revision, .. } = self.context.propose(principal, revoke).await?.0 else {
            return Err(self.context.contradiction("a revoke was answered as something else"));
        };
        Ok(pb::LeaseRevokeResponse { header: Some(self.context.header(revision).into()) })
    }

    /// Renews leases, one for each request, until there are no more requests.
    pub fn keep_alive<S>(
        &self,
        principal: &Principal,
        requests: S,
    ) -> impl Stream<Item = Result<pb::LeaseKeepAliveResponse, Refusal>> + Send + use<S>
    where
        S: Stream<Item = pb::LeaseKeepAliveRequest> + Send + 'static,
    {
        let (lease, principal) = (self.clone(), principal.clone());
        let renewed = move |request: pb::LeaseKeepAliveRequest| {
            let (lease, principal) = (lease.clone(), principal.clone());
            async move {
                // From before the renewal: whoever is told that the lease was alive at this revision is told the truth.
                let header = Some(lease.header());
                let ttl = lease.renew(&principal, request.id).await?;
                Ok(pb::LeaseKeepAliveResponse { header, id: request.id, ttl })
            }
        };
        requests.map(renewed).buffered(KEEP_ALIVES_MAX)
    }

    /// Renews a lease: the seconds it has now, 0 if there is none.
    async fn renew(&self, principal: &Principal, id: i64) -> Result<i64, Refusal> {
        let node = &self.context.node;
        let _permit = self.context.authorize(principal, Need::RenewLease(id))?;
        let mut news = node.lease_news();
        loop {
            let here = || self.context.leases.renew(id);
            let Told { what: renewal, age } =
                self.at_leader(&mut news, here, |peers| async move { peers.renew_lease(id).await }).await?;
            match renewal {
                Renewal::Renewed(ttl) => {
                    if let Some(ttl) = still_promised(ttl, age) {
                        return Ok(ttl);
                    }
                }
                Renewal::Unknown => return Ok(0),
                Renewal::Recorded => {
                    let whole = pb::LeaseCheckpoint { id, remaining_ttl: 0 };
                    let record = Request::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints: vec![whole] });
                    self.context.propose(principal, record).await?;
                }
                // On a follower the revoke may have been applied before the leader said this.
                Renewal::Expired => heard(&mut news).await?,
            }
        }
    }

    /// How long a lease lives and lived, and which keys hang on it.
    pub async fn time_to_live(
        &self,
        principal: &Principal,
        request: pb::LeaseTimeToLiveRequest,
    ) -> Result<pb::LeaseTimeToLiveResponse, Refusal> {
        let pb::LeaseTimeToLiveRequest { id, keys } = request;
        let node = &self.context.node;
        let permit = self.context.authorize(principal, Need::SeeLease { id, keys })?;
        let here = || self.context.leases.time_left(id);
        let there = async |peers: Arc<Peers>| {
            // The keys and the header are read here.
            node.linearize().await.map_err(|error| Untold::Refused(error.into()))?;
            peers.lease_time_left(id).await
        };
        let Told { what: time, age } = self.at_leader(&mut node.lease_news(), here, there).await?;
        let (ttl, granted_ttl) = match time {
            None => (TTL_UNKNOWN, 0),
            Some(time) => {
                let left_ms = time.left_ms.saturating_sub(age.as_millis() as u64);
                // The second that has begun does not count.
                // The clock goes in ticks: what is left may seem to be a little more than was granted.
                ((left_ms as i64).min(time.ttl.saturating_mul(1000)).saturating_sub(1) / 1000, time.ttl)
            }
        };
        let keys = if keys { self.context.leases.keys(&permit, id) } else { Vec::new() };
        Ok(pb::LeaseTimeToLiveResponse { header: Some(self.header()), id, ttl, granted_ttl, keys })
    }

    /// All leases, the one that runs out first first.
    pub async fn leases(
        &self,
        principal: &Principal,
        _request: pb::LeaseLeasesRequest,
    ) -> Result<pb::LeaseLeasesResponse, Refusal> {
        let node = &self.context.node;
        let _permit = self.context.authorize(principal, Need::Leases)?;
        let here = || self.context.leases.expiries().map(Listed::Unsorted);
        let there = async |peers: Arc<Peers>| {
            // The header is read here.
            node.linearize().await.map_err(|error| Untold::Refused(error.into()))?;
            let Told { what, age } = peers.leases().await?;
            Ok(Told { what: Listed::Sorted(what), age })
        };
        let listed = self.at_leader(&mut node.lease_news(), here, there).await?.what;
        let header = Some(self.header());
        // There may be a million.
        let leases = self.context.on_pool(move || listed.sorted()).await?;
        Ok(pb::LeaseLeasesResponse { header, leases })
    }

    /// Asks the leader's clock, when it is certain that it led after the request had come: `here` if this member leads, else `there`.
    async fn at_leader<T, F>(
        &self,
        news: &mut watch::Receiver<()>,
        here: impl Fn() -> Result<T, NotLeading>,
        there: impl Fn(Arc<Peers>) -> F,
    ) -> Result<Told<T>, Refusal>
    where
        F: Future<Output = Result<Told<T>, Untold>>,
    {
        let (context, node, here) = (&self.context, &self.context.node, &here);
        let question = |leader| {
            let elsewhere = matches!(leader, Leader::At(_)).then(|| there(context.peers.clone()));
            async move {
                let Some(told) = elsewhere else {
                    node.linearize().await.map_err(ApiError::from)?;
                    return Ok(here().ok().map(|what| Told { what, age: Duration::ZERO }));
                };
                match told.await {
                    Ok(told) => Ok(Some(told)),
                    Err(Untold::Refused(error)) => Err(error.into()),
                    Err(Untold::Nobody) => Ok(None),
                }
            }
        };
        let told = context.ask_leader(news, Instant::now() + context.request_timeout, question).await;
        match told {
            Err(Refusal::Api(ApiError::Timeout)) if node.status().leader == 0 => Err(ApiError::NoLeader.into()),
            told => told,
        }
    }

    fn header(&self) -> pb::ResponseHeader {
        self.context.header(self.context.node.reader().revision()).into()
    }
}

/// Leases of a list.
enum Listed {
    /// In no order: when each runs out, which was granted or renewed first, and its id.
    Unsorted(Vec<(u64, u64, i64)>),
    Sorted(Vec<i64>),
}

impl Listed {
    fn sorted(self) -> Vec<pb::LeaseStatus> {
        let status = |id| pb::LeaseStatus { id };
        match self {
            Self::Unsorted(mut expiries) => {
                expiries.sort_unstable();
                expiries.into_iter().map(|(_, _, id)| status(id)).collect()
            }
            Self::Sorted(ids) => ids.into_iter().map(status).collect(),
        }
    }
}

/// The seconds that may still be promised of a renewal that is this old: half a second does not count. `None` if there are none.
fn still_promised(ttl: i64, age: Duration) -> Option<i64> {
    let gone = (age + Duration::from_millis(500)).as_secs();
    Some(ttl.saturating_sub_unsigned(gone)).filter(|left| *left > 0)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_renewal_promises_less() {
        let promised = |ttl, ms| still_promised(ttl, Duration::from_millis(ms));
        assert_eq!(
            [promised(10, 0), promised(10, 499), promised(10, 500), promised(10, 2_499)],
            [10, 10, 9, 8].map(Some)
        );
        assert_eq!((promised(2, 1_499), promised(2, 1_500), promised(1, 60_000)), (Some(1), None, None));
    }
}

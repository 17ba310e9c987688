//! The Election service: the first of a [queue] leads, and what stands at its place is what it proclaims.
//!
//! The leader's key with its create revision is its proof of leadership, and the fencing token of whatever it does.

use std::{collections::VecDeque, pin::Pin};

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{ResponseHeader, WatchCreateRequest, WatchRequest, watch_request::RequestUnion},
    mvccpb::KeyValue,
    v3electionpb::{
        CampaignRequest, CampaignResponse, LeaderKey, LeaderRequest, LeaderResponse, ProclaimRequest, ProclaimResponse,
        ResignRequest, ResignResponse,
    },
};
use futures::{Stream, StreamExt, stream};
use prost::Message;

use super::{
    queue::{self, Place, Queues},
    refusal::Refusal,
    watch::WatchReply,
};
use crate::state::auth::Principal;

/// The Election service. Clones are cheap.
#[derive(Clone)]
pub struct Election {
    queues: Queues,
}

fn place_of(leader: &LeaderKey) -> Place {
    Place { key: leader.key.clone(), revision: leader.rev }
}

impl Election {
    pub(super) fn new(queues: Queues) -> Self {
        Self { queues }
    }

    /// Waits until the caller leads. A caller that gives up gives up its place.
    pub async fn campaign(&self, principal: &Principal, request: CampaignRequest) -> Result<CampaignResponse, Refusal> {
        self.wait_for(principal, request).await.map_err(Refusal::without_code)
    }

    async fn wait_for(&self, principal: &Principal, request: CampaignRequest) -> Result<CampaignResponse, Refusal> {
        let CampaignRequest { name, lease, value } = request;
        let queues = &self.queues;
        let lease = queues.lease(principal, lease).await?;
        let taken = queues.take(principal, &name, lease, &value).await?;
        let standing = taken.standing;
        if taken.before.is_some_and(|before| before.value != value) {
            let held = queues.write(principal, standing.place(), lease, value).await?;
            held.ok_or(ApiError::ElectionNotLeader)?;
        }
        if !taken.is_first {
            let won = queues.wait(principal, &name, standing.place()).await?;
            won.ok_or(ApiError::ElectionNotLeader)?;
        }
        let place = standing.keep();
        let leader = LeaderKey { name, key: place.key, rev: place.revision, lease };
        Ok(CampaignResponse { header: taken.header, leader: Some(leader) })
    }

    /// Changes what the leader proclaims.
    pub async fn proclaim(&self, principal: &Principal, request: ProclaimRequest) -> Result<ProclaimResponse, Refusal> {
        let leader = request.leader.ok_or(ApiError::ElectionMissingLeaderKey)?;
        let written = async {
            let lease = self.queues.lease(principal, leader.lease).await?;
            self.queues.write(principal, &place_of(&leader), lease, request.value).await
        };
        let header = written.await.map_err(Refusal::without_code)?;
        Ok(ProclaimResponse { header: Some(header.ok_or(ApiError::ElectionNotLeader)?) })
    }

    /// Gives leadership up. Somebody who does not lead any more may do that too.
    pub async fn resign(&self, principal: &Principal, request: ResignRequest) -> Result<ResignResponse, Refusal> {
        let leader = request.leader.ok_or(ApiError::ElectionMissingLeaderKey)?;
        let header = self.queues.leave(principal, &place_of(&leader)).await.map_err(Refusal::without_code)?;
        Ok(ResignResponse { header })
    }

    /// Who leads, and what it proclaims.
    pub async fn leader(&self, principal: &Principal, request: LeaderRequest) -> Result<LeaderResponse, Refusal> {
        let found = self.queues.first(principal, &request.name).await.map_err(Refusal::without_code)?;
        let kv = found.kvs.into_iter().next().ok_or(ApiError::ElectionNoLeader)?;
        Ok(LeaderResponse { header: found.header, kv: Some(kv) })
    }

    /// What leaders proclaim, from now on. Leaders that led only between two looks may be left out; the newest is always told.
    pub fn observe(
        &self,
        principal: &Principal,
        request: LeaderRequest,
    ) -> impl Stream<Item = Result<LeaderResponse, Refusal>> + Send + use<> {
        let observer = Observer {
            queues: self.queues.clone(),
            principal: principal.clone(),
            name: request.name,
            leader: None,
            untold: VecDeque::new(),
        };
        stream::try_unfold(observer, |mut observer| async move {
            let told = observer.next().await.map_err(Refusal::without_code)?;
            Ok(Some((told, observer)))
        })
    }
}

/// Replies of a watch.
type Replies = Pin<Box<dyn Stream<Item = Result<WatchReply, Refusal>> + Send>>;

/// Somebody who watches an election.
struct Observer {
    queues: Queues,
    principal: Principal,
    name: Bytes,
    /// What happens to the present leader's key.
    leader: Option<Replies>,
    /// What it proclaimed in the last reply: as many as one answer of a watch holds.
    untold: VecDeque<LeaderResponse>,
}

impl Observer {
    async fn next(&mut self) -> Result<LeaderResponse, Refusal> {
        loop {
            if let Some(told) = self.untold.pop_front() {
                return Ok(told);
            }
            let Some(replies) = &mut self.leader else {
                let (header, kv) = self.find().await?;
                self.leader = Some(self.watch(kv.key.clone(), Bytes::new(), header.revision + 1));
                return Ok(LeaderResponse { header: Some(header), kv: Some(kv) });
            };
            let reply = next_of(replies).await?;
            for event in &reply.answer.events {
                if event.change.tombstone {
                    self.leader = None;
                    break;
                }
                let (header, kv) = (Some(reply.header.into()), Some(decoded(&event.change.stored)?));
                self.untold.push_back(LeaderResponse { header, kv });
            }
            if reply.answer.canceled {
                // Compacted while it was looked for: it is looked for again.
                self.leader = None;
            }
        }
    }

    /// The present leader, or the next one.
    async fn find(&mut self) -> Result<(ResponseHeader, KeyValue), Refusal> {
        loop {
            let found = self.queues.first(&self.principal, &self.name).await?;
            let header = found.header.unwrap_or_default();
            if let Some(kv) = found.kvs.into_iter().next() {
                return Ok((header, kv));
            }
            let queue = queue::all(&self.name);
            let mut replies = self.watch(queue.key, queue.range_end, header.revision + 1);
            loop {
                let reply = next_of(&mut replies).await?;
                if let Some(event) = reply.answer.events.iter().find(|event| !event.change.tombstone) {
                    // Later revisions of the same reply are still to be told.
                    let kv = decoded(&event.change.stored)?;
                    let header = ResponseHeader { revision: kv.mod_revision, ..reply.header.into() };
                    return Ok((header, kv));
                }
                if reply.answer.canceled {
                    // Compacted while it was read: it is read again.
                    break;
                }
            }
        }
    }

    fn watch(&self, key: Bytes, range_end: Bytes, start_revision: i64) -> Replies {
        let create = WatchCreateRequest { key, range_end, start_revision, ..WatchCreateRequest::default() };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        Box::pin(self.queues.watch.watch(&self.principal, stream::iter([create]), None))
    }
}

async fn next_of(replies: &mut Replies) -> Result<WatchReply, Refusal> {
    replies.next().await.unwrap_or_else(|| Err(ApiError::Stopped.into()))
}

fn decoded(stored: &Bytes) -> Result<KeyValue, Refusal> {
    KeyValue::decode(stored.clone())
        .map_err(|error| Refusal::Internal(format!("a stored value does not decode: {error}").into()))
}

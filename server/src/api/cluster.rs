//! The Cluster service: who belongs to the cluster, and who leads it.
//!
//! Changes of the membership are the leader's business. Any member takes them, hands them to the leader, and answers once
//! the change is applied here as well.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, Member},
};
use tokio::time::{Instant, timeout_at};

use super::{Context, leader::Leader, refusal::Refusal};
use crate::{
    config::{Url, added_member_id},
    node::membership::form::peer_urls,
    state::{
        MemberChange, Members,
        auth::{Need, Principal},
        command::RequestId,
    },
};

/// The Cluster service. Clones are cheap.
#[derive(Clone)]
pub struct Cluster {
    context: Arc<Context>,
}

impl Cluster {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// The replicated version of the cluster's API, `not_decided` while a new cluster has none.
    pub fn version(&self) -> String {
        self.context.node.cluster_version().map_or_else(|| "not_decided".to_owned(), |version| version.to_string())
    }

    /// The members, by id. The header has no revision.
    pub async fn member_list(
        &self,
        principal: &Principal,
        request: pb::MemberListRequest,
    ) -> Result<pb::MemberListResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::User)?;
        if request.linearizable {
            self.context.node.linearize().await.map_err(ApiError::from)?;
        }
        Ok(pb::MemberListResponse { header: Some(self.header()), members: self.members() })
    }

    /// Adds a member, which then has to be started.
    pub async fn member_add(
        &self,
        principal: &Principal,
        request: pb::MemberAddRequest,
    ) -> Result<pb::MemberAddResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::Root)?;
        let urls = peer_urls(&request.peer_urls).ok_or(ApiError::MemberBadUrls)?;
        let member = Member {
            id: new_id(&urls),
            peer_urls: urls.iter().map(Url::to_string).collect(),
            is_learner: request.is_learner,
            ..Member::default()
        };
        let id = member.id;
        self.change(MemberChange::Add(member.clone()), |members| members.members.contains_key(&id)).await?;
        Ok(pb::MemberAddResponse { header: Some(self.header()), member: Some(member), members: self.members() })
    }

    /// Removes a member for good.
    pub async fn member_remove(
        &self,
        principal: &Principal,
        request: pb::MemberRemoveRequest,
    ) -> Result<pb::MemberRemoveResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::Root)?;
        let id = request.id;
        self.change(MemberChange::Remove(id), |members| members.removed.contains(&id)).await?;
        Ok(pb::MemberRemoveResponse { header: Some(self.header()), members: self.members() })
    }

    /// Changes where a member is reached by the others.
    pub async fn member_update(
        &self,
        principal: &Principal,
        request: pb::MemberUpdateRequest,
    ) -> Result<pb::MemberUpdateResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::Root)?;
        let id = request.id;
        let peer_urls: Vec<String> =
            peer_urls(&request.peer_urls).ok_or(ApiError::MemberBadUrls)?.iter().map(Url::to_string).collect();
        let wanted = peer_urls.clone();
        let arrived = move |members: &Members| members.members.get(&id).is_none_or(|member| member.peer_urls == wanted);
        self.change(MemberChange::Update { id, peer_urls }, arrived).await?;
        Ok(pb::MemberUpdateResponse { header: Some(self.header()), members: self.members() })
    }

    /// Gives a learner its vote.
    pub async fn member_promote(
        &self,
        principal: &Principal,
        request: pb::MemberPromoteRequest,
    ) -> Result<pb::MemberPromoteResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::Root)?;
        let id = request.id;
        let arrived = |members: &Members| members.members.get(&id).is_none_or(|member| !member.is_learner);
        self.change(MemberChange::Promote(id), arrived).await?;
        self.context.node.metrics().learner_promotions.inc();
        Ok(pb::MemberPromoteResponse { header: Some(self.header()), members: self.members() })
    }

    /// Hands leadership over to another voter. Only the leader takes this; the answer has no header.
    pub async fn move_leader(
        &self,
        principal: &Principal,
        request: pb::MoveLeaderRequest,
    ) -> Result<pb::MoveLeaderResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::Root)?;
        let (node, target) = (&self.context.node, request.target_id);
        let status = node.status();
        if status.leader != status.member_id {
            return Err(ApiError::NotLeader.into());
        }
        if node.members().members.get(&target).is_none_or(|member| member.is_learner) {
            return Err(ApiError::BadLeaderTransferee.into());
        }
        if target == status.member_id {
            return Ok(pb::MoveLeaderResponse::default());
        }
        let mut leader = node.leader_seen();
        self.context.membership.transfer_leader(target);
        let moved = leader.wait_for(|leader| *leader == target);
        match tokio::time::timeout(self.context.election_timeout, moved).await {
            Ok(Ok(_)) => Ok(pb::MoveLeaderResponse::default()),
            Ok(Err(_)) => Err(ApiError::Stopped.into()),
            Err(_) => Err(ApiError::Timeout.into()),
        }
    }

    /// Has the leader make a change, and waits until it has `arrived` here.
    async fn change(&self, change: MemberChange, arrived: impl Fn(&Members) -> bool) -> Result<(), Refusal> {
        let (context, node) = (&self.context, &self.context.node);
        let deadline = Instant::now() + context.request_timeout;
        let mut seen = node.members_seen();
        context.ask_leader(&mut node.lease_news(), deadline, |leader| self.at(leader, change.clone())).await?;
        match timeout_at(deadline, seen.wait_for(|()| arrived(&node.members()))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(ApiError::Stopped.into()),
            Err(_) => Err(ApiError::Timeout.into()),
        }
    }

    /// Has the leader make a change. Who leads no more has not proposed it: a leader that is to be removed hands over first.
    async fn at(&self, leader: Leader, change: MemberChange) -> Result<Option<()>, Refusal> {
        let made = match leader {
            Leader::Unknown => return Ok(None),
            Leader::Here => self.context.membership.change_members(change).await.map_err(ApiError::from),
            Leader::At(leader) => self.at_other(leader, change).await,
        };
        match made {
            Err(ApiError::NotLeader) => Ok(None),
            made => Ok(Some(made?)),
        }
    }

    async fn at_other(&self, leader: u64, change: MemberChange) -> Result<(), ApiError> {
        // Who asked is the leader's own request then; this id goes nowhere.
        let nobody = RequestId { member: 0, nonce: 0, counter: 0 };
        self.context.peers.change(leader, change.encode(nobody)).await.map_err(|status| {
            ApiError::from_status(&status).unwrap_or_else(|| {
                tracing::warn!(%status, "the leader did not make a membership change");
                ApiError::TimeoutConnectionLost
            })
        })
    }

    fn members(&self) -> Vec<Member> {
        self.context.node.members().members.values().cloned().collect()
    }

    fn header(&self) -> pb::ResponseHeader {
        self.context.header(0).into()
    }
}

/// The id of a member that is added now.
#[expect(clippy::disallowed_methods, reason = "what is not deterministic is decided before a command is proposed")]
fn new_id(urls: &[Url]) -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    added_member_id(urls, now.as_secs())
}

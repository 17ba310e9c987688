//! The Maintenance service: looking after one member.

use std::{sync::Arc, time::Instant};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, AlarmMember, AlarmType},
};

use super::{Context, refusal::Refusal};
use crate::{
    state::{
        auth::{Need, Principal},
        command::{Reply, Request, rules},
    },
    types::{API_VERSION, STORAGE_VERSION},
};

/// The Maintenance service. Clones are cheap.
#[derive(Clone)]
pub struct Maintenance {
    context: Arc<Context>,
}

impl Maintenance {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// The alarms that are raised.
    pub fn alarms(&self) -> Vec<AlarmMember> {
        self.context.node.alarms().list(AlarmType::None.into())
    }

    /// Lists, raises or lowers alarms.
    pub async fn alarm(&self, principal: &Principal, request: pb::AlarmRequest) -> Result<pb::AlarmResponse, Refusal> {
        rules::alarm(&request)?;
        let (Reply::Alarms(alarms), _) = self.context.propose(principal, Request::Alarm(request)).await? else {
            return Err(self.context.contradiction("an alarm request was answered as something else"));
        };
        Ok(pb::AlarmResponse { header: Some(self.header()), alarms })
    }

    /// The member's state.
    pub fn status(&self, principal: &Principal, _request: pb::StatusRequest) -> Result<pb::StatusResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::User)?;
        let node = &self.context.node;
        let (status, size) = (node.status(), node.size());
        let mut errors = Vec::new();
        if status.leader == 0 {
            errors.push(ApiError::NoLeader.text().to_owned());
        }
        errors.extend(self.alarms().iter().map(alarm_text));
        Ok(pb::StatusResponse {
            header: Some(self.header()),
            version: API_VERSION.to_owned(),
            db_size: size.total as i64,
            leader: status.leader,
            raft_index: status.raft_index,
            raft_term: status.term,
            raft_applied_index: status.applied_index,
            errors,
            db_size_in_use: size.in_use as i64,
            is_learner: status.is_learner,
            storage_version: STORAGE_VERSION.to_owned(),
            db_size_quota: self.context.quota_bytes.map_or(0, |bytes| bytes as i64),
            downgrade_info: Some(pb::DowngradeInfo::default()),
        })
    }

    /// Gives disk space back. There is nothing that needs it, reads and writes go on meanwhile, and the answer has no header.
    pub async fn defragment(
        &self,
        principal: &Principal,
        _request: pb::DefragmentRequest,
    ) -> Result<pb::DefragmentResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::Root)?;
        let store = self.context.store.clone();
        tracing::info!("starting defragment");
        if let Err(error) = self.context.on_pool(move || store.defragment()).await? {
            let text = format!("etcdserver: defragment failed: {error}");
            self.context.node.fail(error);
            return Err(Refusal::Internal(text.into()));
        }
        tracing::info!("finished defragment");
        Ok(pb::DefragmentResponse::default())
    }

    /// A hash over everything stored, for tests.
    pub async fn hash(&self, principal: &Principal, _request: pb::HashRequest) -> Result<pb::HashResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::Root)?;
        let reader = self.context.node.reader().clone();
        let started = Instant::now();
        let (hash, revision) = self.context.blocking(move || reader.hash()).await?;
        self.context.node.metrics().hash.observe(started.elapsed().as_secs_f64());
        Ok(pb::HashResponse { header: Some(self.context.header(revision).into()), hash })
    }

    /// A hash over the keys up to a revision, equal on all members with the same history.
    pub async fn hash_kv(
        &self,
        principal: &Principal,
        request: pb::HashKvRequest,
    ) -> Result<pb::HashKvResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::Root)?;
        let reader = self.context.node.reader().clone();
        let started = Instant::now();
        let hash = self.context.blocking(move || reader.hash_kv(request.revision)).await?;
        self.context.node.metrics().hash_at.observe(started.elapsed().as_secs_f64());
        Ok(pb::HashKvResponse {
            header: Some(self.context.header(hash.header_revision).into()),
            hash: hash.hash,
            compact_revision: hash.compact_revision,
            hash_revision: hash.hash_revision,
        })
    }

    fn header(&self) -> pb::ResponseHeader {
        self.context.header(self.context.node.reader().revision()).into()
    }
}

/// An alarm as the status tells it.
fn alarm_text(alarm: &AlarmMember) -> String {
    format!("memberID:{} alarm:{}", alarm.member_id, alarm.alarm().as_str_name())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_is_told_with_the_members_decimal_id() {
        let alarm = AlarmMember { member_id: 123, alarm: AlarmType::Nospace.into() };
        assert_eq!(alarm_text(&alarm), "memberID:123 alarm:NOSPACE");
    }
}

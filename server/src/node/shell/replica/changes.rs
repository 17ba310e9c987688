//! The replica task's part in membership changes: proposed, seen, and this member's own end.

use std::sync::Arc;

use cairn_proto::ApiError;

use super::Replica;
use crate::{
    node::{
        ProposeError,
        core::Leaving,
        membership::{Judge, form},
        shell::handle::Writer,
    },
    raft::Role,
    state::{MemberChange, command::RequestId},
};

/// Ticks that a member goes on after it was removed, so that the others learn of it.
const LEAVE_TICKS: u32 = 10;

impl Replica {
    /// Checks a membership change and proposes it.
    pub(super) fn change(&mut self, counter: u64, change: &MemberChange, writer: Writer) {
        let mut allowed = self.allow(change);
        if allowed.is_ok() && *change == MemberChange::Remove(self.shared.identity.member) {
            match self.core.leave() {
                Leaving::Goes => {}
                Leaving::HandsOver => {
                    tracing::info!("handing leadership over before this member is removed");
                    self.core.out.answers.push((writer, Err(ProposeError::NotLeader)));
                    return;
                }
                Leaving::Stays => allowed = Err(ProposeError::Refused(ApiError::Unhealthy)),
            }
        }
        match allowed {
            Ok(conf_change) => {
                let id = RequestId { member: self.shared.identity.member, nonce: self.shared.nonce, counter };
                tracing::info!(change = form::brief(change), "proposing a membership change");
                self.core.propose_conf_change(counter, conf_change, &change.encode(id), writer);
            }
            Err(error) => {
                tracing::warn!(change = form::brief(change), %error, "refused a membership change");
                self.core.out.answers.push((writer, Err(error)));
            }
        }
    }

    fn allow(&self, change: &MemberChange) -> Result<raft::eraftpb::ConfChangeV2, ProposeError> {
        if self.core.status().standing.role != Role::Leader {
            return Err(ProposeError::NotLeader);
        }
        let judge = Judge {
            rules: self.rules,
            own: self.shared.identity.member,
            members: &self.core.state().members(),
            connected_for: &|member| self.transport.connected_for(member),
            caught_up: &|member| self.core.has_caught_up(member),
        };
        judge.judge(change)
    }

    /// This member is none any more: goes on for a moment, so that what it knows of its removal reaches the others.
    pub(super) fn leave(&mut self) {
        if self.leaving.is_none() {
            tracing::warn!("this member was removed from the cluster; stopping");
            self.leaving = Some(LEAVE_TICKS);
        }
    }

    /// Sees whether the members changed.
    pub(super) fn see_members(&mut self) {
        let members = self.core.state().members();
        if Arc::ptr_eq(&members, &self.members) {
            return;
        }
        self.transport.members_changed(&members);
        if members.removed.contains(&self.shared.identity.member) {
            self.leave();
        }
        self.members = members;
    }
}

//! The replica task's part in membership changes: proposed, seen, and this member's own end.

use std::{mem, sync::Arc};

use cairn_proto::ApiError;

use super::Replica;
use crate::{
    node::{
        ProposeError,
        core::Leaving,
        membership::{Judge, form},
        shell::inputs::Writer,
    },
    raft::Role,
    state::{MemberChange, command::RequestId},
};

/// Ticks that a member goes on after it was removed, so that the others learn of it.
const LEAVE_TICKS: u32 = 10;

/// A membership change that is to be proposed.
pub(in crate::node::shell) struct PendingChange {
    pub(super) counter: u64,
    pub(super) change: MemberChange,
    pub(super) writer: Writer,
    /// Ticks after which it has waited too long.
    pub(super) ticks_left: u64,
}

impl Replica {
    /// Checks a membership change and proposes it, or has it wait: right after an election, and while another change is
    /// under way.
    pub(super) fn change(&mut self, change: PendingChange) {
        if self.core.status().standing.role == Role::Leader && !self.core.takes_conf_change() {
            self.pending_changes.push_back(change);
        } else {
            self.decide(change);
        }
    }

    /// Proposes a membership change that waits, if one may be proposed by now.
    pub(super) fn retry_changes(&mut self) {
        if !self.pending_changes.is_empty() {
            for change in mem::take(&mut self.pending_changes) {
                self.change(change);
            }
        }
    }

    /// Lets a tick pass for the membership changes that wait.
    pub(super) fn tick_changes(&mut self) {
        for mut change in mem::take(&mut self.pending_changes) {
            change.ticks_left = change.ticks_left.saturating_sub(1);
            if change.ticks_left == 0 {
                self.core.out.answers.push((change.writer, Err(ProposeError::Timeout)));
            } else {
                self.pending_changes.push_back(change);
            }
        }
    }

    fn decide(&mut self, PendingChange { counter, change, writer, .. }: PendingChange) {
        let change = &change;
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
        self.shared.members_seen.send_replace(());
        if members.removed.contains(&self.shared.identity.member) {
            self.leave();
        }
        self.members = members;
    }
}

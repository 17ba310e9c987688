//! The replica task's part in membership changes: proposed, seen, and this member's own end.

use std::sync::Arc;

use super::Replica;
use crate::{
    node::{ProposeError, membership::Judge, shell::handle::Writer},
    raft::Role,
    state::{MemberChange, command::RequestId},
};

/// Ticks that a member goes on after it was removed, so that the others learn of it.
const LEAVE_TICKS: u32 = 10;

impl Replica {
    /// Checks a membership change and proposes it.
    pub(super) fn change(&mut self, counter: u64, change: &MemberChange, writer: Writer) {
        if *change == MemberChange::Remove(self.shared.identity.member) && self.hands_over_first(change) {
            self.core.out.answers.push((writer, Err(ProposeError::NotLeader)));
            return;
        }
        match self.allow(change) {
            Ok(conf_change) => {
                let id = RequestId { member: self.shared.identity.member, nonce: self.shared.nonce, counter };
                tracing::info!(?change, "proposing a membership change");
                self.core.propose_conf_change(counter, conf_change, &change.encode(id), writer);
            }
            Err(error) => {
                tracing::warn!(?change, %error, "refused a membership change");
                self.core.out.answers.push((writer, Err(error)));
            }
        }
    }

    /// A leader that is to be removed hands leadership over first, and whoever takes it removes it: who goes on without it then
    /// knows that it is gone. One attempt a term: if it fails the leader removes itself.
    fn hands_over_first(&mut self, change: &MemberChange) -> bool {
        let standing = self.core.status().standing;
        if standing.role != Role::Leader || self.allow(change).is_err() {
            return false;
        }
        if self.handed_over_in == standing.term {
            return self.core.is_handing_over();
        }
        let Some(successor) = self.core.successor() else { return false };
        self.handed_over_in = standing.term;
        tracing::info!(
            successor = format_args!("{successor:x}"),
            "handing leadership over before this member is removed"
        );
        self.core.transfer_leader(successor);
        true
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
        judge.judge(change).map_err(ProposeError::Refused)
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

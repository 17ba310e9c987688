//! A leader that is to be removed.
//!
//! Whoever goes on without it must know that it is gone, or it may wait for its vote. So leadership is handed over first, and
//! whoever takes it makes the removal: it knows of it for good before anybody is told. Where that fails, a leader of three or
//! more removes itself all the same: the others are a majority of those who were there. A leader of two does not. The other one
//! alone would be no majority while it has not heard that the removal is committed, and nobody would be left to tell it.
//!
//! For the same reason, one of two does not carry out its own removal on grounds that only it knows: it may have come to lead with
//! the removal in its log, and committed it. It hands leadership over, and goes when the other one has said that it is committed.

use raft::eraftpb::{ConfChangeType, ConfChangeV2, Message, MessageType};

use super::Core;
use crate::raft::Role;

/// Voters of which one cannot do without the other.
const PAIR: usize = 2;

/// What a leader does that is to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaving {
    /// It hands leadership over: whoever takes it is to be asked.
    HandsOver,
    /// It removes itself.
    Goes,
    /// It cannot be removed now.
    Stays,
}

/// What a leader says to be committed.
pub(super) fn said_committed(message: &Message) -> u64 {
    // It may be of any kind: nothing was checked yet.
    match MessageType::from_i32(message.msg_type) {
        Some(MessageType::MsgAppend | MessageType::MsgHeartbeat) => message.commit,
        _ => 0,
    }
}

impl<W, R> Core<W, R> {
    fn is_one_of_two(&self) -> bool {
        self.group.conf_state().voters.len() == PAIR
    }

    /// Whether the change in the committed entry `index` has to wait: until another member says that it is committed.
    pub(super) fn stays_for(&mut self, index: u64, change: &ConfChangeV2) -> bool {
        let own = self.options.raft.member;
        let mut changes = change.changes.iter();
        let removed = changes.any(|one| one.node_id == own && one.get_change_type() == ConfChangeType::RemoveNode);
        self.stays = removed && self.is_one_of_two() && index > self.heard_commit;
        self.stays
    }

    /// Whether this member may end because member `by` says that it was removed. A learner may know that from this member alone.
    pub fn may_leave(&self, by: u64) -> bool {
        !self.stays || self.group.conf_state().voters.contains(&by)
    }

    /// Hands leadership over that stands in the way of this member's removal.
    pub(super) fn give_way(&mut self) {
        if self.stays
            && self.group.standing().role == Role::Leader
            && !self.group.is_handing_over()
            && let Some(successor) = self.group.successor()
        {
            self.group.transfer_leader(successor);
        }
    }

    /// Begins to hand leadership over before this leader is removed, if that is to be done: one attempt a term, of a leader
    /// of two as many as it takes.
    pub fn leave(&mut self) -> Leaving {
        let term = self.group.standing().term;
        let pair = self.is_one_of_two();
        if self.group.is_handing_over() {
            return Leaving::HandsOver;
        }
        if self.handed_over_in == term && !pair {
            return Leaving::Goes;
        }
        match self.group.successor() {
            Some(successor) => {
                self.handed_over_in = term;
                self.group.transfer_leader(successor);
                Leaving::HandsOver
            }
            None if pair => Leaving::Stays,
            None => Leaving::Goes,
        }
    }
}

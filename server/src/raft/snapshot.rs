//! Snapshots as raft sees them: index, term and membership, and a number that names the files.
//!
//! raft-rs asks for a snapshot when a follower needs entries that left the log. It is told "not yet" until somebody has
//! made one; what it then sends holds no data, only [`SnapshotMeta::id`], by which the follower fetches the files beside
//! raft. What the follower hands to raft-rs in the end is read from these files, not from the message: raft-rs ends the
//! process if a membership makes no sense.

use raft::{
    StateRole, Storage,
    eraftpb::{ConfState, Message, MessageType, Snapshot, SnapshotMetadata},
};

use super::{
    Group, Refused,
    validate::{self, View},
};
use crate::log::EntryId;

/// Bytes of a snapshot's number in a message.
const ID_BYTES: usize = 8;

/// A snapshot of the store.
#[derive(Debug, Clone, PartialEq)]
pub struct SnapshotMeta {
    /// Names its files.
    pub id: u64,
    /// The last entry whose effects are in it.
    pub last: EntryId,
    /// The membership then.
    pub conf_state: ConfState,
}

/// A snapshot that a leader has for this member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offer {
    /// Who has its files.
    pub from: u64,
    /// Names its files.
    pub id: u64,
    /// The last entry whose effects are in it.
    pub last: EntryId,
}

fn snapshot(meta: &SnapshotMeta) -> Snapshot {
    let metadata =
        SnapshotMetadata { conf_state: Some(meta.conf_state.clone()), index: meta.last.index, term: meta.last.term };
    Snapshot { data: meta.id.to_be_bytes().to_vec(), metadata: Some(metadata) }
}

impl Offer {
    /// What a message offers, if that is a snapshot.
    pub fn of(message: &Message) -> Option<Self> {
        let offers = message.msg_type == MessageType::MsgSnapshot as i32;
        offers.then(|| understand(message).ok())?
    }
}

/// What a message with a snapshot says, if it can be understood.
pub(super) fn understand(message: &Message) -> Result<Offer, &'static str> {
    let snapshot = message.snapshot.as_ref().ok_or("a snapshot is announced, and there is none")?;
    let metadata = snapshot.metadata.as_ref().ok_or("a snapshot that does not say what is in it")?;
    let id: [u8; ID_BYTES] = snapshot.data[..].try_into().map_err(|_| "a snapshot without a number")?;
    let last = EntryId { index: metadata.index, term: metadata.term };
    if last.index == 0 || last.term == 0 || last.index >= validate::NUMBER_MAX || last.term > message.term {
        return Err("a snapshot of an impossible index or term");
    }
    Ok(Offer { from: message.from, id: u64::from_be_bytes(id), last })
}

/// Whether a member is in a membership.
pub(super) fn has(conf_state: &ConfState, member: u64) -> bool {
    [&conf_state.voters, &conf_state.learners, &conf_state.voters_outgoing, &conf_state.learners_next]
        .into_iter()
        .any(|members| members.contains(&member))
}

impl Group {
    /// Members for which a snapshot is wanted and there is none, since this was last asked.
    pub fn snapshot_wishes(&mut self) -> Vec<u64> {
        std::mem::take(&mut *self.node.store().wishes.borrow_mut())
    }

    /// From now on, members that need a snapshot are sent this one, as long as the log goes on from it.
    pub fn offer_snapshot(&mut self, meta: Option<&SnapshotMeta>) {
        self.node.mut_store().offer = meta.map(snapshot);
    }

    /// Whether a member is being sent a snapshot, as far as raft knows: nothing else is sent to it.
    pub fn sends_snapshot_to(&self, member: u64) -> bool {
        let raft = &self.node.raft;
        raft.state == StateRole::Leader
            && raft.prs().get(member).is_some_and(|progress| progress.state == raft::ProgressState::Snapshot)
    }

    /// Notes that a snapshot will not reach a member, so that raft looks again where it stands.
    pub fn snapshot_failed(&mut self, member: u64) {
        self.node.report_snapshot(member, raft::SnapshotStatus::Failure);
        self.settle(false);
    }

    /// The last entry that members which were heard of lately are all known to have; `None` if this member does not lead,
    /// or nobody was heard of.
    pub fn matched_by_active(&self) -> Option<u64> {
        let raft = &self.node.raft;
        if raft.state != StateRole::Leader {
            return None;
        }
        let others = raft.prs().iter().filter(|(id, progress)| **id != raft.id && progress.recent_active);
        others.map(|(_, progress)| progress.matched.max(progress.pending_snapshot)).min()
    }

    /// Takes a message with a snapshot. What is offered is not installed: that is up to the caller, by
    /// [`Self::install`]. `None`: there is nothing in it that this member does not have.
    pub fn offered(&mut self, mut message: Message) -> Result<Option<Offer>, Refused> {
        let raft = &self.node.raft;
        let leads = raft.state == StateRole::Leader;
        let view = View { member: raft.id, term: raft.term, last: raft.raft_log.last_index(), leads };
        validate::check(&message, view)?;
        let from = message.from;
        let offer = understand(&message).map_err(|reason| Refused::Malformed { from, reason })?;
        let held = raft.raft_log.store.term(offer.last.index).is_ok_and(|term| term == offer.last.term);
        let committed = raft.raft_log.committed;
        if message.term >= raft.term && offer.last.index > committed && !held {
            return Ok(Some(offer));
        }
        // raft-rs answers how far this member is, or that the sender leads no more. Nothing of the message but its sender and
        // its term is left to be believed.
        let index = if held { offer.last.index.max(committed) } else { committed };
        let term = raft.raft_log.term(index).unwrap_or(0);
        let conf_state = raft.prs().conf().to_conf_state();
        message.set_snapshot(snapshot(&SnapshotMeta { id: 0, last: EntryId { index, term }, conf_state }));
        let taken = self.node.step(message);
        self.settle(false);
        taken.map(|()| None).map_err(|error| Refused::NotTaken { from, reason: error.to_string() })
    }

    /// Lets the log begin anew after a snapshot that was received: a write with [`InFlight::reset`](super::InFlight::reset) comes next. `false`
    /// if that would change nothing, or cannot be done. There has to be a leader, who is told.
    pub fn install(&mut self, meta: &SnapshotMeta) -> bool {
        let raft = &self.node.raft;
        let leader = raft.leader_id;
        if raft.state != StateRole::Follower || leader == 0 || !has(&meta.conf_state, raft.id) {
            return false;
        }
        let mut message = Message { from: leader, to: raft.id, term: raft.term, ..Message::default() };
        message.set_msg_type(MessageType::MsgSnapshot);
        message.set_snapshot(snapshot(meta));
        // That it is this member's leader and term is all that could be wrong with it.
        let taken = self.node.step(message);
        self.settle(false);
        taken.is_ok() && self.node.raft.raft_log.unstable_snapshot().is_some()
    }

    /// Whether the log begins anew and that is not synced yet.
    pub fn is_resetting(&self) -> bool {
        self.resetting.is_some()
    }
}

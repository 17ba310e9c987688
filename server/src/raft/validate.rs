//! What a peer's message must satisfy before raft-rs may see it.
//!
//! raft-rs trusts its peers: an enum value it does not know, a term that overflows, a commit index past the end of the
//! log or a read request without a context end the process. Everything checked here is something that it would stumble
//! over, or that would break its promises silently.

use raft::eraftpb::{ConfChangeV2, Entry, EntryType, Message, MessageType};

use super::snapshot;

/// Terms and indexes at or above this are refused: counting one by one never gets there, and arithmetic on what is
/// below never overflows.
pub(super) const NUMBER_MAX: u64 = 1 << 62;

/// Why a peer's message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The bytes make no sense, whoever sent them.
    #[error("malformed message of member {from:x}: {reason}")]
    Malformed {
        /// The member it names as its sender.
        from: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// It is for somebody else.
    #[error("message of member {from:x} is for member {to:x}, this is {member:x}")]
    Misdirected {
        /// The sender.
        from: u64,
        /// Whom it is for.
        to: u64,
        /// This member.
        member: u64,
    },
    /// A kind that members of this version never send each other.
    #[error("message of member {from:x} has the kind {kind:?}, which peers do not send")]
    Unexpected {
        /// The sender.
        from: u64,
        /// Its kind.
        kind: MessageType,
    },
    /// The leader counts on entries that this member does not have: its log lost what it had acknowledged.
    #[error(
        "leader {from:x} says that this member has stored entry {claimed}, but the log ends at {last}: it has lost acknowledged entries; remove the member and add it anew with an empty data directory"
    )]
    LostEntries {
        /// The sender.
        from: u64,
        /// Entry that the leader takes for stored here.
        claimed: u64,
        /// The last entry stored here.
        last: u64,
    },
    /// An entry in it could not be applied once it is committed.
    #[error("message of member {from:x}: its entry {index} cannot be applied here: {reason}")]
    Entry {
        /// The sender.
        from: u64,
        /// The entry.
        index: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// raft-rs did not want it, for instance because the sender is no member.
    #[error("message of member {from:x}: {reason}")]
    NotTaken {
        /// The sender.
        from: u64,
        /// raft-rs's words.
        reason: String,
    },
}

impl Refused {
    /// The member that sent it.
    pub fn from(&self) -> u64 {
        match self {
            Self::Malformed { from, .. }
            | Self::Misdirected { from, .. }
            | Self::Unexpected { from, .. }
            | Self::LostEntries { from, .. }
            | Self::Entry { from, .. }
            | Self::NotTaken { from, .. } => *from,
        }
    }
}

/// What the checks need to know of this member.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    pub(super) member: u64,
    pub(super) term: u64,
    pub(super) last: u64,
    pub(super) leads: bool,
}

/// Whether raft-rs can take `message` without harm.
pub(super) fn check(message: &Message, view: View) -> Result<(), Refused> {
    let from = message.from;
    let malformed = |reason| Err(Refused::Malformed { from, reason });
    let Some(kind) = MessageType::from_i32(message.msg_type) else { return malformed("unknown kind of message") };
    if message.to != view.member {
        return Err(Refused::Misdirected { from, to: message.to, member: view.member });
    }
    if from == 0 || from == view.member {
        return malformed("the sender is nobody else");
    }
    let numbers =
        [message.term, message.log_term, message.index, message.commit, message.commit_term, message.reject_hint];
    if numbers.iter().any(|&number| number >= NUMBER_MAX) {
        return malformed("a term or index is too large");
    }
    let carries_term = kind != MessageType::MsgReadIndex;
    if carries_term != (message.term > 0) {
        return malformed("the term is missing, or there is one where none belongs");
    }
    if kind != MessageType::MsgAppend
        && kind != MessageType::MsgReadIndex
        && kind != MessageType::MsgReadIndexResp
        && !message.entries.is_empty()
    {
        return malformed("entries where none belong");
    }
    match kind {
        MessageType::MsgAppend => check_append(message, view),
        MessageType::MsgHeartbeat => {
            // An old leader's heartbeat is only told about the new term; its claim does not matter.
            if message.term >= view.term && message.commit > view.last {
                return Err(Refused::LostEntries { from, claimed: message.commit, last: view.last });
            }
            Ok(())
        }
        MessageType::MsgAppendResponse => {
            if message.request_snapshot != 0 {
                return malformed("a request for a snapshot");
            }
            if message.reject && message.reject_hint > message.index {
                return malformed("the hint is past what was rejected");
            }
            // Whoever does not lead does not look at it: a leader that lost what it had sent, before it was synced, may
            // get an answer to it after a restart.
            if view.leads && !message.reject && message.term == view.term && message.index > view.last {
                return malformed("it acknowledges entries that were never sent");
            }
            Ok(())
        }
        MessageType::MsgReadIndex | MessageType::MsgReadIndexResp => {
            let [entry] = &message.entries[..] else { return malformed("a read request has exactly one context") };
            if entry.data.is_empty() { malformed("a read request without a context") } else { Ok(()) }
        }
        MessageType::MsgHeartbeatResponse
        | MessageType::MsgRequestVote
        | MessageType::MsgRequestVoteResponse
        | MessageType::MsgRequestPreVote
        | MessageType::MsgRequestPreVoteResponse
        | MessageType::MsgTimeoutNow => Ok(()),
        MessageType::MsgSnapshot => snapshot::understand(message).map(drop).or_else(malformed),
        // Local to raft-rs, or done by us in another way: commands are forwarded outside of raft.
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader => Err(Refused::Unexpected { from, kind }),
    }
}

fn check_append(message: &Message, view: View) -> Result<(), Refused> {
    let from = message.from;
    let malformed = |reason| Err(Refused::Malformed { from, reason });
    // raft-rs takes term 0 for that of every entry it does not have.
    if (message.index == 0) != (message.log_term == 0) {
        return malformed("the entry before its entries has an index without a term, or the other way around");
    }
    if message.log_term > message.term {
        return malformed("the entry before its entries has a later term than the leader");
    }
    let mut term = message.log_term;
    for (entry, index) in message.entries.iter().zip(message.index + 1..) {
        if entry.index != index {
            return malformed("its entries have a gap");
        }
        if entry.term < term || entry.term == 0 || entry.term > message.term {
            return malformed("its entries' terms are out of order");
        }
        term = entry.term;
        check_entry(entry).or_else(malformed)?;
    }
    if message.term >= view.term && message.entries.is_empty() && message.index == 0 && message.commit > view.last {
        return malformed("nothing to append, but something to commit");
    }
    Ok(())
}

/// Whether an entry can be handed to raft-rs. What is in it besides is the caller's business.
pub(super) fn check_entry(entry: &Entry) -> Result<(), &'static str> {
    match EntryType::from_i32(entry.entry_type) {
        Some(EntryType::EntryNormal) => Ok(()),
        Some(EntryType::EntryConfChangeV2) => conf_change(entry).map(|_| ()),
        // Single changes are written in the newer form as well.
        Some(EntryType::EntryConfChange) | None => Err("unknown kind of entry"),
    }
}

/// Whether an entry, which was checked, removes a member.
pub(super) fn removes(entry: &Entry) -> bool {
    let removes = |change: &ConfChangeV2| {
        change.changes.iter().any(|single| single.get_change_type() == raft::eraftpb::ConfChangeType::RemoveNode)
    };
    entry.get_entry_type() == EntryType::EntryConfChangeV2 && conf_change(entry).is_ok_and(|change| removes(&change))
}

/// The membership change an entry holds.
pub(super) fn conf_change(entry: &Entry) -> Result<ConfChangeV2, &'static str> {
    let change: ConfChangeV2 =
        prost_raft::Message::decode(&entry.data[..]).map_err(|_| "unreadable membership change")?;
    check_change(&change)?;
    Ok(change)
}

/// Whether raft-rs can take a membership change, here and on the other members.
pub(super) fn check_change(change: &ConfChangeV2) -> Result<(), &'static str> {
    use raft::eraftpb::{ConfChangeTransition, ConfChangeType};

    if ConfChangeTransition::from_i32(change.transition).is_none() {
        return Err("membership change with an unknown transition");
    }
    if change.changes.iter().any(|single| single.node_id == 0 || ConfChangeType::from_i32(single.change_type).is_none())
    {
        return Err("membership change of an unknown kind");
    }
    Ok(())
}

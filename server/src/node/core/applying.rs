//! Applying: committed entries go to the state machine, in pieces, and its answers to those who wait.

use raft::eraftpb::EntryType;

use super::{Core, NodeError};
use crate::{
    raft::Group,
    state::{Answer, Committed, CommittedData, StateError},
};

/// Consecutive entries that are applied together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    /// Index and term of the last.
    last: (u64, u64),
    bytes: u64,
    conf_change: bool,
}

impl<W, R> Core<W, R> {
    /// Applies a piece of what may be applied. `true` if there is more.
    pub fn apply(&mut self) -> Result<bool, NodeError> {
        if self.snapshots.is_installing() {
            return Ok(false);
        }
        let commands_before = self.state.commands();
        let (piece, applied) = match self.stalled {
            Some(piece) => (piece, self.state.retry()),
            None => match self.next_piece()? {
                Some(piece) => (piece, self.state.apply(&self.piece)),
                None => return Ok(false),
            },
        };
        self.piece.clear();
        match applied {
            Ok(answers) => {
                self.stalled = None;
                let commands = self.state.commands() - commands_before;
                self.finish(piece, commands, answers);
                Ok(self.applied.0 < self.group.commit())
            }
            Err(StateError::Stalled) => {
                self.stalled = Some(piece);
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Collects the next entries to apply in `self.piece`. A membership change is a piece of its own: raft has to have
    /// taken everything before it.
    fn next_piece(&mut self) -> Result<Option<Piece>, NodeError> {
        let commit = self.group.commit();
        let mut piece = Piece { last: self.applied, bytes: 0, conf_change: false };
        while piece.last.0 < commit && self.piece.len() < self.options.piece_entries_max && !piece.conf_change {
            let index = piece.last.0 + 1;
            let missing = || NodeError::BadEntry { index, reason: "it is committed but not in memory" };
            let entry = self.group.cache().get(index).ok_or_else(missing)?;
            let (term, bytes) = (entry.term, entry.data.len() + entry.context.len());
            if !self.piece.is_empty() && piece.bytes as usize + bytes > self.options.piece_bytes_max {
                break;
            }
            let data = match entry.get_entry_type() {
                EntryType::EntryNormal if entry.data.is_empty() => CommittedData::Empty,
                EntryType::EntryNormal => CommittedData::Commands(self.group.cache().data(index).ok_or_else(missing)?),
                EntryType::EntryConfChangeV2 | EntryType::EntryConfChange => {
                    if !self.piece.is_empty() {
                        break;
                    }
                    let Some(data) = self.change_conf(index)? else { break };
                    piece.conf_change = true;
                    data
                }
            };
            self.piece.push(Committed { index, term, data });
            piece.bytes += bytes as u64;
            piece.last = (index, term);
        }
        Ok((!self.piece.is_empty()).then_some(piece))
    }

    /// Lets raft switch to the membership in entry `index`, which happens exactly once: the piece is kept if the state
    /// machine stalls. `None`: not yet.
    fn change_conf(&mut self, index: u64) -> Result<Option<CommittedData>, NodeError> {
        let bad = |reason| NodeError::BadEntry { index, reason };
        let entry = self.group.cache().get(index).ok_or_else(|| bad("it is committed but not in memory"))?;
        let change = Group::conf_change(entry).map_err(bad)?;
        let context = entry.context.clone().into();
        if self.stays_for(index, &change) {
            return Ok(None);
        }
        let had_others = !self.group.is_only_member();
        match self.group.apply_conf_change(&change) {
            Ok(conf_state) => {
                if had_others && self.group.is_only_member() {
                    self.shared_up_to = self.group.last_index();
                }
                Ok(Some(CommittedData::ConfChange(change, conf_state, context)))
            }
            // Whether a change fits depends on the membership before it and on nothing else: every member refuses it
            // alike.
            Err(error) => {
                tracing::warn!(index, %error, ?change, "membership change does not fit the membership and has no effect");
                Ok(Some(CommittedData::Empty))
            }
        }
    }

    fn finish(&mut self, piece: Piece, commands: u64, answers: Vec<Answer>) {
        let term_before = self.applied.1;
        self.applied = piece.last;
        self.group.applied_to(piece.last.0);
        self.leases_applied();
        for answer in answers {
            self.serves |= self.publication == Some(answer.id.counter) && answer.outcome.is_ok();
            if let Some(waiter) = self.waiters.take(answer.id.counter) {
                self.out.answers.push((waiter, Ok(answer)));
            }
        }
        if piece.conf_change {
            self.joint = self.group.is_joint();
            self.see_standing();
        }
        if piece.last.1 != term_before {
            self.term_applied(piece.last.1);
        }
        self.answer_reads();
        self.retention.applied(piece.last.0, commands, piece.bytes);
        if self.retention.begin_flush(self.now) {
            self.out.flush = true;
        }
    }
}

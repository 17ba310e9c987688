//! Commands that a member has another one propose, and what becomes of them when leaders change.
//!
//! ```text
//!   follower, term 5                                   leader of term 5
//!     queue --Forward{term 5}--> link --------------->   queue --(still leads in term 5?)--> an entry of term 5
//!     keeps the command          <----RefusedForward--   no: refused; no room: refused
//!         |
//!         +-- applied, in an entry of term 5 ............ answered
//!         +-- refused, too many wait there .............. "too many requests"
//!         +-- refused, it does not lead any more ........ back into the queue, for the leader of a later term
//!         +-- the first entry of term 6 is applied ...... back into the queue: see below
//! ```
//!
//! # Why that is once
//!
//! Only the leader of the term that a command was forwarded in hands it to raft, and it looks at its term when it does
//! so. So the command is in an entry of that term, or in none. Terms never fall along a log, and what is applied is the
//! beginning of every log that can still be committed: once an entry of a later term is applied here, no entry of the
//! earlier one can follow. A command that was not applied before that never will be. The same goes for what this member
//! proposed while it led itself, so one rule serves both, and the command is handed on anew at once, with the deadline
//! that it had.
//!
//! A snapshot that is installed skips entries: whether a command was among them is not known, and its client is told
//! so.
//!
//! # Members of earlier builds
//!
//! They neither send the term nor look at it, and hand on to the next leader what they could not propose. What comes
//! from them carries [`ANY_TERM`] and is proposed, or handed on, by the member that leads. What was sent to one is
//! never forwarded anew: its fate is known when it is applied, or not at all. Members say of themselves which they are
//! when they connect.

use bytes::Bytes;

use super::{
    Core,
    queue::{Queued, Source},
};
use crate::{
    node::ProposeError,
    raft::{Role, Standing},
    state::command,
};

/// The term of a forwarded command that may be proposed in every term.
pub const ANY_TERM: u64 = 0;
/// The number of a forwarded command that is not one of this member's own.
const NOT_OWN: u64 = 0;

/// A command for the leader to propose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The leader.
    pub to: u64,
    /// The term in which it leads, and may propose the command; [`ANY_TERM`] if it came from a member of an earlier
    /// build.
    pub term: u64,
    /// The command's number among those of this member's run, to be named in what is said about it.
    pub counter: u64,
    /// The encoded command.
    pub command: Bytes,
}

/// A forwarded command that was not handed to raft and will not be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RefusedForward {
    /// The run of the member that forwarded it, as in the command's request id.
    pub nonce: u64,
    /// Its number there.
    pub counter: u64,
    /// The term that it was forwarded in.
    pub term: u64,
    /// Why.
    pub why: ForwardRefusal,
}

/// Why a forwarded command is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardRefusal {
    /// Too many commands wait at the leader.
    Busy,
    /// The member does not lead in the command's term any more.
    NotLeading,
}

/// Why something of another member is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// An append, because too much of the log is not applied: the leader sends it again.
    Unapplied,
    /// A forwarded command, because too many wait.
    QueueFull,
    /// A forwarded command, because this member does not lead in its term.
    OtherTerm,
    /// A forwarded command, because its client has given up by now.
    Expired,
    /// A command that was to be handed on for a member of an earlier build: there was no way to the leader.
    NoWay,
}

impl DropReason {
    /// All of them, in the order of [`Drops`].
    pub const ALL: [Self; 5] = [Self::Unapplied, Self::QueueFull, Self::OtherTerm, Self::Expired, Self::NoWay];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unapplied => "unapplied",
            Self::QueueFull => "queue_full",
            Self::OtherTerm => "other_term",
            Self::Expired => "expired",
            Self::NoWay => "no_way",
        }
    }
}

/// How often something was dropped, for each [`DropReason`].
pub type Drops = [u64; DropReason::ALL.len()];

/// What a core knows about handing commands on.
#[derive(Debug, Default)]
pub(super) struct Forwarding {
    /// The last term whose leader has said that it leads no more: it is asked nothing more.
    over: u64,
    /// There was no way to the leader: commands wait for the next tick.
    no_way: bool,
    pub(super) drops: Drops,
}

impl Forwarding {
    /// Time has passed, or there is another leader.
    pub(super) fn try_again(&mut self) {
        self.no_way = false;
    }

    pub(super) fn dropped(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }
}

impl<W, R> Core<W, R> {
    /// Takes an encoded command that another member forwarded in `term`; [`ANY_TERM`] if it is of an earlier build. Its
    /// result is learnt there by applying it. If it cannot be proposed, [`Outputs::refusals`](super::Outputs::refusals)
    /// says so, but for one of an earlier build: if that comes too late, after this member led, it waits for the next
    /// leader and is handed on.
    pub fn forwarded(&mut self, term: u64, command: Bytes) {
        if term != ANY_TERM && !self.leads_in(term) {
            return self.turn_down(term, &command, ForwardRefusal::NotLeading);
        }
        if !self.queue.has_room(command.len()) {
            return self.turn_down(term, &command, ForwardRefusal::Busy);
        }
        let until = self.now + self.options.request_ticks;
        self.queue.push(Queued { source: Source::Other { term, until }, command });
    }

    /// Notes that own command `counter` went to a member that may propose it in every term.
    pub fn sent_loosely(&mut self, counter: u64) {
        self.waiters.loose(counter);
    }

    /// Takes back what could not be sent. It waits for the next tick, or another leader.
    pub fn unsent(&mut self, forward: Forward) {
        self.forwarding.no_way = true;
        if forward.counter == NOT_OWN {
            self.forwarding.dropped(DropReason::NoWay);
        } else if self.waiters.take_back(forward.counter, forward.term).is_some() {
            let source = Source::Own { counter: forward.counter };
            self.queue.push_front(Queued { source, command: forward.command });
        }
    }

    /// Hears that the leader has not proposed a command that this member had forwarded, and will not.
    pub fn forward_refused(&mut self, refused: RefusedForward) {
        let RefusedForward { nonce, counter, term, why } = refused;
        // It may be about an earlier run, or come too late.
        if nonce != self.options.nonce {
            return;
        }
        let Some(command) = self.waiters.take_back(counter, term) else { return };
        match why {
            ForwardRefusal::Busy => {
                if let Some(waiter) = self.waiters.take(counter) {
                    self.refuse(waiter, ProposeError::TooManyRequests);
                }
            }
            ForwardRefusal::NotLeading => {
                self.forwarding.over = self.forwarding.over.max(term);
                self.queue.push_front(Queued { source: Source::Own { counter }, command });
            }
        }
    }

    /// Sends what waits to the leader, once one is known that may still lead.
    pub(super) fn forward_queued(&mut self) {
        let Standing { term, leader, .. } = self.standing;
        if leader == 0 || term <= self.forwarding.over || self.forwarding.no_way {
            return;
        }
        while let Some(Queued { source, command }) = self.next_queued() {
            let (counter, term) = match source {
                Source::Own { counter } => {
                    self.waiters.keep(counter, command.clone());
                    (counter, term)
                }
                Source::Other { .. } => (NOT_OWN, ANY_TERM),
            };
            self.out.forwards.push(Forward { to: leader, term, counter, command });
        }
    }

    /// The next command whose result is still waited for. It is given to the leader of this term.
    pub(super) fn next_queued(&mut self) -> Option<Queued> {
        loop {
            let queued = self.queue.pop()?;
            match queued.source {
                Source::Own { counter } if self.waiters.give(counter, self.standing.term) => return Some(queued),
                Source::Own { .. } => {}
                Source::Other { until, .. } if self.now >= until => self.forwarding.dropped(DropReason::Expired),
                Source::Other { term, .. } if term == ANY_TERM || self.leads_in(term) => return Some(queued),
                Source::Other { term, .. } => self.turn_down(term, &queued.command, ForwardRefusal::NotLeading),
            }
        }
    }

    /// This member leads no more: those who forwarded something to it are told at once.
    pub(super) fn turn_down_queued(&mut self) {
        for (term, command) in self.queue.take_of_terms() {
            self.turn_down(term, &command, ForwardRefusal::NotLeading);
        }
    }

    /// An entry of `term` is applied, the first one of it: what was given to the leaders of earlier terms and is not
    /// applied never will be, and waits for its turn again. A change of the membership was allowed as the members were
    /// then, and is not made again.
    pub(super) fn term_applied(&mut self, term: u64) {
        // The oldest comes first again.
        for (counter, command) in self.waiters.given_before(term).into_iter().rev() {
            if let Some(command) = command {
                self.queue.push_front(Queued { source: Source::Own { counter }, command });
            } else if let Some(waiter) = self.waiters.take(counter) {
                self.refuse(waiter, ProposeError::LeaderChanged);
            }
        }
    }

    fn leads_in(&self, term: u64) -> bool {
        self.standing.role == Role::Leader && self.standing.term == term
    }

    fn turn_down(&mut self, term: u64, command: &Bytes, why: ForwardRefusal) {
        self.forwarding.dropped(match why {
            ForwardRefusal::Busy => DropReason::QueueFull,
            ForwardRefusal::NotLeading => DropReason::OtherTerm,
        });
        if term == ANY_TERM {
            return;
        }
        if let Ok(command) = command::decode(command.clone()) {
            let refused = RefusedForward { nonce: command.id.nonce, counter: command.id.counter, term, why };
            self.out.refusals.push((command.id.member, refused));
        }
    }
}

#[cfg(test)]
mod tests;

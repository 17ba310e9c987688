//! Proposals: those that wait for their turn, and those whose result is awaited.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

use bytes::Bytes;

use super::forwards::ANY_TERM;

/// Who asked for a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// This member.
    Own {
        /// The command's number among its own.
        counter: u64,
    },
    /// Another member, which forwarded it.
    Other {
        /// The term in which alone it may be proposed, or [`ANY_TERM`].
        term: u64,
        /// The tick at which nobody there can be waiting any more.
        until: u64,
    },
}

/// A command that is not in the log yet.
#[derive(Debug)]
pub(super) struct Queued {
    /// Who asked for it.
    pub(super) source: Source,
    /// The encoded command.
    pub(super) command: Bytes,
}

/// Commands that are not in the log yet, in order of arrival, bounded.
#[derive(Debug)]
pub(super) struct Queue {
    commands: VecDeque<Queued>,
    bytes: usize,
    count_max: usize,
    bytes_max: usize,
}

impl Queue {
    pub(super) fn new(count_max: usize, bytes_max: usize) -> Self {
        Self { commands: VecDeque::new(), bytes: 0, count_max, bytes_max }
    }

    /// Whether a command of `bytes` may still wait. One is always let in, however large: its size was checked
    /// elsewhere.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.commands.is_empty() || (self.commands.len() < self.count_max && self.bytes + bytes <= self.bytes_max)
    }

    pub(super) fn push(&mut self, queued: Queued) {
        self.bytes += queued.command.len();
        self.commands.push_back(queued);
    }

    pub(super) fn pop(&mut self) -> Option<Queued> {
        let queued = self.commands.pop_front()?;
        self.bytes -= queued.command.len();
        Some(queued)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.commands.is_empty()
    }

    /// Puts a command before all others that was among them before: it had its room then.
    pub(super) fn push_front(&mut self, queued: Queued) {
        self.bytes += queued.command.len();
        self.commands.push_front(queued);
    }

    /// Takes what other members forwarded in some term, with the term.
    pub(super) fn take_of_terms(&mut self) -> Vec<(u64, Bytes)> {
        let mut taken = Vec::new();
        for queued in mem::take(&mut self.commands) {
            match queued.source {
                Source::Other { term, .. } if term != ANY_TERM => {
                    self.bytes -= queued.command.len();
                    taken.push((term, queued.command));
                }
                _ => self.commands.push_back(queued),
            }
        }
        taken
    }
}

/// Where a command is whose result is awaited.
#[derive(Debug)]
enum Place {
    /// It waits in the queue.
    Queued,
    /// The leader of this term has it, which may be this member. With the command, if it can be given to another one.
    Given(u64, Option<Bytes>),
    /// A member has it that may propose it at any time, in whatever term.
    Loose,
}

/// Somebody who waits for a command's result.
#[derive(Debug)]
struct Open<W> {
    waiter: W,
    place: Place,
}

/// Who waits for which command's result.
#[derive(Debug)]
pub(super) struct Waiters<W> {
    open: BTreeMap<u64, Open<W>>,
    /// `(tick, counter)`: at this tick, everybody up to this counter has waited too long.
    deadlines: VecDeque<(u64, u64)>,
}

impl<W> Waiters<W> {
    pub(super) fn new() -> Self {
        Self { open: BTreeMap::new(), deadlines: VecDeque::new() }
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// A command is queued, and its result awaited. Counters rise with time, give or take the order of arrival within a
    /// tick.
    pub(super) fn insert(&mut self, counter: u64, waiter: W, deadline: u64) {
        self.open.insert(counter, Open { waiter, place: Place::Queued });
        match self.deadlines.back_mut() {
            Some((last, up_to)) if *last == deadline => *up_to = counter.max(*up_to),
            _ => self.deadlines.push_back((deadline, counter)),
        }
    }

    pub(super) fn take(&mut self, counter: u64) -> Option<W> {
        self.open.remove(&counter).map(|open| open.waiter)
    }

    /// Notes that the leader of `term` is given a command. Whether its result is still awaited.
    pub(super) fn give(&mut self, counter: u64, term: u64) -> bool {
        let open = self.open.get_mut(&counter);
        open.map(|open| open.place = Place::Given(term, None)).is_some()
    }

    /// Keeps a command that was given to a leader.
    pub(super) fn keep(&mut self, counter: u64, command: Bytes) {
        if let Some(Open { place: Place::Given(_, kept), .. }) = self.open.get_mut(&counter) {
            *kept = Some(command);
        }
    }

    /// Notes that a command that was given to a leader may be proposed in every term.
    pub(super) fn loose(&mut self, counter: u64) {
        if let Some(open) = self.open.get_mut(&counter) {
            open.place = Place::Loose;
        }
    }

    /// Takes a command back, to be queued, that the leader of `term` was given and kept here.
    pub(super) fn take_back(&mut self, counter: u64, term: u64) -> Option<Bytes> {
        let open = self.open.get_mut(&counter)?;
        let Place::Given(given_in, kept) = &mut open.place else { return None };
        let command = kept.take_if(|_| *given_in == term)?;
        open.place = Place::Queued;
        Some(command)
    }

    /// Takes back all commands that leaders of terms before `term` were given, to be queued. Without the command, if it
    /// was not kept.
    pub(super) fn given_before(&mut self, term: u64) -> Vec<(u64, Option<Bytes>)> {
        let take_back = |(&counter, open): (&u64, &mut Open<W>)| {
            let Place::Given(_, command) = mem::replace(&mut open.place, Place::Queued) else { return None };
            Some((counter, command))
        };
        let before = |open: &Open<W>| matches!(open.place, Place::Given(given_in, _) if given_in < term);
        self.open.iter_mut().filter(|(_, open)| before(open)).filter_map(take_back).collect()
    }

    /// Takes those who have waited too long.
    pub(super) fn expired(&mut self, now: u64) -> Vec<W> {
        let mut expired = Vec::new();
        while let Some(&(deadline, up_to)) = self.deadlines.front().filter(|(deadline, _)| *deadline <= now) {
            let later = self.open.split_off(&(up_to + 1));
            let open = mem::replace(&mut self.open, later);
            expired.extend(open.into_values().map(|open| open.waiter));
            debug_assert!(deadline <= now);
            self.deadlines.pop_front();
        }
        expired
    }

    /// Takes those whose commands are not queued: a leader has them.
    pub(super) fn take_given(&mut self) -> Vec<W> {
        let given = |open: &Open<W>| !matches!(open.place, Place::Queued);
        let counters: Vec<u64> =
            self.open.iter().filter(|(_, open)| given(open)).map(|(&counter, _)| counter).collect();
        counters.into_iter().filter_map(|counter| self.take(counter)).collect()
    }

    /// Takes everybody.
    pub(super) fn drain(&mut self) -> Vec<W> {
        self.deadlines.clear();
        mem::take(&mut self.open).into_values().map(|open| open.waiter).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(counter: u64, bytes: usize) -> Queued {
        Queued { source: Source::Own { counter }, command: Bytes::from(vec![0; bytes]) }
    }

    #[test]
    fn the_queue_is_bounded_by_count_and_by_bytes() {
        let mut queue = Queue::new(2, 100);
        assert!(queue.has_room(1000), "one command is always let in");
        queue.push(queued(1, 60));
        assert!(!queue.has_room(41) && queue.has_room(40));
        queue.push(queued(2, 40));
        assert!(!queue.has_room(0));
        queue.pop();
        assert!(queue.has_room(60));
    }

    #[test]
    fn whoever_waits_too_long_is_told_at_the_tick() {
        let mut waiters = Waiters::new();
        for counter in 1..=4 {
            waiters.insert(counter, counter, 10 + counter / 3);
        }
        assert_eq!(waiters.take(1), Some(1));
        assert_eq!(waiters.expired(9), Vec::<u64>::new());
        assert_eq!(waiters.expired(10), [2]);
        assert_eq!(waiters.expired(99), [3, 4]);
        assert_eq!(waiters.len(), 0);
    }

    #[test]
    fn what_a_leader_was_given_is_taken_back_when_a_later_term_begins_and_nothing_else() {
        let mut waiters = Waiters::new();
        for counter in 1..=5 {
            waiters.insert(counter, counter, 5);
        }
        for (counter, term) in [(1, 3), (2, 4), (3, 3), (4, 3)] {
            assert!(waiters.give(counter, term));
        }
        assert!(!waiters.give(9, 3), "its result is not awaited");
        waiters.keep(1, Bytes::from_static(b"one"));
        waiters.loose(4);
        assert_eq!(waiters.given_before(3), []);
        assert_eq!(waiters.given_before(4), [(1, Some(Bytes::from_static(b"one"))), (3, None)]);
        assert_eq!(waiters.given_before(4), [], "once");
        assert_eq!(waiters.take_given(), [2, 4]);
        assert_eq!(waiters.len(), 3, "1 and 3 are queued now, 5 has been all the time");
    }

    #[test]
    fn what_a_leader_was_given_is_taken_back_only_of_its_term() {
        let mut waiters = Waiters::new();
        waiters.insert(1, 'a', 5);
        assert_eq!(waiters.take_back(1, 3), None, "it is queued");
        waiters.give(1, 3);
        waiters.keep(1, Bytes::from_static(b"one"));
        assert_eq!(waiters.take_back(1, 4), None);
        assert_eq!(waiters.take_back(1, 3), Some(Bytes::from_static(b"one")));
        assert_eq!(waiters.take_back(1, 3), None);
    }

    #[test]
    fn what_other_members_forwarded_in_a_term_is_taken_out_of_the_queue() {
        let mut queue = Queue::new(10, 100);
        let other = |term| Queued { source: Source::Other { term, until: 9 }, command: Bytes::from_static(b"xx") };
        queue.push(queued(1, 1));
        queue.push(other(3));
        queue.push(other(ANY_TERM));
        assert_eq!(queue.take_of_terms(), [(3, Bytes::from_static(b"xx"))]);
        assert_eq!((queue.commands.len(), queue.bytes), (2, 3));
    }
}

//! Proposals: those that wait for their turn, and those whose result is awaited.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    mem,
};

use bytes::Bytes;

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

    fn counters(&self) -> HashSet<u64> {
        let own = |queued: &Queued| match queued.source {
            Source::Own { counter } => Some(counter),
            Source::Other { .. } => None,
        };
        self.commands.iter().filter_map(own).collect()
    }
}

/// Somebody who waits for a command's result.
#[derive(Debug)]
struct Open<W> {
    waiter: W,
    /// The term in which this member led and proposed the command, once it leads no more: an applied entry of a later
    /// term then means that the command is not in the log and never will be.
    lost_in: Option<u64>,
    /// The command was sent to another member, which may propose it at any time, in whatever term.
    forwarded: bool,
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

    pub(super) fn contains(&self, counter: u64) -> bool {
        self.open.contains_key(&counter)
    }

    /// Counters rise with time, give or take the order of arrival within a tick.
    pub(super) fn insert(&mut self, counter: u64, waiter: W, deadline: u64) {
        self.open.insert(counter, Open { waiter, lost_in: None, forwarded: false });
        match self.deadlines.back_mut() {
            Some((last, up_to)) if *last == deadline => *up_to = counter.max(*up_to),
            _ => self.deadlines.push_back((deadline, counter)),
        }
    }

    pub(super) fn take(&mut self, counter: u64) -> Option<W> {
        self.open.remove(&counter).map(|open| open.waiter)
    }

    /// Notes that a command was sent to another member.
    pub(super) fn forwarded(&mut self, counter: u64) {
        if let Some(open) = self.open.get_mut(&counter) {
            open.forwarded = true;
        }
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

    /// Notes that the leadership of `term`, in which everything was proposed that is not in `queue` and was not forwarded,
    /// is over.
    pub(super) fn leadership_lost(&mut self, term: u64, queue: &Queue) {
        let queued = queue.counters();
        for (counter, open) in &mut self.open {
            if !open.forwarded && !queued.contains(counter) {
                open.lost_in.get_or_insert(term);
            }
        }
    }

    /// Takes those whose commands an applied entry of `term` has shut out for good.
    pub(super) fn shut_out(&mut self, term: u64) -> Vec<W> {
        let shut = |open: &Open<W>| open.lost_in.is_some_and(|lost_in| lost_in < term);
        let counters: Vec<u64> = self.open.iter().filter(|(_, open)| shut(open)).map(|(&counter, _)| counter).collect();
        counters.into_iter().filter_map(|counter| self.take(counter)).collect()
    }

    /// Takes those whose commands were proposed or sent to a leader: are not in `queue`.
    pub(super) fn take_proposed(&mut self, queue: &Queue) -> Vec<W> {
        let queued = queue.counters();
        let counters: Vec<u64> = self.open.keys().copied().filter(|counter| !queued.contains(counter)).collect();
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
    fn only_what_was_proposed_before_the_loss_is_shut_out_by_a_later_term() {
        let mut waiters = Waiters::new();
        let mut queue = Queue::new(10, 100);
        waiters.insert(1, 'a', 5);
        waiters.insert(2, 'b', 5);
        queue.push(queued(2, 1));
        // It may still wait in another member's queue.
        waiters.insert(3, 'c', 5);
        waiters.forwarded(3);
        waiters.leadership_lost(3, &queue);
        assert_eq!(waiters.shut_out(3), Vec::<char>::new());
        assert_eq!(waiters.shut_out(4), ['a']);
        assert!(waiters.contains(2) && waiters.contains(3));
    }
}

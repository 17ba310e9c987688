//! The simulated clock: what happens when. Time passes only by taking the next event.

use std::collections::BTreeMap;

/// A millisecond, in the clock's microseconds.
pub(super) const MS: u64 = 1000;
/// A second.
pub(super) const SECOND: u64 = 1000 * MS;

/// Events to come, in order of time, and of those at the same time in the order in which they were scheduled.
#[derive(Debug)]
pub(super) struct Clock<E> {
    now: u64,
    scheduled: u64,
    events: BTreeMap<(u64, u64), E>,
}

impl<E> Clock<E> {
    pub(super) fn new() -> Self {
        Self { now: 0, scheduled: 0, events: BTreeMap::new() }
    }

    /// Microseconds since the beginning of the world.
    pub(super) fn now(&self) -> u64 {
        self.now
    }

    /// Lets `event` happen after a time.
    pub(super) fn after(&mut self, delay: u64, event: E) {
        self.at(self.now + delay, event);
    }

    /// Lets `event` happen at a time.
    pub(super) fn at(&mut self, time: u64, event: E) {
        self.scheduled += 1;
        self.events.insert((time.max(self.now), self.scheduled), event);
    }

    /// Goes on to the next event.
    pub(super) fn next(&mut self) -> Option<E> {
        let ((time, _), event) = self.events.pop_first()?;
        self.now = time;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_by_order_of_scheduling() {
        let mut clock = Clock::new();
        clock.after(5, 'b');
        clock.after(5, 'c');
        clock.after(1, 'a');
        assert_eq!((clock.next(), clock.now()), (Some('a'), 1));
        clock.at(0, 'x');
        assert_eq!((clock.next(), clock.now()), (Some('x'), 1), "what is late happens now");
        assert_eq!((clock.next(), clock.next(), clock.now()), (Some('b'), Some('c'), 5));
        assert_eq!(clock.next(), None);
    }
}

//! The window: the most recent changes, in memory, bounded in bytes.
//!
//! Batches come in as they are published and go out at the old end. Events have consecutive numbers, by which queues
//! name them; an event that has gone out has to be read from the store by its revision.

use std::{
    collections::VecDeque,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;

use crate::state::mvcc::{Change, Changes, Pin};

/// Stored values from this size on are kept as they are; smaller ones are copied together, since they may be part of a
/// much larger allocation.
const SHARED_BYTES_MIN: usize = 16 << 10;
/// What an event takes beside its bytes.
const EVENT_BYTES: usize = size_of::<Recent>();

/// An event of the window.
#[derive(Debug)]
pub(super) struct Recent {
    pub(super) change: Change,
    /// The value before, once somebody wanted to know.
    pub(super) previous: OnceLock<Option<Bytes>>,
}

/// What was published together.
#[derive(Debug)]
pub(super) struct Batch {
    /// Number of the first event.
    pub(super) first: u64,
    /// Never empty.
    pub(super) events: Vec<Recent>,
    /// Keeps what was there before, until the events are with their watchers.
    pub(super) pin: Mutex<Option<Pin>>,
    bytes: AtomicUsize,
}

impl Batch {
    fn new(first: u64, changes: Changes) -> Self {
        let small = |change: &&Change| change.stored.len() < SHARED_BYTES_MIN;
        let copied = changes.list.iter().filter(small).map(|change| change.stored.len()).sum();
        let mut copies = BytesMut::with_capacity(copied);
        let mut bytes = 0;
        let events: Vec<Recent> = changes
            .list
            .into_iter()
            .map(|mut change| {
                bytes += change.stored.len() + EVENT_BYTES;
                if small(&&change) {
                    copies.extend_from_slice(&change.stored);
                    change.stored = copies.split().freeze();
                }
                Recent { change, previous: OnceLock::new() }
            })
            .collect();
        Self { first, events, pin: Mutex::new(changes.pin), bytes: AtomicUsize::new(bytes) }
    }

    /// The first and the last revision in it.
    fn revisions(&self) -> (i64, i64) {
        let of = |event: Option<&Recent>| event.map_or(0, |event| event.change.at.main);
        (of(self.events.first()), of(self.events.last()))
    }

    /// Number of the event after the last one.
    pub(super) fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Window {
    batches: VecDeque<Arc<Batch>>,
    bytes: AtomicUsize,
    bytes_max: usize,
    /// Everything after this revision is here.
    floor: i64,
    /// The newest revision here.
    newest: i64,
    next: u64,
    /// Number of the event after the last one that came with a pin.
    pinned: u64,
}

impl Window {
    /// An empty window after `revision`.
    pub(super) fn new(revision: i64, bytes_max: usize) -> Self {
        Self {
            batches: VecDeque::new(),
            bytes: AtomicUsize::new(0),
            bytes_max,
            floor: revision,
            newest: revision,
            next: 0,
            pinned: 0,
        }
    }

    /// Takes what was published. The newest batch is always kept, however large.
    pub(super) fn push(&mut self, changes: Changes) {
        let mut batch = Batch::new(self.next, changes);
        self.next = batch.end();
        if batch.pin.get_mut().is_some() {
            self.pinned = batch.end();
        }
        self.newest = batch.revisions().1;
        *self.bytes.get_mut() += batch.bytes.load(Ordering::Relaxed);
        self.batches.push_back(Arc::new(batch));
        while *self.bytes.get_mut() > self.bytes_max && self.batches.len() > 1 {
            let Some(oldest) = self.batches.pop_front() else { break };
            *self.bytes.get_mut() -= oldest.bytes.load(Ordering::Relaxed);
            self.floor = oldest.revisions().1;
        }
    }

    /// Everything up to `revision` has happened, and what it was is not known here. Whoever has a number of an event finds
    /// that it has gone out.
    pub(super) fn jump(&mut self, revision: i64) {
        self.batches.clear();
        *self.bytes.get_mut() = 0;
        (self.floor, self.newest) = (revision, revision);
        // So that whoever has seen the newest event notices that something is missing.
        self.next += 1;
    }

    /// Notes the value before an event of `batch`.
    pub(super) fn note_previous(&self, batch: &Batch, index: usize, previous: Option<Bytes>) {
        let Some(event) = batch.events.get(index) else { return };
        let bytes = previous.as_ref().map_or(0, Bytes::len);
        // A batch that has gone out meanwhile no longer counts.
        if event.previous.set(previous).is_ok() && self.first() <= batch.first {
            batch.bytes.fetch_add(bytes, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Everything after this revision is here.
    pub(super) fn floor(&self) -> i64 {
        self.floor
    }

    /// The newest revision that came in.
    pub(super) fn newest(&self) -> i64 {
        self.newest
    }

    /// Number of the oldest event here.
    pub(super) fn first(&self) -> u64 {
        self.batches.front().map_or(self.next, |batch| batch.first)
    }

    /// Number of the event that comes next.
    pub(super) fn end(&self) -> u64 {
        self.next
    }

    /// The event with a number: its batch and its place there.
    pub(super) fn event(&self, number: u64) -> Option<(&Arc<Batch>, usize)> {
        let at = self.batches.partition_point(|batch| batch.end() <= number);
        let batch = self.batches.get(at).filter(|batch| batch.first <= number)?;
        Some((batch, (number - batch.first) as usize))
    }

    /// Lets go what batches from event `number` on keep.
    pub(super) fn unpin(&self, number: u64) {
        let mut next = number.max(self.first());
        while next < self.pinned
            && let Some((batch, _)) = self.event(next)
        {
            batch.pin.lock().take();
            next = batch.end();
        }
    }

    /// The events from a revision on, in order. Complete only if the revision is above [`Window::floor`].
    pub(super) fn from(&self, revision: i64) -> impl Iterator<Item = &Recent> {
        let at = self.batches.partition_point(|batch| batch.revisions().1 < revision);
        let within = self
            .batches
            .get(at)
            .map_or(0, |batch| batch.events.partition_point(|event| event.change.at.main < revision));
        self.batches.range(at..).flat_map(|batch| &batch.events).skip(within)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::state::mvcc::revision::Revision;

    fn changes(revisions: &[(i64, u32)], bytes: usize) -> Changes {
        let list = revisions.iter().map(|(main, sub)| Change {
            at: Revision::new(*main, *sub),
            tombstone: false,
            stored: vec![7; bytes].into(),
        });
        Changes { list: list.collect(), pin: None }
    }

    fn revisions(window: &Window, from: i64) -> Vec<i64> {
        window.from(from).map(|event| event.change.at.main).collect()
    }

    #[test]
    fn the_oldest_go_out_when_it_is_full_and_the_newest_stays_however_large() {
        let mut window = Window::new(1, 3 * (100 + EVENT_BYTES));
        for revision in 2..=6 {
            window.push(changes(&[(revision, 0)], 100));
        }
        assert_eq!((window.floor(), window.newest()), (3, 6));
        assert_eq!(revisions(&window, 4), [4, 5, 6]);
        assert!(window.event(1).is_none());
        assert_eq!(window.event(2).map(|(batch, at)| batch.events[at].change.at.main), Some(4));
        window.push(changes(&[(7, 0), (7, 1)], 100_000));
        assert_eq!((window.floor(), revisions(&window, 0)), (6, vec![7, 7]));
    }

    #[test]
    fn noted_previous_values_count() {
        let mut window = Window::new(1, 10_000);
        window.push(changes(&[(2, 0)], 10));
        let (batch, at) = window.event(0).map(|(batch, at)| (batch.clone(), at)).unwrap();
        window.note_previous(&batch, at, Some(vec![1; 20_000].into()));
        window.note_previous(&batch, at, Some(vec![1; 20_000].into()));
        assert!(*window.bytes.get_mut() < 30_000);
        window.push(changes(&[(3, 0)], 10));
        assert_eq!(window.floor(), 2);
        assert_eq!(*window.bytes.get_mut(), 10 + EVENT_BYTES);
        window.note_previous(&batch, at, None);
        assert_eq!(*window.bytes.get_mut(), 10 + EVENT_BYTES);
    }

    #[test]
    fn after_a_jump_all_is_gone_and_the_next_event_is_not_the_one_after_the_last() {
        let mut window = Window::new(1, 10_000);
        window.push(changes(&[(2, 0)], 10));
        let seen = window.end();
        window.jump(50);
        assert_eq!((window.floor(), window.newest(), revisions(&window, 0)), (50, 50, vec![]));
        assert!(window.event(0).is_none() && window.event(seen).is_none() && window.first() > seen);
        window.push(changes(&[(51, 0)], 10));
        assert_eq!(revisions(&window, 0), [51]);
        assert_eq!(*window.bytes.get_mut(), 10 + EVENT_BYTES);
    }

    proptest! {
        #[test]
        fn it_holds_a_suffix_of_history(batches in vec(vec(1..4u32, 1..4), 0..12), max in 0..3000usize, large: bool) {
            let mut window = Window::new(1, max);
            let (mut all, mut main) = (vec![], 1);
            for batch in batches {
                let mut list = vec![];
                for subs in batch {
                    main += 1;
                    list.extend((0..subs).map(|sub| (main, sub)));
                }
                window.push(changes(&list, if large { SHARED_BYTES_MIN } else { 50 }));
                all.extend(list);
            }
            let floor = window.floor();
            for from in 0..=main + 1 {
                let expected = all.iter().map(|(main, _)| *main).filter(|main| *main > floor && *main >= from);
                prop_assert_eq!(revisions(&window, from), expected.collect::<Vec<_>>());
            }
            for (number, (main, _)) in all.iter().enumerate() {
                let found = window.event(number as u64).map(|(batch, at)| batch.events[at].change.at.main);
                prop_assert_eq!(found, (*main > floor).then_some(*main));
            }
            prop_assert_eq!(window.end(), all.len() as u64);
        }
    }
}

//! The revisions of one key.
//!
//! Most keys have one life and, after compaction, one revision: that one sits in the tree's slot with everything a compare needs. What few keys have hangs
//! behind one pointer: a lease, and older revisions, oldest first. A tombstone is an event like the others and ends a life (etcd: a generation).
//!
//! ```text
//! put 2, put 5, delete 7, put 9:   newest = put 9 (created 9, version 1)
//!                                  older  = [put 2 (c2 v1), put 5 (c2 v2), tombstone 7]
//! ```
//!
//! Within a life versions rise by one per event, also after compaction, because compaction only cuts at the old end. [`Old`] relies on that for versions
//! that do not fit its 32 bits.

use std::collections::VecDeque;

use super::{KeyMeta, Revision};

/// One change of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Event {
    pub at: Revision,
    pub kind: Kind,
}

/// What a change did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Put { created: i64, version: i64 },
    Tombstone,
}

#[cfg(test)]
impl Event {
    pub fn is_tombstone(self) -> bool {
        self.kind == Kind::Tombstone
    }
}

/// An event that is not the newest of its key, in 24 bytes.
#[derive(Debug, Clone, Copy)]
struct Old {
    main: i64,
    /// Of a put: the life's first revision. Of a tombstone: the version of the value it ended, 0 if unknown.
    created: i64,
    sub: u32,
    /// 0 for a tombstone, [`WIDE`] for a version that must be computed from its neighbours.
    version: u32,
}

/// Marks a version that does not fit.
const WIDE: u32 = u32::MAX;

impl Old {
    fn at(self) -> Revision {
        Revision::new(self.main, self.sub)
    }

    fn is_tombstone(self) -> bool {
        self.version == 0
    }
}

/// What most keys do not have.
#[derive(Debug, Clone, Default)]
struct More {
    /// Of the newest value; 0 for none.
    lease: i64,
    /// Of the newest value if it is [`WIDE`].
    version: i64,
    /// Everything before the newest event, oldest first.
    older: VecDeque<Old>,
}

/// All known revisions of a key; never empty.
#[derive(Debug, Clone)]
pub(super) struct History {
    main: i64,
    /// As in [`Old`].
    created: i64,
    more: Option<Box<More>>,
    sub: u32,
    /// As in [`Old`], but that a wide one is in `more`.
    version: u32,
}

const _: () = assert!(size_of::<History>() == 32, "the index counts on small histories");

/// What [`History::compact`] left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compacted {
    /// Revisions remain, and all that had to go went.
    Kept,
    /// Nothing remains: the key is to be removed.
    Empty,
    /// The allowance ran out before the work.
    Unfinished,
}

impl History {
    /// A key with one event.
    pub fn new(event: Event, lease: i64) -> Self {
        let mut history = Self { main: 0, created: 0, more: None, sub: 0, version: 0 };
        history.set_newest(event, lease);
        history
    }

    fn set_newest(&mut self, event: Event, lease: i64) {
        // A tombstone remembers the version it ended; `self` still is the event before it.
        let ended = self.version();
        (self.main, self.sub) = (event.at.main, event.at.sub);
        let (created, version, lease) = match event.kind {
            Kind::Put { created, version } => (created, version, lease),
            Kind::Tombstone => (ended, 0, 0),
        };
        self.created = created;
        self.version = u32::try_from(version).unwrap_or(WIDE);
        let wide = if self.version == WIDE { version } else { 0 };
        if wide != 0 || lease != 0 {
            let more = self.more.get_or_insert_default();
            (more.version, more.lease) = (wide, lease);
        } else if let Some(more) = &mut self.more {
            (more.version, more.lease) = (0, 0);
            self.drop_empty();
        }
    }

    /// Gives the memory of `more` back if nothing is in it.
    fn drop_empty(&mut self) {
        if self.more.as_ref().is_some_and(|more| more.lease == 0 && more.version == 0 && more.older.is_empty()) {
            self.more = None;
        }
    }

    /// The version of the newest value, 0 for a tombstone.
    fn version(&self) -> i64 {
        match self.version {
            WIDE => self.more.as_ref().map_or(0, |more| more.version),
            version => i64::from(version),
        }
    }

    fn older(&self) -> Option<&VecDeque<Old>> {
        self.more.as_deref().map(|more| &more.older).filter(|older| !older.is_empty())
    }

    /// The revision of the newest event.
    pub fn newest_at(&self) -> Revision {
        Revision::new(self.main, self.sub)
    }

    /// Whether the newest event is a value.
    pub fn is_live(&self) -> bool {
        self.version != 0
    }

    /// The newest value; `None` after a delete.
    pub fn newest(&self) -> Option<KeyMeta> {
        self.is_live().then(|| KeyMeta {
            modified: self.newest_at(),
            created: self.created,
            version: self.version(),
            lease: self.lease(),
        })
    }

    /// The value visible at `at`. Only the newest value has its lease.
    pub fn at(&self, at: Revision) -> Option<KeyMeta> {
        if self.newest_at() <= at {
            return self.newest();
        }
        let older = self.older()?;
        let place = older.partition_point(|event| event.at() <= at).checked_sub(1)?;
        match self.older_event(older, place).kind {
            Kind::Put { created, version } => Some(KeyMeta { modified: older[place].at(), created, version, lease: 0 }),
            Kind::Tombstone => None,
        }
    }

    /// Whether there is a value visible at `at`.
    pub fn is_live_at(&self, at: Revision) -> bool {
        if self.newest_at() <= at {
            return self.is_live();
        }
        self.older().is_some_and(|older| {
            let place = older.partition_point(|event| event.at() <= at);
            place.checked_sub(1).is_some_and(|place| !older[place].is_tombstone())
        })
    }

    /// The main revision of the oldest known event.
    pub fn oldest(&self) -> i64 {
        self.older().and_then(VecDeque::front).map_or(self.main, |old| old.main)
    }

    /// The main revision since which the key has been what it is now: alive, or dead.
    pub fn turned(&self) -> i64 {
        // A life may be known from later on than its beginning.
        if self.is_live() { self.created.max(self.oldest()) } else { self.main }
    }

    fn older_event(&self, older: &VecDeque<Old>, place: usize) -> Event {
        let old = older[place];
        let kind = match old.version {
            0 => Kind::Tombstone,
            WIDE => Kind::Put { created: old.created, version: self.wide_version(older, place) },
            version => Kind::Put { created: old.created, version: i64::from(version) },
        };
        Event { at: old.at(), kind }
    }

    /// Counts back from the end of the life, whose version is stored whole.
    fn wide_version(&self, older: &VecDeque<Old>, place: usize) -> i64 {
        let after = older.range(place + 1..);
        let steps = after.clone().take_while(|event| !event.is_tombstone()).count();
        let last = match older.get(place + 1 + steps) {
            Some(tombstone) => tombstone.created,
            None if self.is_live() => return (self.version() - 1 - steps as i64).max(1),
            None => self.created,
        };
        (last - steps as i64).max(1)
    }

    /// Adds an event newer than all others.
    pub fn push(&mut self, event: Event, lease: i64) {
        debug_assert!(event.at > self.newest_at(), "{event:?} is not newer than {:?}", self.newest_at());
        let old = Old { main: self.main, created: self.created, sub: self.sub, version: self.version };
        self.more.get_or_insert_default().older.push_back(old);
        self.set_newest(event, lease);
    }

    /// Adds an event wherever it belongs; does nothing if it is known.
    pub fn insert(&mut self, event: Event, lease: i64) {
        if event.at > self.newest_at() {
            return self.push(event, lease);
        }
        if event.at == self.newest_at() {
            return;
        }
        let older = &mut self.more.get_or_insert_default().older;
        let place = older.partition_point(|old| old.at() < event.at);
        if older.get(place).is_some_and(|old| old.at() == event.at) {
            return;
        }
        let (created, version) = match event.kind {
            Kind::Put { created, version } => (created, u32::try_from(version).unwrap_or(WIDE)),
            Kind::Tombstone => (0, 0),
        };
        older.insert(place, Old { main: event.at.main, created, sub: event.at.sub, version });
    }

    /// Events in order.
    pub fn events(&self) -> impl Iterator<Item = Event> + '_ {
        let older =
            self.older().into_iter().flat_map(|older| (0..older.len()).map(|place| self.older_event(older, place)));
        older.chain(std::iter::once(self.newest_event()))
    }

    /// Events behind `after`, or all, in order.
    pub fn events_after(&self, after: Option<Revision>) -> impl Iterator<Item = Event> + '_ {
        let skip = after.and_then(|after| Some(self.older()?.partition_point(|old| old.at() <= after))).unwrap_or(0);
        let older = self
            .older()
            .into_iter()
            .flat_map(move |older| (skip..older.len()).map(move |place| self.older_event(older, place)));
        older.chain((after < Some(self.newest_at())).then(|| self.newest_event()))
    }

    fn newest_event(&self) -> Event {
        let kind =
            if self.is_live() { Kind::Put { created: self.created, version: self.version() } } else { Kind::Tombstone };
        Event { at: self.newest_at(), kind }
    }

    /// How many events are known.
    pub fn len(&self) -> usize {
        self.older().map_or(0, VecDeque::len) + 1
    }

    /// The lease of the newest value.
    pub fn lease(&self) -> i64 {
        self.more.as_ref().map_or(0, |more| more.lease)
    }

    /// How many of the oldest events compaction to `c` removes.
    ///
    /// Kept is the newest event at or before `c` with everything after it, except that a tombstone before `c` goes too: nobody reads there any more. A
    /// tombstone at exactly `c` stays, because a watch may start at `c`, and with it whatever followed it within that revision.
    fn superseded(&self, c: i64) -> usize {
        let Some(older) = self.older() else {
            return usize::from(self.main < c && !self.is_live());
        };
        let event = |place: usize| match older.get(place) {
            Some(old) => (old.main, old.is_tombstone()),
            None => (self.main, !self.is_live()),
        };
        let seen = if self.main <= c { older.len() + 1 } else { older.partition_point(|old| old.main <= c) };
        if seen == 0 {
            return 0;
        }
        let mut first_at_c = seen;
        while first_at_c > 0 && event(first_at_c - 1).0 == c {
            first_at_c -= 1;
        }
        if let Some(tombstone) = (first_at_c..seen).find(|place| event(*place).1) {
            return tombstone;
        }
        if event(seen - 1).1 { seen } else { seen - 1 }
    }

    /// Whether compaction to `c` keeps the event at `at`.
    pub fn survives(&self, at: Revision, c: i64) -> bool {
        self.events().skip(self.superseded(c)).any(|event| event.at == at)
    }

    /// The events at or before `c` that compaction to `c` keeps.
    pub fn survivors(&self, c: i64) -> impl Iterator<Item = Event> + '_ {
        self.events().skip(self.superseded(c)).take_while(move |event| event.at.main <= c)
    }

    /// Removes what compaction to `c` removes, at most `allowance` events, which it lowers; tells each removed event (and whether it is a tombstone).
    pub fn compact(&mut self, c: i64, allowance: &mut usize, removed: &mut Vec<(Revision, bool)>) -> Compacted {
        let superseded = self.superseded(c);
        if superseded == 0 {
            return Compacted::Kept;
        }
        let go = superseded.min(*allowance);
        *allowance -= go;
        let mut from_older = 0;
        if let Some(More { older, .. }) = self.more.as_deref_mut() {
            from_older = go.min(older.len());
            removed.extend(older.drain(..from_older).map(|old| (old.at(), old.is_tombstone())));
            if older.capacity() > 4 * older.len() {
                older.shrink_to_fit();
            }
        }
        self.drop_empty();
        if go < superseded {
            return Compacted::Unfinished;
        }
        if from_older < go {
            removed.push((self.newest_at(), !self.is_live()));
            return Compacted::Empty;
        }
        Compacted::Kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(main: i64, sub: u32, created: i64, version: i64) -> Event {
        Event { at: Revision::new(main, sub), kind: Kind::Put { created, version } }
    }

    fn tombstone(main: i64, sub: u32) -> Event {
        Event { at: Revision::new(main, sub), kind: Kind::Tombstone }
    }

    fn history(events: &[Event]) -> History {
        let mut history = History::new(events[0], 0);
        for event in &events[1..] {
            history.push(*event, 0);
        }
        history
    }

    fn after(mut history: History, c: i64) -> Vec<Event> {
        let mut removed = Vec::new();
        let before: Vec<_> = history.events().collect();
        let compacted = history.compact(c, &mut usize::MAX.clone(), &mut removed);
        let gone: Vec<_> = before.iter().take(removed.len()).map(|event| (event.at, event.is_tombstone())).collect();
        assert_eq!(gone, removed, "what goes is the oldest");
        if compacted == Compacted::Empty { Vec::new() } else { history.events().collect() }
    }

    /// The example in etcd's key index: put 1, put 2, delete 3, put 4, delete 5.
    #[test]
    fn compaction_follows_etcds_example() {
        let events = [put(1, 0, 1, 1), put(2, 0, 1, 2), tombstone(3, 0), put(4, 0, 4, 1), tombstone(5, 0)];
        let kept = |c| after(history(&events), c);
        assert_eq!(kept(1), events[..]);
        assert_eq!(kept(2), events[1..]);
        assert_eq!(kept(3), events[2..], "a tombstone at exactly the compacted revision stays");
        assert_eq!(kept(4), events[3..]);
        assert_eq!(kept(5), events[4..]);
        assert_eq!(kept(6), []);
    }

    #[test]
    fn a_key_deleted_and_created_again_in_one_revision_survives_compaction_to_it() {
        let events = [put(2, 0, 2, 1), tombstone(5, 0), put(5, 1, 5, 1)];
        assert_eq!(after(history(&events), 5), events[1..]);
        assert_eq!(after(history(&events), 6), events[2..]);
        let again = [put(2, 0, 2, 1), tombstone(5, 0), put(5, 1, 5, 1), tombstone(5, 2)];
        assert_eq!(after(history(&again), 5), again[1..]);
        assert_eq!(after(history(&again), 6), []);
    }

    #[test]
    fn compaction_in_small_steps_ends_where_one_step_does() {
        let events: Vec<_> = (1..=100).map(|main| put(main, 0, 1, main)).collect();
        let mut history = history(&events);
        let mut removed = Vec::new();
        let mut steps = 0;
        while history.compact(60, &mut 7, &mut removed) == Compacted::Unfinished {
            steps += 1;
        }
        assert_eq!(steps, 59 / 7);
        assert_eq!(removed.len(), 59);
        assert_eq!(history.events().collect::<Vec<_>>(), events[59..]);
    }

    #[test]
    fn versions_beyond_32_bits_are_exact_in_old_revisions() {
        let base = i64::from(u32::MAX) + 10;
        let mut history = history(&[put(10, 0, 3, base), put(11, 0, 3, base + 1), put(12, 0, 3, base + 2)]);
        let version = |history: &History, main| history.at(Revision::whole(main)).unwrap().version;
        assert_eq!([10, 11, 12].map(|main| version(&history, main)), [base, base + 1, base + 2]);
        history.push(tombstone(13, 0), 0);
        assert_eq!([10, 11, 12].map(|main| version(&history, main)), [base, base + 1, base + 2]);
        history.push(put(14, 0, 14, 1), 0);
        assert_eq!([10, 11, 12, 14].map(|main| version(&history, main)), [base, base + 1, base + 2, 1]);
    }

    #[test]
    fn known_events_are_not_added_again() {
        let events = [put(1, 0, 1, 1), put(2, 0, 1, 2), tombstone(3, 0), put(4, 0, 4, 1)];
        let mut known = history(&events);
        for event in events {
            known.insert(event, 0);
        }
        assert_eq!(known.events().collect::<Vec<_>>(), events);
        let mut backwards = History::new(events[3], 7);
        for event in events[..3].iter().rev() {
            backwards.insert(*event, 0);
        }
        assert_eq!(backwards.events().collect::<Vec<_>>(), events);
        assert_eq!(backwards.lease(), 7);
    }
}

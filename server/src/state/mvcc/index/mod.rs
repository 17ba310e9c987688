//! The key index: which revisions every key has, in memory and in key order.
//!
//! It answers compares, existence, keys-only listings and counts without touching the store. Weights in the tree count live keys, so that a count over
//! any range at the newest revision costs O(log n); at an older one they are corrected by what came to life and died since.
//!
//! What may call it: the rest of `mvcc/`, through one `RwLock<Index>`. Apply writes as it evaluates commands, so the index runs ahead of the published
//! revision; every read names the revision it wants and never sees beyond it. To keep read sections short, whatever can be long takes an allowance and
//! tells where to go on: [`Index::visit`], [`Index::count_step`], [`Index::compact_step`]. Between two steps anything may happen to the index, except
//! compaction beyond the revision being read, which the reader's pin prevents.
//!
//! The one invariant: the index holds exactly the events that [`Table::Rev`](crate::store::Table::Rev) holds up to the newest applied revision (minus
//! what a running compaction has already dropped here and not yet there).
//!
//! ```text
//! tree        key -> history, counted B+-tree                  turns      births and deaths of keys, for counts in the past
//! node, keys  its nodes, and the keys in them                  history    the revisions of one key, compaction's rule
//! builder     a tree from keys in order                        image      the file that spares the next start a scan of all values
//! ```

use std::{borrow::Cow, ops::ControlFlow};

use bytes::Bytes;

use super::revision::Revision;

mod builder;
mod history;
pub mod image;
mod keys;
mod node;
mod tree;
mod turns;

use history::{Compacted, Event, History, Kind};
use tree::{Sweep, Tree};

/// What the index knows of one key as seen at some revision. Only live keys have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyMeta {
    /// The revision at which the value was written (its `Table::Rev` key).
    pub modified: Revision,
    /// The main revision at which this life of the key began.
    pub created: i64,
    /// Writes since then, from 1.
    pub version: i64,
    /// The attached lease of the newest value, 0 for none. Only right for the newest value of a key; for older ones read the value.
    pub lease: i64,
}

/// Where a range ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeEnd {
    /// Only the start key itself.
    Single,
    /// Before this key.
    Before(Bytes),
    /// At the end of the key space.
    Unbounded,
}

impl RangeEnd {
    /// Whether the range from `from` to this end holds `key`.
    pub fn contains(&self, from: &[u8], key: &[u8]) -> bool {
        match self {
            Self::Single => key == from,
            Self::Before(end) => from <= key && key < &end[..],
            Self::Unbounded => from <= key,
        }
    }

    /// The key before which a range that is not of a single key ends.
    fn bound(&self) -> Option<&[u8]> {
        match self {
            Self::Before(end) => Some(end),
            Self::Single | Self::Unbounded => None,
        }
    }

    /// Whether `key`, which is not before the start of the range, is behind its end.
    fn is_before(&self, from: &[u8], key: &[u8]) -> bool {
        match self {
            Self::Single => key != from,
            Self::Before(end) => key >= &end[..],
            Self::Unbounded => false,
        }
    }
}

/// What a put found and left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The key's new value.
    pub meta: KeyMeta,
    /// The value it replaced.
    pub previous: Option<KeyMeta>,
}

/// How a bounded walk ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Visited {
    /// The range is done.
    Finished,
    /// The visitor broke.
    Stopped,
    /// The allowance is used up; the walk goes on at this key.
    More(Bytes),
}

/// Sizes of an [`Index`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexStats {
    /// Keys with a value at the newest revision.
    pub live_keys: u64,
    /// Keys with any known revision.
    pub keys: u64,
}

/// The key index.
#[derive(Debug, Default)]
pub struct Index {
    tree: Tree,
    newest: Revision,
}

/// The changes of a few keys.
#[derive(Debug, PartialEq, Eq)]
pub struct FewChanges {
    /// Where in history they stand, in order, and whether they are deletes.
    pub list: Vec<(Revision, bool)>,
    /// The first revision that was not looked at.
    pub next: i64,
}

impl Index {
    /// Records a put. Revisions must rise from call to call (of this and [`Index::delete`]).
    pub fn put(&mut self, key: &[u8], at: Revision, lease: i64) -> Written {
        debug_assert!(at > self.newest, "{at:?} does not follow {:?}", self.newest);
        self.newest = at;
        self.tree.edit(key, |history| {
            let previous = history.as_deref().and_then(History::newest);
            let (created, version) =
                previous.map_or((at.main, 1), |previous| (previous.created, previous.version.saturating_add(1)));
            let event = Event { at, kind: Kind::Put { created, version } };
            let written = Written { meta: KeyMeta { modified: at, created, version, lease }, previous };
            match history {
                Some(history) => {
                    history.push(event, lease);
                    (None, written)
                }
                None => (Some(History::new(event, lease)), written),
            }
        })
    }

    /// Records a delete and answers the value it ended; does nothing and answers `None` if there is no live key.
    pub fn delete(&mut self, key: &[u8], at: Revision) -> Option<KeyMeta> {
        debug_assert!(at > self.newest, "{at:?} does not follow {:?}", self.newest);
        let previous = self.tree.edit(key, |history| {
            let Some(history) = history else { return (None, None) };
            let previous = history.newest();
            if previous.is_some() {
                history.push(Event { at, kind: Kind::Tombstone }, 0);
            }
            (None, previous)
        })?;
        self.newest = at;
        Some(previous)
    }

    /// Makes a stored value known, with its own create revision, version and lease; does nothing if it is. Order does not matter.
    pub fn restore_put(&mut self, key: &[u8], at: Revision, created: i64, version: i64, lease: i64) {
        // A stored version below 1 would read as a tombstone.
        self.restore(key, Event { at, kind: Kind::Put { created, version: version.max(1) } }, lease);
    }

    /// Makes a stored tombstone known; does nothing if it is. Order does not matter.
    pub fn restore_delete(&mut self, key: &[u8], at: Revision) {
        self.restore(key, Event { at, kind: Kind::Tombstone }, 0);
    }

    fn restore(&mut self, key: &[u8], event: Event, lease: i64) {
        self.tree.edit(key, |history| match history {
            Some(history) => {
                history.insert(event, lease);
                (None, ())
            }
            None => (Some(History::new(event, lease)), ()),
        });
        self.newest = self.newest.max(event.at);
    }

    /// The newest revision that was written or restored.
    pub fn newest(&self) -> Revision {
        self.newest
    }

    /// The value of `key` visible at `at`.
    pub fn get(&self, key: &[u8], at: Revision) -> Option<KeyMeta> {
        self.tree.get(key)?.at(at)
    }

    /// Visits the keys that live at `at`, in order, until the visitor breaks or about `allowance` keys were examined. Dead keys on the way count as
    /// examined, so a step is short whatever it meets.
    pub fn visit(
        &self,
        from: &[u8],
        end: &RangeEnd,
        at: Revision,
        allowance: usize,
        visit: &mut dyn FnMut(&[u8], KeyMeta) -> ControlFlow<()>,
    ) -> Visited {
        if *end == RangeEnd::Single {
            return match self.get(from, at) {
                Some(meta) if visit(from, meta).is_break() => Visited::Stopped,
                _ => Visited::Finished,
            };
        }
        let mut left = allowance.max(1);
        let mut visited = Visited::Finished;
        self.tree.walk(from, at >= self.newest, &mut |key, history| {
            if end.is_before(from, key) {
                return false;
            }
            if left == 0 {
                visited = Visited::More(Bytes::copy_from_slice(key));
                return false;
            }
            left -= 1;
            if let Some(meta) = history.at(at)
                && visit(key, meta).is_break()
            {
                visited = Visited::Stopped;
                return false;
            }
            true
        });
        visited
    }

    /// What happened to the keys of a range from main revision `since` to `until`, both included, if there are no more than `keys_max` keys and `changes_max`
    /// changes; of a single key, as many as that, the oldest first. Revisions are whole.
    pub fn few_changes(
        &self,
        (from, end): (&[u8], &RangeEnd),
        (since, until): (i64, i64),
        keys_max: usize,
        changes_max: usize,
    ) -> Option<FewChanges> {
        let mut few = FewChanges { list: Vec::new(), next: until + 1 };
        let before = (since > 0).then(|| Revision::whole(since - 1));
        let mut add = |history: &History| {
            for event in history.events_after(before).take_while(|event| event.at.main <= until) {
                if few.list.len() == changes_max {
                    few.next = event.at.main;
                    return false;
                }
                few.list.push((event.at, event.kind == Kind::Tombstone));
            }
            true
        };
        if *end == RangeEnd::Single {
            if !self.tree.get(from).is_none_or(&mut add) {
                let next = few.next;
                few.list.retain(|(at, _)| at.main < next);
            }
            return Some(few);
        }
        let (mut keys, mut all) = (0, true);
        self.tree.walk(from, false, &mut |key, history| {
            if end.is_before(from, key) {
                return false;
            }
            keys += 1;
            all = keys <= keys_max && add(history);
            all
        });
        few.list.sort_unstable();
        all.then_some(few)
    }

    /// How many keys of the range live at the newest revision, whether published or not.
    pub fn count_newest(&self, from: &[u8], end: &RangeEnd) -> u64 {
        let until = match end {
            RangeEnd::Single => return u64::from(self.tree.get(from).is_some_and(History::is_live)),
            RangeEnd::Before(end) => self.tree.rank(end),
            RangeEnd::Unbounded => self.tree.live(),
        };
        until.saturating_sub(self.tree.rank(from))
    }

    /// Works on a count, examining about `max_keys` keys one by one; the count when it is done.
    pub fn count_step(&self, counting: &mut Counting<'_>, max_keys: usize) -> Option<u64> {
        let Counting { from, end, at, total } = counting;
        if **end == RangeEnd::Single {
            return Some(u64::from(self.get(from, *at).is_some()));
        }
        if *at >= self.newest {
            return Some(*total + self.count_newest(from, end));
        }
        let (count, more) = self.tree.count_at(from, end.bound(), *at, max_keys);
        *total += count;
        match more {
            Some(key) => {
                *from = key.into();
                None
            }
            None => Some(*total),
        }
    }

    /// One step of the compaction to main revision `c`: removes what no reader at `c` or later can see, from up to about `max_keys` keys and at most
    /// `max_removed` revisions, and tells the removed revisions (and whether each is a tombstone) for the store. Answers the key to go on with.
    ///
    /// The caller has made sure that nobody reads below `c`, removes from the store what is told here, and does not write an image meanwhile.
    pub fn compact_step(
        &mut self,
        c: i64,
        from: &[u8],
        max_keys: usize,
        max_removed: usize,
        removed: &mut Vec<(Revision, bool)>,
    ) -> Option<Bytes> {
        let mut allowance = max_removed.max(1);
        self.tree.sweep(from, c, max_keys.max(1), &mut |history| {
            if allowance == 0 {
                return Sweep::Stop;
            }
            match history.compact(c, &mut allowance, removed) {
                Compacted::Kept => Sweep::Keep,
                Compacted::Empty => Sweep::Remove,
                Compacted::Unfinished => Sweep::Stop,
            }
        })
    }

    /// Whether compaction to `c` keeps the event of `key` at `at` (which may be a tombstone).
    pub fn survives(&self, key: &[u8], at: Revision, c: i64) -> bool {
        self.tree.get(key).is_some_and(|history| history.survives(at, c))
    }

    /// Tells the revisions at or before `c` that compaction to `c` keeps, of about `max_keys` keys from `from` on. Answers the key to go on with.
    pub fn survivors_step(
        &self,
        c: i64,
        from: &[u8],
        max_keys: usize,
        survivor: &mut dyn FnMut(Revision),
    ) -> Option<Bytes> {
        let mut left = max_keys.max(1);
        let mut next = None;
        self.tree.walk(from, false, &mut |key, history| {
            if left == 0 {
                next = Some(Bytes::copy_from_slice(key));
                return false;
            }
            left -= 1;
            history.survivors(c).for_each(|event| survivor(event.at));
            true
        });
        next
    }

    /// Tells the revisions that a hash at main revision `at` takes into account even if they are compacted: etcd's keep-set, which is the value of each
    /// key that lives at `at`. (etcd 3.7.1 leaves out a key deleted and created again within `at` itself; 3.5 does not, and neither do we.)
    pub fn keep_step(&self, at: i64, from: &[u8], max_keys: usize, keep: &mut dyn FnMut(Revision)) -> Option<Bytes> {
        let visited = self.visit(from, &RangeEnd::Unbounded, Revision::whole(at), max_keys, &mut |_, meta| {
            keep(meta.modified);
            ControlFlow::Continue(())
        });
        match visited {
            Visited::More(key) => Some(key),
            Visited::Finished | Visited::Stopped => None,
        }
    }

    /// Sizes, for metrics.
    pub fn stats(&self) -> IndexStats {
        IndexStats { live_keys: self.tree.live(), keys: self.tree.len() as u64 }
    }
}

/// A count in pieces, by [`Index::count_step`].
#[derive(Debug)]
pub struct Counting<'a> {
    /// Where the part that is not counted yet begins.
    from: Cow<'a, [u8]>,
    end: &'a RangeEnd,
    at: Revision,
    /// Keys counted so far.
    total: u64,
}

impl<'a> Counting<'a> {
    /// Will count the keys of the range that live at `at`.
    pub fn new(from: &'a [u8], end: &'a RangeEnd, at: Revision) -> Self {
        Self { from: from.into(), end, at, total: 0 }
    }
}

/// A key, its lease, and its events as revision, create revision and version, which are 0 for a tombstone.
#[cfg(test)]
pub(in crate::state) type Dumped = (Bytes, i64, Vec<(Revision, i64, i64)>);

#[cfg(test)]
impl Index {
    /// Everything.
    pub(in crate::state) fn dump(&self) -> Vec<Dumped> {
        let mut all = Vec::new();
        self.tree.walk(b"", false, &mut |key, history| {
            let events = history.events().map(|event| match event.kind {
                Kind::Put { created, version } => (event.at, created, version),
                Kind::Tombstone => (event.at, 0, 0),
            });
            all.push((Bytes::copy_from_slice(key), history.lease(), events.collect()));
            true
        });
        all
    }
}

#[cfg(test)]
mod tests;

//! Changes: what watchers are told. Handed over as a batch is published, and read again from the store by revision.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{
    Pin, ReadError, Reader,
    index::{FewChanges, RangeEnd},
    revision::Revision,
    value::{self, Outline},
    view::View,
};
use crate::store::Table;

/// One change of one key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Where in history it stands.
    pub at: Revision,
    /// Whether the key was deleted.
    pub tombstone: bool,
    /// The encoded `mvccpb.KeyValue` after the change; of a delete it holds only the key.
    pub stored: Bytes,
}

impl Change {
    /// The key. Empty if the stored bytes are damaged, which no key is.
    pub fn key(&self) -> &[u8] {
        value::key_of(&self.stored).unwrap_or_default()
    }

    /// Whether the key was not there right before the change, as far as the change itself tells: a put that began a
    /// life of the key.
    pub fn creates(&self) -> bool {
        !self.tombstone && Outline::of(&self.stored).is_some_and(|outline| outline.created == self.at.main)
    }
}

/// Everything that one batch changed.
#[derive(Debug)]
pub struct Changes {
    /// In the order of history; at least one.
    pub list: Vec<Change>,
    /// Keeps what was there before the batch, if it was asked for.
    pub pin: Option<Pin>,
}

/// Told of every published change, in order, from the thread that applies: must neither block nor take long.
pub trait ChangeSink: Send + Sync {
    /// Whether the state before the next batch is to be kept readable.
    fn needs_previous(&self) -> bool;

    /// What was just published.
    fn changed(&self, changes: Changes);

    /// A snapshot took the state's place: everything up to `revision` is published, and only the store tells what it was.
    fn jumped(&self, revision: i64);

    /// Users or roles were changed. Nothing that is applied later is published before this.
    fn permissions_changed(&self);
}

/// A stretch of history.
#[derive(Debug)]
pub struct History {
    /// The changes that were wanted, whole revisions, in order.
    pub changes: Vec<Change>,
    /// The first revision that was not looked at.
    pub next: i64,
}

/// Which changes are wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// Those of keys from here ...
    pub from: &'a [u8],
    /// ... to here.
    pub end: &'a RangeEnd,
    /// Puts.
    pub puts: bool,
    /// Deletes.
    pub deletes: bool,
}

impl Wanted<'_> {
    fn takes(&self, tombstone: bool) -> bool {
        if tombstone { self.deletes } else { self.puts }
    }
}

/// How much of history is looked at in one go. Exceeded only to finish a revision.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// Bytes taken.
    pub bytes_max: usize,
    /// Bytes looked at.
    pub scanned_max: usize,
    /// Changes looked at.
    pub changes_max: usize,
}

/// The changes of a range of no more keys are looked up in the index; those of larger ones are picked out of all changes.
const FEW_KEYS: usize = if cfg!(test) { 2 } else { 64 };
/// Changes of them looked up at once.
const FEW_CHANGES: usize = if cfg!(test) { 3 } else { 1024 };

impl Reader {
    /// The first revision from `since` on with a change in the range, the one after the newest if there is none: nothing before it needs to be read. `None` if
    /// that cannot be told at once, for the range is large or `since` is compacted. Waits for nothing.
    pub fn first_change(&self, from: &[u8], end: &RangeEnd, since: i64) -> Option<i64> {
        let pin = self.pin_events(since).ok()?;
        let until = pin.header_revision();
        let few = pin.mvcc().index.read().few_changes((from, end), (since, until), FEW_KEYS, FEW_CHANGES)?;
        pin.check().ok()?;
        Some(few.list.first().map_or(few.next, |(at, _)| at.main))
    }

    /// The wanted changes from the pinned revision to `to`, both included. May wait for the disk.
    pub fn history(&self, pin: &Pin, to: i64, limits: HistoryLimits, wanted: Wanted<'_>) -> Result<History, ReadError> {
        let revisions = (pin.revision(), to);
        let few = pin.mvcc().index.read().few_changes((wanted.from, wanted.end), revisions, FEW_KEYS, FEW_CHANGES);
        pin.check()?;
        match few {
            Some(few) => look_up(pin, few, limits, wanted),
            None => pick_out(pin, to, limits, wanted),
        }
    }

    /// The value that `key` had before revision `main`, encoded, if it was there. `pin` must keep the revision before.
    /// May wait for the disk.
    pub fn value_before(&self, pin: &Pin, key: &[u8], main: i64) -> Result<Option<Bytes>, ReadError> {
        let view = View::pinned(pin, Revision::whole(main - 1));
        let found = view.get(key).and_then(|meta| meta.map(|meta| view.value(meta.modified)).transpose());
        found.map_err(super::Unread::into_error)
    }
}

/// Reads those of a few changes that are wanted.
fn look_up(pin: &Pin, few: FewChanges, limits: HistoryLimits, wanted: Wanted<'_>) -> Result<History, ReadError> {
    let mut history = History { changes: Vec::new(), next: few.next };
    let (mut bytes, mut current) = (0, 0);
    for (at, tombstone) in few.list {
        if at.main != current && bytes >= limits.bytes_max {
            history.next = at.main;
            break;
        }
        current = at.main;
        if wanted.takes(tombstone) {
            let stored = pin.mvcc().store.get(Table::Rev, &at.key(tombstone))?;
            pin.check()?;
            let what = || format!("the index knows revision {}/{}, the store does not have it", at.main, at.sub);
            let stored = stored.ok_or_else(|| ReadError::Corrupt { what: what() })?;
            bytes += stored.len();
            history.changes.push(Change { at, tombstone, stored });
        }
    }
    Ok(history)
}

/// Reads all changes, and takes those that are wanted.
fn pick_out(pin: &Pin, to: i64, limits: HistoryLimits, wanted: Wanted<'_>) -> Result<History, ReadError> {
    let mut history = History { changes: Vec::new(), next: to + 1 };
    let (mut bytes, mut scanned, mut seen, mut current) = (0, 0, 0, 0);
    let mut damaged = None;
    let (from, end) = (Revision::new(pin.revision(), 0).put_key(), Revision::new(to + 1, 0).put_key());
    pin.mvcc().store.scan(Table::Rev, &from, Some(&end), &mut |key, stored| {
        let (Some((at, tombstone)), Some(name)) = (Revision::decode(key), value::key_of(stored)) else {
            damaged = Some(format!("{key:02x?} is no revision, or its value does not decode"));
            return ControlFlow::Break(());
        };
        let enough = bytes >= limits.bytes_max || scanned >= limits.scanned_max || seen >= limits.changes_max;
        if at.main != current && enough {
            history.next = at.main;
            return ControlFlow::Break(());
        }
        current = at.main;
        seen += 1;
        scanned += stored.len();
        if wanted.takes(tombstone) && wanted.end.contains(wanted.from, name) {
            bytes += stored.len();
            history.changes.push(Change { at, tombstone, stored: Bytes::copy_from_slice(stored) });
        }
        ControlFlow::Continue(())
    })?;
    pin.check()?;
    match damaged {
        Some(what) => Err(ReadError::Corrupt { what }),
        None => Ok(history),
    }
}

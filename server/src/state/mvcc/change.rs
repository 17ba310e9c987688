//! Changes: what watchers are told. Handed over as a batch is published, and read again from the store by revision.

use std::ops::ControlFlow;

use bytes::Bytes;

use super::{
    Pin, ReadError, Reader,
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
}

/// A stretch of history.
#[derive(Debug)]
pub struct History {
    /// The changes that were wanted, whole revisions, in order.
    pub changes: Vec<Change>,
    /// The first revision that was not looked at.
    pub next: i64,
}

/// How much of history is looked at in one go. Exceeded only to finish a revision.
#[derive(Debug, Clone, Copy)]
pub struct HistoryLimits {
    /// Bytes taken.
    pub bytes_max: usize,
    /// Changes looked at.
    pub changes_max: usize,
}

impl Reader {
    /// The changes from the pinned revision to `to`, both included, that `wanted` (key, tombstone) takes. May wait for
    /// the disk.
    pub fn history(
        &self,
        pin: &Pin,
        to: i64,
        limits: HistoryLimits,
        wanted: &mut dyn FnMut(&[u8], bool) -> bool,
    ) -> Result<History, ReadError> {
        let mut history = History { changes: Vec::new(), next: to + 1 };
        let (mut bytes, mut seen, mut current) = (0, 0, 0);
        let mut damaged = None;
        let (from, end) = (Revision::new(pin.revision(), 0).put_key(), Revision::new(to + 1, 0).put_key());
        pin.mvcc().store.scan(Table::Rev, &from, Some(&end), &mut |key, stored| {
            let (Some((at, tombstone)), Some(name)) = (Revision::decode(key), value::key_of(stored)) else {
                damaged = Some(format!("{key:02x?} is no revision, or its value does not decode"));
                return ControlFlow::Break(());
            };
            if at.main != current && (bytes >= limits.bytes_max || seen >= limits.changes_max) {
                history.next = at.main;
                return ControlFlow::Break(());
            }
            current = at.main;
            seen += 1;
            if wanted(name, tombstone) {
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

    /// The value that `key` had before revision `main`, encoded, if it was there. `pin` must keep the revision before.
    /// May wait for the disk.
    pub fn value_before(&self, pin: &Pin, key: &[u8], main: i64) -> Result<Option<Bytes>, ReadError> {
        let view = View::pinned(pin, Revision::whole(main - 1));
        let found = view.get(key).and_then(|meta| meta.map(|meta| view.value(meta.modified)).transpose());
        found.map_err(super::Unread::into_error)
    }
}

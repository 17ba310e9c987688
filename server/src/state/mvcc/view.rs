//! One look at the keys: a point of history, and how far the looker may go for an answer.
//!
//! Apply looks at the newest state, the open batch's values included. Readers look at a pinned revision, and either
//! wait for the disk or, on a thread that must not, take only what memory has and a bounded number of rows.

use std::{cell::Cell, ops::ControlFlow};

use bytes::Bytes;

use super::{
    Mvcc, ReadError,
    horizon::Pin,
    index::{Counting, KeyMeta, RangeEnd, Visited},
    many,
    revision::Revision,
    write::Open,
};
use crate::store::{Cached, StoreError, Table};

/// Index entries examined while the index is locked once.
pub(super) const PAGE_KEYS: usize = 512;
/// Keys examined for a count while the index is locked once, some nanoseconds each; and on a thread that must not wait.
const COUNT_KEYS: usize = 8192;
const INLINE_COUNT_KEYS: usize = 1024;
/// Values read on a thread that must not wait.
pub(super) const INLINE_ROWS_MAX: usize = 64;
/// Index pages looked through on a thread that must not wait.
const INLINE_PAGES_MAX: usize = 2;

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unread {
    /// It would take the disk or too long; ask again where waiting is allowed.
    NotNow,
    /// It failed.
    Failed(ReadError),
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Self {
        Self::Failed(error)
    }
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        Self::Failed(ReadError::Store(error))
    }
}

impl Unread {
    /// The error of a look that may wait.
    pub(super) fn into_error(self) -> ReadError {
        match self {
            Self::NotNow => ReadError::Corrupt { what: "a read that may wait asked to be deferred".into() },
            Self::Failed(error) => error,
        }
    }
}

/// See the module's text.
pub(super) struct View<'a> {
    mvcc: &'a Mvcc,
    at: Revision,
    source: Source<'a>,
}

enum Source<'a> {
    Apply(&'a Open),
    Pinned { pin: &'a Pin, pages_left: Option<Cell<usize>> },
}

impl<'a> View<'a> {
    /// The newest state, as the command being applied sees it.
    pub(super) fn newest(mvcc: &'a Mvcc, open: &'a Open, at: Revision) -> Self {
        Self { mvcc, at, source: Source::Apply(open) }
    }

    /// What was visible at `at`, which `pin` keeps; may wait for the disk.
    pub(super) fn pinned(pin: &'a Pin, at: Revision) -> Self {
        Self { mvcc: pin.mvcc(), at, source: Source::Pinned { pin, pages_left: None } }
    }

    /// The same from memory, or not now.
    pub(super) fn inline(pin: &'a Pin, at: Revision) -> Self {
        Self { mvcc: pin.mvcc(), at, source: Source::Pinned { pin, pages_left: Some(Cell::new(INLINE_PAGES_MAX)) } }
    }

    /// The same look at another point.
    pub(super) fn moved(&self, at: Revision) -> View<'a> {
        let source = match &self.source {
            Source::Apply(open) => Source::Apply(open),
            Source::Pinned { pin, pages_left } => Source::Pinned { pin, pages_left: pages_left.clone() },
        };
        View { mvcc: self.mvcc, at, source }
    }

    /// The same patience at a point that another pin keeps.
    pub(super) fn repinned<'b>(&self, pin: &'b Pin, at: Revision) -> View<'b> {
        if self.is_inline() { View::inline(pin, at) } else { View::pinned(pin, at) }
    }

    pub(super) fn mvcc(&self) -> &'a Mvcc {
        self.mvcc
    }

    pub(super) fn is_inline(&self) -> bool {
        matches!(self.source, Source::Pinned { pages_left: Some(_), .. })
    }

    /// Whether a [`KeyMeta`]'s lease is that of the value seen here. The index knows only the lease of a key's newest
    /// value.
    pub(super) fn knows_leases(&self) -> bool {
        matches!(self.source, Source::Apply(_))
    }

    fn check(&self) -> Result<(), Unread> {
        match &self.source {
            Source::Apply(_) => Ok(()),
            Source::Pinned { pin, .. } => Ok(pin.check()?),
        }
    }

    /// What the index knows of `key` here.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<KeyMeta>, Unread> {
        let meta = self.mvcc.index.read().get(key, self.at);
        self.check()?;
        Ok(meta)
    }

    /// Visits the keys of a range that live here, for as long as the index may be locked in one go.
    pub(super) fn page(
        &self,
        from: &[u8],
        end: &RangeEnd,
        visit: &mut dyn FnMut(&[u8], KeyMeta) -> ControlFlow<()>,
    ) -> Result<Visited, Unread> {
        if let Source::Pinned { pages_left: Some(left), .. } = &self.source {
            left.set(left.get().checked_sub(1).ok_or(Unread::NotNow)?);
        }
        let visited = self.mvcc.index.read().visit(from, end, self.at, PAGE_KEYS, visit);
        self.check()?;
        Ok(visited)
    }

    /// How many keys of a range live here.
    pub(super) fn count(&self, from: &[u8], end: &RangeEnd) -> Result<u64, Unread> {
        let mut counting = Counting::new(from, end, self.at);
        let max_keys = if self.is_inline() { INLINE_COUNT_KEYS } else { COUNT_KEYS };
        loop {
            let counted = self.mvcc.index.read().count_step(&mut counting, max_keys);
            self.check()?;
            match counted {
                Some(count) => return Ok(count),
                None if self.is_inline() => return Err(Unread::NotNow),
                None => {}
            }
        }
    }

    /// The stored value of a put that was visible here.
    pub(super) fn value(&self, at: Revision) -> Result<Bytes, Unread> {
        let value = match &self.source {
            Source::Apply(open) => match open.value(at) {
                Some(value) => Some(value.clone()),
                None => self.mvcc.store.get(Table::Rev, &at.put_key())?,
            },
            Source::Pinned { pages_left: None, .. } => self.mvcc.store.get(Table::Rev, &at.put_key())?,
            Source::Pinned { pages_left: Some(_), .. } => {
                match self.mvcc.store.get_cached(Table::Rev, &at.put_key())? {
                    Cached::Known(value) => value,
                    Cached::OnDisk => return Err(Unread::NotNow),
                }
            }
        };
        value.map_or_else(|| Err(self.missing(at)), Ok)
    }

    /// Appends the stored values of puts that were visible here.
    pub(super) fn values(&self, revisions: &[Revision], out: &mut Vec<Bytes>) -> Result<(), Unread> {
        match &self.source {
            Source::Pinned { pages_left: None, .. } if revisions.len() > 1 => {
                self.read(many::read(self.mvcc.store.as_ref(), revisions, out))?;
            }
            Source::Pinned { pages_left: Some(_), .. } if revisions.len() > INLINE_ROWS_MAX => {
                return Err(Unread::NotNow);
            }
            _ => {
                for at in revisions {
                    out.push(self.value(*at)?);
                }
            }
        }
        Ok(())
    }

    /// Gives `values` those of puts that were visible here. May wait for the disk.
    pub(super) fn values_into(&self, wanted: Vec<many::Wanted>, values: &mut impl many::Values) -> Result<(), Unread> {
        self.read(many::read_into(self.mvcc.store.as_ref(), wanted, values))
    }

    fn read(&self, read: Result<(), many::Unread>) -> Result<(), Unread> {
        read.map_err(|unread| match unread {
            many::Unread::Missing(at) => self.missing(at),
            many::Unread::Failed(error) => error.into(),
        })
    }

    /// The index knew a revision that the store does not have: it was compacted in between, or the store is damaged.
    fn missing(&self, at: Revision) -> Unread {
        match self.check() {
            Err(expired) => expired,
            Ok(()) => ReadError::Corrupt {
                what: format!("the index knows revision {}/{}, the store does not have it", at.main, at.sub),
            }
            .into(),
        }
    }
}

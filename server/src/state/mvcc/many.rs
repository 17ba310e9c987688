//! Many values at once.
//!
//! The store has values in the order in which they were written, a list wants them in the order of keys. So they are looked for in the order of history
//! and put where they belong; and where most of a stretch of history is wanted, as of a list that was loaded in order or of the list of everything, it is
//! read through, which costs a fraction of looking each value up.

use std::{cmp::Ordering, ops::ControlFlow};

use bytes::{Bytes, BytesMut};

use super::revision::Revision;
use crate::store::{Store, StoreError, Table};

/// Values for which it is decided together how they are read.
const GROUP: usize = 64;
/// A group is read through if the history it lies in has at most so many revisions for each value.
const REVISIONS_EACH_MAX: i64 = 10;
/// Values looked up in one call.
const LOOKUPS: usize = 64;
/// Of more values than these, the blocks they are in do not stay in the cache: they would push out everything else.
const CACHED_MAX: usize = 2048;
/// Values that are read through are copied into pieces of this size.
const ARENA_BYTES: usize = 64 << 10;

/// Why values were not read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The store does not have this one.
    Missing(Revision),
    /// The store failed.
    Failed(StoreError),
}

impl From<StoreError> for Unread {
    fn from(error: StoreError) -> Self {
        Self::Failed(error)
    }
}

/// Takes values, each with its place among those that were wanted.
pub(super) trait Values {
    /// Whether the value that belongs there still is.
    fn wants(&self, place: usize) -> bool;

    /// Takes a value.
    fn put(&mut self, place: usize, value: &[u8]);

    /// The same if the value need not be copied.
    fn put_owned(&mut self, place: usize, value: Bytes) {
        self.put(place, &value);
    }
}

/// Appends the values of `revisions` in their order. What is appended in case of an error has no meaning.
pub(super) fn read(store: &dyn Store, revisions: &[Revision], out: &mut Vec<Bytes>) -> Result<(), Unread> {
    let begin = out.len();
    out.resize(begin + revisions.len(), Bytes::new());
    let wanted = (0..).zip(revisions).map(|(place, at)| Wanted::new(*at, place)).collect();
    read_into(store, wanted, &mut Listed { out: &mut out[begin..], arena: BytesMut::new() })
}

/// Gives `values` what is wanted, in the order of history.
pub(super) fn read_into(store: &dyn Store, mut wanted: Vec<Wanted>, values: &mut impl Values) -> Result<(), Unread> {
    if !wanted.is_sorted() {
        wanted.sort_unstable();
    }
    Reading { store, values, cached: wanted.len() <= CACHED_MAX }.ordered(&wanted)
}

/// Values, each for itself.
struct Listed<'a> {
    out: &'a mut [Bytes],
    arena: BytesMut,
}

impl Values for Listed<'_> {
    fn wants(&self, _place: usize) -> bool {
        true
    }

    fn put(&mut self, place: usize, value: &[u8]) {
        if self.arena.capacity() - self.arena.len() < value.len() {
            self.arena.reserve(value.len().max(ARENA_BYTES));
        }
        self.arena.extend_from_slice(value);
        self.out[place] = self.arena.split().freeze();
    }

    fn put_owned(&mut self, place: usize, value: Bytes) {
        self.out[place] = value;
    }
}

/// A revision, and where its value belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Wanted {
    main: i64,
    sub: u32,
    place: u32,
}

/// Bytes of each while values are read.
pub(super) const WANTED_BYTES: usize = size_of::<Wanted>();
const _: () = assert!(WANTED_BYTES == 16, "there are many of them");

impl Wanted {
    pub(super) fn new(at: Revision, place: u32) -> Self {
        Self { main: at.main, sub: at.sub, place }
    }

    fn at(self) -> Revision {
        Revision::new(self.main, self.sub)
    }
}

/// Whether a group is worth reading through.
fn is_dense(group: &[Wanted]) -> bool {
    match group {
        [first, .., last] => group.len() == GROUP && last.main - first.main <= REVISIONS_EACH_MAX * GROUP as i64,
        _ => false,
    }
}

struct Reading<'a, V> {
    store: &'a dyn Store,
    values: &'a mut V,
    cached: bool,
}

impl<V: Values> Reading<'_, V> {
    /// Reads what is wanted, in the order of history.
    fn ordered(&mut self, mut wanted: &[Wanted]) -> Result<(), Unread> {
        while !wanted.is_empty() {
            let mut len = wanted.len().min(GROUP);
            let dense = is_dense(&wanted[..len]);
            while len < wanted.len() {
                let next = &wanted[len..wanted.len().min(len + GROUP)];
                // What lies between two groups is read through too.
                let near = next[0].main - wanted[len - 1].main <= REVISIONS_EACH_MAX * GROUP as i64;
                if (is_dense(next) && near) != dense {
                    break;
                }
                len += next.len();
            }
            let (stretch, rest) = wanted.split_at(len);
            if dense {
                self.read_through(stretch)?;
            } else {
                self.look_up(stretch)?;
            }
            wanted = rest;
        }
        Ok(())
    }

    fn look_up(&mut self, wanted: &[Wanted]) -> Result<(), Unread> {
        for some in wanted.chunks(LOOKUPS) {
            let some: Vec<_> = some.iter().filter(|wanted| self.values.wants(wanted.place as usize)).collect();
            let keys: Vec<_> = some.iter().map(|wanted| wanted.at().put_key()).collect();
            let keys: Vec<_> = keys.iter().map(|key| &key[..]).collect();
            for (value, wanted) in self.store.multi_get(Table::Rev, &keys, self.cached)?.into_iter().zip(some) {
                let value = value.ok_or(Unread::Missing(wanted.at()))?;
                self.values.put_owned(wanted.place as usize, value);
            }
        }
        Ok(())
    }

    fn read_through(&mut self, wanted: &[Wanted]) -> Result<(), Unread> {
        let Some(first) = wanted.first() else { return Ok(()) };
        let Self { store, values, .. } = self;
        let (mut wanted, first_key) = (wanted.iter(), first.at().put_key());
        let (mut next_main, mut next_key) = (first.main, first_key);
        let mut next = wanted.next();
        store.scan(Table::Rev, &first_key, None, &mut |key, value| {
            // That of nearly all that is passed over is lower.
            if key.first_chunk().is_some_and(|main| i64::from_be_bytes(*main) < next_main) {
                return ControlFlow::Continue(());
            }
            match key.cmp(&next_key[..]) {
                Ordering::Less => return ControlFlow::Continue(()),
                Ordering::Greater => return ControlFlow::Break(()),
                Ordering::Equal => {}
            }
            while let Some(same) = next
                && same.at().put_key() == next_key
            {
                values.put(same.place as usize, value);
                next = wanted.next();
            }
            match next {
                Some(other) => {
                    (next_main, next_key) = (other.main, other.at().put_key());
                    ControlFlow::Continue(())
                }
                None => ControlFlow::Break(()),
            }
        })?;
        next.map_or(Ok(()), |next| Err(Unread::Missing(next.at())))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::store::{Batch, MemStore};

    proptest! {
        #[test]
        fn values_come_in_the_order_asked_for(
            rows in vec((1..40i64, any::<bool>()), 1..600), wanted in vec(any::<prop::sample::Index>(), 0..700),
            sorted: bool, missing in prop::option::weighted(0.2, any::<prop::sample::Index>()),
        ) {
            let store = MemStore::new();
            let (mut batch, mut puts, mut main) = (Batch::default(), Vec::new(), 0);
            for (gap, dense) in rows {
                main += if dense { 1 } else { gap };
                let at = Revision::new(main, 0);
                batch.put(Table::Rev, at.key(false), Bytes::from(main.to_string()));
                batch.put(Table::Rev, Revision::new(main, 1).key(true), "tombstone");
                puts.push(at);
            }
            store.write(&batch).unwrap();
            let mut wanted: Vec<_> = wanted.into_iter().map(|which| *which.get(&puts)).collect();
            if sorted {
                wanted = puts;
            }
            let mut out = vec![Bytes::from_static(b"before")];
            let mut gone = None;
            if let Some(missing) = missing
                && !wanted.is_empty()
            {
                let at = *missing.get(&wanted);
                let mut batch = Batch::default();
                batch.delete(Table::Rev, at.key(false));
                store.write(&batch).unwrap();
                gone = Some(at);
            }
            match (read(&store, &wanted, &mut out), gone) {
                (Ok(()), None) => {
                    let values: Vec<_> = wanted.iter().map(|at| Bytes::from(at.main.to_string())).collect();
                    prop_assert_eq!(&out[1..], &values[..]);
                }
                (Err(Unread::Missing(at)), Some(gone)) => prop_assert_eq!(at, gone),
                (read, gone) => prop_assert!(false, "{:?}, gone {:?}", read, gone),
            }
        }
    }
}

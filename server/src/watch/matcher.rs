//! Who is to hear of a key: an exact-key map and an interval tree, so that an event costs what it matches.

use std::collections::HashMap;

use bytes::Bytes;

use super::{interest::Interest, intervals::Intervals};
use crate::state::mvcc::index::RangeEnd;

/// A watcher's place in the hub's table.
pub(super) type Slot = u32;

/// Watchers of one key or range, ascending.
type Slots = Vec<Slot>;

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Matcher {
    keys: HashMap<Bytes, Slots>,
    ranges: Intervals<Slots>,
    count: usize,
}

/// The end of an interval, none for an unbounded one; not asked of an interest in a single key.
fn end_of(interest: &Interest) -> Option<Bytes> {
    match &interest.end {
        RangeEnd::Before(end) => Some(end.clone()),
        RangeEnd::Single | RangeEnd::Unbounded => None,
    }
}

impl Matcher {
    /// Enters a watcher, which must not be entered already.
    pub(super) fn insert(&mut self, slot: Slot, interest: &Interest) {
        let slots = match interest.end {
            RangeEnd::Single => self.keys.entry(interest.from.clone()).or_default(),
            _ => self.ranges.entry(&interest.from, &end_of(interest)),
        };
        if let Err(at) = slots.binary_search(&slot) {
            slots.insert(at, slot);
            self.count += 1;
        }
    }

    /// Removes a watcher, which was entered with the same interest.
    pub(super) fn remove(&mut self, slot: Slot, interest: &Interest) {
        let single = interest.end == RangeEnd::Single;
        let slots =
            if single { self.keys.get_mut(&interest.from) } else { self.ranges.get(&interest.from, &end_of(interest)) };
        let Some(slots) = slots else { return };
        if let Ok(at) = slots.binary_search(&slot) {
            slots.remove(at);
            self.count -= 1;
        }
        if slots.is_empty() {
            if single {
                self.keys.remove(&interest.from);
            } else {
                self.ranges.remove(&interest.from, &end_of(interest));
            }
        }
    }

    /// Visits the watchers whose keys include `key`, each once.
    pub(super) fn find(&self, key: &[u8], visit: &mut dyn FnMut(Slot)) {
        if let Some(slots) = self.keys.get(key) {
            slots.iter().copied().for_each(&mut *visit);
        }
        self.ranges.find(key, &mut |slots| slots.iter().copied().for_each(&mut *visit));
    }

    /// Watchers in it.
    pub(super) fn len(&self) -> usize {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cairn_proto::etcdserverpb::WatchCreateRequest;
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn interest(from: u8, end: u8) -> Option<Interest> {
        let end = match end {
            0 => Bytes::new(),
            1 => Bytes::from_static(&[0]),
            end => Bytes::copy_from_slice(&[end]),
        };
        let key = Bytes::copy_from_slice(&[from]);
        let interest = Interest::of(&WatchCreateRequest { key, range_end: end, ..Default::default() });
        (!interest.is_empty()).then_some(interest)
    }

    proptest! {
        #[test]
        fn every_watcher_of_a_key_is_found_and_no_other(changes in vec((0..12u32, 2..16u8, 0..18u8), 0..100)) {
            let mut matcher = Matcher::default();
            let mut naive = BTreeMap::<Slot, Interest>::new();
            for (slot, from, end) in changes {
                if let Some(old) = naive.remove(&slot) {
                    matcher.remove(slot, &old);
                } else if let Some(new) = interest(from, end) {
                    matcher.insert(slot, &new);
                    naive.insert(slot, new);
                }
                prop_assert_eq!(matcher.len(), naive.len());
                for key in 0..20u8 {
                    let mut found = Vec::new();
                    matcher.find(&[key], &mut |slot| found.push(slot));
                    found.sort_unstable();
                    let expected = naive.iter().filter(|(_, interest)| interest.matches(&[key], false));
                    prop_assert_eq!(found, expected.map(|(slot, _)| *slot).collect::<Vec<_>>());
                }
            }
        }
    }

    #[test]
    fn nothing_is_kept_of_removed_watchers() {
        let mut matcher = Matcher::default();
        for slot in 0..1000 {
            let (one, range) = (interest(7, 0).unwrap(), interest(7, 9).unwrap());
            matcher.insert(slot, &one);
            matcher.insert(slot + 1000, &range);
            matcher.remove(slot, &one);
            matcher.remove(slot + 1000, &range);
        }
        assert!(matcher.keys.is_empty());
        let mut found = 0;
        matcher.find(&[7], &mut |_| found += 1);
        assert_eq!((found, matcher.len()), (0, 0));
    }
}

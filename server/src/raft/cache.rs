//! The entry cache: the tail of the log in memory.
//!
//! It holds every entry that is not applied, and older ones for followers that lag a little, up to a number of bytes.
//! Entries stay in the chunks in which raft-rs handed them out: the log thread, the cache and the commands being
//! applied all point into the same memory.
//!
//! ```text
//!   log:     before | purged ... | on disk only ... | cached, applied ... | cached, not applied ... last |
//! ```

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use raft::eraftpb::Entry;

use crate::log::{EntryId, Terms};

/// Bytes an entry takes beside its data.
const ENTRY_OVERHEAD: usize = size_of::<Entry>();

/// Bytes an entry takes in memory.
fn footprint(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD
}

/// Entries as raft-rs handed them out in one piece; the tail may have been cut off.
#[derive(Debug)]
struct Chunk {
    entries: Arc<[Entry]>,
    len: usize,
}

impl Chunk {
    fn entries(&self) -> &[Entry] {
        &self.entries[..self.len]
    }

    fn first(&self) -> u64 {
        self.entries[0].index
    }

    fn last(&self) -> u64 {
        self.entries[self.len - 1].index
    }

    fn footprint(&self) -> usize {
        self.entries().iter().map(footprint).sum()
    }
}

/// Keeps a chunk alive for the commands that were decoded out of it.
struct Shared {
    entries: Arc<[Entry]>,
    at: usize,
}

impl AsRef<[u8]> for Shared {
    fn as_ref(&self) -> &[u8] {
        &self.entries[self.at].data
    }
}

/// The tail of the log in memory, and the terms of all of it.
#[derive(Debug)]
pub struct EntryCache {
    /// Terms of the whole log, cached or not.
    terms: Terms,
    applied: u64,
    chunks: VecDeque<Chunk>,
    bytes: usize,
    bytes_not_applied: usize,
    bytes_max: usize,
}

impl EntryCache {
    /// A log with these terms, of which everything after `applied` is in `entries`.
    pub(super) fn new(terms: Terms, applied: u64, entries: Vec<Entry>, bytes_max: usize) -> Self {
        let mut cache = Self { terms, applied, chunks: VecDeque::new(), bytes: 0, bytes_not_applied: 0, bytes_max };
        cache.append(entries.into());
        assert!(cache.last() >= applied, "the log ends at {}, but {applied} is applied", cache.last());
        cache
    }

    /// Index before the first entry of the log.
    pub fn before(&self) -> u64 {
        self.terms.base().index
    }

    /// Index of the last entry.
    pub fn last(&self) -> u64 {
        self.terms.last().index
    }

    /// Index of the first entry in memory.
    pub(super) fn first_cached(&self) -> Option<u64> {
        self.chunks.front().map(Chunk::first)
    }

    /// Bytes of the entries that are not applied.
    pub fn bytes_not_applied(&self) -> usize {
        self.bytes_not_applied
    }

    /// Bytes of all cached entries.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The term of an entry of the log or of the one before it.
    pub fn term(&self, index: u64) -> Option<u64> {
        self.terms.term(index)
    }

    /// Appends entries; those at and after their first index are replaced.
    pub(super) fn append(&mut self, entries: Arc<[Entry]>) {
        let Some(first) = entries.first() else { return };
        assert!(
            first.index > self.applied,
            "entry {} replaces an applied one, applied are {}",
            first.index,
            self.applied
        );
        self.truncate(first.index);
        for entry in &entries[..] {
            self.terms.append(EntryId::new(entry.index, entry.term));
        }
        let chunk = Chunk { len: entries.len(), entries };
        let bytes = chunk.footprint();
        self.bytes += bytes;
        self.bytes_not_applied += bytes;
        self.chunks.push_back(chunk);
    }

    fn truncate(&mut self, index: u64) {
        while let Some(chunk) = self.chunks.back_mut().filter(|chunk| chunk.last() >= index) {
            let keep = index.saturating_sub(chunk.first()) as usize;
            let cut: usize = chunk.entries()[keep..].iter().map(footprint).sum();
            self.bytes -= cut;
            self.bytes_not_applied -= cut;
            chunk.len = keep;
            if keep == 0 {
                self.chunks.pop_back();
            }
        }
    }

    fn find(&self, index: u64) -> Option<(usize, usize)> {
        let chunk = self.chunks.partition_point(|chunk| chunk.last() < index);
        let at = index.checked_sub(self.chunks.get(chunk)?.first())?;
        Some((chunk, at as usize))
    }

    /// An entry, if it is cached.
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let (chunk, at) = self.find(index)?;
        self.chunks[chunk].entries().get(at)
    }

    /// The data of an entry without copying it, if it is cached.
    pub fn data(&self, index: u64) -> Option<Bytes> {
        let (chunk, at) = self.find(index)?;
        let entries = &self.chunks[chunk].entries;
        if entries[at].data.is_empty() {
            return Some(Bytes::new());
        }
        Some(Bytes::from_owner(Shared { entries: Arc::clone(entries), at }))
    }

    /// The cached entries from `low`, which must be cached, to before `high`.
    pub(super) fn range(&self, low: u64, high: u64) -> Option<impl Iterator<Item = &Entry>> {
        let (chunk, at) = self.find(low)?;
        let entries = self.chunks.iter().skip(chunk).flat_map(Chunk::entries).skip(at);
        Some(entries.take_while(move |entry| entry.index < high))
    }

    /// Notes that everything up to `index` is applied; the oldest applied entries leave if there are too many bytes.
    pub(super) fn applied_to(&mut self, index: u64) {
        let freed: usize = self.range(self.applied + 1, index + 1).into_iter().flatten().map(footprint).sum();
        self.bytes_not_applied -= freed;
        self.applied = self.applied.max(index);
        while self.bytes > self.bytes_max {
            let Some(chunk) = self.chunks.front().filter(|chunk| chunk.last() <= self.applied) else { break };
            self.bytes -= chunk.footprint();
            self.chunks.pop_front();
        }
    }

    /// Forgets everything: the log begins again after `last`, the last entry of an installed snapshot.
    pub(super) fn reset(&mut self, last: EntryId) {
        self.terms.reset(last);
        self.chunks.clear();
        (self.bytes, self.bytes_not_applied) = (0, 0);
        self.applied = last.index;
    }

    /// Notes that everything up to `index` left the log. Only applied entries may.
    pub(super) fn purged_to(&mut self, index: u64) {
        assert!(index <= self.applied, "purge up to {index} asked, but only {} is applied", self.applied);
        self.terms.purge(index);
        while let Some(chunk) = self.chunks.front().filter(|chunk| chunk.last() <= index) {
            self.bytes -= chunk.footprint();
            self.chunks.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(first: u64, terms: &[u64], size: usize) -> Arc<[Entry]> {
        let entry = |(at, &term): (usize, &u64)| Entry {
            term,
            index: first + at as u64,
            data: vec![term as u8; size],
            ..Entry::default()
        };
        terms.iter().enumerate().map(entry).collect()
    }

    fn cache(bytes_max: usize) -> EntryCache {
        EntryCache::new(Terms::new(EntryId::new(1, 1)), 1, Vec::new(), bytes_max)
    }

    #[test]
    fn a_conflicting_append_replaces_the_tail() {
        let mut cache = cache(usize::MAX);
        cache.append(entries(2, &[1, 1, 1], 10));
        cache.append(entries(5, &[1, 1], 10));
        cache.append(entries(4, &[2], 10));
        assert_eq!((cache.last(), cache.term(3), cache.term(4), cache.term(5)), (4, Some(1), Some(2), None));
        assert_eq!(cache.get(4).map(|entry| entry.term), Some(2));
        assert_eq!(cache.bytes(), cache.bytes_not_applied());
        assert_eq!(cache.bytes(), 3 * (10 + ENTRY_OVERHEAD));
    }

    #[test]
    fn entries_that_are_not_applied_stay_whatever_the_limit() {
        let mut cache = cache(0);
        cache.append(entries(2, &[1, 1], 10));
        cache.append(entries(4, &[1], 10));
        cache.applied_to(2);
        assert!(cache.get(2).is_some() && cache.get(4).is_some());
        cache.applied_to(3);
        assert!(cache.get(3).is_none() && cache.get(4).is_some());
        assert_eq!(cache.term(3), Some(1), "terms are known for all of the log");
    }

    #[test]
    fn data_outlives_the_cache() {
        let mut cache = cache(0);
        cache.append(entries(2, &[7], 3));
        let data = cache.data(2);
        drop(cache);
        assert_eq!(data, Some(Bytes::from_static(&[7, 7, 7])));
    }

    #[test]
    fn a_purge_keeps_the_term_before_the_first_entry() {
        let mut cache = cache(usize::MAX);
        cache.append(entries(2, &[1, 2, 2], 1));
        cache.applied_to(4);
        cache.purged_to(3);
        assert_eq!((cache.before(), cache.term(2), cache.term(3), cache.term(4)), (3, None, Some(2), Some(2)));
    }

    proptest! {
        #[test]
        fn it_holds_what_a_plain_list_holds(steps in prop::collection::vec((0..4_u64, 1..6_usize, 0..3_u64), 1..40)) {
            let mut cache = cache(600);
            let mut list: Vec<u64> = vec![1];
            let (mut term, mut applied) = (1, 1_u64);
            for (back, count, apply) in steps {
                let first = (list.len() as u64 + 1).saturating_sub(back).max(applied + 1);
                term += u64::from(back > 0);
                let terms = vec![term; count];
                list.truncate(first as usize - 1);
                list.extend(&terms);
                cache.append(entries(first, &terms, 20));
                applied = (applied + apply).min(list.len() as u64);
                cache.applied_to(applied);
                prop_assert_eq!(cache.last(), list.len() as u64);
                for index in applied + 1..=list.len() as u64 {
                    prop_assert_eq!(cache.get(index).map(|entry| (entry.index, entry.term)), Some((index, list[index as usize - 1])));
                }
                let waiting = list.len() - applied as usize;
                prop_assert_eq!(cache.bytes_not_applied(), waiting * (20 + ENTRY_OVERHEAD));
            }
        }
    }
}

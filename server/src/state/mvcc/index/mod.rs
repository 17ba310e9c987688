//! The key index: which revisions every key has, in memory and in key order.
//!
//! It answers compares, existence, keys-only listings and counts without touching the store. Weights in the tree count live keys, so that a count over
//! any range at the newest revision costs O(log n).
//!
//! Interface (the types below are what the rest of `state/` builds on; the tree behind them is private to this folder).

use super::revision::Revision;

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
    Before(bytes::Bytes),
    /// At the end of the key space.
    Unbounded,
}

/*
To build here (owner: store+index), roughly:

impl Index {
    pub fn new(limits) -> Self;
    // Writes, in revision order (apply path; also replay of Table::Rev on start):
    pub fn put(&mut self, key: &[u8], at: Revision, lease: i64) -> Written { meta: KeyMeta, previous: Option<KeyMeta> }
    pub fn restore_put(&mut self, key, at, created, version, lease)        // from a stored KeyValue: create revision, version and lease kept; idempotent
    pub fn delete(&mut self, key: &[u8], at: Revision) -> Option<KeyMeta>;  // None: no live key, nothing changed
    // Reads
    pub fn get(&self, key: &[u8], at: Revision) -> Option<KeyMeta>;
    pub fn visit(&self, from: &[u8], end: &RangeEnd, at: Revision, visit: &mut dyn FnMut(&[u8], KeyMeta) -> ControlFlow<()>);  // caller bounds the page
    pub fn count(&self, from, end, at: Revision) -> Option<u64>;            // exact, O(log n + births/deaths after `at`); None: `at` is older than the birth/death log, count by visiting in pieces
    pub fn count_newest(..)                                                 // whatever was applied last
    // Compaction to main revision C, in steps: removes what no reader at >= C can see; reports removed (Revision, tombstone) for the store
    pub fn compact_step(&mut self, c: i64, from: Option<&[u8]>, max_keys: usize, removed: &mut Vec<(Revision, bool)>) -> Option<Bytes /*next key*/>;
    // HashKV keep-set at C: revisions <= C that compaction to C keeps (etcd's rule), by pages
    pub fn keep_step(&self, c, from, max_keys, keep: &mut HashSet<Revision>) -> Option<Bytes>;
    // Image
    pub fn image pages / load
}
*/

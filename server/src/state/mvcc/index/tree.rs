//! The ordered map from keys to their histories, counting live keys.

use std::{collections::BTreeMap, ops::Bound};

use bytes::Bytes;

use super::history::History;

/// What [`Tree::sweep`] does with the key just seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sweep {
    /// Goes on to the next key.
    Keep,
    /// Removes the key, which is not live, and goes on.
    Remove,
    /// Ends the sweep; the next one starts with this key.
    Stop,
}

#[derive(Debug, Default)]
pub(super) struct Tree(BTreeMap<Box<[u8]>, History>);

impl Tree {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn get(&self, key: &[u8]) -> Option<&History> {
        self.0.get(key)
    }

    /// Lets `edit` change the history of `key`, or give a new key its first.
    pub fn edit<R>(&mut self, key: &[u8], edit: impl FnOnce(Option<&mut History>) -> (Option<History>, R)) -> R {
        let (first, result) = edit(self.0.get_mut(key));
        if let Some(history) = first {
            self.0.insert(key.into(), history);
        }
        result
    }

    /// Visits keys from `from` in order until `visit` says no; `live_only` allows to skip keys without a newest value.
    pub fn walk(&self, from: &[u8], live_only: bool, visit: &mut dyn FnMut(&[u8], &History) -> bool) {
        for (key, history) in self.0.range::<[u8], _>((Bound::Included(from), Bound::Unbounded)) {
            if live_only && !history.is_live() {
                continue;
            }
            if !visit(key, history) {
                return;
            }
        }
    }

    /// Edits up to about `max_keys` keys from `from` on; the key to go on with, if any is left.
    pub fn sweep(
        &mut self,
        from: &[u8],
        max_keys: usize,
        edit: &mut dyn FnMut(&mut History) -> Sweep,
    ) -> Option<Bytes> {
        let keys: Vec<_> = self
            .0
            .range::<[u8], _>((Bound::Included(from), Bound::Unbounded))
            .take(max_keys + 1)
            .map(|(key, _)| key.clone())
            .collect();
        let rest = keys.get(max_keys).map(|key| Bytes::copy_from_slice(key));
        for key in keys.into_iter().take(max_keys) {
            if let Some(history) = self.0.get_mut(&key) {
                match edit(history) {
                    Sweep::Keep => {}
                    Sweep::Remove => {
                        self.0.remove(&key);
                    }
                    Sweep::Stop => return Some(key.into()),
                }
            }
        }
        rest
    }

    /// Live keys before `key`.
    pub fn rank(&self, key: &[u8]) -> u64 {
        self.0
            .range::<[u8], _>((Bound::Unbounded, Bound::Excluded(key)))
            .filter(|(_, history)| history.is_live())
            .count() as u64
    }

    /// All live keys.
    pub fn live(&self) -> u64 {
        self.0.values().filter(|history| history.is_live()).count() as u64
    }

    /// All keys, live or not.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

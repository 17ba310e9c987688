//! Sorted keys of one node of the tree, packed: the prefix that all share once, then what is left of each, back to back.
//!
//! ```text
//! prefix "/registry/pods/"    rest "a/1" "a/22" "b/1"    ends 3 7 10
//! ```
//! A list of names such as a control plane's has long common prefixes, and a node's keys are neighbours: a key costs little more than what tells it from
//! the next one. Nothing is allocated for a single key.

use std::cmp::Ordering;

/// Ends grow by so many at a time.
const ENDS_STEP: usize = 8;

/// See the module's text. Keys are together shorter than 4 GiB: a node is split long before.
#[derive(Debug, Default)]
pub(super) struct KeyRun {
    prefix: Box<[u8]>,
    rest: Vec<u8>,
    /// Where the rest of each key ends.
    ends: Vec<u32>,
}

impl KeyRun {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the packed keys.
    pub fn bytes(&self) -> usize {
        self.prefix.len() + self.rest.len()
    }

    /// What every key begins with.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    fn start(&self, at: usize) -> usize {
        at.checked_sub(1).map_or(0, |before| self.ends[before] as usize)
    }

    /// A key without the prefix.
    pub fn rest(&self, at: usize) -> &[u8] {
        &self.rest[self.start(at)..self.ends[at] as usize]
    }

    /// A key whole.
    pub fn key(&self, at: usize) -> Vec<u8> {
        [self.prefix(), self.rest(at)].concat()
    }

    /// Where `key` is, or where it would be.
    pub fn search(&self, key: &[u8]) -> Result<usize, usize> {
        let Some(rest) = key.strip_prefix(self.prefix()) else {
            return Err(if key < self.prefix() { 0 } else { self.len() });
        };
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = usize::midpoint(low, high);
            match self.rest(middle).cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }

    /// Inserts a key where [`Self::search`] says.
    pub fn insert(&mut self, at: usize, key: &[u8]) {
        if self.len() == 0 {
            self.prefix = key.into();
        }
        let common = common(&self.prefix, key);
        if common < self.prefix.len() {
            self.shorten(common);
        }
        let rest = &key[common..];
        let (start, before) = (self.start(at), self.rest.len());
        reserve(&mut self.rest, rest.len(), before / 8 + 64);
        self.rest.resize(before + rest.len(), 0);
        self.rest.copy_within(start..before, start + rest.len());
        self.rest[start..start + rest.len()].copy_from_slice(rest);
        reserve(&mut self.ends, 1, ENDS_STEP);
        self.ends.insert(at, start as u32);
        for end in &mut self.ends[at..] {
            *end += rest.len() as u32;
        }
    }

    pub fn remove(&mut self, at: usize) {
        let (start, end) = (self.start(at), self.ends[at] as usize);
        self.rest.drain(start..end);
        self.ends.remove(at);
        for later in &mut self.ends[at..] {
            *later -= (end - start) as u32;
        }
        if self.rest.capacity() > 2 * self.rest.len() + 256 {
            self.rest.shrink_to_fit();
        }
    }

    /// Splits off the keys from `at` on.
    pub fn split_off(&mut self, at: usize) -> Self {
        let start = self.start(at);
        let ends = self.ends[at..].iter().map(|end| end - start as u32).collect();
        let mut right = Self { prefix: self.prefix.clone(), rest: self.rest[start..].to_vec(), ends };
        right.tighten();
        self.truncate(at);
        right
    }

    /// Keeps the first `len` keys.
    pub fn truncate(&mut self, len: usize) {
        self.rest.truncate(self.start(len));
        self.ends.truncate(len);
        self.tighten();
        self.rest.shrink_to_fit();
        self.ends.shrink_to_fit();
    }

    /// Appends keys that are all greater.
    pub fn append(&mut self, mut right: Self) {
        if self.len() == 0 || right.len() == 0 {
            if self.len() == 0 {
                *self = right;
            }
            return;
        }
        let common = common(&self.prefix, &right.prefix);
        self.shorten(common);
        right.shorten(common);
        let start = self.rest.len() as u32;
        self.rest.reserve_exact(right.rest.len());
        self.rest.extend_from_slice(&right.rest);
        self.ends.reserve_exact(right.len());
        self.ends.extend(right.ends.iter().map(|end| end + start));
    }

    /// Gives back the end of the prefix to each key.
    fn shorten(&mut self, len: usize) {
        if len == self.prefix.len() {
            return;
        }
        let tail = self.prefix[len..].to_vec();
        let mut rest = Vec::with_capacity(self.rest.len() + tail.len() * self.len());
        for at in 0..self.len() {
            rest.extend_from_slice(&tail);
            rest.extend_from_slice(self.rest(at));
        }
        for (before, end) in (1..).zip(&mut self.ends) {
            *end += tail.len() as u32 * before;
        }
        self.rest = rest;
        self.prefix = self.prefix[..len].into();
    }

    /// Makes the prefix as long as it can be.
    fn tighten(&mut self) {
        let Some(last) = self.len().checked_sub(1) else { return };
        let more = common(self.rest(0), self.rest(last));
        if more == 0 {
            return;
        }
        self.prefix = [&self.prefix, &self.rest[..more]].concat().into();
        let mut rest = Vec::with_capacity(self.rest.len() - more * self.len());
        for at in 0..self.len() {
            rest.extend_from_slice(&self.rest(at)[more..]);
        }
        for (before, end) in (1..).zip(&mut self.ends) {
            *end -= more as u32 * before;
        }
        self.rest = rest;
    }

    /// Gives unused memory back.
    pub fn fit(&mut self) {
        self.tighten();
        self.rest.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

/// How many bytes two strings begin with alike.
pub(super) fn common(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Makes room for `more` elements, `step` at once: doubling would waste half of a node.
pub(super) fn reserve<T>(vec: &mut Vec<T>, more: usize, step: usize) {
    if vec.capacity() - vec.len() < more {
        vec.reserve_exact(more.max(step));
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::Index as Place};

    use super::*;

    fn keys(run: &KeyRun) -> Vec<Vec<u8>> {
        (0..run.len()).map(|at| run.key(at)).collect()
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        vec(b'a'..=b'c', 0..8)
    }

    proptest! {
        #[test]
        fn a_run_is_a_sorted_set(inserts in vec(name(), 1..60), removals in vec(any::<Place>(), 0..30), split: Place, probes in vec(name(), 20)) {
            let mut model: Vec<Vec<u8>> = Vec::new();
            let mut run = KeyRun::default();
            for key in inserts {
                prop_assert_eq!(run.search(&key), model.binary_search(&key));
                if let Err(at) = model.binary_search(&key) {
                    run.insert(at, &key);
                    model.insert(at, key);
                }
                prop_assert_eq!(keys(&run), &model[..]);
            }
            for removal in removals {
                if model.is_empty() {
                    break;
                }
                let at = removal.index(model.len());
                run.remove(at);
                model.remove(at);
                prop_assert_eq!(keys(&run), &model[..]);
            }
            for probe in &probes {
                prop_assert_eq!(run.search(probe), model.binary_search(probe));
            }
            let at = split.index(model.len() + 1);
            let mut right = run.split_off(at);
            prop_assert_eq!(keys(&run), &model[..at]);
            prop_assert_eq!(keys(&right), &model[at..]);
            right.fit();
            run.append(right);
            prop_assert_eq!(keys(&run), &model[..]);
            for probe in &probes {
                prop_assert_eq!(run.search(probe), model.binary_search(probe));
            }
        }
    }
}

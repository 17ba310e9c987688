//! The ordered map from keys to their histories: a B+-tree whose inner nodes know how many keys live below.
//!
//! A count over any range at the newest revision looks at one path from the root for each end of the range, whatever lies between. At an older revision it
//! does not look into nodes in which nothing came to life or died since, or which are younger as a whole; of others, those above the leaves know when their
//! keys did (`turns`), so that keys are looked at one by one only at the two ends of the range.
//!
//! Memory: 32 bytes of history and 4 of offset a key, 4 for each time that it came to life or died since the last compaction, the part of the key that its
//! neighbours do not share, and the unused ends of a node's arrays, which grow by an eighth at a time: with a node's own 150 bytes shared by 32 to 64 keys,
//! some 50 bytes beside the key.

use bytes::Bytes;

use super::{
    Revision,
    history::History,
    node::{CountAt, Inner, Node, Split, Weight},
};

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

#[derive(Debug)]
pub(super) struct Tree {
    root: Node,
    weight: Weight,
    len: usize,
}

impl Default for Tree {
    fn default() -> Self {
        Self::of(Node::Leaf(Box::default()), 0)
    }
}

impl Tree {
    /// The tree of a root with `len` keys below.
    pub fn of(root: Node, len: usize) -> Self {
        Self { weight: root.weight(), root, len }
    }

    pub fn get(&self, key: &[u8]) -> Option<&History> {
        let mut node = &self.root;
        loop {
            match node {
                Node::Inner(inner) => node = &inner.children[inner.child(key)],
                Node::Leaf(leaf) => return leaf.keys.search(key).ok().map(|at| &leaf.histories[at]),
            }
        }
    }

    /// Lets `edit` change the history of `key`, or give a new key its first.
    pub fn edit<R>(&mut self, key: &[u8], edit: impl FnOnce(Option<&mut History>) -> (Option<History>, R)) -> R {
        let edited = self.root.edit(key, edit);
        self.len += usize::from(edited.added);
        edited.change.apply(&mut self.weight);
        if let Some(split) = edited.split {
            self.grow(split);
        }
        edited.result
    }

    /// Puts a root above the old one and what was split off.
    fn grow(&mut self, Split { at, right }: Split) {
        let left = std::mem::replace(&mut self.root, Node::Inner(Box::default()));
        let mut root = Inner { weights: vec![left.weight(), right.weight()], ..Inner::default() };
        root.separators.insert(0, &at);
        root.children = vec![left, right];
        root.learn_turns(0);
        self.root = Node::Inner(Box::new(root));
    }

    /// Visits keys from `from` in order until `visit` says no; `live_only` skips keys without a newest value.
    pub fn walk(&self, from: &[u8], live_only: bool, visit: &mut dyn FnMut(&[u8], &History) -> bool) {
        self.root.walk(from, live_only, &mut Vec::new(), visit);
    }

    /// Edits up to `max_keys` keys from `from` on; where to go on, if any may be left. Nobody will ask for what was before main revision `oldest`.
    pub fn sweep(
        &mut self,
        from: &[u8],
        oldest: i64,
        max_keys: usize,
        edit: &mut dyn FnMut(&mut History) -> Sweep,
    ) -> Option<Bytes> {
        let mut from = from.to_vec();
        let mut left = max_keys;
        loop {
            let swept = self.root.sweep(&from, oldest, &mut left, edit);
            self.len -= swept.removed;
            if swept.removed > 0 {
                self.shrink();
            }
            self.weight = self.root.weight();
            if let Some(stopped) = swept.stopped {
                return Some(stopped.into());
            }
            from = swept.behind?;
            if left == 0 {
                return Some(from.into());
            }
        }
    }

    /// Takes away roots with a single child, or none.
    fn shrink(&mut self) {
        while let Node::Inner(inner) = &mut self.root {
            match inner.children.len() {
                0 => self.root = Node::Leaf(Box::default()),
                1 => self.root = inner.children.remove(0),
                _ => return,
            }
        }
    }

    /// Live keys before `key`.
    pub fn rank(&self, key: &[u8]) -> u64 {
        let mut node = &self.root;
        let mut rank = 0;
        loop {
            match node {
                Node::Inner(inner) => {
                    let at = inner.child(key);
                    rank += inner.weights[..at].iter().map(|weight| weight.live).sum::<u64>();
                    node = &inner.children[at];
                }
                Node::Leaf(leaf) => {
                    let at = leaf.keys.search(key).unwrap_or_else(|at| at);
                    return rank + leaf.histories[..at].iter().filter(|history| history.is_live()).count() as u64;
                }
            }
        }
    }

    /// How many keys from `from` to `end` lived at `at`, looking at no more than about `max_keys` one by one; and where to go on.
    pub fn count_at(&self, from: &[u8], end: Option<&[u8]>, at: Revision, max_keys: usize) -> (u64, Option<Vec<u8>>) {
        if end.is_some_and(|end| end <= from) {
            return (0, None);
        }
        let mut counting = CountAt { end, at, left: max_keys.max(1), count: 0, next: None };
        self.root.count_at(from, end.is_some(), &mut counting);
        (counting.count, counting.next)
    }

    /// All live keys.
    pub fn live(&self) -> u64 {
        self.weight.live
    }

    /// All keys, live or not.
    pub fn len(&self) -> usize {
        self.len
    }
}

#[cfg(test)]
mod tests;

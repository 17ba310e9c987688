//! Builds a tree from keys in ascending order, much faster than inserting them.

use super::{
    history::History,
    keys::common,
    node::{FANOUT_MAX, Inner, Leaf, Node},
    tree::Tree,
};

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Builder {
    leaf: Leaf,
    /// Finished leaves, and the separator before each.
    done: Vec<(Vec<u8>, Node)>,
    last: Vec<u8>,
    len: usize,
}

/// Keys of a leaf and children of an inner node that [`Builder`] makes: some room is left.
const BUILT: usize = FANOUT_MAX / 8 * 7;
/// Bytes of keys of a node that [`Builder`] makes, unless a single one has more.
const BUILT_BYTES: usize = 16 << 10;

impl Builder {
    /// Adds a key; `false`, and nothing is added, if it does not follow the one before.
    pub fn push(&mut self, key: &[u8], history: History) -> bool {
        if self.len > 0 && key <= &self.last[..] {
            return false;
        }
        if self.leaf.histories.len() >= BUILT || (self.leaf.keys.bytes() + key.len() > BUILT_BYTES && self.len > 0) {
            self.finish_leaf();
        }
        if self.leaf.histories.is_empty() {
            let separator = if self.len == 0 { Vec::new() } else { key[..=common(&self.last, key)].to_vec() };
            self.leaf.histories.reserve_exact(BUILT);
            self.done.push((separator, Node::Leaf(Box::default())));
        }
        self.leaf.keys.insert(self.leaf.keys.len(), key);
        self.leaf.histories.push(history);
        self.last.clear();
        self.last.extend_from_slice(key);
        self.len += 1;
        true
    }

    fn finish_leaf(&mut self) {
        let mut leaf = std::mem::take(&mut self.leaf);
        if let Some((_, node)) = self.done.last_mut()
            && !leaf.histories.is_empty()
        {
            leaf.keys.fit();
            leaf.histories.shrink_to_fit();
            *node = Node::Leaf(Box::new(leaf));
        }
    }

    /// The tree of all keys. Nobody will ask for what was before main revision `oldest`.
    pub fn finish(mut self, oldest: i64) -> Tree {
        self.finish_leaf();
        let mut level = self.done;
        while level.len() > 1 {
            let mut above: Vec<(Vec<u8>, Node)> = Vec::with_capacity(level.len() / BUILT + 1);
            for (separator, node) in level {
                match above.last_mut() {
                    Some((_, Node::Inner(inner)))
                        if inner.children.len() < 2
                            || (inner.children.len() < BUILT
                                && inner.separators.bytes() + separator.len() <= BUILT_BYTES) =>
                    {
                        inner.separators.insert(inner.separators.len(), &separator);
                        inner.weights.push(node.weight());
                        inner.children.push(node);
                    }
                    _ => {
                        let weights = vec![node.weight()];
                        let inner = Inner { weights, children: vec![node], ..Inner::default() };
                        above.push((separator, Node::Inner(Box::new(inner))));
                    }
                }
            }
            for (_, node) in &mut above {
                if let Node::Inner(inner) = node {
                    inner.learn_turns(oldest);
                }
            }
            level = above;
        }
        let root = level.pop().map_or_else(|| Node::Leaf(Box::default()), |(_, node)| node);
        Tree::of(root, self.len)
    }
}

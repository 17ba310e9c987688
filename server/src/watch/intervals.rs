//! Ranges of keys, asked for the ones that hold a given key.
//!
//! A treap ordered by start, then end; every node knows the furthest end below it, so that branches whose ranges all
//! end before the key are passed over. The priorities that keep it balanced come from a fixed sequence: the same
//! insertions give the same tree.

use std::cmp::Ordering;

use bytes::Bytes;

/// Where a range ends: before a key, or not at all (`None`).
type End = Option<Bytes>;

/// The order of ends: no end is the furthest.
fn order(a: &End, b: &End) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(a), Some(b)) => a.cmp(b),
    }
}

fn is_before(key: &[u8], end: &End) -> bool {
    end.as_ref().is_none_or(|end| key < &end[..])
}

#[derive(Debug)]
struct Node<T> {
    from: Bytes,
    end: End,
    value: T,
    priority: u64,
    furthest: End,
    left: Link<T>,
    right: Link<T>,
}

type Link<T> = Option<Box<Node<T>>>;

impl<T> Node<T> {
    fn place(&self, from: &[u8], end: &End) -> Ordering {
        from.cmp(&self.from[..]).then_with(|| order(end, &self.end))
    }

    fn refresh(&mut self) {
        let mut furthest = &self.end;
        for child in [&self.left, &self.right].into_iter().flatten() {
            if order(&child.furthest, furthest).is_gt() {
                furthest = &child.furthest;
            }
        }
        let furthest = furthest.clone();
        self.furthest = furthest;
    }
}

/// See the module's text. Every range has one value.
#[derive(Debug)]
pub(super) struct Intervals<T> {
    root: Link<T>,
    seed: u64,
}

impl<T> Default for Intervals<T> {
    fn default() -> Self {
        Self { root: None, seed: 0 }
    }
}

impl<T: Default> Intervals<T> {
    /// The value of a range, which is entered if it is not there.
    pub(super) fn entry(&mut self, from: &Bytes, end: &End) -> &mut T {
        if self.get(from, end).is_none() {
            // SplitMix64: spreads a counter over all priorities.
            self.seed = self.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.seed;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let node = Box::new(Node {
                from: from.clone(),
                end: end.clone(),
                value: T::default(),
                priority: mixed ^ (mixed >> 31),
                furthest: end.clone(),
                left: None,
                right: None,
            });
            insert(&mut self.root, node);
        }
        self.get(from, end).expect("the range was just entered")
    }

    /// The value of a range.
    pub(super) fn get(&mut self, from: &[u8], end: &End) -> Option<&mut T> {
        let mut at = self.root.as_mut();
        while let Some(node) = at {
            match node.place(from, end) {
                Ordering::Less => at = node.left.as_mut(),
                Ordering::Greater => at = node.right.as_mut(),
                Ordering::Equal => return Some(&mut node.value),
            }
        }
        None
    }

    /// Removes a range.
    pub(super) fn remove(&mut self, from: &[u8], end: &End) {
        self.root = remove(self.root.take(), from, end);
    }

    /// Visits the values of all ranges that hold `key`.
    pub(super) fn find(&self, key: &[u8], visit: &mut dyn FnMut(&T)) {
        find(self.root.as_deref(), key, visit);
    }
}

/// Everything before a place, and everything behind it.
fn split<T>(link: Link<T>, from: &[u8], end: &End) -> (Link<T>, Link<T>) {
    let Some(mut node) = link else { return (None, None) };
    if node.place(from, end).is_gt() {
        let (left, right) = split(node.right.take(), from, end);
        node.right = left;
        node.refresh();
        (Some(node), right)
    } else {
        let (left, right) = split(node.left.take(), from, end);
        node.left = right;
        node.refresh();
        (left, Some(node))
    }
}

fn merge<T>(left: Link<T>, right: Link<T>) -> Link<T> {
    match (left, right) {
        (None, one) | (one, None) => one,
        (Some(mut left), Some(right)) if left.priority > right.priority => {
            left.right = merge(left.right.take(), Some(right));
            left.refresh();
            Some(left)
        }
        (left, Some(mut right)) => {
            right.left = merge(left, right.left.take());
            right.refresh();
            Some(right)
        }
    }
}

fn insert<T>(link: &mut Link<T>, mut new: Box<Node<T>>) {
    if let Some(node) = link.as_mut().filter(|node| node.priority >= new.priority) {
        let below = if node.place(&new.from, &new.end).is_lt() { &mut node.left } else { &mut node.right };
        insert(below, new);
        node.refresh();
        return;
    }
    (new.left, new.right) = split(link.take(), &new.from, &new.end);
    new.refresh();
    *link = Some(new);
}

fn remove<T>(link: Link<T>, from: &[u8], end: &End) -> Link<T> {
    let mut node = link?;
    match node.place(from, end) {
        Ordering::Less => node.left = remove(node.left.take(), from, end),
        Ordering::Greater => node.right = remove(node.right.take(), from, end),
        Ordering::Equal => return merge(node.left.take(), node.right.take()),
    }
    node.refresh();
    Some(node)
}

fn find<T>(link: Option<&Node<T>>, key: &[u8], visit: &mut dyn FnMut(&T)) {
    let Some(node) = link.filter(|node| is_before(key, &node.furthest)) else { return };
    find(node.left.as_deref(), key, visit);
    if &node.from[..] <= key {
        if is_before(key, &node.end) {
            visit(&node.value);
        }
        find(node.right.as_deref(), key, visit);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn depth<T>(link: Option<&Node<T>>) -> usize {
        link.map_or(0, |node| 1 + depth(node.left.as_deref()).max(depth(node.right.as_deref())))
    }

    fn end(bytes: u8) -> End {
        (bytes != 0).then(|| Bytes::copy_from_slice(&[bytes]))
    }

    proptest! {
        #[test]
        fn a_key_finds_the_ranges_that_hold_it(changes in vec((any::<bool>(), 0..20u8, 0..20u8), 0..120)) {
            let mut tree = Intervals::<(u8, u8)>::default();
            let mut naive = BTreeSet::new();
            for (add, from, to) in changes {
                let start = Bytes::copy_from_slice(&[from]);
                if add {
                    *tree.entry(&start, &end(to)) = (from, to);
                    naive.insert((from, to));
                } else {
                    tree.remove(&start, &end(to));
                    naive.remove(&(from, to));
                }
                for key in 0..21u8 {
                    let mut found = BTreeSet::new();
                    tree.find(&[key], &mut |range| assert!(found.insert(*range), "found twice"));
                    let expected = naive.iter().copied().filter(|(from, to)| *from <= key && (*to == 0 || key < *to));
                    prop_assert_eq!(found, expected.collect::<BTreeSet<_>>());
                }
            }
        }
    }

    #[test]
    fn ranges_that_come_in_order_do_not_make_a_deep_tree() {
        let mut tree = Intervals::<u32>::default();
        for number in 0..10_000u32 {
            let from = Bytes::copy_from_slice(&number.to_be_bytes());
            *tree.entry(&from, &Some(Bytes::copy_from_slice(&(number + 1).to_be_bytes()))) = number;
        }
        assert!(depth(tree.root.as_deref()) < 60, "{}", depth(tree.root.as_deref()));
    }
}

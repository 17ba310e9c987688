//! Nodes of the tree.
//!
//! ```text
//! inner    separators  "b"    "da"        a child's keys are at or above the separator before it and below the one behind it
//!          children    [0] [1]   [2]      the weight of each child stands beside it
//!          turns       of the keys below, if the children are leaves
//! leaf     keys, and the history of each
//! ```
//! All leaves are equally deep. A node is split when it has too many keys or bytes, and merged with a neighbour when it has become small and both fit
//! well into one; an empty one goes at once.

use super::{
    Revision,
    history::History,
    keys::{KeyRun, common, reserve},
    tree::Sweep,
    turns::{Turn, Turns},
};

/// Keys of a leaf and children of an inner node at most.
pub(super) const FANOUT_MAX: usize = 64;
/// Nodes with fewer look for a neighbour to merge with.
const FANOUT_SMALL: usize = FANOUT_MAX / 4;
/// Merged nodes have no more than this, so that the next insert does not split them again.
const FANOUT_MERGED: usize = FANOUT_MAX / 4 * 3;
/// Bytes of keys at which a node of at least four is split, whatever their number: inserting moves them.
const KEY_BYTES_MAX: usize = 32 << 10;
/// Histories of a leaf grow by so many at a time.
const HISTORIES_STEP: usize = 8;
/// Counting by turns counts as looking at so many keys.
const TURNS_COST: usize = 16;

/// What is known of the keys below a node without looking at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Weight {
    /// Keys that live now. Exact.
    pub live: u64,
    /// Since this main revision at the latest no key came to life or died.
    pub turned: i64,
    /// No event is older than this main revision.
    pub oldest: i64,
}

impl Weight {
    const NONE: Self = Self { live: 0, turned: i64::MIN, oldest: i64::MAX };

    fn of(history: &History) -> Self {
        Self { live: u64::from(history.is_live()), turned: history.turned(), oldest: history.oldest() }
    }

    fn and(self, other: Self) -> Self {
        Self {
            live: self.live + other.live,
            turned: self.turned.max(other.turned),
            oldest: self.oldest.min(other.oldest),
        }
    }

    fn sum(weights: impl Iterator<Item = Self>) -> Self {
        weights.fold(Self::NONE, Self::and)
    }

    /// How many keys lived at `at`, if that is known.
    fn live_at(&self, at: Revision) -> Option<u64> {
        if self.oldest > at.main {
            return Some(0);
        }
        (Revision::whole(self.turned) <= at).then_some(self.live)
    }
}

/// What an edit did to the weight of the nodes above.
#[derive(Debug, Clone, Copy)]
pub(super) struct Change {
    before: u64,
    after: Weight,
    turn: Option<Turn>,
}

impl Change {
    const NONE: Self = Self { before: 0, after: Weight::NONE, turn: None };

    pub fn apply(&self, weight: &mut Weight) {
        weight.live -= self.before;
        *weight = weight.and(self.after);
    }
}

/// How an edit ended.
pub(super) struct Edited<R> {
    pub result: R,
    pub change: Change,
    pub added: bool,
    pub split: Option<Split>,
}

/// A node that was split off, and the separator before it.
pub(super) struct Split {
    pub at: Vec<u8>,
    pub right: Node,
}

/// How a sweep of one leaf ended.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// Keys removed.
    pub removed: usize,
    /// Where it stopped within the leaf.
    pub stopped: Option<Vec<u8>>,
    /// The separator behind the leaf.
    pub behind: Option<Vec<u8>>,
}

/// A count of the keys that lived at some revision, of a limited number of keys.
#[derive(Debug)]
pub(super) struct CountAt<'a> {
    pub end: Option<&'a [u8]>,
    pub at: Revision,
    /// Keys that may still be looked at, about.
    pub left: usize,
    pub count: u64,
    /// Where to go on.
    pub next: Option<Vec<u8>>,
}

#[derive(Debug)]
pub(super) enum Node {
    Leaf(Box<Leaf>),
    Inner(Box<Inner>),
}

#[derive(Debug, Default)]
pub(super) struct Leaf {
    pub keys: KeyRun,
    pub histories: Vec<History>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    pub separators: KeyRun,
    pub children: Vec<Node>,
    pub weights: Vec<Weight>,
    pub turns: Option<Turns>,
}

impl Node {
    pub fn weight(&self) -> Weight {
        match self {
            Self::Leaf(leaf) => Weight::sum(leaf.histories.iter().map(Weight::of)),
            Self::Inner(inner) => Weight::sum(inner.weights.iter().copied()),
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.histories.len(),
            Self::Inner(inner) => inner.children.len(),
        }
    }

    fn key_bytes(&self) -> usize {
        match self {
            Self::Leaf(leaf) => leaf.keys.bytes(),
            Self::Inner(inner) => inner.separators.bytes(),
        }
    }

    fn is_too_large(&self) -> bool {
        self.len() > FANOUT_MAX || (self.len() >= 4 && self.key_bytes() > KEY_BYTES_MAX)
    }

    pub fn edit<R, F>(&mut self, key: &[u8], edit: F) -> Edited<R>
    where
        F: FnOnce(Option<&mut History>) -> (Option<History>, R),
    {
        let (mut edited, inserted) = match self {
            Self::Leaf(leaf) => leaf.edit(key, edit),
            Self::Inner(inner) => inner.edit(key, edit),
        };
        if let Some(at) = inserted
            && self.is_too_large()
        {
            // Keys that come in ascending order leave full nodes behind.
            let len = self.len();
            edited.split = Some(self.split(if at + 1 == len { len - 1 } else { len / 2 }));
        }
        edited
    }

    fn split(&mut self, at: usize) -> Split {
        match self {
            Self::Leaf(leaf) => {
                let right = leaf.split(at);
                let (last, first) = (leaf.keys.key(at - 1), right.keys.key(0));
                // The shortest string that tells the halves apart.
                let separator = first[..=common(&last, &first)].to_vec();
                Split { at: separator, right: Self::Leaf(Box::new(right)) }
            }
            Self::Inner(inner) => {
                let (separator, right) = inner.split(at);
                Split { at: separator, right: Self::Inner(Box::new(right)) }
            }
        }
    }

    /// Visits keys from `from` on; `false` once `visit` said so. `key` is room for keys.
    pub fn walk(
        &self,
        from: &[u8],
        live_only: bool,
        key: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8], &History) -> bool,
    ) -> bool {
        match self {
            Self::Leaf(leaf) => leaf.walk(from, live_only, key, visit),
            Self::Inner(inner) => {
                let first = inner.child(from);
                (first..inner.children.len()).all(|at| {
                    let from = if at == first { from } else { b"" };
                    (live_only && inner.weights[at].live == 0) || inner.children[at].walk(from, live_only, key, visit)
                })
            }
        }
    }

    /// Counts keys from `from` on, up to the end if `ends_here`; `false` if it stopped early.
    pub fn count_at(&self, from: &[u8], ends_here: bool, counting: &mut CountAt<'_>) -> bool {
        match self {
            Self::Leaf(leaf) => {
                leaf.count_at(from, ends_here, counting);
                true
            }
            Self::Inner(inner) => inner.count_at(from, ends_here, counting),
        }
    }

    /// How many keys below lived then, if that is known without looking at them; `weight` is that of this node.
    fn lived(&self, weight: Weight, counting: &mut CountAt<'_>) -> Option<u64> {
        weight.live_at(counting.at).or_else(|| {
            let Self::Inner(inner) = self else { return None };
            let net = inner.turns.as_ref()?.net_after(counting.at)?;
            counting.left = counting.left.saturating_sub(TURNS_COST);
            weight.live.checked_add_signed(-net)
        })
    }

    /// Edits the keys of one leaf from `from` on, at most `left`. Nobody will ask for what was before main revision `oldest`.
    pub fn sweep(
        &mut self,
        from: &[u8],
        oldest: i64,
        left: &mut usize,
        edit: &mut dyn FnMut(&mut History) -> Sweep,
    ) -> Swept {
        match self {
            Self::Leaf(leaf) => leaf.sweep(from, left, edit),
            Self::Inner(inner) => {
                let at = inner.child(from);
                if let Some(turns) = &mut inner.turns {
                    turns.forget_to(oldest);
                }
                let mut swept = inner.children[at].sweep(from, oldest, left, edit);
                if swept.behind.is_none() && at < inner.separators.len() {
                    swept.behind = Some(inner.separators.key(at));
                }
                inner.weights[at] = inner.children[at].weight();
                if swept.removed > 0 {
                    inner.tidy(at);
                }
                swept
            }
        }
    }

    /// Appends the keys of a node of the same height that follow, all at or above `separator`.
    fn append(&mut self, separator: &[u8], right: Self) {
        match (self, right) {
            (Self::Leaf(left), Self::Leaf(mut right)) => {
                left.keys.append(right.keys);
                left.histories.reserve_exact(right.histories.len());
                left.histories.append(&mut right.histories);
            }
            (Self::Inner(left), Self::Inner(mut right)) => {
                left.separators.insert(left.separators.len(), separator);
                left.separators.append(right.separators);
                left.children.append(&mut right.children);
                left.weights.append(&mut right.weights);
                if let (Some(left), Some(right)) = (&mut left.turns, right.turns) {
                    left.append(right);
                }
            }
            (Self::Leaf(_), Self::Inner(_)) | (Self::Inner(_), Self::Leaf(_)) => {
                unreachable!("neighbours are equally deep")
            }
        }
    }
}

impl Leaf {
    fn edit<R, F>(&mut self, key: &[u8], edit: F) -> (Edited<R>, Option<usize>)
    where
        F: FnOnce(Option<&mut History>) -> (Option<History>, R),
    {
        match self.keys.search(key) {
            Ok(at) => {
                let history = &mut self.histories[at];
                let before = (history.is_live(), history.newest_at(), history.len());
                let (_, result) = edit(Some(history));
                let (turn, before) = (Turn::since(before, history), u64::from(before.0));
                let change = Change { before, after: Weight::of(history), turn };
                (Edited { result, change, added: false, split: None }, None)
            }
            Err(at) => {
                let (first, result) = edit(None);
                let Some(history) = first else {
                    return (Edited { result, change: Change::NONE, added: false, split: None }, None);
                };
                let turn = history.is_live().then_some(Turn::Birth(history.newest_at().main));
                let change = Change { before: 0, after: Weight::of(&history), turn };
                self.keys.insert(at, key);
                reserve(&mut self.histories, 1, HISTORIES_STEP);
                self.histories.insert(at, history);
                (Edited { result, change, added: true, split: None }, Some(at))
            }
        }
    }

    fn split(&mut self, at: usize) -> Self {
        let right = Self { keys: self.keys.split_off(at), histories: self.histories.split_off(at) };
        self.histories.shrink_to_fit();
        right
    }

    /// The first key at or above `from`.
    fn first(&self, from: &[u8]) -> usize {
        if from.is_empty() { 0 } else { self.keys.search(from).unwrap_or_else(|at| at) }
    }

    fn walk(
        &self,
        from: &[u8],
        live_only: bool,
        key: &mut Vec<u8>,
        visit: &mut dyn FnMut(&[u8], &History) -> bool,
    ) -> bool {
        key.clear();
        key.extend_from_slice(self.keys.prefix());
        let prefix = key.len();
        for at in self.first(from)..self.histories.len() {
            let history = &self.histories[at];
            if live_only && !history.is_live() {
                continue;
            }
            key.truncate(prefix);
            key.extend_from_slice(self.keys.rest(at));
            if !visit(key, history) {
                return false;
            }
        }
        true
    }

    fn count_at(&self, from: &[u8], ends_here: bool, counting: &mut CountAt<'_>) {
        let first = self.first(from);
        let end = match counting.end {
            Some(end) if ends_here => self.keys.search(end).unwrap_or_else(|at| at),
            _ => self.histories.len(),
        };
        let at = counting.at;
        let histories = self.histories.get(first..end).unwrap_or_default();
        counting.left = counting.left.saturating_sub(histories.len());
        counting.count += histories.iter().filter(|history| history.is_live_at(at)).count() as u64;
    }

    fn sweep(&mut self, from: &[u8], left: &mut usize, edit: &mut dyn FnMut(&mut History) -> Sweep) -> Swept {
        let mut swept = Swept::default();
        let mut at = self.first(from);
        while at < self.histories.len() {
            let did = if *left == 0 { Sweep::Stop } else { edit(&mut self.histories[at]) };
            match did {
                Sweep::Keep => at += 1,
                Sweep::Remove => {
                    self.keys.remove(at);
                    self.histories.remove(at);
                    swept.removed += 1;
                }
                Sweep::Stop => {
                    swept.stopped = Some(self.keys.key(at));
                    break;
                }
            }
            *left -= 1;
        }
        if self.histories.capacity() > 2 * self.histories.len() + HISTORIES_STEP {
            self.histories.shrink_to_fit();
        }
        swept
    }
}

impl Inner {
    /// The child whose keys are around `key`.
    pub fn child(&self, key: &[u8]) -> usize {
        if key.is_empty() { 0 } else { self.separators.search(key).map_or_else(|at| at, |at| at + 1) }
    }

    fn edit<R, F>(&mut self, key: &[u8], edit: F) -> (Edited<R>, Option<usize>)
    where
        F: FnOnce(Option<&mut History>) -> (Option<History>, R),
    {
        let at = self.child(key);
        let mut edited = self.children[at].edit(key, edit);
        if let (Some(turns), Some(turn)) = (&mut self.turns, edited.change.turn) {
            turns.take(turn);
        }
        let Some(Split { at: separator, right }) = edited.split.take() else {
            edited.change.apply(&mut self.weights[at]);
            return (edited, None);
        };
        self.weights[at] = self.children[at].weight();
        self.separators.insert(at, &separator);
        self.weights.insert(at + 1, right.weight());
        self.children.insert(at + 1, right);
        (edited, Some(at + 1))
    }

    /// Splits off the children from `at` on, which is not 0; the separator before them goes up.
    fn split(&mut self, at: usize) -> (Vec<u8>, Self) {
        let separators = self.separators.split_off(at);
        let separator = self.separators.key(at - 1);
        self.separators.truncate(at - 1);
        let (children, weights) = (self.children.split_off(at), self.weights.split_off(at));
        let mut right = Self { separators, children, weights, turns: None };
        let known_after = self.turns.as_ref().map_or(0, Turns::floor);
        self.learn_turns(known_after);
        right.learn_turns(known_after);
        (separator, right)
    }

    /// Learns the turns after main revision `floor` of the keys below, if the children are leaves.
    pub fn learn_turns(&mut self, floor: i64) {
        let leaves = self.children.iter().filter_map(|child| match child {
            Node::Leaf(leaf) => Some(leaf),
            Node::Inner(_) => None,
        });
        self.turns = matches!(self.children[..], [Node::Leaf(_), ..])
            .then(|| Turns::of(leaves.flat_map(|leaf| &leaf.histories), floor));
    }

    fn count_at(&self, from: &[u8], ends_here: bool, counting: &mut CountAt<'_>) -> bool {
        let (first, begins_between) = match self.separators.search(from) {
            _ if from.is_empty() => (0, false),
            Ok(at) => (at + 1, false),
            Err(at) => (at, true),
        };
        let (last, ends_between) = match counting.end.map(|end| self.separators.search(end)) {
            Some(Ok(at)) if ends_here => (at, false),
            Some(Err(at)) if ends_here => (at, true),
            _ => (self.children.len() - 1, false),
        };
        for at in first..=last {
            let (begins, ends) = (begins_between && at == first, ends_between && at == last);
            let (child, weight) = (&self.children[at], self.weights[at]);
            let known = if begins || ends {
                weight.live_at(counting.at).filter(|live| *live == 0)
            } else {
                child.lived(weight, counting)
            };
            match known {
                Some(live) => counting.count += live,
                None if child.count_at(if begins { from } else { b"" }, ends, counting) => {}
                None => return false,
            }
            if counting.left == 0 && at < last {
                counting.next = Some(self.separators.key(at));
                return false;
            }
        }
        true
    }

    /// Removes child `at` if nothing is left of it, or merges it with a neighbour if both are small enough.
    fn tidy(&mut self, at: usize) {
        if self.children[at].len() == 0 {
            self.children.remove(at);
            self.weights.remove(at);
            if self.separators.len() > 0 {
                self.separators.remove(at.saturating_sub(1));
            }
            return;
        }
        if self.children[at].len() >= FANOUT_SMALL {
            return;
        }
        let fits = |left: &Node, right: &Node| {
            left.len() + right.len() <= FANOUT_MERGED && left.key_bytes() + right.key_bytes() <= KEY_BYTES_MAX / 2
        };
        let pair = [at.checked_sub(1), Some(at)]
            .into_iter()
            .flatten()
            .find(|left| self.children.get(left + 1).is_some_and(|right| fits(&self.children[*left], right)));
        if let Some(left) = pair {
            let right = self.children.remove(left + 1);
            let weight = self.weights.remove(left + 1);
            let separator = self.separators.key(left);
            self.separators.remove(left);
            self.children[left].append(&separator, right);
            self.weights[left] = self.weights[left].and(weight);
        }
    }
}

#[cfg(test)]
impl Node {
    /// Checks what holds for every node; answers height and keys.
    pub fn check(&self, from: &[u8], to: Option<&[u8]>) -> (usize, usize) {
        match self {
            Self::Leaf(leaf) => {
                assert_eq!(leaf.keys.len(), leaf.histories.len());
                let keys: Vec<_> = (0..leaf.keys.len()).map(|at| leaf.keys.key(at)).collect();
                assert!(keys.is_sorted_by(|a, b| a < b));
                assert!(keys.iter().all(|key| &key[..] >= from && to.is_none_or(|to| &key[..] < to)));
                (1, keys.len())
            }
            Self::Inner(inner) => {
                let children = inner.children.len();
                assert!((1..=FANOUT_MAX).contains(&children));
                assert_eq!((inner.weights.len(), inner.separators.len()), (children, children - 1));
                let mut keys = 0;
                let mut heights = Vec::new();
                for (at, child) in inner.children.iter().enumerate() {
                    assert!(child.len() > 0, "an empty node was left");
                    let low = if at == 0 { from.to_vec() } else { inner.separators.key(at - 1) };
                    let high = inner.separators.len().gt(&at).then(|| inner.separators.key(at));
                    let (height, below) = child.check(&low, high.as_deref().or(to));
                    heights.push(height);
                    keys += below;
                    let (told, is) = (inner.weights[at], child.weight());
                    assert_eq!(told.live, is.live, "live keys below a node are miscounted");
                    assert!(told.turned >= is.turned && told.oldest <= is.oldest, "{told:?} promises more than {is:?}");
                }
                assert!(heights.windows(2).all(|pair| pair[0] == pair[1]), "leaves are not equally deep");
                assert_eq!(inner.turns.is_some(), heights[0] == 1);
                inner.check_turns();
                (heights[0] + 1, keys)
            }
        }
    }
}

#[cfg(test)]
impl Inner {
    /// Checks what the turns say of some revisions against the histories.
    fn check_turns(&self) {
        let Some(turns) = &self.turns else { return };
        let leaves = self.children.iter().map(|child| match child {
            Node::Leaf(leaf) => leaf,
            Node::Inner(_) => unreachable!("leaves are equally deep"),
        });
        let histories: Vec<_> = leaves.flat_map(|leaf| &leaf.histories).collect();
        let live = histories.iter().filter(|history| history.is_live()).count() as i64;
        let some = histories.iter().step_by(histories.len() / 8 + 1).map(|history| history.newest_at().main);
        for main in some.flat_map(|main| [main - 1, main]).chain([turns.floor()]) {
            let at = Revision::whole(main);
            if let Some(net) = turns.net_after(at) {
                let lived = histories.iter().filter(|history| history.is_live_at(at)).count() as i64;
                assert_eq!(live - net, lived, "turns of another past, at {main}");
            }
        }
    }
}

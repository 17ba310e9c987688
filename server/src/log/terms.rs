//! Which term each entry of the log has, kept as runs of equal terms: a handful of pairs however long the log is.

/// The identity of an entry: its index and its term. Two logs that hold the same `EntryId` are equal up to it (raft
/// paper, 5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId {
    /// The entry's place in the log; the first entry ever has index 1.
    pub index: u64,
    /// The term in which a leader created the entry.
    pub term: u64,
}

impl EntryId {
    /// The entry `index` of `term`.
    pub fn new(index: u64, term: u64) -> Self {
        Self { index, term }
    }
}

/// The terms of the entries from `base` (the entry just before the first one kept) to the last one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// `runs[0]` is the base; each of the others is the first entry of its term.
    runs: Vec<EntryId>,
    last_index: u64,
}

impl Terms {
    /// A log without entries after `base`.
    pub fn new(base: EntryId) -> Self {
        Self { runs: vec![base], last_index: base.index }
    }

    /// The entry just before the first one: index 0 and term 0 in a log that was never cut.
    pub fn base(&self) -> EntryId {
        self.runs[0]
    }

    /// The index of the first entry there is or will be.
    pub fn first_index(&self) -> u64 {
        self.base().index + 1
    }

    /// The last entry, or the base if there is none.
    pub fn last(&self) -> EntryId {
        let term = self.runs.last().map_or(0, |run| run.term);
        EntryId { index: self.last_index, term }
    }

    /// The term of entry `index`; none before the base and after the last entry.
    pub fn term(&self, index: u64) -> Option<u64> {
        if index > self.last_index {
            return None;
        }
        let after = self.runs.partition_point(|run| run.index <= index);
        Some(self.runs[after.checked_sub(1)?].term)
    }

    /// Adds `entry`; whatever had its index or a higher one is gone: the later write wins.
    ///
    /// # Panics
    /// If the entry is not above the base or leaves a gap: the caller has to refuse it before.
    pub fn append(&mut self, entry: EntryId) {
        assert!(
            entry.index > self.base().index && entry.index <= self.last_index + 1,
            "entry {} does not fit a log from {} to {}",
            entry.index,
            self.first_index(),
            self.last_index
        );
        if entry.index <= self.last_index {
            let keep = self.runs.partition_point(|run| run.index < entry.index);
            self.runs.truncate(keep);
        }
        self.last_index = entry.index;
        if self.runs.last().is_none_or(|run| run.term != entry.term) {
            self.runs.push(entry);
        }
    }

    /// Forgets the entries up to and with `index`, whose term stays known. An index before the base changes nothing.
    ///
    /// # Panics
    /// If `index` is beyond the last entry.
    pub fn purge(&mut self, index: u64) {
        assert!(index <= self.last_index, "purge up to {index} in a log that ends at {}", self.last_index);
        let Some(term) = self.term(index) else { return };
        let gone = self.runs.partition_point(|run| run.index <= index);
        self.runs.drain(..gone - 1);
        self.runs[0] = EntryId { index, term };
    }

    /// Corrects the base's term, when it was not known at first.
    pub(crate) fn set_base_term(&mut self, term: u64) {
        self.runs[0].term = term;
    }

    /// Forgets everything; the log begins again after `base`.
    pub fn reset(&mut self, base: EntryId) {
        *self = Self::new(base);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_new_log_knows_only_the_term_of_its_base() {
        let terms = Terms::new(EntryId::new(7, 3));
        assert_eq!(terms.term(6), None);
        assert_eq!(terms.term(7), Some(3));
        assert_eq!(terms.term(8), None);
        assert_eq!(terms.last(), EntryId::new(7, 3));
        assert_eq!(terms.first_index(), 8);
    }

    proptest! {
        #[test]
        fn terms_are_those_of_a_plain_map(ops in prop::collection::vec((0..3u8, 0..1000u64, 0..3u64), 0..200)) {
            let mut terms = Terms::new(EntryId::new(0, 0));
            let mut model = BTreeMap::from([(0u64, 0u64)]);
            for (kind, pick, more) in ops {
                let (base, last) = (*model.first_key_value().unwrap().0, *model.last_key_value().unwrap().0);
                match kind {
                    0 | 1 => {
                        let index = if kind == 0 { last + 1 } else { base + 1 + pick % (last + 1 - base) };
                        let term = model[&(index - 1)] + more / 2;
                        model.split_off(&index);
                        model.insert(index, term);
                        terms.append(EntryId::new(index, term));
                    }
                    _ => {
                        let index = base + pick % (last + 1 - base);
                        model = model.split_off(&index);
                        terms.purge(index);
                    }
                }
                let (base, last) = (*model.first_key_value().unwrap().0, *model.last_key_value().unwrap().0);
                prop_assert_eq!(terms.base(), EntryId::new(base, model[&base]));
                prop_assert_eq!(terms.last(), EntryId::new(last, model[&last]));
                for index in base.saturating_sub(2)..last + 3 {
                    prop_assert_eq!(terms.term(index), model.get(&index).copied());
                }
            }
        }
    }
}

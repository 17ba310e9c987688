//! The keys that permissions open: merged ranges.

use bytes::Bytes;

use crate::state::mvcc::index::RangeEnd;

/// The union of ranges of keys.
#[derive(Debug, Clone, Default)]
pub(super) struct KeyRanges {
    /// Sorted; they neither overlap nor touch.
    merged: Vec<Range>,
    /// As they were granted, sorted by their start.
    granted: Vec<Range>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Range {
    start: Bytes,
    /// The first key behind the range, `None` at the end of the key space.
    end: Option<Bytes>,
}

impl Range {
    fn reaches(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| &end[..] >= key)
    }

    fn holds(&self, key: &[u8]) -> bool {
        self.start <= key && self.end.as_ref().is_none_or(|end| key < &end[..])
    }
}

/// The first key behind a range.
fn end_of(key: &Bytes, range_end: &[u8]) -> Option<Bytes> {
    match range_end {
        [] => Some([key, &b"\0"[..]].concat().into()),
        [0] => None,
        end => Some(Bytes::copy_from_slice(end)),
    }
}

impl KeyRanges {
    /// The union of ranges, each a key and a range end as the API has them.
    pub(super) fn union<'a>(ranges: impl Iterator<Item = (&'a Bytes, &'a Bytes)>) -> Self {
        let mut all: Vec<Range> =
            ranges.map(|(key, range_end)| Range { start: key.clone(), end: end_of(key, range_end) }).collect();
        all.sort_unstable_by(|a, b| a.start.cmp(&b.start));
        let mut merged: Vec<Range> = Vec::new();
        for range in &all {
            match merged.last_mut() {
                Some(last) if last.reaches(&range.start) => {
                    if last.end.is_some() && range.end.as_ref().is_none_or(|end| !last.reaches(end)) {
                        last.end.clone_from(&range.end);
                    }
                }
                _ => merged.push(range.clone()),
            }
        }
        Self { merged, granted: all }
    }

    fn is_granted_between(&self, from: &[u8], to: &[u8]) -> bool {
        let at = self.granted.partition_point(|range| &range.start[..] < from);
        let mut between = self.granted.iter().skip(at).take_while(|range| &range.start[..] < to);
        between.any(|range| range.end.as_ref().is_some_and(|end| &end[..] <= to))
    }

    /// Whether every key of a range is in here.
    pub(super) fn cover(&self, key: &[u8], end: &RangeEnd) -> bool {
        let behind = self.merged.partition_point(|range| &range.start[..] <= key);
        let Some(range) = behind.checked_sub(1).and_then(|at| self.merged.get(at)) else { return false };
        range.holds(key)
            && match end {
                RangeEnd::Single => true,
                RangeEnd::Unbounded => range.end.is_none(),
                RangeEnd::Before(end) if key < &end[..] => range.reaches(end),
                // It ends before it begins and holds nothing. etcd's answer depends on the order of the grants; mostly it is
                // that both ends have to be in here, and no grant between them.
                RangeEnd::Before(end) => range.start < end && !self.is_granted_between(end, key),
            }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn of(ranges: &[(&'static str, &'static str)]) -> KeyRanges {
        let ranges: Vec<(Bytes, Bytes)> = ranges.iter().map(|(key, end)| ((*key).into(), (*end).into())).collect();
        KeyRanges::union(ranges.iter().map(|(key, end)| (key, end)))
    }

    fn end(end: &str) -> RangeEnd {
        match end {
            "" => RangeEnd::Single,
            "\0" => RangeEnd::Unbounded,
            end => RangeEnd::Before(Bytes::copy_from_slice(end.as_bytes())),
        }
    }

    #[test]
    fn a_single_key_opens_neither_its_successors_nor_the_rest_of_the_key_space() {
        let one = of(&[("a", "")]);
        assert!(one.cover(b"a", &end("")) && one.cover(b"a", &end("a\0")));
        for (key, range_end) in [("a", "b"), ("a", "\0"), ("a\0", ""), ("", "\0"), ("b", "")] {
            assert!(!one.cover(key.as_bytes(), &end(range_end)), "{key:?} {range_end:?}");
        }
    }

    #[test]
    fn ranges_that_touch_or_overlap_are_one() {
        let joined = of(&[("a", "c"), ("c", "e"), ("d", "f"), ("x", "\0"), ("y", "z")]);
        assert!(joined.cover(b"a", &end("f")) && joined.cover(b"b", &end("d")) && joined.cover(b"x", &end("\0")));
        assert!(!joined.cover(b"a", &end("g")) && !joined.cover(b"e", &end("y")) && !joined.cover(b"a", &end("\0")));
        assert_eq!(of(&[("a", "b"), ("b", "")]).merged, of(&[("a", "b\0")]).merged);
    }

    proptest! {
        /// Keys are single letters, so that a range is as many flags.
        #[test]
        fn a_range_is_covered_if_all_its_keys_are(ranges in vec((0..9u8, 0..11u8), 0..6), key in 0..9u8, to in 0..11u8) {
            let letter = |at: u8| Bytes::from(vec![b'a' + at]);
            let range = |(from, to): (u8, u8)| (letter(from), match to {
                0 => Bytes::new(),
                10 => Bytes::from_static(&[0]),
                to => letter(to),
            });
            let valid: Vec<_> = ranges.into_iter().filter(|(from, to)| matches!(to, 0 | 10) || from < to).collect();
            let own: Vec<_> = valid.iter().copied().map(range).collect();
            let open = KeyRanges::union(own.iter().map(|(key, end)| (key, end)));
            // In halves: the letter itself, and what is between it and the next one.
            let halves = |(from, to): (u8, u8)| match to {
                0 => 2 * u32::from(from)..2 * u32::from(from) + 1,
                10 => 2 * u32::from(from)..100,
                to => 2 * u32::from(from)..2 * u32::from(to),
            };
            prop_assume!(matches!(to, 0 | 10) || key < to);
            let covered = halves((key, to)).all(|half| valid.iter().any(|range| halves(*range).contains(&half)));
            let (key, range_end) = range((key, to));
            let end = match &range_end[..] {
                [] => RangeEnd::Single,
                [0] => RangeEnd::Unbounded,
                _ => RangeEnd::Before(range_end.clone()),
            };
            prop_assert_eq!(open.cover(&key, &end), covered);
        }
    }
}

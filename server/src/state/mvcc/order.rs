//! The order of rows whose sort keys are equal.
//!
//! The API does not define it, but clients see it, and the store this API comes from always answers the same order:
//! that of Go's unstable sort. It is a pattern-defeating quicksort whose every decision depends on comparisons and
//! lengths only, so it can be followed decision by decision. (Up to 12 rows it is an insertion sort, which keeps equal
//! rows in key order.)
//!
//! The decisions, and the numbers in them, are facts of that sort: insertion up to [`INSERTION_MAX`]; pivot the middle
//! below 8, median of three below [`NINTHER_MIN`], else the median of three medians; three exchanges with a
//! shift-register generator seeded by the length after an unbalanced partition; heap sort once as many of those
//! happened as the length has bits; runs equal to the element before the range are split off; a range that seems sorted
//! is tried with at most [`REPAIRS_MAX`] repairs.

/// Up to this length a range is sorted by insertion.
const INSERTION_MAX: usize = 12;
/// From this length on the pivot is a median of medians.
const NINTHER_MIN: usize = 50;
/// Exchanges of a pivot search that tell of a descending range.
const DESCENDING_SWAPS: usize = 12;
/// Out-of-order pairs repaired in a range that seemed sorted.
const REPAIRS_MAX: usize = 5;
/// Ranges shorter than this are not repaired.
const REPAIR_MIN: usize = 50;

/// Sorts `rows`, equal ones into the order that Go's sort leaves them in.
pub(super) fn sort<T>(rows: &mut [T], less: impl Fn(&T, &T) -> bool) {
    let bits = bits(rows.len());
    Sorter { rows, less }.quick(0, None, bits);
}

fn bits(number: usize) -> u32 {
    usize::BITS - number.leading_zeros()
}

struct Sorter<'a, T, L> {
    rows: &'a mut [T],
    less: L,
}

/// What a pivot search learnt.
#[derive(PartialEq, Eq)]
enum Seems {
    Ascending,
    Descending,
    Mixed,
}

impl<T, L: Fn(&T, &T) -> bool> Sorter<'_, T, L> {
    fn less(&self, a: usize, b: usize) -> bool {
        (self.less)(&self.rows[a], &self.rows[b])
    }

    /// Sorts from `start` to `end` (`None`: all); `limit` unbalanced partitions are put up with.
    fn quick(&mut self, mut start: usize, end: Option<usize>, mut limit: u32) {
        let mut end = end.unwrap_or(self.rows.len());
        let (mut balanced, mut partitioned) = (true, true);
        loop {
            let length = end - start;
            if length <= INSERTION_MAX {
                return self.insertion(start, end);
            }
            if limit == 0 {
                return self.heap(start, end);
            }
            if !balanced {
                self.break_patterns(start, end);
                limit -= 1;
            }
            let (mut pivot, mut seems) = self.pivot(start, end);
            if seems == Seems::Descending {
                self.rows[start..end].reverse();
                pivot = (end - 1) - (pivot - start);
                seems = Seems::Ascending;
            }
            if balanced && partitioned && seems == Seems::Ascending && self.repair(start, end) {
                return;
            }
            if start > 0 && !self.less(start - 1, pivot) {
                start = self.split_equal(start, end, pivot);
                continue;
            }
            let middle;
            (middle, partitioned) = self.partition(start, end, pivot);
            let (left, right) = (middle - start, end - middle);
            if left < right {
                balanced = left >= length / 8;
                self.quick(start, Some(middle), limit);
                start = middle + 1;
            } else {
                balanced = right >= length / 8;
                self.quick(middle + 1, Some(end), limit);
                end = middle;
            }
        }
    }

    fn insertion(&mut self, start: usize, end: usize) {
        for sorted in start + 1..end {
            self.sink(sorted, start);
        }
    }

    /// Moves the row at `from` down to its place, not below `floor`.
    fn sink(&mut self, from: usize, floor: usize) {
        let mut at = from;
        while at > floor && self.less(at, at - 1) {
            self.rows.swap(at, at - 1);
            at -= 1;
        }
    }

    fn heap(&mut self, start: usize, end: usize) {
        let length = end - start;
        for root in (0..=(length - 1) / 2).rev() {
            self.sift(start, root, length);
        }
        for last in (0..length).rev() {
            self.rows.swap(start, start + last);
            self.sift(start, 0, last);
        }
    }

    fn sift(&mut self, start: usize, mut root: usize, length: usize) {
        loop {
            let mut child = 2 * root + 1;
            if child >= length {
                return;
            }
            if child + 1 < length && self.less(start + child, start + child + 1) {
                child += 1;
            }
            if !self.less(start + root, start + child) {
                return;
            }
            self.rows.swap(start + root, start + child);
            root = child;
        }
    }

    fn break_patterns(&mut self, start: usize, end: usize) {
        let length = end - start;
        let mut random = length as u64;
        let mask = (1u64 << bits(length)) - 1;
        let middle = start + length / 4 * 2;
        for at in middle - 1..=middle + 1 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let other = (random & mask) as usize;
            self.rows.swap(at, start + if other >= length { other - length } else { other });
        }
    }

    fn pivot(&self, start: usize, end: usize) -> (usize, Seems) {
        let quarter = (end - start) / 4;
        let mut places = [start + quarter, start + quarter * 2, start + quarter * 3];
        let mut swaps = 0;
        if end - start >= NINTHER_MIN {
            places = places.map(|place| self.median([place - 1, place, place + 1], &mut swaps));
        }
        let pivot = self.median(places, &mut swaps);
        let seems = match swaps {
            0 => Seems::Ascending,
            DESCENDING_SWAPS => Seems::Descending,
            _ => Seems::Mixed,
        };
        (pivot, seems)
    }

    fn median(&self, [mut a, mut b, mut c]: [usize; 3], swaps: &mut usize) -> usize {
        let mut order = |low: &mut usize, high: &mut usize| {
            if self.less(*high, *low) {
                *swaps += 1;
                std::mem::swap(low, high);
            }
        };
        order(&mut a, &mut b);
        order(&mut b, &mut c);
        order(&mut a, &mut b);
        b
    }

    /// Puts a range that is nearly sorted in order; `false` if it is not so near.
    fn repair(&mut self, start: usize, end: usize) -> bool {
        let mut at = start + 1;
        for _ in 0..REPAIRS_MAX {
            while at < end && !self.less(at, at - 1) {
                at += 1;
            }
            if at == end {
                return true;
            }
            if end - start < REPAIR_MIN {
                return false;
            }
            self.rows.swap(at, at - 1);
            if at - start >= 2 {
                self.sink(at - 1, 0);
            }
            if end - at >= 2 {
                let mut up = at + 1;
                while up < end && self.less(up, up - 1) {
                    self.rows.swap(up, up - 1);
                    up += 1;
                }
            }
        }
        false
    }

    /// Moves rows equal to the pivot to the front; nothing in the range is smaller. Answers where the greater ones
    /// begin.
    fn split_equal(&mut self, start: usize, end: usize, pivot: usize) -> usize {
        self.rows.swap(start, pivot);
        let (mut low, mut high) = (start + 1, end);
        loop {
            while low < high && !self.less(start, low) {
                low += 1;
            }
            while low < high && self.less(start, high - 1) {
                high -= 1;
            }
            if low >= high {
                return low;
            }
            self.rows.swap(low, high - 1);
            low += 1;
            high -= 1;
        }
    }

    /// Moves rows below the pivot before it, all others behind it. Answers where it is, and whether they stood so
    /// already.
    fn partition(&mut self, start: usize, end: usize, pivot: usize) -> (usize, bool) {
        self.rows.swap(start, pivot);
        let (mut low, mut high) = (start + 1, end);
        let mut already = true;
        loop {
            while low < high && self.less(low, start) {
                low += 1;
            }
            while low < high && !self.less(high - 1, start) {
                high -= 1;
            }
            if low >= high {
                break;
            }
            already = false;
            self.rows.swap(low, high - 1);
            low += 1;
            high -= 1;
        }
        self.rows.swap(start, high - 1);
        (high - 1, already)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn rows_come_out_sorted_and_complete(keys in vec(0..40u8, 0..600), ascending: bool) {
            let mut keys = keys;
            if ascending {
                keys.sort_unstable();
            }
            let mut rows: Vec<_> = keys.iter().copied().enumerate().collect();
            sort(&mut rows, |a, b| a.1 < b.1);
            prop_assert!(rows.is_sorted_by_key(|row| row.1));
            let mut places: Vec<_> = rows.iter().map(|row| row.0).collect();
            places.sort_unstable();
            prop_assert!(places.into_iter().eq(0..keys.len()));
        }

        #[test]
        fn few_rows_keep_their_order(keys in vec(0..4u8, 0..=INSERTION_MAX)) {
            let mut rows: Vec<_> = keys.into_iter().enumerate().collect();
            let mut stable = rows.clone();
            stable.sort_by_key(|row| row.1);
            sort(&mut rows, |a, b| a.1 < b.1);
            prop_assert_eq!(rows, stable);
        }
    }

    #[test]
    fn many_unbalanced_partitions_still_end_sorted() {
        // Organ pipes, saw teeth and plateaus provoke every fallback.
        for length in [13usize, 49, 50, 100, 1000, 5000] {
            for period in [2, 3, 7, length / 2 + 1, length] {
                let mut rows: Vec<_> = (0..length).map(|at| (at % period).min(period - at % period)).collect();
                sort(&mut rows, |a, b| a < b);
                assert!(rows.is_sorted());
            }
        }
    }
}

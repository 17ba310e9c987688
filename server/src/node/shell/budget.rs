//! How many requests may wait at once, and how many bytes of writes.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of the counter that hold bytes; the rest holds requests.
const BYTES_BITS: u32 = 40;
const BYTES_MASK: u64 = (1 << BYTES_BITS) - 1;

/// A bound on what waits, in one word: taking and giving back are one atomic addition each.
#[derive(Debug)]
pub(super) struct Budget {
    used: AtomicU64,
    requests_max: u64,
    bytes_max: u64,
}

impl Budget {
    pub(super) fn new(requests_max: usize, bytes_max: usize) -> Self {
        let requests_max = (requests_max as u64).min(u64::from(u32::MAX >> 9));
        Self { used: AtomicU64::new(0), requests_max, bytes_max: (bytes_max as u64).min(BYTES_MASK >> 1) }
    }

    /// Takes room for a request of `bytes`. One request is always let in, however large: its size was checked
    /// elsewhere.
    pub(super) fn take(&self, bytes: usize) -> bool {
        let wanted = Self::word(bytes);
        let before = self.used.fetch_add(wanted, Ordering::Relaxed);
        let (requests, used) = (before >> BYTES_BITS, before & BYTES_MASK);
        let fits = requests == 0 || (requests < self.requests_max && used + bytes as u64 <= self.bytes_max);
        if !fits {
            self.used.fetch_sub(wanted, Ordering::Relaxed);
        }
        fits
    }

    /// Gives back what [`Self::take`] took.
    pub(super) fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(Self::word(bytes), Ordering::Relaxed);
    }

    fn word(bytes: usize) -> u64 {
        (1 << BYTES_BITS) + bytes as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_bytes_are_bounded_and_one_request_is_always_let_in() {
        let budget = Budget::new(2, 100);
        assert!(budget.take(1000) && !budget.take(1));
        budget.give_back(1000);
        assert!(budget.take(60) && !budget.take(41) && budget.take(40) && !budget.take(0));
        budget.give_back(60);
        assert!(budget.take(60));
    }
}

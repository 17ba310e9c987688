//! What could be said with every message is said now and then.

use std::time::{Duration, Instant};

/// For how long what was said counts.
const WINDOW: Duration = Duration::from_mins(1);

/// Lets something be said so many times a minute.
#[derive(Debug)]
pub(super) struct Seldom {
    per_window: u32,
    began: Option<Instant>,
    said: u32,
    withheld: u64,
}

impl Seldom {
    /// Nothing was said yet.
    pub(super) fn new(per_minute: u32) -> Self {
        Self { per_window: per_minute, began: None, said: 0, withheld: 0 }
    }

    /// Whether it is to be said; if so, how often it was not since the last time.
    pub(super) fn permits(&mut self, now: Instant) -> Option<u64> {
        if self.began.is_none_or(|began| now.duration_since(began) >= WINDOW) {
            (self.began, self.said) = (Some(now), 0);
        }
        if self.said == self.per_window {
            self.withheld += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_what_is_withheld_is_counted() {
        let now = Instant::now();
        let mut seldom = Seldom::new(2);
        assert_eq!([seldom.permits(now), seldom.permits(now)], [Some(0), Some(0)]);
        assert_eq!([seldom.permits(now), seldom.permits(now + WINDOW / 2)], [None, None]);
        assert_eq!(seldom.permits(now + WINDOW), Some(2));
        assert_eq!(seldom.permits(now + WINDOW), Some(0));
        assert_eq!(seldom.permits(now + WINDOW), None);
    }
}

//! The history of a run as text: its digest, and as many of its last lines as are wanted.

use std::{
    collections::VecDeque,
    fmt::{self, Write as _},
    hash::{DefaultHasher, Hasher},
};

/// What becomes of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// They only count for the digest.
    Digest,
    /// The last ones are kept.
    Last(usize),
    /// They are printed as they come.
    Print,
}

/// See the module's text.
#[derive(Debug)]
pub(super) struct Trace {
    keep: Keep,
    digest: DefaultHasher,
    line: String,
    lines: VecDeque<String>,
    count: u64,
}

impl Trace {
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, digest: DefaultHasher::new(), line: String::new(), lines: VecDeque::new(), count: 0 }
    }

    /// Adds a line that happened at `now`.
    pub(super) fn note(&mut self, now: u64, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string does not fail.
        let _ = write!(self.line, "{:>4}.{:06} {what}", now / 1_000_000, now % 1_000_000);
        self.count += 1;
        self.digest.write(self.line.as_bytes());
        match self.keep {
            Keep::Digest => {}
            Keep::Print => println!("{}", self.line),
            Keep::Last(most) => {
                if self.lines.len() == most {
                    self.lines.pop_front();
                }
                self.lines.push_back(self.line.clone());
            }
        }
    }

    /// Lines so far, and the digest of all of them.
    pub(super) fn digest(&self) -> (u64, u64) {
        (self.count, self.digest.finish())
    }

    /// The lines that were kept.
    pub(super) fn into_lines(self) -> Vec<String> {
        self.lines.into()
    }
}

//! What becomes of bytes from one member to another.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What becomes of bytes on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// They arrive.
    Open,
    /// They arrive, each piece after a time of up to so much.
    Slow(Duration),
    /// They wait until the way is another one, and arrive then.
    Held,
    /// They are gone. A connection that lost some is closed when the way is another one.
    Lost,
    /// Connections are closed, and new ones too.
    Closed,
    /// Connections are delayed as a whole, each by a time of its own of up to so much: what was sent on one overtakes what
    /// was sent on another. What was sent on a connection before a reset arrives after it, beside what comes on new ones.
    Late(Duration),
}

/// The ways between all members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ways {
    ways: Vec<Vec<Way>>,
    /// Rises with each reset: connections of before end.
    pub(super) generation: u64,
}

impl Ways {
    pub(super) fn open(members: usize) -> Self {
        Self { ways: vec![vec![Way::Open; members]; members], generation: 0 }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.ways.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ways.is_empty()
    }

    /// The way from one member to another.
    pub fn get(&self, from: usize, to: usize) -> Way {
        self.ways[from][to]
    }

    /// Sets the way from one member to another.
    pub fn set(&mut self, from: usize, to: usize, way: Way) {
        self.ways[from][to] = way;
    }

    /// Sets all ways between those for whom `inside` holds and the others, in both directions.
    pub fn split(&mut self, inside: impl Fn(usize) -> bool, way: Way) {
        self.each(|from, to, here| {
            if inside(from) != inside(to) {
                *here = way;
            }
        });
    }

    /// Sets all ways.
    pub fn all(&mut self, way: Way) {
        self.each(|_, _, here| *here = way);
    }

    fn each(&mut self, mut change: impl FnMut(usize, usize, &mut Way)) {
        for (from, row) in self.ways.iter_mut().enumerate() {
            for (to, way) in row.iter_mut().enumerate() {
                change(from, to, way);
            }
        }
    }

    pub(super) fn reset(&mut self) {
        self.generation += 1;
    }
}

/// Bytes that have arrived.
#[derive(Debug)]
pub(super) struct Traffic {
    members: usize,
    bytes: Vec<AtomicU64>,
}

impl Traffic {
    pub(super) fn new(members: usize) -> Self {
        Self { members, bytes: (0..members * members).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(super) fn count(&self, from: usize, to: usize, bytes: usize) {
        self.bytes[from * self.members + to].fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn delivered(&self, from: usize, to: usize) -> u64 {
        self.bytes[from * self.members + to].load(Ordering::Relaxed)
    }
}

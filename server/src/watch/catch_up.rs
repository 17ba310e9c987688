//! Catching up: reading what a watcher missed, where waiting for the disk is allowed.
//!
//! A job is one piece of it. The stream hands it out, whoever drives the stream runs it on a thread that may block, and
//! hands the result back. What a job reads is pinned only while it runs.

use std::sync::Arc;

use bytes::Bytes;
use cairn_proto::ApiError;

use super::{WatchEvent, interest::Interest};
use crate::state::mvcc::{Change, HistoryLimits, Pin, ReadError, Reader, Wanted};

/// What is read of the store in one piece.
const PIECE: HistoryLimits = if cfg!(test) {
    HistoryLimits { bytes_max: 100, scanned_max: 1000, changes_max: 4 }
} else {
    HistoryLimits { bytes_max: 64 << 10, scanned_max: 2 << 20, changes_max: 8 << 10 }
};

/// One piece of catching up.
#[derive(Debug)]
pub struct CatchUp {
    pub(super) reader: Reader,
    pub(super) id: i64,
    pub(super) serial: u64,
    pub(super) interest: Arc<Interest>,
    pub(super) from: From,
}

/// Where the events come from.
#[derive(Debug)]
pub(super) enum From {
    /// The store: revisions from the first to the second, both included.
    Store(i64, i64),
    /// The window: these events, which lack previous values, and then revision `next`.
    Window { events: Vec<WatchEvent>, next: i64 },
}

/// What a piece gave.
#[derive(Debug)]
pub struct CaughtUp {
    pub(super) id: i64,
    pub(super) serial: u64,
    pub(super) found: Found,
}

#[derive(Debug)]
pub(super) enum Found {
    /// These events, and then revision `next`.
    Events { events: Vec<WatchEvent>, next: i64 },
    /// What is needed was compacted.
    Compacted,
}

impl CatchUp {
    /// Reads the piece. May wait for the disk. An error is fatal to the replica.
    pub fn run(self) -> Result<CaughtUp, ReadError> {
        let Self { reader, id, serial, interest, from } = self;
        let found = match from {
            From::Store(from, to) => read_store(&reader, &interest, from, to)?,
            From::Window { events, next } => Found::Events { events, next },
        };
        let Found::Events { mut events, next } = found else { return Ok(CaughtUp { id, serial, found }) };
        if interest.previous {
            for event in &mut events {
                event.previous = match event.previous.take() {
                    Some(known) => Some(known),
                    None => value_before(&reader, None, &event.change)?,
                };
            }
        }
        Ok(CaughtUp { id, serial, found: Found::Events { events, next } })
    }
}

fn read_store(reader: &Reader, interest: &Interest, from: i64, to: i64) -> Result<Found, ReadError> {
    let Ok(pin) = reader.pin_events(from) else { return Ok(Found::Compacted) };
    let Interest { from, end, puts, deletes, .. } = interest;
    match reader.history(&pin, to, PIECE, Wanted { from, end, puts: *puts, deletes: *deletes }) {
        Ok(history) => {
            let events = history.changes.into_iter().map(|change| WatchEvent { change, previous: None });
            Ok(Found::Events { events: events.collect(), next: history.next })
        }
        Err(ReadError::Api(ApiError::Compacted)) => Ok(Found::Compacted),
        Err(error) => Err(error),
    }
}

/// The value that a change's key had before the change's revision; none if it was not there, or is compacted away.
/// `pin` keeps the revision before, if there is one.
pub(super) fn value_before(reader: &Reader, pin: Option<&Pin>, change: &Change) -> Result<Option<Bytes>, ReadError> {
    let before = change.at.main - 1;
    if change.creates() || before < 1 {
        return Ok(None);
    }
    let found = match pin {
        Some(pin) => reader.value_before(pin, change.key(), change.at.main),
        None => match reader.pin_events(before) {
            Ok(pin) => reader.value_before(&pin, change.key(), change.at.main),
            Err(_) => return Ok(None),
        },
    };
    match found {
        Err(ReadError::Api(ApiError::Compacted)) => Ok(None),
        found => found,
    }
}

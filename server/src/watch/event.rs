//! Events and answers as streams give them out. Their bytes are shared with everybody who gets the same event.

use bytes::Bytes;

use super::window::Recent;
use crate::state::mvcc::Change;

/// About what an event takes on the wire beside its values.
const OVERHEAD_BYTES: usize = 32;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchEvent {
    /// What changed.
    pub change: Change,
    /// The encoded `mvccpb.KeyValue` before the change.
    pub previous: Option<Bytes>,
}

impl WatchEvent {
    pub(super) fn of(recent: &Recent) -> Self {
        Self { change: recent.change.clone(), previous: recent.previous.get().cloned().flatten() }
    }

    /// About how many bytes it takes on the wire.
    pub(super) fn wire_bytes(&self) -> usize {
        OVERHEAD_BYTES + self.change.stored.len() + self.previous.as_ref().map_or(0, Bytes::len)
    }
}

/// One message to the client.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WatchAnswer {
    /// What the header says, 0 for nothing.
    pub revision: i64,
    /// The watcher, or [`NO_WATCHER`].
    pub watch_id: i64,
    /// The watcher now exists.
    pub created: bool,
    /// The watcher has ended.
    pub canceled: bool,
    /// If not 0: what the watcher wanted is compacted, and this is the lowest revision that can be watched.
    pub compact_revision: i64,
    /// Why the server ended the watcher.
    pub cancel_reason: &'static str,
    /// More events of the same revisions follow in the next answer.
    pub fragment: bool,
    /// Events, in the order of history.
    pub events: Vec<WatchEvent>,
}

/// The watch id of answers that concern no watcher in particular.
pub const NO_WATCHER: i64 = -1;

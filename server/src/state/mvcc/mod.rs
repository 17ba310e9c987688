//! Keys with their history.
//!
//! ```text
//! write      changes keys: index and open batch          txn, compare    what a transaction may do
//! view       one look at a point of history              range, pieces   every option of a range, in pages; in pieces
//! reader     what the API reads through                  answer          rows for what apply planned
//! order      of rows that sort equal                     horizon         pins, and what may be removed
//! many       values at once, in the order of history     ahead          rows of the next pieces
//! compaction removes it, in small steps                  imaging        when the index is written to a file
//! change     what watchers are told
//! hash       HashKV and Hash                             index, value, revision    where everything stands
//! ```
//! Every read happens at a fixed point of history at or below the published revision, so writers never wait for readers
//! and readers never see half a change. The one invariant: for every revision from the compacted one (or the oldest
//! pin, if that is lower) to the published one, index and store together hold exactly what was visible there.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
};

use cairn_proto::ApiError;
use parking_lot::{Mutex, RwLock};

use super::record::{finished::Finished, scheduled::Scheduled};
use crate::store::{Store, StoreError};

mod ahead;
mod answer;
mod change;
mod compaction;
mod compare;
mod hash;
mod horizon;
mod imaging;
pub mod index;
mod many;
mod order;
mod pieces;
mod range;
mod reader;
pub mod revision;
mod txn;
mod value;
mod view;
mod write;

use horizon::Horizon;
use index::Index;
use revision::Revision;
use value::Outline;
use view::Unread;

pub use answer::OpRows;
pub use change::{Change, ChangeSink, Changes, History, HistoryLimits, Wanted};
pub use compaction::{CompactionStep, Compactor};
pub(super) use hash::HASHED_KEYS_MAX;
pub use hash::{Hashing, KvHash};
pub use horizon::Pin;
pub(super) use imaging::{Found, StoreIs, find as find_image};
pub use imaging::{ImageOptions, NAME as INDEX_IMAGE};
pub use pieces::{Piece, RangePieces};
pub use range::Rows;
pub(crate) use range::range_end;
pub use reader::{Inline, Reader, WaitCompacted};
pub(super) use txn::puts;
pub use write::Counts;
pub(super) use write::{Open, Write};

/// Why a read gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The answer is an error.
    #[error(transparent)]
    Api(ApiError),
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// Index and store contradict each other, or a stored value does not decode.
    #[error("the stored state is damaged: {what}")]
    Corrupt {
        /// What was found.
        what: String,
    },
}

impl ReadError {
    /// Whether the error is an answer. Any other is fatal to the replica.
    pub fn is_deterministic(&self) -> bool {
        matches!(self, Self::Api(_))
    }
}

impl From<ApiError> for ReadError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl From<StoreError> for ReadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// Makes a stored revision known to the index; `None` if the bytes are no value of this revision.
pub(super) fn restore(index: &mut Index, at: Revision, tombstone: bool, stored: &[u8]) -> Option<()> {
    let outline = Outline::of(stored).filter(|outline| tombstone || outline.modified == at.main)?;
    if tombstone {
        index.restore_delete(outline.key, at);
    } else {
        index.restore_put(outline.key, at, outline.created, outline.version, outline.lease);
    }
    Some(())
}

/// What writers, readers and compaction share.
pub(super) struct Mvcc {
    pub(super) store: Arc<dyn Store>,
    pub(super) index: RwLock<Index>,
    horizon: Mutex<Horizon>,
    /// Copies of the horizon's, for whoever needs no pin.
    revision: AtomicI64,
    compacted: AtomicI64,
    /// Pins below this no longer keep anything.
    expired_below: AtomicI64,
    /// Bytes written to the store since it was opened, and of revisions read then.
    bytes_written: AtomicU64,
    /// Up to this main revision, the store may miss what the index has and compaction is about to remove.
    doubtful_to: i64,
    /// How many ranges are being read in pieces.
    piece_readers: Arc<AtomicUsize>,
}

impl std::fmt::Debug for Mvcc {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mvcc").field("horizon", &self.horizon).finish_non_exhaustive()
    }
}

impl Mvcc {
    pub(super) fn new(
        store: Arc<dyn Store>,
        index: Index,
        revision: i64,
        scheduled: &[Scheduled],
        finished: &Finished,
        (doubtful_to, bytes_read): (i64, u64),
    ) -> Self {
        let horizon = Horizon::new(revision, scheduled, finished);
        Self {
            store,
            index: RwLock::new(index),
            revision: AtomicI64::new(revision),
            compacted: AtomicI64::new(horizon.compacted),
            expired_below: AtomicI64::new(i64::MIN),
            bytes_written: AtomicU64::new(bytes_read),
            doubtful_to,
            piece_readers: Arc::default(),
            horizon: Mutex::new(horizon),
        }
    }

    fn revision(&self) -> i64 {
        self.revision.load(Ordering::Acquire)
    }

    fn bytes_written(&self) -> u64 {
        self.bytes_written.load(Ordering::Relaxed)
    }

    pub(super) fn count_written(&self, bytes: usize) {
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn compacted(&self) -> i64 {
        self.compacted.load(Ordering::Acquire)
    }
}

//! The reader: what the API reads the keys through. Safe from any thread and cheap to clone.
//!
//! ```text
//! let pin = reader.pin(&permit, request.revision)?;      // judges the revision, keeps its history
//! match reader.range_inline(&pin, &request) {
//!     Inline::Ready(rows) => rows?,                      // from memory
//!     Inline::Defer => /* on a thread that may block: */ reader.range(&pin, &request)?,
//! }
//! ```
//! When a snapshot takes the state's place, the same reader reads it from then on, while what is pinned stays what it was.
//!
//! What the caller has to mind: a pin held for long is broken once a compaction has waited for it, and its reads then
//! end in "compacted". An error that is not [deterministic](ReadError::is_deterministic) is fatal to the replica, not
//! an answer.

use std::{
    pin,
    sync::Arc,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use cairn_proto::{
    ApiError,
    etcdserverpb::{RangeRequest, TxnRequest},
};

use super::{
    Mvcc, Pin, ReadError, Unread,
    answer::{self, OpRows},
    pieces::{Piece, RangePieces},
    range::{self, Rows},
    revision::Revision,
    view::View,
};
use crate::{
    state::{auth::Permit, command::OpReply},
    store::Store,
};

/// See the module's text.
#[derive(Debug, Clone)]
pub struct Reader {
    current: Arc<ArcSwap<Mvcc>>,
}

/// What a thread that must not wait is told.
#[derive(Debug)]
pub enum Inline<T> {
    /// The answer.
    Ready(Result<T, ReadError>),
    /// It takes the disk or too long: ask again where blocking is allowed.
    Defer,
}

impl<T> From<Result<T, Unread>> for Inline<T> {
    fn from(read: Result<T, Unread>) -> Self {
        match read {
            Ok(answer) => Self::Ready(Ok(answer)),
            Err(Unread::Failed(error)) => Self::Ready(Err(error)),
            Err(Unread::NotNow) => Self::Defer,
        }
    }
}

impl Reader {
    pub(in crate::state) fn new(mvcc: Arc<Mvcc>) -> Self {
        Self { current: Arc::new(ArcSwap::new(mvcc)) }
    }

    pub(super) fn mvcc(&self) -> Arc<Mvcc> {
        self.current.load_full()
    }

    /// From now on, `mvcc` is read. Gives what was read before.
    pub(in crate::state) fn replace(&self, mvcc: Arc<Mvcc>) -> Arc<Mvcc> {
        let before = self.current.swap(mvcc);
        // They look at the new one.
        let waiters = std::mem::take(&mut before.horizon.lock().waiters);
        for (_, waker) in waiters {
            waker.wake();
        }
        before
    }

    /// The store underneath.
    pub fn store(&self) -> Arc<dyn Store> {
        self.current.load().store.clone()
    }

    /// The store's revision.
    pub fn revision(&self) -> i64 {
        self.current.load().revision()
    }

    /// The compacted revision, -1 while nothing was compacted.
    pub fn compacted(&self) -> i64 {
        self.current.load().compacted()
    }

    /// Keys that live.
    pub fn live_keys(&self) -> u64 {
        self.current.load().index.read().stats().live_keys
    }

    /// Reads that keep their revision from being removed now.
    pub fn open_reads(&self) -> u64 {
        self.current.load().horizon.lock().pins()
    }

    /// Pins a revision to read at, the newest one if `revision` is not positive. Errors: it is compacted, or still to
    /// come.
    ///
    /// ```
    /// # use cairn_server::state::{auth::Permit, mvcc::Reader};
    /// fn checked(reader: &Reader, permit: &Permit) {
    ///     let _ = reader.pin(permit, 0);
    /// }
    /// ```
    /// Without a permit it does not compile:
    ///
    /// ```compile_fail,E0061
    /// # use cairn_server::state::mvcc::Reader;
    /// fn unchecked(reader: &Reader) {
    ///     let _ = reader.pin(0);
    /// }
    /// ```
    pub fn pin(&self, _permit: &Permit, revision: i64) -> Result<Pin, ApiError> {
        self.mvcc().pin(revision)
    }

    /// Pins a revision to read events at for watchers, which were permitted when they were created.
    pub(crate) fn pin_events(&self, revision: i64) -> Result<Pin, ApiError> {
        self.mvcc().pin(revision)
    }

    /// The rows of a range at the pinned revision (the request's own revision is not looked at). May wait for the disk
    /// and take long.
    pub fn range(&self, pin: &Pin, request: &RangeRequest) -> Result<Rows, ReadError> {
        range::rows(&View::pinned(pin, Revision::whole(pin.revision())), request).map_err(Unread::into_error)
    }

    /// The same if memory can answer, and soon.
    pub fn range_inline(&self, pin: &Pin, request: &RangeRequest) -> Inline<Rows> {
        range::rows(&View::inline(pin, Revision::whole(pin.revision())), request).into()
    }

    /// Begins a range to be read in pieces, in key order and without revision filters. May take long if the count does.
    pub fn range_pieces(&self, pin: &Pin, request: &RangeRequest) -> Result<RangePieces, ReadError> {
        let at = Revision::whole(pin.revision());
        RangePieces::new(&View::pinned(pin, at), request, at).map_err(Unread::into_error)
    }

    /// The next piece, of about `bytes_max` bytes and at least one row; `None` after the last. May wait for the disk.
    pub fn next_piece(
        &self,
        pin: &Pin,
        pieces: &mut RangePieces,
        bytes_max: usize,
    ) -> Result<Option<Piece>, ReadError> {
        let view = View::pinned(pin, pieces.at());
        pieces.next(&view, bytes_max).map_err(Unread::into_error)
    }

    /// The rows of an answer that apply planned. May wait for the disk. `pin` is the one that came with the answer.
    pub fn answer(&self, reply: &OpReply, pin: Option<&Pin>) -> Result<OpRows, ReadError> {
        if let Some(rows) = answer::without_rows(reply) {
            return Ok(rows);
        }
        let pin = pin.ok_or_else(unpinned)?;
        answer::rows(&View::pinned(pin, Revision::whole(pin.revision())), reply).map_err(Unread::into_error)
    }

    /// The same if memory can answer, and soon.
    pub fn answer_inline(&self, reply: &OpReply, pin: Option<&Pin>) -> Inline<OpRows> {
        if let Some(rows) = answer::without_rows(reply) {
            return Inline::Ready(Ok(rows));
        }
        match pin {
            Some(pin) => answer::rows(&View::inline(pin, Revision::whole(pin.revision())), reply).into(),
            None => Inline::Ready(Err(unpinned())),
        }
    }

    /// Carries out a txn of nothing but ranges at the pinned revision, which must be the newest one when it was pinned
    /// (`pin(0)`). May wait for the disk. The top-level answer's header says the pin's revision.
    pub fn read_txn(&self, pin: &Pin, txn: &TxnRequest) -> Result<OpRows, ReadError> {
        answer::read_txn(&View::pinned(pin, Revision::whole(pin.revision())), pin, txn).map_err(Unread::into_error)
    }

    /// The same if memory can answer, and soon.
    pub fn read_txn_inline(&self, pin: &Pin, txn: &TxnRequest) -> Inline<OpRows> {
        answer::read_txn(&View::inline(pin, Revision::whole(pin.revision())), pin, txn).into()
    }

    /// Ends when everything superseded up to `revision` is physically gone from this member.
    pub fn wait_compacted(&self, revision: i64) -> WaitCompacted {
        WaitCompacted { reader: self.clone(), revision }
    }
}

fn unpinned() -> ReadError {
    ReadError::Corrupt { what: "an answer with rows came without its pin".into() }
}

/// See [`Reader::wait_compacted`].
#[derive(Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct WaitCompacted {
    reader: Reader,
    revision: i64,
}

impl Future for WaitCompacted {
    type Output = ();

    fn poll(self: pin::Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mvcc = self.reader.mvcc();
        let mut horizon = mvcc.horizon.lock();
        if horizon.finished >= self.revision {
            return Poll::Ready(());
        }
        if !horizon
            .waiters
            .iter()
            .any(|(revision, waker)| *revision == self.revision && waker.will_wake(context.waker()))
        {
            horizon.waiters.push((self.revision, context.waker().clone()));
        }
        drop(horizon);
        // One that is replaced in between wakes nobody any more.
        if !Arc::ptr_eq(&mvcc, &self.reader.mvcc()) {
            context.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

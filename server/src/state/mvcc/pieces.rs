//! Ranges in pieces of bounded size, for streams. Merged, the pieces are the answer of the range; only the last one
//! knows `count` and `more`.
//!
//! A sort target without an order is odd here, and clients may know it so: rows are taken in chunks of 10, 20, 40 and
//! so on, each chunk is sorted for itself as a range with that limit would be, and the next chunk begins behind the key
//! that came out last. So a row may come twice or not at all.

use std::{
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use cairn_proto::etcdserverpb::RangeRequest;

use super::{
    ReadError,
    ahead::{Ahead, SLOT_BYTES, joined},
    index::{KeyMeta, RangeEnd},
    many::{WANTED_BYTES, Wanted},
    range::{Filters, Order, Scan, Sort, limit, range_end, sorted},
    revision::Revision,
    value,
    view::{Unread, View},
};

/// Bytes of rows read ahead of the pieces, with what is kept beside them: the more, the better can the store be read in its own order. Whoever reads at the
/// same time shares them.
const AHEAD_BYTES: usize = 54 << 20;
/// A share is not smaller.
const AHEAD_BYTES_MIN: usize = 2 << 20;
/// Rows read ahead at first, when nothing is known of their size, and their bytes at most; and how many times as many rows next time, at most.
const AHEAD_ROWS_FIRST: usize = 16;
const AHEAD_BYTES_FIRST: usize = 256 << 10;
const AHEAD_GROWTH: usize = 256;
/// Bytes that a row takes beside its own while it is read: its place in history and in the buffer.
const ROW_BYTES: usize = WANTED_BYTES + SLOT_BYTES;
/// Rows of the first chunk of a stream that is sorted chunk by chunk.
const FIRST_CHUNK: usize = 10;

/// A range being read in pieces.
#[derive(Debug)]
pub struct RangePieces {
    request: RangeRequest,
    end: RangeEnd,
    at: Revision,
    from: Bytes,
    /// Rows that may still be looked for.
    left: usize,
    /// Rows found, in pieces or not yet.
    ahead: Ahead,
    taken: u64,
    /// Keys in the whole range.
    count: u64,
    /// How each chunk is sorted, and the next one's rows.
    chunks: Option<(Sort, usize)>,
    done: bool,
    share: Share,
}

/// One of those who read ranges in pieces, who are counted.
#[derive(Debug)]
struct Share(Arc<AtomicUsize>);

impl Share {
    fn of(readers: &Arc<AtomicUsize>) -> Self {
        readers.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(readers))
    }

    /// Bytes that may be read ahead.
    fn bytes(&self) -> usize {
        (AHEAD_BYTES / self.0.load(Ordering::Relaxed).max(1)).max(AHEAD_BYTES_MIN)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A piece of a range.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Piece {
    /// Rows that follow those of the piece before, as they stand in a `RangeResponse`: fields `kvs`.
    pub rows: Bytes,
    /// Count and more; set in the last piece only.
    pub last: Option<(i64, bool)>,
}

impl RangePieces {
    pub(super) fn new(view: &View<'_>, request: &RangeRequest, at: Revision) -> Result<Self, Unread> {
        let end = range_end(&request.range_end);
        let count = view.count(&request.key, &end)?;
        let left = if request.count_only || count == 0 { 0 } else { limit(request) };
        let chunks = match Order::of(request) {
            Order::Natural => None,
            Order::Sorted { target, descending, late } => Some((Sort { target, descending, late }, FIRST_CHUNK)),
        };
        Ok(Self {
            request: request.clone(),
            end,
            at,
            from: request.key.clone(),
            left,
            ahead: Ahead::default(),
            taken: 0,
            count,
            chunks,
            done: false,
            share: Share::of(&view.mvcc().piece_readers),
        })
    }

    /// The point of history the pieces are read at.
    pub(super) fn at(&self) -> Revision {
        self.at
    }

    /// The next piece, of about `bytes_max` bytes and at least one row; `None` after the last.
    pub(super) fn next(&mut self, view: &View<'_>, bytes_max: usize) -> Result<Option<Piece>, Unread> {
        if self.done {
            return Ok(None);
        }
        let mut piece = Piece::default();
        let more = match self.chunks {
            Some((sort, rows)) if self.left > 0 => self.sorted_chunk(view, sort, rows, bytes_max, &mut piece)?,
            _ => {
                self.natural(view, bytes_max, &mut piece)?;
                !self.request.count_only && self.count > self.taken
            }
        };
        if self.left == 0 && self.ahead.is_empty() {
            self.done = true;
            piece.last = Some((self.count as i64, more));
        }
        Ok(Some(piece))
    }

    fn scan<'a>(&'a self, view: &'a View<'a>) -> Scan<'a> {
        let request = &self.request;
        Scan { view, request, end: self.end.clone(), filters: Filters::of(request), from: self.from.clone() }
    }

    /// Whether the next piece is made of what is in memory.
    pub fn is_ready(&self) -> bool {
        !self.ahead.is_empty()
    }

    fn natural(&mut self, view: &View<'_>, bytes_max: usize, piece: &mut Piece) -> Result<(), Unread> {
        if self.ahead.is_empty() && self.left > 0 {
            self.look_ahead(view)?;
        }
        let (rows, taken) = self.ahead.take(bytes_max);
        self.taken += taken as u64;
        piece.rows = rows;
        Ok(())
    }

    /// How many rows to find next, and their bytes at most.
    fn next_ahead(&self) -> (usize, usize) {
        let left = self.left.min(usize::try_from(self.count.saturating_sub(self.taken)).unwrap_or(usize::MAX)).max(1);
        let before = self.ahead.rows();
        if before == 0 {
            return (left.min(AHEAD_ROWS_FIRST), AHEAD_BYTES_FIRST);
        }
        let (each, share) = (self.ahead.bytes() / before + 1, self.share.bytes());
        let rows_max = (share / (each + ROW_BYTES)).clamp(1, AHEAD_GROWTH * before);
        // Equal parts are the smallest for the same number of passes over history.
        let rows = left.div_ceil(left.div_ceil(rows_max));
        // Virtual memory until it is used: the rows may be larger than those before.
        (rows, (2 * rows * each + AHEAD_BYTES_FIRST).min(share.saturating_sub(rows * ROW_BYTES)))
    }

    /// Finds the next rows.
    fn look_ahead(&mut self, view: &View<'_>) -> Result<(), Unread> {
        let (rows, bytes_max) = self.next_ahead();
        let keys_only = self.request.keys_only;
        let mut ahead = std::mem::take(&mut self.ahead);
        let (mut wanted, mut bare) = (Vec::new(), BytesMut::new());
        if keys_only {
            ahead.expect(0, bytes_max);
        } else {
            wanted.reserve_exact(rows);
        }
        let mut scan = self.scan(view);
        let (mut keys, mut behind) = (0, None);
        loop {
            let on = scan.page(&mut |key, meta| {
                let mut room = keys < rows;
                if room && keys_only {
                    bare.clear();
                    value::encode_put(&mut bare, key, &KeyMeta { lease: 0, ..meta }, b"");
                    room = ahead.push(&bare);
                } else if room {
                    wanted.push(Wanted::new(meta.modified, keys as u32));
                }
                if !room {
                    behind = Some(Bytes::copy_from_slice(key));
                    return ControlFlow::Break(());
                }
                keys += 1;
                ControlFlow::Continue(())
            })?;
            if behind.is_some() || !on {
                break;
            }
        }
        if !keys_only {
            ahead.expect(keys, bytes_max);
            view.values_into(wanted, &mut ahead)?;
        }
        let found = ahead.rows();
        (self.left, self.from) = match behind {
            // Larger than those before: the others next time.
            _ if found < keys => (self.left - found, behind_last(ahead.last())?),
            Some(behind) => (self.left - found, behind),
            None => (0, Bytes::new()),
        };
        self.ahead = ahead;
        Ok(())
    }

    fn sorted_chunk(
        &mut self,
        view: &View<'_>,
        sort: Sort,
        rows: usize,
        bytes_max: usize,
        piece: &mut Piece,
    ) -> Result<bool, Unread> {
        let chunk = sorted(&mut self.scan(view), rows.min(self.left), sort)?;
        self.taken += chunk.kvs.len() as u64;
        self.left -= chunk.kvs.len();
        if chunk.more {
            self.from = behind_last(chunk.kvs.last().map(|row| &row[..]))?;
            // What the odd order left out or brought twice shows in the count too.
            self.count = self.taken + view.count(&self.from, &self.end)?;
        } else {
            (self.left, self.count) = (0, self.taken);
        }
        let bytes = chunk.kvs.iter().map(Bytes::len).sum::<usize>();
        let next = if bytes < bytes_max / 2 {
            rows.saturating_mul(2)
        } else if bytes > bytes_max.saturating_mul(2) {
            (rows / 2).max(1)
        } else {
            rows
        };
        self.chunks = Some((sort, next));
        piece.rows = joined(&chunk.kvs);
        Ok(chunk.more)
    }
}

/// The key that follows the last row's at once.
fn behind_last(row: Option<&[u8]>) -> Result<Bytes, Unread> {
    let key = row.and_then(value::key_of);
    let key = key.ok_or_else(|| ReadError::Corrupt { what: "a row of a list has no key".into() })?;
    Ok([key, &[0]].concat().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_read_at_the_same_time_share_what_is_read_ahead() {
        let readers = Arc::default();
        let first = Share::of(&readers);
        assert_eq!(first.bytes(), AHEAD_BYTES);
        let others: Vec<_> = (0..3).map(|_| Share::of(&readers)).collect();
        assert_eq!((first.bytes(), others[2].bytes()), (AHEAD_BYTES / 4, AHEAD_BYTES / 4));
        let many: Vec<_> = (0..1000).map(|_| Share::of(&readers)).collect();
        assert_eq!(first.bytes(), AHEAD_BYTES_MIN);
        drop((others, many));
        assert_eq!(first.bytes(), AHEAD_BYTES);
    }
}

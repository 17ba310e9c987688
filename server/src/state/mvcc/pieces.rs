//! Ranges in pieces of bounded size, for streams. Merged, the pieces are the answer of the range; only the last one
//! knows `count` and `more`.
//!
//! A sort target without an order is odd here, and clients may know it so: rows are taken in chunks of 10, 20, 40 and
//! so on, each chunk is sorted for itself as a range with that limit would be, and the next chunk begins behind the key
//! that came out last. So a row may come twice or not at all.

use std::{
    collections::VecDeque,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use cairn_proto::etcdserverpb::RangeRequest;

use super::{
    index::RangeEnd,
    range::{BareRows, Filters, Order, Scan, Sort, limit, range_end, sorted},
    revision::Revision,
    value,
    view::{Unread, View},
};

/// Bytes of rows read ahead of the pieces, about: the more, the better can the store be read in its own order. Whoever reads at the same time shares them.
const AHEAD_BYTES: usize = 52 << 20;
/// A share is not smaller.
const AHEAD_BYTES_MIN: usize = 2 << 20;
/// Rows read ahead at first, when nothing is known of their size; and how many times as many next time, at most.
const AHEAD_ROWS_FIRST: usize = 16;
const AHEAD_GROWTH: usize = 8;
/// Bytes that a row takes beside its own while it is read: its place in history and in the answer, twice.
const ROW_BYTES: usize = 64;
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
    /// Rows found that were in no piece yet.
    ahead: VecDeque<Bytes>,
    /// Rows to look for at once next time.
    ahead_rows: usize,
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
    /// Encoded `mvccpb.KeyValue`s that follow those of the piece before.
    pub kvs: Vec<Bytes>,
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
            ahead: VecDeque::new(),
            ahead_rows: AHEAD_ROWS_FIRST,
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

    fn natural(&mut self, view: &View<'_>, bytes_max: usize, piece: &mut Piece) -> Result<(), Unread> {
        let mut bytes = 0;
        while bytes < bytes_max {
            match self.ahead.pop_front() {
                Some(row) => {
                    bytes += row.len();
                    self.taken += 1;
                    piece.kvs.push(row);
                }
                None if self.left == 0 => break,
                None => self.look_ahead(view)?,
            }
        }
        Ok(())
    }

    /// Finds the next rows.
    fn look_ahead(&mut self, view: &View<'_>) -> Result<(), Unread> {
        let (wanted, bytes_max) = (self.left.min(self.ahead_rows), self.share.bytes());
        let mut scan = self.scan(view);
        let keys_only = self.request.keys_only;
        let expected = if keys_only { 0 } else { wanted.min((self.count.saturating_sub(self.taken)) as usize) };
        let (mut bare, mut revisions, mut keys) = (BareRows::default(), Vec::with_capacity(expected), 0);
        let mut behind = None;
        let finished = loop {
            let on = scan.page(&mut |key, meta| {
                if keys == wanted {
                    behind = Some(Bytes::copy_from_slice(key));
                    return ControlFlow::Break(());
                }
                if keys_only {
                    bare.push(key, meta);
                } else {
                    revisions.push(meta.modified);
                }
                keys += 1;
                ControlFlow::Continue(())
            })?;
            if behind.is_some() || !on {
                break behind.is_none();
            }
        };
        let mut rows = Vec::new();
        if keys_only {
            bare.drain_into(&mut rows);
        } else if !view.values_within(&revisions, bytes_max, &mut rows)? && wanted > AHEAD_ROWS_FIRST {
            // They became larger all of a sudden: fewer then.
            self.ahead_rows = (wanted / AHEAD_GROWTH).max(AHEAD_ROWS_FIRST);
            return Ok(());
        } else if rows.len() < revisions.len() {
            view.values(&revisions, &mut rows)?;
        }
        let each = size(&rows) / rows.len().max(1) + ROW_BYTES;
        self.ahead_rows = (self.share.bytes() / each).clamp(AHEAD_ROWS_FIRST, AHEAD_GROWTH * self.ahead_rows);
        self.left = if finished { 0 } else { self.left - keys };
        if let Some(behind) = behind {
            self.from = behind;
        }
        self.ahead = rows.into();
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
            self.from = behind_last(self.at, &chunk.kvs)?;
            // What the odd order left out or brought twice shows in the count too.
            self.count = self.taken + view.count(&self.from, &self.end)?;
        } else {
            (self.left, self.count) = (0, self.taken);
        }
        let bytes = size(&chunk.kvs);
        let next = if bytes < bytes_max / 2 {
            rows.saturating_mul(2)
        } else if bytes > bytes_max.saturating_mul(2) {
            (rows / 2).max(1)
        } else {
            rows
        };
        self.chunks = Some((sort, next));
        piece.kvs = chunk.kvs;
        Ok(chunk.more)
    }
}

fn size(kvs: &[Bytes]) -> usize {
    kvs.iter().map(Bytes::len).sum()
}

/// The key that follows the last row's at once.
fn behind_last(at: Revision, kvs: &[Bytes]) -> Result<Bytes, Unread> {
    let key = value::decode(at, kvs.last().cloned().unwrap_or_default())?.key;
    let mut next = BytesMut::with_capacity(key.len() + 1);
    next.extend_from_slice(&key);
    next.extend_from_slice(&[0]);
    Ok(next.freeze())
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

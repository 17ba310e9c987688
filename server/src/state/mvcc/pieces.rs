//! Ranges in pieces of bounded size, for streams. Merged, the pieces are the answer of the range; only the last one
//! knows `count` and `more`.
//!
//! A sort target without an order is odd here, and clients may know it so: rows are taken in chunks of 10, 20, 40 and
//! so on, each chunk is sorted for itself as a range with that limit would be, and the next chunk begins behind the key
//! that came out last. So a row may come twice or not at all.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use cairn_proto::etcdserverpb::RangeRequest;

use super::{
    index::RangeEnd,
    range::{BareRows, Filters, Order, Scan, Sort, limit, range_end, sorted},
    revision::Revision,
    value,
    view::{Unread, View},
};

/// Values read at a time for a piece, so that large ones do not make it much larger than asked for.
const PIECE_READS: usize = 16;
/// Rows of the first chunk of a stream that is sorted chunk by chunk.
const FIRST_CHUNK: usize = 10;

/// A range being read in pieces.
#[derive(Debug)]
pub struct RangePieces {
    request: RangeRequest,
    end: RangeEnd,
    at: Revision,
    from: Bytes,
    /// Rows that may still come.
    left: usize,
    taken: u64,
    /// Keys in the whole range.
    count: u64,
    /// How each chunk is sorted, and the next one's rows.
    chunks: Option<(Sort, usize)>,
    done: bool,
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
            taken: 0,
            count,
            chunks,
            done: false,
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
        if self.left == 0 {
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
        while self.left > 0 && bytes < bytes_max {
            let mut scan = self.scan(view);
            let mut bare = BareRows::default();
            let mut page = Vec::new();
            let (keys_only, left) = (self.request.keys_only, self.left);
            let mut taken = 0;
            let on = scan.page(&mut |key, meta| {
                if keys_only {
                    bare.push(key, meta);
                } else {
                    page.push(meta.modified);
                }
                taken += 1;
                if taken == left { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })?;
            let next = scan.from;
            let before = piece.kvs.len();
            bare.drain_into(&mut piece.kvs);
            bytes += size(&piece.kvs[before..]);
            let mut read = 0;
            for few in page.chunks(PIECE_READS) {
                let before = piece.kvs.len();
                view.values(few, &mut piece.kvs)?;
                read += few.len();
                bytes += size(&piece.kvs[before..]);
                if bytes >= bytes_max {
                    break;
                }
            }
            if read < page.len() {
                // The piece is full within the page: go on behind its last row.
                self.from = behind_last(self.at, &piece.kvs)?;
                self.left -= read;
                self.taken += read as u64;
                break;
            }
            self.from = next;
            self.left = if on { self.left - taken } else { 0 };
            self.taken += taken as u64;
        }
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

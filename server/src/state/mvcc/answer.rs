//! Rows for what apply planned: the member that owes an answer reads them, off the apply path, from revisions the
//! answer's pin keeps.

use bytes::Bytes;
use cairn_proto::etcdserverpb::{RangeRequest, TxnRequest, request_op::Request};

use super::{
    Pin, Unread,
    range::{self, Rows},
    revision::Revision,
    txn::{Checks, Path, Steps},
    view::View,
};
use crate::state::command::OpReply;

/// What one KV operation answers, rows included. `revision` is what a sub-answer's header says; the answer of a nested
/// txn has an empty header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpRows {
    /// Of a put.
    Put {
        /// Revision for the sub-answer's header.
        revision: i64,
        /// The previous value, an encoded `mvccpb.KeyValue`, if it was asked for and there was one.
        previous: Option<Bytes>,
    },
    /// Of a delete.
    DeleteRange {
        /// Revision for the sub-answer's header.
        revision: i64,
        /// Keys deleted.
        deleted: i64,
        /// The previous values, encoded `mvccpb.KeyValue`s in key order, if asked for.
        previous: Vec<Bytes>,
    },
    /// Of a range.
    Range {
        /// Revision for the sub-answer's header.
        revision: i64,
        /// What it found.
        rows: Rows,
    },
    /// Of a txn.
    Txn {
        /// Which branch ran.
        succeeded: bool,
        /// Its operations' answers.
        ops: Vec<OpRows>,
    },
}

/// The rows of `reply`; `view` looks at any point, it is moved to each one needed.
pub(super) fn rows(view: &View<'_>, reply: &OpReply) -> Result<OpRows, Unread> {
    Ok(match reply {
        OpReply::Put { revision, previous } => {
            OpRows::Put { revision: *revision, previous: previous.map(|at| view.value(at)).transpose()? }
        }
        OpReply::DeleteRange { revision, deleted, previous } => {
            let mut values = Vec::with_capacity(previous.len());
            for page in previous.chunks(super::view::PAGE_KEYS) {
                view.values(page, &mut values)?;
            }
            OpRows::DeleteRange { revision: *revision, deleted: *deleted, previous: values }
        }
        OpReply::Range { revision, at, request } => {
            OpRows::Range { revision: *revision, rows: range::rows(&view.moved(*at), request)? }
        }
        OpReply::Txn { succeeded, ops } => {
            OpRows::Txn { succeeded: *succeeded, ops: ops.iter().map(|op| rows(view, op)).collect::<Result<_, _>>()? }
        }
    })
}

/// Whether `reply` is complete without reading anything.
pub(super) fn without_rows(reply: &OpReply) -> Option<OpRows> {
    match reply {
        OpReply::Put { revision, previous: None } => Some(OpRows::Put { revision: *revision, previous: None }),
        OpReply::DeleteRange { revision, deleted, previous } if previous.is_empty() => {
            Some(OpRows::DeleteRange { revision: *revision, deleted: *deleted, previous: Vec::new() })
        }
        OpReply::Txn { succeeded, ops } => {
            Some(OpRows::Txn { succeeded: *succeeded, ops: ops.iter().map(without_rows).collect::<Option<_>>()? })
        }
        _ => None,
    }
}

/// Carries out a txn of nothing but ranges in `view`, which looks at the newest revision, kept by `pin`.
pub(super) fn read_txn(view: &View<'_>, pin: &Pin, txn: &TxnRequest) -> Result<OpRows, Unread> {
    let path = Path::of(view, txn)?;
    let compacted = pin.mvcc().compacted();
    Checks { view, newest: pin.revision(), compacted, has_lease: &|_| false }.run(txn, &path)?;
    run_ranges(view, pin, txn, &mut path.steps())
}

fn run_ranges(view: &View<'_>, pin: &Pin, txn: &TxnRequest, steps: &mut Steps<'_>) -> Result<OpRows, Unread> {
    let (succeeded, requests) = steps.enter(txn);
    let mut ops = Vec::with_capacity(requests.len());
    for op in requests {
        ops.push(match &op.request {
            Some(Request::RequestRange(range)) => {
                OpRows::Range { revision: pin.revision(), rows: read_range(view, pin, range)? }
            }
            Some(Request::RequestTxn(nested)) => run_ranges(view, pin, nested, steps)?,
            _ => return Err(super::ReadError::Corrupt { what: "a txn that writes was taken for a read".into() }.into()),
        });
    }
    Ok(OpRows::Txn { succeeded, ops })
}

fn read_range(view: &View<'_>, pin: &Pin, range: &RangeRequest) -> Result<Rows, Unread> {
    if range.revision <= 0 || range.revision == pin.revision() {
        return range::rows(view, range);
    }
    // The txn's pin keeps the newest revision only.
    let older = pin.mvcc().pin(range.revision).map_err(super::ReadError::Api)?;
    range::rows(&view.repinned(&older, Revision::whole(range.revision)), range)
}

//! The KV service: reads and writes of keys.
//!
//! A **read** checks its shape, makes sure that it sees everything acknowledged before it began (unless it is serializable), pins a revision and reads
//! there: from memory at once, or on the blocking pool when it takes the disk or long. Its header says the revision that the store had when it was pinned.
//!
//! A **write** checks its shape, size and cost, is proposed, and answers what applying it gave; rows it owes are read from the pin that came with the
//! answer, off the apply path. A transaction of nothing but ranges is a read.
//!
//! Checks come in the order that clients know: quota, shape, size, then whatever the store says.
//!
//! While the alarm CORRUPT is raised, applying refuses every write. The member that it names refuses reads as well, for what
//! it has is not what the others have; those serve theirs.

use std::{sync::Arc, time::Instant};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, request_op::Request as Op},
};
use futures::{Stream, stream};
use prost::Message;

use super::{
    Context,
    answer::{DeleteRangeAnswer, Header, PutAnswer, RangeAnswer, RangePiece, TxnAnswer},
    quota,
    refusal::Refusal,
};
use crate::{
    node::ReadKind,
    state::{
        auth::{Need, Permit, Principal},
        command::{Reply, Request, shape},
        mvcc::{Counts, Inline, OpRows, Pin, RangePieces, ReadError},
    },
};

/// Bytes that a request grows by on its way into etcd's log, which counts them against `--max-request-bytes`.
const ENVELOPE_BYTES: usize = 14;
/// Bytes of a piece of a streamed range.
const PIECE_BYTES: usize = 256 * 1024;

/// The KV service. Clones are cheap.
#[derive(Clone)]
pub struct Kv {
    context: Arc<Context>,
}

impl Kv {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// Reads a range.
    pub async fn range(&self, principal: &Principal, request: pb::RangeRequest) -> Result<RangeAnswer, Refusal> {
        shape::range(&request)?;
        self.context.check_intact()?;
        let permit = self.context.authorize(principal, Need::Range(&request))?;
        self.read_range(&permit, request).await
    }

    async fn read_range(&self, permit: &Permit, request: pb::RangeRequest) -> Result<RangeAnswer, Refusal> {
        let began = Instant::now();
        let (reading, answer) = match self.linearize_unless(request.serializable).await {
            // If there was nothing to wait for, the clock need not be read again.
            Ok(waited) => {
                (Some(if waited { Instant::now() } else { began }), self.read_range_now(permit, request).await)
            }
            Err(refusal) => (None, Err(refusal)),
        };
        self.context.node.metrics().read(ReadKind::Range, answer.is_ok(), began, reading);
        answer
    }

    async fn read_range_now(&self, permit: &Permit, request: pb::RangeRequest) -> Result<RangeAnswer, Refusal> {
        let context = &self.context;
        let pin = context.node.reader().pin(permit, request.revision)?;
        context.node.metrics().ranges.inc();
        let header = context.header(pin.header_revision());
        let reader = context.node.reader();
        let rows = match reader.range_inline(&pin, &request) {
            Inline::Ready(rows) => context.read(rows)?,
            Inline::Defer => {
                let reader = reader.clone();
                context.blocking(move || reader.range(&pin, &request)).await?
            }
        };
        context.authorizer.is_current(permit)?;
        Ok(RangeAnswer { header: Some(header), rows })
    }

    /// Reads a range in pieces, in key order and at one revision.
    pub async fn range_stream(
        &self,
        principal: &Principal,
        request: pb::RangeRequest,
    ) -> Result<impl Stream<Item = Result<RangePiece, Refusal>> + Send + use<>, Refusal> {
        shape::range_stream(&request)?;
        self.context.check_intact()?;
        let permit = self.context.authorize(principal, Need::Range(&request))?;
        let pin = self.pin(&permit, request.serializable, request.revision).await?;
        self.context.node.metrics().ranges.inc();
        let header = self.context.header(pin.header_revision());
        let (reader, wanted) = (self.context.node.reader().clone(), request.clone());
        let begun = self.context.blocking(move || Ok((reader.range_pieces(&pin, &wanted)?, pin))).await?;
        let reading = (self.context.clone(), principal.clone(), permit, request);
        Ok(stream::try_unfold((reading, Some(begun)), move |(reading, left)| async move {
            let Some((pieces, pin)) = left else { return Ok(None) };
            let (context, principal, permit, request) = &reading;
            let next = next_piece(context, header, pieces, pin).await?;
            // Users or roles may have changed since the last piece.
            let _permit = context.authorizer.authorize_again(permit, principal, Need::Range(request))?;
            Ok(next.map(|(piece, left)| (piece, (reading, left))))
        }))
    }

    /// Sets a key.
    pub async fn put(&self, principal: &Principal, request: pb::PutRequest) -> Result<PutAnswer, Refusal> {
        self.context.make_room(quota::cost_of_put(&request)).await?;
        shape::put(&request)?;
        self.check_size(&request)?;
        match self.write(principal, Request::Put(request)).await? {
            (header, OpRows::Put { previous, .. }) => Ok(PutAnswer { header, previous }),
            _ => Err(self.context.contradiction("a put was answered as something else")),
        }
    }

    /// Deletes a range.
    pub async fn delete_range(
        &self,
        principal: &Principal,
        request: pb::DeleteRangeRequest,
    ) -> Result<DeleteRangeAnswer, Refusal> {
        shape::delete_range(&request)?;
        self.check_size(&request)?;
        match self.write(principal, Request::DeleteRange(request)).await? {
            (header, OpRows::DeleteRange { deleted, previous, .. }) => {
                Ok(DeleteRangeAnswer { header, deleted, previous })
            }
            _ => Err(self.context.contradiction("a delete was answered as something else")),
        }
    }

    /// Runs a transaction.
    pub async fn txn(&self, principal: &Principal, request: pb::TxnRequest) -> Result<TxnAnswer, Refusal> {
        self.context.make_room(quota::cost_of_txn(&request)).await?;
        shape::txn(&request, self.context.max_txn_ops)?;
        let answered = if only_ranges(&request) {
            self.read_txn(principal, request).await?
        } else {
            self.check_size(&request)?;
            self.write(principal, Request::Txn(request)).await?
        };
        match answered {
            (header, OpRows::Txn { succeeded, ops }) => Ok(TxnAnswer { header, succeeded, ops }),
            _ => Err(self.context.contradiction("a transaction was answered as something else")),
        }
    }

    /// Drops the history below a revision.
    pub async fn compact(
        &self,
        principal: &Principal,
        request: pb::CompactionRequest,
    ) -> Result<pb::CompactionResponse, Refusal> {
        let reply = self.context.propose(principal, Request::Compact(request)).await?.0;
        let Reply::Compact { revision, compacted } = reply else {
            return Err(self.context.contradiction("a compaction was answered as something else"));
        };
        if request.physical {
            self.context.node.reader().wait_compacted(compacted).await;
        }
        Ok(pb::CompactionResponse { header: Some(self.context.header(revision).into()) })
    }

    /// Whether a read succeeds, for health checks. What an alarm says of the data is not its business, nor is what a learner refuses to clients.
    pub async fn probe(&self, serializable: bool) -> Result<(), ApiError> {
        if !serializable {
            self.context.node.linearize().await.map_err(ApiError::from)?;
        }
        let key = bytes::Bytes::from_static(b"\0");
        let request = pb::RangeRequest { key, limit: 1, keys_only: true, serializable: true, ..Default::default() };
        match self.read_range(&self.context.node.authorizer().own(), request).await {
            Ok(_) => Ok(()),
            Err(Refusal::Api(error)) => Err(error),
            Err(_) => Err(ApiError::Stopped),
        }
    }

    /// The point to read at: not before everything that was acknowledged when the read began, unless it is serializable.
    async fn pin(&self, permit: &Permit, serializable: bool, revision: i64) -> Result<Pin, Refusal> {
        self.linearize_unless(serializable).await?;
        Ok(self.context.node.reader().pin(permit, revision)?)
    }

    /// Lets a read see everything that was acknowledged when it began, unless it is serializable; whether it had to wait
    /// for that. A learner serves only serializable reads.
    async fn linearize_unless(&self, serializable: bool) -> Result<bool, Refusal> {
        if serializable {
            return Ok(false);
        }
        if self.context.node.status().is_learner {
            return Err(ApiError::NotSupportedForLearner.into());
        }
        Ok(self.context.node.linearize().await.map_err(ApiError::from)?)
    }

    async fn read_txn(&self, principal: &Principal, request: pb::TxnRequest) -> Result<(Header, OpRows), Refusal> {
        let began = Instant::now();
        let answered = self.read_txn_unmeasured(principal, request).await;
        self.context.node.metrics().read(ReadKind::Txn, answered.is_ok(), began, None);
        answered
    }

    async fn read_txn_unmeasured(
        &self,
        principal: &Principal,
        request: pb::TxnRequest,
    ) -> Result<(Header, OpRows), Refusal> {
        let context = &self.context;
        context.check_intact()?;
        let permit = context.authorize(principal, Need::ReadTxn(&request))?;
        let pin = self.pin(&permit, is_serializable(&request), 0).await?;
        let header = context.header(pin.header_revision());
        let reader = context.node.reader();
        let rows = match reader.read_txn_inline(&pin, &request) {
            Inline::Ready(rows) => context.read(rows)?,
            Inline::Defer => {
                let reader = reader.clone();
                context.blocking(move || reader.read_txn(&pin, &request)).await?
            }
        };
        context.authorizer.is_current(&permit)?;
        if let OpRows::Txn { ops, .. } = &rows {
            let (ranges, txns) = (ops.len() as u64, u64::from(ops.len() > 1));
            context.node.metrics().count(Counts { ranges, txns, ..Counts::default() });
        }
        Ok((header, rows))
    }

    async fn write(&self, principal: &Principal, request: Request) -> Result<(Header, OpRows), Refusal> {
        let context = &self.context;
        let (reply, pin) = context.propose(principal, request).await?;
        let Reply::Kv { revision, done } = reply else {
            return Err(context.contradiction("a KV request was answered as something else"));
        };
        let header = context.header(revision);
        let reader = context.node.reader();
        let rows = match reader.answer_inline(&done, pin.as_ref()) {
            Inline::Ready(rows) => context.read(rows)?,
            Inline::Defer => {
                let reader = reader.clone();
                context.blocking(move || reader.answer(&done, pin.as_ref())).await?
            }
        };
        Ok((header, rows))
    }

    fn check_size(&self, request: &impl Message) -> Result<(), Refusal> {
        let len = request.encoded_len();
        let size = ENVELOPE_BYTES + prost::length_delimiter_len(len) + len;
        if size > self.context.max_request_bytes { Err(ApiError::RequestTooLarge.into()) } else { Ok(()) }
    }
}

/// The next piece and what comes after it.
async fn next_piece(
    context: &Context,
    header: Header,
    mut pieces: RangePieces,
    pin: Pin,
) -> Result<Option<(RangePiece, Option<(RangePieces, Pin)>)>, Refusal> {
    let (reader, ready) = (context.node.reader().clone(), pieces.is_ready());
    let read = move || -> Result<_, ReadError> {
        let piece = reader.next_piece(&pin, &mut pieces, PIECE_BYTES)?;
        Ok((piece, pieces, pin))
    };
    // What was read ahead is only copied, on the thread that sends it.
    let (piece, pieces, pin) = if ready { context.read(read())? } else { context.blocking(read).await? };
    let Some(piece) = piece else { return Ok(None) };
    let (count, more) = piece.last.unwrap_or_default();
    let is_last = piece.last.is_some();
    let piece = RangePiece { header: is_last.then_some(header), rows: piece.rows, count, more };
    Ok(Some((piece, (!is_last).then_some((pieces, pin)))))
}

fn ops(request: &pb::TxnRequest) -> impl Iterator<Item = Option<&Op>> {
    request.success.iter().chain(&request.failure).map(|op| op.request.as_ref())
}

/// Whether both branches hold ranges only; a nested transaction is never a mere read.
fn only_ranges(request: &pb::TxnRequest) -> bool {
    ops(request).all(|op| matches!(op, Some(Op::RequestRange(_))))
}

/// Whether every range of both branches may be answered from what this member has.
fn is_serializable(request: &pb::TxnRequest) -> bool {
    ops(request).all(|op| matches!(op, Some(Op::RequestRange(range)) if range.serializable))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(serializable: bool) -> pb::RequestOp {
        let request = pb::RangeRequest { key: "a".into(), serializable, ..Default::default() };
        pb::RequestOp { request: Some(Op::RequestRange(request)) }
    }

    fn txn(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::TxnRequest {
        pb::TxnRequest { compare: vec![], success, failure }
    }

    #[test]
    fn a_txn_of_ranges_is_a_read_and_any_other_op_makes_it_a_write() {
        assert!(only_ranges(&txn(vec![], vec![])));
        assert!(only_ranges(&txn(vec![range(true)], vec![range(false)])));
        let put = pb::RequestOp { request: Some(Op::RequestPut(pb::PutRequest::default())) };
        assert!(!only_ranges(&txn(vec![range(true)], vec![put])));
        let nested = pb::RequestOp { request: Some(Op::RequestTxn(txn(vec![], vec![]))) };
        assert!(!only_ranges(&txn(vec![nested], vec![])));
    }

    #[test]
    fn a_read_txn_is_serializable_if_all_its_ranges_are() {
        assert!(is_serializable(&txn(vec![], vec![])));
        assert!(is_serializable(&txn(vec![range(true)], vec![range(true)])));
        assert!(!is_serializable(&txn(vec![range(true)], vec![range(false)])));
    }
}

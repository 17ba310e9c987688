//! Answers as the services give them, and how they are written on the wire.
//!
//! An answer of the KV service carries rows: `mvccpb.KeyValue`s as the store keeps them, already encoded. They are copied into the answer's message
//! as they are ([`Answer`]); whoever wants typed messages instead ([`Answer::to_message`]) decodes the same bytes. Fields are written in ascending
//! order and defaults are left out, so that the bytes are those any other implementation writes for the same answer.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

use super::wire;
use crate::state::mvcc::{OpRows, Rows};

/// Something that is one protobuf message on the wire.
pub trait Answer: Send + 'static {
    /// Bytes of the message.
    fn wire_len(&self) -> usize;

    /// Writes the message, [`wire_len`](Self::wire_len) bytes.
    fn write(&self, out: &mut BytesMut);

    /// The message as the generated type `M`, which must be the one this answer is written as.
    fn to_message<M: Message + Default>(&self) -> Result<M, prost::DecodeError>
    where
        Self: Sized,
    {
        let mut out = BytesMut::with_capacity(self.wire_len());
        self.write(&mut out);
        M::decode(out.freeze())
    }

    /// The parts of an answer that is too large to be copied together, or the answer itself.
    fn into_parts(self) -> Result<Parts, Self>
    where
        Self: Sized,
    {
        Err(self)
    }
}

impl<M: Message + 'static> Answer for M {
    fn wire_len(&self) -> usize {
        self.encoded_len()
    }

    fn write(&self, out: &mut BytesMut) {
        self.encode(out).expect("BytesMut grows as needed");
    }
}

/// A large message in parts: the fields before the rows, the rows, the fields after them.
#[derive(Debug)]
pub struct Parts {
    /// Bytes of the whole message.
    pub len: usize,
    /// Fields before the rows.
    pub head: Bytes,
    /// The first rows if they are joined already, as fields.
    pub joined: Bytes,
    /// Field number of the rows.
    pub field: u8,
    /// The rows.
    pub rows: std::vec::IntoIter<Bytes>,
    /// Fields after the rows.
    pub tail: Bytes,
}

/// Above this many bytes an answer goes to the socket in parts.
const WHOLE_BYTES_MAX: usize = 64 * 1024;

/// `etcdserverpb.ResponseHeader`: who answered, at which revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// The cluster.
    pub cluster_id: u64,
    /// The member that answered.
    pub member_id: u64,
    /// The store's revision; 0 is left out.
    pub revision: i64,
    /// The raft term.
    pub raft_term: u64,
}

impl Header {
    /// The header of a sub-answer within a transaction: only a revision.
    const fn of_op(revision: i64) -> Self {
        Self { cluster_id: 0, member_id: 0, revision, raft_term: 0 }
    }

    fn len(&self) -> usize {
        wire::integer_len(self.cluster_id)
            + wire::integer_len(self.member_id)
            + wire::integer_len(self.revision as u64)
            + wire::integer_len(self.raft_term)
    }

    pub(super) fn field_len(&self) -> usize {
        wire::delimited_len(self.len())
    }

    /// Writes the header as field 1, where every answer has it.
    pub(super) fn put_field(&self, out: &mut BytesMut) {
        wire::put_delimiter(out, 1, self.len());
        wire::put_integer(out, 1, self.cluster_id);
        wire::put_integer(out, 2, self.member_id);
        wire::put_integer(out, 3, self.revision as u64);
        wire::put_integer(out, 4, self.raft_term);
    }
}

impl From<Header> for cairn_proto::etcdserverpb::ResponseHeader {
    fn from(header: Header) -> Self {
        let Header { cluster_id, member_id, revision, raft_term } = header;
        Self { cluster_id, member_id, revision, raft_term }
    }
}

fn put_bytes(out: &mut BytesMut, field: u8, bytes: &[u8]) {
    wire::put_delimiter(out, field, bytes.len());
    out.put_slice(bytes);
}

fn rows_len(rows: &[Bytes]) -> usize {
    rows.iter().map(|row| wire::delimited_len(row.len())).sum()
}

fn put_rows(out: &mut BytesMut, field: u8, rows: &[Bytes]) {
    for row in rows {
        put_bytes(out, field, row);
    }
}

/// Bytes of `count` and `more`, which follow the rows of a range.
fn range_tail_len(count: i64, more: bool) -> usize {
    wire::integer_len(u64::from(more)) + wire::integer_len(count as u64)
}

fn put_range_tail(out: &mut BytesMut, count: i64, more: bool) {
    wire::put_integer(out, 3, u64::from(more));
    wire::put_integer(out, 4, count as u64);
}

/// `RangeResponse`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RangeAnswer {
    /// Left out only in the pieces of a streamed range before the last.
    pub header: Option<Header>,
    /// What was read.
    pub rows: Rows,
}

impl Answer for RangeAnswer {
    fn wire_len(&self) -> usize {
        self.header.map_or(0, |header| header.field_len())
            + rows_len(&self.rows.kvs)
            + range_tail_len(self.rows.count, self.rows.more)
    }

    fn write(&self, out: &mut BytesMut) {
        if let Some(header) = self.header {
            header.put_field(out);
        }
        put_rows(out, 2, &self.rows.kvs);
        put_range_tail(out, self.rows.count, self.rows.more);
    }

    fn into_parts(self) -> Result<Parts, Self> {
        let len = self.wire_len();
        if len <= WHOLE_BYTES_MAX {
            return Err(self);
        }
        let (mut head, mut tail) = (BytesMut::new(), BytesMut::new());
        if let Some(header) = self.header {
            header.put_field(&mut head);
        }
        put_range_tail(&mut tail, self.rows.count, self.rows.more);
        let (head, tail) = (head.freeze(), tail.freeze());
        Ok(Parts { len, head, joined: Bytes::new(), field: 2, rows: self.rows.kvs.into_iter(), tail })
    }
}

/// `RangeStreamResponse`: one piece of a streamed range.
#[derive(Debug, Clone, PartialEq)]
pub struct RangePiece {
    /// Who answered; in the last piece only.
    pub header: Option<Header>,
    /// Rows, as the fields of `RangeResponse` that they are.
    pub rows: Bytes,
    /// Keys in the whole range; in the last piece only.
    pub count: i64,
    /// The limit cut keys off; in the last piece only.
    pub more: bool,
}

impl RangePiece {
    /// Bytes of the `RangeResponse`.
    fn range_len(&self) -> usize {
        self.header.map_or(0, |header| header.field_len()) + self.rows.len() + range_tail_len(self.count, self.more)
    }

    fn put_head(&self, out: &mut BytesMut) {
        wire::put_delimiter(out, 1, self.range_len());
        if let Some(header) = self.header {
            header.put_field(out);
        }
    }
}

impl Answer for RangePiece {
    fn wire_len(&self) -> usize {
        wire::delimited_len(self.range_len())
    }

    fn write(&self, out: &mut BytesMut) {
        self.put_head(out);
        out.put_slice(&self.rows);
        put_range_tail(out, self.count, self.more);
    }

    fn into_parts(self) -> Result<Parts, Self> {
        let len = self.wire_len();
        if len <= WHOLE_BYTES_MAX {
            return Err(self);
        }
        let (mut head, mut tail) = (BytesMut::new(), BytesMut::new());
        self.put_head(&mut head);
        put_range_tail(&mut tail, self.count, self.more);
        let (head, tail) = (head.freeze(), tail.freeze());
        Ok(Parts { len, head, joined: self.rows, field: 2, rows: Vec::new().into_iter(), tail })
    }
}

/// `PutResponse`.
#[derive(Debug, Clone, PartialEq)]
pub struct PutAnswer {
    /// Who answered.
    pub header: Header,
    /// The key as it was before.
    pub previous: Option<Bytes>,
}

impl Answer for PutAnswer {
    fn wire_len(&self) -> usize {
        self.header.field_len() + rows_len(self.previous.as_slice())
    }

    fn write(&self, out: &mut BytesMut) {
        self.header.put_field(out);
        put_rows(out, 2, self.previous.as_slice());
    }
}

/// `DeleteRangeResponse`.
#[derive(Debug, Clone, PartialEq)]
pub struct DeleteRangeAnswer {
    /// Who answered.
    pub header: Header,
    /// Keys deleted.
    pub deleted: i64,
    /// The keys as they were before.
    pub previous: Vec<Bytes>,
}

impl Answer for DeleteRangeAnswer {
    fn wire_len(&self) -> usize {
        self.header.field_len() + wire::integer_len(self.deleted as u64) + rows_len(&self.previous)
    }

    fn write(&self, out: &mut BytesMut) {
        self.header.put_field(out);
        wire::put_integer(out, 2, self.deleted as u64);
        put_rows(out, 3, &self.previous);
    }
}

/// `TxnResponse`.
#[derive(Debug, Clone, PartialEq)]
pub struct TxnAnswer {
    /// Who answered.
    pub header: Header,
    /// All compares held.
    pub succeeded: bool,
    /// What the operations of the branch that ran answered.
    pub ops: Vec<OpRows>,
}

impl Answer for TxnAnswer {
    fn wire_len(&self) -> usize {
        txn_len(&self.header, self.succeeded, &self.ops)
    }

    fn write(&self, out: &mut BytesMut) {
        put_txn(out, &self.header, self.succeeded, &self.ops);
    }
}

fn txn_len(header: &Header, succeeded: bool, ops: &[OpRows]) -> usize {
    let ops: usize = ops.iter().map(|op| wire::delimited_len(wire::delimited_len(op_len(op)))).sum();
    header.field_len() + wire::integer_len(u64::from(succeeded)) + ops
}

fn put_txn(out: &mut BytesMut, header: &Header, succeeded: bool, ops: &[OpRows]) {
    header.put_field(out);
    wire::put_integer(out, 2, u64::from(succeeded));
    for op in ops {
        let len = op_len(op);
        wire::put_delimiter(out, 3, wire::delimited_len(len));
        put_op(out, op, len);
    }
}

/// The header of a nested transaction: there, but empty.
const NESTED_HEADER: Header = Header::of_op(0);

/// Bytes of the answer within a `ResponseOp`.
fn op_len(op: &OpRows) -> usize {
    match op {
        OpRows::Range { revision, rows } => {
            Header::of_op(*revision).field_len() + rows_len(&rows.kvs) + range_tail_len(rows.count, rows.more)
        }
        OpRows::Put { revision, previous } => Header::of_op(*revision).field_len() + rows_len(previous.as_slice()),
        OpRows::DeleteRange { revision, deleted, previous } => {
            Header::of_op(*revision).field_len() + wire::integer_len(*deleted as u64) + rows_len(previous)
        }
        OpRows::Txn { succeeded, ops } => txn_len(&NESTED_HEADER, *succeeded, ops),
    }
}

/// Writes a `ResponseOp`, the answer within which has `len` bytes.
fn put_op(out: &mut BytesMut, op: &OpRows, len: usize) {
    match op {
        OpRows::Range { revision, rows } => {
            wire::put_delimiter(out, 1, len);
            Header::of_op(*revision).put_field(out);
            put_rows(out, 2, &rows.kvs);
            put_range_tail(out, rows.count, rows.more);
        }
        OpRows::Put { revision, previous } => {
            wire::put_delimiter(out, 2, len);
            Header::of_op(*revision).put_field(out);
            put_rows(out, 2, previous.as_slice());
        }
        OpRows::DeleteRange { revision, deleted, previous } => {
            wire::put_delimiter(out, 3, len);
            Header::of_op(*revision).put_field(out);
            wire::put_integer(out, 2, *deleted as u64);
            put_rows(out, 3, previous);
        }
        OpRows::Txn { succeeded, ops } => {
            wire::put_delimiter(out, 4, len);
            put_txn(out, &NESTED_HEADER, *succeeded, ops);
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::{etcdserverpb as pb, mvccpb};
    use pb::response_op::Response;
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header { cluster_id: u64::MAX, member_id: 7, revision: 300, raft_term: 2 };

    fn kv(seed: u8) -> mvccpb::KeyValue {
        mvccpb::KeyValue {
            key: Bytes::from(vec![seed; 3]),
            create_revision: i64::from(seed),
            mod_revision: 1 << seed.min(60),
            version: 1,
            value: Bytes::from(vec![seed; usize::from(seed) * 3]),
            lease: -i64::from(seed % 2),
        }
    }

    fn encoded(kvs: &[mvccpb::KeyValue]) -> Vec<Bytes> {
        kvs.iter().map(|kv| kv.encode_to_vec().into()).collect()
    }

    fn written(answer: &impl Answer) -> Vec<u8> {
        let mut out = BytesMut::new();
        answer.write(&mut out);
        assert_eq!(out.len(), answer.wire_len());
        out.to_vec()
    }

    fn rows(kvs: &[mvccpb::KeyValue], more: bool, count: i64) -> Rows {
        Rows { count, more, kvs: encoded(kvs) }
    }

    fn op_header(revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader { revision, ..Default::default() }
    }

    #[test]
    fn a_put_is_written_as_its_message() {
        let message = pb::PutResponse { header: Some(HEADER.into()), prev_kv: Some(kv(9)) };
        let answer = PutAnswer { header: HEADER, previous: encoded(&[kv(9)]).pop() };
        assert_eq!(written(&answer), message.encode_to_vec());
        assert_eq!(answer.to_message::<pb::PutResponse>(), Ok(message));
        let bare = PutAnswer { header: HEADER, previous: None };
        assert_eq!(written(&bare), pb::PutResponse { header: Some(HEADER.into()), prev_kv: None }.encode_to_vec());
    }

    #[test]
    fn a_delete_is_written_as_its_message() {
        let kvs = [kv(1), kv(2)];
        let message = pb::DeleteRangeResponse { header: Some(HEADER.into()), deleted: 200, prev_kvs: kvs.to_vec() };
        assert_eq!(
            written(&DeleteRangeAnswer { header: HEADER, deleted: 200, previous: encoded(&kvs) }),
            message.encode_to_vec()
        );
    }

    #[test]
    fn a_txn_is_written_as_its_message_and_nested_headers_are_there_but_empty() {
        let op = |response| pb::ResponseOp { response: Some(response) };
        let range = pb::RangeResponse { header: Some(op_header(4)), kvs: vec![kv(5)], more: true, count: 12 };
        let nested = pb::TxnResponse {
            header: Some(pb::ResponseHeader::default()),
            succeeded: false,
            responses: vec![op(Response::ResponsePut(pb::PutResponse { header: Some(op_header(5)), prev_kv: None }))],
        };
        let delete = pb::DeleteRangeResponse { header: Some(op_header(5)), deleted: 0, prev_kvs: vec![] };
        let message = pb::TxnResponse {
            header: Some(HEADER.into()),
            succeeded: true,
            responses: vec![
                op(Response::ResponseRange(range)),
                op(Response::ResponseTxn(nested)),
                op(Response::ResponseDeleteRange(delete)),
            ],
        };
        let answer = TxnAnswer {
            header: HEADER,
            succeeded: true,
            ops: vec![
                OpRows::Range { revision: 4, rows: rows(&[kv(5)], true, 12) },
                OpRows::Txn { succeeded: false, ops: vec![OpRows::Put { revision: 5, previous: None }] },
                OpRows::DeleteRange { revision: 5, deleted: 0, previous: vec![] },
            ],
        };
        assert_eq!(written(&answer), message.encode_to_vec());
    }

    #[test]
    fn the_pieces_of_a_streamed_range_merge_into_the_unary_answer() {
        let kvs = [kv(1), kv(2), kv(3)];
        let whole = RangeAnswer { header: Some(HEADER), rows: rows(&kvs, true, 40) };
        let joined = |kvs: &[mvccpb::KeyValue]| {
            pb::RangeResponse { kvs: kvs.to_vec(), ..Default::default() }.encode_to_vec().into()
        };
        let first = RangePiece { header: None, rows: joined(&kvs[..2]), count: 0, more: false };
        let last = RangePiece { header: Some(HEADER), rows: joined(&kvs[2..]), count: 40, more: true };
        let mut merged = pb::RangeStreamResponse::default();
        for piece in [&first, &last] {
            merged.merge(&written(piece)[..]).expect("a piece is a message");
        }
        assert_eq!(merged.range_response, Some(whole.to_message().expect("the answer is a message")));
    }

    proptest! {
        #[test]
        fn a_range_is_written_as_its_message_whole_and_in_parts(seeds in prop::collection::vec(any::<u8>(), 0..300), more: bool, count in 0..i64::MAX) {
            let kvs: Vec<_> = seeds.into_iter().map(kv).collect();
            let message = pb::RangeResponse { header: Some(HEADER.into()), kvs: kvs.clone(), more, count }.encode_to_vec();
            let answer = RangeAnswer { header: Some(HEADER), rows: rows(&kvs, more, count) };
            prop_assert_eq!(&written(&answer), &message);
            match answer.into_parts() {
                Err(whole) => prop_assert!(whole.wire_len() <= WHOLE_BYTES_MAX),
                Ok(parts) => {
                    let mut out = BytesMut::from(&parts.head[..]);
                    put_rows(&mut out, parts.field, parts.rows.as_slice());
                    out.put_slice(&parts.tail);
                    prop_assert_eq!(parts.len, message.len());
                    prop_assert_eq!(&out[..], &message[..]);
                }
            }
        }
    }
}

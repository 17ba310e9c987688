//! Tests of the replicated state as a whole: commands in, answers out, over a store in memory.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::{ApiError, etcdserverpb as pb, mvccpb::KeyValue};
use prost::Message;

use super::{
    Answer, Committed, CommittedData, Compactor, Membership, Reader, State, StateError, StateOptions,
    auth::{Actor, Authorizer},
    command::{COMMAND_LEVEL, Command, EntryBuilder, OpReply, Outcome, Reply, Request, RequestId, encode},
    mvcc::{CompactionStep, ImageOptions, OpRows, ReadError, Rows},
};
use crate::store::{MemStore, Store, Table};

mod apply;
mod concurrency;
mod determinism;
mod model;
mod observer;
mod recorded;
mod scenarios;
mod sequence;

/// A member's state with a log before it: every request is an entry of its own, unless they are batched by hand.
pub(super) struct Member {
    pub(super) store: Arc<dyn Store>,
    pub(super) state: State,
    compactor: Compactor,
    image: ImageOptions,
    log: Vec<Committed>,
    requests: u64,
}

/// Images of the index whenever there is time for one.
pub(super) const MANY_IMAGES: ImageOptions =
    ImageOptions { enabled: true, revisions_min: 2, bytes_min: u64::MAX, interval_min: Duration::ZERO };

impl Member {
    pub(super) fn new() -> Self {
        Self::on(Arc::new(MemStore::new()))
    }

    pub(super) fn on(store: Arc<dyn Store>) -> Self {
        Self::with(store, ImageOptions::default())
    }

    pub(super) fn with(store: Arc<dyn Store>, image: ImageOptions) -> Self {
        let mut state = State::open(store.clone(), StateOptions { image, ..StateOptions::default() }).unwrap();
        if state.applied() == (0, 0) {
            let member = pb::Member { id: 7, peer_urls: vec!["http://a:2380".into()], ..Default::default() };
            state.bootstrap(&Membership { cluster_id: 9, members: vec![member] }, 1, 1).unwrap();
        }
        Self { compactor: state.compactor(), store, state, image, log: Vec::new(), requests: 0 }
    }

    pub(super) fn reader(&self) -> &Reader {
        self.state.reader()
    }

    /// Packs requests into one entry that follows the log.
    pub(super) fn entry(&mut self, requests: impl IntoIterator<Item = Request>) -> Committed {
        let mut entry = EntryBuilder::new();
        for request in requests {
            self.requests += 1;
            let id = RequestId { member: 7, nonce: 1, counter: self.requests };
            assert!(entry.push(&encode(&Command { id, actor: Actor::Anonymous, request }, COMMAND_LEVEL)));
        }
        let entry = Committed {
            index: 2 + self.log.len() as u64,
            term: 1,
            data: CommittedData::Commands(entry.finish().into()),
        };
        self.log.push(entry.clone());
        entry
    }

    /// Applies one request as an entry of its own.
    pub(super) fn apply(&mut self, request: Request) -> Answer {
        let entry = self.entry([request]);
        let mut answers = self.state.apply(&[entry]).unwrap();
        assert_eq!(answers.len(), 1);
        answers.remove(0)
    }

    pub(super) fn outcome(&mut self, request: Request) -> Outcome {
        self.apply(request).outcome
    }

    /// Applies a KV request and reads its answer's rows: the header's revision and what happened.
    pub(super) fn kv(&mut self, request: Request) -> Result<(i64, OpRows), ApiError> {
        let answer = self.apply(request);
        match answer.outcome? {
            Reply::Kv { revision, done } => Ok((revision, self.rows(&done, answer.pin.as_ref()))),
            other => panic!("{other:?} is no answer of a KV request"),
        }
    }

    fn rows(&self, done: &OpReply, pin: Option<&super::mvcc::Pin>) -> OpRows {
        let rows = self.reader().answer(done, pin).unwrap();
        if let super::mvcc::Inline::Ready(inline) = self.reader().answer_inline(done, pin) {
            assert_eq!(inline.unwrap(), rows, "inline and waiting answers differ");
        }
        rows
    }

    pub(super) fn put(&mut self, key: &str, value: &str) -> i64 {
        let put = pb::PutRequest { key: key.to_owned().into(), value: value.to_owned().into(), ..Default::default() };
        self.kv(Request::Put(put)).unwrap().0
    }

    pub(super) fn compact(&mut self, revision: i64) -> Result<(), ApiError> {
        self.outcome(Request::Compact(pb::CompactionRequest { revision, physical: false })).map(drop)
    }

    /// A range outside of any txn: the header's revision and the rows.
    pub(super) fn range(&self, request: &pb::RangeRequest) -> Result<(i64, Rows), ApiError> {
        range(self.reader(), request)
    }

    /// Drives compaction to its end.
    pub(super) fn compact_physically(&mut self) {
        while self.compactor.step(Duration::ZERO).unwrap() != CompactionStep::Idle {}
    }

    pub(super) fn compaction_step(&mut self, now: Duration) -> Result<CompactionStep, StateError> {
        self.compactor.step(now)
    }

    pub(super) fn write_image(&mut self) -> bool {
        self.compactor.write_image(Duration::ZERO).unwrap()
    }

    /// Lets go of the store.
    pub(super) fn close(self) -> Closed {
        Closed { image: self.image, log: self.log, requests: self.requests }
    }

    /// Opens `store` anew and replays the log from where it stands.
    pub(super) fn restart(self, store: Arc<dyn Store>) -> Self {
        self.close().open(store)
    }
}

/// A member that is not running: its log.
pub(super) struct Closed {
    image: ImageOptions,
    log: Vec<Committed>,
    requests: u64,
}

impl Closed {
    pub(super) fn open(self, store: Arc<dyn Store>) -> Member {
        let mut member = Member::with(store, self.image);
        (member.log, member.requests) = (self.log, self.requests);
        let (applied, _) = member.state.applied();
        let rest: Vec<_> = member.log.iter().filter(|entry| entry.index > applied).cloned().collect();
        member.state.apply(&rest).unwrap();
        member
    }
}

/// Everything a store holds.
pub(super) fn contents(store: &dyn Store) -> Vec<(Table, Bytes, Bytes)> {
    let mut all = Vec::new();
    for table in Table::ALL {
        store
            .scan(table, b"", None, &mut |key, value| {
                all.push((table, Bytes::copy_from_slice(key), Bytes::copy_from_slice(value)));
                ControlFlow::Continue(())
            })
            .unwrap();
    }
    all
}

pub(super) fn range(reader: &Reader, request: &pb::RangeRequest) -> Result<(i64, Rows), ApiError> {
    let pin = reader.pin(&Authorizer::default().own(), request.revision)?;
    let rows = match reader.range(&pin, request) {
        Err(ReadError::Api(error)) => return Err(error),
        rows => rows.unwrap(),
    };
    if let super::mvcc::Inline::Ready(inline) = reader.range_inline(&pin, request) {
        assert_eq!(inline.unwrap(), rows, "inline and waiting reads differ");
    }
    Ok((pin.header_revision(), rows))
}

pub(super) fn key_values(kvs: &[Bytes]) -> Vec<KeyValue> {
    kvs.iter().map(|kv| KeyValue::decode(kv.clone()).unwrap()).collect()
}

/// The rows of a piece, as a range has them.
pub(super) fn streamed_rows(rows: Bytes) -> Vec<Bytes> {
    pb::RangeResponse::decode(rows).unwrap().kvs.iter().map(|kv| kv.encode_to_vec().into()).collect()
}

/// The wire answer of a range.
pub(super) fn range_response(revision: i64, rows: &Rows) -> pb::RangeResponse {
    pb::RangeResponse { header: header(revision), kvs: key_values(&rows.kvs), more: rows.more, count: rows.count }
}

/// The wire answer of an operation within a txn.
fn response_op(rows: &OpRows) -> pb::ResponseOp {
    use pb::response_op::Response;
    let response = match rows {
        OpRows::Put { revision, previous } => Response::ResponsePut(put_response(*revision, previous.as_ref())),
        OpRows::DeleteRange { revision, deleted, previous } => {
            Response::ResponseDeleteRange(delete_response(*revision, *deleted, previous))
        }
        OpRows::Range { revision, rows } => Response::ResponseRange(range_response(*revision, rows)),
        OpRows::Txn { succeeded, ops } => {
            Response::ResponseTxn(txn_response(Some(pb::ResponseHeader::default()), *succeeded, ops))
        }
    };
    pb::ResponseOp { response: Some(response) }
}

pub(super) fn put_response(revision: i64, previous: Option<&Bytes>) -> pb::PutResponse {
    pb::PutResponse { header: header(revision), prev_kv: previous.map(|kv| KeyValue::decode(kv.clone()).unwrap()) }
}

pub(super) fn delete_response(revision: i64, deleted: i64, previous: &[Bytes]) -> pb::DeleteRangeResponse {
    pb::DeleteRangeResponse { header: header(revision), deleted, prev_kvs: key_values(previous) }
}

pub(super) fn txn_response(header: Option<pb::ResponseHeader>, succeeded: bool, ops: &[OpRows]) -> pb::TxnResponse {
    pb::TxnResponse { header, succeeded, responses: ops.iter().map(response_op).collect() }
}

#[expect(clippy::unnecessary_wraps, reason = "the field it fills is optional")]
pub(super) fn header(revision: i64) -> Option<pb::ResponseHeader> {
    Some(pb::ResponseHeader { revision, ..Default::default() })
}

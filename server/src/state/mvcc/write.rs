//! Writing keys: the open batch, and one command's changes in it.
//!
//! A command takes the next main revision if it changes anything, and numbers its changes within. Each change goes into
//! the index at once (nobody reads above the published revision) and into the open batch, which also answers for values
//! not yet in the store.

use std::ops::ControlFlow;

use bytes::{Bytes, BytesMut};
use cairn_proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, TxnRequest, request_op::Request};
use parking_lot::RwLock;

use super::{
    Change, Mvcc,
    index::{KeyMeta, RangeEnd, Visited},
    range::range_end,
    revision::Revision,
    txn::{self, Checks, Path, Steps},
    value,
    view::View,
};
use crate::{
    state::{StateError, command::OpReply, leases::LeaseTable, record::scheduled::Scheduled},
    store::{Batch, Table},
};

/// Keys and values are encoded into chunks of this size, to spare allocations.
const ARENA_BYTES: usize = 32 << 10;

/// What commands have done to keys, for whoever counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Ranges within txns.
    pub ranges: u64,
    /// Keys set.
    pub puts: u64,
    /// Bytes of their keys and values.
    pub put_bytes: u64,
    /// Deletes of a key or range, and keys that ended with their lease.
    pub deletes: u64,
    /// Commands of more than one operation.
    pub txns: u64,
}

/// What was applied and is not yet written.
#[derive(Debug)]
pub(in crate::state) struct Open {
    /// Everything to write.
    pub(in crate::state) batch: Batch,
    /// The store's revision after it.
    pub(in crate::state) revision: i64,
    /// The compacted revision after it, -1 for none.
    pub(in crate::state) compacted: i64,
    /// Compactions among it.
    pub(in crate::state) scheduled: Vec<Scheduled>,
    /// What commands have done since it was last asked for.
    pub(in crate::state) counts: Counts,
    /// The changes in the batch, in order.
    changes: Vec<Change>,
    arena: BytesMut,
}

impl Open {
    pub(in crate::state) fn new(revision: i64, compacted: i64) -> Self {
        Self {
            batch: Batch::default(),
            revision,
            compacted,
            scheduled: Vec::new(),
            counts: Counts::default(),
            changes: Vec::new(),
            arena: BytesMut::new(),
        }
    }

    /// Forgets what is written now.
    pub(in crate::state) fn clear(&mut self) {
        self.batch.clear();
        self.scheduled.clear();
        self.changes.clear();
        self.arena = BytesMut::new();
    }

    /// A stored value that is in the batch.
    pub(super) fn value(&self, at: Revision) -> Option<&Bytes> {
        let at = self.changes.binary_search_by_key(&at, |change| change.at).ok()?;
        Some(&self.changes[at]).filter(|change| !change.tombstone).map(|change| &change.stored)
    }

    /// The changes in the batch, in order; they are then no longer known here.
    pub(in crate::state) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    fn put(&mut self, key: &[u8], meta: &KeyMeta, value: &[u8]) {
        let at = self.key(&meta.modified.put_key(), key.len() + value.len());
        value::encode_put(&mut self.arena, key, meta, value);
        self.change(at, meta.modified, false);
    }

    fn delete(&mut self, key: &[u8], at: Revision) {
        let stored_at = self.key(&at.tombstone_key(), key.len());
        value::encode_tombstone(&mut self.arena, key);
        self.change(stored_at, at, true);
    }

    /// A revision's key, with room behind it for key and value.
    fn key(&mut self, at: &[u8], room: usize) -> Bytes {
        let needed = at.len() + room + 128;
        if self.arena.capacity() - self.arena.len() < needed {
            self.arena.reserve(needed.max(ARENA_BYTES));
        }
        self.arena.extend_from_slice(at);
        self.arena.split().freeze()
    }

    /// Takes what was encoded last as the change at `at`.
    fn change(&mut self, stored_at: Bytes, at: Revision, tombstone: bool) {
        let stored = self.arena.split().freeze();
        self.changes.push(Change { at, tombstone, stored: stored.clone() });
        self.batch.put(Table::Rev, stored_at, stored);
    }
}

/// One command's changes.
pub(in crate::state) struct Write<'a> {
    mvcc: &'a Mvcc,
    open: &'a mut Open,
    leases: &'a RwLock<LeaseTable>,
    begin: i64,
    changes: u32,
    /// Operations so far.
    ops: u32,
    /// The lowest revision that has to stay readable until the answer is built.
    needed: Option<i64>,
}

impl<'a> Write<'a> {
    pub(in crate::state) fn new(mvcc: &'a Mvcc, open: &'a mut Open, leases: &'a RwLock<LeaseTable>) -> Self {
        let begin = open.revision;
        Self { mvcc, open, leases, begin, changes: 0, ops: 0, needed: None }
    }

    /// Ends the command: the revision after it, and the revision to pin for its answer.
    pub(in crate::state) fn finish(self) -> (i64, Option<i64>) {
        self.open.revision = self.header();
        self.open.counts.txns += u64::from(self.ops > 1);
        (self.open.revision, self.needed)
    }

    /// What an answer's header says now: the revision before the command until its first change.
    fn header(&self) -> i64 {
        self.begin + i64::from(self.changes > 0)
    }

    /// The newest point of history, the changes so far included.
    fn at(&self) -> Revision {
        match self.changes.checked_sub(1) {
            Some(last) => Revision::new(self.begin + 1, last),
            None => Revision::whole(self.begin),
        }
    }

    fn next(&mut self) -> Revision {
        let at = Revision::new(self.begin + 1, self.changes);
        self.changes += 1;
        at
    }

    fn view(&self) -> View<'_> {
        View::newest(self.mvcc, self.open, self.at())
    }

    fn need(&mut self, revision: i64) {
        self.needed = Some(self.needed.map_or(revision, |needed| needed.min(revision)));
    }

    /// A put of its own.
    pub(in crate::state) fn put(&mut self, request: &PutRequest) -> Result<OpReply, StateError> {
        let leases = self.leases;
        txn::check_put(&self.view(), request, &|id| leases.read().contains(id)).map_err(super::Unread::into_error)?;
        self.run_put(request)
    }

    /// A txn of its own.
    pub(in crate::state) fn txn(&mut self, request: &TxnRequest) -> Result<OpReply, StateError> {
        let leases = self.leases;
        let view = self.view();
        let path = Path::of(&view, request).map_err(super::Unread::into_error)?;
        let has_lease = |id| leases.read().contains(id);
        let checks = Checks { view: &view, newest: self.begin, compacted: self.open.compacted, has_lease: &has_lease };
        checks.run(request, &path).map_err(super::Unread::into_error)?;
        self.run_txn(request, &mut path.steps())
    }

    fn run_txn(&mut self, request: &TxnRequest, steps: &mut Steps<'_>) -> Result<OpReply, StateError> {
        let (succeeded, requests) = steps.enter(request);
        let mut ops = Vec::with_capacity(requests.len());
        for op in requests {
            ops.push(match &op.request {
                Some(Request::RequestRange(range)) => self.plan_range(range),
                Some(Request::RequestPut(put)) => self.run_put(put)?,
                Some(Request::RequestDeleteRange(delete)) => self.delete_range(delete)?,
                Some(Request::RequestTxn(nested)) => self.run_txn(nested, steps)?,
                None => return Err(StateError::Corrupt { what: "an operation of a txn is not set".into() }),
            });
        }
        Ok(OpReply::Txn { succeeded, ops })
    }

    /// Where a range of a txn is to be read once the txn is through.
    fn plan_range(&mut self, request: &RangeRequest) -> OpReply {
        let at = if request.revision > 0 { Revision::whole(request.revision) } else { self.at() };
        self.need(at.main.min(self.begin));
        self.ops += 1;
        self.open.counts.ranges += 1;
        OpReply::Range { revision: self.header(), at, request: Box::new(request.clone()) }
    }

    fn run_put(&mut self, request: &PutRequest) -> Result<OpReply, StateError> {
        let (mut value, mut lease) = (request.value.clone(), request.lease);
        if request.ignore_value || request.ignore_lease {
            let view = self.view();
            let unread = super::Unread::into_error;
            let Some(previous) = view.get(&request.key).map_err(unread)? else {
                return Err(StateError::Corrupt { what: "a key that was checked to be there is not".into() });
            };
            if request.ignore_value {
                let stored = view.value(previous.modified).map_err(unread)?;
                value = value::decode(previous.modified, stored)?.value;
            }
            if request.ignore_lease {
                lease = previous.lease;
            }
        }
        let at = self.next();
        self.ops += 1;
        self.open.counts.puts += 1;
        self.open.counts.put_bytes += (request.key.len() + value.len()) as u64;
        let written = self.mvcc.index.write().put(&request.key, at, lease);
        self.open.put(&request.key, &written.meta, &value);
        let old_lease = written.previous.map_or(0, |previous| previous.lease);
        if old_lease != lease {
            self.leases.write().reattach(&request.key, old_lease, lease);
        }
        let previous = if request.prev_kv { written.previous.map(|previous| previous.modified) } else { None };
        if previous.is_some() {
            self.need(self.begin);
        }
        Ok(OpReply::Put { revision: self.header(), previous })
    }

    /// A delete, of its own or in a txn.
    pub(in crate::state) fn delete_range(&mut self, request: &DeleteRangeRequest) -> Result<OpReply, StateError> {
        self.ops += 1;
        self.open.counts.deletes += 1;
        let end = range_end(&request.range_end);
        let mut previous = Vec::new();
        let mut deleted = 0;
        if end == RangeEnd::Single {
            deleted += i64::from(self.delete(&request.key, request.prev_kv.then_some(&mut previous)));
        } else {
            let mut from = request.key.clone();
            loop {
                let mut page = Vec::new();
                let visited = self
                    .view()
                    .page(&from, &end, &mut |key, _| {
                        page.push(Bytes::copy_from_slice(key));
                        ControlFlow::Continue(())
                    })
                    .map_err(super::Unread::into_error)?;
                for key in page {
                    deleted += i64::from(self.delete(&key, request.prev_kv.then_some(&mut previous)));
                }
                match visited {
                    Visited::More(next) => from = next,
                    Visited::Finished | Visited::Stopped => break,
                }
            }
        }
        if !previous.is_empty() {
            self.need(self.begin);
        }
        Ok(OpReply::DeleteRange { revision: self.header(), deleted, previous })
    }

    /// Deletes keys, in the order given.
    pub(in crate::state) fn delete_keys(&mut self, keys: impl IntoIterator<Item = Bytes>) {
        for key in keys {
            self.ops += 1;
            self.open.counts.deletes += 1;
            self.delete(&key, None);
        }
    }

    fn delete(&mut self, key: &[u8], previous: Option<&mut Vec<Revision>>) -> bool {
        let at = Revision::new(self.begin + 1, self.changes);
        let Some(ended) = self.mvcc.index.write().delete(key, at) else { return false };
        self.changes += 1;
        self.open.delete(key, at);
        if ended.lease != 0 {
            self.leases.write().reattach(key, ended.lease, 0);
        }
        if let Some(previous) = previous {
            previous.push(ended.modified);
        }
        true
    }
}

//! Queues of keys: what locks and elections are made of.
//!
//! ```text
//!   name/           the queue
//!   name/1f3a       a place in it: the lease in hexadecimal; who stands there is gone when the lease is
//! ```
//! Places are in the order in which they were taken, that of their create revisions; whoever is first holds the lock, or leads. Who waits is woken by the
//! deletion of the place just before the own one, so that a release wakes one and not all, or of the own one, which ends the wait. Everything here is
//! transactions, reads and watches as a client would make them, so it holds on every member.
//!
//! # Giving up
//!
//! A client that goes away, or whose deadline passes, must not be waited for by those behind it: its place is given up with the call that took it
//! (`Standing`). Only a call that has been answered leaves the place to its lease. A client may ask again, with the same lease, before its earlier call is
//! seen to be over: the place is given up with the last call that stands at it, and not at all once one of them was answered.
//!
//! # The fencing token
//!
//! Holding a place says nothing about later: a lease may run out while its holder believes otherwise, and somebody else is first then. What is done under a
//! lock must therefore carry the place's key and create revision, and be refused by whoever does it once there is no such key with that create
//! revision: for a write to this store, a transaction that compares the two. Create revisions rise from holder to holder, so that any other store can
//! refuse what comes with a lower one than it has seen.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{
        self as pb, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        range_request::{SortOrder, SortTarget},
        request_op::Request as Op,
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;

use super::{Context, answer::Answer, kv::Kv, lease::Lease, refusal::Refusal, watch::Watches};
use crate::state::auth::Principal;

/// Seconds that a lease lives that nobody asked for but a place needs. Nobody renews it.
const LEASE_TTL: i64 = 60;

/// The services that queues are made with. Clones are cheap.
#[derive(Clone)]
pub(super) struct Queues {
    pub(super) kv: Kv,
    pub(super) lease: Lease,
    pub(super) watch: Watches,
    pub(super) context: Arc<Context>,
    calls: Calls,
}

/// A place in a queue.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) key: Bytes,
    /// The create revision of its key.
    pub(super) revision: i64,
}

/// What taking a place gave.
pub(super) struct Taken {
    pub(super) standing: Standing,
    pub(super) header: Option<pb::ResponseHeader>,
    /// What stood at the place already.
    pub(super) before: Option<KeyValue>,
    /// Nobody stands before it.
    pub(super) is_first: bool,
}

/// The range of a queue.
pub(super) fn all(name: &[u8]) -> RangeRequest {
    // What follows the slash in the order of bytes is the zero.
    RangeRequest {
        key: [name, b"/"].concat().into(),
        range_end: [name, b"0"].concat().into(),
        ..RangeRequest::default()
    }
}

/// The first of a queue.
fn first(name: &[u8]) -> RangeRequest {
    by_age(name, SortOrder::Ascend)
}

/// The one just before a place.
fn just_before(name: &[u8], place: &Place) -> RangeRequest {
    RangeRequest { max_create_revision: place.revision - 1, ..by_age(name, SortOrder::Descend) }
}

fn by_age(name: &[u8], order: SortOrder) -> RangeRequest {
    RangeRequest { limit: 1, sort_order: order.into(), sort_target: SortTarget::Create.into(), ..all(name) }
}

fn single(key: &Bytes) -> RangeRequest {
    RangeRequest { key: key.clone(), ..RangeRequest::default() }
}

fn key_of(name: &[u8], lease: i64) -> Bytes {
    let sign = if lease < 0 { "-" } else { "" };
    [name, format!("/{sign}{:x}", lease.unsigned_abs()).as_bytes()].concat().into()
}

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

/// Whether the key was created at this revision; 0: is not there.
fn created_at(key: &Bytes, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(revision)),
        ..Compare::default()
    }
}

fn typed<A: Answer, M: Message + Default>(answer: &A) -> Result<M, Refusal> {
    answer.to_message().map_err(|error| Refusal::Internal(format!("a stored value does not decode: {error}").into()))
}

/// The first key of a range within a transaction's answer.
fn found(answer: pb::ResponseOp) -> Option<KeyValue> {
    match answer.response {
        Some(Response::ResponseRange(range)) => range.kvs.into_iter().next(),
        _ => None,
    }
}

impl Queues {
    pub(super) fn new(context: &Arc<Context>, kv: &Kv, lease: &Lease, watch: &Watches) -> Self {
        let (kv, lease, watch) = (kv.clone(), lease.clone(), watch.clone());
        Self { kv, lease, watch, context: context.clone(), calls: Calls::default() }
    }

    /// The lease that a request names, or a new one.
    pub(super) async fn lease(&self, principal: &Principal, lease: i64) -> Result<i64, Refusal> {
        if lease != 0 {
            return Ok(lease);
        }
        Ok(self.lease.grant(principal, LeaseGrantRequest { id: 0, ttl: LEASE_TTL }).await?.id)
    }

    /// Who is first in a queue.
    pub(super) async fn first(&self, principal: &Principal, name: &[u8]) -> Result<pb::RangeResponse, Refusal> {
        typed(&self.kv.range(principal, first(name)).await?)
    }

    /// Takes the place of a lease, unless it has been taken for that lease already.
    pub(super) async fn take(
        &self,
        principal: &Principal,
        name: &Bytes,
        lease: i64,
        value: &Bytes,
    ) -> Result<Taken, Refusal> {
        let (queues, principal, name, value) = (self.clone(), principal.clone(), name.clone(), value.clone());
        // In a task of its own: whoever asked may go while the place is being taken, and nobody would know of it.
        self.context.spawn(async move { queues.take_now(principal, &name, lease, value).await }).await?
    }

    async fn take_now(&self, principal: Principal, name: &[u8], lease: i64, value: Bytes) -> Result<Taken, Refusal> {
        let key = key_of(name, lease);
        while let Some(mut given_up) = self.calls.enter(&key) {
            // Ends when its other side is dropped.
            let _ = given_up.changed().await;
        }
        let mut standing = Standing { queues: self.clone(), place: Place { key: key.clone(), revision: 0 } };
        let put = PutRequest { key: key.clone(), value, lease, ..PutRequest::default() };
        let first = || op(Op::RequestRange(first(name)));
        let request = TxnRequest {
            compare: vec![created_at(&key, 0)],
            success: vec![op(Op::RequestPut(put)), first()],
            failure: vec![op(Op::RequestRange(single(&key))), first()],
        };
        let answer = self.txn(&principal, request).await?;
        let mut found = answer.responses.into_iter().map(found);
        let (before, first) = (found.next().flatten(), found.next().flatten());
        let now = answer.header.as_ref().map_or(0, |header| header.revision);
        let revision = before.as_ref().map_or(now, |kv| kv.create_revision);
        let is_first = first.is_none_or(|first| first.create_revision == revision);
        standing.place.revision = revision;
        self.calls.took(&standing.place);
        Ok(Taken { standing, header: answer.header, before, is_first })
    }

    /// Changes what stands at a place; nothing is changed, and `None` told, if the place is lost.
    pub(super) async fn write(
        &self,
        principal: &Principal,
        place: &Place,
        lease: i64,
        value: Bytes,
    ) -> Result<Option<pb::ResponseHeader>, Refusal> {
        let put = PutRequest { key: place.key.clone(), value, lease, ..PutRequest::default() };
        let answer = self.if_held(principal, place, Op::RequestPut(put)).await?;
        Ok(answer.header.filter(|_| answer.succeeded))
    }

    /// Gives a place up. It may be lost already.
    pub(super) async fn leave(
        &self,
        principal: &Principal,
        place: &Place,
    ) -> Result<Option<pb::ResponseHeader>, Refusal> {
        let delete = DeleteRangeRequest { key: place.key.clone(), ..DeleteRangeRequest::default() };
        Ok(self.if_held(principal, place, Op::RequestDeleteRange(delete)).await?.header)
    }

    async fn if_held(&self, principal: &Principal, place: &Place, then: Op) -> Result<pb::TxnResponse, Refusal> {
        let compare = vec![created_at(&place.key, place.revision)];
        self.txn(principal, TxnRequest { compare, success: vec![op(then)], failure: Vec::new() }).await
    }

    /// Waits until nobody stands before a place: the header of the read that showed it. `None` if the place is lost before.
    pub(super) async fn wait(
        &self,
        principal: &Principal,
        name: &[u8],
        place: &Place,
    ) -> Result<Option<pb::ResponseHeader>, Refusal> {
        loop {
            let reads = [single(&place.key), just_before(name, place)].map(|range| op(Op::RequestRange(range)));
            let read = self.txn(principal, TxnRequest { success: reads.into(), ..TxnRequest::default() }).await?;
            let mut found = read.responses.into_iter().map(found);
            let (own, before) = (found.next().flatten(), found.next().flatten());
            if own.is_none_or(|own| own.create_revision != place.revision) {
                return Ok(None);
            }
            let Some(before) = before else { return Ok(read.header) };
            let later = read.header.map_or(0, |header| header.revision) + 1;
            let gone = tokio::select! {
                gone = self.watch.deleted(before.key, later) => gone,
                gone = self.watch.deleted(place.key.clone(), later) => gone,
            };
            match gone {
                // Compacted while it was read: it is read again.
                Ok(_) | Err(Refusal::Api(ApiError::Compacted)) => {}
                Err(refusal) => return Err(refusal),
            }
        }
    }

    async fn txn(&self, principal: &Principal, request: TxnRequest) -> Result<pb::TxnResponse, Refusal> {
        typed(&self.kv.txn(principal, request).await?)
    }
}

/// The calls that stand at places, by the places' keys. As many as there are calls that wait.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<HashMap<Bytes, AtPlace>>>);

/// Who stands at one place.
#[derive(Default)]
struct AtPlace {
    calls: usize,
    /// The create revision of the place's key, once it is known.
    revision: Option<i64>,
    /// A call was answered: the place is the lease's.
    kept: bool,
    /// The last call is over and the place is being given up; until when.
    leaving: Option<watch::Receiver<()>>,
}

/// A place that is being given up. Nobody takes it for the same lease until this is dropped: the delete could come after.
struct Leaving {
    calls: Calls,
    place: Place,
    _until: watch::Sender<()>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.calls.0.lock().remove(&self.place.key);
    }
}

impl Calls {
    /// A call is about to take a place; or has to wait, if it is being given up.
    fn enter(&self, key: &Bytes) -> Option<watch::Receiver<()>> {
        let mut all = self.0.lock();
        let at = all.entry(key.clone()).or_default();
        if at.leaving.is_none() {
            at.calls += 1;
        }
        at.leaving.clone()
    }

    /// A call has taken a place, or found it taken.
    fn took(&self, place: &Place) {
        if let Some(at) = self.0.lock().get_mut(&place.key)
            && at.revision != Some(place.revision)
        {
            (at.revision, at.kept) = (Some(place.revision), false);
        }
    }

    /// A call is answered.
    fn keep(&self, place: &Place) {
        if let Some(at) = self.0.lock().get_mut(&place.key) {
            at.kept |= at.revision == Some(place.revision);
        }
    }

    /// A call is over. The place, if it is to be given up.
    fn leave(&self, key: &Bytes) -> Option<Leaving> {
        let mut all = self.0.lock();
        let at = all.get_mut(key)?;
        at.calls -= 1;
        if at.calls > 0 {
            return None;
        }
        let Some(revision) = at.revision.filter(|_| !at.kept) else {
            all.remove(key);
            return None;
        };
        let (until, leaving) = watch::channel(());
        at.leaving = Some(leaving);
        Some(Leaving { calls: self.clone(), place: Place { key: key.clone(), revision }, _until: until })
    }
}

/// Somebody who stands at a place, and leaves it when this is dropped.
pub(super) struct Standing {
    queues: Queues,
    place: Place,
}

impl Standing {
    /// Where it is.
    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    /// The place is its lease's from now on.
    pub(super) fn keep(self) -> Place {
        self.queues.calls.keep(&self.place);
        self.place.clone()
    }
}

impl Drop for Standing {
    fn drop(&mut self) {
        let Some(leaving) = self.queues.calls.leave(&self.place.key) else { return };
        let queues = self.queues.clone();
        // The server gives it up, whatever the client may do meanwhile. If the server stops before, the lease ends the place.
        drop(self.queues.context.spawn(async move {
            if let Err(error) = queues.leave(&Principal::Server, &leaving.place).await {
                tracing::debug!(%error, "a place in a queue stays until its lease ends");
            }
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_named_by_its_lease_in_hexadecimal() {
        assert_eq!(key_of(b"a/b", 0x1f3a), "a/b/1f3a");
        assert_eq!(key_of(b"", -7), "/-7");
        assert_eq!(key_of(b"x", i64::MIN), "x/-8000000000000000");
    }

    #[test]
    fn a_place_that_is_being_given_up_is_not_taken_before_it_is() {
        let (calls, key) = (Calls::default(), Bytes::from("l/7"));
        assert!(calls.enter(&key).is_none());
        calls.took(&Place { key: key.clone(), revision: 5 });
        let leaving = calls.leave(&key).expect("it was taken");
        let given_up = calls.enter(&key).expect("it waits");
        assert!(given_up.has_changed().is_ok());
        drop(leaving);
        assert!(given_up.has_changed().is_err() && calls.enter(&key).is_none());
    }

    #[test]
    fn a_place_is_given_up_with_the_last_call_and_never_once_one_was_answered() {
        let (calls, key) = (Calls::default(), Bytes::from("l/7"));
        let place = |revision| Place { key: key.clone(), revision };
        let left = || calls.leave(&key).map(|leaving| leaving.place.revision);
        assert!(calls.enter(&key).is_none());
        assert_eq!(left(), None, "it was never taken");
        // Two calls of one lease.
        assert!(calls.enter(&key).is_none());
        calls.took(&place(5));
        assert!(calls.enter(&key).is_none());
        assert_eq!(left(), None, "the other one is about to find it");
        calls.took(&place(5));
        assert_eq!(left(), Some(5));
        // One is answered before the other is over.
        assert!(calls.enter(&key).is_none());
        calls.took(&place(6));
        assert!(calls.enter(&key).is_none());
        calls.took(&place(6));
        calls.keep(&place(6));
        assert_eq!((left(), left()), (None, None));
        // A straggler, and a place that was taken anew meanwhile.
        assert!(calls.enter(&key).is_none());
        calls.took(&place(7));
        assert!(calls.enter(&key).is_none());
        calls.took(&place(7));
        calls.keep(&place(7));
        assert_eq!(left(), None);
        assert!(calls.enter(&key).is_none());
        calls.took(&place(8));
        assert_eq!((left(), left()), (None, Some(8)));
        assert!(calls.0.lock().is_empty());
    }

    #[test]
    fn a_queue_is_what_is_under_its_name() {
        let range = all(b"a");
        assert_eq!((range.key, range.range_end), ("a/".into(), "a0".into()));
    }
}

//! Transactions: compare, check, run.
//!
//! 1. **Path.** All compares, those of nested txns on the way included, are judged against the state before the txn. That
//!    fixes which branches run.
//! 2. **Check.** Every operation on the path is checked against that same state, in order, before anything changes: the
//!    revision of a range (compacted, future), the lease of a put, the existence of a key that `ignore_value` or
//!    `ignore_lease` needs. The first failure is the answer of the whole txn.
//! 3. **Deletes before ignoring puts.** A put that needs the previous value of a key which an earlier operation of this
//!    txn deletes cannot run. The whole txn is refused with "key not found".
//! 4. **Run.** Nothing can fail any more but the store. Operations see the writes of earlier ones.
//!
//! Operations on branches not taken are never looked at.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request},
};

use super::{
    compare,
    index::RangeEnd,
    range::range_end,
    view::{Unread, View},
};

/// Which branches run, of the txn and of the nested ones on the way, in the order in which they are met.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Path(Vec<bool>);

impl Path {
    /// Judges the compares.
    pub(super) fn of(view: &View<'_>, txn: &TxnRequest) -> Result<Self, Unread> {
        let mut path = Self(Vec::with_capacity(1));
        path.judge(view, txn)?;
        Ok(path)
    }

    fn judge(&mut self, view: &View<'_>, txn: &TxnRequest) -> Result<(), Unread> {
        let succeeded = all_hold(view, &txn.compare)?;
        self.0.push(succeeded);
        for op in branch(txn, succeeded) {
            if let Some(Request::RequestTxn(nested)) = &op.request {
                self.judge(view, nested)?;
            }
        }
        Ok(())
    }

    /// The branches in the order of the walk.
    pub(super) fn steps(&self) -> Steps<'_> {
        Steps(self.0.iter())
    }
}

/// Walks a [`Path`].
pub(super) struct Steps<'a>(std::slice::Iter<'a, bool>);

impl Steps<'_> {
    /// Which branch of the txn that the walk meets now, and its operations.
    pub(super) fn enter<'t>(&mut self, txn: &'t TxnRequest) -> (bool, &'t [RequestOp]) {
        let succeeded = self.0.next().copied().unwrap_or_default();
        (succeeded, branch(txn, succeeded))
    }
}

fn branch(txn: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    if succeeded { &txn.success } else { &txn.failure }
}

fn all_hold(view: &View<'_>, compares: &[Compare]) -> Result<bool, Unread> {
    for one in compares {
        if !compare::holds(view, one)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a range of a txn may be read. Unlike outside of txns, a negative revision is below the compacted one (once
/// there is one).
pub(super) fn check_range(request: &RangeRequest, newest: i64, compacted: i64) -> Result<(), ApiError> {
    match request.revision {
        0 => Ok(()),
        revision if revision > newest => Err(ApiError::FutureRevision),
        revision if revision < compacted => Err(ApiError::Compacted),
        _ => Ok(()),
    }
}

/// Whether a put can run before which nothing changes.
///
/// A key of no bytes is refused before it gets here: see [`rules`](crate::state::command::rules). Stored, it would be taken for damage.
pub(super) fn check_put(view: &View<'_>, request: &PutRequest, has_lease: &dyn Fn(i64) -> bool) -> Result<(), Unread> {
    if request.key.is_empty() {
        return Err(refused(ApiError::EmptyKey));
    }
    if request.lease != 0 && !has_lease(request.lease) {
        return Err(refused(ApiError::LeaseNotFound));
    }
    if needs_previous(request) && view.get(&request.key)?.is_none() {
        return Err(refused(ApiError::KeyNotFound));
    }
    Ok(())
}

fn needs_previous(request: &PutRequest) -> bool {
    request.ignore_value || request.ignore_lease
}

fn refused(error: ApiError) -> Unread {
    Unread::Failed(super::ReadError::Api(error))
}

/// Step 2 and 3: whether everything on the path can run.
pub(super) struct Checks<'a> {
    pub(super) view: &'a View<'a>,
    pub(super) newest: i64,
    pub(super) compacted: i64,
    pub(super) has_lease: &'a dyn Fn(i64) -> bool,
}

impl Checks<'_> {
    pub(super) fn run(&self, txn: &TxnRequest, path: &Path) -> Result<(), Unread> {
        let mut met = Met::default();
        self.check(txn, &mut path.steps(), &mut met)?;
        if met.deletes && met.ignoring_puts {
            let mut gone = Gone::default();
            if !gone.puts_find_their_keys(txn, &mut path.steps()) {
                return Err(refused(ApiError::KeyNotFound));
            }
        }
        Ok(())
    }

    fn check(&self, txn: &TxnRequest, steps: &mut Steps<'_>, met: &mut Met) -> Result<(), Unread> {
        let (_, ops) = steps.enter(txn);
        for op in ops {
            match &op.request {
                Some(Request::RequestRange(range)) => {
                    check_range(range, self.newest, self.compacted).map_err(refused)?;
                }
                Some(Request::RequestPut(put)) => {
                    check_put(self.view, put, self.has_lease)?;
                    met.ignoring_puts |= needs_previous(put);
                }
                Some(Request::RequestDeleteRange(_)) => met.deletes = true,
                Some(Request::RequestTxn(nested)) => self.check(nested, steps, met)?,
                // Refused before it gets here; never to be mistaken for an operation that did nothing.
                None => return Err(refused(ApiError::KeyNotFound)),
            }
        }
        Ok(())
    }
}

/// What a path holds.
#[derive(Default)]
struct Met {
    deletes: bool,
    ignoring_puts: bool,
}

/// The key space that the txn has deleted so far and not put again, as disjoint intervals: start, and end if there is
/// one.
#[derive(Debug, Default)]
struct Gone(BTreeMap<Bytes, Option<Bytes>>);

impl Gone {
    fn puts_find_their_keys(&mut self, txn: &TxnRequest, steps: &mut Steps<'_>) -> bool {
        let (_, ops) = steps.enter(txn);
        ops.iter().all(|op| match &op.request {
            Some(Request::RequestPut(put)) => {
                if needs_previous(put) && self.contains(&put.key) {
                    return false;
                }
                self.put(&put.key);
                true
            }
            Some(Request::RequestDeleteRange(delete)) => {
                match range_end(&delete.range_end) {
                    RangeEnd::Single => self.delete(delete.key.clone(), Some(behind(&delete.key))),
                    RangeEnd::Before(end) if end <= delete.key => {}
                    RangeEnd::Before(end) => self.delete(delete.key.clone(), Some(end)),
                    RangeEnd::Unbounded => self.delete(delete.key.clone(), None),
                }
                true
            }
            Some(Request::RequestTxn(nested)) => self.puts_find_their_keys(nested, steps),
            Some(Request::RequestRange(_)) | None => true,
        })
    }

    /// The interval that holds `key`.
    fn around(&self, key: &Bytes) -> Option<(Bytes, Option<Bytes>)> {
        let (start, end) = self.0.range::<Bytes, _>(..=key).next_back()?;
        end.as_ref().is_none_or(|end| key < end).then(|| (start.clone(), end.clone()))
    }

    fn contains(&self, key: &Bytes) -> bool {
        self.around(key).is_some()
    }

    fn delete(&mut self, mut start: Bytes, mut end: Option<Bytes>) {
        if let Some((known_start, known_end)) = self.around(&start) {
            start = known_start;
            end = later(end, known_end);
        }
        // Swallow the intervals that begin within the new one.
        while let Some((inner, inner_end)) =
            self.0.range::<Bytes, _>(&start..).next().map(|(start, end)| (start.clone(), end.clone()))
        {
            if end.as_ref().is_some_and(|end| inner > *end) {
                break;
            }
            end = later(end, inner_end);
            self.0.remove(&inner);
        }
        self.0.insert(start, end);
    }

    fn put(&mut self, key: &Bytes) {
        if let Some((start, end)) = self.around(key) {
            self.0.remove(&start);
            if start < key {
                self.0.insert(start, Some(key.clone()));
            }
            let next = behind(key);
            if end.as_ref().is_none_or(|end| next < *end) {
                self.0.insert(next, end);
            }
        }
    }
}

fn later(a: Option<Bytes>, b: Option<Bytes>) -> Option<Bytes> {
    Some(a?.max(b?))
}

fn behind(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

/// Whether a txn holds a put in either branch, at any depth.
pub(in crate::state) fn puts(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).any(|op| match &op.request {
        Some(Request::RequestPut(_)) => true,
        Some(Request::RequestTxn(nested)) => puts(nested),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn key() -> impl Strategy<Value = Bytes> {
        vec(b'a'..=b'c', 1..3).prop_map(Bytes::from)
    }

    proptest! {
        #[test]
        fn deleted_and_not_put_again_is_known_exactly(steps in vec((key(), prop::option::of(prop::option::of(key()))), 1..30)) {
            let all: Vec<Bytes> = (b'a'..=b'c').flat_map(|a| std::iter::once(vec![a]).chain((b'a'..=b'c').map(move |b| vec![a, b]))).map(Bytes::from).collect();
            let mut gone = Gone::default();
            let mut model = BTreeSet::new();
            for (key, delete) in steps {
                match delete {
                    None => {
                        gone.put(&key);
                        model.remove(&key);
                    }
                    Some(end) if end.as_ref().is_none_or(|end| key < end) => {
                        model.extend(all.iter().filter(|one| **one >= key && end.as_ref().is_none_or(|end| *one < end)).cloned());
                        gone.delete(key, end);
                    }
                    Some(_) => {}
                }
                for one in &all {
                    prop_assert_eq!(gone.contains(one), model.contains(one), "{:?} in {:?}", one, gone);
                }
            }
        }
    }
}

//! The shape of KV requests: what can be refused without looking at the store.
//!
//! Pure functions of the request and a limit, run before anything is proposed or read. The order of the checks is part of the wire
//! contract, because a request with two faults is answered with the first: a transaction's size comes before its keys, a range's key before its sort
//! order, and only a transaction without any such fault is searched for keys written twice.
//!
//! What is not here: everything that depends on the store (unknown lease, compacted revision, missing key of an `ignore_value` put).

use std::collections::{BTreeMap, HashSet};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, range_request::SortOrder, request_op::Request as Op},
};

use super::TXN_DEPTH_MAX;

/// Checks a range.
pub fn range(request: &pb::RangeRequest) -> Result<(), ApiError> {
    if request.key.is_empty() {
        return Err(ApiError::EmptyKey);
    }
    let known = SortOrder::try_from(request.sort_order).is_ok()
        && pb::range_request::SortTarget::try_from(request.sort_target).is_ok();
    if known { Ok(()) } else { Err(ApiError::InvalidSortOption) }
}

/// Checks a streamed range: a range in key order without filters by revision.
pub fn range_stream(request: &pb::RangeRequest) -> Result<(), ApiError> {
    range(request)?;
    let natural = match request.sort_order() {
        SortOrder::None => true,
        SortOrder::Ascend => request.sort_target() == pb::range_request::SortTarget::Key,
        SortOrder::Descend => false,
    };
    if !natural {
        return Err(ApiError::RangeStreamSortOrder);
    }
    let filters =
        [request.min_mod_revision, request.max_mod_revision, request.min_create_revision, request.max_create_revision];
    if filters.iter().any(|revision| *revision != 0) {
        return Err(ApiError::RangeStreamRevisionFilter);
    }
    Ok(())
}

/// Checks a put.
pub fn put(request: &pb::PutRequest) -> Result<(), ApiError> {
    if request.key.is_empty() {
        return Err(ApiError::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(ApiError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(ApiError::LeaseProvided);
    }
    Ok(())
}

/// Checks a delete.
pub fn delete_range(request: &pb::DeleteRangeRequest) -> Result<(), ApiError> {
    if request.key.is_empty() { Err(ApiError::EmptyKey) } else { Ok(()) }
}

/// Checks a transaction with everything nested in it. `max_ops` bounds compares, then and else of the outermost; a nested transaction may have what
/// the largest of its parent's three leaves of the parent's bound.
pub fn txn(request: &pb::TxnRequest, max_ops: usize) -> Result<(), ApiError> {
    txn_shape(request, max_ops, TXN_DEPTH_MAX)?;
    Writes::of(&request.success)?;
    Writes::of(&request.failure)?;
    Ok(())
}

/// `depth_max` bounds how deeply transactions are nested, this one included: what the log could not be read back from must not get there.
fn txn_shape(request: &pb::TxnRequest, max_ops: usize, depth_max: usize) -> Result<(), ApiError> {
    let depth_left = depth_max.checked_sub(1).ok_or(ApiError::TooManyOps)?;
    let widest = request.compare.len().max(request.success.len()).max(request.failure.len());
    let left = max_ops.checked_sub(widest).ok_or(ApiError::TooManyOps)?;
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(ApiError::EmptyKey);
    }
    request.success.iter().chain(&request.failure).try_for_each(|op| op_shape(op, left, depth_left))
}

fn op_shape(op: &pb::RequestOp, max_nested_ops: usize, depth_max: usize) -> Result<(), ApiError> {
    match &op.request {
        Some(Op::RequestRange(request)) => range(request),
        Some(Op::RequestPut(request)) => put(request),
        Some(Op::RequestDeleteRange(request)) => delete_range(request),
        Some(Op::RequestTxn(request)) => txn_shape(request, max_nested_ops, depth_max),
        None => Err(ApiError::KeyNotFound),
    }
}

/// The keys that one branch of a transaction, with everything nested in it, may put and delete.
#[derive(Default)]
struct Writes<'a> {
    puts: HashSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

impl<'a> Writes<'a> {
    /// Collects what `ops` write; refuses a key that would be written twice.
    ///
    /// The deletes of this level count for all its puts, nested ones included, whatever stands first. Nested transactions come next, in order: the
    /// puts of one are checked against the deletes of those before it, not of those after it. The puts of this level come last.
    fn of(ops: &'a [pb::RequestOp]) -> Result<Self, ApiError> {
        let mut writes = Self::default();
        for op in ops {
            if let Some(Op::RequestDeleteRange(delete)) = &op.request {
                writes.deletes.insert_range(&delete.key, &delete.range_end);
            }
        }
        for op in ops {
            if let Some(Op::RequestTxn(nested)) = &op.request {
                writes.add_nested(nested)?;
            }
        }
        for op in ops {
            if let Some(Op::RequestPut(put)) = &op.request {
                writes.add_put(&put.key)?;
            }
        }
        Ok(writes)
    }

    fn add_nested(&mut self, nested: &'a pb::TxnRequest) -> Result<(), ApiError> {
        let then = Self::of(&nested.success)?;
        let otherwise = Self::of(&nested.failure)?;
        for key in &then.puts {
            self.add_put(key)?;
        }
        // Only one of the branches runs: a key may be put in both.
        for key in otherwise.puts.difference(&then.puts) {
            self.add_put(key)?;
        }
        self.deletes.merge(then.deletes);
        self.deletes.merge(otherwise.deletes);
        Ok(())
    }

    fn add_put(&mut self, key: &'a [u8]) -> Result<(), ApiError> {
        if self.deletes.contains(key) || !self.puts.insert(key) { Err(ApiError::DuplicateKey) } else { Ok(()) }
    }
}

/// A union of key intervals: start → end, none overlapping.
#[derive(Default)]
struct Intervals<'a>(BTreeMap<&'a [u8], End<'a>>);

/// Where an interval ends, and whether its last key is the end itself (a single key).
type End<'a> = (&'a [u8], bool);

impl<'a> Intervals<'a> {
    /// Adds the interval of a delete. An end of `"\0"` is left out: clients may put what such a delete covers, because servers have always let them.
    fn insert_range(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        if range_end.is_empty() {
            self.insert(key, (key, true));
        } else if key < range_end {
            self.insert(key, (range_end, false));
        }
    }

    fn insert(&mut self, mut start: &'a [u8], mut end: End<'a>) {
        if let Some((&before, &before_end)) = self.0.range(..=start).next_back()
            && start <= before_end.0
        {
            start = before;
            end = end.max(before_end);
        }
        while let Some((&after, &after_end)) = self.0.range(start..).next()
            && after <= end.0
        {
            self.0.remove(after);
            end = end.max(after_end);
        }
        self.0.insert(start, end);
    }

    fn merge(&mut self, other: Self) {
        for (start, end) in other.0 {
            self.insert(start, end);
        }
    }

    fn contains(&self, key: &[u8]) -> bool {
        let Some((_, (end, inclusive))) = self.0.range(..=key).next_back() else { return false };
        key < *end || (*inclusive && key == *end)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use cairn_proto::etcdserverpb::range_request::SortTarget;
    use proptest::prelude::*;

    use super::*;

    fn key(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn put_op(at: &'static str) -> pb::RequestOp {
        pb::RequestOp { request: Some(Op::RequestPut(pb::PutRequest { key: key(at), ..Default::default() })) }
    }

    fn delete_op(from: &'static str, end: &'static str) -> pb::RequestOp {
        let request = pb::DeleteRangeRequest { key: key(from), range_end: key(end), ..Default::default() };
        pb::RequestOp { request: Some(Op::RequestDeleteRange(request)) }
    }

    fn range_op(at: &'static str) -> pb::RequestOp {
        pb::RequestOp { request: Some(Op::RequestRange(pb::RangeRequest { key: key(at), ..Default::default() })) }
    }

    fn txn_op(success: Vec<pb::RequestOp>, failure: Vec<pb::RequestOp>) -> pb::RequestOp {
        pb::RequestOp { request: Some(Op::RequestTxn(pb::TxnRequest { compare: vec![], success, failure })) }
    }

    fn branch(success: Vec<pb::RequestOp>) -> Result<(), ApiError> {
        txn(&pb::TxnRequest { success, ..Default::default() }, 128)
    }

    #[test]
    fn a_range_needs_a_key_before_a_known_sort_order() {
        let bad_sort = pb::RangeRequest { sort_order: 7, ..Default::default() };
        assert_eq!(range(&bad_sort), Err(ApiError::EmptyKey));
        assert_eq!(range(&pb::RangeRequest { key: key("a"), ..bad_sort }), Err(ApiError::InvalidSortOption));
        assert_eq!(
            range(&pb::RangeRequest { key: key("a"), sort_target: 5, ..Default::default() }),
            Err(ApiError::InvalidSortOption)
        );
        assert_eq!(
            range(&pb::RangeRequest { key: key("a"), sort_order: 2, sort_target: 4, ..Default::default() }),
            Ok(())
        );
    }

    #[test]
    fn a_streamed_range_takes_key_order_only_and_no_filters() {
        let plain = pb::RangeRequest { key: key("a"), ..Default::default() };
        assert_eq!(range_stream(&plain), Ok(()));
        let sorted = |order: SortOrder, target: SortTarget| {
            range_stream(&pb::RangeRequest { sort_order: order.into(), sort_target: target.into(), ..plain.clone() })
        };
        assert_eq!(sorted(SortOrder::Ascend, SortTarget::Key), Ok(()));
        assert_eq!(sorted(SortOrder::None, SortTarget::Value), Ok(()));
        assert_eq!(sorted(SortOrder::Descend, SortTarget::Key), Err(ApiError::RangeStreamSortOrder));
        assert_eq!(sorted(SortOrder::Ascend, SortTarget::Mod), Err(ApiError::RangeStreamSortOrder));
        let filtered = pb::RangeRequest { max_mod_revision: 3, ..plain.clone() };
        assert_eq!(range_stream(&filtered), Err(ApiError::RangeStreamRevisionFilter));
        let both = pb::RangeRequest { sort_order: 2, ..filtered };
        assert_eq!(range_stream(&both), Err(ApiError::RangeStreamSortOrder));
        assert_eq!(range_stream(&pb::RangeRequest { key: Bytes::new(), ..both }), Err(ApiError::EmptyKey));
    }

    #[test]
    fn a_put_is_asked_for_its_key_then_its_value_then_its_lease() {
        let mut request =
            pb::PutRequest { value: key("v"), lease: 1, ignore_value: true, ignore_lease: true, ..Default::default() };
        assert_eq!(put(&request), Err(ApiError::EmptyKey));
        request.key = key("a");
        assert_eq!(put(&request), Err(ApiError::ValueProvided));
        request.value = Bytes::new();
        assert_eq!(put(&request), Err(ApiError::LeaseProvided));
        request.lease = 0;
        assert_eq!(put(&request), Ok(()));
    }

    #[test]
    fn a_delete_needs_a_key() {
        assert_eq!(delete_range(&pb::DeleteRangeRequest::default()), Err(ApiError::EmptyKey));
        assert_eq!(branch(vec![delete_op("", "b")]), Err(ApiError::EmptyKey));
    }

    #[test]
    fn compares_then_and_else_are_bounded_each() {
        let compare = pb::Compare { key: key("a"), ..Default::default() };
        let full = pb::TxnRequest {
            compare: vec![compare.clone(); 128],
            success: vec![range_op("a"); 128],
            failure: vec![range_op("a"); 128],
        };
        assert_eq!(txn(&full, 128), Ok(()));
        let mut over = full.clone();
        over.compare.push(compare);
        assert_eq!(txn(&over, 128), Err(ApiError::TooManyOps));
        let mut over = full;
        over.failure.push(range_op("a"));
        assert_eq!(txn(&over, 128), Err(ApiError::TooManyOps));
    }

    #[test]
    fn a_nested_txn_may_have_what_its_parent_leaves() {
        let outer = |outer_ops: usize, inner_ops: usize| {
            let mut ops = vec![range_op("a"); outer_ops - 1];
            ops.push(txn_op(vec![range_op("b"); inner_ops], vec![]));
            branch(ops)
        };
        assert_eq!(outer(100, 28), Ok(()));
        assert_eq!(outer(100, 29), Err(ApiError::TooManyOps));
        assert_eq!(outer(128, 0), Ok(()));
        assert_eq!(outer(128, 1), Err(ApiError::TooManyOps));
    }

    #[test]
    fn txns_nested_too_deeply_for_the_log_are_refused() {
        let nested = |depth: usize| {
            let innermost = pb::TxnRequest::default();
            (1..depth).fold(innermost, |inner, _| {
                let op = pb::RequestOp { request: Some(Op::RequestTxn(inner)) };
                pb::TxnRequest { success: vec![op], ..Default::default() }
            })
        };
        assert_eq!(txn(&nested(TXN_DEPTH_MAX), 128), Ok(()));
        assert_eq!(txn(&nested(TXN_DEPTH_MAX + 1), 128), Err(ApiError::TooManyOps));
        assert_eq!(txn(&nested(3), 1), Err(ApiError::TooManyOps));
    }

    #[test]
    fn a_txns_size_comes_before_its_keys() {
        let mut ops = vec![range_op(""); 128];
        assert_eq!(branch(ops.clone()), Err(ApiError::EmptyKey));
        ops.push(range_op(""));
        assert_eq!(branch(ops), Err(ApiError::TooManyOps));
    }

    #[test]
    fn compares_come_before_operations_and_then_before_else() {
        let request = pb::TxnRequest {
            compare: vec![pb::Compare::default()],
            success: vec![pb::RequestOp { request: None }],
            failure: vec![range_op("")],
        };
        assert_eq!(txn(&request, 128), Err(ApiError::EmptyKey));
        let request = pb::TxnRequest { compare: vec![], ..request };
        assert_eq!(txn(&request, 128), Err(ApiError::KeyNotFound));
    }

    #[test]
    fn an_operation_that_is_not_set_is_refused_at_any_depth() {
        assert_eq!(branch(vec![txn_op(vec![], vec![pb::RequestOp { request: None }])]), Err(ApiError::KeyNotFound));
    }

    #[test]
    fn a_key_is_put_once_in_a_branch() {
        assert_eq!(branch(vec![put_op("a"), put_op("b")]), Ok(()));
        assert_eq!(branch(vec![put_op("a"), put_op("a")]), Err(ApiError::DuplicateKey));
        let both = pb::TxnRequest { compare: vec![], success: vec![put_op("a")], failure: vec![put_op("a")] };
        assert_eq!(txn(&both, 128), Ok(()));
        let otherwise = pb::TxnRequest { failure: vec![put_op("a"), put_op("a")], ..Default::default() };
        assert_eq!(txn(&otherwise, 128), Err(ApiError::DuplicateKey));
    }

    #[test]
    fn faults_in_shape_come_before_duplicates() {
        assert_eq!(branch(vec![put_op("a"), put_op("a"), put_op("")]), Err(ApiError::EmptyKey));
    }

    #[test]
    fn a_put_of_a_key_that_the_branch_deletes_is_refused_in_either_order() {
        assert_eq!(branch(vec![put_op("b"), delete_op("b", "")]), Err(ApiError::DuplicateKey));
        assert_eq!(branch(vec![delete_op("a", "c"), put_op("b")]), Err(ApiError::DuplicateKey));
        assert_eq!(branch(vec![delete_op("a", "c"), put_op("c")]), Ok(()));
        assert_eq!(branch(vec![delete_op("a", ""), put_op("a\0")]), Ok(()));
        assert_eq!(branch(vec![delete_op("c", "a"), put_op("b")]), Ok(()));
        assert_eq!(branch(vec![delete_op("a", "c"), delete_op("b", "d")]), Ok(()));
    }

    #[test]
    fn a_delete_to_the_end_of_the_key_space_never_collides() {
        assert_eq!(branch(vec![delete_op("a", "\0"), put_op("b")]), Ok(()));
        assert_eq!(branch(vec![delete_op("\0", "\0"), put_op("b")]), Ok(()));
    }

    #[test]
    fn nested_puts_and_deletes_count_for_the_parent() {
        assert_eq!(branch(vec![txn_op(vec![put_op("a")], vec![]), put_op("a")]), Err(ApiError::DuplicateKey));
        assert_eq!(branch(vec![put_op("a"), txn_op(vec![], vec![delete_op("a", "")])]), Err(ApiError::DuplicateKey));
        assert_eq!(branch(vec![txn_op(vec![put_op("a")], vec![]), delete_op("a", "b")]), Err(ApiError::DuplicateKey));
        assert_eq!(branch(vec![txn_op(vec![put_op("a")], vec![put_op("a")])]), Ok(()));
        assert_eq!(branch(vec![txn_op(vec![put_op("a")], vec![delete_op("a", "")])]), Ok(()));
    }

    #[test]
    fn among_sibling_txns_put_then_delete_passes_and_delete_then_put_does_not() {
        let puts = txn_op(vec![put_op("a")], vec![]);
        let deletes = txn_op(vec![], vec![delete_op("a", "b")]);
        assert_eq!(branch(vec![puts.clone(), deletes.clone()]), Ok(()));
        assert_eq!(branch(vec![deletes, puts.clone()]), Err(ApiError::DuplicateKey));
        assert_eq!(branch(vec![puts.clone(), puts.clone()]), Err(ApiError::DuplicateKey));
        assert_eq!(branch(vec![puts, txn_op(vec![], vec![put_op("a")])]), Err(ApiError::DuplicateKey));
    }

    proptest! {
        #[test]
        fn intervals_contain_what_one_of_the_inserted_contains(
            ranges in prop::collection::vec(("[a-c]{1,3}", "[a-c]{0,3}"), 0..20),
            probes in prop::collection::vec("[a-c]{1,4}", 0..20),
        ) {
            let mut intervals = Intervals::default();
            for (from, end) in &ranges {
                intervals.insert_range(from.as_bytes(), end.as_bytes());
            }
            for probe in &probes {
                let expected = ranges.iter().any(|(from, end)| if end.is_empty() { probe == from } else { from <= probe && probe < end });
                prop_assert_eq!(intervals.contains(probe.as_bytes()), expected, "{} in {:?}", probe, ranges);
            }
        }
    }
}

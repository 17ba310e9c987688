//! Keeps the store below its quota (`--quota-backend-bytes`).
//!
//! Disk use differs between members, so that the log must not depend on it: a member refuses what would take *its* store above the quota before it is
//! proposed, and raises the NOSPACE alarm through the log, which every member then obeys alike. Before that it gives back what only garbage takes.

use cairn_proto::etcdserverpb::{self as pb, request_op::Request as Op};

/// What a put costs beside its key and value, in bytes.
const PUT_OVERHEAD_BYTES: u64 = 256;
/// What a lease costs, in bytes.
pub const LEASE_BYTES: u64 = 64;

/// Bytes that a put may add to the store.
pub fn cost_of_put(request: &pb::PutRequest) -> u64 {
    PUT_OVERHEAD_BYTES + (request.key.len() + request.value.len()) as u64
}

/// Bytes that a transaction may add to the store: those of its more costly branch, nested transactions included.
pub fn cost_of_txn(request: &pb::TxnRequest) -> u64 {
    let branch = |ops: &[pb::RequestOp]| -> u64 {
        let costs = ops.iter().map(|op| match &op.request {
            Some(Op::RequestPut(put)) => cost_of_put(put),
            Some(Op::RequestTxn(nested)) => cost_of_txn(nested),
            Some(Op::RequestRange(_) | Op::RequestDeleteRange(_)) | None => 0,
        });
        costs.sum()
    };
    branch(&request.success).max(branch(&request.failure))
}

/// Whether a store of `size` bytes has room for `cost` more under `quota`. What costs nothing always passes, so that space can be freed.
pub fn has_room(size: u64, cost: u64, quota: Option<u64>) -> bool {
    cost == 0 || quota.is_none_or(|quota| size.saturating_add(cost) < quota)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: usize) -> pb::RequestOp {
        let request = pb::PutRequest { key: "k".into(), value: vec![0; bytes].into(), ..Default::default() };
        pb::RequestOp { request: Some(Op::RequestPut(request)) }
    }

    #[test]
    fn a_txn_costs_its_larger_branch_with_everything_nested() {
        let nested = pb::TxnRequest { failure: vec![put(1000)], ..Default::default() };
        let request = pb::TxnRequest {
            success: vec![put(10), pb::RequestOp { request: Some(Op::RequestTxn(nested)) }],
            failure: vec![put(20)],
            ..Default::default()
        };
        assert_eq!(cost_of_txn(&request), 267 + 1257);
    }

    #[test]
    fn deletes_and_reads_cost_nothing_and_always_pass() {
        let delete = pb::RequestOp { request: Some(Op::RequestDeleteRange(pb::DeleteRangeRequest::default())) };
        let request = pb::TxnRequest { success: vec![delete], ..Default::default() };
        assert_eq!(cost_of_txn(&request), 0);
        assert!(has_room(u64::MAX, 0, Some(1)));
    }

    #[test]
    fn the_quota_itself_is_not_reached() {
        assert!(has_room(90, 9, Some(100)));
        assert!(!has_room(90, 10, Some(100)));
        assert!(has_room(u64::MAX, 10, None));
    }
}

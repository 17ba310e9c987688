//! Where a genuine 3.5 answers otherwise than the 3.7 that Cairn serves, and why that is right.
//!
//! Besides what is listed below, some requests end a genuine server: a put that ignores the value or the lease of a key which an earlier operation of the
//! same transaction deleted, and a range over a key that was deleted and created again within one revision, after a compaction. Cairn answers them; the
//! sequence ends there and the next begins on fresh servers.

use bytes::Bytes;
use cairn_proto::{
    ApiError, cancel_reason,
    etcdserverpb::{
        RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchResponse,
        range_request::{SortOrder, SortTarget},
        request_op, response_op,
        watch_request::RequestUnion,
    },
    mvccpb::{KeyValue, event::EventType},
};

use super::{Step, play::Answer, users::AuthStep, watches::Told};

/// Whether a difference is one of those listed here.
pub fn explained(request: &Step, genuine: &Answer, ours: &Answer) -> bool {
    status_for_users(request, genuine, ours)
        || sort_option_unchecked(request, ours)
        || other_reason(request, genuine, ours)
        || other_code(genuine, ours)
}

/// Anybody may ask 3.7 whether authentication is on; 3.5 wants a user to ask.
fn status_for_users(request: &Step, genuine: &Answer, ours: &Answer) -> bool {
    *request == Step::Auth(AuthStep::Status) && matches!((genuine, ours), (Answer::Refused(..), Answer::Auth(..)))
}

/// Why a transaction cannot run, in the order in which 3.5 looks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reason {
    /// A put keeps the value or the lease of a key that is not there.
    Key,
    /// A put is on a lease that there is not.
    Lease,
    /// A range is at a revision that is compacted, or is to come.
    Revision,
}

impl Reason {
    fn of(answer: &Answer) -> Option<Self> {
        const REASONS: [(ApiError, Reason); 4] = [
            (ApiError::KeyNotFound, Reason::Key),
            (ApiError::LeaseNotFound, Reason::Lease),
            (ApiError::Compacted, Reason::Revision),
            (ApiError::FutureRevision, Reason::Revision),
        ];
        let is = |error: ApiError| *answer == Answer::Refused(error.code(), error.text().to_owned());
        REASONS.into_iter().find_map(|(error, reason)| is(error).then_some(reason))
    }

    /// Whether an operation can be refused for it.
    fn may_be_of(self, op: &RequestOp) -> bool {
        match &op.request {
            Some(request_op::Request::RequestPut(put)) => match self {
                Self::Key => put.ignore_value || put.ignore_lease,
                Self::Lease => put.lease != 0,
                Self::Revision => false,
            },
            Some(request_op::Request::RequestRange(range)) => self == Self::Revision && range.revision != 0,
            Some(request_op::Request::RequestTxn(txn)) => {
                [&txn.success, &txn.failure].into_iter().flatten().any(|op| self.may_be_of(op))
            }
            _ => false,
        }
    }
}

/// Where several operations of a transaction cannot run, 3.5 looks at the puts' keys, then at their leases, then at the ranges; 3.7 looks at the operations
/// in their order, and at a put's lease before its key. Both refuse the whole transaction, naming another reason; the recordings hold the order of 3.7.
/// So 3.5 names the reason that it looks for first, and 3.7 one that is there as well: in the same branch.
fn other_reason(request: &Step, genuine: &Answer, ours: &Answer) -> bool {
    let (Step::Txn(txn), Some(genuine), Some(ours)) = (request, Reason::of(genuine), Reason::of(ours)) else {
        return false;
    };
    let has = |branch: &[RequestOp], reason: Reason| branch.iter().any(|op| reason.may_be_of(op));
    genuine < ours && [&txn.success, &txn.failure].into_iter().any(|branch| has(branch, genuine) && has(branch, ours))
}

/// Puts rows that are equal to a sort into the order of their keys.
///
/// A genuine server sorts with its language's unstable sort, so the order of equal rows depends on the compiler's version: that of 3.5 is another than
/// that of 3.7, which Cairn follows and the recordings hold it to. Where a limit cut such rows apart, only their number is compared.
pub fn order_ties(request: &Step, answer: &mut Answer) {
    match (request, answer) {
        (Step::Range(range), Answer::Range(rows)) => order_range_ties(range, rows),
        (Step::Txn(txn), Answer::Txn(answer)) => order_txn_ties(txn, answer),
        _ => {}
    }
}

fn order_txn_ties(txn: &TxnRequest, answer: &mut TxnResponse) {
    let ops = if answer.succeeded { &txn.success } else { &txn.failure };
    for (op, answer) in ops.iter().zip(&mut answer.responses) {
        match (&op.request, &mut answer.response) {
            (Some(request_op::Request::RequestRange(range)), Some(response_op::Response::ResponseRange(rows))) => {
                order_range_ties(range, rows);
            }
            (Some(request_op::Request::RequestTxn(txn)), Some(response_op::Response::ResponseTxn(answer))) => {
                order_txn_ties(txn, answer);
            }
            _ => {}
        }
    }
}

/// Without values, 3.7 leaves the lease out too, unless it sorts by value; 3.5 tells it. The recordings hold what 3.7 does.
fn set_aside_leases(range: &RangeRequest, rows: &mut RangeResponse) {
    if range.keys_only && range.sort_target != SortTarget::Value as i32 {
        rows.kvs.iter_mut().for_each(|kv| kv.lease = 0);
    }
}

fn order_range_ties(range: &RangeRequest, rows: &mut RangeResponse) {
    set_aside_leases(range, rows);
    let Ok(target @ (SortTarget::Version | SortTarget::Create | SortTarget::Mod | SortTarget::Value)) =
        SortTarget::try_from(range.sort_target)
    else {
        return;
    };
    let by = |kv: &KeyValue| match target {
        SortTarget::Version => (kv.version, Bytes::new()),
        SortTarget::Create => (kv.create_revision, Bytes::new()),
        SortTarget::Mod => (kv.mod_revision, Bytes::new()),
        // Without values in the answer all rows look equal.
        _ => (0, kv.value.clone()),
    };
    for ties in rows.kvs.chunk_by_mut(|a, b| by(a) == by(b)) {
        ties.sort_by(|a, b| a.key.cmp(&b.key));
    }
    // Without an order and without filters, the limit cuts first, in the order of keys.
    let filters =
        [range.min_mod_revision, range.max_mod_revision, range.min_create_revision, range.max_create_revision];
    let cut_when_sorted = range.sort_order != SortOrder::None as i32 || filters != [0; 4];
    if rows.more && cut_when_sorted {
        let last = rows.kvs.last().map(by);
        for kv in rows.kvs.iter_mut().filter(|kv| Some(by(kv)) == last) {
            *kv = KeyValue { value: by(kv).1, ..KeyValue::default() };
        }
    }
}

/// 3.5 takes a sort order or target that does not exist for none; 3.7 refuses it, as the recordings of a genuine one show.
fn sort_option_unchecked(request: &Step, ours: &Answer) -> bool {
    let Step::Range(range) = request else { return false };
    let unknown = SortOrder::try_from(range.sort_order).is_err() || SortTarget::try_from(range.sort_target).is_err();
    unknown
        && *ours == Answer::Refused(ApiError::InvalidSortOption.code(), ApiError::InvalidSortOption.text().to_owned())
}

/// Whether the text is the same and its code one of those that changed.
fn other_code(genuine: &Answer, ours: &Answer) -> bool {
    let (Answer::Refused(genuine_code, genuine_text), Answer::Refused(code, text)) = (genuine, ours) else {
        return false;
    };
    CODES.iter().any(|exception| {
        exception.text == genuine_text
            && genuine_text == text
            && *genuine_code == exception.genuine
            && *code == exception.ours
    })
}

/// The same text with another code.
struct Code {
    text: &'static str,
    genuine: tonic::Code,
    ours: tonic::Code,
}

/// Codes that changed between 3.5 and 3.7.
const CODES: [Code; 0] = [];

/// 3.5 makes a watch with a negative start, even if only to end it as one of what was compacted away; 3.7 refuses it, and before it looks at the range and at the
/// number, where 3.5 names those as the reason.
pub fn negative_start(request: &RequestUnion, ours: Option<&WatchResponse>) -> bool {
    let RequestUnion::CreateRequest(create) = request else { return false };
    create.start_revision < 0
        && ours.is_some_and(|ours| {
            ours.created
                && ours.canceled
                && ours.watch_id == -1
                && ours.compact_revision == 0
                && ours.cancel_reason == cancel_reason::NEGATIVE_START
        })
}

/// 3.5 answers every progress request with the store's revision, at once. 3.7 answers only while there are watches on the stream and all of them have begun and
/// were told everything; so the answer is a promise, and clients ask again.
pub fn progress_untimely(no_watches: bool, all_begun: bool) -> bool {
    no_watches || !all_begun
}

/// Whether a create gives only a genuine server a watch: where [`negative_start`] is refused.
pub fn watches_part(request: &RequestUnion, genuine: Option<&WatchResponse>, ours: Option<&WatchResponse>) -> bool {
    negative_start(request, ours) && genuine.is_some_and(|genuine| !genuine.canceled)
}

/// The number that refusals carry. In 3.5 a refusal on the stream is taken for the end of the watch to which a client gave this number: it is told nothing more. In
/// 3.7 it goes on.
pub const SILENCED: i64 = -1;

/// 3.5 compacts the deletes of the compacted revision itself away, sooner or later, so that a watch that starts there may miss them. 3.7 keeps them.
pub fn set_aside_first_deletes(start: i64, compacted: i64, told: &mut Vec<Told>) {
    if start == compacted {
        told.retain(|told| {
            let Told::Event(event) = told else { return true };
            event.r#type() != EventType::Delete || event.kv.as_ref().is_none_or(|kv| kv.mod_revision != compacted)
        });
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::etcdserverpb::PutRequest;

    use super::*;

    fn refused(error: ApiError) -> Answer {
        Answer::Refused(error.code(), error.text().to_owned())
    }

    #[test]
    fn another_reason_is_right_only_where_the_operations_have_both_and_the_genuine_server_looks_for_its_own_first() {
        let op = |request| RequestOp { request: Some(request) };
        let keeps = op(request_op::Request::RequestPut(PutRequest { ignore_value: true, ..Default::default() }));
        let leased = op(request_op::Request::RequestPut(PutRequest { lease: 7, ..Default::default() }));
        let past = op(request_op::Request::RequestRange(RangeRequest { revision: 1, ..Default::default() }));
        let txn = |success: &[&RequestOp], failure: &[&RequestOp]| TxnRequest {
            success: success.iter().map(|&op| op.clone()).collect(),
            failure: failure.iter().map(|&op| op.clone()).collect(),
            ..Default::default()
        };
        let explained =
            |txn: &TxnRequest, genuine, ours| explained(&Step::Txn(txn.clone()), &refused(genuine), &refused(ours));
        let all = txn(&[&past, &leased, &keeps], &[]);
        assert!(explained(&all, ApiError::KeyNotFound, ApiError::LeaseNotFound));
        assert!(explained(&all, ApiError::KeyNotFound, ApiError::Compacted));
        assert!(explained(&all, ApiError::LeaseNotFound, ApiError::FutureRevision));
        assert!(explained(
            &txn(&[&op(request_op::Request::RequestTxn(all.clone()))], &[]),
            ApiError::KeyNotFound,
            ApiError::Compacted
        ));
        // The other way round 3.7 would have passed over what 3.5 finds later.
        assert!(!explained(&all, ApiError::LeaseNotFound, ApiError::KeyNotFound));
        assert!(!explained(&all, ApiError::Compacted, ApiError::LeaseNotFound));
        assert!(!explained(&all, ApiError::Compacted, ApiError::FutureRevision));
        // One that nothing in the transaction can be refused for, and one of a branch that was not taken.
        assert!(!explained(&txn(&[&past, &keeps], &[]), ApiError::LeaseNotFound, ApiError::Compacted));
        assert!(!explained(&txn(&[&past], &[&keeps]), ApiError::KeyNotFound, ApiError::Compacted));
    }
}

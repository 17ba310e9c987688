//! Transactions.

use cairn_proto::etcdserverpb::{self as pb, request_op::Request};

use super::{Compare, Delete, Get, Put, sent_when_awaited};

/// Compares, then runs one of two lists of operations, all at one revision.
///
/// Without any condition the first list runs. Operations see what the ones before them wrote; conditions do not.
#[derive(Debug, Clone, Default)]
#[must_use = "a request is sent when it is awaited, or is an operation of a transaction"]
pub struct Txn<S = ()> {
    sender: S,
    request: pb::TxnRequest,
}

/// An operation of a transaction: a [`Get`], a [`Put`], a [`Delete`] or a nested [`Txn`].
#[derive(Debug, Clone)]
pub struct Op(pb::RequestOp);

impl Txn {
    /// A transaction to be an operation of another one.
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Txn<S> {
    pub(super) fn of(sender: S) -> Self {
        Self { sender, request: pb::TxnRequest::default() }
    }

    /// Adds a condition. All must hold for the `then` operations to run.
    pub fn when(mut self, condition: impl Into<Compare>) -> Self {
        self.request.compare.push(condition.into().into_request());
        self
    }

    /// Adds an operation to run if all conditions hold.
    pub fn then(mut self, operation: impl Into<Op>) -> Self {
        self.request.success.push(operation.into().0);
        self
    }

    /// Adds an operation to run if not all conditions hold.
    pub fn otherwise(mut self, operation: impl Into<Op>) -> Self {
        self.request.failure.push(operation.into().0);
        self
    }

    /// The request as it would be sent.
    pub fn into_request(self) -> pb::TxnRequest {
        self.request
    }
}

sent_when_awaited!(Txn => pb::TxnResponse);

impl Op {
    /// The operation as it would be sent.
    pub fn into_request(self) -> pb::RequestOp {
        self.0
    }
}

impl From<Request> for Op {
    fn from(request: Request) -> Self {
        Self(pb::RequestOp { request: Some(request) })
    }
}

impl From<pb::RequestOp> for Op {
    fn from(operation: pb::RequestOp) -> Self {
        Self(operation)
    }
}

impl<S> From<Get<S>> for Op {
    fn from(get: Get<S>) -> Self {
        Request::RequestRange(get.into_request()).into()
    }
}

impl<S> From<Put<S>> for Op {
    fn from(put: Put<S>) -> Self {
        Request::RequestPut(put.into_request()).into()
    }
}

impl<S> From<Delete<S>> for Op {
    fn from(delete: Delete<S>) -> Self {
        Request::RequestDeleteRange(delete.into_request()).into()
    }
}

impl<S> From<Txn<S>> for Op {
    fn from(txn: Txn<S>) -> Self {
        Request::RequestTxn(txn.into_request()).into()
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};

    use super::*;
    use crate::KeyRange;

    #[test]
    fn conditions_and_operations_keep_their_order_and_branch() {
        let txn = Txn::new()
            .when(Compare::mod_revision("k").equal_to(5))
            .when(Compare::value(KeyRange::prefix("p/")).less_than("z"))
            .then(Put::new("k", "v").lease(3))
            .then(Delete::new(KeyRange::from_key("x")).prev_kv())
            .otherwise(Txn::new().when(Compare::missing("k")).then(Get::new("k")))
            .into_request();

        let first = &txn.compare[0];
        assert_eq!((first.target(), first.result()), (CompareTarget::Mod, CompareResult::Equal));
        assert_eq!(first.target_union, Some(TargetUnion::ModRevision(5)));
        assert!(first.range_end.is_empty());
        let second = &txn.compare[1];
        assert_eq!((second.target(), second.result()), (CompareTarget::Value, CompareResult::Less));
        assert_eq!(second.target_union, Some(TargetUnion::Value("z".into())));
        assert_eq!(second.range_end, "p0");

        let [pb::RequestOp { request: Some(Request::RequestPut(put)) }, delete] = &txn.success[..] else {
            panic!("{txn:?}");
        };
        assert_eq!((put.value.as_ref(), put.lease), (&b"v"[..], 3));
        assert!(matches!(&delete.request, Some(Request::RequestDeleteRange(d)) if d.prev_kv && d.range_end == "\0"));
        let [pb::RequestOp { request: Some(Request::RequestTxn(nested)) }] = &txn.failure[..] else {
            panic!("{txn:?}");
        };
        assert_eq!(nested.compare[0].target_union, Some(TargetUnion::Version(0)));
        assert!(matches!(&nested.success[0].request, Some(Request::RequestRange(get)) if get.key == "k"));
    }
}

//! Keys whose values count up, so that every state of a key tells which write made it.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cairn_proto::{
    etcdserverpb::{
        Compare, PutRequest, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op,
        response_op::Response,
    },
    mvccpb::KeyValue,
};

/// Digits a value begins with.
const DIGITS: usize = 20;

/// What is stored under a key; nothing but zeroes if nothing is.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) version: i64,
    pub(crate) value: u64,
    pub(crate) revision: i64,
}

impl Found {
    /// What a read of one key found.
    pub(crate) fn of(answer: &RangeResponse) -> Result<Self> {
        answer.kvs.first().map(Self::read).transpose().map(Option::unwrap_or_default)
    }

    /// What the read of a [`compare_and_put`] that was refused found.
    pub(crate) fn of_refused(answer: &TxnResponse) -> Result<Self> {
        match answer.responses.first().and_then(|operation| operation.response.as_ref()) {
            Some(Response::ResponseRange(range)) => Self::of(range),
            _ => bail!("a txn answered something else"),
        }
    }

    fn read(kv: &KeyValue) -> Result<Self> {
        let digits = kv.value.get(..DIGITS).context("a value without its number")?;
        let value = std::str::from_utf8(digits)?.parse()?;
        Ok(Self { version: kv.version, value, revision: kv.mod_revision })
    }
}

/// Puts a number into a key, with so many bytes behind it.
pub(crate) fn put(key: &Bytes, number: u64, padding: usize) -> PutRequest {
    let value = Bytes::from(format!("{number:0DIGITS$}{:padding$}", ""));
    PutRequest { key: key.clone(), value, ..Default::default() }
}

/// Does the put if its key was last written at `revision`, else reads the key.
pub(crate) fn compare_and_put(put: PutRequest, revision: i64) -> TxnRequest {
    let key = put.key.clone();
    let range = RangeRequest { key: key.clone(), ..Default::default() };
    TxnRequest {
        compare: vec![Compare {
            key,
            target: CompareTarget::Mod as i32,
            result: CompareResult::Equal as i32,
            target_union: Some(TargetUnion::ModRevision(revision)),
            ..Default::default()
        }],
        success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
        failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(range)) }],
    }
}

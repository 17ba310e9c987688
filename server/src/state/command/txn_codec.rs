//! Reads transactions, which may be nested more deeply than protobuf decoders follow.
//!
//! The levels of a transaction are walked here, with a bound of our own; everything within one is left to the generated
//! code, which bounds what it recurses into by itself. Keys and values point into the bytes, as they do elsewhere.

use bytes::{Buf, Bytes};
use cairn_proto::etcdserverpb::{RequestOp, TxnRequest, request_op::Request};
use prost::{
    DecodeError,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, message, skip_field},
};

/// Levels of a transaction, the outermost included. With the usual 128 operations a txn, this is where a nested one has
/// none left, so that the bound shows only where more operations are allowed.
pub const TXN_DEPTH_MAX: usize = 129;

/// Why bytes are no transaction.
#[derive(Debug, thiserror::Error)]
pub enum TxnUnreadable {
    /// Nested too deeply.
    #[error("transactions are nested more than {TXN_DEPTH_MAX} levels deep")]
    TooDeep,
    /// A nested message does not end where it says.
    #[error("a nested message is longer than what holds it")]
    Length,
    /// Not the protobuf message it should be.
    #[error(transparent)]
    Message(#[from] DecodeError),
}

/// The transaction in `bytes`.
///
/// # Errors
/// The bytes are no transaction, or one of more than [`TXN_DEPTH_MAX`] levels.
pub fn decode_txn(mut bytes: Bytes) -> Result<TxnRequest, TxnUnreadable> {
    let mut txn = TxnRequest::default();
    while bytes.has_remaining() {
        merge_field(&mut txn, &mut bytes, TXN_DEPTH_MAX - 1)?;
    }
    Ok(txn)
}

/// Reads one field of a transaction, below which there may be `depth_left` levels.
fn merge_field(txn: &mut TxnRequest, bytes: &mut Bytes, depth_left: usize) -> Result<(), TxnUnreadable> {
    let (tag, wire_type) = decode_key(bytes)?;
    let context = DecodeContext::default();
    let ops = match tag {
        1 => return Ok(message::merge_repeated(wire_type, &mut txn.compare, bytes, context)?),
        2 => &mut txn.success,
        3 => &mut txn.failure,
        _ => return Ok(skip_field(wire_type, tag, bytes, context)?),
    };
    let mut op = RequestOp::default();
    nested(wire_type, bytes, &mut |bytes| merge_op_field(&mut op, bytes, depth_left))?;
    ops.push(op);
    Ok(())
}

fn merge_op_field(op: &mut RequestOp, bytes: &mut Bytes, depth_left: usize) -> Result<(), TxnUnreadable> {
    let (tag, wire_type) = decode_key(bytes)?;
    match tag {
        1..=3 => Ok(Request::merge(&mut op.request, tag, wire_type, bytes, DecodeContext::default())?),
        4 => {
            let depth_left = depth_left.checked_sub(1).ok_or(TxnUnreadable::TooDeep)?;
            // One that comes twice is one message, as protobuf has it.
            let mut txn = match op.request.take() {
                Some(Request::RequestTxn(txn)) => txn,
                _ => TxnRequest::default(),
            };
            nested(wire_type, bytes, &mut |bytes| merge_field(&mut txn, bytes, depth_left))?;
            op.request = Some(Request::RequestTxn(txn));
            Ok(())
        }
        _ => Ok(skip_field(wire_type, tag, bytes, DecodeContext::default())?),
    }
}

/// Reads the fields of a message within another.
fn nested(
    wire_type: WireType,
    bytes: &mut Bytes,
    field: &mut dyn FnMut(&mut Bytes) -> Result<(), TxnUnreadable>,
) -> Result<(), TxnUnreadable> {
    prost::encoding::check_wire_type(WireType::LengthDelimited, wire_type)?;
    let len = usize::try_from(decode_varint(bytes)?).map_err(|_| TxnUnreadable::Length)?;
    let left = bytes.remaining().checked_sub(len).ok_or(TxnUnreadable::Length)?;
    while bytes.remaining() > left {
        field(bytes)?;
    }
    if bytes.remaining() == left { Ok(()) } else { Err(TxnUnreadable::Length) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::{super::codec::tests::txn, *};

    fn levels(depth: usize) -> Bytes {
        let outermost = (1..depth).fold(TxnRequest::default(), |inner, _| {
            let op = RequestOp { request: Some(Request::RequestTxn(inner)) };
            TxnRequest { failure: vec![op], ..Default::default() }
        });
        outermost.encode_to_vec().into()
    }

    #[test]
    fn transactions_are_read_up_to_their_depth_and_no_further() {
        let deepest = decode_txn(levels(TXN_DEPTH_MAX)).unwrap();
        assert_eq!(Bytes::from(deepest.encode_to_vec()), levels(TXN_DEPTH_MAX));
        for depth in [TXN_DEPTH_MAX + 1, 1000] {
            assert!(matches!(decode_txn(levels(depth)), Err(TxnUnreadable::TooDeep)), "{depth}");
        }
    }

    #[test]
    fn groups_nested_without_end_are_refused() {
        // A group that begins, and begins, within a field that nobody knows, at every level.
        for prefix in [&b""[..], b"\x12\x90\x4e", b"\x12\x93\x4e\x22\x90\x4e"] {
            let bytes = [prefix, &[0x0b; 10_000]].concat();
            assert!(matches!(decode_txn(bytes.into()), Err(TxnUnreadable::Message(_))), "{prefix:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_the_generated_code_reads(txn in txn(), again in txn()) {
            let mut bytes = txn.encode_to_vec();
            prop_assert_eq!(decode_txn(bytes.clone().into()).unwrap(), txn);
            // Fields that come again, as they do in two messages one after the other.
            bytes.extend(again.encode_to_vec());
            prop_assert_eq!(decode_txn(bytes.clone().into()).unwrap(), TxnRequest::decode(&bytes[..]).unwrap());
        }

        #[test]
        fn damage_is_seen_as_the_generated_code_sees_it(
            txn in txn(), at: prop::sample::Index, with: u8, cut: prop::sample::Index,
        ) {
            let mut bytes = txn.encode_to_vec();
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = with;
            }
            bytes.truncate(cut.index(bytes.len() + 1));
            prop_assert_eq!(decode_txn(bytes.clone().into()).ok(), TxnRequest::decode(&bytes[..]).ok());
        }

        #[test]
        fn one_operation_told_twice_is_one(first in txn(), second in txn()) {
            let op = |txn| RequestOp { request: Some(Request::RequestTxn(txn)) }.encode_to_vec();
            let op = [op(first), op(second)].concat();
            let mut bytes = vec![0x12];
            prost::encoding::encode_varint(op.len() as u64, &mut bytes);
            bytes.extend(op);
            prop_assert_eq!(decode_txn(bytes.clone().into()).unwrap(), TxnRequest::decode(&bytes[..]).unwrap());
        }
    }
}

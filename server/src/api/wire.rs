//! The few protobuf primitives that answers are put together from.
//!
//! Answers are written by hand so that rows go from the store to the socket as they are, without being decoded and encoded again.

use bytes::BufMut;

/// Wire type of integers and booleans.
const VARINT: u64 = 0;
/// Wire type of bytes and messages.
const DELIMITED: u64 = 2;

/// Bytes of `value` as a varint.
pub fn varint_len(value: u64) -> usize {
    ((64 - (value | 1).leading_zeros()) as usize).div_ceil(7)
}

/// Writes `value` as a varint.
pub fn put_varint(out: &mut impl BufMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Bytes of an integer field; 0 is not written. Field numbers are below 16, so a tag is one byte.
pub fn integer_len(value: u64) -> usize {
    if value == 0 { 0 } else { 1 + varint_len(value) }
}

/// Writes an integer field unless it is 0.
pub fn put_integer(out: &mut impl BufMut, field: u8, value: u64) {
    if value != 0 {
        put_varint(out, u64::from(field) << 3 | VARINT);
        put_varint(out, value);
    }
}

/// Bytes of a field of `len` bytes (a message or bytes), which is written even if empty.
pub fn delimited_len(len: usize) -> usize {
    1 + varint_len(len as u64) + len
}

/// Writes the tag and the length of a field of `len` bytes; the bytes are to follow.
pub fn put_delimiter(out: &mut impl BufMut, field: u8, len: usize) {
    put_varint(out, u64::from(field) << 3 | DELIMITED);
    put_varint(out, len as u64);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_are_those_of_protobuf(value: u64, shift in 0..64u32) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(&mut out, value);
            prop_assert_eq!(out.len(), varint_len(value));
            prop_assert_eq!(prost::decode_length_delimiter(&out[..]).ok().map(|v| v as u64), Some(value));
        }
    }
}

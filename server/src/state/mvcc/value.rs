//! Stored values: `mvccpb.KeyValue`, byte for byte as it goes over the wire, so that a list is copying.
//!
//! ```text
//! put:       key = 1, create_revision = 2, mod_revision = 3, version = 4, value = 5, lease = 6
//!            in this order, defaults left out
//! tombstone: key = 1
//! ```

use bytes::{BufMut, Bytes, BytesMut};
use cairn_proto::mvccpb::KeyValue;
use prost::Message;

use super::{ReadError, index::KeyMeta, revision::Revision};

const KEY: u8 = 1 << 3 | 2;
const CREATE_REVISION: u8 = 2 << 3;
const MOD_REVISION: u8 = 3 << 3;
const VERSION: u8 = 4 << 3;
const VALUE: u8 = 5 << 3 | 2;
const LEASE: u8 = 6 << 3;
/// Most bytes of the fields' tags, numbers and lengths.
const OVERHEAD_BYTES_MAX: usize = 6 + 6 * 10;

/// Appends the stored form of a put.
pub(super) fn encode_put(out: &mut BytesMut, key: &[u8], meta: &KeyMeta, value: &[u8]) {
    out.reserve(OVERHEAD_BYTES_MAX + key.len() + value.len());
    put_bytes(out, KEY, key);
    put_number(out, CREATE_REVISION, meta.created);
    put_number(out, MOD_REVISION, meta.modified.main);
    put_number(out, VERSION, meta.version);
    put_bytes(out, VALUE, value);
    put_number(out, LEASE, meta.lease);
}

/// Appends the stored form of a tombstone.
pub(super) fn encode_tombstone(out: &mut BytesMut, key: &[u8]) {
    out.reserve(OVERHEAD_BYTES_MAX + key.len());
    put_bytes(out, KEY, key);
}

fn put_bytes(out: &mut BytesMut, tag: u8, bytes: &[u8]) {
    if !bytes.is_empty() {
        out.put_u8(tag);
        put_varint(out, bytes.len() as u64);
        out.put_slice(bytes);
    }
}

fn put_number(out: &mut BytesMut, tag: u8, number: i64) {
    if number != 0 {
        out.put_u8(tag);
        put_varint(out, number as u64);
    }
}

fn put_varint(out: &mut BytesMut, mut value: u64) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// The value stored at `at`, key and value pointing into `stored`.
pub(super) fn decode(at: Revision, stored: Bytes) -> Result<KeyValue, ReadError> {
    KeyValue::decode(stored).map_err(|error| ReadError::Corrupt {
        what: format!("the value of revision {}/{} does not decode: {error}", at.main, at.sub),
    })
}

/// The key in a stored put or tombstone: its first field.
pub(super) fn key_of(stored: &[u8]) -> Option<&[u8]> {
    let mut rest = stored.strip_prefix(&[KEY])?;
    let mut bytes = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, after) = rest.split_first()?;
        rest = after;
        bytes |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return rest.get(..usize::try_from(bytes).ok()?);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn stored_values_are_what_the_wire_format_says(
            key in vec(any::<u8>(), 0..300), value in vec(any::<u8>(), 0..300), modified in 0..i64::MAX, created: i64, version: i64, lease: i64,
        ) {
            let meta = KeyMeta { modified: Revision::new(modified, 0), created, version, lease };
            let mut out = BytesMut::new();
            encode_put(&mut out, &key, &meta, &value);
            let wire = KeyValue { key: key.clone().into(), create_revision: created, mod_revision: modified, version, value: value.into(), lease };
            prop_assert_eq!(&out[..], &wire.encode_to_vec()[..]);
            prop_assert_eq!(key_of(&out), if key.is_empty() { None } else { Some(&key[..]) });
            prop_assert_eq!(decode(meta.modified, out.freeze()).unwrap(), wire);

            let mut out = BytesMut::new();
            encode_tombstone(&mut out, &key);
            prop_assert_eq!(&out[..], &KeyValue { key: key.into(), ..Default::default() }.encode_to_vec()[..]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(stored in vec(any::<u8>(), 0..40)) {
            let _ = key_of(&stored);
            let _ = decode(Revision::default(), stored.into());
        }
    }
}

//! Stored values: `mvccpb.KeyValue`, byte for byte as it goes over the wire, so that a list is copying.
//!
//! ```text
//! put:       key = 1, create_revision = 2, mod_revision = 3, version = 4, value = 5, lease = 6
//!            in this order, defaults left out
//! tombstone: key = 1
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_proto::mvccpb::KeyValue;
use prost::{
    Message,
    encoding::{decode_varint, encode_varint},
};

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
        encode_varint(bytes.len() as u64, out);
        out.put_slice(bytes);
    }
}

fn put_number(out: &mut BytesMut, tag: u8, number: i64) {
    if number != 0 {
        out.put_u8(tag);
        encode_varint(number as u64, out);
    }
}

/// The value stored at `at`, key and value pointing into `stored`.
pub(super) fn decode(at: Revision, stored: Bytes) -> Result<KeyValue, ReadError> {
    KeyValue::decode(stored).map_err(|error| ReadError::Corrupt {
        what: format!("the value of revision {}/{} does not decode: {error}", at.main, at.sub),
    })
}

/// What the index keeps of a stored put or tombstone; the value itself is passed over.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outline<'a> {
    pub(super) key: &'a [u8],
    pub(super) created: i64,
    pub(super) modified: i64,
    pub(super) version: i64,
    pub(super) lease: i64,
}

impl<'a> Outline<'a> {
    /// `None` if the bytes are no stored value.
    pub(super) fn of(mut stored: &'a [u8]) -> Option<Self> {
        let mut outline = Self::default();
        while !stored.is_empty() {
            let tag = stored.get_u8();
            let number = decode_varint(&mut stored).ok()?;
            match tag {
                KEY | VALUE => {
                    let (bytes, rest) = stored.split_at_checked(usize::try_from(number).ok()?)?;
                    stored = rest;
                    if tag == KEY {
                        outline.key = bytes;
                    }
                }
                CREATE_REVISION => outline.created = number as i64,
                MOD_REVISION => outline.modified = number as i64,
                VERSION => outline.version = number as i64,
                LEASE => outline.lease = number as i64,
                _ => return None,
            }
        }
        (!outline.key.is_empty()).then_some(outline)
    }
}

/// The key in a stored put or tombstone: its first field.
pub(super) fn key_of(stored: &[u8]) -> Option<&[u8]> {
    let mut rest = stored.strip_prefix(&[KEY])?;
    let bytes = decode_varint(&mut rest).ok()?;
    rest.get(..usize::try_from(bytes).ok()?)
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
            let outline = Outline { key: &key, created, modified, version, lease };
            prop_assert_eq!(Outline::of(&out), (!key.is_empty()).then_some(outline));
            prop_assert_eq!(key_of(&out), if key.is_empty() { None } else { Some(&key[..]) });
            prop_assert_eq!(decode(meta.modified, out.freeze()).unwrap(), wire);

            let mut out = BytesMut::new();
            encode_tombstone(&mut out, &key);
            prop_assert_eq!(&out[..], &KeyValue { key: key.into(), ..Default::default() }.encode_to_vec()[..]);
        }

        #[test]
        fn arbitrary_bytes_never_panic(stored in vec(any::<u8>(), 0..40)) {
            let _ = key_of(&stored);
            let _ = Outline::of(&stored);
            let _ = decode(Revision::default(), stored.into());
        }
    }
}

//! A revision: where in history a change stands.
//!
//! Layout as a key of [`Table::Rev`](crate::store::Table::Rev), so that byte order is history order:
//! ```text
//! main u64 BE | sub u32 BE          a put
//! main u64 BE | sub u32 BE | 't'    a tombstone
//! ```

use bytes::Bytes;

/// The change number `sub` of the request that made revision `main`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision {
    /// The store's revision, rising by one with each changing request.
    pub main: i64,
    /// The change within that request, from 0.
    pub sub: u32,
}

/// Bytes of an encoded put revision; a tombstone has one more.
pub const REV_KEY_BYTES: usize = 12;
/// The byte that marks a tombstone.
const TOMBSTONE_MARK: u8 = b't';

impl Revision {
    /// The last change a reader of `main` sees.
    pub const fn whole(main: i64) -> Self {
        Self { main, sub: u32::MAX }
    }

    /// A change by its numbers.
    pub const fn new(main: i64, sub: u32) -> Self {
        Self { main, sub }
    }

    /// The key of a put at this revision.
    pub fn put_key(self) -> [u8; REV_KEY_BYTES] {
        let mut key = [0; REV_KEY_BYTES];
        key[..8].copy_from_slice(&self.main.to_be_bytes());
        key[8..].copy_from_slice(&self.sub.to_be_bytes());
        key
    }

    /// The key of a tombstone at this revision.
    pub fn tombstone_key(self) -> [u8; REV_KEY_BYTES + 1] {
        let mut key = [TOMBSTONE_MARK; REV_KEY_BYTES + 1];
        key[..REV_KEY_BYTES].copy_from_slice(&self.put_key());
        key
    }

    /// The key of this revision, owned.
    pub fn key(self, tombstone: bool) -> Bytes {
        if tombstone { Bytes::copy_from_slice(&self.tombstone_key()) } else { Bytes::copy_from_slice(&self.put_key()) }
    }

    /// The revision and whether it is a tombstone; `None` if `key` is no revision key.
    pub fn decode(key: &[u8]) -> Option<(Self, bool)> {
        let (head, mark) = key.split_at_checked(REV_KEY_BYTES)?;
        let tombstone = match mark {
            [] => false,
            [TOMBSTONE_MARK] => true,
            _ => return None,
        };
        let (main, sub) = head.split_at(8);
        let revision =
            Self { main: i64::from_be_bytes(main.try_into().ok()?), sub: u32::from_be_bytes(sub.try_into().ok()?) };
        (revision.main >= 0).then_some((revision, tombstone))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_round_trip_and_sort_as_history(main in 0..i64::MAX, sub: u32, tombstone: bool, other in 0..i64::MAX) {
            let revision = Revision::new(main, sub);
            prop_assert_eq!(Revision::decode(&revision.key(tombstone)), Some((revision, tombstone)));
            let next = Revision::new(other, sub);
            prop_assert_eq!(revision.cmp(&next), revision.put_key().cmp(&next.put_key()));
        }
    }

    #[test]
    fn foreign_keys_are_refused() {
        assert_eq!(Revision::decode(b"short"), None);
        assert_eq!(Revision::decode(&[0; 14]), None);
        assert_eq!(Revision::decode(b"123456789012x"), None);
    }
}

//! `meta/installing`: the store is a snapshot that was received from another member, and the log may not have been reset to
//! it yet.
//!
//! ```text
//! index u64 | term u64      of the snapshot's last entry
//! ```
//! Written into the received files before they become the state, removed once the log goes on from them. Without it, a state
//! that is ahead of its log is damage. It is this member's own: it is not replicated.

use bytes::Buf;

use super::RecordError;
use crate::log::EntryId;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"installing";

/// The record's bytes.
pub fn encode(last: EntryId) -> [u8; 16] {
    (u128::from(last.index) << 64 | u128::from(last.term)).to_be_bytes()
}

/// The record in `bytes`.
pub fn decode(mut bytes: &[u8]) -> Result<EntryId, RecordError> {
    let index = bytes.try_get_u64().map_err(RecordError::short("installing"))?;
    let term = bytes.try_get_u64().map_err(RecordError::short("installing"))?;
    RecordError::unless_empty("installing", bytes)?;
    Ok(EntryId { index, term })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn round_trips(index: u64, term: u64) {
            let last = EntryId { index, term };
            prop_assert_eq!(decode(&encode(last)), Ok(last));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..40)) {
            let _ = decode(&bytes);
        }
    }
}

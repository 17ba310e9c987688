//! Record kinds 3 (purge) and 4 (reset): the entry just before the first one that counts. 16 bytes: index and term,
//! each a little-endian u64.

use super::le_u64;
use crate::log::terms::EntryId;

const BYTES: usize = 16;

pub(super) fn encode(id: EntryId, out: &mut Vec<u8>) {
    out.extend_from_slice(&id.index.to_le_bytes());
    out.extend_from_slice(&id.term.to_le_bytes());
}

pub(super) fn decode(body: &[u8]) -> Result<EntryId, String> {
    if body.len() != BYTES {
        return Err(format!("an entry's identity of {} bytes instead of {BYTES}", body.len()));
    }
    Ok(EntryId { index: le_u64(body, 0), term: le_u64(body, 8) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(index: u64, term: u64) {
            let mut out = Vec::new();
            encode(EntryId { index, term }, &mut out);
            prop_assert_eq!(out.len(), BYTES);
            prop_assert_eq!(decode(&out).unwrap(), EntryId { index, term });
        }
    }

    #[test]
    fn another_length_is_refused() {
        assert!(decode(&[0; 15]).is_err());
    }
}

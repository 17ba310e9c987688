//! `meta/compaction/finished`: how far this member has removed compacted revisions, and the hashes of the newest
//! compactions, oldest first.
//!
//! ```text
//! finished i64 | { revision i64 | hash u32 }   0 to 10 times
//! ```
//! `finished` is -1 while nothing was. The record is written with the last removals of a compaction, by the member
//! itself: it is not replicated.

use bytes::Buf;

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"compaction/finished";

/// What this member has carried out of the compactions asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// The revision up to which everything superseded is gone, -1 for none.
    pub revision: i64,
    /// Revision and hash of the newest compactions, as HashKV answers them.
    pub hashes: Vec<(i64, u32)>,
}

impl Default for Finished {
    fn default() -> Self {
        Self { revision: -1, hashes: Vec::new() }
    }
}

const HASH_BYTES: usize = 8 + 4;

impl Finished {
    /// The record's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.hashes.len() * HASH_BYTES);
        bytes.extend(self.revision.to_be_bytes());
        for (revision, hash) in &self.hashes {
            bytes.extend(revision.to_be_bytes());
            bytes.extend(hash.to_be_bytes());
        }
        bytes
    }

    /// The record in `bytes`.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, RecordError> {
        let revision = bytes.try_get_i64().map_err(RecordError::short("compaction/finished"))?;
        let (chunks, rest) = bytes.as_chunks::<HASH_BYTES>();
        RecordError::unless_empty("compaction/finished", rest)?;
        let hashes = chunks
            .iter()
            .map(|chunk| (&chunk[..]).get_i64())
            .zip(chunks.iter().map(|chunk| (&chunk[8..]).get_u32()))
            .collect();
        Ok(Self { revision, hashes })
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn round_trips(revision: i64, hashes in vec(any::<(i64, u32)>(), 0..10)) {
            let finished = Finished { revision, hashes };
            prop_assert_eq!(Finished::decode(&finished.encode()), Ok(finished));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..80)) {
            let _ = Finished::decode(&bytes);
        }
    }
}

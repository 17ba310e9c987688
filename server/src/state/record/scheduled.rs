//! `meta/compaction/scheduled`: the newest compactions that were asked for, oldest first. The last one's revision is
//! the compacted revision.
//!
//! ```text
//! { revision i64 | previous i64 | hashed u8 }   0 to 10 times
//! ```
//! `previous` is the compacted revision before, -1 for none. `hashed` says whether the compaction's hash is owed to
//! HashKV (see `mvcc/hash.rs`).

use bytes::Buf;

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"compaction/scheduled";
/// How many compactions are remembered.
pub const SCHEDULED_MAX: usize = 10;

/// A compaction that was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scheduled {
    /// The revision compacted to.
    pub revision: i64,
    /// The compacted revision before, -1 for none.
    pub previous: i64,
    /// Whether its hash is computed before anything is removed.
    pub hashed: bool,
}

const BYTES: usize = 8 + 8 + 1;

/// The record's bytes.
pub fn encode(all: &[Scheduled]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(all.len() * BYTES);
    for one in all {
        bytes.extend(one.revision.to_be_bytes());
        bytes.extend(one.previous.to_be_bytes());
        bytes.push(u8::from(one.hashed));
    }
    bytes
}

/// The record in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Vec<Scheduled>, RecordError> {
    let (chunks, rest) = bytes.as_chunks::<BYTES>();
    RecordError::unless_empty("compaction/scheduled", rest)?;
    let mut all: Vec<Scheduled> = Vec::with_capacity(chunks.len());
    for chunk in chunks {
        let mut chunk = &chunk[..];
        let one = Scheduled { revision: chunk.get_i64(), previous: chunk.get_i64(), hashed: chunk.get_u8() != 0 };
        if one.revision <= one.previous || all.last().is_some_and(|last| last.revision != one.previous) {
            return Err(RecordError::new("compaction/scheduled", "its revisions do not rise"));
        }
        all.push(one);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn round_trips(steps in vec((1..100i64, any::<bool>()), 0..SCHEDULED_MAX)) {
            let mut previous = -1;
            let all: Vec<_> = steps.into_iter().map(|(step, hashed)| {
                let one = Scheduled { revision: previous + step, previous, hashed };
                previous += step;
                one
            }).collect();
            prop_assert_eq!(decode(&encode(&all)), Ok(all));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
        }
    }
}

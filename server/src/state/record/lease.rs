//! Table `lease`: a lease. Which keys hang on it is not stored here: every value names its lease.
//!
//! ```text
//! key:   id i64
//! value: ttl i64 | remaining i64     seconds; remaining is 0 unless it was recorded for a long lease
//! ```

use bytes::Buf;

use super::RecordError;

/// A lease's times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Seconds granted.
    pub ttl: i64,
    /// Seconds that remained when last recorded; 0: the whole TTL.
    pub remaining: i64,
}

/// The key of the lease `id`.
pub fn key(id: i64) -> [u8; 8] {
    id.to_be_bytes()
}

/// The lease's id in a key.
pub fn decode_key(mut key: &[u8]) -> Result<i64, RecordError> {
    let id = key.try_get_i64().map_err(RecordError::short("lease"))?;
    RecordError::unless_empty("lease", key)?;
    Ok(id)
}

impl LeaseRecord {
    /// The record's bytes.
    pub fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.ttl.to_be_bytes());
        bytes[8..].copy_from_slice(&self.remaining.to_be_bytes());
        bytes
    }

    /// The record in `bytes`.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, RecordError> {
        let short = || RecordError::short("lease");
        let record =
            Self { ttl: bytes.try_get_i64().map_err(short())?, remaining: bytes.try_get_i64().map_err(short())? };
        RecordError::unless_empty("lease", bytes)?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(id: i64, ttl: i64, remaining: i64) {
            let record = LeaseRecord { ttl, remaining };
            prop_assert_eq!(LeaseRecord::decode(&record.encode()), Ok(record));
            prop_assert_eq!(decode_key(&key(id)), Ok(id));
        }
    }

    #[test]
    fn other_lengths_are_refused() {
        assert!(decode_key(b"short").is_err() && LeaseRecord::decode(&[0; 17]).is_err());
    }
}

//! `meta/revision`: the store's revision. A record of its own, because the newest value may be gone: a compaction can
//! remove every one, and a store restored from a backup begins at a given revision.
//!
//! ```text
//! revision i64, at least 1
//! ```

use bytes::Buf;

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"revision";

/// The record's bytes.
pub fn encode(revision: i64) -> [u8; 8] {
    revision.to_be_bytes()
}

/// The revision in `bytes`.
pub fn decode(mut bytes: &[u8]) -> Result<i64, RecordError> {
    let revision = bytes.try_get_i64().map_err(RecordError::short("revision"))?;
    RecordError::unless_empty("revision", bytes)?;
    if revision < 1 { Err(RecordError::new("revision", format!("{revision} is below 1"))) } else { Ok(revision) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_what_no_store_has() {
        assert_eq!(decode(&encode(7)), Ok(7));
        assert_eq!(decode(&encode(i64::MAX)), Ok(i64::MAX));
        assert!(decode(&encode(0)).is_err() && decode(b"1234567").is_err());
    }
}

//! `meta/format`: the version of the storage format.
//!
//! ```text
//! version u32
//! ```

use bytes::Buf;

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"format";
/// The version written, and the newest one read, by this code.
pub const STORAGE_FORMAT: u32 = 1;

/// The record's bytes.
pub fn encode(version: u32) -> Vec<u8> {
    version.to_be_bytes().to_vec()
}

/// The version in `bytes`.
pub fn decode(mut bytes: &[u8]) -> Result<u32, RecordError> {
    let version = bytes.try_get_u32().map_err(RecordError::short("format"))?;
    RecordError::unless_empty("format", bytes)?;
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        assert_eq!(decode(&encode(STORAGE_FORMAT)), Ok(1));
        assert!(decode(b"123").is_err() && decode(b"12345").is_err());
    }
}

//! `meta/version`: the replicated cluster version, which decides what may be proposed.
//!
//! ```text
//! UTF-8, e.g. "3.7.0"
//! ```

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"version";

/// The record's bytes.
pub fn encode(version: &str) -> Vec<u8> {
    version.as_bytes().to_vec()
}

/// The version in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<String, RecordError> {
    String::from_utf8(bytes.to_vec()).map_err(|error| RecordError::new("version", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        assert_eq!(decode(&encode("3.7.0")).as_deref(), Ok("3.7.0"));
        assert!(decode(&[0xff]).is_err());
    }
}

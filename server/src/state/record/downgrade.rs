//! `meta/downgrade`: a running downgrade of the cluster. Absent while there is none.
//!
//! ```text
//! target version, UTF-8, e.g. "3.6.0"
//! ```

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"downgrade";

/// The record's bytes.
pub fn encode(target_version: &str) -> Vec<u8> {
    target_version.as_bytes().to_vec()
}

/// The target version in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<String, RecordError> {
    String::from_utf8(bytes.to_vec()).map_err(|error| RecordError::new("downgrade", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        assert_eq!(decode(&encode("3.6.0")).as_deref(), Ok("3.6.0"));
        assert!(decode(&[0xff]).is_err());
    }
}

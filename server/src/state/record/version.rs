//! `meta/version`: the replicated cluster version, which decides what may be proposed.
//!
//! ```text
//! UTF-8: major, minor and patch level, e.g. "3.7.0"
//! ```

use semver::Version;

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"version";
/// More than three numbers ever take.
const BYTES_MAX: usize = 64;

/// The record's bytes.
pub fn encode(version: &Version) -> Vec<u8> {
    version.to_string().into_bytes()
}

/// The version in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Version, RecordError> {
    let damaged = |reason: String| RecordError::new("version", reason);
    if bytes.len() > BYTES_MAX {
        return Err(damaged(format!("{} bytes", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|error| damaged(error.to_string()))?;
    let version = Version::parse(text).map_err(|error| damaged(format!("{text:?}: {error}")))?;
    if !version.pre.is_empty() || !version.build.is_empty() {
        return Err(damaged(format!("{text:?} is more than three numbers")));
    }
    Ok(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let version = Version::new(3, 10, 0);
        assert_eq!(decode(&encode(&version)), Ok(version));
        for wrong in ["", "3.7", "3.7.0-rc.1", "3.7.0+1", "3.7.0.0", "v3.7.0", "\u{ff}", &"1".repeat(65)] {
            assert!(decode(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert!(decode(&[0xff]).is_err());
    }
}

//! `meta/command_level`: the replicated command level, which decides which kinds and formats of commands may be proposed.
//!
//! ```text
//! level u32, at least 1
//! ```

use bytes::Buf;

use super::RecordError;
use crate::state::command::COMMAND_LEVEL_FIRST;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"command_level";

/// The record's bytes.
pub fn encode(level: u32) -> [u8; 4] {
    level.to_be_bytes()
}

/// The level in `bytes`.
pub fn decode(mut bytes: &[u8]) -> Result<u32, RecordError> {
    let level = bytes.try_get_u32().map_err(RecordError::short("command_level"))?;
    RecordError::unless_empty("command_level", bytes)?;
    if level < COMMAND_LEVEL_FIRST {
        return Err(RecordError::new("command_level", format!("{level} is below {COMMAND_LEVEL_FIRST}")));
    }
    Ok(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_what_no_store_has() {
        for level in [1, 2, u32::MAX] {
            assert_eq!(decode(&encode(level)), Ok(level));
        }
        for wrong in [&encode(0)[..], b"", b"123", b"12345"] {
            assert!(decode(wrong).is_err(), "{wrong:?}");
        }
    }
}

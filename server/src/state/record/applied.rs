//! `meta/applied`: the newest applied raft entry. It is written in the batch that holds the entry's effects, so that
//! data and applied index move together.
//!
//! ```text
//! index u64 | term u64
//! ```

use bytes::Buf;

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"applied";

/// A raft entry by index and term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Applied {
    /// Its index.
    pub index: u64,
    /// Its term.
    pub term: u64,
}

impl Applied {
    /// The record's bytes.
    pub fn encode(self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.index.to_be_bytes());
        bytes[8..].copy_from_slice(&self.term.to_be_bytes());
        bytes
    }

    /// The record in `bytes`.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, RecordError> {
        let short = || RecordError::short("applied");
        let applied =
            Self { index: bytes.try_get_u64().map_err(short())?, term: bytes.try_get_u64().map_err(short())? };
        RecordError::unless_empty("applied", bytes)?;
        Ok(applied)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(index: u64, term: u64) {
            let applied = Applied { index, term };
            prop_assert_eq!(Applied::decode(&applied.encode()), Ok(applied));
            prop_assert!(Applied::decode(&applied.encode()[..15]).is_err());
        }
    }
}

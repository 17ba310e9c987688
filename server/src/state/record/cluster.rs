//! `meta/cluster`: the id of the cluster whose data this is.
//!
//! ```text
//! cluster id u64
//! ```

use bytes::Buf;

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"cluster";

/// The record's bytes.
pub fn encode(cluster_id: u64) -> Vec<u8> {
    cluster_id.to_be_bytes().to_vec()
}

/// The id in `bytes`.
pub fn decode(mut bytes: &[u8]) -> Result<u64, RecordError> {
    let id = bytes.try_get_u64().map_err(RecordError::short("cluster"))?;
    RecordError::unless_empty("cluster", bytes)?;
    Ok(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        assert_eq!(decode(&encode(0x0102_0304_0506_0708)), Ok(0x0102_0304_0506_0708));
        assert!(decode(b"").is_err());
    }
}

//! Table `alarm`: a raised alarm. There is no value: the key says it all.
//!
//! ```text
//! key: kind u32 | member u64       kind as etcdserverpb.AlarmType
//! ```

use bytes::Buf;

use super::RecordError;

/// The key of an alarm.
pub fn key(kind: i32, member: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&kind.to_be_bytes());
    key[4..].copy_from_slice(&member.to_be_bytes());
    key
}

/// Kind and member in a key.
pub fn decode_key(mut key: &[u8]) -> Result<(i32, u64), RecordError> {
    let short = || RecordError::short("alarm");
    let alarm = (key.try_get_i32().map_err(short())?, key.try_get_u64().map_err(short())?);
    RecordError::unless_empty("alarm", key)?;
    Ok(alarm)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn round_trips(kind: i32, member: u64) {
            prop_assert_eq!(decode_key(&key(kind, member)), Ok((kind, member)));
        }
    }
}

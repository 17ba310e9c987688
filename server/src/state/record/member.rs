//! Table `member`: the members, and the ids that may never come back.
//!
//! ```text
//! key 'm' | id u64    value: etcdserverpb.Member as a protobuf message
//! key 'r' | id u64    value: empty; the member was removed
//! ```

use bytes::Buf;
use cairn_proto::etcdserverpb as pb;
use prost::Message;

use super::RecordError;

const MEMBER: u8 = b'm';
const REMOVED: u8 = b'r';

/// A record of the table.
#[derive(Debug, Clone, PartialEq)]
pub enum MemberRecord {
    /// A member.
    Member(pb::Member),
    /// The id of a removed member.
    Removed(u64),
}

/// The key of a member.
pub fn key(id: u64) -> Vec<u8> {
    keyed(MEMBER, id)
}

/// The key of a removed member.
pub fn removed_key(id: u64) -> Vec<u8> {
    keyed(REMOVED, id)
}

fn keyed(kind: u8, id: u64) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend(id.to_be_bytes());
    key
}

/// The value of a member.
pub fn encode(member: &pb::Member) -> Vec<u8> {
    member.encode_to_vec()
}

/// The record in `key` and `value`.
pub fn decode(mut key: &[u8], value: &[u8]) -> Result<MemberRecord, RecordError> {
    let short = || RecordError::short("member");
    let kind = key.try_get_u8().map_err(short())?;
    let id = key.try_get_u64().map_err(short())?;
    RecordError::unless_empty("member", key)?;
    match kind {
        MEMBER => {
            let member = pb::Member::decode(value).map_err(|error| RecordError::new("member", error.to_string()))?;
            if member.id == id {
                Ok(MemberRecord::Member(member))
            } else {
                Err(RecordError::new("member", "key and value name different members"))
            }
        }
        REMOVED => {
            RecordError::unless_empty("member", value)?;
            Ok(MemberRecord::Removed(id))
        }
        other => Err(RecordError::new("member", format!("unknown kind {other}"))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn round_trips(id: u64, name in ".{0,8}", peer_urls in vec(".{0,8}", 0..3), client_urls in vec(".{0,8}", 0..3), is_learner: bool) {
            let member = pb::Member { id, name, peer_urls, client_urls, is_learner };
            prop_assert_eq!(decode(&key(id), &encode(&member)), Ok(MemberRecord::Member(member)));
            prop_assert_eq!(decode(&removed_key(id), b""), Ok(MemberRecord::Removed(id)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(key in vec(any::<u8>(), 0..12), value in vec(any::<u8>(), 0..40)) {
            let _ = decode(&key, &value);
        }
    }
}

//! `meta/initial`: the members that the cluster began with, before the first entry of its log.
//!
//! A member that joins later and reads the log from its beginning has to start from the same membership.
//!
//! ```text
//! etcdserverpb.MemberListResponse as a protobuf message, of which only the members are set
//! ```

use cairn_proto::etcdserverpb::{Member, MemberListResponse};
use prost::Message;

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"initial";

/// The record's bytes.
pub fn encode(members: &[Member]) -> Vec<u8> {
    MemberListResponse { header: None, members: members.to_vec() }.encode_to_vec()
}

/// The record in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<Vec<Member>, RecordError> {
    let list = MemberListResponse::decode(bytes).map_err(|error| RecordError::new("initial", error.to_string()))?;
    Ok(list.members)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn round_trips(ids in vec(any::<u64>(), 0..5), url in ".{0,8}", is_learner: bool) {
            let member = |id| Member { id, peer_urls: vec![url.clone()], is_learner, ..Member::default() };
            let members: Vec<_> = ids.into_iter().map(member).collect();
            prop_assert_eq!(decode(&encode(&members)), Ok(members));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..60)) {
            let _ = decode(&bytes);
        }
    }
}

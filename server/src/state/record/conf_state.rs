//! `meta/conf_state`: who votes and who learns, as raft sees it after the newest applied membership change.
//!
//! ```text
//! eraftpb.ConfState as a protobuf message:
//! voters = 1, learners = 2, voters_outgoing = 3, learners_next = 4 (uint64, repeated), auto_leave = 5 (bool)
//! ```

use prost_raft::Message;
use raft::eraftpb::ConfState;

use super::RecordError;

/// The record's key in table `meta`.
pub const KEY: &[u8] = b"conf_state";

/// The record's bytes.
pub fn encode(conf_state: &ConfState) -> Vec<u8> {
    conf_state.encode_to_vec()
}

/// The record in `bytes`.
pub fn decode(bytes: &[u8]) -> Result<ConfState, RecordError> {
    ConfState::decode(bytes).map_err(|error| RecordError::new("conf_state", error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips() {
        let conf_state = ConfState {
            voters: vec![1, u64::MAX],
            learners: vec![7],
            voters_outgoing: vec![3],
            learners_next: vec![],
            auto_leave: true,
        };
        assert_eq!(decode(&encode(&conf_state)), Ok(conf_state));
        assert!(decode(&[0xff]).is_err());
    }
}

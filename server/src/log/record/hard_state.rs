//! Record kind 2: raft's hard state. 24 bytes: term, vote, commit, each a little-endian u64.

use raft::eraftpb::HardState;

use super::le_u64;

/// Size of an encoded hard state; segment headers hold one too.
pub(crate) const BYTES: usize = 24;

pub(super) fn encode(hard_state: &HardState, out: &mut Vec<u8>) {
    for number in [hard_state.term, hard_state.vote, hard_state.commit] {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

pub(super) fn decode(body: &[u8]) -> Result<HardState, String> {
    if body.len() != BYTES {
        return Err(format!("a hard state of {} bytes instead of {BYTES}", body.len()));
    }
    Ok(HardState { term: le_u64(body, 0), vote: le_u64(body, 8), commit: le_u64(body, 16) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(term: u64, vote: u64, commit: u64) {
            let hard_state = HardState { term, vote, commit };
            let mut out = Vec::new();
            encode(&hard_state, &mut out);
            prop_assert_eq!(out.len(), BYTES);
            prop_assert_eq!(decode(&out).unwrap(), hard_state);
        }
    }

    #[test]
    fn another_length_is_refused() {
        assert!(decode(&[0; 23]).is_err());
        assert!(decode(&[0; 25]).is_err());
    }
}

//! The members of the cluster.
//!
//! Who votes is raft's business ([`ConfState`]); this is what clients are told: names and addresses, and which ids may
//! never come back.
//!
//! A membership change travels as the context of a raft configuration change:
//! ```text
//! format u8 = 1 | kind u8 | member u64 | nonce u64 | counter u64 | etcdserverpb.Member as a protobuf message kind: 1
//! add (learner or not), 2 remove (only the id counts), 3 change peer addresses (id and addresses count), 4 promote
//! (only the id counts)
//! ```
//! member, nonce and counter name the request, as in a command.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_proto::etcdserverpb as pb;
use prost::Message;
use raft::eraftpb::ConfState;

use super::command::{CommandError, RequestId};

/// A cluster's first members, from which every one of them starts.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Membership {
    /// The cluster.
    pub cluster_id: u64,
    /// Its members.
    pub members: Vec<pb::Member>,
}

impl Membership {
    /// Who votes and who learns.
    pub fn conf_state(&self) -> ConfState {
        let ids = |learner: bool| {
            let mut ids: Vec<u64> =
                self.members.iter().filter(|member| member.is_learner == learner).map(|member| member.id).collect();
            ids.sort_unstable();
            ids
        };
        ConfState { voters: ids(false), learners: ids(true), ..ConfState::default() }
    }
}

/// The members now.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Members {
    /// The cluster.
    pub cluster_id: u64,
    /// The members by id.
    pub members: BTreeMap<u64, pb::Member>,
    /// Ids of removed members, never to be used again.
    pub removed: BTreeSet<u64>,
    /// The members that the cluster began with.
    pub initial: Vec<pb::Member>,
}

/// What a configuration change does to the members.
#[derive(Debug, Clone, PartialEq)]
pub enum MemberChange {
    /// A new member, voting or learning.
    Add(pb::Member),
    /// A member leaves for good.
    Remove(u64),
    /// A member's peer addresses.
    Update {
        /// The member.
        id: u64,
        /// Its new addresses.
        peer_urls: Vec<String>,
    },
    /// A learner becomes a voter.
    Promote(u64),
}

const FORMAT: u8 = 1;
const ADD: u8 = 1;
const REMOVE: u8 = 2;
const UPDATE: u8 = 3;
const PROMOTE: u8 = 4;

impl MemberChange {
    /// The context of the configuration change that `id` asked for.
    pub fn encode(&self, id: RequestId) -> Bytes {
        let mut out = BytesMut::new();
        let (kind, member) = match self {
            Self::Add(member) => (ADD, member.clone()),
            Self::Remove(id) => (REMOVE, pb::Member { id: *id, ..Default::default() }),
            Self::Update { id, peer_urls } => {
                (UPDATE, pb::Member { id: *id, peer_urls: peer_urls.clone(), ..Default::default() })
            }
            Self::Promote(id) => (PROMOTE, pb::Member { id: *id, ..Default::default() }),
        };
        out.put_u8(FORMAT);
        out.put_u8(kind);
        out.put_u64(id.member);
        out.put_u64(id.nonce);
        out.put_u64(id.counter);
        member.encode(&mut out).expect("a BytesMut grows as needed");
        out.freeze()
    }

    /// The change in a configuration change's context, and who asked for it.
    pub fn decode(mut context: Bytes) -> Result<(RequestId, Self), CommandError> {
        let short = |_| CommandError::Damaged { what: "a membership change ends early" };
        let format = context.try_get_u8().map_err(short)?;
        if format != FORMAT {
            return Err(CommandError::UnknownFormat { found: format });
        }
        let kind = context.try_get_u8().map_err(short)?;
        let mut word = || context.try_get_u64().map_err(short);
        let id = RequestId { member: word()?, nonce: word()?, counter: word()? };
        let member =
            pb::Member::decode(context).map_err(|error| CommandError::Payload { kind, reason: error.to_string() })?;
        let change = match kind {
            ADD => Self::Add(member),
            REMOVE => Self::Remove(member.id),
            UPDATE => Self::Update { id: member.id, peer_urls: member.peer_urls },
            PROMOTE => Self::Promote(member.id),
            found => return Err(CommandError::UnknownKind { found }),
        };
        Ok((id, change))
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn changes_round_trip(id: u64, name in ".{0,8}", peer_urls in vec(".{0,8}", 0..3), is_learner: bool, kind in 1..=4u8, asked: [u64; 3]) {
            let request = RequestId { member: asked[0], nonce: asked[1], counter: asked[2] };
            let change = match kind {
                ADD => MemberChange::Add(pb::Member { id, name, peer_urls, is_learner, ..Default::default() }),
                REMOVE => MemberChange::Remove(id),
                UPDATE => MemberChange::Update { id, peer_urls },
                _ => MemberChange::Promote(id),
            };
            prop_assert_eq!(MemberChange::decode(change.encode(request)), Ok((request, change)));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..80)) {
            let _ = MemberChange::decode(Bytes::from(bytes));
        }
    }

    #[test]
    fn the_first_membership_names_voters_and_learners_in_order() {
        let member = |id, is_learner| pb::Member { id, is_learner, ..Default::default() };
        let membership =
            Membership { cluster_id: 1, members: vec![member(9, false), member(2, true), member(3, false)] };
        let conf_state = membership.conf_state();
        assert_eq!((conf_state.voters, conf_state.learners), (vec![3, 9], vec![2]));
    }
}

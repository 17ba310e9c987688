//! What the client has to know of a request beside the [table of RPCs](cairn_proto::rpc): its keys, and its revision.

use cairn_proto::{
    etcdserverpb as pb,
    rpc::{self, Method},
    v3electionpb as election, v3lockpb as lock,
};
use prost::Message;

use crate::namespace::{self, Namespace};

/// A request with one answer.
///
/// Implemented for every such request of the API, so that [`Client::call`](crate::Client::call) can send it. Implement it
/// for your own types to reach methods the API does not have.
pub trait Unary: Message + Default + Clone + 'static {
    /// The answer.
    type Answer: Message + Default + 'static;

    /// The method, as `/package.Service/Method`.
    const PATH: &'static str;

    /// Whether the request only reads, so that it may be sent again without harm.
    fn changes_nothing(&self) -> bool;

    /// Puts the keys it names into a namespace ([`Client::namespaced`](crate::Client::namespaced)).
    fn enter(&mut self, _namespace: &Namespace) {}

    /// Takes the keys of an answer out of the namespace.
    fn leave(_answer: &mut Self::Answer, _namespace: &Namespace) {}

    /// The revision of the store that an answer is about, for [`Client::ordered`](crate::Client::ordered); `None` if
    /// answers of this kind are not about keys.
    fn revision(_answer: &Self::Answer) -> Option<i64> {
        None
    }
}

/// A request that is answered in pieces, and changes nothing.
pub trait ServerStreaming: Message + Default + Clone + 'static {
    /// One piece of the answer.
    type Piece: Message + Default + 'static;

    /// The method, as `/package.Service/Method`.
    const PATH: &'static str;

    /// Puts the keys it names into a namespace, as [`Unary::enter`].
    fn enter(&mut self, _namespace: &Namespace) {}

    /// Takes the keys of a piece out of the namespace.
    fn leave(_piece: &mut Self::Piece, _namespace: &Namespace) {}

    /// The revision of the store that the answer is about, if this piece tells it.
    fn revision(_piece: &Self::Piece) -> Option<i64> {
        None
    }
}

/// What requests about keys do in a namespace and under a guard.
macro_rules! about_keys {
    (keys) => {
        fn enter(&mut self, namespace: &Namespace) {
            namespace::Request::enter(self, namespace);
        }

        fn leave(answer: &mut Self::Answer, namespace: &Namespace) {
            namespace::Answer::leave(answer, namespace);
        }

        fn revision(answer: &Self::Answer) -> Option<i64> {
            answer.header.as_ref().map(|header| header.revision)
        }
    };
}

macro_rules! unary {
    ($($request:ty $(, about $keys:ident)?;)+) => {
        $(impl Unary for $request {
            type Answer = <$request as rpc::Unary>::Response;
            const PATH: &'static str = <$request as rpc::Unary>::METHOD.path();

            fn changes_nothing(&self) -> bool {
                rpc::Unary::changes_nothing(self)
            }

            $(about_keys!($keys);)?
        })+
    };
}

unary! {
    pb::RangeRequest, about keys;
    pb::PutRequest, about keys;
    pb::DeleteRangeRequest, about keys;
    pb::TxnRequest, about keys;
    pb::CompactionRequest;
    pb::LeaseGrantRequest;
    pb::LeaseRevokeRequest;
    pb::LeaseLeasesRequest;
    pb::MemberAddRequest;
    pb::MemberRemoveRequest;
    pb::MemberUpdateRequest;
    pb::MemberListRequest;
    pb::MemberPromoteRequest;
    pb::AlarmRequest;
    pb::StatusRequest;
    pb::DefragmentRequest;
    pb::HashRequest;
    pb::HashKvRequest;
    pb::MoveLeaderRequest;
    pb::DowngradeRequest;
    pb::AuthEnableRequest;
    pb::AuthDisableRequest;
    pb::AuthStatusRequest;
    pb::AuthenticateRequest;
    pb::AuthUserAddRequest;
    pb::AuthUserGetRequest;
    pb::AuthUserListRequest;
    pb::AuthUserDeleteRequest;
    pb::AuthUserChangePasswordRequest;
    pb::AuthUserGrantRoleRequest;
    pb::AuthUserRevokeRoleRequest;
    pb::AuthRoleAddRequest;
    pb::AuthRoleGetRequest;
    pb::AuthRoleListRequest;
    pb::AuthRoleDeleteRequest;
    pb::AuthRoleGrantPermissionRequest;
    pb::AuthRoleRevokePermissionRequest;
    lock::LockRequest;
    lock::UnlockRequest;
    election::CampaignRequest;
    election::ProclaimRequest;
    election::LeaderRequest;
    election::ResignRequest;
}

impl Unary for pb::LeaseTimeToLiveRequest {
    type Answer = pb::LeaseTimeToLiveResponse;
    const PATH: &'static str = Method::LeaseTimeToLive.path();

    fn changes_nothing(&self) -> bool {
        rpc::Unary::changes_nothing(self)
    }

    fn leave(answer: &mut pb::LeaseTimeToLiveResponse, namespace: &Namespace) {
        answer.keys.retain_mut(|key| namespace.leave(key));
    }
}

impl ServerStreaming for pb::RangeRequest {
    type Piece = pb::RangeStreamResponse;
    const PATH: &'static str = Method::RangeStream.path();

    fn enter(&mut self, namespace: &Namespace) {
        namespace::Request::enter(self, namespace);
    }

    fn leave(piece: &mut pb::RangeStreamResponse, namespace: &Namespace) {
        if let Some(range) = &mut piece.range_response {
            namespace::Answer::leave(range, namespace);
        }
    }

    fn revision(piece: &pb::RangeStreamResponse) -> Option<i64> {
        Some(piece.range_response.as_ref()?.header.as_ref()?.revision)
    }
}

impl ServerStreaming for pb::SnapshotRequest {
    type Piece = pb::SnapshotResponse;
    const PATH: &'static str = Method::Snapshot.path();
}

impl ServerStreaming for election::LeaderRequest {
    type Piece = election::LeaderResponse;
    const PATH: &'static str = Method::Observe.path();
}

#[cfg(test)]
mod tests {
    use cairn_proto::etcdserverpb::alarm_request::AlarmAction;

    use super::*;
    use crate::{Delete, Get, Put, Txn};

    #[test]
    fn a_txn_is_safe_to_repeat_only_if_no_branch_writes() {
        let reads = Txn::new().then(Get::new("a")).otherwise(Txn::new().then(Get::new("b")));
        assert!(reads.into_request().changes_nothing());
        assert!(Txn::new().into_request().changes_nothing());
        for writes in [
            Txn::new().then(Get::new("a")).otherwise(Put::new("a", "1")),
            Txn::new().then(Delete::new("a")),
            Txn::new().then(Txn::new().otherwise(Put::new("a", "1"))),
        ] {
            assert!(!writes.into_request().changes_nothing());
        }
    }

    #[test]
    fn only_looking_at_alarms_is_safe_to_repeat() {
        let mut alarm = pb::AlarmRequest::default();
        assert!(alarm.changes_nothing());
        alarm.set_action(AlarmAction::Deactivate);
        assert!(!alarm.changes_nothing());
    }
}

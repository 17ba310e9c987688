//! Which request asks which method, what it is answered with, and whether sending it twice does harm.

use cairn_proto::{
    etcdserverpb::{self as pb, alarm_request::AlarmAction, downgrade_request::DowngradeAction, request_op},
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
    ($($request:ty => $answer:ty, $path:literal, $changes_nothing:expr $(, about $keys:ident)?;)+) => {
        $(impl Unary for $request {
            type Answer = $answer;
            const PATH: &'static str = $path;

            fn changes_nothing(&self) -> bool {
                let changes_nothing: fn(&$request) -> bool = $changes_nothing;
                changes_nothing(self)
            }

            $(about_keys!($keys);)?
        })+
    };
}

unary! {
    pb::RangeRequest => pb::RangeResponse, "/etcdserverpb.KV/Range", |_| true, about keys;
    pb::PutRequest => pb::PutResponse, "/etcdserverpb.KV/Put", |_| false, about keys;
    pb::DeleteRangeRequest => pb::DeleteRangeResponse, "/etcdserverpb.KV/DeleteRange", |_| false, about keys;
    pb::TxnRequest => pb::TxnResponse, "/etcdserverpb.KV/Txn", only_reads, about keys;
    pb::CompactionRequest => pb::CompactionResponse, "/etcdserverpb.KV/Compact", |_| false;

    pb::LeaseGrantRequest => pb::LeaseGrantResponse, "/etcdserverpb.Lease/LeaseGrant", |_| false;
    pb::LeaseRevokeRequest => pb::LeaseRevokeResponse, "/etcdserverpb.Lease/LeaseRevoke", |_| false;
    pb::LeaseLeasesRequest => pb::LeaseLeasesResponse, "/etcdserverpb.Lease/LeaseLeases", |_| true;

    pb::MemberAddRequest => pb::MemberAddResponse, "/etcdserverpb.Cluster/MemberAdd", |_| false;
    pb::MemberRemoveRequest => pb::MemberRemoveResponse, "/etcdserverpb.Cluster/MemberRemove", |_| false;
    pb::MemberUpdateRequest => pb::MemberUpdateResponse, "/etcdserverpb.Cluster/MemberUpdate", |_| false;
    pb::MemberListRequest => pb::MemberListResponse, "/etcdserverpb.Cluster/MemberList", |_| true;
    pb::MemberPromoteRequest => pb::MemberPromoteResponse, "/etcdserverpb.Cluster/MemberPromote", |_| false;

    pb::AlarmRequest => pb::AlarmResponse, "/etcdserverpb.Maintenance/Alarm",
        |alarm| alarm.action == AlarmAction::Get as i32;
    pb::StatusRequest => pb::StatusResponse, "/etcdserverpb.Maintenance/Status", |_| true;
    pb::DefragmentRequest => pb::DefragmentResponse, "/etcdserverpb.Maintenance/Defragment", |_| false;
    pb::HashRequest => pb::HashResponse, "/etcdserverpb.Maintenance/Hash", |_| true;
    pb::HashKvRequest => pb::HashKvResponse, "/etcdserverpb.Maintenance/HashKV", |_| true;
    pb::MoveLeaderRequest => pb::MoveLeaderResponse, "/etcdserverpb.Maintenance/MoveLeader", |_| false;
    pb::DowngradeRequest => pb::DowngradeResponse, "/etcdserverpb.Maintenance/Downgrade",
        |downgrade| downgrade.action == DowngradeAction::Validate as i32;

    pb::AuthEnableRequest => pb::AuthEnableResponse, "/etcdserverpb.Auth/AuthEnable", |_| false;
    pb::AuthDisableRequest => pb::AuthDisableResponse, "/etcdserverpb.Auth/AuthDisable", |_| false;
    pb::AuthStatusRequest => pb::AuthStatusResponse, "/etcdserverpb.Auth/AuthStatus", |_| true;
    pb::AuthenticateRequest => pb::AuthenticateResponse, "/etcdserverpb.Auth/Authenticate", |_| true;
    pb::AuthUserAddRequest => pb::AuthUserAddResponse, "/etcdserverpb.Auth/UserAdd", |_| false;
    pb::AuthUserGetRequest => pb::AuthUserGetResponse, "/etcdserverpb.Auth/UserGet", |_| true;
    pb::AuthUserListRequest => pb::AuthUserListResponse, "/etcdserverpb.Auth/UserList", |_| true;
    pb::AuthUserDeleteRequest => pb::AuthUserDeleteResponse, "/etcdserverpb.Auth/UserDelete", |_| false;
    pb::AuthUserChangePasswordRequest => pb::AuthUserChangePasswordResponse,
        "/etcdserverpb.Auth/UserChangePassword", |_| false;
    pb::AuthUserGrantRoleRequest => pb::AuthUserGrantRoleResponse, "/etcdserverpb.Auth/UserGrantRole", |_| false;
    pb::AuthUserRevokeRoleRequest => pb::AuthUserRevokeRoleResponse, "/etcdserverpb.Auth/UserRevokeRole", |_| false;
    pb::AuthRoleAddRequest => pb::AuthRoleAddResponse, "/etcdserverpb.Auth/RoleAdd", |_| false;
    pb::AuthRoleGetRequest => pb::AuthRoleGetResponse, "/etcdserverpb.Auth/RoleGet", |_| true;
    pb::AuthRoleListRequest => pb::AuthRoleListResponse, "/etcdserverpb.Auth/RoleList", |_| true;
    pb::AuthRoleDeleteRequest => pb::AuthRoleDeleteResponse, "/etcdserverpb.Auth/RoleDelete", |_| false;
    pb::AuthRoleGrantPermissionRequest => pb::AuthRoleGrantPermissionResponse,
        "/etcdserverpb.Auth/RoleGrantPermission", |_| false;
    pb::AuthRoleRevokePermissionRequest => pb::AuthRoleRevokePermissionResponse,
        "/etcdserverpb.Auth/RoleRevokePermission", |_| false;

    lock::LockRequest => lock::LockResponse, "/v3lockpb.Lock/Lock", |_| false;
    lock::UnlockRequest => lock::UnlockResponse, "/v3lockpb.Lock/Unlock", |_| false;

    election::CampaignRequest => election::CampaignResponse, "/v3electionpb.Election/Campaign", |_| false;
    election::ProclaimRequest => election::ProclaimResponse, "/v3electionpb.Election/Proclaim", |_| false;
    election::LeaderRequest => election::LeaderResponse, "/v3electionpb.Election/Leader", |_| true;
    election::ResignRequest => election::ResignResponse, "/v3electionpb.Election/Resign", |_| false;
}

impl Unary for pb::LeaseTimeToLiveRequest {
    type Answer = pb::LeaseTimeToLiveResponse;
    const PATH: &'static str = "/etcdserverpb.Lease/LeaseTimeToLive";

    fn changes_nothing(&self) -> bool {
        true
    }

    fn leave(answer: &mut pb::LeaseTimeToLiveResponse, namespace: &Namespace) {
        answer.keys.retain_mut(|key| namespace.leave(key));
    }
}

impl ServerStreaming for pb::RangeRequest {
    type Piece = pb::RangeStreamResponse;
    const PATH: &'static str = "/etcdserverpb.KV/RangeStream";

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
    const PATH: &'static str = "/etcdserverpb.Maintenance/Snapshot";
}

impl ServerStreaming for election::LeaderRequest {
    type Piece = election::LeaderResponse;
    const PATH: &'static str = "/v3electionpb.Election/Observe";
}

/// Whether both branches of a transaction hold nothing but ranges.
fn only_reads(txn: &pb::TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|operation| match &operation.request {
        Some(request_op::Request::RequestRange(_)) => true,
        Some(request_op::Request::RequestTxn(nested)) => only_reads(nested),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
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

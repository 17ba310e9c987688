//! Every RPC that a server of the API knows by name, and which messages it takes and gives.
//!
//! [`Method`] is the table: name, service, path, [`Kind`]. [`Unary`], [`ServerStreaming`] and [`BidiStreaming`] say of a
//! request's type which method it asks for and what answers it. Server, clients and metrics use this table and have none of
//! their own.

use prost::Message;

use crate::{
    etcdserverpb::{self as pb, alarm_request::AlarmAction, downgrade_request::DowngradeAction, request_op},
    health, v3electionpb as election, v3lockpb as lock,
};

/// How many messages go which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// One each way.
    Unary,
    /// One request, many answers.
    ServerStream,
    /// Many each way.
    BidiStream,
}

impl Kind {
    /// The name of the kind in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

/// A request with one answer.
pub trait Unary: Message + Default + 'static {
    /// The answer.
    type Response: Message + Default + 'static;

    /// The method that takes the request.
    const METHOD: Method;

    /// Whether the request only reads, so that it may be sent again without harm.
    fn changes_nothing(&self) -> bool;
}

/// A request with many answers.
pub trait ServerStreaming: Message + Default + 'static {
    /// One of the answers.
    type Response: Message + Default + 'static;

    /// The method that takes the request.
    const METHOD: Method;
}

/// A request of a call with many requests and many answers.
pub trait BidiStreaming: Message + Default + 'static {
    /// One of the answers.
    type Response: Message + Default + 'static;

    /// The method that takes the requests.
    const METHOD: Method;
}

macro_rules! kind {
    (unary) => {
        Kind::Unary
    };
    (server_streaming) => {
        Kind::ServerStream
    };
    (bidi_streaming) => {
        Kind::BidiStream
    };
}

macro_rules! messages {
    (unary $method:ident $request:ty => $response:ty) => {
        messages!(unary $method $request => $response, |_: &$request| false);
    };
    (unary $method:ident $request:ty => $response:ty, $changes_nothing:expr) => {
        impl Unary for $request {
            type Response = $response;
            const METHOD: Method = Method::$method;

            fn changes_nothing(&self) -> bool {
                let changes_nothing: fn(&$request) -> bool = $changes_nothing;
                changes_nothing(self)
            }
        }
    };
    (server_streaming $method:ident $request:ty => $response:ty) => {
        messages!(ServerStreaming for $method $request => $response);
    };
    (bidi_streaming $method:ident $request:ty => $response:ty) => {
        messages!(BidiStreaming for $method $request => $response);
    };
    ($kind:ident for $method:ident $request:ty => $response:ty) => {
        impl $kind for $request {
            type Response = $response;
            const METHOD: Method = Method::$method;
        }
    };
    // Messages that are not of this crate.
    ($kind:ident $method:ident) => {};
}

/// `Method = "Name" kind Request => Response, whether a request changes nothing;`
macro_rules! methods {
    ($($service:literal {
        $($method:ident = $name:literal $kind:ident $($request:ty => $response:ty $(, $changes_nothing:expr)?)?;)+
    })+) => {
        /// An RPC.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[expect(missing_docs, reason = "the names are those of the RPCs; where two services share one, the service is part of it")]
        pub enum Method { $($($method,)+)+ }

        impl Method {
            /// All RPCs, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$($(Self::$method,)+)+];

            /// The service's full name.
            pub const fn service(self) -> &'static str {
                match self { $($(Self::$method)|+ => $service,)+ }
            }

            /// The name within the service.
            pub const fn name(self) -> &'static str {
                match self { $($(Self::$method => $name,)+)+ }
            }

            /// The path of requests, `/package.Service/Name`.
            pub const fn path(self) -> &'static str {
                match self { $($(Self::$method => concat!("/", $service, "/", $name),)+)+ }
            }

            /// How many messages go which way.
            pub const fn kind(self) -> Kind {
                match self { $($(Self::$method => kind!($kind),)+)+ }
            }

            /// The RPC that a request path names.
            pub fn of_path(path: &str) -> Option<Self> {
                match path { $($(concat!("/", $service, "/", $name) => Some(Self::$method),)+)+ _ => None }
            }
        }

        /// All services.
        pub const SERVICES: &[&str] = &[$($service),+];

        $($(messages! { $kind $method $($request => $response $(, $changes_nothing)?)? })+)+
    };
}

methods! {
    "etcdserverpb.KV" {
        Range = "Range" unary pb::RangeRequest => pb::RangeResponse, |_| true;
        RangeStream = "RangeStream" server_streaming pb::RangeRequest => pb::RangeStreamResponse;
        Put = "Put" unary pb::PutRequest => pb::PutResponse;
        DeleteRange = "DeleteRange" unary pb::DeleteRangeRequest => pb::DeleteRangeResponse;
        Txn = "Txn" unary pb::TxnRequest => pb::TxnResponse, only_reads;
        Compact = "Compact" unary pb::CompactionRequest => pb::CompactionResponse;
    }
    "etcdserverpb.Watch" {
        Watch = "Watch" bidi_streaming pb::WatchRequest => pb::WatchResponse;
    }
    "etcdserverpb.Lease" {
        LeaseGrant = "LeaseGrant" unary pb::LeaseGrantRequest => pb::LeaseGrantResponse;
        LeaseRevoke = "LeaseRevoke" unary pb::LeaseRevokeRequest => pb::LeaseRevokeResponse;
        LeaseKeepAlive = "LeaseKeepAlive" bidi_streaming pb::LeaseKeepAliveRequest => pb::LeaseKeepAliveResponse;
        LeaseTimeToLive = "LeaseTimeToLive" unary pb::LeaseTimeToLiveRequest => pb::LeaseTimeToLiveResponse, |_| true;
        LeaseLeases = "LeaseLeases" unary pb::LeaseLeasesRequest => pb::LeaseLeasesResponse, |_| true;
    }
    "etcdserverpb.Cluster" {
        MemberAdd = "MemberAdd" unary pb::MemberAddRequest => pb::MemberAddResponse;
        MemberRemove = "MemberRemove" unary pb::MemberRemoveRequest => pb::MemberRemoveResponse;
        MemberUpdate = "MemberUpdate" unary pb::MemberUpdateRequest => pb::MemberUpdateResponse;
        MemberList = "MemberList" unary pb::MemberListRequest => pb::MemberListResponse, |_| true;
        MemberPromote = "MemberPromote" unary pb::MemberPromoteRequest => pb::MemberPromoteResponse;
    }
    "etcdserverpb.Maintenance" {
        Alarm = "Alarm" unary pb::AlarmRequest => pb::AlarmResponse, |alarm| alarm.action == AlarmAction::Get as i32;
        Status = "Status" unary pb::StatusRequest => pb::StatusResponse, |_| true;
        Defragment = "Defragment" unary pb::DefragmentRequest => pb::DefragmentResponse;
        Hash = "Hash" unary pb::HashRequest => pb::HashResponse, |_| true;
        HashKv = "HashKV" unary pb::HashKvRequest => pb::HashKvResponse, |_| true;
        Snapshot = "Snapshot" server_streaming pb::SnapshotRequest => pb::SnapshotResponse;
        MoveLeader = "MoveLeader" unary pb::MoveLeaderRequest => pb::MoveLeaderResponse;
        Downgrade = "Downgrade" unary pb::DowngradeRequest => pb::DowngradeResponse,
            |downgrade| downgrade.action == DowngradeAction::Validate as i32;
    }
    "etcdserverpb.Auth" {
        AuthEnable = "AuthEnable" unary pb::AuthEnableRequest => pb::AuthEnableResponse;
        AuthDisable = "AuthDisable" unary pb::AuthDisableRequest => pb::AuthDisableResponse;
        AuthStatus = "AuthStatus" unary pb::AuthStatusRequest => pb::AuthStatusResponse, |_| true;
        Authenticate = "Authenticate" unary pb::AuthenticateRequest => pb::AuthenticateResponse, |_| true;
        UserAdd = "UserAdd" unary pb::AuthUserAddRequest => pb::AuthUserAddResponse;
        UserGet = "UserGet" unary pb::AuthUserGetRequest => pb::AuthUserGetResponse, |_| true;
        UserList = "UserList" unary pb::AuthUserListRequest => pb::AuthUserListResponse, |_| true;
        UserDelete = "UserDelete" unary pb::AuthUserDeleteRequest => pb::AuthUserDeleteResponse;
        UserChangePassword = "UserChangePassword" unary
            pb::AuthUserChangePasswordRequest => pb::AuthUserChangePasswordResponse;
        UserGrantRole = "UserGrantRole" unary pb::AuthUserGrantRoleRequest => pb::AuthUserGrantRoleResponse;
        UserRevokeRole = "UserRevokeRole" unary pb::AuthUserRevokeRoleRequest => pb::AuthUserRevokeRoleResponse;
        RoleAdd = "RoleAdd" unary pb::AuthRoleAddRequest => pb::AuthRoleAddResponse;
        RoleGet = "RoleGet" unary pb::AuthRoleGetRequest => pb::AuthRoleGetResponse, |_| true;
        RoleList = "RoleList" unary pb::AuthRoleListRequest => pb::AuthRoleListResponse, |_| true;
        RoleDelete = "RoleDelete" unary pb::AuthRoleDeleteRequest => pb::AuthRoleDeleteResponse;
        RoleGrantPermission = "RoleGrantPermission" unary
            pb::AuthRoleGrantPermissionRequest => pb::AuthRoleGrantPermissionResponse;
        RoleRevokePermission = "RoleRevokePermission" unary
            pb::AuthRoleRevokePermissionRequest => pb::AuthRoleRevokePermissionResponse;
    }
    "v3lockpb.Lock" {
        Lock = "Lock" unary lock::LockRequest => lock::LockResponse;
        Unlock = "Unlock" unary lock::UnlockRequest => lock::UnlockResponse;
    }
    "v3electionpb.Election" {
        Campaign = "Campaign" unary election::CampaignRequest => election::CampaignResponse;
        Proclaim = "Proclaim" unary election::ProclaimRequest => election::ProclaimResponse;
        Leader = "Leader" unary election::LeaderRequest => election::LeaderResponse, |_| true;
        Observe = "Observe" server_streaming election::LeaderRequest => election::LeaderResponse;
        Resign = "Resign" unary election::ResignRequest => election::ResignResponse;
    }
    "grpc.health.v1.Health" {
        HealthCheck = "Check" unary health::HealthCheckRequest => health::HealthCheckResponse, |_| true;
        HealthWatch = "Watch" server_streaming health::HealthCheckRequest => health::HealthCheckResponse;
        HealthList = "List" unary health::HealthListRequest => health::HealthListResponse, |_| true;
    }
    "grpc.reflection.v1.ServerReflection" {
        Reflection = "ServerReflectionInfo" bidi_streaming;
    }
    "grpc.reflection.v1alpha.ServerReflection" {
        ReflectionAlpha = "ServerReflectionInfo" bidi_streaming;
    }
}

impl Method {
    /// Whether a call lasts until its client ends it: a server that stops must end it.
    pub const fn is_endless(self) -> bool {
        matches!(self.kind(), Kind::BidiStream)
            || matches!(self, Self::Observe | Self::Lock | Self::Campaign | Self::HealthWatch)
    }
}

/// The text of the error for a path that names no RPC.
pub fn unknown(path: &str) -> String {
    match path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if SERVICES.contains(&service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    }
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
    use std::collections::HashSet;

    use prost::Message;

    use super::*;

    /// The fields of `google.protobuf.FileDescriptorSet` that name RPCs.
    #[derive(Message)]
    struct Files {
        #[prost(message, repeated, tag = "1")]
        files: Vec<File>,
    }

    #[derive(Message)]
    struct File {
        #[prost(string, tag = "2")]
        package: String,
        #[prost(message, repeated, tag = "6")]
        services: Vec<Service>,
    }

    #[derive(Message)]
    struct Service {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(message, repeated, tag = "2")]
        methods: Vec<Rpc>,
    }

    #[derive(Message)]
    struct Rpc {
        #[prost(string, tag = "1")]
        name: String,
        #[prost(bool, tag = "5")]
        client_streaming: bool,
        #[prost(bool, tag = "6")]
        server_streaming: bool,
    }

    #[test]
    fn every_rpc_of_the_protobuf_files_is_known_with_its_kind() {
        let files = Files::decode(crate::FILE_DESCRIPTOR_SET).expect("descriptors decode");
        let mut seen = HashSet::new();
        for file in &files.files {
            for service in &file.services {
                for rpc in &service.methods {
                    let path = format!("/{}.{}/{}", file.package, service.name, rpc.name);
                    let method = Method::of_path(&path).unwrap_or_else(|| panic!("{path} is not known"));
                    let kind = match (rpc.client_streaming, rpc.server_streaming) {
                        (false, false) => Kind::Unary,
                        (false, true) => Kind::ServerStream,
                        _ => Kind::BidiStream,
                    };
                    assert_eq!(method.kind(), kind, "{path}");
                    assert_eq!(
                        (format!("/{}/{}", method.service(), method.name()).as_str(), method.path()),
                        (&*path, &*path)
                    );
                    seen.insert(method);
                }
            }
        }
        let surplus: Vec<_> =
            Method::ALL.iter().filter(|m| !seen.contains(m) && !m.service().starts_with("grpc.reflection.")).collect();
        assert!(surplus.is_empty(), "{surplus:?}");
        assert_eq!(seen.len(), 49 + 3);
    }

    #[test]
    fn the_error_for_an_unknown_path_names_what_is_unknown() {
        assert_eq!(unknown("/etcdserverpb.KV/Nope"), "unknown method Nope for service etcdserverpb.KV");
        assert_eq!(unknown("/nope.Nope/Nope"), "unknown service nope.Nope");
        assert_eq!(unknown("/x"), "malformed method name: \"/x\"");
    }
}

//! Every RPC the server knows by name.

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
    /// As metrics call it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Unary => "unary",
            Self::ServerStream => "server_stream",
            Self::BidiStream => "bidi_stream",
        }
    }
}

macro_rules! methods {
    ($($service:literal { $($method:ident = $name:literal $kind:ident,)+ })+) => {
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

            /// How many messages go which way.
            pub const fn kind(self) -> Kind {
                match self { $($(Self::$method => Kind::$kind,)+)+ }
            }

            /// The RPC that a request path names.
            pub fn of_path(path: &str) -> Option<Self> {
                match path { $($(concat!("/", $service, "/", $name) => Some(Self::$method),)+)+ _ => None }
            }
        }

        /// All services.
        pub const SERVICES: &[&str] = &[$($service),+];
    };
}

methods! {
    "etcdserverpb.KV" {
        Range = "Range" Unary,
        RangeStream = "RangeStream" ServerStream,
        Put = "Put" Unary,
        DeleteRange = "DeleteRange" Unary,
        Txn = "Txn" Unary,
        Compact = "Compact" Unary,
    }
    "etcdserverpb.Watch" {
        Watch = "Watch" BidiStream,
    }
    "etcdserverpb.Lease" {
        LeaseGrant = "LeaseGrant" Unary,
        LeaseRevoke = "LeaseRevoke" Unary,
        LeaseKeepAlive = "LeaseKeepAlive" BidiStream,
        LeaseTimeToLive = "LeaseTimeToLive" Unary,
        LeaseLeases = "LeaseLeases" Unary,
    }
    "etcdserverpb.Cluster" {
        MemberAdd = "MemberAdd" Unary,
        MemberRemove = "MemberRemove" Unary,
        MemberUpdate = "MemberUpdate" Unary,
        MemberList = "MemberList" Unary,
        MemberPromote = "MemberPromote" Unary,
    }
    "etcdserverpb.Maintenance" {
        Alarm = "Alarm" Unary,
        Status = "Status" Unary,
        Defragment = "Defragment" Unary,
        Hash = "Hash" Unary,
        HashKv = "HashKV" Unary,
        Snapshot = "Snapshot" ServerStream,
        MoveLeader = "MoveLeader" Unary,
        Downgrade = "Downgrade" Unary,
    }
    "etcdserverpb.Auth" {
        AuthEnable = "AuthEnable" Unary,
        AuthDisable = "AuthDisable" Unary,
        AuthStatus = "AuthStatus" Unary,
        Authenticate = "Authenticate" Unary,
        UserAdd = "UserAdd" Unary,
        UserGet = "UserGet" Unary,
        UserList = "UserList" Unary,
        UserDelete = "UserDelete" Unary,
        UserChangePassword = "UserChangePassword" Unary,
        UserGrantRole = "UserGrantRole" Unary,
        UserRevokeRole = "UserRevokeRole" Unary,
        RoleAdd = "RoleAdd" Unary,
        RoleGet = "RoleGet" Unary,
        RoleList = "RoleList" Unary,
        RoleDelete = "RoleDelete" Unary,
        RoleGrantPermission = "RoleGrantPermission" Unary,
        RoleRevokePermission = "RoleRevokePermission" Unary,
    }
    "v3lockpb.Lock" {
        Lock = "Lock" Unary,
        Unlock = "Unlock" Unary,
    }
    "v3electionpb.Election" {
        Campaign = "Campaign" Unary,
        Proclaim = "Proclaim" Unary,
        Leader = "Leader" Unary,
        Observe = "Observe" ServerStream,
        Resign = "Resign" Unary,
    }
    "grpc.health.v1.Health" {
        HealthCheck = "Check" Unary,
        HealthWatch = "Watch" ServerStream,
        HealthList = "List" Unary,
    }
    "grpc.reflection.v1.ServerReflection" {
        Reflection = "ServerReflectionInfo" BidiStream,
    }
    "grpc.reflection.v1alpha.ServerReflection" {
        ReflectionAlpha = "ServerReflectionInfo" BidiStream,
    }
}

impl Method {
    /// Whether a call goes on for as long as its client likes: such a one must be ended when the server stops.
    pub const fn is_endless(self) -> bool {
        matches!(self.kind(), Kind::BidiStream)
            || matches!(self, Self::Observe | Self::Lock | Self::Campaign | Self::HealthWatch)
    }
}

/// What a client is told that asks for something unknown.
pub fn unknown(path: &str) -> String {
    match path.strip_prefix('/').and_then(|path| path.rsplit_once('/')) {
        None => format!("malformed method name: {path:?}"),
        Some((service, method)) if SERVICES.contains(&service) => {
            format!("unknown method {method} for service {service}")
        }
        Some((service, _)) => format!("unknown service {service}"),
    }
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
        let files = Files::decode(cairn_proto::FILE_DESCRIPTOR_SET).expect("descriptors decode");
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
                    assert_eq!(format!("/{}/{}", method.service(), method.name()), path);
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
    fn an_unknown_path_is_told_what_is_unknown() {
        assert_eq!(unknown("/etcdserverpb.KV/Nope"), "unknown method Nope for service etcdserverpb.KV");
        assert_eq!(unknown("/nope.Nope/Nope"), "unknown service nope.Nope");
        assert_eq!(unknown("/x"), "malformed method name: \"/x\"");
    }
}

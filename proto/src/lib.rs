//! Wire types and error catalogue of the etcd v3 API as Cairn serves it.
//!
//! One module for each protobuf package, generated from the files under `proto/`: messages, and for each service a client
//! and a server. Keys, values and every other `bytes` field are [`bytes::Bytes`], so that decoding shares the received
//! buffer and encoding copies a value once.
//!
//! | module | services |
//! |---|---|
//! | [`etcdserverpb`] | KV, Watch, Lease, Cluster, Maintenance, Auth |
//! | [`v3lockpb`] | Lock |
//! | [`v3electionpb`] | Election |
//! | [`health`] | Health |
//! | [`mvccpb`], [`authpb`] | none: keys and events, users and roles |
//! | [`peer`] | Peer: what members say to each other, which is no part of the API and not in the descriptors |
//!
//! [`rpc`] is the table of all RPCs with their messages.
//!
//! [`ApiError`] holds every error a client may meet by code and exact text, for the server to answer with and for clients
//! to recognise. [`cancel_reason`] holds the texts of watch cancellations, which travel in an answer instead of a status.
//!
//! Nothing else belongs here: no validation, no storage format, no transport.

mod error;
pub mod rpc;

pub use error::{ApiError, cancel_reason};

/// The descriptors of all packages of the API, encoded as a `google.protobuf.FileDescriptorSet`, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/cairn.descriptors"));

macro_rules! generated {
    ($(#[$doc:meta])* $name:ident from $package:literal) => {
        $(#[$doc])*
        #[expect(
            clippy::pedantic,
            reason = "written by the generator, whose style is not ours to choose"
        )]
        pub mod $name {
            tonic::include_proto!($package);
        }
    };
}

generated! {
    /// The v3 API: KV, Watch, Lease, Cluster, Maintenance, Auth.
    etcdserverpb from "etcdserverpb"
}
generated! {
    /// What a store keeps under a key, and what happens to it.
    mvccpb from "mvccpb"
}
generated! {
    /// Users, roles and what they permit.
    authpb from "authpb"
}
generated! {
    /// Locks kept by the server.
    v3lockpb from "v3lockpb"
}
generated! {
    /// Leader elections kept by the server.
    v3electionpb from "v3electionpb"
}
generated! {
    /// Whether the server serves, as any gRPC client may ask.
    health from "grpc.health.v1"
}
generated! {
    /// What the members of a cluster say to each other.
    peer from "cairn.peer"
}

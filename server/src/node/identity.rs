//! Who a member and a cluster are.
//!
//! The ids come from the flags ([`config`](crate::config)) or from the cluster that a member joins. They are kept in the data
//! directory; flags that say something else later change nothing.

/// An initial member as the flags name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialMember {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Where the other members reach it.
    pub peer_urls: Vec<String>,
}

/// A member and its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// The member's id.
    pub member: u64,
    /// The cluster's id.
    pub cluster: u64,
}

/// What a member starts from that joins a running cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct Origin {
    /// Who it is, as the cluster says.
    pub identity: Identity,
    /// The members that the cluster began with, before the first entry of its log.
    pub members: Vec<cairn_proto::etcdserverpb::Member>,
}

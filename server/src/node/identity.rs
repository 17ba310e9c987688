//! Who a member and a cluster are.
//!
//! A member's id is the beginning of a hash over its peer URLs and the cluster's token, the cluster's that over the ids
//! of its initial members: the same flags give the same ids, here and in etcd. Both are kept in the data directory;
//! flags that say something else later change nothing.

use sha1::{Digest, Sha1};

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

/// The id of a member: the first 8 bytes, big endian, of SHA-1 over its sorted peer URLs and the cluster's token, and
/// for a member that is added at run time the decimal unix seconds of that moment, so that the same URLs give another
/// id when they come again.
pub fn member_id(peer_urls: &[String], token: &str, added_at: Option<u64>) -> u64 {
    let mut urls: Vec<&str> = peer_urls.iter().map(String::as_str).collect();
    urls.sort_unstable();
    let mut hash = Sha1::new();
    for url in urls {
        hash.update(url);
    }
    hash.update(token);
    if let Some(seconds) = added_at {
        hash.update(seconds.to_string());
    }
    first_eight(hash)
}

/// The id of a cluster: the first 8 bytes, big endian, of SHA-1 over the sorted ids of its initial members.
pub fn cluster_id(members: &[u64]) -> u64 {
    let mut members = members.to_vec();
    members.sort_unstable();
    let mut hash = Sha1::new();
    for member in members {
        hash.update(member.to_be_bytes());
    }
    first_eight(hash)
}

fn first_eight(hash: Sha1) -> u64 {
    let hash = hash.finalize();
    hash[..8].iter().fold(0, |id, &byte| id << 8 | u64::from(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn urls(urls: &[&str]) -> Vec<String> {
        urls.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn ids_are_the_ones_etcd_gives_the_same_flags() {
        // What `etcd` with its default flags calls itself.
        let member = member_id(&urls(&["http://localhost:2380"]), "etcd-cluster", None);
        assert_eq!(member, 0x8e9e_05c5_2164_694d);
        assert_eq!(cluster_id(&[member]), 0xcdf8_1819_4e3a_8c32);
    }

    #[test]
    fn the_order_of_urls_and_members_does_not_matter_but_the_time_does() {
        let (a, b) = (urls(&["http://a:1", "http://b:1"]), urls(&["http://b:1", "http://a:1"]));
        assert_eq!(member_id(&a, "t", None), member_id(&b, "t", None));
        assert_ne!(member_id(&a, "t", None), member_id(&a, "t", Some(1)));
        assert_eq!(cluster_id(&[1, 2, 3]), cluster_id(&[3, 1, 2]));
    }
}

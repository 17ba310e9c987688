//! Who a member is: names and peer URLs of the first members, and the ids made from them.
//!
//! The ids are those of etcd, bit for bit, so that a cluster moved over keeps them:
//!
//! ```text
//! member id  = first 8 bytes, big endian, of SHA-1(sorted peer URLs ‖ cluster token)
//! cluster id = first 8 bytes, big endian, of SHA-1(sorted member ids, 8 bytes big endian each)
//! ```
//!
//! A member added at run time is hashed with the time of its addition (unix seconds, decimal) in place of the token.
//! Ids are computed once, when a data directory is made, and persisted: later changes of flags or URLs do not change them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use sha1::{Digest, Sha1};

use super::address::Comparison;
use super::error::ConfigError;
use super::settings::Config;
use super::value::{Value, comma_list};
use crate::types::{Url, join};

/// The id of one of the first members of the cluster named by `token`.
pub fn initial_member_id(peer_urls: &[impl Display], token: &str) -> u64 {
    member_id(peer_urls, token)
}

/// The id of a member that is added to a running cluster at `unix_seconds`. The caller carries it in the command.
pub fn added_member_id(peer_urls: &[impl Display], unix_seconds: u64) -> u64 {
    member_id(peer_urls, &unix_seconds.to_string())
}

fn member_id(peer_urls: &[impl Display], suffix: &str) -> u64 {
    let mut texts: Vec<String> = peer_urls.iter().map(ToString::to_string).collect();
    texts.sort_unstable();
    texts.push(suffix.to_owned());
    first_8_bytes(texts.concat().as_bytes())
}

/// The id of the cluster whose first members have these ids.
pub fn cluster_id(member_ids: &[u64]) -> u64 {
    let mut sorted = member_ids.to_vec();
    sorted.sort_unstable();
    let bytes: Vec<u8> = sorted.iter().flat_map(|id| id.to_be_bytes()).collect();
    first_8_bytes(&bytes)
}

fn first_8_bytes(bytes: &[u8]) -> u64 {
    let digest = Sha1::digest(bytes);
    u64::from_be_bytes(digest[..8].try_into().expect("a SHA-1 digest has 20 bytes"))
}

impl Value for Vec<(String, Url)> {
    /// `name=URL,name=URL,…`; a name may come more than once.
    fn parse(text: &str) -> Result<Self, String> {
        comma_list(text)
            .map(|part| {
                let (name, url) = part.split_once('=').ok_or_else(|| format!("expected name=URL: {part:?}"))?;
                if name.is_empty() {
                    return Err(format!("a member must have a name: {part:?}"));
                }
                Ok((name.to_owned(), Url::parse(url)?))
            })
            .collect()
    }
}

/// One of the first members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialMember {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the others reach it, sorted.
    pub peer_urls: Vec<Url>,
}

/// The cluster that an empty data directory begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The id of the member being started.
    pub member_id: u64,
    /// Every first member, sorted by id.
    pub members: Vec<InitialMember>,
}

impl InitialCluster {
    /// Reads the first members out of a configuration and checks that they fit together. Blocks while host names are
    /// resolved, if the two flags with this member's peer URLs spell them in two ways.
    ///
    /// To be called only for an empty data directory: on a restart the `--initial-…` flags do not count. Nor for a member
    /// that joins a running cluster, which is told its id by it.
    ///
    /// # Errors
    /// When this member is missing, is listed with other peer URLs than it advertises, or two members share a URL.
    pub fn from_config(config: &Config) -> Result<Self, ConfigError> {
        Self::compared(config, &mut Comparison::new())
    }

    fn compared(config: &Config, comparison: &mut Comparison) -> Result<Self, ConfigError> {
        let invalid = |text: String| Err(ConfigError::Invalid(text));
        let mut by_name: BTreeMap<String, Vec<Url>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for (name, url) in config.initial_cluster() {
            if !seen.insert(url.clone()) {
                return invalid(format!("--initial-cluster has the URL {url} twice"));
            }
            by_name.entry(name).or_default().push(url);
        }
        for urls in by_name.values_mut() {
            urls.sort();
        }
        let Some(listed) = by_name.get(&config.name) else {
            return invalid(format!("couldn't find local name {:?} in the initial cluster configuration", config.name));
        };
        check_advertised(config, listed, comparison)?;

        let mut members: Vec<InitialMember> = by_name
            .into_iter()
            .map(|(name, peer_urls)| {
                let id = initial_member_id(&peer_urls, &config.initial_cluster_token);
                InitialMember { id, name, peer_urls }
            })
            .collect();
        members.sort_unstable_by_key(|member| member.id);
        let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        if ids.contains(&0) || ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return invalid(
                "--initial-cluster gives two members one id, or the reserved id 0: change --initial-cluster-token"
                    .to_owned(),
            );
        }
        let member_id = members.iter().find(|member| member.name == config.name).map_or(0, |member| member.id);
        Ok(Self { cluster_id: cluster_id(&ids), member_id, members })
    }
}

/// Whether both flags reach this member at the same addresses. The ids are made of the texts in `--initial-cluster`.
fn check_advertised(config: &Config, listed: &[Url], comparison: &mut Comparison) -> Result<(), ConfigError> {
    let mut advertised = config.initial_advertise_peer_urls.clone();
    advertised.sort();
    advertised.dedup();
    let reason = match comparison.same(listed, &advertised) {
        Ok(true) => return Ok(()),
        Ok(false) => String::new(),
        Err(reason) => format!(" ({reason})"),
    };
    let missing = |from: &[Url], urls: &[Url]| from.iter().find(|url| !urls.contains(url)).cloned();
    Err(ConfigError::Invalid(match missing(listed, &advertised) {
        Some(url) => format!(
            "--initial-cluster has {}={url} but missing from --initial-advertise-peer-urls={}{reason}",
            config.name,
            join(&advertised)
        ),
        None => format!(
            "--initial-advertise-peer-urls has {} but missing from --initial-cluster for {}{reason}",
            missing(&advertised, listed).map_or_else(String::new, |url| url.to_string()),
            config.name
        ),
    }))
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use super::*;

    fn urls(text: &str) -> Vec<Url> {
        Vec::parse(text).unwrap()
    }

    fn config(name: &str, advertise: &str, cluster: &str, token: &str) -> Config {
        Config {
            name: name.to_owned(),
            initial_advertise_peer_urls: urls(advertise),
            initial_cluster: Vec::parse(cluster).unwrap(),
            initial_cluster_token: token.to_owned(),
            ..Config::default()
        }
    }

    // The ids below were printed by etcd 3.5.1 (`endpoint status -w json`, `member list -w json`) started with these flags.

    #[test]
    fn a_single_member_has_the_ids_etcd_gives_it() {
        let cluster =
            InitialCluster::from_config(&config("default", "http://localhost:23801", "", "etcd-cluster")).unwrap();
        assert_eq!(cluster.member_id, 10_380_308_844_252_023_631);
        assert_eq!(cluster.cluster_id, 14_157_404_839_081_899_249);
    }

    #[test]
    fn several_peer_urls_are_sorted_before_they_are_hashed() {
        let both = "http://127.0.0.1:23802,http://127.0.0.1:23801";
        let listed = "infra0=http://127.0.0.1:23802,infra0=http://127.0.0.1:23801";
        let cluster = InitialCluster::from_config(&config("infra0", both, listed, "my-token")).unwrap();
        assert_eq!(cluster.member_id, 7_661_327_229_840_461_462);
        assert_eq!(cluster.cluster_id, 2_795_795_151_795_781_247);
    }

    #[test]
    fn three_members_have_the_ids_etcd_gives_them() {
        let listed = "a=http://127.0.0.1:23901,b=http://127.0.0.1:23902,c=http://localhost:23903";
        let cluster = InitialCluster::from_config(&config("c", "http://localhost:23903", listed, "tok")).unwrap();
        assert_eq!(cluster.member_id, 6_998_410_666_217_053_275);
        assert_eq!(cluster.cluster_id, 3_917_305_409_564_777_968);
        let members: Vec<_> = cluster.members.iter().map(|m| (m.name.as_str(), m.id)).collect();
        assert_eq!(
            members,
            [("b", 2_102_031_531_048_171_980), ("c", 6_998_410_666_217_053_275), ("a", 16_564_338_165_500_523_697)]
        );
    }

    #[test]
    fn an_added_member_is_hashed_with_the_time_and_without_the_token() {
        assert_eq!(added_member_id(&urls("http://127.0.0.1:23904"), 1_795_244_857), 9_190_755_227_289_401_501);
    }

    #[test]
    fn a_cluster_without_this_member_is_refused() {
        let error =
            InitialCluster::from_config(&config("b", "http://a:1", "a=http://a:1", "t")).unwrap_err().to_string();
        assert_eq!(error, "couldn't find local name \"b\" in the initial cluster configuration");
    }

    #[test]
    fn peer_urls_must_be_the_same_in_both_flags() {
        let error = |advertise, cluster| {
            InitialCluster::from_config(&config("a", advertise, cluster, "t")).unwrap_err().to_string()
        };
        assert_eq!(
            error("http://a:1", "a=http://a:2"),
            "--initial-cluster has a=http://a:2 but missing from --initial-advertise-peer-urls=http://a:1"
        );
        assert_eq!(
            error("http://a:1,http://a:2", "a=http://a:1"),
            "--initial-advertise-peer-urls has http://a:2 but missing from --initial-cluster for a"
        );
        assert_eq!(error("http://a:1", "a=http://a:1,b=http://a:1"), "--initial-cluster has the URL http://a:1 twice");
    }

    #[test]
    fn ids_are_made_of_the_texts_in_initial_cluster_however_addresses_are_spelled_elsewhere() {
        let names = |host: &str| match host {
            "node1" => Ok(vec!["10.0.0.1".parse().unwrap()]),
            _ => Err(io::Error::other("no such host")),
        };
        let compared = |advertise, cluster| {
            let mut comparison = Comparison::asking(names, Duration::ZERO, Duration::ZERO);
            InitialCluster::compared(&config("a", advertise, cluster, "t"), &mut comparison)
        };
        let two = "a=http://node1:1,a=http://[::1]:2,b=http://unknown:1";
        let first = compared("http://node1:1,http://[::1]:2", two).unwrap();
        assert_eq!(compared("http://[0:0::1]:2,http://10.0.0.1:1", two).unwrap(), first);
        let respelled = compared("http://node1:1", "a=http://10.0.0.1:1").unwrap();
        assert_ne!(respelled.member_id, compared("http://node1:1", "a=http://node1:1").unwrap().member_id);
        assert_eq!(
            compared("http://10.0.0.1:1", "a=http://unknown:1").unwrap_err().to_string(),
            "--initial-cluster has a=http://unknown:1 but missing from --initial-advertise-peer-urls=http://10.0.0.1:1 \
             (failed to resolve \"unknown\" within 0ns: no such host)"
        );
    }

    #[test]
    fn a_part_without_a_name_is_refused() {
        assert!(Vec::<(String, Url)>::parse("=http://a:1").is_err());
        assert!(Vec::<(String, Url)>::parse("http://a:1").is_err());
        assert!(Vec::<(String, Url)>::parse("a=").is_err());
    }
}

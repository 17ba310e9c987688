//! What a member that joins a running cluster has to learn before it starts.
//!
//! It was added to the cluster before, by its peer URLs. From any member that answers it learns the cluster's id, its own
//! id, and the members that the cluster began with: with these it starts as those did, and reads the log from the
//! beginning, or gets a snapshot if the log was cut.

use std::collections::BTreeMap;

use cairn_proto::{
    etcdserverpb::Member,
    peer::{MembersRequest, MembersResponse, peer_client::PeerClient},
};
use prost::Message;

use super::dial::Dialer;
use crate::{
    config::{Comparison, Config, Url},
    node::identity::{Identity, Origin},
};

/// Why a member cannot join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// None of the others can be asked.
    #[error(
        "could not fetch the cluster's members from any of the peer URLs in --initial-cluster, which \
         --initial-cluster-state=existing needs: {0}"
    )]
    NoneAnswers(String),
    /// The members are others than the flags say.
    #[error("--initial-cluster does not name the cluster's members: {0}")]
    OtherMembers(String),
    /// The answering member does not know what the cluster began with.
    #[error(
        "the member that answers does not know the members that the cluster began with; start it with a newer version first"
    )]
    NoBeginning,
}

/// Asks the other members of `config` who the members are.
///
/// # Errors
/// None of them answers.
pub async fn learn(config: &Config, dialer: &Dialer) -> Result<MembersResponse, JoinError> {
    let mut failed = "there is no other member in it".to_owned();
    for (name, url) in config.initial_cluster() {
        if name == config.name {
            continue;
        }
        match ask(dialer, &url.to_string()).await {
            Ok(response) => return Ok(response),
            Err(reason) => failed = reason,
        }
    }
    Err(JoinError::NoneAnswers(failed))
}

async fn ask(dialer: &Dialer, url: &str) -> Result<MembersResponse, String> {
    let channel = dialer.connect(&[url.to_owned()]).await.map_err(|error| error.to_string())?;
    let answer = tokio::time::timeout(super::HELLO_TIMEOUT, PeerClient::new(channel).members(MembersRequest {})).await;
    match answer {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(format!("{url}: {}", status.message())),
        Err(_) => Err(format!("{url} did not answer in time")),
    }
}

/// What `response` says about the member that `config` describes. Blocks while host names are resolved, if the flags
/// and the cluster spell peer URLs in two ways.
///
/// # Errors
/// The flags name other members than the cluster has.
pub fn origin(config: &Config, response: &MembersResponse) -> Result<Origin, JoinError> {
    compared(config, response, &mut Comparison::new())
}

fn compared(config: &Config, response: &MembersResponse, comparison: &mut Comparison) -> Result<Origin, JoinError> {
    let decode = |members: &[bytes::Bytes]| {
        members.iter().map(|member| Member::decode(&member[..])).collect::<Result<Vec<_>, _>>()
    };
    let other = |reason: String| JoinError::OtherMembers(reason);
    let bad = |error: prost::DecodeError| JoinError::NoneAnswers(format!("an answer does not decode: {error}"));
    let (members, initial) = (decode(&response.members).map_err(bad)?, decode(&response.initial).map_err(bad)?);

    let mut listed: BTreeMap<String, Vec<Url>> = BTreeMap::new();
    for (name, url) in config.initial_cluster() {
        listed.entry(name).or_default().push(url);
    }
    if listed.len() != members.len() {
        return Err(other(format!("it has {}, the cluster has {}", listed.len(), members.len())));
    }
    let mut own = None;
    // Those of one text first, so that no question is asked about their hosts.
    let mut open: Vec<(u64, Vec<Url>)> = members.iter().map(|member| (member.id, parsed(&member.peer_urls))).collect();
    for urls in listed.values_mut() {
        urls.sort();
        urls.dedup();
    }
    let (alike, spelled): (Vec<_>, Vec<_>) =
        listed.iter().partition(|(_, urls)| open.iter().any(|(_, known)| known == *urls));
    for (name, urls) in alike.into_iter().chain(spelled) {
        let mut failed = String::new();
        let found = open.iter().position(|(_, known)| {
            comparison.same(urls, known).unwrap_or_else(|reason| {
                failed = format!(" ({reason})");
                false
            })
        });
        let Some(index) = found else {
            let urls: Vec<_> = urls.iter().map(Url::to_string).collect();
            return Err(other(format!("no member is reached at {name}={}{failed}", urls.join(","))));
        };
        let (id, _) = open.swap_remove(index);
        if *name == config.name {
            own = Some(id);
        }
    }
    let own = own.ok_or_else(|| other(format!("{:?} is not in it; check --name", config.name)))?;
    if initial.is_empty() {
        return Err(JoinError::NoBeginning);
    }
    Ok(Origin { identity: Identity { member: own, cluster: response.cluster_id }, members: initial })
}

/// The URLs of a member, sorted. One that cannot be parsed equals none that is given.
fn parsed(texts: &[String]) -> Vec<Url> {
    let mut urls: Vec<Url> = texts.iter().filter_map(|text| Url::parse(text).ok()).collect();
    urls.sort();
    urls
}

#[cfg(test)]
mod tests {
    use std::{io, time::Duration};

    use super::*;

    fn response(members: &[(u64, &[&str])]) -> MembersResponse {
        let member = |(id, urls): &(u64, &[&str])| {
            let peer_urls = urls.iter().map(|&url| url.to_owned()).collect();
            Member { id: *id, peer_urls, ..Member::default() }.encode_to_vec().into()
        };
        let members: Vec<bytes::Bytes> = members.iter().map(member).collect();
        MembersResponse { cluster_id: 7, initial: members.clone(), members, ..MembersResponse::default() }
    }

    fn joined(cluster: &str, members: &[(u64, &[&str])]) -> Result<u64, String> {
        let parts = cluster.split(',').map(|part| part.split_once('=').unwrap());
        let initial_cluster = parts.map(|(name, url)| (name.to_owned(), Url::parse(url).unwrap())).collect();
        let config = Config { name: "own".to_owned(), initial_cluster, ..Config::default() };
        let names = |host: &str| match host {
            "node1" => Ok(vec!["10.0.0.1".parse().unwrap()]),
            _ => Err(io::Error::other("no such host")),
        };
        let mut comparison = Comparison::asking(names, Duration::ZERO, Duration::ZERO);
        let origin = compared(&config, &response(members), &mut comparison);
        origin.map(|origin| origin.identity.member).map_err(|error| error.to_string())
    }

    #[test]
    fn a_member_finds_itself_however_its_urls_are_spelled() {
        let members: &[(u64, &[&str])] = &[(1, &["http://unknown:1"]), (2, &["http://10.0.0.1:1", "http://[::1]:1"])];
        let others = "other=http://unknown:1";
        for own in [
            "own=http://10.0.0.1:1,own=http://[::1]:1",
            "own=http://[::1]:1,own=http://10.0.0.1:1",
            "own=http://[0:0::1]:1,own=http://node1:1",
        ] {
            assert_eq!(joined(&format!("{own},{others}"), members), Ok(2), "{own}");
            assert_eq!(joined(&format!("{others},{own}"), members), Ok(2), "{own}");
        }
    }

    #[test]
    fn a_cluster_of_other_members_is_not_joined() {
        let members: &[(u64, &[&str])] = &[(1, &["http://10.0.0.2:1"]), (2, &["http://10.0.0.1:1"])];
        for (cluster, reason) in [
            ("own=http://10.0.0.1:1", "it has 1, the cluster has 2"),
            ("own=http://10.0.0.1:1,other=http://10.0.0.3:1", "no member is reached at other=http://10.0.0.3:1"),
            ("own=http://10.0.0.1:1,other=http://gone:1", "http://gone:1 (failed to resolve \"gone\" within 0ns"),
            ("own=http://10.0.0.1:1,other=http://node1:1", "no member is reached at other=http://node1:1"),
            ("a=http://10.0.0.1:1,b=http://10.0.0.2:1", "\"own\" is not in it"),
        ] {
            let error = joined(cluster, members).unwrap_err();
            assert!(error.contains(reason), "{cluster}: {error}");
        }
    }
}

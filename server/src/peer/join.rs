//! What a member that joins a running cluster has to learn before it starts.
//!
//! It was added to the cluster before, by its peer URLs. From any member that answers it learns the cluster's id, its own
//! id, and the members that the cluster began with: with these it starts as those did, and reads the log from the
//! beginning, or gets a snapshot if the log was cut.

use std::collections::BTreeSet;

use cairn_proto::{
    etcdserverpb::Member,
    peer::{MembersRequest, MembersResponse, peer_client::PeerClient},
};
use prost::Message;

use super::dial::Dialer;
use crate::{
    config::Config,
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

/// Asks the other members of `config` who they are, and who this one is.
///
/// # Errors
/// If nobody answers, or the flags name other members than the cluster has.
pub async fn learn(config: &Config, dialer: &Dialer) -> Result<Origin, JoinError> {
    let mut failed = "there is no other member in it".to_owned();
    for (name, url) in config.initial_cluster() {
        if name == config.name {
            continue;
        }
        match ask(dialer, &url.to_string()).await {
            Ok(response) => return origin(config, &response),
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

/// What `response` says about the member that `config` describes.
fn origin(config: &Config, response: &MembersResponse) -> Result<Origin, JoinError> {
    let decode = |members: &[bytes::Bytes]| {
        members.iter().map(|member| Member::decode(&member[..])).collect::<Result<Vec<_>, _>>()
    };
    let other = |reason: String| JoinError::OtherMembers(reason);
    let bad = |error: prost::DecodeError| JoinError::NoneAnswers(format!("an answer does not decode: {error}"));
    let (members, initial) = (decode(&response.members).map_err(bad)?, decode(&response.initial).map_err(bad)?);

    let mut listed: std::collections::BTreeMap<String, BTreeSet<String>> = std::collections::BTreeMap::new();
    for (name, url) in config.initial_cluster() {
        listed.entry(name).or_default().insert(url.to_string());
    }
    if listed.len() != members.len() {
        return Err(other(format!("it has {}, the cluster has {}", listed.len(), members.len())));
    }
    let of = |urls: &BTreeSet<String>| {
        members.iter().find(|member| member.peer_urls.iter().collect::<BTreeSet<_>>() == urls.iter().collect())
    };
    for (name, urls) in &listed {
        if of(urls).is_none() {
            let urls: Vec<_> = urls.iter().cloned().collect();
            return Err(other(format!("no member is reached at {name}={}", urls.join(","))));
        }
    }
    let own = listed
        .get(&config.name)
        .and_then(of)
        .ok_or_else(|| other(format!("{:?} is not in it; check --name", config.name)))?;
    if initial.is_empty() {
        return Err(JoinError::NoBeginning);
    }
    Ok(Origin { identity: Identity { member: own.id, cluster: response.cluster_id }, members: initial })
}

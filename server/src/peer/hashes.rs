//! Hashes of another member's keys, for a comparison with this one's.
//!
//! Asked on a connection of its own: the answer may take as long as reading everything does.

use std::time::Duration;

use cairn_proto::{
    ApiError,
    peer::{HashRequest, HashResponse, peer_client::PeerClient},
};
use tonic::Status;

use super::{dial::DialError, registry::Peers};
use crate::{
    node::{ReplicaView, StoreMaintenance},
    state::mvcc::KvHash,
};

/// What is asked of another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashQuestion {
    /// The revision up to which keys are hashed.
    pub revision: i64,
    /// The compacted revision as of which they are, -1 for none.
    pub compacted: i64,
    /// The hash that the compaction to `revision` has left behind is meant; it is not computed.
    pub remembered: bool,
    /// The other member is first to apply what was acknowledged before.
    pub settled: bool,
}

/// What another member answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HashTold {
    /// Its revision when it was asked.
    pub revision: i64,
    /// Its compacted revision then, -1 for none.
    pub compacted: i64,
    /// The hash; `None` if it is not at the revision yet, has compacted further, or does not remember.
    pub hash: Option<u32>,
}

/// Why another member did not answer.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// It cannot be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It refuses.
    #[error("it says: {}", .0.message())]
    Refused(#[from] Status),
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Silent,
    /// Somebody else is reached at its URL.
    #[error("member {0:x} answers where it should be")]
    NotWhom(u64),
}

impl Peers {
    /// Asks `member` of `node`'s cluster, which is reached at `urls`, for a hash. Needs no link to it.
    ///
    /// # Errors
    /// It does not answer, or not within `wait_max`.
    pub async fn hash(
        &self,
        node: &ReplicaView,
        (member, urls): (u64, &[String]),
        question: HashQuestion,
        wait_max: Duration,
    ) -> Result<HashTold, HashError> {
        let mut client = PeerClient::new(self.dialer().connect(urls).await?);
        let request = HashRequest {
            cluster_id: node.status().cluster_id,
            revision: question.revision,
            compact_revision: question.compacted,
            remembered: question.remembered,
            settled: question.settled,
        };
        let answer = tokio::time::timeout(wait_max, client.hash(request)).await.map_err(|_| HashError::Silent)??;
        let HashResponse { member: from, revision, compact_revision, hash } = answer.into_inner();
        if from != member {
            return Err(HashError::NotWhom(from));
        }
        Ok(HashTold { revision, compacted: compact_revision, hash })
    }
}

/// Answers another member.
///
/// # Errors
/// The question makes no sense, too many hashes are under way, or there was no read index in time.
pub(super) async fn answer(node: &StoreMaintenance, request: &HashRequest) -> Result<HashResponse, Status> {
    let HashRequest { revision, compact_revision, remembered, settled, .. } = *request;
    if revision < 1 || compact_revision < -1 || compact_revision > revision {
        return Err(Status::invalid_argument("there is no hash at such revisions"));
    }
    if settled && node.reader().revision() < revision {
        node.linearize().await.map_err(ApiError::from)?;
    }
    let told = HashResponse {
        member: node.status().member_id,
        revision: node.reader().revision(),
        compact_revision: node.reader().compacted(),
        hash: None,
    };
    let hash = if remembered {
        let all = node.reader().compaction_hashes();
        let asked = |hash: &&KvHash| (hash.hash_revision, hash.compact_revision) == (revision, compact_revision);
        all.iter().find(asked).map(|hash| hash.hash)
    } else {
        match node.hash_at(revision, Some(compact_revision)).await {
            Ok(hash) => Some(hash.hash),
            Err(ApiError::FutureRevision | ApiError::Compacted) => None,
            Err(error) => return Err(error.into()),
        }
    };
    Ok(HashResponse { hash, ..told })
}

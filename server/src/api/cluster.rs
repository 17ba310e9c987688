//! The Cluster service: who belongs to the cluster.

use std::sync::Arc;

use cairn_proto::{ApiError, etcdserverpb as pb};

use super::{Context, refusal::Refusal};

/// The Cluster service. Clones are cheap.
#[derive(Clone)]
pub struct Cluster {
    context: Arc<Context>,
}

impl Cluster {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    /// The replicated version of the cluster's API, `not_decided` while a new cluster has none.
    pub fn version(&self) -> String {
        (*self.context.node.cluster_version()).clone().unwrap_or_else(|| "not_decided".to_owned())
    }

    /// The members, by id. The header has no revision.
    pub async fn member_list(&self, request: pb::MemberListRequest) -> Result<pb::MemberListResponse, Refusal> {
        if request.linearizable {
            self.context.node.linearize().await.map_err(ApiError::from)?;
        }
        let members = self.context.node.members().members.values().cloned().collect();
        Ok(pb::MemberListResponse { header: Some(self.context.header(0).into()), members })
    }
}

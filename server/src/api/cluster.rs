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

    /// The members, by id. The header has no revision.
    pub async fn member_list(&self, request: pb::MemberListRequest) -> Result<pb::MemberListResponse, Refusal> {
        if request.linearizable {
            self.context.node.linearize().await.map_err(ApiError::from)?;
        }
        let members = self.context.node.members().members.values().cloned().collect();
        Ok(pb::MemberListResponse { header: Some(self.context.header(0).into()), members })
    }
}

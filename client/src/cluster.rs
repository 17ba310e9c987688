//! Membership.

use cairn_proto::etcdserverpb as pb;

use crate::{client::Client, endpoint::Endpoint, error::Error, tls::TlsError};

/// A client could not take its endpoints from the member list, and keeps those it has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SyncError {
    /// The member list did not come.
    #[error(transparent)]
    Request(#[from] Error),
    /// No member that serves tells where clients reach it, in a way this client understands.
    #[error("no member of the cluster names an address that this client can use")]
    NoEndpoint,
    /// A member's address cannot be used with TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Client {
    /// All members, as the cluster knows them.
    ///
    /// For what one member believes, which needs no leader, [`call`](Client::call) with `linearizable: false`.
    pub async fn member_list(&self) -> Result<pb::MemberListResponse, Error> {
        self.call(pb::MemberListRequest { linearizable: true }).await
    }

    /// Asks for the members and uses their client URLs as endpoints from now on, in this client and all its clones; returns
    /// them. Do so from time to time in a cluster whose members come and go.
    ///
    /// Members that have not started yet and learners, which answer no linearizable requests, are left out, and so are URLs
    /// of a kind that the client has no way to. Requests and watches under way go on. An [`EndpointClient`] keeps its
    /// endpoint, and a client of a service of its own process keeps that.
    ///
    /// [`EndpointClient`]: crate::EndpointClient
    pub async fn sync_endpoints(&self) -> Result<Vec<Endpoint>, SyncError> {
        let members = self.member_list().await?.members;
        let serving = members.into_iter().filter(|member| !member.name.is_empty() && !member.is_learner);
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for endpoint in serving.flat_map(|member| member.client_urls).filter_map(|url| url.parse().ok()) {
            if !endpoints.contains(&endpoint) {
                endpoints.push(endpoint);
            }
        }
        if endpoints.is_empty() {
            return Err(SyncError::NoEndpoint);
        }
        self.replace_endpoints(endpoints)?;
        Ok(self.endpoints())
    }
}

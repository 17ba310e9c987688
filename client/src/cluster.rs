//! Membership.

use cairn_proto::etcdserverpb as pb;

use crate::{client::Client, error::Error};

impl Client {
    /// All members, as the cluster knows them.
    ///
    /// For what one member believes, which needs no leader, [`call`](Client::call) with `linearizable: false`.
    pub async fn member_list(&self) -> Result<pb::MemberListResponse, Error> {
        self.call(pb::MemberListRequest { linearizable: true }).await
    }
}

//! The lease calls of a client.

use anyhow::Result;
use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseRevokeRequest, PutRequest,
    kv_client::KvClient, lease_client::LeaseClient,
};
use tonic::{Status, Streaming};

use super::connection::{Connection, Requests};

/// Events that share a lease.
const EVENTS_A_LEASE: u64 = 1000;
/// Keep-alives that wait to be sent on an open stream; one is ever under way.
const KEEP_ALIVES: usize = 1;

/// An open keep-alive stream.
struct Open {
    sender: tokio::sync::mpsc::Sender<LeaseKeepAliveRequest>,
    answers: Streaming<LeaseKeepAliveResponse>,
}

/// The leases of one client.
pub struct Leases {
    client: LeaseClient<Connection>,
    kv: KvClient<Connection>,
    ttl: i64,
    /// The lease that is kept alive; 0 before it is granted.
    kept: i64,
    open: Option<Open>,
    /// The lease of what is being churned, and what is next with it.
    churned: (i64, Step),
    /// The lease that events share, and how many have it.
    shared: (i64, u64),
}

/// What is done with a lease next.
#[derive(Clone, Copy)]
enum Step {
    Grant,
    Attach,
    Revoke,
}

impl Leases {
    /// Leases of `ttl` seconds over `connection`.
    pub fn new(connection: Connection, ttl: i64) -> Self {
        Self {
            client: LeaseClient::new(connection.clone()),
            kv: KvClient::new(connection),
            ttl,
            kept: 0,
            open: None,
            churned: (0, Step::Grant),
            shared: (0, 0),
        }
    }

    /// Grants a lease whose id the server chooses.
    pub async fn grant(&mut self) -> Result<i64, Status> {
        Ok(self.client.lease_grant(LeaseGrantRequest { ttl: self.ttl, id: 0 }).await?.into_inner().id)
    }

    /// Puts a key with a lease.
    pub async fn attach(&mut self, key: Bytes, value: Bytes, lease: i64) -> Result<(), Status> {
        self.kv.put(PutRequest { key, value, lease, ..Default::default() }).await?;
        Ok(())
    }

    /// Keeps this client's lease alive, over the open stream or a new one.
    pub async fn keep_alive(&mut self, stream_a_call: bool) -> Result<(), Status> {
        if self.kept == 0 {
            self.kept = self.grant().await?;
        }
        let request = LeaseKeepAliveRequest { id: self.kept };
        let mut open = match self.open.take() {
            Some(open) => {
                open.sender.send(request).await.map_err(|_| Status::unavailable("the keep-alive stream ended"))?;
                open
            }
            None => self.open_stream(request).await?,
        };
        let answer = open.answers.message().await?;
        if answer.is_none_or(|answer| answer.ttl <= 0) {
            return Err(Status::not_found("the lease that is kept alive is gone"));
        }
        self.open = Some(open).filter(|_| !stream_a_call);
        Ok(())
    }

    /// Opens a stream with its first request: a server may answer the headers with its first message only.
    async fn open_stream(&mut self, first: LeaseKeepAliveRequest) -> Result<Open, Status> {
        let (sender, requests) = tokio::sync::mpsc::channel(KEEP_ALIVES);
        sender.try_send(first).map_err(|_| Status::internal("a fresh channel is full"))?;
        let answers = self.client.lease_keep_alive(Requests(requests)).await?.into_inner();
        Ok(Open { sender, answers })
    }

    /// The next of: grant a lease, put a key with it, revoke it. Returns which it was.
    pub async fn churn(&mut self, key: Bytes, value: Bytes) -> Result<&'static str, Status> {
        let (lease, step) = self.churned;
        match step {
            Step::Grant => {
                self.churned = (self.grant().await?, Step::Attach);
                Ok("grant")
            }
            Step::Attach => {
                self.churned = (lease, Step::Revoke);
                self.attach(key, value, lease).await?;
                Ok("attach")
            }
            Step::Revoke => {
                self.churned = (0, Step::Grant);
                self.client.lease_revoke(LeaseRevokeRequest { id: lease }).await?;
                Ok("revoke")
            }
        }
    }

    /// Revokes the lease of what is being churned, if there is one.
    pub async fn end_churn(&mut self) -> Result<(), Status> {
        let (lease, _) = std::mem::replace(&mut self.churned, (0, Step::Grant));
        if lease != 0 {
            self.client.lease_revoke(LeaseRevokeRequest { id: lease }).await?;
        }
        Ok(())
    }

    /// Puts an event with the lease that events share.
    pub async fn put_event(&mut self, key: Bytes, value: Bytes) -> Result<(), Status> {
        if self.shared.1.is_multiple_of(EVENTS_A_LEASE) {
            self.shared.0 = self.grant().await?;
        }
        self.shared.1 += 1;
        self.attach(key, value, self.shared.0).await
    }
}

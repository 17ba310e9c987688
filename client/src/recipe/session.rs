//! A lease that stands for this process being alive.

use std::future::Future;

use super::RecipeError;
use crate::{
    client::Client,
    error::Error,
    lease::{KeepAlive, LeaseLost},
};

/// A lease that is kept alive while this exists. Keys attached to it say that their owner lives.
///
/// Dropping a session stops the renewals, and its keys go when the time to live has passed; [`close`](Self::close) deletes
/// them at once.
#[derive(Debug)]
pub struct Session {
    client: Client,
    lease: KeepAlive,
}

impl Session {
    /// Grants a lease of `ttl` seconds and keeps it alive.
    pub async fn start(client: &Client, ttl: i64) -> Result<Self, Error> {
        let granted = client.lease_grant(ttl, 0).await?;
        Ok(Self { client: client.clone(), lease: client.keep_alive(granted.id) })
    }

    /// The lease.
    pub fn lease(&self) -> i64 {
        self.lease.id()
    }

    /// Whose session it is.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Waits until the lease is lost.
    pub async fn lost(&self) -> LeaseLost {
        self.lease.lost().await
    }

    /// Ends the session and deletes its keys.
    pub async fn close(self) -> Result<(), Error> {
        let (client, id) = (self.client.clone(), self.lease());
        drop(self);
        client.lease_revoke(id).await.map(drop)
    }

    /// Does `work` for as long as the lease lasts.
    pub(super) async fn alive<T>(&self, work: impl Future<Output = Result<T, RecipeError>>) -> Result<T, RecipeError> {
        tokio::select! {
            done = work => done,
            lost = self.lost() => Err(lost.into()),
        }
    }
}

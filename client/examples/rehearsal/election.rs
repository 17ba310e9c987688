//! Leadership as a key with a lease; its creation revision guards every write of the leader.

use std::time::Duration;

use cairn_client::{Compare, proto::etcdserverpb as pb};
use tokio::task::JoinHandle;

use super::{
    Result, World,
    registry::{Written, fields},
};

/// Seconds until the leadership of somebody silent is over.
const TERM_TTL: i64 = 3;
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// A leadership, from its election on.
pub struct Term {
    pub key: String,
    /// The revision at which the key was created: rises from term to term.
    pub revision: i64,
    keeping: JoinHandle<()>,
}

impl Term {
    /// Holds as long as nobody else was elected and the lease lives.
    pub fn holds(&self) -> Compare {
        Compare::create_revision(self.key.clone()).equal_to(self.revision)
    }

    /// Falls silent, as a process does that hangs: the lease is not kept alive any more.
    pub fn fall_silent(&self) {
        self.keeping.abort();
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// Waits to be elected.
pub async fn campaign(world: &World, name: &str, identity: &str) -> Result<Term> {
    let registry = &world.registry;
    let key = format!("/registry/leases/kube-system/{name}");
    let granted = registry.lease.clone().lease_grant(pb::LeaseGrantRequest { ttl: TERM_TTL, id: 0 }).await?;
    let lease = granted.into_inner().id;
    let keeping = tokio::spawn(keep_alive(registry.lease.clone(), lease));
    loop {
        let claim = fields([("holder", identity)]);
        if let Written::At(revision) = registry.create(None, &key, &claim, lease, None).await? {
            world.audit.terms.add();
            return Ok(Term { key, revision, keeping });
        }
        let Some(holder) = registry.get(&key).await? else { continue };
        let mut answers = registry.watch(&key, holder.mod_revision + 1).await?;
        // The holder only creates and loses the key: the next event is its end.
        while answers.message().await?.is_some_and(|answer| answer.events.is_empty() && !answer.canceled) {}
    }
}

/// Keeps a lease until the task is aborted or the lease is gone.
async fn keep_alive(mut client: pb::lease_client::LeaseClient<tonic::transport::Channel>, lease: i64) {
    let (sender, requests) = tokio::sync::mpsc::channel(1);
    let request = pb::LeaseKeepAliveRequest { id: lease };
    // On its way before the stream is opened: a server may answer the headers with its first message only.
    let _ = sender.try_send(request);
    let requests = tokio_stream::wrappers::ReceiverStream::new(requests);
    let Ok(answers) = client.lease_keep_alive(requests).await else { return };
    let mut answers = answers.into_inner();
    loop {
        let kept = answers.message().await.ok().flatten().is_some_and(|answer| answer.ttl > 0);
        if !kept {
            return;
        }
        tokio::time::sleep(KEEP_ALIVE).await;
        if sender.send(request).await.is_err() {
            return;
        }
    }
}

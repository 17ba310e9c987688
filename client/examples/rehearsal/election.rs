//! Leadership as a key with a lease; its creation revision guards every write of the leader.

use std::sync::{Mutex, PoisonError};

use cairn_client::{Compare, KeepAlive};

use super::{
    Result, World,
    registry::{Written, fields},
};

/// Seconds until the leadership of somebody silent is over.
const TERM_TTL: i64 = 3;

/// A leadership, from its election on.
pub struct Term {
    pub key: String,
    /// The revision at which the key was created: rises from term to term.
    pub revision: i64,
    /// None once it has fallen silent.
    keeping: Mutex<Option<KeepAlive>>,
}

impl Term {
    /// Holds as long as nobody else was elected and the lease lives.
    pub fn holds(&self) -> Compare {
        Compare::create_revision(self.key.clone()).equal_to(self.revision)
    }

    /// Falls silent, as a process does that hangs: the lease is not kept alive any more.
    pub fn fall_silent(&self) {
        *self.keeping.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Waits to be elected.
pub async fn campaign(world: &World, name: &str, identity: &str) -> Result<Term> {
    let registry = &world.registry;
    let key = format!("/registry/leases/kube-system/{name}");
    let lease = registry.client.lease_grant(TERM_TTL, 0).await?.id;
    let keeping = registry.client.keep_alive(lease);
    loop {
        let claim = fields([("holder", identity)]);
        if let Written::At(revision) = registry.create(None, &key, &claim, lease, None).await? {
            world.audit.terms.add();
            return Ok(Term { key, revision, keeping: Mutex::new(Some(keeping)) });
        }
        let Some(holder) = registry.get(&key).await? else { continue };
        let mut watcher = registry.watch(&key, holder.mod_revision + 1).await?;
        // The holder only creates and loses the key: the next event is its end.
        while watcher.next().await?.is_progress() {}
    }
}

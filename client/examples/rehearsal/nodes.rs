//! Nodes: each keeps a Lease object fresh. Nobody else writes it, so its compare-and-swap never conflicts and its version counts the heartbeats.

use std::{sync::Arc, time::Instant};

use tokio::task::JoinHandle;

use super::{
    Result, World,
    registry::{Object, Written, fields},
};

const LEASES: &str = "/registry/leases/kube-node-lease/";

/// What a node did: the key of its Lease object, and how often it wrote it.
type Heartbeats = JoinHandle<Result<(String, i64)>>;

/// Registers the nodes and starts their heartbeats, spread over the interval.
pub async fn start(world: &Arc<World>) -> Result<Vec<Heartbeats>> {
    let mut all = Vec::new();
    for number in 0..world.options.nodes {
        let name = format!("node-{number:05}");
        let ready = fields([("ready", "true")]);
        world.registry.create(None, &format!("/registry/minions/{name}"), &ready, 0, None).await?;
        let delay = world.options.heartbeat.mul_f64(number as f64 / world.options.nodes as f64);
        all.push(tokio::spawn(beat(world.clone(), format!("{LEASES}{name}"), Instant::now() + delay)));
    }
    Ok(all)
}

async fn beat(world: Arc<World>, key: String, mut due: Instant) -> Result<(String, i64)> {
    let mut lease = Object { key, fields: fields([("renewed", "0")]), create_revision: 0, mod_revision: 0, version: 0 };
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = world.stopped() => return Ok((lease.key, lease.version)),
        }
        let renewed = lease.with("renewed", &(lease.version + 1).to_string());
        let written = if lease.version == 0 {
            world.registry.create(None, &lease.key, &renewed, 0, None).await?
        } else {
            world.registry.update(None, &lease, &renewed).await?
        };
        let Written::At(revision) = written else {
            return Err(format!("{} was written by somebody else", lease.key).into());
        };
        (lease.mod_revision, lease.version, lease.fields) = (revision, lease.version + 1, renewed);
        world.audit.heartbeats.add();
        world.audit.heartbeat_max_ms.raise(due.elapsed().as_millis() as u64);
        due += world.options.heartbeat;
    }
}

/// Waits for the nodes to stop and compares what they did with what is stored.
pub async fn settle(world: &World, all: Vec<Heartbeats>) -> Result<()> {
    let stored = world.registry.list(LEASES).await?.0;
    let version = |key: &str| stored.iter().find(|object| object.key == key).map_or(0, |object| object.version);
    for node in all {
        match node.await? {
            Ok((key, beats)) => {
                let version = version(&key);
                world.audit.expect(version == beats, || format!("{key}: {beats} heartbeats, stored {version}"));
            }
            Err(error) => world.audit.expect(false, || error.to_string()),
        }
    }
    Ok(())
}

//! Users: each has a namespace, fills it, rolls a replica set over to the next one, deletes the namespace, and starts over.

use std::{sync::Arc, time::Instant};

use super::{
    Result, World,
    registry::{Written, fields},
};

/// Configurations in a namespace.
const CONFIGURATIONS: usize = 20;

/// Has all users work until the time is over and what they began is finished.
pub async fn work(world: &Arc<World>) -> Result<()> {
    let end = Instant::now() + world.options.run;
    let users: Vec<_> = (0..world.options.namespaces)
        .map(|user| {
            let world = world.clone();
            tokio::spawn(async move {
                for round in 0.. {
                    live(&world, &format!("team-{user}-{round}")).await?;
                    if Instant::now() > end {
                        break;
                    }
                }
                Result::Ok(())
            })
        })
        .collect();
    for user in users {
        user.await??;
    }
    tokio::time::sleep_until(end.into()).await;
    Ok(())
}

/// The life of one namespace.
async fn live(world: &World, namespace: &str) -> Result<()> {
    let (registry, replicas) = (&world.registry, world.options.replicas);
    let key = format!("/registry/namespaces/{namespace}");
    registry.create(None, &key, &fields([("phase", "Active")]), 0, None).await?;
    // A replica set is only served once its controller knows of the namespace.
    world.namespaces.wait_until("a namespace to appear", |all| all.contains_key(&key)).await?;
    for number in 0..CONFIGURATIONS {
        let configuration = format!("/registry/configmaps/{namespace}/config-{number}");
        registry.create(None, &configuration, &fields([("data", "rehearsed")]), 0, None).await?;
    }
    let event = format!("/registry/events/{namespace}/filled");
    registry.create(None, &event, &fields([("reason", "Filled")]), 0, None).await?;

    let (old, new) = (format!("{namespace}/web-1"), format!("{namespace}/web-2"));
    create_set(world, &old, replicas).await?;
    pods_become(world, &old, replicas).await?;
    world.rules.hold(namespace, replicas);
    create_set(world, &new, 0).await?;
    for moved in 1..=replicas {
        scale(world, &new, moved).await?;
        pods_become(world, &new, moved).await?;
        scale(world, &old, replicas - moved).await?;
        pods_become(world, &old, replicas - moved).await?;
    }
    world.rules.release(namespace);
    world.audit.rollouts.add();

    change(world, &key, "phase", "Terminating").await?;
    world.namespaces.wait_until("a namespace to go", |all| !all.contains_key(&key)).await
}

async fn create_set(world: &World, set: &str, replicas: usize) -> Result<()> {
    let key = format!("/registry/replicasets/{set}");
    world.registry.create(None, &key, &fields([("replicas", &replicas.to_string())]), 0, None).await?;
    Ok(())
}

async fn scale(world: &World, set: &str, replicas: usize) -> Result<()> {
    change(world, &format!("/registry/replicasets/{set}"), "replicas", &replicas.to_string()).await
}

/// Reads and writes until nobody is in between.
async fn change(world: &World, key: &str, field: &str, value: &str) -> Result<()> {
    loop {
        let object = world.registry.get(key).await?.ok_or_else(|| format!("{key} is gone"))?;
        if let Written::At(_) = world.registry.update(None, &object, &object.with(field, value)).await? {
            return Ok(());
        }
    }
}

/// Waits until a set has this many pods, all of them running.
async fn pods_become(world: &World, set: &str, count: usize) -> Result<()> {
    let prefix = format!("/registry/pods/{set}-");
    let what = format!("{count} running pods of {set}");
    world
        .pods
        .wait_until(&what, |pods| {
            let mut of_set = pods.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix));
            let mut running = 0;
            of_set.all(|(_, pod)| {
                running += 1;
                pod.get("phase") == "Running"
            }) && running == count
        })
        .await
}

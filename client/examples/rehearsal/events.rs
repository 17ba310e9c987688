//! Events with a lease: they live as long as it, and go by themselves.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinHandle;

use super::{
    Result, World,
    informer::{Change, Informer},
    registry::fields,
};

const EVENTS: &str = "/registry/events/default/";
const EVERY: Duration = Duration::from_millis(20);
/// A lease is shared by the events of this part of its life, so that there are fewer leases than events.
const SHARED: u32 = 4;

/// The writer and the copy of what it wrote.
pub struct Events {
    writer: JoinHandle<Result<()>>,
    copy: Informer,
}

/// Starts writing events.
pub async fn start(world: &Arc<World>) -> Result<Events> {
    let (began, ttl_ms) = (Instant::now(), world.options.event_ttl as u128 * 1000);
    let audit = world.audit.clone();
    let check = move |change: &Change| {
        let (Some(event), None) = (&change.old, &change.new) else { return };
        audit.expired.add();
        let granted: u128 = event.get("granted").parse().unwrap_or(u128::MAX);
        let age_ms = began.elapsed().as_millis().saturating_sub(granted);
        audit.expect(age_ms >= ttl_ms, || format!("{} went after {age_ms} ms of {ttl_ms}", event.key));
    };
    let copy = Informer::start(world.registry.clone(), EVENTS, check).await?;
    Ok(Events { writer: tokio::spawn(write(world.clone(), began)), copy })
}

async fn write(world: Arc<World>, began: Instant) -> Result<()> {
    let ttl = world.options.event_ttl;
    let shared = Duration::from_secs(ttl as u64) / SHARED;
    let mut lease: Option<(i64, Instant)> = None;
    for number in 0u64.. {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = world.stopped() => break,
        }
        let young = lease.filter(|(_, granted)| granted.elapsed() < shared);
        let (id, granted) = if let Some(lease) = young {
            lease
        } else {
            // From before the request: the lease cannot have begun earlier.
            let granted = Instant::now();
            (world.registry.client.lease_grant(ttl, 0).await?.id, granted)
        };
        lease = Some((id, granted));
        let since = granted.duration_since(began).as_millis().to_string();
        let event = fields([("granted", &since), ("reason", "Rehearsed")]);
        world.registry.create(None, &format!("{EVENTS}event-{number:08}"), &event, id, None).await?;
        world.audit.events.add();
    }
    Ok(())
}

/// Waits until every event went.
pub async fn settle(world: &World, events: Events) -> Result<()> {
    events.writer.await??;
    events.copy.wait_until("the last event to expire", std::collections::BTreeMap::is_empty).await?;
    events.copy.settle().await?;
    let (written, expired) = (world.audit.events.get(), world.audit.expired.get());
    world.audit.expect(written == expired, || format!("{written} events were written and {expired} expired"));
    Ok(())
}

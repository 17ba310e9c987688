//! Clients that take leases, put keys on them, keep them alive and give half of them back, each at a member of its own.
//!
//! They write whenever their member answers. What it acknowledged has to hold in the end: a lease that was granted is
//! there with its key, one that was revoked is gone with it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use cairn_proto::{
    ApiError,
    etcdserverpb::{
        LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
        kv_client::KvClient, lease_client::LeaseClient,
    },
};
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Status, transport::Channel};

use crate::process::endpoint;

/// Where the keys are.
const KEYS: (&str, &str) = ("/leases/", "/leases0");
/// Longer than any run.
const TTL: i64 = 36_000;
/// Leases that each client takes at most, and the distance of their ids from those of the next one.
const LEASES_MAX: i64 = 1_000;
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between two leases.
const PAUSE: Duration = Duration::from_millis(50);

/// What is known of a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// A call about it ended without an outcome.
    Unknown,
    /// It was granted; whether it has its key is not known.
    Granted,
    /// It has its key.
    Attached,
    /// It was revoked.
    Revoked,
}

/// A lease that a client asked for.
#[derive(Debug, Clone, Copy)]
struct Taken {
    id: i64,
    fate: Fate,
}

/// Clients under way.
pub(super) struct Lessees {
    clients: Vec<JoinHandle<Result<Vec<Taken>>>>,
    stop: Arc<AtomicBool>,
}

impl Lessees {
    /// Starts one at each member.
    pub(super) fn start(urls: &[String]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (1..)
            .zip(urls)
            .map(|(number, url)| tokio::spawn(take_and_revoke(url.clone(), number * LEASES_MAX, stop.clone())));
        Self { clients: clients.collect(), stop }
    }

    /// Ends them, and checks what each of these members has. How many leases are known to be there, or gone.
    pub(super) async fn stop_and_check(self, urls: &[String]) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        let mut taken = Vec::new();
        for client in self.clients {
            taken.extend(client.await??);
        }
        for url in urls {
            let (leases, attached) = read(url).await.with_context(|| format!("read leases from {url}"))?;
            check(&taken, &leases, &attached).with_context(|| format!("leases at {url}"))?;
        }
        Ok(taken.iter().filter(|lease| lease.fate != Fate::Unknown).count())
    }
}

async fn take_and_revoke(url: String, first: i64, stop: Arc<AtomicBool>) -> Result<Vec<Taken>> {
    let channel = endpoint(url)?.connect_lazy();
    let mut taken = Vec::new();
    for id in first..first + LEASES_MAX {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let mut lease = Taken { id, fate: Fate::Unknown };
        // What has no outcome is looked at in the end; what has a wrong one is told at once.
        let ended = timeout(PATIENCE, lease.live(&channel)).await;
        taken.push(lease);
        if let Ok(Err(status)) = ended {
            let lost = ApiError::from_status(&status) == Some(ApiError::LeaseNotFound);
            ensure!(!lost, "a lease is gone that was granted: {lease:?}");
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(taken)
}

impl Taken {
    async fn live(&mut self, channel: &Channel) -> Result<(), Status> {
        let (mut leases, mut kv) = (LeaseClient::new(channel.clone()), KvClient::new(channel.clone()));
        leases.lease_grant(LeaseGrantRequest { id: self.id, ttl: TTL }).await?;
        self.fate = Fate::Granted;
        let key = format!("{}{}", KEYS.0, self.id).into();
        kv.put(PutRequest { key, lease: self.id, ..PutRequest::default() }).await?;
        self.fate = Fate::Attached;
        let ask = futures::stream::iter([LeaseKeepAliveRequest { id: self.id }]);
        let kept = leases.lease_keep_alive(ask).await?.into_inner().message().await?;
        if kept.is_some_and(|kept| kept.ttl <= 0) {
            return Err(ApiError::LeaseNotFound.into());
        }
        if self.id % 2 == 0 {
            self.fate = Fate::Unknown;
            leases.lease_revoke(LeaseRevokeRequest { id: self.id }).await?;
            self.fate = Fate::Revoked;
        }
        Ok(())
    }
}

/// The leases that a member knows, and those that have keys.
async fn read(url: &str) -> Result<(BTreeSet<i64>, BTreeSet<i64>)> {
    let channel = endpoint(url)?.connect().await?;
    let (key, range_end) = (KEYS.0.into(), KEYS.1.into());
    let range = RangeRequest { key, range_end, ..RangeRequest::default() };
    let kvs = KvClient::new(channel.clone()).range(range).await?.into_inner().kvs;
    let leases = LeaseClient::new(channel).lease_leases(LeaseLeasesRequest {}).await?.into_inner().leases;
    Ok((leases.iter().map(|lease| lease.id).collect(), kvs.iter().map(|kv| kv.lease).collect()))
}

fn check(taken: &[Taken], leases: &BTreeSet<i64>, attached: &BTreeSet<i64>) -> Result<()> {
    for lease in taken {
        let (there, has_key) = (leases.contains(&lease.id), attached.contains(&lease.id));
        let right = match lease.fate {
            Fate::Unknown => there || !has_key,
            Fate::Granted => there,
            Fate::Attached => there && has_key,
            Fate::Revoked => !there && !has_key,
        };
        ensure!(right, "{lease:?}, but it is {} and has {}", state(there), if has_key { "its key" } else { "no key" });
    }
    Ok(())
}

fn state(there: bool) -> &'static str {
    if there { "there" } else { "not there" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_that_are_lost_or_come_back_and_keys_without_them_are_found() {
        for (fate, there, has_key, right) in [
            (Fate::Unknown, false, false, true),
            (Fate::Unknown, true, false, true),
            (Fate::Unknown, true, true, true),
            (Fate::Unknown, false, true, false),
            (Fate::Granted, true, false, true),
            (Fate::Granted, true, true, true),
            (Fate::Granted, false, false, false),
            (Fate::Attached, true, true, true),
            (Fate::Attached, true, false, false),
            (Fate::Attached, false, false, false),
            (Fate::Revoked, false, false, true),
            (Fate::Revoked, true, false, false),
            (Fate::Revoked, false, true, false),
        ] {
            let set = |contains: bool| contains.then_some(7).into_iter().collect();
            let checked = check(&[Taken { id: 7, fate }], &set(there), &set(has_key));
            assert_eq!(checked.is_ok(), right, "{fate:?}, there: {there}, has its key: {has_key}: {checked:?}");
        }
    }
}

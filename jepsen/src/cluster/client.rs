//! Clients that write through whatever member answers, and know exactly what they may find.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{RangeRequest, kv_client::KvClient};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::transport::Channel;

use super::DEADLINE;
use crate::{
    counting::{Found, compare_and_put, put},
    process::endpoint,
};

/// Keys of each client.
const KEYS_PER_CLIENT: usize = 4;
/// How long a client waits for an answer before it goes to another member.
const PATIENCE: Duration = Duration::from_secs(3);
/// Pause after a member did not answer.
const PAUSE: Duration = Duration::from_millis(20);

/// Clients under way.
pub(super) struct Load {
    clients: Vec<JoinHandle<Result<Client>>>,
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
}

impl Load {
    /// Starts `count` clients.
    pub(super) fn start(seed: u64, count: usize, urls: &[String]) -> Self {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let clients = (0..count)
            .map(|number| {
                let client = Client::new(number, seed, urls.to_vec());
                tokio::spawn(client.run(stop.clone(), acknowledged.clone()))
            })
            .collect();
        Self { clients, stop, acknowledged }
    }

    /// Waits until so many more writes are acknowledged.
    pub(super) async fn wait_for_writes(&self, count: u64) -> Result<()> {
        let (target, deadline) = (self.acknowledged.load(Ordering::Relaxed) + count, Instant::now() + DEADLINE);
        while self.acknowledged.load(Ordering::Relaxed) < target {
            if self.clients.iter().any(JoinHandle::is_finished) {
                bail!("a client gave up: its error is told when the load is stopped");
            }
            ensure!(Instant::now() < deadline, "no progress: writes are not acknowledged any more");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Measures how long it takes from now until enough writes are acknowledged again to know that the cluster serves:
    /// more than the clients may have had under way.
    pub(super) fn recovery(&self) -> impl Future<Output = Result<Duration>> {
        let began = Instant::now();
        let enough = self.clients.len() as u64 + 1;
        async move {
            self.wait_for_writes(enough).await?;
            Ok(began.elapsed())
        }
    }

    /// Ends all clients; gives what they know.
    pub(super) async fn stop(self) -> Result<Vec<Client>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut clients = Vec::new();
        for client in self.clients {
            clients.push(client.await??);
        }
        Ok(clients)
    }
}

/// A key as its owner knows it.
#[derive(Debug, Clone)]
struct Key {
    name: Bytes,
    /// Writes known to have taken effect.
    version: i64,
    /// The last one's value.
    value: u64,
    /// The last one's revision: writes compare with it.
    revision: i64,
    /// Values of writes upon that revision whose outcome is unknown. One of them at most can take effect.
    pending: Vec<u64>,
}

/// A client and what it knows.
pub(super) struct Client {
    keys: Vec<Key>,
    urls: Vec<String>,
    /// Which of the URLs is used.
    at: usize,
    random: StdRng,
    next: u64,
    highest_revision: i64,
    pub(super) acknowledged: u64,
    pub(super) unknown: u64,
    pub(super) unknown_applied: u64,
}

impl Client {
    fn new(number: usize, seed: u64, urls: Vec<String>) -> Self {
        let name = |key| Bytes::from(format!("/registry/cluster/{number}/{key}"));
        let key = |key| Key { name: name(key), version: 0, value: 0, revision: 0, pending: Vec::new() };
        Self {
            keys: (0..KEYS_PER_CLIENT).map(key).collect(),
            at: number % urls.len(),
            urls,
            random: StdRng::seed_from_u64(seed ^ (number as u64) << 32),
            next: 0,
            highest_revision: 0,
            acknowledged: 0,
            unknown: 0,
            unknown_applied: 0,
        }
    }

    async fn run(mut self, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) -> Result<Self> {
        while !stop.load(Ordering::Relaxed) {
            let Ok(channel) = connect(&self.urls[self.at]).await else {
                self.move_on().await;
                continue;
            };
            let mut kv = KvClient::new(channel);
            while !stop.load(Ordering::Relaxed) {
                let number = self.random.random_range(0..self.keys.len());
                if !self.write(&mut kv, number).await? {
                    self.move_on().await;
                    break;
                }
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(self)
    }

    async fn move_on(&mut self) {
        self.at = (self.at + 1) % self.urls.len();
        tokio::time::sleep(PAUSE).await;
    }

    /// Writes to a key. `false`: there was no answer, or none that tells anything.
    async fn write(&mut self, kv: &mut KvClient<Channel>, number: usize) -> Result<bool> {
        self.next += 1;
        let next = self.next;
        let key = &self.keys[number];
        let put = put(&key.name, next, self.random.random_range(0..300));
        let request = compare_and_put(put, key.revision);
        self.keys[number].pending.push(next);
        let Ok(Ok(answer)) = timeout(PATIENCE, kv.txn(request)).await else {
            self.unknown += 1;
            return Ok(false);
        };
        let answer = answer.into_inner();
        self.see(answer.header.as_ref().map_or(0, |header| header.revision))?;
        let key = &mut self.keys[number];
        if answer.succeeded {
            let revision = answer.header.context("an answer without a header")?.revision;
            ensure!(revision > key.revision, "a write was acknowledged at revision {revision}, not after {key:?}");
            // Whatever was pending compares with a revision that the key has no more.
            *key = Key { version: key.version + 1, value: next, revision, pending: Vec::new(), name: key.name.clone() };
            self.acknowledged += 1;
            return Ok(true);
        }
        // This one did not take effect, so one of those before it must have.
        key.pending.retain(|&pending| pending != next);
        settle(key, Found::of_refused(&answer)?)?;
        self.unknown_applied += 1;
        Ok(true)
    }

    fn see(&mut self, revision: i64) -> Result<()> {
        let highest = self.highest_revision;
        ensure!(revision >= highest, "the revision went back from {highest} to {revision}");
        self.highest_revision = revision;
        Ok(())
    }

    /// Whether a member has every key as it must be.
    pub(super) async fn check(&self, url: &str) -> Result<()> {
        let mut kv = KvClient::new(connect(url).await?);
        for key in &self.keys {
            let request = RangeRequest { key: key.name.clone(), ..Default::default() };
            let answer = kv.range(request).await?.into_inner();
            let revision = answer.header.context("an answer without a header")?.revision;
            ensure!(
                revision >= self.highest_revision,
                "the revision went back from {} to {revision}",
                self.highest_revision
            );
            let found = Found::of(&answer)?;
            let as_known = Found { version: key.version, value: key.value, revision: key.revision };
            if found != as_known {
                settle(&mut key.clone(), found)?;
            }
        }
        Ok(())
    }
}

async fn connect(url: &str) -> Result<Channel> {
    Ok(endpoint(url)?.connect().await?)
}

/// A pending write turned out to have taken effect: exactly one, exactly once.
fn settle(key: &mut Key, found: Found) -> Result<()> {
    ensure!(
        found.version == key.version + 1 && key.pending.contains(&found.value) && found.revision > key.revision,
        "{found:?} found where {key:?} is known"
    );
    (key.version, key.value, key.revision) = (found.version, found.value, found.revision);
    key.pending.clear();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_that_falls_is_found() {
        let mut client = Client::new(0, 1, vec![String::new()]);
        client.see(7).expect("the first");
        client.see(7).expect("the same");
        assert!(client.see(6).expect_err("it fell").to_string().contains("from 7 to 6"));
    }

    #[test]
    fn writes_that_are_lost_applied_twice_or_foreign_are_found() {
        // Acknowledged: version 2 of value 5 at revision 9. Values 6 and 7 were sent, and no answer came.
        let key = Key { name: "k".into(), version: 2, value: 5, revision: 9, pending: vec![6, 7] };
        let found = |version, value, revision| Found { version, value, revision };
        for value in [6, 7] {
            settle(&mut key.clone(), found(3, value, 12)).expect("one of those under way took effect");
        }
        for (wrong, what) in [
            (found(0, 0, 0), "the key is gone"),
            (found(1, 4, 8), "the acknowledged write is lost"),
            (found(4, 7, 12), "a write was applied twice, or both that exclude each other"),
            (found(3, 8, 12), "a value that was never sent"),
            (found(3, 6, 9), "a write at the revision of another one"),
        ] {
            assert!(settle(&mut key.clone(), wrong).is_err(), "{what}");
        }
    }
}

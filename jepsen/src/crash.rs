//! The crash test: a real server killed without warning under load, again and again, on one data directory.
//!
//! Each client owns a few keys and writes rising numbers to them, one request at a time; some writes are compare-and-put transactions. After each kill
//! and restart it is checked that
//! * no acknowledged write is lost: a key holds the last acknowledged value, or the one that was under way when the server died;
//! * none is applied twice: a key's version is the number of writes that took effect, and the store's revision is one plus all of them together;
//! * the revision never goes back, and every write of the round can still be read at the revision that acknowledged it.
//!
//! `kill -9` keeps the page cache, so it proves nothing about fsync. With [`Plan::cut_to_synced`] the raft log is cut back, before each restart, to
//! what its last completed fdatasync covered, and the store to its last flush, as a power failure may do.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{RangeRequest, kv_client::KvClient};
use cairn_server::{
    log::{Unsynced, cut_back},
    store::cut_back as cut_store_back,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::{
    counting::{Found, compare_and_put, put},
    process::Member,
};

/// Keys of each client.
const KEYS_PER_CLIENT: usize = 4;
/// Environment variable that makes the server record what each fdatasync of its log covered.
const RECORD_SYNCED: &str = "CAIRN_TEST_RECORD_SYNCED";

/// Flags with which the store is flushed, and the log purged, several times between two kills: flushes are 50 heartbeats apart at least.
const FLUSH_OFTEN: [&str; 3] = ["--snapshot-count=200", "--heartbeat-interval=1", "--election-timeout=20"];

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub cairn: PathBuf,
    /// Seed of the kill times.
    pub seed: u64,
    /// Kills.
    pub rounds: usize,
    /// Concurrent clients.
    pub clients: usize,
    /// Whether the log is cut back to its last completed fdatasync, and the store to its last flush, before each restart.
    pub cut_to_synced: bool,
}

/// What a run saw.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Kills survived.
    pub rounds: usize,
    /// Acknowledged writes.
    pub acknowledged: u64,
    /// Writes under way at a kill that took effect.
    pub unknown_applied: u64,
    /// Writes under way at a kill that did not.
    pub unknown_lost: u64,
    /// Files of the log of which something was destroyed because no completed fdatasync covered it.
    pub files_cut: u64,
}

/// One key as its owner knows it.
#[derive(Debug, Clone)]
struct Key {
    name: Bytes,
    /// Writes known to have taken effect.
    version: i64,
    /// The last one's value.
    value: u64,
    /// The last one's revision.
    revision: i64,
    /// The value of a write whose answer never came.
    under_way: Option<u64>,
}

/// Runs the plan.
pub async fn run(plan: &Plan) -> Result<Summary> {
    let directory = TempDir::new().context("make a directory for the member")?;
    let mut flags = vec!["--log-level", "warn"];
    if plan.cut_to_synced {
        flags.extend(FLUSH_OFTEN);
    }
    let mut member = Member::new(&plan.cairn, directory.path(), &flags)?;
    if plan.cut_to_synced {
        member.set_env(RECORD_SYNCED, "1");
    }
    let mut random = StdRng::seed_from_u64(plan.seed);
    let mut summary = Summary::default();
    let mut clients: Vec<Vec<Key>> = (0..plan.clients).map(new_keys).collect();
    let mut highest_revision = 1;
    for round in 0..plan.rounds {
        let channel = member.start().await?;
        let context = || format!("seed {}, round {round}", plan.seed);
        check(&channel, &mut clients, highest_revision, &mut summary).await.with_context(context)?;

        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        for (number, keys) in clients.into_iter().enumerate() {
            let channel = member.connect().await?;
            tasks.push(tokio::spawn(write_until_failure(
                channel,
                keys,
                plan.seed ^ (number as u64) << 32 ^ round as u64,
                stop.clone(),
            )));
        }
        tokio::time::sleep(Duration::from_micros(random.random_range(1_000..400_000))).await;
        member.kill()?;
        stop.store(true, Ordering::Relaxed);
        clients = Vec::new();
        for task in tasks {
            let (keys, acknowledged) = task.await??;
            summary.acknowledged += acknowledged;
            highest_revision = keys.iter().map(|key| key.revision).max().unwrap_or(1).max(highest_revision);
            clients.push(keys);
        }
        if plan.cut_to_synced {
            let unsynced = Unsynced::Torn { seed: random.random() };
            let directory = member.data_dir().join("member");
            let cut = cut_back(&directory.join("wal"), unsynced).with_context(context)?;
            cut_store_back(&directory).with_context(context)?;
            summary.files_cut += cut.cut.len() as u64;
        }
        summary.rounds += 1;
    }
    let channel = member.start().await?;
    check(&channel, &mut clients, highest_revision, &mut summary).await.context("after the last round")?;
    Ok(summary)
}

fn new_keys(client: usize) -> Vec<Key> {
    let name = |number| Bytes::from(format!("/registry/crash/{client}/{number}"));
    (0..KEYS_PER_CLIENT)
        .map(|number| Key { name: name(number), version: 0, value: 0, revision: 0, under_way: None })
        .collect()
}

/// Writes until the server is gone. Returns the keys and how many writes were acknowledged.
async fn write_until_failure(
    channel: Channel,
    mut keys: Vec<Key>,
    seed: u64,
    stop: Arc<AtomicBool>,
) -> Result<(Vec<Key>, u64)> {
    let mut client = KvClient::new(channel);
    let mut random = StdRng::seed_from_u64(seed);
    let mut acknowledged = 0;
    let mut next = keys.iter().map(|key| key.value.max(key.under_way.unwrap_or(0))).max().unwrap_or(0);
    while !stop.load(Ordering::Relaxed) {
        next += 1;
        let number = random.random_range(0..keys.len());
        let key = &mut keys[number];
        key.under_way = Some(next);
        let put = put(&key.name, next, random.random_range(0..300));
        let written = if random.random_bool(0.5) {
            client.put(put).await.map(|answer| (true, answer.into_inner().header))
        } else {
            client.txn(compare_and_put(put, key.revision)).await.map(|answer| {
                let answer = answer.into_inner();
                (answer.succeeded, answer.header)
            })
        };
        match written {
            Ok((true, header)) => {
                let revision = header.context("an answer without a header")?.revision;
                ensure!(
                    revision > key.revision,
                    "a write was acknowledged at revision {revision}, not after {}",
                    key.revision
                );
                *key = Key { name: key.name.clone(), version: key.version + 1, value: next, revision, under_way: None };
                acknowledged += 1;
            }
            Ok((false, _)) => bail!("{:?} was changed by somebody else", key.name),
            Err(_) => break,
        }
    }
    Ok((keys, acknowledged))
}

/// Checks every key against what its owner knows and settles what was under way.
async fn check(
    channel: &Channel,
    clients: &mut [Vec<Key>],
    highest_revision: i64,
    summary: &mut Summary,
) -> Result<()> {
    let mut client = KvClient::new(channel.clone());
    let mut revision = 0;
    let mut applied = 0;
    for key in clients.iter_mut().flatten() {
        let answer = client.range(RangeRequest { key: key.name.clone(), ..Default::default() }).await?.into_inner();
        revision = answer.header.context("an answer without a header")?.revision;
        ensure!(
            revision >= highest_revision,
            "a write was acknowledged at revision {highest_revision}, and now the store is at {revision}"
        );
        let found = Found::of(&answer)?;
        if let Some(under_way) = key.under_way.take() {
            if found.version == key.version + 1 && found.value == under_way {
                summary.unknown_applied += 1;
                (key.version, key.value, key.revision) = (found.version, found.value, found.revision);
            } else {
                summary.unknown_lost += 1;
            }
        }
        ensure!(
            found == Found { version: key.version, value: key.value, revision: key.revision },
            "{found:?} where {key:?} was acknowledged"
        );
        applied += key.version;
        if key.revision > 0 {
            let then = RangeRequest { key: key.name.clone(), revision: key.revision, ..Default::default() };
            let then = client.range(then).await?.into_inner();
            ensure!(
                then.kvs.first().is_some_and(|kv| kv.mod_revision == key.revision),
                "{key:?} is not readable at its revision"
            );
        }
    }
    ensure!(revision == applied + 1, "revision {revision} after {applied} writes that took effect");
    Ok(())
}

//! The watch test: a real server under writers, compactions and `kill -9`, and watchers that come, go, stall and resume
//! at random revisions, several on a stream, by ids of their own choice or the server's, made and canceled while the others go
//! on. Everything they are told is held against everything that happened.
//!
//! ```text
//! writers ──▶ what took effect at which revision ──▶ History ──▶ check ◀── Session ◀── watchers
//! ```
//! Every write says in its answer at which revision it took effect. Keys also go with leases that are revoked or run out.
//! After a kill some writes are left without an answer: before anything else goes on, the revisions that nobody knows are
//! read back, by ranges and not by watches. Nothing is compacted that is not known. Each session is judged once everything
//! it was told of is known.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchRequest,
    WatchResponse, kv_client::KvClient, request_op::Request, watch_client::WatchClient,
};
use rand::{Rng, SeedableRng, rngs::StdRng};
use tempfile::TempDir;
use tokio::sync::{RwLock, mpsc};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::process::{Member, endpoint};

pub mod checker;
mod leases;
mod watcher;

use checker::{Change, History, Session};

/// Keys that are written.
const KEYS: u32 = 16;
/// How long a write may take.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A small window, so that watchers have to read the store as well, progress that is told often, and leases that may live for a second.
const FLAGS: [&str; 4] = [
    "--watch-window-bytes=65536",
    "--watch-progress-notify-interval=100ms",
    "--heartbeat-interval=50",
    "--election-timeout=500",
];
/// One transaction in so many is of large values.
const LARGE_ONE_IN: u32 = 60;
/// Bytes of each of these: with three of them and the values before, a revision is larger than an answer may be without fragments.
const LARGE_BYTES: usize = 450 << 10;
/// Keys that hold them, all written at once.
const LARGE_KEYS: u32 = 3;
/// Requests on a stream that wait to be sent.
const REQUESTS_MAX: usize = 16;
/// Who lets keys go with leases.
const LEASE_HOLDERS: usize = 2;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub cairn: PathBuf,
    /// Seed of everything that is chosen.
    pub seed: u64,
    /// How long.
    pub time: Duration,
    /// Concurrent writers.
    pub writers: usize,
    /// Concurrent watchers.
    pub watchers: usize,
}

/// What a run saw.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Revisions made.
    pub revisions: i64,
    /// Kills survived.
    pub kills: usize,
    /// Revisions read back because their writes were never answered.
    pub read_back: usize,
    /// Compactions.
    pub compactions: u64,
    /// Sessions judged.
    pub sessions: usize,
    /// Events judged.
    pub events: usize,
    /// Sessions that ended because what they wanted was compacted.
    pub compacted: usize,
    /// Sessions that ended because their clients wanted it.
    pub canceled: usize,
    /// Progress answers judged.
    pub bookmarks: usize,
    /// Of them, those that nobody had asked for.
    pub notified: usize,
    /// Answers with a part of what happened.
    pub fragments: usize,
    /// Revisions of large values.
    pub large: u64,
    /// Leases that were revoked with their keys.
    pub leases_revoked: u64,
    /// Leases that ran out with their keys.
    pub leases_expired: u64,
}

/// What all tasks share.
struct World {
    endpoint: Endpoint,
    history: Mutex<History>,
    sessions: Mutex<Vec<Session>>,
    /// The highest revision to which a compaction was asked for.
    compaction: AtomicI64,
    compactions: AtomicU64,
    values: AtomicU64,
    large: AtomicU64,
    /// What large values are cut from: they differ in where they begin.
    noise: Bytes,
    leases_revoked: AtomicU64,
    leases_expired: AtomicU64,
    stop: AtomicBool,
    /// Held by whoever writes or compacts; taken whole while the server is restarted and asked.
    gate: RwLock<()>,
}

impl World {
    fn history(&self) -> std::sync::MutexGuard<'_, History> {
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn key(number: u32) -> Bytes {
    format!("k/{number:02}").into()
}

/// Twice as many bytes as a large value has, no two stretches of them the same.
fn noise(seed: u64) -> Bytes {
    let mut bytes = vec![0; 2 * LARGE_BYTES];
    StdRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes.into()
}

async fn pause(random: &mut StdRng, at_most: Duration) {
    tokio::time::sleep(at_most.mul_f64(random.random_range(0.0..1.0))).await;
}

/// Opens a stream with its first request. Further ones go where is said, until that is dropped.
pub(crate) async fn open(
    channel: Channel,
    first: WatchRequest,
) -> Result<(mpsc::Sender<WatchRequest>, Streaming<WatchResponse>), Status> {
    let (requests, incoming) = mpsc::channel(REQUESTS_MAX);
    let further = futures::stream::unfold(incoming, |mut incoming| async { Some((incoming.recv().await?, incoming)) });
    let all = futures::StreamExt::chain(futures::stream::iter([first]), further);
    let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
    Ok((requests, client.watch(all).await?.into_inner()))
}

/// Runs the plan.
pub async fn run(plan: &Plan) -> Result<Summary> {
    let directory = TempDir::new().context("make a directory for the member")?;
    let mut member = Member::new(&plan.cairn, directory.path(), &FLAGS)?;
    member.start().await?;
    let world = Arc::new(World {
        endpoint: endpoint(member.url())?,
        history: Mutex::new(History::new()),
        sessions: Mutex::default(),
        compaction: AtomicI64::new(0),
        compactions: AtomicU64::new(0),
        values: AtomicU64::new(0),
        large: AtomicU64::new(0),
        noise: noise(plan.seed),
        leases_revoked: AtomicU64::new(0),
        leases_expired: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        gate: RwLock::new(()),
    });
    let mut tasks = Vec::new();
    let seed = |kind: u64, number: usize| StdRng::seed_from_u64(plan.seed ^ kind << 56 ^ number as u64);
    for number in 0..plan.writers {
        tasks.push(tokio::spawn(write(world.clone(), seed(1, number))));
    }
    for number in 0..plan.watchers {
        tasks.push(tokio::spawn(watcher::watch(world.clone(), seed(2, number))));
    }
    tasks.push(tokio::spawn(compact(world.clone(), seed(3, 0))));
    for number in 0..LEASE_HOLDERS {
        tasks.push(tokio::spawn(leases::Holder::new(world.clone(), number).run(seed(4, number))));
    }

    let mut summary = Summary::default();
    let outcome = disturb(&world, plan, &mut member, &mut summary).await;
    world.stop.store(true, Ordering::Relaxed);
    for task in tasks {
        task.await?.with_context(|| format!("seed {}", plan.seed))?;
    }
    outcome.with_context(|| format!("seed {}; the member logged:\n{}", plan.seed, member.log_tail()))?;
    read_back(&world, &mut summary).await?;
    judge(&world, &mut summary).with_context(|| format!("seed {}", plan.seed))?;
    summary.revisions = world.history().bound();
    summary.compactions = world.compactions.load(Ordering::Relaxed);
    summary.large = world.large.load(Ordering::Relaxed);
    summary.leases_revoked = world.leases_revoked.load(Ordering::Relaxed);
    summary.leases_expired = world.leases_expired.load(Ordering::Relaxed);
    let left = world.sessions.lock().unwrap_or_else(PoisonError::into_inner).len();
    ensure!(left == 0, "{left} sessions were told of revisions that nobody made");
    Ok(summary)
}

/// Kills and restarts, and judges what has come in.
async fn disturb(world: &World, plan: &Plan, member: &mut Member, summary: &mut Summary) -> Result<()> {
    let until = Instant::now() + plan.time;
    let mut random = StdRng::seed_from_u64(plan.seed);
    while Instant::now() < until {
        pause(&mut random, Duration::from_secs(4)).await;
        member.kill()?;
        // Writes under way end with an error; then nobody writes until it is known what they did.
        let _alone = world.gate.write().await;
        member.start().await?;
        read_back(world, summary).await?;
        summary.kills += 1;
        judge(world, summary)?;
    }
    Ok(())
}

/// Reads the revisions that nobody knows.
async fn read_back(world: &World, summary: &mut Summary) -> Result<()> {
    let mut kv = KvClient::new(world.endpoint.connect().await?).max_decoding_message_size(usize::MAX);
    let everything = |revision| RangeRequest {
        key: Bytes::from_static(&[0]),
        range_end: Bytes::from_static(&[0]),
        revision,
        ..RangeRequest::default()
    };
    let newest = kv.range(everything(0)).await?.into_inner().header.unwrap_or_default().revision;
    let bound = world.history().bound();
    ensure!(newest >= bound, "the revision went back from {bound} to {newest}");
    for revision in bound + 1..=newest {
        if world.history().knows(revision) {
            continue;
        }
        let now = kv.range(everything(revision)).await?.into_inner().kvs;
        let before = kv.range(everything(revision - 1)).await?.into_inner().kvs;
        let puts = now.iter().filter(|kv| kv.mod_revision == revision);
        let mut changes: Vec<Change> = puts.map(|kv| Change::put(kv.key.clone(), kv.value.clone())).collect();
        let gone = before.iter().filter(|kv| !now.iter().any(|other| other.key == kv.key));
        changes.extend(gone.map(|kv| Change::delete(kv.key.clone())));
        changes.sort();
        ensure!(!changes.is_empty(), "revision {revision} holds nothing");
        world.history().learn(revision, changes);
        summary.read_back += 1;
    }
    Ok(())
}

/// Judges the sessions of which everything is known.
fn judge(world: &World, summary: &mut Summary) -> Result<()> {
    let mut sessions = world.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    let history = world.history();
    let (known, open) = sessions.drain(..).partition(|session| session.needs() <= history.bound());
    *sessions = open;
    let known: Vec<Session> = known;
    for session in known {
        let described = || {
            let Session { key, range_end, start, id, .. } = &session;
            format!("watch of {key:?} to {range_end:?} from {start}, chosen id {id}")
        };
        summary.events += session.check(&history).with_context(described)?;
        summary.sessions += 1;
        for (answer, _) in &session.answers {
            let bookmark = answer.events.is_empty() && !answer.created && !answer.canceled;
            summary.compacted += usize::from(answer.canceled && answer.compact_revision != 0);
            summary.canceled += usize::from(answer.canceled && answer.compact_revision == 0);
            summary.bookmarks += usize::from(bookmark);
            summary.notified += usize::from(bookmark && answer.watch_id >= 0);
            summary.fragments += usize::from(answer.fragment);
        }
    }
    Ok(())
}

/// Writes until told to stop: puts, deletes of a key or a range, txns whose operations are in key order.
async fn write(world: Arc<World>, mut random: StdRng) -> Result<()> {
    let mut kv = KvClient::new(world.endpoint.connect_lazy()).max_decoding_message_size(usize::MAX);
    while !world.stopped() {
        pause(&mut random, Duration::from_millis(8)).await;
        let _going = world.gate.read().await;
        // What becomes of a write without an answer is found out after the next restart.
        if let Ok(Ok(Some((revision, changes)))) =
            tokio::time::timeout(WRITE_TIMEOUT, write_once(&world, &mut kv, &mut random)).await
        {
            let mut history = world.history();
            ensure!(!history.knows(revision), "revision {revision} was made twice");
            history.learn(revision, changes);
        }
    }
    Ok(())
}

async fn write_once(
    world: &World,
    kv: &mut KvClient<Channel>,
    random: &mut StdRng,
) -> Result<Option<(i64, Vec<Change>)>> {
    let bytes = random.random_range(1..200);
    let number = world.values.fetch_add(1, Ordering::Relaxed);
    let value = Bytes::from(format!("{number:>bytes$}"));
    let first = random.random_range(0..KEYS);
    let put = |key: Bytes| PutRequest { key, value: value.clone(), ..PutRequest::default() };
    let revision = |header: Option<cairn_proto::etcdserverpb::ResponseHeader>| header.unwrap_or_default().revision;
    match random.random_range(0..10) {
        0..5 => {
            let done = kv.put(put(key(first))).await?.into_inner();
            Ok(Some((revision(done.header), vec![Change::put(key(first), value)])))
        }
        5..7 => {
            let range_end = if random.random() { Bytes::new() } else { key(first + random.random_range(1..5)) };
            let request = DeleteRangeRequest { key: key(first), range_end, prev_kv: true };
            let done = kv.delete_range(request).await?.into_inner();
            let changes: Vec<_> = done.prev_kvs.into_iter().map(|kv| Change::delete(kv.key)).collect();
            Ok((!changes.is_empty()).then(|| (revision(done.header), changes)))
        }
        _ => {
            let large = random.random_range(0..LARGE_ONE_IN) == 0;
            let (keys, value): (Vec<Bytes>, Bytes) = if large {
                let at = usize::try_from(number)? % LARGE_BYTES;
                let keys = (0..LARGE_KEYS).map(|key| format!("k/large/{key}").into());
                (keys.collect(), world.noise.slice(at..at + LARGE_BYTES))
            } else {
                let last = (first + random.random_range(1..6)).min(KEYS);
                ((first..last).map(key).collect(), value.clone())
            };
            let mut changes: Vec<Change> = Vec::new();
            let mut ops = Vec::new();
            for key in keys {
                let put = PutRequest { value: value.clone(), ..put(key.clone()) };
                ops.push(RequestOp { request: Some(Request::RequestPut(put)) });
                changes.push(Change::put(key, value.clone()));
            }
            world.large.fetch_add(u64::from(large), Ordering::Relaxed);
            let done = kv.txn(TxnRequest { success: ops, ..TxnRequest::default() }).await?.into_inner();
            Ok(Some((revision(done.header), changes)))
        }
    }
}

/// Compacts every few hundred milliseconds to something that everybody knows, close to the newest revision.
async fn compact(world: Arc<World>, mut random: StdRng) -> Result<()> {
    let mut kv = KvClient::new(world.endpoint.connect_lazy());
    while !world.stopped() {
        pause(&mut random, Duration::from_millis(600)).await;
        let _going = world.gate.read().await;
        let revision = world.history().bound() - random.random_range(0..60);
        if revision > world.compaction.load(Ordering::SeqCst) {
            world.compaction.store(revision, Ordering::SeqCst);
            let compact = CompactionRequest { revision, physical: random.random() };
            if let Ok(Ok(_)) = tokio::time::timeout(WRITE_TIMEOUT, kv.compact(compact)).await {
                world.compactions.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
    Ok(())
}

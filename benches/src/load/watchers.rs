//! Watchers, and what they got and when.
//!
//! Every put carries the moment it was due in its value, and every acknowledged one is expected at each watcher that watches its key: a run ends when all
//! of them have all of it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use cairn_proto::{
    etcdserverpb::{
        RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse, kv_client::KvClient, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
    mvccpb::Event,
};
use hdrhistogram::Histogram;
use tokio::sync::{Notify, mpsc};
use tonic::Streaming;

use super::{
    connection::{Connection, Requests},
    options::{Options, Spread, Watchers},
    report::Events,
    run::histogram,
    work::Keys,
};

/// How long the watchers may take for what is left when the last put was answered.
const REST_DEADLINE: Duration = Duration::from_mins(5);

/// Everybody who watches.
pub struct Audience {
    spec: Watchers,
    /// What stamps count from.
    origin: Instant,
    key_space: u64,
    expected: AtomicU64,
    delivered: AtomicU64,
    latencies: Mutex<Histogram<u64>>,
    /// Stamps are read only from events of this run.
    is_measuring: AtomicBool,
    created: AtomicU64,
    progress: Notify,
    failure: Mutex<Option<String>>,
}

/// Where watchers begin.
#[derive(Clone, Copy)]
pub enum Start {
    /// With what comes.
    Now,
    /// Behind this revision.
    Behind(i64),
}

impl Audience {
    /// Watchers that are not started yet.
    pub fn new(options: &Options, spec: Watchers) -> Result<Self> {
        ensure!(spec.per_stream >= 1, "--per-stream is at least 1");
        Ok(Self {
            spec,
            origin: Instant::now(),
            key_space: options.key_space.max(1),
            expected: AtomicU64::new(0),
            delivered: AtomicU64::new(0),
            latencies: Mutex::new(histogram()?),
            is_measuring: AtomicBool::new(false),
            created: AtomicU64::new(0),
            progress: Notify::new(),
            failure: Mutex::new(None),
        })
    }

    /// A moment as a put carries it.
    pub fn stamp(&self, due: Instant) -> u64 {
        due.duration_since(self.origin).as_micros() as u64
    }

    /// The key with this number was put.
    pub fn expect(&self, index: u64) {
        self.expected.fetch_add(self.watchers_of(index), Ordering::Relaxed);
    }

    /// Forgets what was put so far: nobody watched it.
    pub fn forget(&self) {
        self.expected.store(0, Ordering::Relaxed);
        self.is_measuring.store(true, Ordering::Relaxed);
    }

    /// How many watch the key with this number. Watcher `n` with a key of its own watches the key `n` of the key space.
    fn watchers_of(&self, index: u64) -> u64 {
        let watchers = self.spec.count as u64;
        // Numbers below `bound` that are `index` modulo the key space.
        let own = |bound: u64| if index < bound { (bound - 1 - index) / self.key_space + 1 } else { 0 };
        match self.spec.spread {
            Spread::Prefix => watchers,
            Spread::Own => own(watchers),
            // Watcher `2n` watches everything, watcher `2n + 1` the key `n`.
            Spread::Mixed => watchers.div_ceil(2) + own(watchers / 2),
        }
    }

    /// What the watcher with this number watches: the key with a number, or everything.
    fn key_of(&self, watcher: u64) -> Option<u64> {
        match self.spec.spread {
            Spread::Prefix => None,
            Spread::Own => Some(watcher % self.key_space),
            Spread::Mixed => (watcher % 2 == 1).then_some(watcher / 2 % self.key_space),
        }
    }

    /// Waits until every watcher has every event.
    pub async fn wait_until_served(&self) -> Result<()> {
        let (expected, deadline) = (self.expected.load(Ordering::Relaxed), Instant::now() + REST_DEADLINE);
        loop {
            let delivered = self.delivered.load(Ordering::Relaxed);
            if let Some(failure) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                bail!("a watch ended: {failure}");
            }
            if delivered >= expected {
                ensure!(delivered == expected, "{delivered} events were delivered where {expected} were to be");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "only {delivered} of {expected} events came within {REST_DEADLINE:?}");
            // Whoever is told nothing looks again by itself: a notice may have come between the two lines above.
            let _ = tokio::time::timeout(Duration::from_millis(10), self.progress.notified()).await;
        }
    }

    /// What came, and how late.
    pub fn report(&self, seconds: f64, server_cpu: Option<f64>) -> Events {
        Events::new(&self.latencies(), seconds, server_cpu)
    }

    fn latencies(&self) -> MutexGuard<'_, Histogram<u64>> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, events: &[Event]) {
        if !self.is_measuring.load(Ordering::Relaxed) {
            return;
        }
        let now = self.stamp(Instant::now());
        let mut latencies = self.latencies();
        for event in events {
            let stamp =
                event.kv.as_ref().and_then(|kv| kv.value.first_chunk::<8>()).map(|bytes| u64::from_be_bytes(*bytes));
            latencies.saturating_record(now.saturating_sub(stamp.unwrap_or(now)).max(1));
        }
        self.delivered.fetch_add(events.len() as u64, Ordering::Relaxed);
        self.progress.notify_one();
    }

    fn fail(&self, why: String) {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.progress.notify_one();
    }
}

/// The store's revision.
pub async fn revision(connection: &Connection) -> Result<i64> {
    let probe = RangeRequest { key: "probe".into(), count_only: true, ..Default::default() };
    let answer = KvClient::new(connection.clone()).range(probe).await?.into_inner();
    Ok(answer.header.context("an answer without a header")?.revision)
}

/// Starts everybody and waits until the server knows them all.
pub async fn start(
    options: &Options,
    audience: &Arc<Audience>,
    connections: &[Connection],
    start: Start,
) -> Result<()> {
    let keys = Keys::new(options, 0, 1)?;
    let all: Vec<u64> = (0..audience.spec.count as u64).collect();
    for (stream, watchers) in all.chunks(audience.spec.per_stream).enumerate() {
        let requests: Vec<_> = watchers.iter().map(|watcher| create(audience, &keys, *watcher, start)).collect();
        let (sender, receiver) = mpsc::channel(requests.len());
        for request in requests {
            sender.try_send(request).context("a fresh channel is full")?;
        }
        let connection = connections[stream % connections.len()].clone();
        let mut client = WatchClient::new(connection).max_decoding_message_size(usize::MAX);
        let answers = client.watch(Requests(receiver)).await.context("open a watch stream")?.into_inner();
        tokio::spawn(follow(audience.clone(), answers, sender));
    }
    let deadline = Instant::now() + options.timeout();
    while audience.created.load(Ordering::Relaxed) < all.len() as u64 {
        ensure!(Instant::now() < deadline, "the watchers were not created within {:?}", options.timeout());
        let _ = tokio::time::timeout(Duration::from_millis(10), audience.progress.notified()).await;
    }
    Ok(())
}

fn create(audience: &Audience, keys: &Keys, watcher: u64, start: Start) -> WatchRequest {
    let (key, range_end) = match audience.key_of(watcher) {
        Some(index) => (keys.key(index), bytes::Bytes::new()),
        None => (keys.start(), keys.end()),
    };
    let start_revision = match start {
        Start::Now => 0,
        Start::Behind(revision) => revision + 1,
    };
    let prev_kv = audience.spec.prev_kv;
    let create = WatchCreateRequest { key, range_end, start_revision, prev_kv, ..Default::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// Takes what one stream brings. The sender is held so that the server does not see the requests end.
async fn follow(audience: Arc<Audience>, mut answers: Streaming<WatchResponse>, _held: mpsc::Sender<WatchRequest>) {
    // The revision each watch is at: nothing may come twice or out of order.
    let mut seen: HashMap<i64, i64> = HashMap::new();
    loop {
        let answer = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => return audience.fail("the stream ended".into()),
            Err(status) => return audience.fail(status.to_string()),
        };
        if answer.canceled {
            return audience.fail(format!("canceled: {} {}", answer.cancel_reason, answer.compact_revision));
        }
        if answer.created {
            audience.created.fetch_add(1, Ordering::Relaxed);
            audience.progress.notify_one();
        }
        let at = seen.entry(answer.watch_id).or_default();
        for event in &answer.events {
            let revision = event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
            if revision <= *at {
                return audience.fail(format!("revision {revision} came behind revision {at}"));
            }
            *at = revision;
        }
        audience.take(&answer.events);
    }
}

//! The load: puts of 1 KiB at a fixed rate, spread over many connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn_client::Client;
use cairn_proto::etcdserverpb as pb;
use rand::Rng as _;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::report::Results;
use crate::connection::error_text;

/// The length of a key behind the prefix, and of a value, in bytes.
const KEY_BYTES: usize = 256;
const VALUE_BYTES: usize = 1024;
/// How far behind its schedule the load catches up; what is missed beyond that stays missed, and shows as a lower rate.
const CATCH_UP_MAX: Duration = Duration::from_millis(10);
/// The longest a single put may take before it counts as an error.
const PUT_TIMEOUT: Duration = Duration::from_mins(1);

/// A workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Puts a second.
    pub limit: u32,
    /// Connections.
    pub clients: usize,
    /// For how long.
    pub duration: Duration,
}

impl Load {
    /// The workload of that name.
    pub fn named(name: &str) -> Option<Self> {
        let (limit, clients) = match name {
            "s" | "small" => (150, 50),
            "m" | "medium" => (1_000, 200),
            "l" | "large" => (8_000, 500),
            "xl" | "xLarge" => (15_000, 1_000),
            _ => return None,
        };
        Some(Self { limit, clients, duration: Duration::from_mins(1) })
    }

    /// Runs the load to its end.
    pub async fn run(&self, clients: Vec<Client>, prefix: &[u8]) -> Results {
        let (sender, workers) = Workers::start(clients, &Arc::default());
        self.schedule(workers.start, prefix, sender).await;
        workers.results().await
    }

    /// Hands out one put at a time, each when it is due.
    async fn schedule(&self, start: Instant, prefix: &[u8], sender: mpsc::Sender<pb::PutRequest>) {
        let interval = Duration::from_secs(1) / self.limit;
        let end = start + self.duration;
        let mut due = start;
        while due < end {
            sleep_until(due).await;
            if Instant::now() >= end {
                return;
            }
            if sender.send(random_put(prefix, KEY_BYTES, VALUE_BYTES)).await.is_err() {
                return;
            }
            due = (due + interval).max(Instant::now() - CATCH_UP_MAX);
        }
    }
}

/// A put of zeroes to a key of zeroes that begins with a random number.
pub(super) fn random_put(prefix: &[u8], key_bytes: usize, value_bytes: usize) -> pb::PutRequest {
    let mut key = prefix.to_vec();
    key.resize(prefix.len() + key_bytes, 0);
    let number: u64 = rand::rng().random();
    key[prefix.len()..prefix.len() + 8].copy_from_slice(&number.to_be_bytes());
    pb::PutRequest { key: key.into(), value: vec![0; value_bytes].into(), ..Default::default() }
}

/// Connections that put what they are handed.
pub(super) struct Workers {
    running: JoinSet<Results>,
    pub(super) start: Instant,
}

impl Workers {
    /// One worker for each client; they count in `answered`. They end when the sender is dropped.
    pub(super) fn start(clients: Vec<Client>, answered: &Arc<AtomicU64>) -> (mpsc::Sender<pb::PutRequest>, Self) {
        let (sender, receiver) = mpsc::channel(clients.len());
        let receiver = Arc::new(Mutex::new(receiver));
        let start = Instant::now();
        let mut running = JoinSet::new();
        for client in clients {
            running.spawn(work(client, Arc::clone(&receiver), Arc::clone(answered)));
        }
        (sender, Self { running, start })
    }

    /// What came back to all of them.
    pub(super) async fn results(mut self) -> Results {
        let mut results = Results::default();
        while let Some(worker) = self.running.join_next().await {
            match worker {
                Ok(done) => results.merge(done),
                Err(panicked) => results.error(panicked.to_string()),
            }
        }
        results.total = self.start.elapsed();
        results
    }
}

async fn work(
    client: Client,
    requests: Arc<Mutex<mpsc::Receiver<pb::PutRequest>>>,
    answered: Arc<AtomicU64>,
) -> Results {
    let client = client.with_timeout(PUT_TIMEOUT);
    let mut results = Results::default();
    loop {
        let Some(request) = requests.lock().await.recv().await else { return results };
        let start = Instant::now();
        match client.call(request).await {
            Ok(_) => results.latency(start.elapsed()),
            Err(error) => results.error(error_text(&error)),
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
}

//! Closed and open loop.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{RangeRequest, kv_client::KvClient};
use hdrhistogram::Histogram;

use super::{
    connection::{Connection, Connector},
    options::{Options, Work},
    report::{CpuTime, Report},
    watchers::{self, Audience, Start},
    work::{Client, expiring},
};

/// How often it is looked whether all leases are gone.
const EXPIRY_POLL: Duration = Duration::from_millis(20);

/// Latencies up to this many microseconds are told apart.
const LATENCY_MAX_US: u64 = 600_000_000;

/// An empty latency histogram, in microseconds.
pub fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).context("make a histogram")
}

/// What one client measured.
struct Measured {
    latencies: BTreeMap<&'static str, Histogram<u64>>,
    errors: u64,
    first_error: String,
}

/// Fills if asked, warms up, measures.
pub async fn run(options: &Options) -> Result<Report> {
    ensure!(
        options.connections >= 1 && options.clients >= options.connections,
        "--clients must be at least --connections, and that at least 1"
    );
    let connector = Connector::new(&options.target)?;
    let mut connections = Vec::new();
    for number in 0..options.connections {
        connections.push(connector.connect(number).await?);
    }
    let audience = options.watchers().map(|spec| Audience::new(options, spec)).transpose()?.map(Arc::new);
    let mut clients = Vec::new();
    for number in 0..options.clients {
        let connection = connections[number % connections.len()].clone();
        clients.push(Client::new(options, connection, number as u64, audience.clone())?);
    }
    if matches!(options.work, Work::Range { fill: true, .. }) {
        let space = options.key_space;
        let fill = |mut client: Client, number, count| async move {
            client.fill(number, count, space).await?;
            Ok(client)
        };
        clients = each(clients, "fill the key space", fill).await?;
    }
    if options.warmup > 0 {
        clients = closed_loop(options, clients, options.warmup).await?.0;
    }
    let granting = Instant::now();
    if let Work::LeaseChurn { expire: leases @ 1.., .. } = options.work {
        let grant = |mut client: Client, number, count| async move {
            client.grant(number, count, leases).await?;
            Ok(client)
        };
        clients = each(clients, "grant the leases", grant).await?;
    }
    let is_catch_up = matches!(options.work, Work::Watch { catch_up: true, .. });
    if let Some(audience) = &audience {
        audience.forget();
        if !is_catch_up {
            watchers::start(options, audience, &connections, Start::Now).await?;
        }
    }
    let before = watchers::revision(&connections[0]).await?;

    let cpu = CpuTime::of(&options.server_pid)?;
    let began = Instant::now();
    let expiry = match options.work {
        Work::LeaseChurn { expire: 1.., ttl } => {
            let first = granting + Duration::from_secs(ttl.max(0) as u64);
            Some(tokio::spawn(expired(connections[0].clone(), expiring(options.prefix.as_bytes()), first)))
        }
        _ => None,
    };
    let (clients, measured) = match options.rate {
        None => closed_loop(options, clients, options.total).await?,
        Some(rate) => open_loop(options, clients, rate).await?,
    };
    let seconds = began.elapsed().as_secs_f64();
    let server_cpu = CpuTime::of(&options.server_pid)?.since(&cpu);
    let mut report = sum(measured, seconds, server_cpu)?;
    if matches!(options.work, Work::LeaseChurn { expire: 0, .. }) {
        // Where the requests are no multiple of three.
        let end = |mut client: Client, _, _| async move {
            client.end_churn().await?;
            Ok(client)
        };
        each(clients, "revoke the last leases", end).await?;
    }

    if let Some(audience) = &audience {
        let (cpu, began) = if is_catch_up {
            let behind = (CpuTime::of(&options.server_pid)?, Instant::now());
            watchers::start(options, audience, &connections, Start::Behind(before)).await?;
            behind
        } else {
            (cpu, began)
        };
        audience.wait_until_served().await?;
        let server_cpu = CpuTime::of(&options.server_pid)?.since(&cpu);
        report.events = Some(audience.report(began.elapsed().as_secs_f64(), server_cpu));
    }
    if let Some(expiry) = expiry {
        report.expired_after_seconds = Some(expiry.await??);
    }
    Ok(report)
}

/// Adds up what the clients measured.
fn sum(measured: Vec<Measured>, seconds: f64, server_cpu: Option<f64>) -> Result<Report> {
    let (mut all, mut kinds) = (histogram()?, BTreeMap::new());
    let (mut errors, mut first_error) = (0, String::new());
    for client in measured {
        for (kind, latencies) in client.latencies {
            all.add(&latencies).context("add up latencies")?;
            match kinds.entry(kind) {
                std::collections::btree_map::Entry::Vacant(first) => drop(first.insert(latencies)),
                std::collections::btree_map::Entry::Occupied(mut sum) => {
                    sum.get_mut().add(&latencies).context("add up latencies")?;
                }
            }
        }
        errors += client.errors;
        if first_error.is_empty() {
            first_error = client.first_error;
        }
    }
    Ok(Report::new(&all, &kinds, seconds, errors, first_error, server_cpu))
}

/// Has every client do something: `what` gets it, its number and how many there are.
async fn each<F>(clients: Vec<Client>, doing: &'static str, what: impl Fn(Client, u64, u64) -> F) -> Result<Vec<Client>>
where
    F: Future<Output = Result<Client>> + Send + 'static,
{
    let count = clients.len() as u64;
    let tasks: Vec<_> = (0..).zip(clients).map(|(number, client)| tokio::spawn(what(client, number, count))).collect();
    let mut clients = Vec::new();
    for task in tasks {
        clients.push(task.await?.context(doing)?);
    }
    Ok(clients)
}

/// Waits until no key below a prefix is left; returns how long after `first` that was, in seconds.
async fn expired(connection: Connection, prefix: Bytes, first: Instant) -> Result<f64> {
    let mut end = prefix.to_vec();
    if let Some(last) = end.last_mut() {
        *last = last.saturating_add(1);
    }
    let mut kv = KvClient::new(connection);
    tokio::time::sleep_until(first.into()).await;
    loop {
        let (key, range_end) = (prefix.clone(), end.clone().into());
        let left = kv.range(RangeRequest { key, range_end, count_only: true, ..Default::default() }).await?;
        if left.into_inner().count == 0 {
            return Ok(first.elapsed().as_secs_f64());
        }
        tokio::time::sleep(EXPIRY_POLL).await;
    }
}

/// Each client sends its next request when the last one was answered.
async fn closed_loop(options: &Options, clients: Vec<Client>, total: u64) -> Result<(Vec<Client>, Vec<Measured>)> {
    let left = Arc::new(AtomicI64::new(total as i64));
    let deadline = Instant::now() + Duration::from_secs(options.seconds_max);
    let mut tasks = Vec::new();
    for mut client in clients {
        let left = left.clone();
        let mut measured = Measured { latencies: BTreeMap::new(), errors: 0, first_error: String::new() };
        tasks.push(tokio::spawn(async move {
            while left.fetch_sub(1, Ordering::Relaxed) > 0 && Instant::now() < deadline {
                let sent = Instant::now();
                let answer = client.send(sent).await;
                measured.note(sent.elapsed(), answer);
            }
            (client, measured)
        }));
    }
    let (mut clients, mut all) = (Vec::new(), Vec::new());
    for task in tasks {
        let (client, measured) = task.await?;
        clients.push(client);
        all.push(measured);
    }
    Ok((clients, all))
}

/// Requests leave at `rate` a second in all; a client that is late catches up, and the lateness counts as latency.
async fn open_loop(options: &Options, clients: Vec<Client>, rate: u64) -> Result<(Vec<Client>, Vec<Measured>)> {
    ensure!(rate > 0, "--rate must be at least 1");
    let count = clients.len() as u64;
    let began = Instant::now();
    let deadline = began + Duration::from_secs(options.seconds_max);
    let (total, every) = (options.total, 1.0 / rate as f64);
    let mut tasks = Vec::new();
    for (number, mut client) in (0u64..).zip(clients) {
        let mut measured = Measured { latencies: BTreeMap::new(), errors: 0, first_error: String::new() };
        tasks.push(tokio::spawn(async move {
            for request in (number..total).step_by(count as usize) {
                let due = began + Duration::from_secs_f64(request as f64 * every);
                tokio::time::sleep_until(due.into()).await;
                if Instant::now() > deadline {
                    break;
                }
                let answer = client.send(due).await;
                measured.note(due.elapsed(), answer);
            }
            (client, measured)
        }));
    }
    let (mut clients, mut all) = (Vec::new(), Vec::new());
    for task in tasks {
        let (client, measured) = task.await?;
        clients.push(client);
        all.push(measured);
    }
    Ok((clients, all))
}

impl Measured {
    fn note(&mut self, latency: Duration, answer: Result<&'static str, tonic::Status>) {
        match answer {
            Ok(kind) => {
                let latencies =
                    self.latencies.entry(kind).or_insert_with(|| histogram().expect("the bounds are fixed"));
                latencies.saturating_record((latency.as_micros() as u64).max(1));
            }
            Err(status) => {
                if self.errors == 0 {
                    self.first_error = format!("{:?}: {}", status.code(), status.message());
                }
                self.errors += 1;
            }
        }
    }
}

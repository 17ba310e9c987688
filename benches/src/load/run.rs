//! Closed and open loop.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hdrhistogram::Histogram;

use super::{
    connection::Connector,
    options::{Options, Work},
    report::{CpuTime, Report},
    work::Client,
};

/// Latencies up to this many microseconds are told apart.
const LATENCY_MAX_US: u64 = 600_000_000;

/// An empty latency histogram, in microseconds.
pub fn histogram() -> Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).context("make a histogram")
}

/// What one client measured.
struct Measured {
    latencies: Histogram<u64>,
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
    let mut clients = Vec::new();
    for number in 0..options.clients {
        clients.push(Client::new(options, connections[number % connections.len()].clone(), number as u64)?);
    }
    if matches!(options.work, Work::Range { fill: true, .. }) {
        clients = fill(options, clients).await?;
    }
    if options.warmup > 0 {
        clients = closed_loop(options, clients, options.warmup).await?.0;
    }
    let cpu = CpuTime::of(&options.server_pid)?;
    let began = Instant::now();
    let (_, measured) = match options.rate {
        None => closed_loop(options, clients, options.total).await?,
        Some(rate) => open_loop(options, clients, rate).await?,
    };
    let seconds = began.elapsed().as_secs_f64();
    let mut latencies = histogram()?;
    let (mut errors, mut first_error) = (0, String::new());
    for client in measured {
        latencies.add(&client.latencies).context("add up latencies")?;
        errors += client.errors;
        if first_error.is_empty() {
            first_error = client.first_error;
        }
    }
    let server_cpu = CpuTime::of(&options.server_pid)?.since(&cpu);
    Ok(Report::new(&latencies, seconds, errors, first_error, server_cpu))
}

async fn fill(options: &Options, clients: Vec<Client>) -> Result<Vec<Client>> {
    let (count, space) = (clients.len() as u64, options.key_space);
    let tasks: Vec<_> = (0..)
        .zip(clients)
        .map(|(number, mut client)| {
            tokio::spawn(async move { client.fill(number, count, space).await.map(|()| client) })
        })
        .collect();
    let mut clients = Vec::new();
    for task in tasks {
        clients.push(task.await?.context("fill the key space")?);
    }
    Ok(clients)
}

/// Each client sends its next request when the last one was answered.
async fn closed_loop(options: &Options, clients: Vec<Client>, total: u64) -> Result<(Vec<Client>, Vec<Measured>)> {
    let left = Arc::new(AtomicI64::new(total as i64));
    let deadline = Instant::now() + Duration::from_secs(options.seconds_max);
    let mut tasks = Vec::new();
    for mut client in clients {
        let left = left.clone();
        let mut measured = Measured { latencies: histogram()?, errors: 0, first_error: String::new() };
        tasks.push(tokio::spawn(async move {
            while left.fetch_sub(1, Ordering::Relaxed) > 0 && Instant::now() < deadline {
                let sent = Instant::now();
                let answer = client.send().await;
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
        let mut measured = Measured { latencies: histogram()?, errors: 0, first_error: String::new() };
        tasks.push(tokio::spawn(async move {
            for request in (number..total).step_by(count as usize) {
                let due = began + Duration::from_secs_f64(request as f64 * every);
                tokio::time::sleep_until(due.into()).await;
                if Instant::now() > deadline {
                    break;
                }
                let answer = client.send().await;
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
    fn note(&mut self, latency: Duration, answer: Result<(), tonic::Status>) {
        match answer {
            Ok(()) => self.latencies.saturating_record((latency.as_micros() as u64).max(1)),
            Err(status) => {
                if self.errors == 0 {
                    self.first_error = format!("{:?}: {}", status.code(), status.message());
                }
                self.errors += 1;
            }
        }
    }
}

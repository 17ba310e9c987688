//! One client that keeps many leases alive on one stream, as clients in Go do it, and counts those that it lost.
//!
//! ```text
//! cairn-load lease-hold --leases 20000 --ttl 9 --seconds 300 --server-pid PID --pause-millis 3000 --pause-every 10
//! ```
//! Twice a second a renewal is sent for each lease that is due: a third of its time to live has passed since its last answer. What is not answered is due
//! again the next time. A stream that ends is counted and opened again, on another connection.

use std::{
    collections::HashMap,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cairn_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, lease_client::LeaseClient,
};
use clap::Args;
use parking_lot::Mutex;
use tokio::{sync::mpsc, time};

use super::{
    connection::{Connection, Connector, Requests},
    options::Options,
};

/// Between two looks at what is due, and between the end of a stream and the next one.
const TICK: Duration = Duration::from_millis(500);
/// Grants and revocations under way at once.
const CALLS: usize = 64;
/// A reader that comes later goes away again after this long without an answer.
const READING_ENDS: Duration = Duration::from_millis(20);

/// What to hold.
#[derive(Args, Clone)]
pub struct Holding {
    /// Leases of the client
    #[arg(long, default_value_t = 10_000)]
    leases: usize,
    /// Seconds a lease lives
    #[arg(long, default_value_t = 6)]
    ttl: i64,
    /// Seconds to keep them alive
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Answers are read this long after the renewals were sent only
    #[arg(long, default_value_t = 0)]
    read_late_millis: u64,
    /// Stop the processes of --server-pid for this long, again and again
    #[arg(long, default_value_t = 0)]
    pause_millis: u64,
    /// Seconds between two pauses
    #[arg(long, default_value_t = 10)]
    pause_every: u64,
}

/// When each lease that is held is due.
type Due = Arc<Mutex<HashMap<i64, Instant>>>;

#[derive(Default)]
struct Counts {
    answers: u64,
    lost: u64,
    streams_ended: u64,
    pauses: u64,
}

/// Holds the leases and prints what became of them.
pub async fn run(options: &Options, settings: &Holding) -> Result<()> {
    let connector = Connector::new(&options.target)?;
    let end = Instant::now() + Duration::from_secs(settings.seconds);
    let due = Due::default();
    let granting =
        tokio::spawn(grant(LeaseClient::new(connector.connect(0).await?), settings.clone(), Arc::clone(&due)));
    let pausing = tokio::spawn(pause(options.server_pid.clone(), settings.clone(), end));
    let mut counts = Counts::default();
    for number in 0.. {
        if Instant::now() >= end {
            break;
        }
        match connector.connect(number).await {
            Ok(connection) => match hold(LeaseClient::new(connection), settings, &due, end, &mut counts).await {
                Ok(()) => break,
                Err(error) => {
                    counts.streams_ended += 1;
                    eprintln!("a stream ended: {error:#}");
                }
            },
            Err(error) => eprintln!("{error:#}"),
        }
        time::sleep(TICK).await;
    }
    counts.pauses = pausing.await??;
    let granted = granting.await??;
    let mut client = LeaseClient::new(connector.connect(0).await?);
    let alive = client.lease_leases(LeaseLeasesRequest {}).await?.into_inner().leases;
    let alive: Vec<i64> = alive.into_iter().map(|lease| lease.id).filter(|id| granted.contains(id)).collect();
    println!(
        "{} leases, {} alive, {} lost, {} answers, {} told that the lease is gone, {} streams ended, {} pauses",
        granted.len(),
        alive.len(),
        granted.len() - alive.len(),
        counts.answers,
        counts.lost,
        counts.streams_ended,
        counts.pauses
    );
    let is_whole = alive.len() == granted.len();
    revoke(&client, alive).await;
    ensure!(is_whole && counts.streams_ended == 0 || options.tolerate_errors, "leases or streams were lost");
    Ok(())
}

/// Grants the leases, each of which is held from its answer on, and returns their ids.
async fn grant(client: LeaseClient<Connection>, settings: Holding, due: Due) -> Result<Vec<i64>> {
    let mut ids = Vec::with_capacity(settings.leases);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..settings.leases {
        if calls.len() == CALLS {
            ids.push(calls.join_next().await.context("a grant")???);
        }
        let (mut client, due, ttl) = (client.clone(), Arc::clone(&due), settings.ttl);
        calls.spawn(async move {
            let id = client.lease_grant(LeaseGrantRequest { ttl, id: 0 }).await?.into_inner().id;
            due.lock().insert(id, Instant::now());
            anyhow::Ok(id)
        });
    }
    while let Some(id) = calls.join_next().await {
        ids.push(id??);
    }
    Ok(ids)
}

async fn revoke(client: &LeaseClient<Connection>, ids: Vec<i64>) {
    let mut calls = tokio::task::JoinSet::new();
    for id in ids {
        if calls.len() == CALLS {
            calls.join_next().await;
        }
        let mut client = client.clone();
        calls.spawn(async move { client.lease_revoke(LeaseRevokeRequest { id }).await });
    }
    calls.join_all().await;
}

/// One stream: ends well when the time is up.
async fn hold(
    mut client: LeaseClient<Connection>,
    settings: &Holding,
    due: &Due,
    end: Instant,
    counts: &mut Counts,
) -> Result<()> {
    let (sender, requests) = mpsc::channel(1);
    let sending = tokio::spawn(send(sender, Arc::clone(due)));
    // A server may answer the headers with its first message only.
    let stream = time::timeout_at(end.into(), client.lease_keep_alive(Requests(requests)));
    let result = match stream.await {
        Ok(answers) => read(answers?.into_inner(), settings, due, end, counts).await,
        Err(_) => Ok(()),
    };
    sending.abort();
    result
}

async fn send(sender: mpsc::Sender<LeaseKeepAliveRequest>, due: Due) {
    let mut ticks = time::interval(TICK);
    loop {
        ticks.tick().await;
        let now = Instant::now();
        let ids: Vec<i64> = due.lock().iter().filter(|(_, at)| **at <= now).map(|(id, _)| *id).collect();
        for id in ids {
            if sender.send(LeaseKeepAliveRequest { id }).await.is_err() {
                return;
            }
        }
    }
}

async fn read(
    mut answers: tonic::Streaming<cairn_proto::etcdserverpb::LeaseKeepAliveResponse>,
    settings: &Holding,
    due: &Due,
    end: Instant,
    counts: &mut Counts,
) -> Result<()> {
    let late = Duration::from_millis(settings.read_late_millis);
    while Instant::now() < end {
        let wait = if late.is_zero() { end.saturating_duration_since(Instant::now()) } else { READING_ENDS };
        let Ok(answer) = time::timeout(wait, answers.message()).await else {
            time::sleep(late).await;
            continue;
        };
        let answer = answer?.context("the server ended it")?;
        counts.answers += 1;
        let mut due = due.lock();
        if answer.ttl <= 0 {
            counts.lost += u64::from(due.remove(&answer.id).is_some());
        } else if let Some(at) = due.get_mut(&answer.id) {
            *at = Instant::now() + Duration::from_secs(answer.ttl.unsigned_abs()) / 3;
        }
    }
    Ok(())
}

/// Stops the processes again and again until the end; returns how often.
async fn pause(pids: Vec<u32>, settings: Holding, end: Instant) -> Result<u64> {
    let length = Duration::from_millis(settings.pause_millis);
    let mut pauses = 0;
    if length.is_zero() || pids.is_empty() {
        return Ok(pauses);
    }
    let every = Duration::from_secs(settings.pause_every.max(1));
    // The last pause leaves time for what it held up.
    while Instant::now() + every + length + TICK * 2 < end {
        time::sleep(every).await;
        signal("-STOP", &pids)?;
        time::sleep(length).await;
        signal("-CONT", &pids)?;
        pauses += 1;
    }
    Ok(pauses)
}

fn signal(name: &str, pids: &[u32]) -> Result<()> {
    let status = Command::new("kill").arg(name).args(pids.iter().map(u32::to_string)).status().context("run kill")?;
    ensure!(status.success(), "kill {name} {pids:?} failed");
    Ok(())
}

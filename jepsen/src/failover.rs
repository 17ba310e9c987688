//! How long writes are not acknowledged when the leader dies, or is told to stop.
//!
//! Three members with their default timers, Cairn or a genuine etcd, and writes at a fixed rate, whatever becomes of those
//! before: each member is sent every third one, and none is sent again. So a member that is down fails a third of them, and
//! without a leader all of them wait or fail.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cairn_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use tokio::{
    sync::{Semaphore, oneshot},
    time::{interval, timeout},
};
use tonic::transport::{Channel, Endpoint};

use crate::cluster::Members;

/// Writes that may be under way at once; further ones count as failed.
const IN_FLIGHT_MAX: usize = 16 << 10;
/// How long a write may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Keys that are written in turn.
const KEYS: u64 = 1000;
/// Bytes of a value.
const VALUE_BYTES: usize = 256;
/// How long anything may take that must come true.
const DEADLINE: Duration = Duration::from_mins(1);
/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(1);
/// Writes that have to be acknowledged before a leader is lost, and after it has come back.
const STEADY: usize = 1000;

/// How a leader is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// `kill -9`.
    Killed,
    /// SIGTERM, as an operator stops it.
    Stopped,
}

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server: Cairn, or a genuine etcd.
    pub server: PathBuf,
    /// How often the leader is lost in each way.
    pub trials: usize,
    /// Writes a second.
    pub rate: u32,
}

/// What one loss cost.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    /// How the leader was lost.
    pub loss: Loss,
    /// From the loss to the first acknowledgement of a write that was begun after it.
    pub first_success: Duration,
    /// The longest time without an acknowledgement.
    pub pause: Duration,
    /// Writes that failed of those that were under way at the loss or begun before the first success.
    pub failed: usize,
}

/// What a run saw.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// One after the other.
    pub trials: Vec<Trial>,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for loss in [Loss::Killed, Loss::Stopped] {
            let trials: Vec<_> = self.trials.iter().filter(|trial| trial.loss == loss).collect();
            if trials.is_empty() {
                continue;
            }
            writeln!(f, "{loss:?}, {} trials: median, 95th percentile, longest", trials.len())?;
            let mut row = |what: &str, unit: &str, mut values: Vec<u128>| {
                values.sort_unstable();
                let at = |share: usize| values[((values.len() * share).div_ceil(100)).clamp(1, values.len()) - 1];
                writeln!(f, "  {what:<34} {:>6} {:>6} {:>6} {unit}", at(50), at(95), at(100))
            };
            row("first success after it", "ms", trials.iter().map(|trial| trial.first_success.as_millis()).collect())?;
            row("longest pause between successes", "ms", trials.iter().map(|trial| trial.pause.as_millis()).collect())?;
            row("failed writes", "", trials.iter().map(|trial| trial.failed as u128).collect())?;
        }
        Ok(())
    }
}

/// Runs the plan.
pub async fn run(plan: &Plan) -> Result<Summary> {
    let mut members = Members::bare(&plan.server, 3, &["--log-level", "error"])?;
    members.start_all().await?;
    let load = Load::start(&members.urls(), plan.rate)?;
    let mut summary = Summary::default();
    for number in 0..2 * plan.trials {
        let loss = [Loss::Killed, Loss::Stopped][number % 2];
        let trial = lose_leader(loss, &mut members, &load).await;
        summary.trials.push(trial.with_context(|| format!("trial {number}, {loss:?}"))?);
    }
    Ok(summary)
}

async fn lose_leader(loss: Loss, members: &mut Members, load: &Load) -> Result<Trial> {
    load.wait_for(STEADY, |writes| writes.iter().filter(|write| write.succeeded).count()).await?;
    let leader = members.leader().await?;
    let lost_at = Instant::now();
    match loss {
        Loss::Killed => members.kill(leader)?,
        Loss::Stopped => members.terminate(leader).await?,
    }
    // More of them, so that the pause has an end.
    let after = |write: &&Write| write.succeeded && write.begun >= lost_at;
    load.wait_for(STEADY, |writes| writes.iter().filter(after).count()).await?;
    let mut writes = load.take();
    writes.sort_by_key(|write| write.ended);
    members.start(leader).await?;
    members.wait_until_serving().await?;
    // What came between belongs to no trial.
    load.take();

    let first = writes.iter().find(|write| after(write)).context("nothing was acknowledged")?.ended;
    let mut pause = Duration::ZERO;
    let mut last: Option<Instant> = None;
    for write in writes.iter().filter(|write| write.succeeded) {
        if let Some(last) = last.filter(|_| write.ended >= lost_at) {
            pause = pause.max(write.ended - last);
        }
        last = Some(write.ended);
    }
    let concerns = |write: &&Write| !write.succeeded && write.ended >= lost_at && write.begun <= first;
    let failed = writes.iter().filter(concerns).count();
    Ok(Trial { loss, first_success: first - lost_at, pause, failed })
}

/// A write that has ended.
#[derive(Debug, Clone, Copy)]
struct Write {
    begun: Instant,
    ended: Instant,
    succeeded: bool,
}

type Writes = Arc<Mutex<Vec<Write>>>;

/// Writes at a fixed rate, from a thread of their own.
struct Load {
    writes: Writes,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Load {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed.
            let _ = thread.join();
        }
    }
}

impl Load {
    fn start(urls: &[String], rate: u32) -> Result<Self> {
        ensure!(rate > 0, "writes come at a rate above 0");
        let writes = Writes::default();
        let endpoints = urls.iter().map(|url| Ok(Endpoint::from_shared(url.clone())?.tcp_nodelay(true)));
        let endpoints: Vec<Endpoint> = endpoints.collect::<Result<_>>()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let shared = Arc::clone(&writes);
        let thread = std::thread::Builder::new().name("load".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = write_all(endpoints, rate, shared) => {}
                    // Dropped or told to: it is the end.
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { writes, stop: Some(stop), thread: Some(thread.context("start the load's thread")?) })
    }

    /// Waits until `count` gives so much.
    async fn wait_for(&self, target: usize, count: impl Fn(&[Write]) -> usize) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while count(&self.writes.lock().unwrap_or_else(PoisonError::into_inner)) < target {
            ensure!(Instant::now() < deadline, "writes are not acknowledged any more");
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn take(&self) -> Vec<Write> {
        std::mem::take(&mut self.writes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

async fn write_all(endpoints: Vec<Endpoint>, rate: u32, writes: Writes) {
    // They connect when they are used, and again.
    let channels: Vec<Channel> = endpoints.iter().map(Endpoint::connect_lazy).collect();
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut ticks = interval(Duration::from_secs(1) / rate);
    for number in 0_u64.. {
        ticks.tick().await;
        let begun = Instant::now();
        let note = {
            let writes = Arc::clone(&writes);
            move |succeeded| {
                let write = Write { begun, ended: Instant::now(), succeeded };
                writes.lock().unwrap_or_else(PoisonError::into_inner).push(write);
            }
        };
        let Ok(permit) = Arc::clone(&in_flight).try_acquire_owned() else {
            note(false);
            continue;
        };
        let mut kv = KvClient::new(channels[number as usize % channels.len()].clone());
        tokio::spawn(async move {
            let key = format!("/registry/failover/{}", number % KEYS);
            let put = PutRequest { key: key.into(), value: vec![b'v'; VALUE_BYTES].into(), ..Default::default() };
            note(matches!(timeout(PATIENCE, kv.put(put)).await, Ok(Ok(_))));
            drop(permit);
        });
    }
}

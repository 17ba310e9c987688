//! The leader is killed again and again, and the writes through the other two members go on.
//!
//! A write that a follower had sent to a leader that dies takes effect if the others have its entry; if not, the follower
//! gives it to the next leader at once: no call fails, and none waits much longer than the election. Each client writes
//! a key of its own, one write after the other, so the key's version tells at the end that each write took effect once.

use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use cairn_proto::etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient};
use tokio::{task::JoinSet, time::timeout};
use tonic::transport::Channel;

use crate::cluster::Members;

/// Members.
const MEMBERS: usize = 3;
/// Clients that write through each of the members that stay.
const CLIENTS: usize = 4;
/// Writes of each client before the leader is killed, and after another one leads.
const STEADY: usize = 20;
/// How long a write may take beyond the election.
const BEYOND_ELECTION: Duration = Duration::from_secs(2);
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long anything may take that must come true.
const DEADLINE: Duration = Duration::from_mins(1);
/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(5);
/// Bytes of a value.
const VALUE_BYTES: usize = 256;

/// What to run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server.
    pub cairn: PathBuf,
    /// How often the leader is killed.
    pub kills: usize,
}

/// What a run saw.
#[derive(Debug, Default, Clone)]
pub struct Summary {
    /// How often the leader was killed.
    pub kills: usize,
    /// Writes that were acknowledged: all.
    pub writes: usize,
    /// Of them those that were under way when the leader was killed, or were begun before another one led.
    pub met: usize,
    /// The longest time from a kill to the next leader.
    pub election_max: Duration,
    /// The longest time that a write took.
    pub wait_max: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kills, writes, met, election_max, wait_max } = self;
        write!(
            f,
            "{kills} kills; {writes} writes, none failed, {met} of them met a kill; longest election {election_max:?}, \
             longest write {wait_max:?}"
        )
    }
}

/// A write that has ended.
struct Call {
    client: usize,
    begun: Instant,
    ended: Instant,
    error: Option<String>,
}

#[derive(Default)]
struct Calls {
    ended: Mutex<Vec<Call>>,
    stop: AtomicBool,
}

impl Calls {
    /// Waits until each client of the members in `through` has written some more since `since`.
    async fn go_on(&self, through: &[usize], since: Instant) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        let clients = through.iter().flat_map(|member| (0..CLIENTS).map(move |number| member * CLIENTS + number));
        for client in clients {
            while self.count(client, since)? < STEADY {
                ensure!(Instant::now() < deadline, "client {client} writes no more");
                tokio::time::sleep(LOOK).await;
            }
        }
        Ok(())
    }

    /// How often a client has written since then, unless a write has failed.
    fn count(&self, client: usize, since: Instant) -> Result<usize> {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Call { client, begun, ended, error: Some(error) }) = ended.iter().find(|call| call.error.is_some())
        {
            bail!("a write of client {client} failed after {:?}: {error}", *ended - *begun);
        }
        Ok(ended.iter().filter(|call| call.client == client && call.begun >= since).count())
    }
}

/// Runs the plan.
///
/// # Errors
/// If a write failed, waited too long, or took effect more than once.
pub async fn run(plan: &Plan) -> Result<Summary> {
    let mut members = Members::bare(&plan.cairn, MEMBERS, &["--log-level", "error"])?;
    members.start_all().await?;
    let mut summary = Summary::default();
    let mut written = [0; MEMBERS * CLIENTS];
    for kill in 0..plan.kills {
        let calls = kill_leader(&mut members, &mut summary).await.with_context(|| format!("kill {kill}"))?;
        for call in calls {
            written[call.client] += 1;
        }
    }
    for (client, &written) in written.iter().enumerate() {
        let request = RangeRequest { key: key(client).into(), ..RangeRequest::default() };
        let kvs = kv(&members, client % MEMBERS)?.range(request).await?.into_inner().kvs;
        let version = kvs.first().map_or(0, |kv| kv.version);
        ensure!(version == written, "client {client} has written {written} times, its key {version} times");
    }
    Ok(summary)
}

async fn kill_leader(members: &mut Members, summary: &mut Summary) -> Result<Vec<Call>> {
    let leader = members.leader().await?;
    let through: Vec<usize> = (0..MEMBERS).filter(|&member| member != leader).collect();
    let calls = Arc::new(Calls::default());
    let mut clients = JoinSet::new();
    for &member in &through {
        for number in 0..CLIENTS {
            clients.spawn(write_on(kv(members, member)?, member * CLIENTS + number, Arc::clone(&calls)));
        }
    }
    calls.go_on(&through, Instant::now()).await?;
    let killed_at = Instant::now();
    members.kill(leader)?;
    members.leader_among(|member| member != leader).await?;
    let elected_at = Instant::now();
    calls.go_on(&through, elected_at).await?;
    calls.stop.store(true, Ordering::Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended?;
    }
    let calls = std::mem::take(&mut *calls.ended.lock().unwrap_or_else(PoisonError::into_inner));
    let election = elected_at - killed_at;
    for Call { client, begun, ended, error } in &calls {
        let took = *ended - *begun;
        ensure!(error.is_none(), "a write of client {client} failed after {took:?}: {error:?}");
        let meets = *ended >= killed_at && *begun <= elected_at;
        ensure!(
            !meets || took <= election + BEYOND_ELECTION,
            "a write of client {client} took {took:?}, the election {election:?}"
        );
        summary.met += usize::from(meets);
        summary.wait_max = summary.wait_max.max(took);
    }
    summary.kills += 1;
    summary.writes += calls.len();
    summary.election_max = summary.election_max.max(election);
    members.start(leader).await?;
    members.wait_until_serving().await?;
    Ok(calls)
}

async fn write_on(mut kv: KvClient<Channel>, client: usize, calls: Arc<Calls>) {
    while !calls.stop.load(Ordering::Relaxed) {
        let put =
            PutRequest { key: key(client).into(), value: vec![b'v'; VALUE_BYTES].into(), ..PutRequest::default() };
        let begun = Instant::now();
        let error = match timeout(PATIENCE, kv.put(put)).await {
            Ok(Ok(_)) => None,
            Ok(Err(status)) => Some(status.message().to_owned()),
            Err(_) => Some("no answer".to_owned()),
        };
        let failed = error.is_some();
        let call = Call { client, begun, ended: Instant::now(), error };
        calls.ended.lock().unwrap_or_else(PoisonError::into_inner).push(call);
        if failed {
            return;
        }
    }
}

fn kv(members: &Members, member: usize) -> Result<KvClient<Channel>> {
    let url = members.urls().swap_remove(member);
    Ok(KvClient::new(Channel::from_shared(url)?.tcp_nodelay(true).connect_lazy()))
}

fn key(client: usize) -> String {
    format!("/succession/{client}")
}

//! One watcher: opens streams, reads, stalls, goes away, comes back where it was or anywhere else.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use anyhow::{Result, bail};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{WatchRequest, WatchResponse, watch_client::WatchClient};
use rand::{Rng, rngs::StdRng};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tonic::Streaming;

use super::{
    KEYS, World,
    checker::{Session, ask_progress},
    key, pause,
};

/// How long a stream may take to open, and a watcher that asks to hear that it is in sync.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it asks.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// Watches until told to stop.
pub(super) async fn watch(world: Arc<World>, mut random: StdRng) -> Result<()> {
    let mut before: Option<Session> = None;
    while !world.stopped() {
        let mut session = choose(&world, &mut random, before.take());
        let done = follow(&world, &mut random, &mut session).await;
        // A session counts whether or not the server lived through it.
        before = Some(session.clone());
        world.sessions.lock().unwrap_or_else(PoisonError::into_inner).push(session);
        match done {
            Ok(()) | Err(End::Lost) => {}
            Err(End::NeverInSync(what)) => bail!("{what}"),
        }
        pause(&mut random, Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Where it left off, or something new.
fn choose(world: &World, random: &mut StdRng, before: Option<Session>) -> Session {
    if let Some(before) = before
        && let Some(start) = before.resume()
        && random.random()
    {
        return Session { start, answers: Vec::new(), ..before };
    }
    let first = random.random_range(0..KEYS);
    let (key, range_end) = match random.random_range(0..4) {
        0 => (key(first), Bytes::new()),
        1 => (key(first), key(first + random.random_range(1..6))),
        2 => (key(first), Bytes::from_static(&[0])),
        _ => ("k/".into(), "k0".into()),
    };
    let (bound, compacted) = (world.history().bound(), world.compaction.load(Ordering::SeqCst));
    let start = match random.random_range(0..4) {
        0 => 0,
        1 => random.random_range(bound..bound + 5),
        _ => random.random_range((compacted - 5).max(1)..=bound.max(1).max(compacted)),
    };
    Session::draw(key, range_end, start, random)
}

/// Why a session ended early.
enum End {
    /// The connection broke.
    Lost,
    /// It asked for progress and never got an answer.
    NeverInSync(String),
}

impl From<tonic::Status> for End {
    fn from(_: tonic::Status) -> Self {
        Self::Lost
    }
}

/// Notes an answer. `true` if it was the last one.
fn note(world: &World, session: &mut Session, answer: WatchResponse) -> bool {
    let canceled = answer.canceled;
    session.answers.push((answer, world.compaction.load(Ordering::SeqCst)));
    canceled
}

async fn follow(world: &World, random: &mut StdRng, session: &mut Session) -> Result<(), End> {
    let (requests, incoming) = mpsc::channel(4);
    // There is room.
    let _ = requests.send(session.request()).await;
    let mut client = WatchClient::new(world.endpoint.connect_lazy()).max_decoding_message_size(usize::MAX);
    let incoming = futures::stream::unfold(incoming, |mut incoming| async { Some((incoming.recv().await?, incoming)) });
    let opened = timeout(PATIENCE, client.watch(incoming)).await.map_err(|_| End::Lost)?;
    let mut answers = opened?.into_inner();
    let until = Instant::now() + Duration::from_millis(random.random_range(10..3000));
    while let Ok(answer) = timeout_at(until, answers.message()).await {
        let Some(answer) = answer? else { return Err(End::Lost) };
        if note(world, session, answer) {
            return Ok(());
        }
        if random.random_range(0..40) == 0 {
            // The server has to do without a reader for a while.
            pause(random, Duration::from_millis(800)).await;
        }
    }
    if random.random() { sync(world, session, &requests, &mut answers).await } else { Ok(()) }
}

/// Asks until it hears that it is in sync.
async fn sync(
    world: &World,
    session: &mut Session,
    requests: &mpsc::Sender<WatchRequest>,
    answers: &mut Streaming<WatchResponse>,
) -> Result<(), End> {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until && !world.stopped() {
        if requests.try_send(ask_progress()).is_err() && requests.is_closed() {
            return Err(End::Lost);
        }
        while let Ok(answer) = timeout(ASK_AGAIN, answers.message()).await {
            let Some(answer) = answer? else { return Err(End::Lost) };
            let progress = answer.watch_id == -1 && answer.events.is_empty();
            if note(world, session, answer) || progress {
                return Ok(());
            }
        }
    }
    if world.stopped() || session.start > world.history().bound() {
        return Ok(());
    }
    Err(End::NeverInSync(format!("no progress answer within {PATIENCE:?}: {} to {:?}", session.start, session.key)))
}

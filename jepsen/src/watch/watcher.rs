//! One watcher: opens streams, makes and cancels watches on them, reads, stalls, goes away, comes back where it was or anywhere
//! else.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use anyhow::{Result, bail};
use bytes::Bytes;
use cairn_proto::{
    cancel_reason,
    etcdserverpb::{WatchCancelRequest, WatchRequest, WatchResponse, watch_request::RequestUnion},
};
use rand::{Rng, rngs::StdRng, seq::IteratorRandom};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};
use tonic::Streaming;

use super::{
    KEYS, World,
    checker::{Session, ask_progress},
    key, open, pause,
};

/// How long a stream may take to open, and a watcher that asks to hear that it is in sync.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it asks.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// Watches on one stream.
const WATCHES_MAX: usize = 6;
/// The longest time between two things that a watcher asks for.
const ACT_WITHIN: Duration = Duration::from_millis(400);
/// The id of answers that are about no watch, or about all of a stream.
const NO_WATCH: i64 = -1;
/// Ids that clients choose; those that the server chooses begin at 0 and may be among them.
const CHOSEN_IDS: std::ops::RangeInclusive<i64> = 1..=8;

/// Watches until told to stop.
pub(super) async fn watch(world: Arc<World>, mut random: StdRng) -> Result<()> {
    let mut before: Vec<Session> = Vec::new();
    while !world.stopped() {
        let mut sessions = Vec::new();
        let done = follow(&world, &mut random, before, &mut sessions).await;
        before = sessions.clone();
        // A session counts whether or not the server lived through it.
        world.sessions.lock().unwrap_or_else(PoisonError::into_inner).extend(sessions);
        match done {
            Ok(()) | Err(End::Lost) => {}
            Err(End::Broken(what)) => bail!("{what}"),
        }
        pause(&mut random, Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Where one of the last stream left off, or something new.
fn choose(world: &World, random: &mut StdRng, before: &mut Vec<Session>) -> Session {
    let notify = random.random();
    if let Some(before) = before.pop()
        && let Some(start) = before.resume()
        && random.random()
    {
        return Session { start, answers: Vec::new(), canceled: false, id: 0, notify, ..before };
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
    Session { notify, ..Session::draw(key, range_end, start, random) }
}

/// Why a stream ended early.
enum End {
    /// The connection broke.
    Lost,
    /// It was told what it must not be, or was not told what it must be.
    Broken(String),
}

impl From<tonic::Status> for End {
    fn from(_: tonic::Status) -> Self {
        Self::Lost
    }
}

/// A stream that is open, and its watches.
struct Stream<'a> {
    world: &'a World,
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    /// Asked for and not answered yet, in order; `true`: its id is one that is taken.
    asked: VecDeque<(Session, bool)>,
    open: BTreeMap<i64, Session>,
    /// Ids of watches that were ended by a compaction: they stay taken. `true`: they are to be canceled, too, which is answered as well.
    spent: BTreeMap<i64, bool>,
    /// All that has ended.
    ended: &'a mut Vec<Session>,
}

/// Opens a stream and follows it for a while. All sessions on it are in `ended` afterwards, however it ends.
async fn follow(
    world: &World,
    random: &mut StdRng,
    mut before: Vec<Session>,
    ended: &mut Vec<Session>,
) -> Result<(), End> {
    let first = choose(world, random, &mut before);
    let opened = timeout(PATIENCE, open(world.endpoint.connect_lazy(), first.request())).await;
    let (requests, answers) = opened.map_err(|_| End::Lost)??;
    let mut stream = Stream {
        world,
        requests,
        answers,
        asked: VecDeque::from([(first, false)]),
        open: BTreeMap::new(),
        spent: BTreeMap::new(),
        ended,
    };
    let done = stream.live(random, before).await;
    let Stream { open, ended, .. } = stream;
    ended.extend(open.into_values());
    done
}

impl Stream<'_> {
    async fn live(&mut self, random: &mut StdRng, mut before: Vec<Session>) -> Result<(), End> {
        let until = Instant::now() + Duration::from_millis(random.random_range(10..3000));
        while Instant::now() < until {
            let act_at = (Instant::now() + ACT_WITHIN.mul_f64(random.random())).min(until);
            while let Ok(answer) = timeout_at(act_at, self.answers.message()).await {
                self.take(answer?.ok_or(End::Lost)?)?;
                if random.random_range(0..40) == 0 {
                    // The server has to do without a reader for a while.
                    pause(random, Duration::from_millis(800)).await;
                }
            }
            self.act(random, &mut before);
        }
        if random.random() { self.sync().await } else { Ok(()) }
    }

    /// Asks for something.
    fn act(&mut self, random: &mut StdRng, before: &mut Vec<Session>) {
        match random.random_range(0..4) {
            0 | 1 if self.open.len() + self.asked.len() < WATCHES_MAX => self.create(random, before),
            2 => {
                let Some((&id, session)) = self.open.iter_mut().choose(random) else { return };
                let cancel = RequestUnion::CancelRequest(WatchCancelRequest { watch_id: id });
                if !session.canceled && self.requests.try_send(WatchRequest { request_union: Some(cancel) }).is_ok() {
                    session.canceled = true;
                }
            }
            // Whoever asks too often has to ask again.
            _ => drop(self.requests.try_send(ask_progress())),
        }
    }

    /// Asks for one more watch, at times by an id of its own choice, at times by one that is taken.
    fn create(&mut self, random: &mut StdRng, before: &mut Vec<Session>) {
        let mut session = choose(self.world, random, before);
        let mut taken = false;
        // Which ids are taken is known only while nothing is under way.
        let known = self.asked.is_empty() && self.open.values().all(|session| !session.canceled);
        if known && random.random() {
            let id = random.random_range(CHOSEN_IDS);
            if !self.spent.contains_key(&id) {
                (session.id, taken) = (id, self.open.contains_key(&id));
            }
        }
        if self.requests.try_send(session.request()).is_ok() {
            self.asked.push_back((session, taken));
        }
    }

    /// Gives an answer to whom it is for.
    fn take(&mut self, answer: WatchResponse) -> Result<(), End> {
        let compaction = self.world.compaction.load(Ordering::SeqCst);
        let id = answer.watch_id;
        if answer.created {
            return self.created(answer, compaction);
        }
        if id == NO_WATCH {
            if answer.canceled || !answer.events.is_empty() {
                return Err(End::Broken(format!("an answer for nobody: {answer:?}")));
            }
            // It holds for all watches of the stream.
            let all = self.open.values_mut().filter(|session| !session.canceled);
            all.for_each(|session| session.answers.push((answer.clone(), compaction)));
            return Ok(());
        }
        let Some(session) = self.open.get_mut(&id) else {
            if answer.canceled && self.spent.get(&id) == Some(&true) {
                self.spent.remove(&id);
                return Ok(());
            }
            return Err(End::Broken(format!("an answer for watch {id}, which there is not: {answer:?}")));
        };
        let (ends, compacted, canceled) = (answer.canceled, answer.compact_revision != 0, session.canceled);
        session.answers.push((answer, compaction));
        if ends && compacted {
            self.spent.insert(id, canceled);
        }
        if ends {
            self.ended.extend(self.open.remove(&id));
        }
        Ok(())
    }

    /// The oldest request for a watch is answered.
    fn created(&mut self, answer: WatchResponse, compaction: i64) -> Result<(), End> {
        let Some((mut session, taken)) = self.asked.pop_front() else {
            return Err(End::Broken(format!("a watch that nobody asked for: {answer:?}")));
        };
        let id = answer.watch_id;
        if taken {
            let refused =
                answer.canceled && id == NO_WATCH && answer.cancel_reason == cancel_reason::DUPLICATE_WATCH_ID;
            let told = || format!("id {} is taken, but the answer is {answer:?}", session.id);
            return if refused { Ok(()) } else { Err(End::Broken(told())) };
        }
        if (session.id != 0 && session.id != id)
            || id < 0
            || self.open.contains_key(&id)
            || self.spent.contains_key(&id)
        {
            return Err(End::Broken(format!("asked for id {}, the answer is {answer:?}", session.id)));
        }
        session.answers.push((answer, compaction));
        self.open.insert(id, session);
        Ok(())
    }

    /// Asks until it hears that all watches are in sync.
    async fn sync(&mut self) -> Result<(), End> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && !self.world.stopped() {
            if self.requests.try_send(ask_progress()).is_err() && self.requests.is_closed() {
                return Err(End::Lost);
            }
            while let Ok(answer) = timeout(ASK_AGAIN, self.answers.message()).await {
                let answer = answer?.ok_or(End::Lost)?;
                let progress = answer.watch_id == NO_WATCH && answer.events.is_empty() && !answer.created;
                self.take(answer)?;
                if progress {
                    return Ok(());
                }
            }
            // Without any watch nothing is answered.
            if self.open.is_empty() && self.asked.is_empty() {
                return Ok(());
            }
        }
        let bound = self.world.history().bound();
        if self.world.stopped() || self.open.values().any(|session| session.start > bound) {
            return Ok(());
        }
        let watches: Vec<_> = self.open.values().map(|session| (session.start, &session.key)).collect();
        Err(End::Broken(format!("no progress answer within {PATIENCE:?}: watches from {watches:?}")))
    }
}

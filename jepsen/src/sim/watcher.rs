//! Watchers: each follows one stream on one member, goes away, comes back where it was, elsewhere. What it is told is held
//! against the history by the nine guarantees ([`checker`](crate::watch::checker)).

use std::task::{Context as TaskContext, Poll, Waker};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use cairn_proto::{
    etcdserverpb::{ResponseHeader, WatchResponse},
    mvccpb::{Event as WireEvent, KeyValue, event::EventType},
};
use cairn_server::state::{Members, auth::Authorizer};
use cairn_server::watch::{CatchUp, NO_WATCHER, Step, StreamOptions, WatchAnswer, WatchEvent, WatchStream};
use prost::Message;
use rand::Rng;

use super::{
    clock::MS,
    history::FIRST_REVISION,
    plant::Plant,
    world::{Event, World},
};
use crate::watch::checker::{Session, ask_progress};

/// Watchers in a run.
pub(super) const WATCHERS: usize = 3;
/// Answers of watchers that want fragments are split at so many bytes.
const FRAGMENT_BYTES: usize = 400;
/// Microseconds between two looks at a stream, at most.
const LOOK_MAX: u64 = 250 * MS;
/// Turns that a stream gets to say that it is in sync, once nothing happens any more.
const TURNS_MAX: usize = 10_000;

/// A stream that is open.
struct Open {
    at: usize,
    run: u64,
    stream: WatchStream,
    /// A piece of the past that is to be read.
    job: Option<CatchUp>,
    /// The next answer with events is of a piece of the past.
    caught_up: bool,
    /// Without a start revision, it is told nothing up to here: what its member had shown before.
    after: i64,
}

/// One watcher.
#[derive(Default)]
pub(super) struct Watcher {
    session: Session,
    open: Option<Open>,
}

fn wire_event(event: &WatchEvent) -> Result<WireEvent> {
    let change = &event.change;
    let mut kv = KeyValue::decode(&change.stored[..])?;
    let kind = if change.tombstone { EventType::Delete } else { EventType::Put };
    if change.tombstone {
        kv.mod_revision = change.at.main;
    }
    let prev_kv = event.previous.as_ref().map(|previous| KeyValue::decode(&previous[..])).transpose()?;
    Ok(WireEvent { r#type: kind.into(), kv: Some(kv), prev_kv })
}

fn wire(answer: &WatchAnswer) -> Result<WatchResponse> {
    Ok(WatchResponse {
        header: Some(ResponseHeader { revision: answer.revision, ..ResponseHeader::default() }),
        watch_id: answer.watch_id,
        created: answer.created,
        canceled: answer.canceled,
        compact_revision: answer.compact_revision,
        cancel_reason: answer.cancel_reason.to_owned(),
        fragment: answer.fragment,
        events: answer.events.iter().map(wire_event).collect::<Result<_>>()?,
    })
}

impl World {
    /// A watcher's turn.
    pub(super) fn watcher_turn(&mut self, watcher: usize) -> Result<()> {
        if self.watchers[watcher].open.is_none() {
            self.open_watch(watcher)?;
        } else if !self.healing && self.random.random_range(0..40) == 0 {
            self.close_watch(watcher)?;
        } else {
            if self.random.random_range(0..8) == 0
                && let Some(open) = &mut self.watchers[watcher].open
            {
                open.stream.request(ask_progress(), |_| Ok(Authorizer::default().own()));
            }
            for _ in 0..self.random.random_range(1..6) {
                if !self.look(watcher)? {
                    break;
                }
            }
        }
        let pause = self.random.random_range(MS..LOOK_MAX);
        self.clock.after(pause, Event::Watcher { watcher });
        Ok(())
    }

    /// Opens a stream on a member that runs, where the last one ended or anywhere.
    fn open_watch(&mut self, watcher: usize) -> Result<()> {
        let at = self.random.random_range(0..self.members.len());
        let resume = self.watchers[watcher].session.resume().filter(|_| self.random.random_range(0..4) > 0);
        let newest = self.history.newest();
        let session = match resume {
            Some(start) => {
                Session { start, answers: Vec::new(), ..std::mem::take(&mut self.watchers[watcher].session) }
            }
            None => self.draw_watch(newest),
        };
        if !self.serves(at) {
            self.watchers[watcher].session = session;
            return Ok(());
        }
        let run = self.members[at].run.as_ref().context("a member that serves runs")?;
        note!(self, "watch {watcher} at {} from {} of {newest}", at + 1, session.start);
        let mut stream = run.hub.open(StreamOptions { fragment_bytes: FRAGMENT_BYTES });
        stream.request(session.request(), |_| Ok(Authorizer::default().own()));
        let after = if session.start == 0 && !self.setting.ungated { self.members[at].shown } else { 0 };
        let open = Some(Open { at, run: run.number, stream, job: None, caught_up: false, after });
        self.watchers[watcher] = Watcher { session, open };
        self.coverage.watches += 1;
        self.revision_seen(at)
    }

    fn draw_watch(&mut self, newest: i64) -> Session {
        let (key, range_end) = match self.random.random_range(0..3) {
            0 => (super::client::key(0), Bytes::new()),
            1 => (super::client::key(0), super::client::key(3)),
            _ => (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")),
        };
        let start = match self.random.random_range(0..4) {
            0 => 0,
            1 => newest + self.random.random_range(0..4),
            2 => self.random.random_range(FIRST_REVISION..=newest),
            _ => (newest - self.random.random_range(0..20)).max(FIRST_REVISION),
        };
        Session::draw(key, range_end, start, &mut self.random)
    }

    /// Gives a stream a turn. `false` if there was nothing to do.
    fn look(&mut self, watcher: usize) -> Result<bool> {
        let late = self.random.random_range(0..3) == 0;
        let Watcher { session, open: Some(open) } = &mut self.watchers[watcher] else { return Ok(false) };
        if let Some(job) = open.job.take_if(|_| !late || self.healing) {
            open.stream.caught_up(job.run()?);
            open.caught_up = true;
        }
        match open.stream.poll_next(&mut TaskContext::from_waker(Waker::noop())) {
            Poll::Pending => Ok(false),
            Poll::Ready(Step::Read(job)) => {
                open.job = Some(job);
                self.coverage.catch_ups += 1;
                Ok(true)
            }
            Poll::Ready(Step::Recheck) => {
                open.stream.recheck(|_| Ok(Authorizer::default().own()));
                Ok(true)
            }
            Poll::Ready(Step::Closed) => bail!("a watch stream ended on a member that runs"),
            Poll::Ready(Step::Answer(answer)) => {
                let mut answer = wire(&answer)?;
                if std::mem::take(&mut open.caught_up) && self.setting.plant == Some(Plant::CatchUpSkips) {
                    skip_first_revision(&mut answer);
                }
                note!(
                    self,
                    "watcher {watcher} is told {} events, {:?}",
                    answer.events.len(),
                    answer.header.as_ref().map(|header| header.revision)
                );
                let first =
                    answer.events.first().and_then(|event| event.kv.as_ref()).map_or(i64::MAX, |kv| kv.mod_revision);
                ensure!(first > open.after, "a watcher without a start revision is told {first} after {}", open.after);
                let ended = answer.canceled;
                session.answers.push((answer, self.history.compaction));
                if ended {
                    self.close_watch(watcher)?;
                }
                Ok(!ended)
            }
        }
    }

    /// Ends a watcher's stream, if it has one, and judges what it was told.
    fn close_watch(&mut self, watcher: usize) -> Result<()> {
        let watcher = &mut self.watchers[watcher];
        if watcher.open.take().is_none() {
            return Ok(());
        }
        let session = &watcher.session;
        ensure!(
            session.needs() <= self.history.newest(),
            "a watcher was told of revision {}, which never was",
            session.needs()
        );
        self.coverage.told += session
            .check(&self.history.told)
            .with_context(|| format!("watch of {:?} to {:?} from {}", session.key, session.range_end, session.start))?
            as u64;
        let bookmark = |answer: &WatchResponse| answer.events.is_empty() && !answer.created && !answer.canceled;
        self.coverage.bookmarks += session.answers.iter().filter(|(answer, _)| bookmark(answer)).count() as u64;
        self.coverage.compacted += session.answers.iter().filter(|(answer, _)| answer.canceled).count() as u64;
        Ok(())
    }

    /// A run has ended, and its streams with it.
    pub(super) fn close_watches_of(&mut self, at: usize) -> Result<()> {
        for watcher in 0..self.watchers.len() {
            if self.watchers[watcher].open.as_ref().is_some_and(|open| open.at == at) {
                self.close_watch(watcher)?;
            }
        }
        Ok(())
    }

    /// When nothing happens any more, every stream on one of `members` must be told everything, and say so.
    pub(super) fn finish_watches(&mut self, members: &Members) -> Result<()> {
        for watcher in 0..self.watchers.len() {
            let mut turns = 0;
            while let Some(open) = &mut self.watchers[watcher].open {
                turns += 1;
                let (at, run) = (open.at, open.run);
                if !members.members.contains_key(&(at as u64 + 1)) {
                    self.close_watch(watcher)?;
                    continue;
                }
                ensure!(turns <= TURNS_MAX, "watcher {watcher} is never in sync");
                if turns % 5 == 0 {
                    open.stream.request(ask_progress(), |_| Ok(Authorizer::default().own()));
                }
                ensure!(self.running(at)?.number == run, "a stream outlived the run of its member");
                self.dispatch(at)?;
                self.look(watcher)?;
                let Watcher { session, open } = &self.watchers[watcher];
                let newest = self.history.newest();
                let in_sync = session.answers.last().is_some_and(|(answer, _)| {
                    answer.watch_id == NO_WATCHER
                        && answer.events.is_empty()
                        && answer.header.as_ref().is_some_and(|header| header.revision >= newest)
                });
                if open.is_some() && (in_sync || session.start > newest) {
                    self.close_watch(watcher)?;
                }
            }
        }
        Ok(())
    }
}

/// For [`Plant::CatchUpSkips`].
fn skip_first_revision(answer: &mut WatchResponse) {
    let revision = |event: &WireEvent| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    let first = answer.events.first().map_or(0, revision);
    if answer.events.last().is_some_and(|last| revision(last) != first) {
        answer.events.retain(|event| revision(event) != first);
    }
}

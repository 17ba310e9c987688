//! A stream's mailbox: where the dispatcher puts the events of its live watchers, bounded.
//!
//! It holds no events but their numbers in the [window](super::window): the bytes of an event are in memory once,
//! whoever waits for them, and a stream that is never read keeps none of them alive. A watcher whose queue is full, or
//! whose events have gone out of the window, *lags* from a revision on: what was queued before it is still delivered,
//! and from there it catches up.

use std::{
    collections::{BTreeMap, VecDeque},
    task::Waker,
};

use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;

use super::{WatchEvent, window::Window};

/// Events that may wait on a stream.
const PLACES_MAX: usize = if cfg!(test) { 6 } else { 512 };
/// Events that each watcher may have waiting, even on a stream that has too many.
const PLACES_OF_WATCHER_MIN: usize = if cfg!(test) { 2 } else { 16 };

/// Where an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Its revision.
    pub(super) main: i64,
    /// Its number in the window.
    pub(super) number: u64,
}

/// One live watcher's queue.
#[derive(Debug, Default)]
struct Pending {
    places: VecDeque<Place>,
    lagging: Option<i64>,
    ready: bool,
}

#[derive(Debug, Default)]
struct Content {
    watchers: BTreeMap<i64, Pending>,
    /// Watchers with something to take, each once.
    ready: VecDeque<i64>,
    places: usize,
    waker: Option<Waker>,
    /// Something was queued since the last wake-up.
    due: bool,
}

impl Content {
    fn mark(&mut self, id: i64) {
        if let Some(pending) = self.watchers.get_mut(&id)
            && !std::mem::replace(&mut pending.ready, true)
        {
            self.ready.push_back(id);
        }
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Mailbox {
    content: Mutex<Content>,
    waiting: Gauge,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pushed {
    /// It is queued, or not wanted here any more.
    Taken {
        /// It is the first one since the stream was woken: the stream is to be woken after the slice.
        wake: bool,
    },
    /// The queue was full: the watcher lags from this revision on.
    Lags,
}

/// Events of one watcher.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) id: i64,
    /// Whole revisions, in order, with the previous values that are known.
    pub(super) events: Vec<WatchEvent>,
    /// Set when the watcher has to catch up from there; it is then no longer known here.
    pub(super) behind: Option<i64>,
}

impl Mailbox {
    /// An empty one that counts what waits in it.
    pub(super) fn new(waiting: Gauge) -> Self {
        Self { content: Mutex::default(), waiting }
    }

    /// Enters a live watcher.
    pub(super) fn open(&self, id: i64) {
        self.content.lock().watchers.insert(id, Pending::default());
    }

    /// Forgets a watcher and what waits for it.
    pub(super) fn close(&self, id: i64) {
        let content = &mut *self.content.lock();
        let Some(pending) = content.watchers.remove(&id) else { return };
        content.places -= pending.places.len();
        self.waiting.dec_by(pending.places.len() as i64);
        if pending.ready {
            content.ready.retain(|ready| *ready != id);
        }
    }

    /// Queues an event. It can be taken once its whole revision is dispatched.
    pub(super) fn push(&self, id: i64, place: Place) -> Pushed {
        let content = &mut *self.content.lock();
        let Some(pending) = content.watchers.get_mut(&id).filter(|pending| pending.lagging.is_none()) else {
            return Pushed::Taken { wake: false };
        };
        let full = content.places >= PLACES_MAX && pending.places.len() >= PLACES_OF_WATCHER_MIN;
        if full {
            // A revision is delivered whole, so what is queued of this one has to be read again.
            while pending.places.pop_back_if(|last| last.main == place.main).is_some() {
                content.places -= 1;
                self.waiting.dec();
            }
            pending.lagging = Some(place.main);
        } else {
            pending.places.push_back(place);
            content.places += 1;
            self.waiting.inc();
        }
        content.mark(id);
        let wake = !std::mem::replace(&mut content.due, true);
        if full { Pushed::Lags } else { Pushed::Taken { wake } }
    }

    /// Makes a watcher lag from `revision` on.
    pub(super) fn lag(&self, id: i64, revision: i64) {
        let content = &mut *self.content.lock();
        if let Some(pending) = content.watchers.get_mut(&id).filter(|pending| pending.lagging.is_none()) {
            pending.lagging = Some(revision);
            content.mark(id);
        }
    }

    /// Takes about `bytes_max` bytes of events up to revision `dispatched` of the watcher whose turn it is.
    pub(super) fn take(&self, window: &Window, dispatched: i64, bytes_max: usize) -> Option<Taken> {
        let content = &mut *self.content.lock();
        for _ in 0..content.ready.len() {
            let id = content.ready.pop_front()?;
            let Some(pending) = content.watchers.get_mut(&id) else { continue };
            pending.ready = false;
            let (mut events, mut bytes, mut current) = (Vec::new(), 0, 0);
            while let Some(place) = pending.places.front().copied().filter(|place| place.main <= dispatched) {
                if place.main != current && bytes >= bytes_max {
                    break;
                }
                let Some((batch, at)) = window.event(place.number) else {
                    // Whole batches go out, and a batch holds whole revisions.
                    content.places -= pending.places.len();
                    self.waiting.dec_by(pending.places.len() as i64);
                    pending.places.clear();
                    pending.lagging = Some(place.main);
                    break;
                };
                let event = WatchEvent::of(&batch.events[at]);
                bytes += event.wire_bytes();
                current = place.main;
                events.push(event);
                pending.places.pop_front();
                content.places -= 1;
                self.waiting.dec();
            }
            let behind = pending.lagging.filter(|_| pending.places.is_empty());
            if behind.is_some() {
                content.watchers.remove(&id);
            } else if !pending.places.is_empty() {
                content.mark(id);
            }
            if !events.is_empty() || behind.is_some() {
                return Some(Taken { id, events, behind });
            }
        }
        None
    }

    /// Whether nothing up to `dispatched` waits for `id`, or for anybody.
    pub(super) fn is_drained(&self, id: Option<i64>, dispatched: i64) -> bool {
        let content = self.content.lock();
        let drained = |pending: &Pending| {
            pending.lagging.is_none() && pending.places.front().is_none_or(|place| place.main > dispatched)
        };
        match id {
            Some(id) => content.watchers.get(&id).is_none_or(drained),
            None => content.watchers.values().all(drained),
        }
    }

    /// Who is to be woken.
    pub(super) fn listen(&self, waker: &Waker) {
        let content = &mut *self.content.lock();
        match &mut content.waker {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
    }

    /// Wakes whoever listens.
    pub(super) fn wake(&self) {
        let mut content = self.content.lock();
        content.due = false;
        let waker = content.waker.take();
        drop(content);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

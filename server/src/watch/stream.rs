//! One client's stream of watchers: requests in, answers out.
//!
//! ```text
//!                  start in the future, or now            caught up to `dispatched`
//!   create ──┬──────────────────────────────▶ Live ◀───────────────────────────┐
//!            └─▶ Behind ◀─ queue full, or events gone from the window ─┘        │
//!                  │  ▲                                                         │
//!                  │  └─ piece read ── Reading ◀── window lacks it, or prev_kv ─┤
//!                  └──── a piece of the window, at once ────────────────────────┘
//! ```
//! A watcher that is behind takes pieces until it has everything up to `dispatched`; in the same step it becomes live,
//! so nothing is missed and nothing comes twice. Its pieces go out before anything that is queued for it as a live one.
//!
//! Answers are made when they are asked for, so that a client that does not read costs its watchers' queues and nothing
//! more.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    task::{Context, Poll},
};

use cairn_proto::{
    ApiError, cancel_reason,
    etcdserverpb::{WatchCreateRequest, WatchRequest, watch_request::RequestUnion},
};

use super::{
    CatchUp, CaughtUp, WatchAnswer, WatchEvent,
    catch_up::{Found, From},
    event::NO_WATCHER,
    hub::Shared,
    interest::Interest,
    mailbox::{Mailbox, Taken},
    matcher::Slot,
    registry::Live,
};
use crate::state::auth::Permit;

/// Events of one answer, in bytes. Exceeded only to finish a revision.
const ANSWER_BYTES_MAX: usize = if cfg!(test) { 100 } else { 64 << 10 };
/// Events of the window looked at in one step. Exceeded only to finish a revision.
const SCAN_EVENTS_MAX: usize = if cfg!(test) { 3 } else { 1024 };
/// Numbers of compacted watchers that are kept until they are cancelled. Of more the smallest is free again.
const COMPACTED_MAX: usize = if cfg!(test) { 2 } else { 16 << 10 };
/// Steps without an answer before others get their turn.
const STEPS_MAX: usize = 8;

/// What a stream is opened with.
#[derive(Debug, Clone, Copy)]
pub struct StreamOptions {
    /// Answers of watchers that asked for fragments are split at about this many bytes.
    pub fragment_bytes: usize,
}

/// What there is to do for a stream.
#[derive(Debug)]
pub enum Step {
    /// Send this.
    Answer(WatchAnswer),
    /// Users or roles have changed: give what is still permitted to [`WatchStream::recheck`].
    Recheck,
    /// Run this where blocking is allowed, and give the result to [`WatchStream::caught_up`]. There is one at a time.
    Read(CatchUp),
    /// The hub was closed: nothing more will come.
    Closed,
}

/// What a watcher that is behind did with its turn.
enum Turn {
    /// There is none, or a piece is being read.
    Nobody,
    /// It did something.
    Taken,
    /// It needs a piece to be read.
    Read(CatchUp),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// New events come through the mailbox.
    Live(Slot),
    /// It knows everything before this revision.
    Behind(i64),
    /// A piece is being read for it.
    Reading,
}

#[derive(Debug)]
struct Watcher {
    serial: u64,
    interest: Arc<Interest>,
    /// The first revision that the client asked for, or the one after the newest when it asked for none.
    start: i64,
    /// The client named a revision.
    named: bool,
    phase: Phase,
    fragment: bool,
    /// Whether it is told the revision from time to time, and whether there were no events since the last time.
    quiet: Option<bool>,
}

/// See the module's text.
#[derive(Debug)]
pub struct WatchStream {
    hub: Arc<Shared>,
    options: StreamOptions,
    serial: u64,
    mailbox: Arc<Mailbox>,
    watchers: BTreeMap<i64, Watcher>,
    /// Numbers of watchers that were ended because of a compaction: in use until the client cancels them.
    compacted: BTreeSet<i64>,
    next_id: i64,
    /// Ready to be sent.
    out: VecDeque<WatchAnswer>,
    /// Watchers that are behind, in the order of their turns.
    behind: VecDeque<i64>,
    /// A piece is being read.
    reading: bool,
    behind_first: bool,
    /// A progress answer is wanted, at this revision or above.
    progress: Option<i64>,
    /// The last change of users or roles after which the watchers were checked.
    permissions: u64,
}

impl WatchStream {
    pub(super) fn new(hub: Arc<Shared>, options: StreamOptions) -> Self {
        let serial = hub.next_serial();
        Self {
            mailbox: hub.open_mailbox(serial),
            permissions: hub.permissions(),
            hub,
            options,
            serial,
            watchers: BTreeMap::new(),
            compacted: BTreeSet::new(),
            next_id: 0,
            out: VecDeque::new(),
            behind: VecDeque::new(),
            reading: false,
            behind_first: false,
            progress: None,
        }
    }

    /// Whether all answers made so far are taken: the time to take the next request.
    pub fn is_settled(&self) -> bool {
        self.out.is_empty()
    }

    /// Takes a request. `authorize` permits a watcher before it is created. A request of no kind is passed over.
    pub fn request(&mut self, request: WatchRequest, authorize: impl FnOnce(&Interest) -> Result<Permit, ApiError>) {
        match request.request_union {
            Some(RequestUnion::CreateRequest(create)) => {
                let interest = Interest::of(&create);
                match authorize(&interest) {
                    Ok(_permit) => self.create(&create, interest),
                    Err(error) => self.refuse(reason_of(error)),
                }
            }
            Some(RequestUnion::CancelRequest(cancel)) => self.cancel(cancel.watch_id),
            Some(RequestUnion::ProgressRequest(_)) => {
                let revision = self.hub.reader.revision();
                self.progress = self.is_in_sync(revision).then_some(revision);
            }
            None => {}
        }
    }

    /// Ends the watchers that `authorize` does not permit any more.
    pub fn recheck(&mut self, mut authorize: impl FnMut(&Interest) -> Result<Permit, ApiError>) {
        let refused: Vec<_> = self
            .watchers
            .iter()
            .filter_map(|(id, watcher)| authorize(&watcher.interest).err().map(|error| (*id, reason_of(error))))
            .collect();
        let revision = self.hub.reader.revision();
        for (watch_id, cancel_reason) in refused {
            self.end(watch_id);
            self.out.push_back(WatchAnswer {
                revision,
                watch_id,
                canceled: true,
                cancel_reason,
                ..WatchAnswer::default()
            });
        }
    }

    /// Whether there are watchers, and all of them are live and have begun.
    fn is_in_sync(&self, revision: i64) -> bool {
        !self.watchers.is_empty() && self.watchers.values().all(|watcher| watcher.is_in_sync(revision))
    }

    fn refuse(&mut self, cancel_reason: &'static str) {
        let revision = self.hub.reader.revision();
        self.out.push_back(WatchAnswer {
            revision,
            watch_id: NO_WATCHER,
            created: true,
            canceled: true,
            cancel_reason,
            ..WatchAnswer::default()
        });
    }

    fn create(&mut self, request: &WatchCreateRequest, interest: Interest) {
        if request.start_revision < 0 {
            return self.refuse(cancel_reason::NEGATIVE_START);
        }
        if interest.is_empty() {
            return self.refuse(cancel_reason::EMPTY_RANGE);
        }
        let id = match request.watch_id {
            0 => self.free_id(),
            taken if self.is_taken(taken) => return self.refuse(cancel_reason::DUPLICATE_WATCH_ID),
            id => id,
        };
        let interest = Arc::new(interest);
        let serial = self.hub.next_serial();
        let mut registry = self.hub.settled();
        let revision = self.hub.reader.revision();
        let named = request.start_revision > 0;
        let start = if named { request.start_revision } else { revision + 1 };
        let phase = if start > revision {
            let (mailbox, interest) = (self.mailbox.clone(), interest.clone());
            Phase::Live(self.hub.enter(&mut registry, Live { serial, id, mailbox, interest, start }))
        } else {
            self.hub.metrics.slow.inc();
            self.behind.push_back(id);
            Phase::Behind(start)
        };
        drop(registry);
        self.hub.metrics.watchers.inc();
        let quiet = request.progress_notify.then_some(true);
        self.watchers.insert(id, Watcher { serial, interest, start, named, phase, fragment: request.fragment, quiet });
        self.out.push_back(WatchAnswer { revision, watch_id: id, created: true, ..WatchAnswer::default() });
    }

    fn is_taken(&self, id: i64) -> bool {
        self.watchers.contains_key(&id) || self.compacted.contains(&id)
    }

    /// The next number that is not used.
    fn free_id(&mut self) -> i64 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1);
            if !self.is_taken(id) {
                return id;
            }
        }
    }

    fn cancel(&mut self, watch_id: i64) {
        if self.end(watch_id) || self.compacted.remove(&watch_id) {
            let revision = self.hub.reader.revision();
            self.out.push_back(WatchAnswer { revision, watch_id, canceled: true, ..WatchAnswer::default() });
        }
    }

    /// Ends a watcher. `false` if there is none of that number.
    fn end(&mut self, id: i64) -> bool {
        let Some(watcher) = self.watchers.remove(&id) else { return false };
        let live = match watcher.phase {
            Phase::Live(slot) => self.hub.withdraw(slot, watcher.serial),
            Phase::Behind(_) | Phase::Reading => false,
        };
        self.mailbox.close(id);
        if !live {
            self.hub.metrics.slow.dec();
            self.behind.retain(|behind| *behind != id);
        }
        self.hub.metrics.watchers.dec();
        true
    }

    /// Tells a watcher that it cannot have what it wants.
    fn end_compacted(&mut self, watch_id: i64) {
        let compact_revision = self.hub.reader.compacted();
        if self.end(watch_id) {
            self.compacted.insert(watch_id);
            if self.compacted.len() > COMPACTED_MAX {
                self.compacted.pop_first();
            }
            self.out.push_back(WatchAnswer { watch_id, canceled: true, compact_revision, ..WatchAnswer::default() });
        }
    }

    /// Some time has passed: watchers that asked for it and had no events since the last time are told the revision.
    pub fn tick(&mut self) {
        let dispatched = self.hub.dispatched();
        for (id, watcher) in &mut self.watchers {
            let Some(quiet) = &mut watcher.quiet else { continue };
            if !std::mem::replace(quiet, true) || !watcher.is_in_sync(dispatched) {
                continue;
            }
            if self.mailbox.is_drained(Some(*id), dispatched) {
                self.out.push_back(WatchAnswer { revision: dispatched, watch_id: *id, ..WatchAnswer::default() });
            }
        }
    }

    /// The next thing to do.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Step> {
        self.mailbox.listen(context.waker());
        for _ in 0..STEPS_MAX {
            if let Some(answer) = self.out.pop_front() {
                return Poll::Ready(Step::Answer(answer));
            }
            if self.hub.is_closed() {
                return Poll::Ready(Step::Closed);
            }
            // Before any event is taken that was published later.
            let permissions = self.hub.permissions();
            if std::mem::replace(&mut self.permissions, permissions) != permissions {
                return Poll::Ready(Step::Recheck);
            }
            self.behind_first = !self.behind_first;
            let live = !self.behind_first && self.take_live();
            if live {
                continue;
            }
            match self.step_behind() {
                Turn::Read(job) => return Poll::Ready(Step::Read(job)),
                Turn::Taken => continue,
                Turn::Nobody => {}
            }
            if !self.take_live() && !self.report_progress() {
                return Poll::Pending;
            }
        }
        if let Some(answer) = self.out.pop_front() {
            return Poll::Ready(Step::Answer(answer));
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Makes an answer of what waits for a live watcher. `false` if nothing does.
    fn take_live(&mut self) -> bool {
        let taken = self.mailbox.take(&self.hub.window.read(), self.hub.dispatched(), ANSWER_BYTES_MAX);
        let Some(Taken { id, events, behind }) = taken else { return false };
        if let Some(next) = behind
            && let Some(watcher) = self.watchers.get_mut(&id)
        {
            if let Phase::Live(slot) = watcher.phase
                && self.hub.withdraw(slot, watcher.serial)
            {
                self.hub.metrics.slow.inc();
                self.hub.metrics.fallen_behind.inc();
            }
            watcher.phase = Phase::Behind(next);
            self.behind.push_back(id);
        }
        let revision = events.last().map_or(0, |event| event.change.at.main);
        self.send(id, revision, events);
        true
    }

    /// Lets the next watcher that is behind catch up a little,
    /// unless a piece is being read already.
    fn step_behind(&mut self) -> Turn {
        if self.reading {
            return Turn::Nobody;
        }
        let Some(id) = self.behind.pop_front() else { return Turn::Nobody };
        let Some(watcher) = self.watchers.get_mut(&id) else { return Turn::Taken };
        let Phase::Behind(next) = watcher.phase else { return Turn::Taken };
        if next < self.hub.reader.compacted() {
            self.end_compacted(id);
            return Turn::Taken;
        }
        let (serial, interest) = (watcher.serial, watcher.interest.clone());
        // Most of what is behind after a reconnection is about keys that nothing happened to.
        let next = self.hub.reader.first_change(&interest.from, &interest.end, next).unwrap_or(next);
        let mut registry = self.hub.settled();
        let dispatched = self.hub.dispatched();
        let scanned =
            if next > dispatched { Some((Vec::new(), next)) } else { scan(&self.hub, &interest, next, dispatched) };
        let from = match scanned {
            None => From::Store(next, dispatched),
            Some((events, next)) if interest.previous && !events.is_empty() => From::Window { events, next },
            Some((events, next)) => {
                if next > dispatched {
                    let (mailbox, start) = (self.mailbox.clone(), next);
                    let slot = self.hub.enter(&mut registry, Live { serial, id, mailbox, interest, start });
                    watcher.phase = Phase::Live(slot);
                    self.hub.metrics.slow.dec();
                } else {
                    watcher.phase = Phase::Behind(next);
                    self.behind.push_back(id);
                }
                drop(registry);
                self.send(id, self.hub.reader.revision(), events);
                return Turn::Taken;
            }
        };
        drop(registry);
        watcher.phase = Phase::Reading;
        self.reading = true;
        Turn::Read(CatchUp { reader: self.hub.reader.clone(), id, serial, interest, from })
    }

    /// Takes what a piece gave.
    pub fn caught_up(&mut self, caught: CaughtUp) {
        let CaughtUp { id, serial, found } = caught;
        self.reading = false;
        // The watcher may have ended meanwhile, and its number may be another one's by now.
        let Some(watcher) = self.watchers.get_mut(&id).filter(|watcher| watcher.serial == serial) else { return };
        match found {
            Found::Compacted => self.end_compacted(id),
            Found::Events { events, next } => {
                watcher.phase = Phase::Behind(next);
                self.behind.push_back(id);
                self.send(id, self.hub.reader.revision(), events);
            }
        }
    }

    /// Answers a progress request, if there is one and its time has come.
    fn report_progress(&mut self) -> bool {
        let Some(wanted) = self.progress else { return false };
        // Others may have come since, or have fallen behind. Then nobody is told: clients ask again.
        if !self.is_in_sync(wanted.max(self.hub.dispatched())) {
            self.progress = None;
            return false;
        }
        if self.hub.wait_dispatched(wanted, &self.mailbox) {
            return false;
        }
        let revision = self.hub.dispatched();
        if !self.mailbox.is_drained(None, revision) {
            // They go first.
            return true;
        }
        self.progress = None;
        self.out.push_back(WatchAnswer { revision, watch_id: NO_WATCHER, ..WatchAnswer::default() });
        true
    }

    /// Queues events as one answer, or as several if the watcher asked for that.
    fn send(&mut self, watch_id: i64, revision: i64, mut events: Vec<WatchEvent>) {
        let Some(watcher) = self.watchers.get_mut(&watch_id).filter(|_| !events.is_empty()) else { return };
        if let Some(quiet) = &mut watcher.quiet {
            *quiet = false;
        }
        if !watcher.interest.previous {
            for event in &mut events {
                event.previous = None;
            }
        }
        self.hub.metrics.events.inc_by(events.len() as u64);
        let answer = |events, fragment| WatchAnswer { revision, watch_id, fragment, events, ..WatchAnswer::default() };
        if watcher.fragment {
            let (mut part, mut bytes) = (Vec::new(), 0);
            for event in events {
                if !part.is_empty() && bytes + event.wire_bytes() >= self.options.fragment_bytes {
                    self.out.push_back(answer(std::mem::take(&mut part), true));
                    bytes = 0;
                }
                bytes += event.wire_bytes();
                part.push(event);
            }
            events = part;
        }
        self.out.push_back(answer(events, false));
    }
}

impl Watcher {
    /// Whether it is live and has begun: everything up to `dispatched` is in the mailbox.
    fn is_in_sync(&self, dispatched: i64) -> bool {
        matches!(self.phase, Phase::Live(_)) && !(self.named && self.start > dispatched)
    }
}

/// What a client is told whose watcher is not permitted.
fn reason_of(error: ApiError) -> &'static str {
    match error {
        ApiError::UserEmpty => cancel_reason::USER_EMPTY,
        ApiError::InvalidAuthToken => cancel_reason::INVALID_AUTH_TOKEN,
        ApiError::AuthOldRevision => cancel_reason::AUTH_OLD_REVISION,
        _ => cancel_reason::PERMISSION_DENIED,
    }
}

/// Events of the window from `next` to `dispatched`, or some of them, and the revision to go on at. `None` if the
/// window does not go back that far.
fn scan(hub: &Shared, interest: &Interest, next: i64, dispatched: i64) -> Option<(Vec<WatchEvent>, i64)> {
    let window = hub.window.read();
    if next <= window.floor() {
        return None;
    }
    let (mut events, mut bytes, mut current) = (Vec::new(), 0, next);
    for (seen, recent) in window.from(next).enumerate() {
        let change = &recent.change;
        if change.at.main > dispatched {
            break;
        }
        if change.at.main != current && (bytes >= ANSWER_BYTES_MAX || seen >= SCAN_EVENTS_MAX) {
            return Some((events, change.at.main));
        }
        current = change.at.main;
        if interest.matches(change.key(), change.tombstone) {
            let event = WatchEvent::of(recent);
            bytes += event.wire_bytes();
            events.push(event);
        }
    }
    Some((events, dispatched + 1))
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        let ids: Vec<_> = self.watchers.keys().copied().collect();
        for id in ids {
            self.end(id);
        }
        self.hub.close_mailbox(self.serial);
    }
}

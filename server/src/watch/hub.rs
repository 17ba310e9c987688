//! The hub: takes what is published, finds who wants it, puts it into mailboxes.
//!
//! The thread that applies only pushes a batch into the window. Matching is done by whoever drives
//! [`Hub::poll_dispatch`], in slices, each of which ends with a whole revision. `dispatched` is the revision up to
//! which that is done; it is what "in sync" means, and a mailbox gives out nothing above it.
//!
//! Locks, in the order in which they are taken: registry, window, mailbox. Publishing takes only the window's, which is
//! never held for longer than a few hundred events take.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::{
    WatchMetrics, WatchStream,
    catch_up::value_before,
    interest::Interest,
    mailbox::{Mailbox, Place, Pushed},
    matcher::Slot,
    registry::{Live, Registry},
    stream::StreamOptions,
    window::{Batch, Window},
};
use crate::state::mvcc::{ChangeSink, Changes, ReadError, Reader};

/// Queue entries made in one slice. Exceeded only to finish a revision.
const SLICE_PLACES_MAX: usize = if cfg!(test) { 4 } else { 16 << 10 };
/// Events looked at in one slice. Exceeded only to finish a revision.
const SLICE_EVENTS_MAX: usize = if cfg!(test) { 3 } else { 1024 };

/// See the module's text. Clones share everything.
#[derive(Debug, Clone)]
pub struct Hub {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) reader: Reader,
    pub(super) window: RwLock<Window>,
    registry: Mutex<Registry>,
    /// Written with the registry locked.
    dispatched: AtomicI64,
    /// Whether whoever publishes has to wake the dispatcher.
    attention: AtomicBool,
    /// Live watchers that want previous values.
    wanting_previous: AtomicUsize,
    dispatcher: Mutex<Option<Waker>>,
    closed: AtomicBool,
    /// Changes of users or roles.
    permissions: AtomicU64,
    /// Those that the streams were woken for.
    rechecked: AtomicU64,
    serials: AtomicU64,
    pub(super) metrics: WatchMetrics,
}

impl ChangeSink for Hub {
    fn needs_previous(&self) -> bool {
        self.shared.wanting_previous.load(Ordering::SeqCst) > 0
    }

    fn changed(&self, changes: Changes) {
        let shared = &self.shared;
        shared.window.write().push(changes);
        if shared.attention.load(Ordering::SeqCst) {
            shared.wake_dispatcher();
        }
    }

    /// Whoever is live falls behind, and reads from the store what happened.
    fn jumped(&self, revision: i64) {
        let shared = &self.shared;
        shared.window.write().jump(revision);
        self.permissions_changed();
    }

    /// The dispatcher wakes the streams: they may be thousands, and the caller applies commands.
    fn permissions_changed(&self) {
        self.shared.permissions.fetch_add(1, Ordering::SeqCst);
        self.shared.wake_dispatcher();
    }
}

impl Hub {
    /// A hub over what `reader` reads, with a window of `window_bytes_max` bytes. It has to be told of every later change.
    pub fn new(reader: Reader, window_bytes_max: usize) -> Self {
        let revision = reader.revision();
        Self {
            shared: Arc::new(Shared {
                reader,
                window: RwLock::new(Window::new(revision, window_bytes_max)),
                registry: Mutex::default(),
                dispatched: AtomicI64::new(revision),
                attention: AtomicBool::new(false),
                wanting_previous: AtomicUsize::new(0),
                dispatcher: Mutex::default(),
                closed: AtomicBool::new(false),
                permissions: AtomicU64::new(0),
                rechecked: AtomicU64::new(0),
                serials: AtomicU64::new(0),
                metrics: WatchMetrics::default(),
            }),
        }
    }

    /// Opens a stream of watchers.
    pub fn open(&self, options: StreamOptions) -> WatchStream {
        WatchStream::new(self.shared.clone(), options)
    }

    /// Ends all streams, and the dispatcher.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.shared.wake_streams();
        self.shared.wake_dispatcher();
    }

    /// What the hub counts.
    pub fn metrics(&self) -> &WatchMetrics {
        &self.shared.metrics
    }

    /// The dispatcher: to be driven by one thread, which may wait for the disk here. Ready when the hub was closed, or
    /// when a read failed, which is fatal to the replica.
    pub fn poll_dispatch(&self, context: &mut Context<'_>) -> Poll<Result<(), ReadError>> {
        let shared = &self.shared;
        *shared.dispatcher.lock() = Some(context.waker().clone());
        loop {
            if shared.is_closed() {
                return Poll::Ready(Ok(()));
            }
            let permissions = shared.permissions();
            if shared.rechecked.swap(permissions, Ordering::Relaxed) != permissions {
                shared.wake_streams();
            }
            match shared.dispatch() {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl Shared {
    fn wake_dispatcher(&self) {
        let waker = self.dispatcher.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn wake_streams(&self) {
        let mailboxes: Vec<_> = self.registry.lock().mailboxes.values().cloned().collect();
        wake(&mailboxes);
    }

    /// Changes with users and roles.
    pub(super) fn permissions(&self) -> u64 {
        self.permissions.load(Ordering::SeqCst)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Everything up to this revision is in the mailboxes of the live watchers that want it.
    pub(super) fn dispatched(&self) -> i64 {
        self.dispatched.load(Ordering::Acquire)
    }

    pub(super) fn next_serial(&self) -> u64 {
        self.serials.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn open_mailbox(&self, serial: u64) -> Arc<Mailbox> {
        let mailbox = Arc::new(Mailbox::new(self.metrics.pending.clone()));
        self.registry.lock().mailboxes.insert(serial, mailbox.clone());
        self.metrics.streams.inc();
        mailbox
    }

    pub(super) fn close_mailbox(&self, serial: u64) {
        self.registry.lock().mailboxes.remove(&serial);
        self.metrics.streams.dec();
    }

    /// The registry, such that a watcher that knows everything up to `dispatched` can become live.
    pub(super) fn settled(&self) -> MutexGuard<'_, Registry> {
        let mut registry = self.registry.lock();
        // In this order: whatever is pushed after the window was looked at wakes the dispatcher.
        self.attention.store(true, Ordering::SeqCst);
        if registry.matcher.len() == 0 {
            self.skip(&mut registry);
        }
        registry
    }

    /// Nobody is live: everything there is counts as dispatched.
    fn skip(&self, registry: &mut Registry) {
        let window = self.window.read();
        window.unpin(registry.cursor);
        registry.cursor = window.end();
        self.dispatched.store(window.newest(), Ordering::Release);
    }

    /// Makes a watcher live that knows everything up to `dispatched`, or wants nothing of it. `registry` is settled.
    pub(super) fn enter(&self, registry: &mut Registry, live: Live) -> Slot {
        if live.interest.previous {
            self.wanting_previous.fetch_add(1, Ordering::SeqCst);
        }
        live.mailbox.open(live.id);
        registry.insert(live)
    }

    /// A watcher is no longer live. `false` if it was not.
    pub(super) fn withdraw(&self, slot: Slot, serial: u64) -> bool {
        let mut registry = self.registry.lock();
        let removed = registry.remove(slot, serial);
        removed.is_some_and(|live| {
            self.gone(&live.interest);
            true
        })
    }

    fn gone(&self, interest: &Interest) {
        if interest.previous {
            self.wanting_previous.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// Wakes `mailbox` once `revision` is dispatched. `false` if it is already.
    pub(super) fn wait_dispatched(&self, revision: i64, mailbox: &Arc<Mailbox>) -> bool {
        let mut registry = self.registry.lock();
        let waits = self.dispatched() < revision && registry.matcher.len() > 0;
        if waits {
            registry.waiting.retain(|(_, known)| !Arc::ptr_eq(known, mailbox));
            registry.waiting.push((revision, mailbox.clone()));
        }
        waits
    }

    /// Does a slice of what there is to do. `true` if there may be more.
    fn dispatch(&self) -> Result<bool, ReadError> {
        let mut registry = self.registry.lock();
        if registry.matcher.len() == 0 {
            // In this order: whoever becomes live next sets it again before it looks at the window.
            self.attention.store(false, Ordering::SeqCst);
            self.skip(&mut registry);
            let waiting = registry.take_waiting(i64::MAX);
            drop(registry);
            wake(&waiting);
            return Ok(false);
        }
        let next = {
            let window = self.window.read();
            if window.first() > registry.cursor {
                let floor = window.floor();
                registry.cursor = window.first();
                drop(window);
                self.lose(registry, floor);
                return Ok(true);
            }
            window.event(registry.cursor).map(|(batch, at)| (batch.clone(), at))
        };
        let Some((batch, at)) = next else { return Ok(false) };
        let mut woken = self.slice(&mut registry, &batch, at)?;
        woken.extend(registry.take_waiting(self.dispatched()));
        drop(registry);
        wake(&woken);
        Ok(true)
    }

    /// Events have gone out of the window before they were dispatched: all live watchers catch up from there.
    fn lose(&self, mut registry: MutexGuard<'_, Registry>, floor: i64) {
        let from = self.dispatched() + 1;
        self.dispatched.store(floor, Ordering::Release);
        let lost = registry.take_all();
        for live in &lost {
            live.mailbox.lag(live.id, from.max(live.start));
            self.fell(&live.interest);
        }
        let waiting = registry.take_waiting(i64::MAX);
        drop(registry);
        wake(lost.iter().map(|live| &live.mailbox).chain(&waiting));
    }

    fn fell(&self, interest: &Interest) {
        self.gone(interest);
        self.metrics.slow.inc();
        self.metrics.fallen_behind.inc();
    }

    /// Dispatches events of `batch` from `at` on; gives the streams to wake.
    fn slice(&self, registry: &mut Registry, batch: &Arc<Batch>, at: usize) -> Result<Vec<Arc<Mailbox>>, ReadError> {
        let mut woken: Vec<Arc<Mailbox>> = Vec::new();
        let (mut places, mut revision, mut hits) = (0, None, Vec::new());
        let mut index = at;
        for event in &batch.events[at..] {
            let change = &event.change;
            let main = change.at.main;
            if revision.is_some_and(|current| current != main)
                && (places >= SLICE_PLACES_MAX || index - at >= SLICE_EVENTS_MAX)
            {
                break;
            }
            revision = Some(main);
            let mut previous = false;
            hits.clear();
            registry.matcher.find(change.key(), &mut |slot| {
                let live = registry.get(slot).filter(|live| live.start <= main);
                if let Some(live) = live.filter(|live| live.interest.wants(change.tombstone)) {
                    previous |= live.interest.previous;
                    hits.push((slot, live.serial));
                }
            });
            if previous {
                self.find_previous(batch, index)?;
            }
            let place = Place { main, number: batch.first + index as u64 };
            for (slot, serial) in &hits {
                let Some(live) = registry.get(*slot) else { continue };
                match live.mailbox.push(live.id, place) {
                    Pushed::Taken { wake: false } => {}
                    Pushed::Taken { wake: true } => woken.push(live.mailbox.clone()),
                    Pushed::Lags => {
                        woken.push(live.mailbox.clone());
                        self.fell(&live.interest);
                        registry.remove(*slot, *serial);
                    }
                }
            }
            places += hits.len();
            index += 1;
        }
        registry.cursor = batch.first + index as u64;
        if index == batch.events.len() {
            batch.pin.lock().take();
        }
        if let Some(revision) = revision {
            self.dispatched.store(revision, Ordering::Release);
        }
        Ok(woken)
    }

    /// Reads the value before an event, unless it is known.
    fn find_previous(&self, batch: &Arc<Batch>, index: usize) -> Result<(), ReadError> {
        let event = &batch.events[index];
        if event.previous.get().is_none() {
            let previous = value_before(&self.reader, batch.pin.lock().as_ref(), &event.change)?;
            self.window.read().note_previous(batch, index, previous);
        }
        Ok(())
    }
}

fn wake<'a>(mailboxes: impl IntoIterator<Item = &'a Arc<Mailbox>>) {
    for mailbox in mailboxes {
        mailbox.wake();
    }
}

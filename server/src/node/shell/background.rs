//! Work that waits for the disk or takes long: the flush thread, the compaction thread, and the one that finds out who is
//! to hear of a change.

use std::{
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use super::{
    config::CompactionPace,
    inputs::{Input, Reports},
    shared::Shared,
};
use crate::{
    log::{DataDirLock, EntryId, EntryReader},
    node::{NodeError, NodeMetrics, snapshot::Received},
    raft::Fetch,
    state::{self, Compactor, StateError, mvcc::CompactionStep},
    store::LastFlush,
    watch::Hub,
};

/// Jobs that may wait. The core asks for one flush at a time, and for few fetches.
const JOBS_MAX: usize = 32;
/// How often the store's size is looked at, and whether it flushed by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before a compaction that was held up is tried again.
const HELD_PAUSE: Duration = Duration::from_millis(20);
/// How often is looked whether an index image is due.
const IMAGE_LOOK_EVERY: Duration = Duration::from_secs(5);
/// Writing the index image rests so many times as long as it works.
const IMAGE_PAUSE_FACTOR: u32 = 3;
/// The longest of these rests.
const IMAGE_PAUSE_MAX: Duration = Duration::from_millis(50);

enum Job {
    Flush,
    Fetch(Fetch),
    /// Make a snapshot for other members.
    Checkpoint,
    /// Let a received snapshot take the state's place.
    Switch(Box<Received>),
    /// The log goes on from the snapshot that was installed up to this entry.
    Settle(EntryId),
    /// The last one; with a flush if nothing failed.
    Stop {
        flush: bool,
    },
}

/// The end of the compaction thread; with an index image if nothing failed.
struct Stop {
    image: bool,
}

/// The threads.
pub(super) struct Background {
    jobs: Sender<Job>,
    flusher: JoinHandle<()>,
    stop_compacting: Sender<Stop>,
    /// Brings the compaction thread another compactor, and takes back one that it has not seen yet.
    compactors: (Sender<Compactor>, Receiver<Compactor>),
    compacting: JoinHandle<()>,
    hub: Closing,
    dispatching: JoinHandle<()>,
}

/// Closes the hub, and so ends its dispatcher, also when the replica's task is dropped instead of stopped.
struct Closing(Hub);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Background {
    /// Starts the threads. All keep the data directory locked while they run, but `hub`'s dispatcher, which only reads.
    pub(super) fn start(
        shared: &Arc<Shared>,
        inbox: &Reports,
        log: Arc<dyn EntryReader>,
        compacting: Compacting,
        hub: Hub,
        lock: &Arc<DataDirLock>,
        last_flush: Option<LastFlush>,
    ) -> std::io::Result<Self> {
        let (jobs, incoming) = bounded(JOBS_MAX);
        let flusher =
            Flusher { shared: Arc::clone(shared), log, inbox: inbox.clone(), persisted: 0, settle: None, last_flush };
        let held = Arc::clone(lock);
        let flusher = thread::Builder::new().name("store-flush".to_owned()).spawn(move || {
            flusher.run(&incoming);
            drop(held);
        })?;
        let (stop_compacting, stop) = bounded(1);
        let (compactors, replaced) = bounded(1);
        let replacing = replaced.clone();
        let (reports, held) = (inbox.clone(), Arc::clone(lock));
        let tidying = Arc::clone(shared);
        let compacting = thread::Builder::new().name("compaction".to_owned()).spawn(move || {
            if let Err(error) = compact(compacting, &tidying, &replacing, &stop) {
                reports.send(Input::Failed(error));
            }
            drop(held);
        })?;
        let (dispatched, reports) = (hub.clone(), inbox.clone());
        let dispatching = thread::Builder::new().name("watch".to_owned()).spawn(move || {
            if let Err(error) = dispatch(&dispatched) {
                reports.send(Input::Failed(error));
            }
        })?;
        Ok(Self {
            jobs,
            flusher,
            stop_compacting,
            compactors: (compactors, replaced),
            compacting,
            hub: Closing(hub),
            dispatching,
        })
    }

    /// Asks for a flush.
    pub(super) fn flush(&self) {
        self.order(Job::Flush);
    }

    /// Asks for entries of the log.
    pub(super) fn fetch(&self, fetch: Fetch) {
        self.order(Job::Fetch(fetch));
    }

    /// Asks for a snapshot for other members.
    pub(super) fn checkpoint(&self) {
        self.order(Job::Checkpoint);
    }

    /// Asks that a received snapshot takes the state's place.
    pub(super) fn switch(&self, received: Box<Received>) {
        self.order(Job::Switch(received));
    }

    /// Says that the log goes on from the snapshot that was installed up to entry `last`.
    pub(super) fn settle(&self, last: EntryId) {
        self.order(Job::Settle(last));
    }

    /// Lets the compaction thread go on with another state's.
    pub(super) fn replace_compactor(&self, compactor: Compactor) {
        let (sender, unseen) = &self.compactors;
        drop(unseen.try_recv());
        // There is room now, for nobody else sends.
        let _ = sender.try_send(compactor);
    }

    fn order(&self, job: Job) {
        // There is room; a thread that has ended has said why.
        let _ = self.jobs.try_send(job);
    }

    /// Ends the threads, if `flush` after a last flush. Waits for the disk.
    pub(super) fn stop(self, flush: bool) {
        drop(self.hub);
        let _ = self.dispatching.join();
        // A thread that has ended has said why.
        let _ = self.stop_compacting.send(Stop { image: flush });
        let _ = self.compacting.join();
        let _ = self.jobs.send(Job::Stop { flush });
        let _ = self.flusher.join();
    }
}

struct Flusher {
    shared: Arc<Shared>,
    log: Arc<dyn EntryReader>,
    inbox: Reports,
    persisted: u64,
    /// The state is to forget that it was being installed up to this entry. By then another one may be.
    settle: Option<EntryId>,
    /// For crash tests: keeps what was flushed.
    last_flush: Option<LastFlush>,
}

impl Flusher {
    fn run(mut self, jobs: &Receiver<Job>) {
        loop {
            let (flush, stop) = match jobs.recv_timeout(LOOK_EVERY) {
                Ok(Job::Flush) => (true, false),
                Ok(Job::Fetch(fetch)) => {
                    self.fetch(fetch);
                    continue;
                }
                Ok(Job::Checkpoint) => {
                    self.checkpoint();
                    continue;
                }
                Ok(Job::Switch(received)) => {
                    if let Err(error) = self.shared.installer.switch(&received, &self.shared.reader.store()) {
                        self.inbox.send(Input::Failed(NodeError::State(error.into())));
                        return;
                    }
                    self.inbox.send(Input::Switched(received));
                    continue;
                }
                Ok(Job::Settle(last)) => {
                    self.settle = Some(last);
                    (false, false)
                }
                Ok(Job::Stop { flush }) => (flush, true),
                Err(RecvTimeoutError::Timeout) => (false, false),
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = self.look(flush) {
                self.inbox.send(Input::Failed(error));
                return;
            }
            if stop {
                return;
            }
        }
    }

    /// Reads entries for a follower that lags.
    fn fetch(&self, fetch: Fetch) {
        let entries = self.log.entries(fetch.low, fetch.high, fetch.bytes_max).unwrap_or_else(|error| {
            tracing::warn!(%error, low = fetch.low, "entries for a follower could not be read");
            Vec::new()
        });
        self.inbox.send(Input::Fetched { id: fetch.id, entries });
    }

    /// Makes a snapshot for other members. That it fails is no harm to this one: a broken disk shows elsewhere.
    fn checkpoint(&self) {
        let started = Instant::now();
        let made = self.shared.outgoing.make(self.shared.reader.store().as_ref()).inspect_err(|error| {
            tracing::warn!(%error, "a snapshot for another member could not be made");
        });
        if let Ok(meta) = &made {
            let took = started.elapsed();
            self.shared.metrics.backend_snapshot.observe(took.as_secs_f64());
            self.shared.metrics.snap_save.observe(took.as_secs_f64());
            tracing::info!(index = meta.last.index, ?took, "made a snapshot for other members");
        }
        self.inbox.send(Input::Checkpointed(made.ok()));
    }

    fn look(&mut self, flush: bool) -> Result<(), NodeError> {
        let store = self.shared.reader.store();
        self.shared.installer.clean();
        if let Some(last) = self.settle {
            match state::mark_installed(store.as_ref(), last) {
                Ok(()) => self.settle = None,
                Err(StateError::Stalled) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if flush {
            let started = Instant::now();
            store.flush().map_err(|error| NodeError::State(error.into()))?;
            self.shared.metrics.flush.observe(started.elapsed().as_secs_f64());
        }
        let persisted = state::persisted_applied(store.as_ref())?;
        if flush || persisted > self.persisted {
            // Before the log is cut.
            if let Some(last) = &self.last_flush {
                last.keep(store.as_ref()).map_err(|error| NodeError::State(error.into()))?;
            }
            self.persisted = persisted;
            self.inbox.send(Input::Flushed(persisted));
        }
        self.shared.set_size(store.size().map_err(|error| NodeError::State(error.into()))?);
        Ok(())
    }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Drives the dispatcher until the hub is closed.
fn dispatch(hub: &Hub) -> Result<(), NodeError> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    loop {
        match hub.poll_dispatch(&mut context) {
            Poll::Ready(done) => return done.map_err(|error| NodeError::State(error.into())),
            Poll::Pending => thread::park(),
        }
    }
}

/// What the compaction thread works with.
pub(super) struct Compacting {
    pub(super) compactor: Compactor,
    /// Has a message whenever there may be something to compact.
    pub(super) notices: Receiver<()>,
    pub(super) pace: CompactionPace,
}

/// Revisions removed since the last pause.
#[derive(Debug, Default)]
struct SincePause(usize);

impl SincePause {
    /// How long to wait after a step that took so long; none is until there is something to do.
    fn after(&mut self, step: CompactionStep, took: Duration, pace: CompactionPace) -> Option<Duration> {
        match step {
            CompactionStep::Worked { removed } => {
                self.0 += removed;
                let pause = self.0 >= pace.revisions;
                if pause {
                    self.0 = 0;
                }
                Some(if pause { pace.pause } else { Duration::ZERO })
            }
            CompactionStep::Imaged => Some((took * IMAGE_PAUSE_FACTOR).min(IMAGE_PAUSE_MAX)),
            CompactionStep::Held { .. } => Some(HELD_PAUSE),
            CompactionStep::Idle => None,
        }
    }
}

/// When the compaction that is under way began, if one is: it ends when there is nothing to do but what nobody waits for.
#[derive(Debug, Default)]
struct UnderWay(Option<Duration>);

impl UnderWay {
    /// Measures a step that began then and took so long.
    fn after(&mut self, step: CompactionStep, began: Duration, took: Duration, metrics: &NodeMetrics) {
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        match step {
            CompactionStep::Worked { removed } => {
                self.0.get_or_insert(began);
                metrics.compaction_pause.observe(milliseconds(took));
                metrics.compaction_keys.inc_by(removed as u64);
            }
            CompactionStep::Idle | CompactionStep::Imaged => {
                let Some(since) = self.0.take() else { return };
                metrics.compaction_total.observe(milliseconds((began + took).saturating_sub(since)));
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                metrics.compaction_last.set(now.as_secs() as i64);
            }
            CompactionStep::Held { .. } => {}
        }
    }
}

/// Carries compactions out, gives their space back and writes index images, a step at a time, until told to stop.
///
/// `replacing` brings the compactor of a state that took the current one's place.
fn compact(
    compacting: Compacting,
    shared: &Shared,
    replacing: &Receiver<Compactor>,
    stop: &Receiver<Stop>,
) -> Result<(), NodeError> {
    let Compacting { mut compactor, notices: compactions, pace } = compacting;
    let started = Instant::now();
    let mut since_pause = SincePause::default();
    let mut under_way = UnderWay::default();
    loop {
        if let Some(new) = replacing.try_iter().last() {
            compactor = new;
        }
        let began = started.elapsed();
        let step = compactor.step(began)?;
        let took = started.elapsed().saturating_sub(began);
        under_way.after(step, began, took, &shared.metrics);
        if step == CompactionStep::Idle {
            shared.tidy()?;
        }
        let stopped = if let Some(pause) = since_pause.after(step, took, pace) {
            match stop.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => continue,
                stopped => stopped.ok(),
            }
        } else {
            select! {
                recv(stop) -> stopped => stopped.ok(),
                recv(compactions) -> notice => match notice {
                    Ok(()) => continue,
                    Err(_) => None,
                },
                recv(replacing) -> new => match new {
                    Ok(new) => {
                        compactor = new;
                        continue;
                    }
                    Err(_) => None,
                },
                default(IMAGE_LOOK_EVERY) => continue,
            }
        };
        if stopped.is_some_and(|Stop { image }| image) {
            compactor.write_image(started.elapsed())?;
        }
        return Ok(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compaction_pauses_whenever_it_has_removed_so_many_revisions() {
        let pace = CompactionPace { revisions: 10, pause: Duration::from_secs(7) };
        let mut since_pause = SincePause::default();
        let mut after = |removed| since_pause.after(CompactionStep::Worked { removed }, Duration::ZERO, pace).unwrap();
        assert_eq!([after(4), after(5), after(0)], [Duration::ZERO; 3]);
        assert_eq!([after(1), after(9), after(30)], [pace.pause, Duration::ZERO, pace.pause]);
        assert_eq!(since_pause.after(CompactionStep::Held { by: None }, Duration::ZERO, pace), Some(HELD_PAUSE));
        assert_eq!(since_pause.after(CompactionStep::Idle, Duration::ZERO, pace), None);
    }
}

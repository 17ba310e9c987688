//! Work that waits for the disk or takes long: the flush thread and the compaction thread.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, select};

use super::handle::{Input, Reports, Shared};
use crate::{
    log::{DataDirLock, EntryReader},
    node::NodeError,
    raft::Fetch,
    state::{self, Compactor, mvcc::CompactionStep},
    store::Store,
};

/// Jobs that may wait. The core asks for one flush at a time, and for few fetches.
const JOBS_MAX: usize = 32;
/// How often the store's size is looked at, and whether it flushed by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How long to wait before a compaction that was held up is tried again.
const HELD_PAUSE: Duration = Duration::from_millis(20);

enum Job {
    Flush,
    Fetch(Fetch),
    /// The last one; with a flush if nothing failed.
    Stop {
        flush: bool,
    },
}

/// The two threads.
pub(super) struct Background {
    jobs: Sender<Job>,
    flusher: JoinHandle<()>,
    stop_compacting: Sender<()>,
    compacting: JoinHandle<()>,
}

impl Background {
    /// Starts the threads. `compactions` has a message whenever there may be something to compact. Both keep the data
    /// directory locked while they run.
    pub(super) fn start(
        shared: &Arc<Shared>,
        inbox: &Reports,
        log: Arc<dyn EntryReader>,
        compactor: Compactor,
        compactions: Receiver<()>,
        lock: &Arc<DataDirLock>,
    ) -> std::io::Result<Self> {
        let (jobs, incoming) = bounded(JOBS_MAX);
        let flusher = Flusher {
            shared: Arc::clone(shared),
            store: Arc::clone(&shared.store),
            log,
            inbox: inbox.clone(),
            persisted: 0,
        };
        let held = Arc::clone(lock);
        let flusher = thread::Builder::new().name("store-flush".to_owned()).spawn(move || {
            flusher.run(&incoming);
            drop(held);
        })?;
        let (stop_compacting, stop) = bounded(1);
        let (inbox, held) = (inbox.clone(), Arc::clone(lock));
        let compacting = thread::Builder::new().name("compaction".to_owned()).spawn(move || {
            if let Err(error) = compact(compactor, &compactions, &stop) {
                inbox.send(Input::Failed(error));
            }
            drop(held);
        })?;
        Ok(Self { jobs, flusher, stop_compacting, compacting })
    }

    /// Asks for a flush.
    pub(super) fn flush(&self) {
        self.order(Job::Flush);
    }

    /// Asks for entries of the log.
    pub(super) fn fetch(&self, fetch: Fetch) {
        self.order(Job::Fetch(fetch));
    }

    fn order(&self, job: Job) {
        // There is room; a thread that has ended has said why.
        let _ = self.jobs.try_send(job);
    }

    /// Ends the threads, if `flush` after a last flush. Waits for the disk.
    pub(super) fn stop(self, flush: bool) {
        // A thread that has ended has said why.
        let _ = self.stop_compacting.send(());
        let _ = self.compacting.join();
        let _ = self.jobs.send(Job::Stop { flush });
        let _ = self.flusher.join();
    }
}

struct Flusher {
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    log: Arc<dyn EntryReader>,
    inbox: Reports,
    persisted: u64,
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

    fn look(&mut self, flush: bool) -> Result<(), NodeError> {
        if flush {
            let started = Instant::now();
            self.store.flush().map_err(|error| NodeError::State(error.into()))?;
            self.shared.metrics.backend_commit.observe(started.elapsed().as_secs_f64());
        }
        let persisted = state::persisted_applied(self.store.as_ref())?;
        if flush || persisted > self.persisted {
            self.persisted = persisted;
            self.inbox.send(Input::Flushed(persisted));
        }
        self.shared.set_size(self.store.size().map_err(|error| NodeError::State(error.into()))?);
        Ok(())
    }
}

/// Carries compactions out, a step at a time, until told to stop.
fn compact(mut compactor: Compactor, compactions: &Receiver<()>, stop: &Receiver<()>) -> Result<(), NodeError> {
    let started = Instant::now();
    loop {
        let pause = match compactor.step(started.elapsed())? {
            CompactionStep::Worked { .. } => Some(Duration::ZERO),
            CompactionStep::Held { .. } => Some(HELD_PAUSE),
            CompactionStep::Idle => None,
        };
        if let Some(pause) = pause {
            match stop.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        } else {
            select! {
                recv(stop) -> _ => return Ok(()),
                recv(compactions) -> notice => if notice.is_err() { return Ok(()) },
            }
        }
    }
}

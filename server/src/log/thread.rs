//! The thread that writes the log: nothing else in the server ever waits for its disk.
//!
//! Batches come in by a bounded channel and go out as one [`LogEvent::Synced`] after the sync that made them durable.
//! Batches that queued up meanwhile share one write and one sync. An error is reported once and ends the thread:
//! nothing is acknowledged after it.
//!
//! A hand-over to a thread and back costs more than the sync of a quick disk. Who has a single batch, and may wait, can
//! therefore write it with [`LogSender::append_here`] while the thread has nothing to do.
//!
//! A second, idle thread prepares segment files.

use std::sync::Arc;
use std::thread::{self, JoinHandle};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use parking_lot::Mutex;
use raft::eraftpb::{Entry, HardState};

use super::error::LogError;
use super::log_store::{Change, LogStore, SyncTimes};
use super::spare::{Spare, SpareJob};
use super::terms::EntryId;

/// What one raft `Ready` wants to have on the disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Batch {
    /// The `Ready`'s number, rising; reported back when the batch is durable.
    pub number: u64,
    /// A snapshot was installed: forget all entries and go on after this one.
    pub reset: Option<EntryId>,
    /// Entries to append.
    pub entries: Arc<[Entry]>,
    /// The new hard state, if it changed.
    pub hard_state: Option<HardState>,
    /// Whether raft asks for a sync. Without it, and without entries, the batch counts as done at once and is written
    /// with a later one.
    pub must_sync: bool,
}

/// What the thread has to say.
#[derive(Clone, Debug)]
pub enum LogEvent {
    /// All batches up to this number are durable (or need not be).
    Synced {
        /// The batch's number.
        number: u64,
    },
    /// A purge was done.
    Purged {
        /// The last entry that is gone.
        to: EntryId,
        /// Size of the log now.
        size_bytes: u64,
    },
    /// The log has failed; nothing more will be written.
    Failed(Arc<LogError>),
}

/// One sync, for metrics.
#[derive(Clone, Copy, Debug)]
pub struct SyncReport {
    /// How long it took.
    pub times: SyncTimes,
    /// How many batches shared them.
    pub batches: u64,
    /// How many bytes of records were written.
    pub bytes: u64,
}

/// Limits of the thread's queue.
#[derive(Clone, Copy, Debug)]
pub struct LogThreadOptions {
    /// Requests waiting at most; the sender waits or is told to when it is full.
    pub queue_len_max: usize,
    /// No more batches are added to a write when it has this size.
    pub group_bytes_max: usize,
}

impl Default for LogThreadOptions {
    fn default() -> Self {
        Self { queue_len_max: 256, group_bytes_max: 4 << 20 }
    }
}

/// The log thread has ended, after [`LogThread::stop`] or because the log failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the raft log is not being written any more")]
pub struct LogStopped;

/// Why a batch was not queued.
#[derive(Debug)]
pub enum TryAppendError {
    /// The queue is full; the batch is given back.
    Full(Batch),
    /// The thread has ended.
    Stopped,
}

/// Why a batch was not written by [`LogSender::append_here`].
#[derive(Debug)]
pub enum AppendHereError {
    /// The thread is at work or has work waiting; the batch is given back.
    Busy(Batch),
    /// The thread has ended.
    Stopped,
    /// The log has failed; nothing more will be written.
    Failed(LogError),
}

enum Request {
    Append(Batch),
    Purge(u64),
    Stop,
}

/// Sends work to the log thread. Clones send to the same thread.
#[derive(Clone)]
pub struct LogSender {
    requests: Sender<Request>,
    worker: Arc<Mutex<Worker>>,
}

impl LogSender {
    /// Queues a batch; waits while the queue is full.
    pub fn append(&self, batch: Batch) -> Result<(), LogStopped> {
        self.requests.send(Request::Append(batch)).map_err(|_| LogStopped)
    }

    /// Queues a batch, or gives it back if the queue is full.
    pub fn try_append(&self, batch: Batch) -> Result<(), TryAppendError> {
        self.requests.try_send(Request::Append(batch)).map_err(|error| match error {
            TrySendError::Full(Request::Append(batch)) => TryAppendError::Full(batch),
            TrySendError::Full(_) | TrySendError::Disconnected(_) => TryAppendError::Stopped,
        })
    }

    /// Writes and syncs a batch on the calling thread, which waits for the disk, if the log's thread has nothing to do.
    /// The batch is durable when this returns; there is no event.
    ///
    /// To be called only when everything that was queued before is known to be durable, so that batches stay in order.
    pub fn append_here(&self, batch: Batch) -> Result<(), AppendHereError> {
        let Some(mut worker) = self.worker.try_lock().filter(|_| self.requests.is_empty()) else {
            return Err(AppendHereError::Busy(batch));
        };
        if worker.ended {
            return Err(AppendHereError::Stopped);
        }
        worker.write_one(&batch).map_err(AppendHereError::Failed)
    }

    /// Asks for the removal of segments in which no entry after `index` is; see [`LogStore::purge`]. Skipped if the
    /// queue is full: there will be another one.
    pub fn purge(&self, index: u64) -> Result<(), LogStopped> {
        match self.requests.try_send(Request::Purge(index)) {
            Ok(()) | Err(TrySendError::Full(_)) => Ok(()),
            Err(TrySendError::Disconnected(_)) => Err(LogStopped),
        }
    }

    /// Requests waiting, for metrics.
    pub fn queue_len(&self) -> usize {
        self.requests.len()
    }
}

/// Called with each event, on the log thread: it must not block.
pub type OnEvent = Box<dyn Fn(LogEvent) + Send>;
/// Called after each sync, on the log thread.
pub type OnSync = Box<dyn Fn(SyncReport) + Send>;

/// The running thread.
pub struct LogThread {
    sender: LogSender,
    handle: Option<JoinHandle<()>>,
}

impl LogThread {
    /// Starts the thread, which owns `log` from now on.
    pub fn start(
        log: Box<dyn LogStore>,
        options: LogThreadOptions,
        on_event: OnEvent,
        on_sync: OnSync,
    ) -> std::io::Result<Self> {
        let (requests, incoming) = crossbeam_channel::bounded(options.queue_len_max);
        let spares = SpareMaker::start()?;
        let worker = Arc::new(Mutex::new(Worker { log, options, on_sync, spares, ended: false }));
        let shared = Arc::clone(&worker);
        let handle = thread::Builder::new().name("raft-log".to_owned()).spawn(move || {
            // Should the worker panic, whoever waits for a sync must hear of it.
            let mut last_words = LastWords { on_event, said: false };
            let ended = run(&shared, &incoming, &last_words.on_event);
            shared.lock().end();
            match ended {
                Ok(()) => last_words.said = true,
                Err(error) => last_words.failed(error),
            }
        })?;
        Ok(Self { sender: LogSender { requests, worker }, handle: Some(handle) })
    }

    /// A sender to this thread.
    pub fn sender(&self) -> LogSender {
        self.sender.clone()
    }

    /// Writes what is queued, including a commit index that was waiting for company, and ends the thread.
    pub fn stop(mut self) {
        // If the thread has ended already, there is nobody to tell.
        let _ = self.sender.requests.send(Request::Stop);
        if let Some(handle) = self.handle.take() {
            // A panic has been reported by an event.
            let _ = handle.join();
        }
    }
}

struct LastWords {
    on_event: OnEvent,
    said: bool,
}

impl LastWords {
    fn failed(&mut self, error: LogError) {
        self.said = true;
        tracing::error!(%error, "the raft log has failed");
        (self.on_event)(LogEvent::Failed(Arc::new(error)));
    }
}

impl Drop for LastWords {
    fn drop(&mut self) {
        if !self.said {
            self.failed(LogError::Poisoned { cause: "the log thread panicked".to_owned() });
        }
    }
}

struct Worker {
    log: Box<dyn LogStore>,
    options: LogThreadOptions,
    on_sync: OnSync,
    spares: SpareMaker,
    /// The thread has ended, or is about to.
    ended: bool,
}

/// What to do after a group of batches was written.
enum Then {
    GoOn,
    Purge(u64),
    Stop,
}

/// The thread's work, until it is told to stop or the log fails.
fn run(worker: &Mutex<Worker>, incoming: &Receiver<Request>, on_event: &OnEvent) -> Result<(), LogError> {
    loop {
        // All senders gone is a stop, too.
        let first = incoming.recv().unwrap_or(Request::Stop);
        if !worker.lock().turn(first, incoming, on_event)? {
            return Ok(());
        }
    }
}

impl Worker {
    /// Does what `first` and the requests waiting behind it ask for; `false` if it was to stop.
    fn turn(&mut self, first: Request, incoming: &Receiver<Request>, on_event: &OnEvent) -> Result<bool, LogError> {
        self.spares.collect(self.log.as_mut());
        match self.write_group(first, incoming, on_event)? {
            Then::GoOn => {}
            Then::Purge(index) => {
                let to = self.log.purge(index)?;
                on_event(LogEvent::Purged { to, size_bytes: self.log.size_bytes() });
            }
            Then::Stop => {
                self.log.sync()?;
                return Ok(false);
            }
        }
        self.spares.order(self.log.as_mut());
        Ok(true)
    }

    /// Writes and syncs one batch.
    fn write_one(&mut self, batch: &Batch) -> Result<(), LogError> {
        self.spares.collect(self.log.as_mut());
        let Batch { number: _, reset, entries, hard_state, must_sync: _ } = batch;
        self.log.stage(&Change { reset: *reset, entries, hard_state: hard_state.as_ref() })?;
        self.sync(1)?;
        self.spares.order(self.log.as_mut());
        Ok(())
    }

    fn sync(&mut self, batches: u64) -> Result<(), LogError> {
        let bytes = self.log.staged_bytes() as u64;
        self.log.sync()?;
        if let Some(times) = self.log.last_sync() {
            (self.on_sync)(SyncReport { times, batches, bytes });
        }
        Ok(())
    }

    /// Nobody writes from now on; the thread that prepares segment files is waited for.
    fn end(&mut self) {
        self.ended = true;
        self.spares.stop();
    }

    /// Stages `first` and what else is waiting, up to the limit or a request of another kind, and syncs once.
    fn write_group(
        &mut self,
        first: Request,
        incoming: &Receiver<Request>,
        on_event: &OnEvent,
    ) -> Result<Then, LogError> {
        let mut must_sync = false;
        let mut newest = None;
        let mut batches = 0;
        let mut next = Some(first);
        let then = loop {
            match next {
                Some(Request::Append(batch)) => {
                    let Batch { number, reset, entries, hard_state, must_sync: wanted } = batch;
                    self.log.stage(&Change { reset, entries: &entries, hard_state: hard_state.as_ref() })?;
                    must_sync |= wanted;
                    newest = Some(number);
                    batches += 1;
                }
                Some(Request::Purge(index)) => break Then::Purge(index),
                Some(Request::Stop) => break Then::Stop,
                None => break Then::GoOn,
            }
            if self.log.staged_bytes() >= self.options.group_bytes_max {
                break Then::GoOn;
            }
            next = incoming.try_recv().ok();
        };
        if must_sync || self.log.needs_sync() {
            self.sync(batches)?;
        }
        if let Some(number) = newest {
            on_event(LogEvent::Synced { number });
        }
        Ok(then)
    }
}

/// The thread that prepares segment files. It ends with the log thread, which waits for it: nothing touches the
/// directory after that.
struct SpareMaker {
    jobs: Option<Sender<SpareJob>>,
    done: Receiver<Option<Spare>>,
    handle: Option<JoinHandle<()>>,
}

impl Drop for SpareMaker {
    fn drop(&mut self) {
        self.stop();
    }
}

impl SpareMaker {
    /// Ends the thread and waits for it.
    fn stop(&mut self) {
        self.jobs = None;
        if let Some(handle) = self.handle.take() {
            // A panic there leaves a file that the next start removes.
            let _ = handle.join();
        }
    }

    fn start() -> std::io::Result<Self> {
        let (jobs, incoming) = crossbeam_channel::bounded::<SpareJob>(1);
        let (outgoing, done) = crossbeam_channel::bounded(1);
        let handle = thread::Builder::new().name("raft-log-spare".to_owned()).spawn(move || {
            for job in incoming {
                let spare = match job.run() {
                    Ok(spare) => Some(spare),
                    Err(error) => {
                        tracing::warn!(%error, "could not prepare the next segment of the raft log ahead of its use");
                        None
                    }
                };
                if outgoing.send(spare).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, handle: Some(handle) })
    }

    /// Hands over a file that is ready.
    fn collect(&self, log: &mut dyn LogStore) {
        if let Ok(spare) = self.done.try_recv() {
            log.add_spare(spare);
        }
    }

    /// Sees whether a file is wanted. There is one job at a time, so the channel has room.
    fn order(&self, log: &mut dyn LogStore) {
        let Some(job) = log.spare_job() else { return };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(job).is_ok());
        if !sent {
            log.add_spare(None);
        }
    }
}

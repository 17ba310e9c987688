//! Lines on their way to the file: bounded in bytes, written by a thread of their own.

use std::{
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};
use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::sync::Semaphore;

use crate::config::{LogOutput, LogRotation, Sink};

/// Bytes that wait to be written at most.
const QUEUE_BYTES: usize = if cfg!(test) { 4 << 10 } else { 8 << 20 };
/// Bytes beyond them of lines that could not wait, because their calls were given up, where lines may not be lost.
const LATE_BYTES: usize = QUEUE_BYTES;
/// How long is waited after a write, so that lines that come fast are written together.
const WRITE_PAUSE: Duration = Duration::from_millis(5);
/// How long is waited before a write that failed is tried again, where lines may not be lost.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// See the module's text.
pub struct Queue {
    shared: Arc<Shared>,
    /// Closed by the thread when it ends.
    ended: Receiver<()>,
}

struct Shared {
    /// A permit for each byte that may still be queued.
    room: Semaphore,
    lines: Mutex<Lines>,
    more: Condvar,
    reopen: AtomicBool,
    /// Lines are never given up but at the end.
    patient: bool,
    written: Counter,
    lost: Counter,
}

#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    count: u64,
    /// Permits that they have taken.
    permits: usize,
    /// Bytes of lines that took none.
    late: usize,
    /// The thread waits for the first line.
    idle: bool,
    closed: bool,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("written", &self.written()).field("lost", &self.lost()).finish_non_exhaustive()
    }
}

impl Queue {
    /// Opens the output, and starts the thread that writes to it. A `patient` queue keeps what cannot be written.
    pub fn open(output: LogOutput, rotation: Option<LogRotation>, patient: bool) -> io::Result<Self> {
        let open = move || Sink::open(&output, rotation.as_ref());
        let sink = open()?;
        Self::start(patient, sink, open, Sink::write_lines)
    }

    fn start<S: Send + 'static>(
        patient: bool,
        sink: S,
        open: impl Fn() -> io::Result<S> + Send + 'static,
        write: impl Fn(&S, &[u8]) -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            room: Semaphore::new(QUEUE_BYTES),
            lines: Mutex::default(),
            more: Condvar::new(),
            reopen: AtomicBool::new(false),
            patient,
            written: Counter::default(),
            lost: Counter::default(),
        });
        let (end, ended) = bounded(0);
        let work = shared.clone();
        thread::Builder::new().name("cairn-audit".into()).spawn(move || work.run(sink, &open, &write, &end))?;
        Ok(Self { shared, ended })
    }

    /// Queues a line if there is room; whether there was.
    pub fn push(&self, line: &[u8]) -> bool {
        let room = self.shared.room.try_acquire_many(permits(line) as u32);
        room.map(|room| {
            room.forget();
            self.shared.append(line);
        })
        .is_ok()
    }

    /// Queues a line once there is room; whether there was before the queue was closed.
    pub async fn push_waiting(&self, line: &[u8]) -> bool {
        let room = self.shared.room.acquire_many(permits(line) as u32).await;
        room.map(|room| {
            room.forget();
            self.shared.append(line);
        })
        .is_ok()
    }

    /// Queues a line that found no room and cannot wait. A patient queue has some more for such lines; otherwise it is
    /// lost.
    pub fn push_late(&self, line: &[u8]) {
        let mut lines = self.shared.lines.lock();
        if !self.shared.patient || lines.closed || lines.late + line.len() > LATE_BYTES {
            self.shared.lost.inc();
            return;
        }
        lines.late += line.len();
        self.shared.add(&mut lines, line);
    }

    /// Opens the output anew before the next line.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::SeqCst);
        let _lines = self.shared.lines.lock();
        self.shared.more.notify_one();
    }

    /// Shows what is counted.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "cairn_audit_lines",
            "Lines of the record of calls that were written",
            self.shared.written.clone(),
        );
        let lost =
            "Lines of the record of calls that were lost: there was no room for them, or they could not be written";
        registry.register("cairn_audit_lost", lost, self.shared.lost.clone());
    }

    /// Lines that were written.
    pub fn written(&self) -> u64 {
        self.shared.written.get()
    }

    /// Lines that were lost.
    pub fn lost(&self) -> u64 {
        self.shared.lost.get()
    }

    /// Takes no more lines, and waits until those that there are have been written, for at most `wait`.
    pub fn close(&self, wait: Duration) {
        self.shared.close();
        // It tells nothing, but is closed.
        let _ = self.ended.recv_timeout(wait);
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// A line that is longer than the queue may be takes all of it.
fn permits(line: &[u8]) -> usize {
    line.len().min(QUEUE_BYTES)
}

impl Shared {
    fn append(&self, line: &[u8]) {
        let mut lines = self.lines.lock();
        // Closed since there was room: the thread may have ended.
        if lines.closed {
            self.lost.inc();
            return;
        }
        lines.permits += permits(line);
        self.add(&mut lines, line);
    }

    /// Wakes the thread only if it waits for this line: to do so for each would cost more than to make the line.
    fn add(&self, lines: &mut Lines, line: &[u8]) {
        lines.bytes.extend_from_slice(line);
        lines.count += 1;
        if lines.idle || lines.bytes.len() >= QUEUE_BYTES / 2 {
            self.more.notify_one();
        }
    }

    fn close(&self) {
        self.room.close();
        self.lines.lock().closed = true;
        self.more.notify_one();
    }

    /// Writes lines until the queue is closed and empty.
    fn run<S>(
        &self,
        mut sink: S,
        open: &impl Fn() -> io::Result<S>,
        write: &impl Fn(&S, &[u8]) -> io::Result<()>,
        _end: &Sender<()>,
    ) {
        let mut failing = false;
        let mut batch = Lines::default();
        let mut not_before = Instant::now();
        loop {
            let closed = self.wait_for_lines(&mut batch, not_before);
            if self.reopen.swap(false, Ordering::SeqCst) {
                match open() {
                    Ok(opened) => sink = opened,
                    Err(error) => {
                        tracing::warn!(%error, "cannot open the record of calls anew, going on with the old file");
                    }
                }
            }
            if !batch.bytes.is_empty() {
                // A write that failed may have left half a line.
                let done = if failing { write(&sink, b"\n") } else { Ok(()) };
                match done.and_then(|()| write(&sink, &batch.bytes)) {
                    Ok(()) => {
                        if std::mem::take(&mut failing) {
                            tracing::info!(lost = self.lost.get(), "the record of calls is written again");
                        }
                        self.written.inc_by(batch.count);
                    }
                    Err(error) => {
                        if !std::mem::replace(&mut failing, true) {
                            tracing::error!(%error, "the record of calls cannot be written");
                        }
                        if self.patient && !closed {
                            thread::sleep(RETRY_PAUSE);
                            continue;
                        }
                        self.lost.inc_by(batch.count);
                    }
                }
                self.room.add_permits(batch.permits);
                batch.bytes.clear();
                (batch.count, batch.permits) = (0, 0);
                not_before = Instant::now() + WRITE_PAUSE;
            }
            if closed && self.lines.lock().bytes.is_empty() {
                return;
            }
        }
    }

    /// Waits for lines and takes them all, unless there are some still; whether the queue is closed. Few lines are not
    /// taken before their time.
    fn wait_for_lines(&self, batch: &mut Lines, not_before: Instant) -> bool {
        let mut lines = self.lines.lock();
        let called = |lines: &Lines| lines.closed || self.reopen.load(Ordering::SeqCst);
        if batch.bytes.is_empty() {
            while !called(&lines) && lines.bytes.len() < QUEUE_BYTES / 2 {
                if self.more.wait_until(&mut lines, not_before).timed_out() {
                    break;
                }
            }
            while lines.bytes.is_empty() && !called(&lines) {
                lines.idle = true;
                self.more.wait(&mut lines);
            }
            (lines.idle, lines.late) = (false, 0);
            std::mem::swap(&mut batch.bytes, &mut lines.bytes);
            batch.count = std::mem::take(&mut lines.count);
            batch.permits = std::mem::take(&mut lines.permits);
        }
        lines.closed
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// An output that is told whether it works, and holds what was written.
    #[derive(Clone, Default)]
    struct Output(Arc<(Mutex<Vec<u8>>, AtomicBool)>);

    impl Output {
        fn queue(&self, patient: bool) -> Queue {
            let again = self.clone();
            let write = |output: &Self, lines: &[u8]| {
                if output.0.1.load(Ordering::SeqCst) {
                    return Err(io::Error::other("the disk is full"));
                }
                output.0.0.lock().extend_from_slice(lines);
                Ok(())
            };
            Queue::start(patient, self.clone(), move || Ok(again.clone()), write).expect("a thread")
        }

        fn fail(&self, fails: bool) {
            self.0.1.store(fails, Ordering::SeqCst);
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.0.lock().clone()).expect("text")
        }
    }

    const WAIT: Duration = Duration::from_mins(1);

    #[test]
    fn lines_are_written_in_their_order_before_the_end() {
        let output = Output::default();
        let queue = output.queue(false);
        let lines: Vec<_> = (0..50).map(|at| format!("line {at}\n")).collect();
        for line in &lines {
            assert!(queue.push(line.as_bytes()));
        }
        queue.reopen();
        queue.close(WAIT);
        assert_eq!((output.text(), queue.written(), queue.lost()), (lines.concat(), 50, 0));
        assert!(!queue.push(b"too late\n"));
        queue.push_late(b"too late\n");
        assert_eq!(queue.lost(), 1);
    }

    #[test]
    fn what_has_no_room_or_cannot_be_written_is_lost_and_counted() {
        let output = Output::default();
        let queue = output.queue(false);
        {
            // The writer waits for this, and the queue fills.
            let _stalled = output.0.0.lock();
            for _ in 0..10 {
                if !queue.push(&[b'x'; QUEUE_BYTES / 2]) {
                    queue.push_late(&[b'x'; QUEUE_BYTES / 2]);
                }
            }
            assert!(queue.lost() >= 6, "{queue:?}");
        }
        output.fail(true);
        if !queue.push(b"lost\n") {
            queue.push_late(b"lost\n");
        }
        queue.close(WAIT);
        assert_eq!(queue.written() + queue.lost(), 11, "{queue:?}");
        assert!(!output.text().contains("lost"));
    }

    #[tokio::test]
    async fn a_patient_queue_loses_nothing_and_lets_calls_wait() {
        let output = Output::default();
        output.fail(true);
        let queue = output.queue(true);
        assert!(queue.push_waiting(&[b'x'; QUEUE_BYTES]).await);
        let waits = queue.push_waiting(b"waited\n");
        let mut waits = std::pin::pin!(waits);
        assert!(waits.as_mut().now_or_never().is_none());
        // What cannot wait is kept all the same, up to a limit.
        queue.push_late(b"late\n");
        queue.push_late(&[b'y'; LATE_BYTES + 1]);
        assert_eq!(queue.lost(), 1);
        output.fail(false);
        assert!(waits.await);
        queue.close(WAIT);
        assert_eq!((queue.written(), queue.lost()), (3, 1));
        assert!(output.text().ends_with("xlate\nwaited\n"), "{queue:?}");
    }

    #[test]
    fn a_line_longer_than_the_queue_is_written() {
        let output = Output::default();
        let queue = output.queue(false);
        assert!(queue.push(&[b'x'; 3 * QUEUE_BYTES]));
        queue.close(WAIT);
        assert_eq!((queue.written(), output.text().len()), (1, 3 * QUEUE_BYTES));
    }
}

//! The threads that serve clients: one single-threaded runtime each.
//!
//! A connection lives on one thread for good: everything that one client does stays on one core, without locks or wake-ups across threads. The first
//! thread also runs the replica, so that its connections talk to it without a hop.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{runtime, sync::oneshot};
use tokio_util::sync::CancellationToken;

/// Threads of a runtime that wait for the disk.
const BLOCKING_THREADS_MAX: usize = 32;
/// How long a stopping runtime waits for them.
const BLOCKING_STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// A thread that serves clients.
struct Thread {
    handle: runtime::Handle,
    connections: Arc<AtomicUsize>,
}

/// All threads that serve clients.
pub struct Threads {
    all: Vec<Thread>,
    stop: CancellationToken,
    joins: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Starts `count` threads.
    pub fn start(count: usize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let (mut threads, mut joins) = (Vec::new(), Vec::new());
        for number in 0..count.max(1) {
            let runtime = runtime::Builder::new_current_thread()
                .enable_all()
                .thread_name(format!("cairn-wait-{number}"))
                .max_blocking_threads(BLOCKING_THREADS_MAX)
                .build()?;
            threads.push(Thread { handle: runtime.handle().clone(), connections: Arc::default() });
            let stop = stop.clone();
            let run = move || {
                runtime.block_on(stop.cancelled());
                runtime.shutdown_timeout(BLOCKING_STOP_TIMEOUT);
            };
            joins.push(thread::Builder::new().name(format!("cairn-api-{number}")).spawn(run)?);
        }
        Ok(Self { all: threads, stop, joins: Mutex::new(joins) })
    }

    /// The runtime of the replica, and of whatever talks to it all the time.
    pub fn first(&self) -> &runtime::Handle {
        &self.all[0].handle
    }

    /// The runtime that has least to do with the replica.
    pub fn last(&self) -> &runtime::Handle {
        &self.all[self.all.len() - 1].handle
    }

    /// All but the first.
    pub fn others(&self) -> impl Iterator<Item = &runtime::Handle> {
        self.all[1..].iter().map(|thread| &thread.handle)
    }

    /// Runs a connection on the thread with the fewest.
    pub fn spawn_connection(&self, connection: impl Future<Output = ()> + Send + 'static) {
        let Some(thread) = self.all.iter().min_by_key(|thread| thread.connections.load(Relaxed)) else { return };
        let counted = Counted::new(&thread.connections);
        thread.handle.spawn(async move {
            let _counted = counted;
            connection.await;
        });
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.all.iter().map(|thread| thread.connections.load(Relaxed)).sum()
    }

    /// Ends all threads and whatever still runs on them.
    pub async fn stop(&self) {
        self.stop.cancel();
        let joins = std::mem::take(&mut *self.joins.lock());
        let (ended, end) = oneshot::channel();
        let join_all = move || {
            for join in joins {
                // A panic of a thread has been reported where it happened.
                let _ = join.join();
            }
            let _ = ended.send(());
        };
        if thread::Builder::new().name("cairn-stop".into()).spawn(join_all).is_ok() {
            let _ = end.await;
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Counts a connection while it is open.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_spread_evenly() {
        let threads = Threads::start(3).expect("threads start");
        let (release, _) = tokio::sync::broadcast::channel::<()>(1);
        for _ in 0..9 {
            let mut held = release.subscribe();
            threads.spawn_connection(async move {
                let _ = held.recv().await;
            });
        }
        assert!(threads.all.iter().all(|thread| thread.connections.load(Relaxed) == 3));
        assert_eq!(threads.connections(), 9);
        let runtime = runtime::Builder::new_current_thread().build().expect("a runtime starts");
        runtime.block_on(threads.stop());
        assert_eq!(threads.connections(), 0);
    }
}

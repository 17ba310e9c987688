//! Hashing all keys for a comparison between members: beside everything else, at half speed, and no longer than somebody
//! waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use cairn_proto::ApiError;
use tokio::task::spawn_blocking;

use super::handle::{NodeHandle, StoreMaintenance};
use crate::{
    node::NodeError,
    state::mvcc::{Hashing, KvHash, ReadError},
};

/// Hashes that may be under way at a time: one of this member's own, and one that another member asked for.
pub(super) const HASHES_MAX: usize = 2;
/// The longest rest after a step.
const REST_MAX: Duration = Duration::from_millis(20);

impl StoreMaintenance {
    /// Hashes all keys up to `revision`, the newest one if it is 0, as of the compacted revision `compacted`, this member's
    /// if that is `None`. Reads every value, on a thread of its own, and rests as long as it works. Dropping the future ends
    /// it.
    ///
    /// # Errors
    /// Too many are under way, or there is no such hash here: this member is not there yet, has compacted further, or a
    /// compaction has waited for the hash too long.
    pub async fn hash_at(&self, revision: i64, compacted: Option<i64>) -> Result<KvHash, ApiError> {
        let turn = Arc::clone(&self.shared().hashes).try_acquire_owned().map_err(|_| ApiError::TooManyRequests)?;
        let wanted = Wanted::default();
        let (reader, shared, unwanted) = (self.reader().clone(), Arc::clone(self.shared()), wanted.0.clone());
        let started = Instant::now();
        let hashed = spawn_blocking(move || {
            let is_wanted = || !unwanted.load(Ordering::Relaxed) && !shared.is_stopped();
            let hashed = reader.begin_hash(revision, compacted).and_then(|hashing| run(hashing, is_wanted));
            // Whoever has all turns may close the store.
            drop(reader);
            drop(turn);
            hashed
        });
        // The server is stopping, or the work panicked, which has been reported.
        match hashed.await.map_err(|_| ApiError::Stopped)? {
            Ok(hash) => {
                self.metrics().hash_at.observe(started.elapsed().as_secs_f64());
                Ok(hash)
            }
            Err(ReadError::Api(error)) => Err(error),
            Err(error) => {
                self.fail(NodeError::State(error.into()));
                Err(ApiError::Stopped)
            }
        }
    }
}

impl NodeHandle {
    /// Waits until no hash is under way, once the node has stopped.
    pub(super) async fn wait_for_hashes(&self) {
        // The semaphore is never closed.
        let _ = self.shared().hashes.acquire_many(HASHES_MAX as u32).await;
    }
}

/// Says with its end that nobody waits any more.
#[derive(Default)]
struct Wanted(Arc<AtomicBool>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn run(mut hashing: Hashing, is_wanted: impl Fn() -> bool) -> Result<KvHash, ReadError> {
    while is_wanted() {
        let began = Instant::now();
        if let Some(hash) = hashing.step()? {
            return Ok(hash);
        }
        thread::sleep(began.elapsed().min(REST_MAX));
    }
    Err(ApiError::Stopped.into())
}

//! From received files to the state of this member.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Weak},
    time::Instant,
};

use parking_lot::Mutex;

use super::{Incoming, SnapshotError};
use crate::{
    node::ReceivedMetrics,
    raft::{Offer, SnapshotMeta},
    state::{self, State, StateOptions},
    store::{RocksOptions, RocksStore, StateDir, Store, StoreError},
};

/// A snapshot that was received, verified and opened.
#[derive(Debug)]
pub struct Received {
    /// What it is.
    pub meta: SnapshotMeta,
    /// The state in it.
    pub state: State,
    dir: PathBuf,
}

/// Makes states of received snapshots.
pub struct Installer {
    root: PathBuf,
    cluster: u64,
    rocks: RocksOptions,
    options: StateOptions,
    metrics: ReceivedMetrics,
    directory: Mutex<StateDir>,
    /// States that were replaced, until nobody uses them any more.
    retired: Mutex<Vec<Retired>>,
}

/// A state that was replaced.
struct Retired {
    store: Weak<dyn Store>,
    dir: PathBuf,
    /// Nobody used it any more when it was last looked at. It may still have been about to close.
    unused: bool,
}

impl std::fmt::Debug for Installer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Installer").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Installer {
    /// Installs into the member directory `root`, whose states are `directory`'s, what the same `cluster` sends.
    pub fn new(
        root: &Path,
        directory: StateDir,
        cluster: u64,
        rocks: &RocksOptions,
        options: &StateOptions,
        metrics: ReceivedMetrics,
    ) -> Self {
        Self {
            metrics,
            root: root.to_owned(),
            cluster,
            rocks: rocks.clone(),
            options: options.clone(),
            directory: Mutex::new(directory),
            retired: Mutex::default(),
        }
    }

    /// Begins to receive what was offered, or goes on with it.
    pub fn begin(&self, offer: Offer) -> Result<Incoming, SnapshotError> {
        Incoming::begin(&self.root, offer, self.metrics.clone())
    }

    /// Makes a state of what was received, beside the current one. Reads the image of the key index and what is younger, or all keys if none came, so it
    /// takes its time.
    pub fn open(&self, incoming: Incoming) -> Result<Received, SnapshotError> {
        let offer = incoming.offer();
        let dir = self.directory.lock().prepare()?;
        incoming.move_to(&dir)?;
        let opened = self.open_in(&dir, offer);
        if opened.is_err() {
            self.remove(&dir);
        }
        opened
    }

    fn open_in(&self, dir: &Path, offer: Offer) -> Result<Received, SnapshotError> {
        let store: Arc<dyn Store> = Arc::new(RocksStore::open(dir, &self.rocks)?);
        let (last, conf_state, cluster) = state::identify(store.as_ref())?;
        if last != offer.last || cluster != self.cluster {
            return Err(SnapshotError::Nonsense(format!(
                "a snapshot of cluster {:x} up to entry {:?} was offered, and one of cluster {cluster:x} up to {last:?} arrived",
                self.cluster, offer.last
            )));
        }
        state::mark_installing(store.as_ref(), last)?;
        let state = State::open(store, self.options.clone())?;
        Ok(Received { meta: SnapshotMeta { id: offer.id, last, conf_state }, state, dir: dir.to_owned() })
    }

    /// Makes a received state the current one: durable when this returns. `store` is that of the one it replaces.
    pub fn switch(&self, received: &Received, store: &Arc<dyn Store>) -> Result<(), StoreError> {
        let mut directory = self.directory.lock();
        let before = directory.path();
        let began = Instant::now();
        directory.switch(&received.dir)?;
        self.metrics.switch.observe(began.elapsed());
        self.retired.lock().push(Retired { store: Arc::downgrade(store), dir: before, unused: false });
        Ok(())
    }

    /// Removes a received state that is of no use.
    pub fn abandon(&self, received: Received) {
        let Received { state, dir, .. } = received;
        drop(state);
        self.remove(&dir);
    }

    fn remove(&self, dir: &Path) {
        if let Err(error) = self.directory.lock().remove(dir) {
            tracing::warn!(%error, "a snapshot that was not installed could not be removed; the next start tries again");
        }
    }

    /// Removes replaced states that nobody has used for two looks.
    pub fn clean(&self) {
        let mut gone = Vec::new();
        self.retired.lock().retain_mut(|retired| {
            let unused = retired.store.strong_count() == 0;
            let stays = !(unused && std::mem::replace(&mut retired.unused, unused));
            if !stays {
                gone.push(std::mem::take(&mut retired.dir));
            }
            stays
        });
        for dir in gone {
            self.remove(&dir);
        }
    }
}

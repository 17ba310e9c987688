//! List, then watch: a copy of all objects of a kind, every change checked against it.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use cairn_client::{
    WatchError,
    proto::mvccpb::{Event, event::EventType},
};
use tokio::sync::{broadcast, watch};

use super::{
    PATIENCE, Result,
    registry::{Object, Registry},
};

/// Changes that a subscriber may be behind; one that is further behind looks at everything again.
const CHANGES_MAX: usize = 4096;

/// One change of one object.
#[derive(Debug, Clone)]
pub struct Change {
    /// Before; none if it was created.
    pub old: Option<Arc<Object>>,
    /// After; none if it was deleted.
    pub new: Option<Arc<Object>>,
}

impl Change {
    /// The object after the change, or the one that was deleted.
    pub fn object(&self) -> &Arc<Object> {
        self.new.as_ref().or(self.old.as_ref()).expect("a change has at least one side")
    }
}

type Objects = BTreeMap<String, Arc<Object>>;
type Check = Box<dyn Fn(&Change) + Send + Sync>;

/// A copy of all objects below a prefix that follows the store.
#[derive(Clone)]
pub struct Informer {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Arc<Registry>,
    prefix: String,
    objects: Mutex<Objects>,
    /// Revision of the last change.
    seen: watch::Sender<i64>,
    changes: broadcast::Sender<Change>,
    check: Check,
}

impl Informer {
    /// Lists, and follows in the background. `check` sees every change in order.
    pub async fn start(
        registry: Arc<Registry>,
        prefix: &str,
        check: impl Fn(&Change) + Send + Sync + 'static,
    ) -> Result<Self> {
        let (listed, revision) = registry.list(prefix).await?;
        let shared = Arc::new(Shared {
            registry,
            prefix: prefix.to_owned(),
            objects: Mutex::new(listed.into_iter().map(|object| (object.key.clone(), Arc::new(object))).collect()),
            seen: watch::channel(revision).0,
            changes: broadcast::channel(CHANGES_MAX).0,
            check: Box::new(check),
        });
        tokio::spawn(shared.clone().follow(revision));
        Ok(Self { shared })
    }

    /// The changes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Change> {
        self.shared.changes.subscribe()
    }

    /// The copy as it is now.
    pub fn objects(&self) -> MutexGuard<'_, Objects> {
        self.shared.objects()
    }

    /// One object as it is now.
    pub fn get(&self, key: &str) -> Option<Arc<Object>> {
        self.objects().get(key).cloned()
    }

    /// Waits until the copy is as wanted.
    pub async fn wait_until(&self, what: &str, wanted: impl Fn(&Objects) -> bool) -> Result<()> {
        let mut seen = self.shared.seen.subscribe();
        let waiting = async {
            while !wanted(&self.objects()) {
                seen.changed().await?;
            }
            Ok(())
        };
        tokio::time::timeout(PATIENCE, waiting).await.map_err(|_| format!("waited too long for {what}"))?
    }

    /// Waits until the copy is what the store holds now that nobody changes it any more.
    pub async fn settle(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (listed, _) = self.shared.registry.list(&self.shared.prefix).await?;
            let same = listed.iter().eq(self.objects().values().map(AsRef::as_ref));
            if same || Instant::now() > deadline {
                let audit = &self.shared.registry.audit;
                audit.expect(same, || format!("the copy of {} is not what the store holds", self.shared.prefix));
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Shared {
    fn objects(&self) -> MutexGuard<'_, Objects> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows until the program ends. A stream that breaks is started again where it was.
    async fn follow(self: Arc<Self>, mut seen: i64) {
        loop {
            let ended = self.follow_stream(&mut seen).await;
            self.registry.audit.rewatched.add();
            if let Err(error) = ended {
                eprintln!("the watch of {} behind revision {seen} ended: {error}", self.prefix);
            }
        }
    }

    async fn follow_stream(&self, seen: &mut i64) -> Result<()> {
        let mut watcher = self.registry.watch(&self.prefix, *seen + 1).await?;
        loop {
            let answer = watcher.next().await.inspect_err(|error| {
                // Lost connections are the client's affair; anything else is no end that a watch may come to here.
                let ended = matches!(error, WatchError::Compacted { .. } | WatchError::Cancelled { .. });
                self.registry.audit.expect(!ended, || format!("the watch of {} ended: {error}", self.prefix));
            })?;
            for event in &answer.events {
                self.take(event, seen);
            }
            self.seen.send_replace(*seen);
        }
    }

    /// Checks an event against the copy and changes the copy.
    fn take(&self, event: &Event, seen: &mut i64) {
        let audit = &self.registry.audit;
        let Some(kv) = &event.kv else {
            return audit.expect(false, || format!("an event of {} without a key", self.prefix));
        };
        audit.watched.add();
        audit.expect(kv.mod_revision >= *seen, || format!("{kv:?} came after revision {seen}"));
        *seen = kv.mod_revision;
        let is_delete = event.r#type() == EventType::Delete;
        let key = String::from_utf8_lossy(&kv.key).into_owned();
        let old = self.objects().get(&key).cloned();
        let new = (!is_delete).then(|| Arc::new(Object::read(kv)));
        let before = event.prev_kv.as_ref().map(Object::read);
        audit.expect(before.as_ref() == old.as_deref(), || {
            format!("{key} was {before:?} in the event and {old:?} before")
        });
        match (&old, &new) {
            (None, None) => audit.expect(false, || format!("{key} was deleted and not there")),
            (None, Some(new)) => audit.expect(new.version == 1 && new.create_revision == new.mod_revision, || {
                format!("{key} appeared with a past: {new:?}")
            }),
            (Some(old), Some(new)) => {
                let next = new.version == old.version + 1 && new.create_revision == old.create_revision;
                audit.expect(next, || format!("{key} went from {old:?} to {new:?}"));
            }
            (Some(_), None) => {}
        }
        match &new {
            Some(new) => self.objects().insert(key, new.clone()),
            None => self.objects().remove(&key),
        };
        if old.is_some() || new.is_some() {
            let change = Change { old, new };
            (self.check)(&change);
            // Nobody may be listening.
            let _ = self.changes.send(change);
        }
    }
}

//! Watches: being told what happens to keys, without gap or repeat.
//!
//! ```text
//!   Watcher  Watcher  Watcher        one for each client.watch(…), a bounded queue of answers each
//!      ▲        ▲        ▲
//!      └────────┼────────┘
//!             hub.rs                 one for each set of metadata: owns the stream, numbers, resumes
//!               ▲
//!               │ one Watch stream   to whichever endpoint answers
//! ```
//!
//! # What is promised
//!
//! * Events come in the order of their revisions; those of one revision come in one answer.
//! * When the stream ends (the member stops, the connection is cut, the member loses its leader and one was required), the
//!   hub opens another one and continues every watch at the first revision that it has not delivered. Nobody notices,
//!   unless the history from there has been compacted away: then the watch ends with [`WatchError::Compacted`], because
//!   anything else would be a gap. List again and watch from there.
//! * A watch that started "now" continues from the revision at which it was created, however long it has seen nothing.
//! * A watcher that does not read is paused when its queue is full ([`Watch::buffer`]): the hub cancels it at the server,
//!   keeps nothing for it, and creates it anew, from the first revision that it has not delivered, once half of its queue
//!   is free. It costs the others nothing, and the worst that can happen to it is [`WatchError::Compacted`].
//!
//! # What is not
//!
//! An answer to [`Watcher::request_progress`] moves no watch on: members up to 3.5.7 have given such answers too early.
//! Periodic ones ([`Watch::progress_notify`]) do, and spare a quiet watch the compaction error after a reconnect.

mod error;
mod hub;
mod watched;

use std::{
    collections::HashMap,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
};

use cairn_proto::{
    etcdserverpb::{self as pb, watch_create_request::FilterType},
    mvccpb::Event,
};
use parking_lot::Mutex;
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

pub use error::WatchError;
use hub::{Command, Order};

use crate::{
    client::Client, deadline::until, endpoint::Endpoint, error::Error, key::KeyRange, login::Key, namespace::Namespace,
    seen::Seen,
};

/// Answers a watcher may leave unread before it is paused.
const BUFFER_ANSWERS: usize = 64;

/// Orders that may wait for a hub; more wait outside.
const COMMANDS_MAX: usize = 64;

/// A watch to be created by awaiting it.
#[derive(Debug, Clone)]
#[must_use = "a watch is created when it is awaited"]
pub struct Watch {
    client: Client,
    request: pb::WatchCreateRequest,
    require_leader: bool,
    buffer: usize,
}

/// What happened, or how far a quiet watch has come.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchAnswer {
    /// Who tells. The revision is the store's, which may be ahead of the events; of progress, the one it is about.
    pub header: pb::ResponseHeader,
    /// The events, by revision; none if this tells progress.
    pub events: Vec<Event>,
}

impl WatchAnswer {
    /// Whether this tells that everything up to the header's revision has been told.
    pub fn is_progress(&self) -> bool {
        self.events.is_empty()
    }
}

/// A watch. Dropping it cancels it.
#[derive(Debug)]
pub struct Watcher {
    created: pb::ResponseHeader,
    answers: mpsc::Receiver<Result<WatchAnswer, WatchError>>,
    hub: mpsc::Sender<Command>,
    ended: bool,
    namespace: Option<Namespace>,
    seen: Option<Arc<Seen>>,
}

impl Client {
    /// Watches a key or a range of keys, from now on unless told otherwise.
    ///
    /// Awaiting it waits until a server has created the watch, at most as long as the command time-out.
    pub fn watch(&self, keys: impl Into<KeyRange>) -> Watch {
        let (key, range_end) = keys.into().into_parts();
        Watch {
            client: self.clone(),
            // Pieces of an answer that is too large for one message are put together here.
            request: pb::WatchCreateRequest { key, range_end, fragment: true, ..Default::default() },
            require_leader: self.options().require_leader,
            buffer: BUFFER_ANSWERS,
        }
    }
}

impl Watch {
    /// Begins with the events of this revision, which may lie in the past or in the future. 0: from now on.
    pub fn revision(mut self, revision: i64) -> Self {
        self.request.start_revision = revision;
        self
    }

    /// Tells with each event what the key was before, unless that has been compacted away.
    pub fn prev_kv(mut self) -> Self {
        self.request.prev_kv = true;
        self
    }

    /// Tells from time to time how far a watch without events has come (by default every ten minutes).
    pub fn progress_notify(mut self) -> Self {
        self.request.progress_notify = true;
        self
    }

    /// Leaves puts out.
    pub fn no_puts(mut self) -> Self {
        self.request.filters.push(FilterType::Noput.into());
        self
    }

    /// Leaves deletes out.
    pub fn no_deletes(mut self) -> Self {
        self.request.filters.push(FilterType::Nodelete.into());
        self
    }

    /// Goes elsewhere when the member at hand has lost its leader, instead of waiting there.
    pub fn require_leader(mut self) -> Self {
        self.require_leader = true;
        self
    }

    /// Answers that may be left unread before the watch is paused; at least 1. Default: 64.
    pub fn buffer(mut self, answers: usize) -> Self {
        self.buffer = answers.max(1);
        self
    }

    /// Creates the watch; the same as awaiting it.
    pub async fn start(self) -> Result<Watcher, WatchError> {
        let Some(limit) = self.client.timeout() else { return self.created().await };
        until(Instant::now() + limit, self.created()).await.unwrap_or_else(|| {
            Err(WatchError::Failed(Error::DeadlineExceeded { timeout: limit, endpoint: None, last: None }))
        })
    }

    async fn created(mut self) -> Result<Watcher, WatchError> {
        let namespace = self.client.namespace().cloned();
        if let Some(namespace) = &namespace {
            namespace.enter_watch(&mut self.request);
        }
        loop {
            let (answers, receiver) = mpsc::channel(self.buffer);
            let (created, told) = oneshot::channel();
            let order = Order { request: self.request.clone(), answers, created };
            let hub = self.client.watches().order(&self.client, self.require_leader, order).await;
            // No answer at all means that the hub had just decided that nobody needs it any more. The next one is new.
            if let Ok(created) = told.await {
                let (created, seen) = (created?, self.client.seen().cloned());
                return Ok(Watcher { created, answers: receiver, hub, ended: false, namespace, seen });
            }
        }
    }
}

impl IntoFuture for Watch {
    type Output = Result<Watcher, WatchError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

impl Watcher {
    /// Who created the watch, and at which revision of the store.
    pub fn created(&self) -> &pb::ResponseHeader {
        &self.created
    }

    /// Waits for what happens next. After an error the watch is over.
    pub async fn next(&mut self) -> Result<WatchAnswer, WatchError> {
        if self.ended {
            return Err(WatchError::Ended);
        }
        let mut answer = self.answers.recv().await.unwrap_or(Err(WatchError::Ended));
        self.ended = answer.is_err();
        if let Ok(answer) = &mut answer {
            if let (Some(seen), Some(last)) = (&self.seen, answer.events.last()) {
                seen.see(watched::revision(last));
            }
            if let Some(namespace) = &self.namespace {
                namespace.leave_events(&mut answer.events);
            }
        }
        answer
    }

    /// Asks how far the watches of this client with the same metadata have come.
    ///
    /// The answer comes to all of them, without events. While one of them is behind there is none: ask again.
    pub async fn request_progress(&self) -> Result<(), WatchError> {
        self.hub.send(Command::Progress).await.map_err(|_| WatchError::Ended)
    }
}

/// What watches on one stream have in common.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Metadata {
    only: Option<Endpoint>,
    identity: Key,
    require_leader: bool,
}

/// The hubs of a client and its clones.
#[derive(Debug, Default)]
pub(crate) struct Hubs(Mutex<HashMap<Metadata, mpsc::Sender<Command>>>);

impl Hubs {
    /// Has a watch created by the hub for its metadata. Returns where more can be ordered.
    async fn order(&self, client: &Client, require_leader: bool, order: Order) -> mpsc::Sender<Command> {
        let metadata = Metadata { only: client.only(), identity: client.identity().key(), require_leader };
        let known = self.0.lock().get(&metadata).cloned();
        let mut command = Command::Create(Box::new(order));
        if let Some(hub) = known {
            match hub.send(command).await {
                Ok(()) => return hub,
                Err(unsent) => command = unsent.0,
            }
        }
        let (hub, commands) = mpsc::channel(COMMANDS_MAX);
        let waiting = match self.0.lock().entry(metadata.clone()) {
            // Another order may have found the hub gone, and made a new one, meanwhile.
            std::collections::hash_map::Entry::Occupied(other) if !other.get().is_closed() => Some(other.get().clone()),
            std::collections::hash_map::Entry::Occupied(mut gone) => {
                gone.insert(hub.clone());
                None
            }
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(hub.clone());
                None
            }
        };
        if let Some(other) = waiting {
            // If that one is gone, too, the order is dropped with it, and whoever waits for it orders again.
            let _ = other.send(command).await;
            return other;
        }
        tokio::spawn(hub::run(client.with_timeout(None), metadata, commands, command));
        hub
    }

    /// The next command for a hub without watches; without one the hub is forgotten.
    fn next_or_retire(&self, metadata: &Metadata, commands: &mut mpsc::Receiver<Command>) -> Option<Command> {
        let mut hubs = self.0.lock();
        let next = commands.try_recv().ok();
        if next.is_none() {
            commands.close();
            hubs.remove(metadata);
        }
        next
    }
}

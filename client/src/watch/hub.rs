//! The owner of one stream: creates the watches that share it, hands their answers out, and continues them on another stream
//! when this one ends.
//!
//! It is one task and waits in one place ([`Hub::attending`]), so that orders, departures, answers and the wait for an
//! endpoint never hold each other up. Servers answer creations in the order they were asked for, which tells whose a
//! creation's answer is; later answers carry the server's number.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    future::{Future, pending},
    pin::pin,
    time::Duration,
};

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, watch_request::RequestUnion},
    rpc::Method,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep},
};
use tonic::{Code, Status, codegen::tokio_stream::wrappers::ReceiverStream};
use tonic_prost::ProstCodec;

use super::{
    Metadata, WatchAnswer, WatchError,
    watched::{Delivery, Place, Watched},
};
use crate::{
    call::{Attempts, outgoing_with},
    client::Client,
    error::Error,
    login::Shown,
    peers::{Peer, jittered},
    verdict::NotReady,
};

const PATH: &str = Method::Watch.path();

/// The number of answers that are for every watch of a stream.
const ALL: i64 = -1;

/// Requests on their way into the stream.
const REQUESTS_MAX: usize = 16;

/// Rest between two streams, so that a member that ends them at once is not asked as fast as it can refuse.
const PAUSE: Duration = Duration::from_millis(50);

/// For so long after a new token, a missing permission is believed to be one.
const TOKEN_IS_NEW: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) enum Command {
    Create(Box<Order>),
    Progress,
}

/// A watch that is wanted.
#[derive(Debug)]
pub(crate) struct Order {
    pub(super) request: pb::WatchCreateRequest,
    pub(super) answers: mpsc::Sender<Result<WatchAnswer, WatchError>>,
    pub(super) created: oneshot::Sender<Result<pb::ResponseHeader, WatchError>>,
}

/// What a watch's reader did.
#[derive(Debug)]
enum Moved {
    /// It reads no more.
    Left,
    /// It has made room.
    Drained,
}

/// How a stream ended.
enum End {
    /// Nobody needs one.
    Idle,
    /// Another one may do better.
    Again,
}

struct Hub {
    metadata: Metadata,
    commands: mpsc::Receiver<Command>,
    watches: BTreeMap<u64, Watched>,
    next_key: u64,
    by_id: HashMap<i64, u64>,
    /// The watches whose creation the stream's answers come to next.
    creating: VecDeque<u64>,
    /// Requests that the stream has not taken yet.
    outbox: VecDeque<pb::WatchRequest>,
    readers: JoinSet<(u64, Moved)>,
    /// When a watch had the token replaced.
    renewed_at: Option<Instant>,
}

/// Runs a hub until it has no watches any more.
pub(super) async fn run(client: Client, metadata: Metadata, commands: mpsc::Receiver<Command>, first: Command) {
    let mut hub = Hub {
        metadata,
        commands,
        watches: BTreeMap::new(),
        next_key: 0,
        by_id: HashMap::new(),
        creating: VecDeque::new(),
        outbox: VecDeque::new(),
        readers: JoinSet::new(),
        renewed_at: None,
    };
    hub.accept(first);
    let mut attempts = Attempts::new(&client, true);
    loop {
        if let End::Idle = hub.stream(&client, &mut attempts).await {
            match client.watches().next_or_retire(&hub.metadata, &mut hub.commands) {
                Some(command) => hub.accept(command),
                None => return,
            }
        } else {
            // Unless everybody has left meanwhile, in which case the next round finds out.
            let _ = hub.attending(sleep(jittered(PAUSE)), None).await;
        }
    }
}

impl Hub {
    /// Opens a stream and serves the watches until it ends.
    async fn stream<'c>(&mut self, client: &'c Client, attempts: &mut Attempts<'c>) -> End {
        let shown = match self.attending(attempts.shown(), None).await {
            None => return End::Idle,
            Some(Ok(shown)) => shown,
            Some(Err(error)) => return self.broken(client, attempts, &error),
        };
        let peer = match self.attending(attempts.next(), None).await {
            None => return End::Idle,
            Some(Ok(peer)) => peer,
            Some(Err(error)) => return self.broken(client, attempts, &error),
        };
        let (requests, taken) = mpsc::channel(REQUESTS_MAX);
        self.begin();
        let mut grpc = client.grpc(&peer);
        let outgoing = outgoing_with(ReceiverStream::new(taken), self.metadata.require_leader, &shown);
        let opening = async move {
            grpc.ready().await.map_err(|error| NotReady(error).into_status())?;
            let path = http::uri::PathAndQuery::from_static(PATH);
            grpc.streaming(outgoing, path, ProstCodec::<pb::WatchRequest, pb::WatchResponse>::default()).await
        };
        let mut answers = match self.attending(opening, Some(&requests)).await {
            None => return End::Idle,
            Some(Ok(answers)) => answers.into_inner(),
            Some(Err(status)) => return self.failed(client, attempts, &peer, status, &shown).await,
        };
        peer.is_reachable();
        let bytes_max = client.options().answer_bytes_max;
        loop {
            match self.attending(answers.message(), Some(&requests)).await {
                None => return End::Idle,
                Some(Ok(Some(answer))) => {
                    // Servers that refuse a token cancel what was asked for with it, some with the words for a missing
                    // permission: which it is, a new token tells.
                    let new = attempts.renewed() || self.renewed_at.is_some_and(|then| then.elapsed() < TOKEN_IS_NEW);
                    if !new && is_refused(&answer) {
                        match self.attending(attempts.renew(&shown), None).await {
                            None => return End::Idle,
                            Some(Err(error)) => return self.broken(client, attempts, &error),
                            Some(Ok(true)) => {
                                self.renewed_at = Some(Instant::now());
                                return End::Again;
                            }
                            Some(Ok(false)) => {}
                        }
                    }
                    *attempts = Attempts::new(client, true);
                    self.answer(answer, bytes_max);
                }
                Some(Ok(None)) => {
                    let status = Status::unavailable("the watch stream ended");
                    return self.failed(client, attempts, &peer, status, &shown).await;
                }
                Some(Err(status)) => return self.failed(client, attempts, &peer, status, &shown).await,
            }
        }
    }

    /// Waits for `future`, looking after orders and readers, and feeding the stream, meanwhile. `None` if nobody is left.
    async fn attending<T>(
        &mut self,
        future: impl Future<Output = T>,
        requests: Option<&mpsc::Sender<pb::WatchRequest>>,
    ) -> Option<T> {
        let mut future = pin!(future);
        while !self.watches.is_empty() {
            let room = async {
                match requests.filter(|_| !self.outbox.is_empty()) {
                    Some(requests) => requests.reserve().await,
                    None => pending().await,
                }
            };
            tokio::select! {
                done = &mut future => return Some(done),
                Some(command) = self.commands.recv() => self.accept(command),
                Some(Ok((key, moved))) = self.readers.join_next() => self.moved(key, &moved),
                Ok(room) = room => if let Some(request) = self.outbox.pop_front() {
                    room.send(request);
                },
            }
        }
        None
    }

    fn accept(&mut self, command: Command) {
        match command {
            Command::Create(order) => {
                let Order { request, answers, created } = *order;
                let (key, reader) = (self.next_key, answers.clone());
                self.next_key += 1;
                self.readers.spawn(async move {
                    reader.closed().await;
                    (key, Moved::Left)
                });
                self.watches.insert(key, Watched::new(request, answers, created));
                self.create(key);
            }
            Command::Progress => {
                let asked = |request: &pb::WatchRequest| {
                    matches!(request.request_union, Some(RequestUnion::ProgressRequest(_)))
                };
                if !self.outbox.iter().any(asked) {
                    let request_union = Some(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
                    self.outbox.push_back(pb::WatchRequest { request_union });
                }
            }
        }
    }

    /// Asks the server for a watch.
    fn create(&mut self, key: u64) {
        if let Some(watched) = self.watches.get_mut(&key) {
            self.outbox.push_back(watched.create());
            self.creating.push_back(key);
        }
    }

    fn cancel(&mut self, id: i64) {
        self.by_id.remove(&id);
        let request_union = Some(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: id }));
        self.outbox.push_back(pb::WatchRequest { request_union });
    }

    /// A new stream knows nothing: it is asked for every watch that has room.
    fn begin(&mut self) {
        self.by_id.clear();
        self.creating.clear();
        self.outbox.clear();
        let wanted = self.watches.iter().filter(|(_, watched)| watched.place != Place::Paused);
        for key in wanted.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.create(key);
        }
    }

    fn moved(&mut self, key: u64, moved: &Moved) {
        match moved {
            Moved::Left => {
                if let Some(Watched { place: Place::Live(id), .. }) = self.watches.remove(&key) {
                    self.cancel(id);
                }
            }
            Moved::Drained => {
                if self.watches.get(&key).is_some_and(|watched| watched.place == Place::Paused) {
                    self.create(key);
                }
            }
        }
    }

    fn answer(&mut self, answer: pb::WatchResponse, bytes_max: usize) {
        let id = answer.watch_id;
        if answer.created {
            return self.created(&answer);
        }
        if id == ALL && !answer.canceled {
            let header = answer.header.unwrap_or_default();
            for watched in self.watches.values().filter(|watched| matches!(watched.place, Place::Live(_))) {
                // Who has left is noticed elsewhere.
                let _ = watched.tell_progress(header);
            }
            return;
        }
        // Answers for a number that is not known any more were on their way when the watch was cancelled.
        let Some(key) = self.by_id.get(&id).copied() else { return };
        if answer.canceled {
            self.by_id.remove(&id);
            return self.fail(key, reason(&answer));
        }
        let Some(watched) = self.watches.get_mut(&key) else { return };
        match watched.deliver(answer, bytes_max) {
            Delivery::Done | Delivery::Closed => {}
            Delivery::TooLarge => {
                self.cancel(id);
                self.fail(key, WatchError::TooLarge { bytes_max });
            }
            Delivery::Full => self.pause(key, id),
        }
    }

    fn created(&mut self, answer: &pb::WatchResponse) {
        let Some(key) = self.creating.pop_front() else { return };
        if answer.canceled {
            return self.fail(key, reason(answer));
        }
        match self.watches.get_mut(&key) {
            Some(watched) => {
                watched.is_created(answer.header.unwrap_or_default(), answer.watch_id);
                self.by_id.insert(answer.watch_id, key);
            }
            // It was given up while the server created it.
            None => self.cancel(answer.watch_id),
        }
    }

    /// Takes a watch from the server until its reader has made room.
    fn pause(&mut self, key: u64, id: i64) {
        self.cancel(id);
        let Some(watched) = self.watches.get_mut(&key) else { return };
        watched.place = Place::Paused;
        watched.forget_pieces();
        let queue = watched.answers.clone();
        let wanted = queue.max_capacity().div_ceil(2);
        tracing::debug!(watch = key, "paused: its reader is behind");
        self.readers.spawn(async move {
            let moved = if queue.reserve_many(wanted).await.is_ok() { Moved::Drained } else { Moved::Left };
            (key, moved)
        });
    }

    fn fail(&mut self, key: u64, error: WatchError) {
        if let Some(watched) = self.watches.remove(&key) {
            watched.fail(error);
        }
    }

    async fn failed<'c>(
        &mut self,
        client: &'c Client,
        attempts: &mut Attempts<'c>,
        peer: &Peer,
        status: Status,
        shown: &Shown,
    ) -> End {
        match self.attending(attempts.refused_or_failed(peer, status, shown), None).await {
            None => End::Idle,
            Some(Ok(())) => End::Again,
            Some(Err(error)) => self.broken(client, attempts, &error),
        }
    }

    /// An error that is no reason for another attempt by itself. A server's refusal ends the watches; everything else
    /// passes some day.
    fn broken<'c>(&mut self, client: &'c Client, attempts: &mut Attempts<'c>, error: &Error) -> End {
        *attempts = Attempts::new(client, true);
        if matches!(error, Error::Answered { .. }) && !matches!(error.code(), Code::Unavailable | Code::Internal) {
            for (_, watched) in std::mem::take(&mut self.watches) {
                watched.fail(WatchError::Failed(error.clone()));
            }
        }
        End::Again
    }
}

/// Whether a server may have cancelled a watch for its token.
fn is_refused(answer: &pb::WatchResponse) -> bool {
    use ApiError::{AuthOldRevision, InvalidAuthToken, PermissionDenied, UserEmpty};
    let reasons = [InvalidAuthToken, AuthOldRevision, UserEmpty, PermissionDenied];
    answer.canceled && reasons.iter().any(|error| answer.cancel_reason.contains(error.text()))
}

/// Why a server has cancelled a watch.
fn reason(answer: &pb::WatchResponse) -> WatchError {
    match answer.compact_revision {
        0 => WatchError::Cancelled { reason: answer.cancel_reason.clone() },
        compact_revision => WatchError::Compacted { compact_revision, header: answer.header.unwrap_or_default() },
    }
}

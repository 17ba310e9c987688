//! One request from the caller's first wish to the answer, over as many attempts as are safe and in time.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use prost::Message;
use tokio::time::{Instant, sleep_until};
use tonic::{Code, Request, Status, Streaming, client::Grpc, codegen::tokio_stream, metadata::MetadataValue};
use tonic_prost::ProstCodec;

use crate::{
    client::Client,
    deadline::until,
    endpoint::Endpoint,
    error::Error,
    login::{Shown, wants_another},
    namespace::Namespace,
    peers::{Peer, Peers, jittered},
    rpc::{ServerStreaming, Unary},
    seen::Seen,
    transport::Transport,
    verdict::{NotReady, Verdict, judge},
};

/// How often a request that changes nothing is sent again after an answer that was lost or said `Unavailable`.
const ATTEMPTS_MAX: u32 = 100;

/// Pause after all endpoints gave such an answer; doubles each time around.
const PAUSE_MIN: Duration = Duration::from_millis(25);
const PAUSE_MAX: Duration = Duration::from_millis(500);

impl Client {
    /// Sends any request of the API and returns the answer as it came.
    ///
    /// The request and answer types are in [`proto`](crate::proto). Retries and deadline are as for every other request.
    pub async fn call<Q: Unary>(&self, mut request: Q) -> Result<Q::Answer, Error> {
        if let Some(namespace) = self.namespace() {
            request.enter(namespace);
        }
        self.fits(&request)?;
        let guard = self.seen().map(|seen| (seen, seen.revision()));
        let mut attempts = Attempts::new(self, request.changes_nothing());
        loop {
            let shown = attempts.shown().await?;
            let peer = attempts.next().await?;
            let mut grpc = self.grpc(&peer);
            let mut outgoing = self.outgoing(request.clone(), &shown);
            if let Some(deadline) = attempts.deadline {
                outgoing.set_timeout(deadline.saturating_duration_since(Instant::now()));
            }
            let answer = attempts.in_time(&peer, async move {
                grpc.ready().await.map_err(|error| NotReady(error).into_status())?;
                let path = http::uri::PathAndQuery::from_static(Q::PATH);
                grpc.unary(outgoing, path, ProstCodec::<Q, Q::Answer>::default()).await
            });
            match answer.await? {
                Ok(answer) => {
                    peer.is_reachable();
                    let mut answer = answer.into_inner();
                    if let (Some((seen, before)), Some(revision)) = (guard, Q::revision(&answer)) {
                        if revision < before {
                            attempts.outdated(&peer, revision, before)?;
                            continue;
                        }
                        seen.see(revision);
                    }
                    if let Some(namespace) = self.namespace() {
                        Q::leave(&mut answer, namespace);
                    }
                    return Ok(answer);
                }
                Err(status) => attempts.refused_or_failed(&peer, status, &shown).await?,
            }
        }
    }

    /// Sends any request that is answered in pieces.
    ///
    /// Retries and deadline hold until the answer begins; reading it takes as long as it takes.
    pub async fn stream<Q: ServerStreaming>(&self, mut request: Q) -> Result<Answers<Q::Piece>, Error> {
        if let Some(namespace) = self.namespace() {
            request.enter(namespace);
        }
        self.fits(&request)?;
        let guard = self.seen().map(|seen| (Arc::clone(seen), seen.revision()));
        let mut attempts = Attempts::new(self, true);
        loop {
            let shown = attempts.shown().await?;
            let peer = attempts.next().await?;
            let mut grpc = self.grpc(&peer);
            let outgoing = self.outgoing(request.clone(), &shown);
            let answer = attempts.in_time(&peer, async move {
                grpc.ready().await.map_err(|error| NotReady(error).into_status())?;
                let path = http::uri::PathAndQuery::from_static(Q::PATH);
                grpc.server_streaming(outgoing, path, ProstCodec::<Q, Q::Piece>::default()).await
            });
            match answer.await? {
                Ok(answer) => {
                    peer.is_reachable();
                    return Ok(Answers {
                        endpoint: peer.endpoint.clone(),
                        stream: answer.into_inner(),
                        namespace: self.namespace().cloned(),
                        leave: Q::leave,
                        guard,
                        revision: Q::revision,
                    });
                }
                Err(status) => attempts.refused_or_failed(&peer, status, &shown).await?,
            }
        }
    }

    /// Sends one message over a method that takes and answers many, and returns the first answer to it.
    ///
    /// For requests that do no harm when they are sent twice.
    pub(crate) async fn exchange<Q, A>(&self, path: &'static str, request: Q) -> Result<A, Error>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        let mut attempts = Attempts::new(self, true);
        loop {
            let shown = attempts.shown().await?;
            let peer = attempts.next().await?;
            let mut grpc = self.grpc(&peer);
            let outgoing = self.outgoing(tokio_stream::once(request.clone()), &shown);
            let answer = attempts.in_time(&peer, async move {
                grpc.ready().await.map_err(|error| NotReady(error).into_status())?;
                let path = http::uri::PathAndQuery::from_static(path);
                let mut answers = grpc.streaming(outgoing, path, ProstCodec::<Q, A>::default()).await?.into_inner();
                answers.message().await?.ok_or_else(|| Status::unavailable("the stream ended without an answer"))
            });
            match answer.await? {
                Ok(answer) => {
                    peer.is_reachable();
                    return Ok(answer);
                }
                Err(status) => attempts.refused_or_failed(&peer, status, &shown).await?,
            }
        }
    }

    /// Checked here, because tonic finds out in the middle of sending and then looks like a broken connection.
    fn fits(&self, request: &impl Message) -> Result<(), Error> {
        let (bytes, bytes_max) = (request.encoded_len(), self.options().request_bytes_max);
        if bytes > bytes_max { Err(Error::TooLarge { bytes, bytes_max }) } else { Ok(()) }
    }

    pub(crate) fn grpc(&self, peer: &Peer) -> Grpc<Transport> {
        Grpc::new(peer.transport.clone()).max_decoding_message_size(self.options().answer_bytes_max)
    }

    fn outgoing<Q>(&self, message: Q, shown: &Shown) -> Request<Q> {
        outgoing_with(message, self.options().require_leader, shown)
    }
}

/// A message with its metadata.
pub(crate) fn outgoing_with<Q>(message: Q, require_leader: bool, shown: &Shown) -> Request<Q> {
    let mut request = Request::new(message);
    if require_leader {
        request.metadata_mut().insert("hasleader", MetadataValue::from_static("true"));
    }
    if let Some(token) = &shown.token {
        request.metadata_mut().insert("token", token.clone());
    }
    request
}

/// An answer in pieces.
pub struct Answers<A> {
    endpoint: Endpoint,
    stream: Streaming<A>,
    namespace: Option<Namespace>,
    leave: fn(&mut A, &Namespace),
    /// What the client had seen when it asked.
    guard: Option<(Arc<Seen>, i64)>,
    revision: fn(&A) -> Option<i64>,
}

impl<A: Message + Default> Answers<A> {
    /// The next piece; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<A>, Error> {
        let piece = self.stream.message().await.map_err(|status| as_error(&self.endpoint, status))?;
        let Some(mut piece) = piece else { return Ok(None) };
        if let (Some((seen, before)), Some(revision)) = (&self.guard, (self.revision)(&piece)) {
            if revision < *before {
                return Err(Error::Outdated { endpoint: self.endpoint.clone(), revision, seen: *before });
            }
            seen.see(revision);
        }
        if let Some(namespace) = &self.namespace {
            (self.leave)(&mut piece, namespace);
        }
        Ok(Some(piece))
    }

    /// Who answers.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }
}

impl<A> fmt::Debug for Answers<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answers").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

fn as_error(endpoint: &Endpoint, status: Status) -> Error {
    let (endpoint, verdict, status) = (endpoint.clone(), judge(&status), Box::new(status));
    match verdict {
        Verdict::Answered | Verdict::TimedOut => Error::Answered { endpoint, status },
        Verdict::Unsent => Error::Unreachable { endpoint, status },
        Verdict::Lost => Error::Lost { endpoint, status },
    }
}

/// The attempts at one request.
pub(crate) struct Attempts<'c> {
    client: &'c Client,
    /// The endpoints as they were at the last attempt.
    peers: Arc<Peers>,
    /// The request changes nothing, so that sending it twice does no harm.
    repeatable: bool,
    timeout: Option<Duration>,
    deadline: Option<Instant>,
    /// Attempts so far that may have reached a server.
    repeats: u32,
    /// The endpoints tried since the last pause.
    tried: Vec<usize>,
    pause: Duration,
    last: Option<Box<Error>>,
    /// The last answer that was too old, if there was one.
    outdated: Option<Box<Error>>,
    /// A token was refused and replaced.
    renewed: bool,
}

impl<'c> Attempts<'c> {
    pub(crate) fn new(client: &'c Client, repeatable: bool) -> Self {
        let timeout = client.timeout();
        Self {
            client,
            peers: client.peers(),
            repeatable,
            timeout,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            repeats: 0,
            tried: Vec::new(),
            pause: PAUSE_MIN,
            last: None,
            outdated: None,
            renewed: false,
        }
    }

    /// What the next attempt shows.
    pub(crate) async fn shown(&mut self) -> Result<Shown, Error> {
        let client = self.client;
        self.before_the_deadline(client.shown()).await
    }

    /// Gets another token, once, if this is what a server wants. Otherwise decides as [`failed`](Self::failed).
    pub(crate) async fn refused_or_failed(&mut self, peer: &Peer, status: Status, shown: &Shown) -> Result<(), Error> {
        if !self.renewed && wants_another(&status) && self.renew(shown).await? {
            peer.is_reachable();
            return Ok(());
        }
        self.failed(peer, status)
    }

    /// Gets another token; `false` if there is none to be had.
    pub(crate) async fn renew(&mut self, refused: &Shown) -> Result<bool, Error> {
        let client = self.client;
        self.renewed = self.before_the_deadline(client.renew(refused)).await?;
        // The server that wants it has not been tried with it.
        self.tried.clear();
        Ok(self.renewed)
    }

    pub(crate) fn renewed(&self) -> bool {
        self.renewed
    }

    async fn before_the_deadline<T>(&mut self, done: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match self.deadline {
            None => done.await,
            Some(deadline) => until(deadline, done).await.unwrap_or_else(|| Err(self.too_late(None))),
        }
    }

    /// The endpoint to try now, after waiting until one may be tried. None is tried once the time is up.
    pub(crate) async fn next(&mut self) -> Result<Arc<Peer>, Error> {
        let peer = self.choose().await?;
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(self.too_late(None));
        }
        Ok(peer)
    }

    async fn choose(&mut self) -> Result<Arc<Peer>, Error> {
        let peers = self.client.peers();
        if !Arc::ptr_eq(&self.peers, &peers) {
            // The numbers of those tried are of another list.
            self.tried.clear();
            self.peers = peers;
        }
        // Whoever asks for one endpoint wants to know how it is, and does not wait for it to be rested. And when one is
        // behind, the others are asked how far they are, not waited for.
        let at_once = self.client.options().fail_fast
            || self.outdated.is_some()
            || self.peers.list().len() == 1 && self.tried.is_empty();
        if at_once {
            if let Some(peer) = self.peers.untried(&self.tried) {
                return Ok(self.try_now(peer));
            }
            if let Some(last) = self.outdated.take().or_else(|| self.last.take()) {
                return Err(*last);
            }
        }
        let now = Instant::now();
        let turn = self.peers.next(&self.tried, now);
        let mut not_before = turn.not_before;
        if self.tried.contains(&turn.peer) {
            self.tried.clear();
            not_before = not_before.max(Some(now + jittered(self.pause)));
            self.pause = (self.pause * 2).min(PAUSE_MAX);
        }
        if let Some(not_before) = not_before {
            self.wait_until(not_before).await?;
        }
        Ok(self.try_now(turn.peer))
    }

    fn try_now(&mut self, peer: usize) -> Arc<Peer> {
        self.tried.push(peer);
        Arc::clone(&self.peers.list()[peer])
    }

    async fn wait_until(&mut self, time: Instant) -> Result<(), Error> {
        match self.deadline.filter(|deadline| *deadline <= time) {
            None => sleep_until(time).await,
            Some(deadline) => {
                sleep_until(deadline).await;
                return Err(self.too_late(None));
            }
        }
        Ok(())
    }

    /// Runs one attempt until the deadline.
    async fn in_time<T>(
        &mut self,
        peer: &Peer,
        attempt: impl Future<Output = Result<T, Status>>,
    ) -> Result<Result<T, Status>, Error> {
        let Some(deadline) = self.deadline else {
            return Ok(attempt.await);
        };
        let unconnected = peer.link.unconnected();
        if let Some(result) = until(deadline, attempt).await {
            return Ok(result);
        }
        peer.is_unreachable(&"no answer in time", Instant::now());
        let never_sent = unconnected.is_some_and(|then| peer.link.still_unconnected(then));
        Err(self.too_late(if never_sent { None } else { Some(peer) }))
    }

    /// Decides what follows from a failed attempt: another one, or the error.
    pub(crate) fn failed(&mut self, peer: &Peer, status: Status) -> Result<(), Error> {
        let verdict = judge(&status);
        match verdict {
            Verdict::Unsent | Verdict::TimedOut => peer.is_unreachable(&status, Instant::now()),
            Verdict::Answered => peer.is_reachable(),
            Verdict::Lost => {}
        }
        let again = match verdict {
            Verdict::Unsent => true,
            Verdict::Answered => self.repeatable && status.code() == Code::Unavailable,
            Verdict::Lost => self.repeatable,
            Verdict::TimedOut if self.timeout.is_some() => return Err(self.too_late(Some(peer))),
            Verdict::TimedOut => false,
        };
        if verdict != Verdict::Unsent {
            self.repeats += 1;
        }
        let error = as_error(&peer.endpoint, status);
        if again && self.repeats < ATTEMPTS_MAX {
            tracing::debug!(%error, "trying again");
            self.last = Some(Box::new(error));
            return Ok(());
        }
        Err(error)
    }

    /// The answer is from before what the client has seen: others may be further, if they may be asked.
    fn outdated(&mut self, peer: &Peer, revision: i64, seen: i64) -> Result<(), Error> {
        let error = Error::Outdated { endpoint: peer.endpoint.clone(), revision, seen };
        if !self.repeatable {
            return Err(error);
        }
        tracing::debug!(%error, "trying another endpoint");
        self.outdated = Some(Box::new(error));
        Ok(())
    }

    fn too_late(&mut self, under_way_at: Option<&Peer>) -> Error {
        Error::DeadlineExceeded {
            timeout: self.timeout.unwrap_or_default(),
            endpoint: under_way_at.map(|peer| peer.endpoint.clone()),
            last: self.last.take(),
        }
    }
}

//! One client's connection, from its first byte to its end.
//!
//! ```text
//!   Acceptor (TLS) ─▶ CoalescingIo ─▶ PingGuard (frames) ─▶ HTTP/1.1 or HTTP/2 ─▶ gRPC by content type, else the HTTP endpoints
//! ```
//!
//! Every wait for the client has a time-out until it has made itself known. What comes in is bytes from anyone: whatever does not speak a protocol we know
//! is disconnected without a word.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{
    line::CoalescingIo,
    pings::{Activity, OpenCall, PingGuard},
};
use crate::{
    api::{
        grpc::{
            Connection, Grpc,
            body::{Body, BodyError},
            drained::Waiting,
            is_grpc,
        },
        router::Origin,
    },
    http::{Endpoints, Http, Scope},
    security::Acceptor,
    socket::Stream,
};

/// A client has to say something within this time.
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_mins(1);
/// The head of an HTTP/1.1 request has to be complete within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a call's request that wait to be read; then the client has to wait.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
/// The same for all calls of a connection: one that waits does not hold the others up. Half of it is the library's budget for what small frames that wait
/// cost besides.
const CONNECTION_WINDOW_BYTES: u32 = 32 * STREAM_WINDOW_BYTES;
/// Calls that a client has reset before they were accepted; more end the connection. They come in one turn: fewer than so many are read in one.
const PENDING_RESETS_MAX: usize = 4096;

/// Bytes of a request's head, all metadata included, as HTTP/2 counts them. A client is told; a call whose head is a little larger is refused for
/// itself, one that is far larger ends its connection.
const HEAD_BYTES_MAX: u32 = 1024 * 1024;

/// Bytes of a request's body that are read although they do not matter.
const DRAINED_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long reading them may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What is served at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// gRPC.
    pub grpc: bool,
    /// Which HTTP endpoints.
    pub http: Option<Endpoints>,
}

impl Port {
    /// Whether more is served than what is asked about the member itself, metrics and health.
    pub fn serves_clients(self) -> bool {
        self.grpc || self.http == Some(Endpoints::All)
    }
}

/// Limits of a connection.
#[derive(Debug, Clone)]
pub struct Limits {
    /// A client that pings more often is disconnected.
    pub ping_min_time: Duration,
    /// How often an idle client is pinged, if at all.
    pub ping_interval: Option<Duration>,
    /// How long its answer may take.
    pub ping_timeout: Duration,
    /// Calls that may be open at a time.
    pub max_streams: u32,
}

/// What happens to a connection beside its requests.
enum Seldom {
    Stopping,
    TimeToHaveSaidSomething,
}

/// What all connections share.
pub struct Gate {
    /// Serves gRPC.
    pub grpc: Arc<Grpc>,
    /// Serves everything else.
    pub http: Arc<Http>,
    /// Limits.
    pub limits: Limits,
    /// Told when connections are to end.
    pub stopping: CancellationToken,
}

impl Gate {
    /// Takes a connection that came in at `port` through its handshake and serves it until the client leaves or the server stops.
    pub async fn serve_socket(self: Arc<Self>, stream: Stream, port: Port, acceptor: Acceptor) {
        let address = stream.peer_addr().ok().flatten();
        let accepted = tokio::select! {
            accepted = acceptor.accept(stream) => accepted,
            () = self.stopping.cancelled() => return,
        };
        // Why a handshake failed was logged there.
        if let Ok(stream) = accepted {
            let tls = stream.is_tls();
            let common_name = stream.peer_identity().and_then(|peer| peer.common_name.as_deref()).map(Arc::from);
            self.serve(stream, port, tls, Origin { address, common_name }).await;
        }
    }

    /// Serves HTTP on `io`, which comes from `origin`, until the client leaves or the server stops.
    pub async fn serve<I>(self: Arc<Self>, io: I, port: Port, tls: bool, origin: Origin)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let activity = Arc::new(Activity::default());
        let connection = Connection { waiting: Waiting::default(), origin: origin.into() };
        let (gate, calls) = (self.clone(), activity.clone());
        let service = service_fn(move |request| {
            let (gate, call, connection) = (gate.clone(), calls.begin(), connection.clone());
            async move { Ok::<_, Infallible>(gate.answer(request, port, tls, call, &connection).await) }
        });
        let builder = self.builder();
        let line = CoalescingIo::new(io);
        let watched = PingGuard::new(line.clone(), activity.clone(), self.limits.ping_min_time);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(watched), service));
        // Polled only when one of them has something to say: the connection is woken for every request.
        let mut seldom = FuturesUnordered::<Pin<Box<dyn Future<Output = Seldom> + Send>>>::new();
        let stopping = self.stopping.clone();
        seldom.push(Box::pin(async move {
            stopping.cancelled().await;
            Seldom::Stopping
        }));
        seldom.push(Box::pin(async {
            tokio::time::sleep(FIRST_BYTE_TIMEOUT).await;
            Seldom::TimeToHaveSaidSomething
        }));
        loop {
            let turn = poll_fn(|cx| {
                activity.begin_turn();
                // How a connection ends is of no interest: clients leave in every way there is.
                let ended = connection.as_mut().poll(cx).is_ready();
                let broken = matches!(line.poll_send(cx), Poll::Ready(Err(_)));
                if ended || broken { Poll::Ready(()) } else { Poll::Pending }
            });
            tokio::select! {
                biased;
                () = turn => break,
                Some(event) = seldom.next() => match event {
                    Seldom::Stopping => connection.as_mut().graceful_shutdown(),
                    Seldom::TimeToHaveSaidSomething if activity.heard() => {}
                    Seldom::TimeToHaveSaidSomething => break,
                },
            }
        }
    }

    fn builder(&self) -> auto::Builder<TokioExecutor> {
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            // Counted over a connection's life, which may last for months; what piles up of them is bounded where frames are read.
            .max_local_error_reset_streams(None)
            .max_header_list_size(HEAD_BYTES_MAX)
            .max_concurrent_streams(self.limits.max_streams)
            .keep_alive_interval(self.limits.ping_interval)
            .keep_alive_timeout(self.limits.ping_timeout);
        builder
    }

    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        port: Port,
        tls: bool,
        call: OpenCall,
        connection: &Connection,
    ) -> Response<CallBody> {
        let response = if port.grpc && is_grpc(&request) {
            self.grpc.call(request, connection).await
        } else {
            let scope = Scope { endpoints: port.http, tls };
            let (head, body) = request.into_parts();
            drain(body).await;
            self.http.answer(Request::from_parts(head, ()), scope).await
        };
        call.sending();
        response.map(|body| CallBody { body, call })
    }
}

/// Reads a body that does not matter to its end: a client that is cut off while it sends may not see the answer. What is
/// large or slow is not waited for.
async fn drain(mut body: Incoming) {
    if http_body::Body::is_end_stream(&body) {
        return;
    }
    let drained = async {
        let mut left = DRAINED_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    };
    // What a client still sends then is its own affair.
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, drained).await;
}

/// The body of an answer; the call is open until it is dropped.
struct CallBody {
    body: Body,
    call: OpenCall,
}

impl http_body::Body for CallBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if polled.is_ready() {
            self.call.sending();
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

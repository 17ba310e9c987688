//! The peer port: from an accepted socket to a stream of frames.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use cairn_proto::peer::peer_server::{PeerServer, SERVICE_NAME};
use http::{Request, Response};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tower::Service as _;

use super::{
    CONNECTION_WINDOW_BYTES, LOCAL_RESETS_MAX, PENDING_RESETS_MAX, STREAM_WINDOW_BYTES, plain, registry::Peers,
    service::Service, source,
};
use crate::{
    security::{AcceptError, Acceptor},
    socket::{Listening, Stream},
};

/// Connections to the peer port that may be open at a time; the next ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 1024;
/// The head of a request has to be complete within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after the system had no resources for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);
/// Calls that a connection may have open.
const STREAMS_MAX: u32 = 64;

/// Where a caller comes from, as the system says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Address(pub(super) Option<SocketAddr>);

/// Serves connections of other members.
pub struct Gate {
    peers: Arc<Peers>,
    service: PeerServer<Service>,
    connections: Arc<Semaphore>,
    /// Whether certificates have to be for the address that they come from.
    checks_source: bool,
    stopping: CancellationToken,
}

impl Gate {
    /// Serves connections until `stopping` is cancelled, and hands what arrives to the replica of `peers`.
    ///
    /// `checks_source` says whether the certificate of a member has to be for the address that it comes from.
    pub fn new(peers: Arc<Peers>, checks_source: bool, stopping: CancellationToken) -> Arc<Self> {
        let service = PeerServer::new(Service::new(Arc::clone(&peers)))
            .max_decoding_message_size(peers.frame_bytes_max())
            .max_encoding_message_size(usize::MAX);
        let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        Arc::new(Self { peers, service, connections, checks_source, stopping })
    }

    /// Accepts connections until the server stops. To be spawned where the replica runs.
    pub async fn accept(self: Arc<Self>, socket: Listening, acceptor: Acceptor) {
        let socket = match socket.attach() {
            Ok(socket) => socket,
            Err(error) => return tracing::error!(%error, "cannot accept connections of members"),
        };
        loop {
            // The semaphore is never closed.
            let Ok(permit) = Arc::clone(&self.connections).acquire_owned().await else { return };
            let accepted = tokio::select! {
                () = self.stopping.cancelled() => return,
                accepted = async { acceptor.ready().await; socket.accept().await } => accepted,
            };
            match accepted {
                Ok(stream) => {
                    let (gate, acceptor) = (Arc::clone(&self), acceptor.clone());
                    tokio::spawn(async move {
                        gate.serve(stream, acceptor).await;
                        drop(permit);
                    });
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {}
                Err(error) => {
                    tracing::warn!(%error, "cannot accept connections of members for now");
                    tokio::time::sleep(EXHAUSTED_PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: Stream, acceptor: Acceptor) {
        let address = stream.peer_addr().ok().flatten();
        let accepted = tokio::select! {
            accepted = acceptor.accept(stream) => accepted,
            () = self.stopping.cancelled() => return,
        };
        // Why a handshake failed was logged there.
        let Ok(stream) = accepted else { return };
        if self.checks_source
            && let (Some(identity), Some(from)) = (stream.peer_identity(), address)
            && let Err(reason) = source::check(identity, from).await
        {
            return acceptor.reject(address, &AcceptError::Elsewhere(reason));
        }
        let gate = Arc::clone(&self);
        let service = service_fn(move |mut request: Request<Incoming>| {
            let gate = Arc::clone(&gate);
            request.extensions_mut().insert(Address(address));
            async move { Ok::<_, Infallible>(gate.answer(request).await) }
        });
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
        builder
            .http2()
            .timer(TokioTimer::new())
            .auto_date_header(false)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
            .max_local_error_reset_streams(LOCAL_RESETS_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(self.peers.read_timeout())
            .keep_alive_timeout(self.peers.read_timeout());
        tokio::select! {
            // How a connection of a member ends is of no interest: the other side connects again.
            served = builder.serve_connection(TokioIo::new(stream), service) => {
                let error = served.err();
                let nonsense = error.as_ref().and_then(|error| error.downcast_ref::<hyper::Error>());
                if let Some(error) = nonsense.filter(|error| error.is_parse()) {
                    acceptor.reject(address, &AcceptError::NotHttp(error.to_string()));
                }
            }
            () = self.stopping.cancelled() => {}
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let for_members = request
            .uri()
            .path()
            .strip_prefix('/')
            .is_some_and(|path| path.strip_prefix(SERVICE_NAME).is_some_and(|method| method.starts_with('/')));
        if !for_members {
            return plain::answer(&self.peers, &request);
        }
        let Ok(response) = self.service.clone().call(request).await;
        response
    }
}

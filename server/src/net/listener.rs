//! Where clients come in: sockets, and the loops that accept on them.
//!
//! One loop an address accepts and gives each connection to the thread with the fewest. (Letting every thread accept for itself with SO_REUSEPORT spreads
//! connections by hash, which leaves a thread idle when there are few of them, and would let a second server take the same port unnoticed.)

use std::{io, sync::Arc, time::Duration};

use super::{
    connection::{Gate, Port},
    threads::Threads,
};
use crate::{
    config::Config,
    http::Endpoints,
    node::ReplicaView,
    security::Acceptor,
    socket::{Detached, Listening, Stream},
    types::{ListenAddr, Place, Url, listen_addrs},
};

/// How long to wait after the system had no resources for another connection.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// A socket that listens.
pub struct Listener {
    /// What the configuration says about it.
    pub listen: ListenAddr,
    /// What is served there.
    pub port: Port,
    socket: Listening,
}

impl Listener {
    /// Where it really listens.
    pub fn place(&self) -> io::Result<Place> {
        self.socket.place()
    }
}

/// Why a socket does not listen.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The URL names nothing that can be listened on.
    #[error("{0}")]
    Url(String),
    /// The system refuses.
    #[error("cannot listen on {place}: {source}")]
    Bind {
        /// The address or the path.
        place: Place,
        /// The system's words.
        source: io::Error,
    },
}

/// Listens wherever the configuration says that clients are served.
pub fn listen(config: &Config) -> Result<Vec<Listener>, ListenError> {
    let http_apart = !config.listen_client_http_urls.is_empty();
    let all = Some(Endpoints::All);
    let mut listeners = Vec::new();
    let mut add = |urls: &[Url], port: Port| {
        for listen in listen_addrs(urls).map_err(ListenError::Url)? {
            let socket = bind(&listen, config)?;
            listeners.push(Listener { listen, port, socket });
        }
        Ok(())
    };
    add(&config.listen_client_urls, Port { grpc: true, http: if http_apart { None } else { all } })?;
    add(&config.listen_client_http_urls, Port { grpc: false, http: all })?;
    add(&config.listen_metrics_urls, Port { grpc: false, http: Some(Endpoints::Metrics) })?;
    Ok(listeners)
}

/// Listens wherever the configuration says that other members are served.
pub fn listen_for_members(config: &Config) -> Result<Vec<(ListenAddr, Listening)>, ListenError> {
    let listen = |listen: ListenAddr| bind(&listen, config).map(|socket| (listen, socket));
    listen_addrs(&config.listen_peer_urls).map_err(ListenError::Url)?.into_iter().map(listen).collect()
}

fn bind(listen: &ListenAddr, config: &Config) -> Result<Listening, ListenError> {
    let bound = Listening::bind(&listen.place, config.socket_reuse_port);
    bound.map_err(|source| ListenError::Bind { place: listen.place.clone(), source })
}

/// Accepts connections until the server stops. Where clients are served, connections wait in the system's backlog until the
/// member [serves](ReplicaView::serves): a client that has other endpoints takes one of those meanwhile.
pub async fn accept(listener: Listener, acceptor: Acceptor, gate: Arc<Gate>, threads: Arc<Threads>, node: ReplicaView) {
    if listener.port.serves_clients() && !node.wait_to_serve().await {
        return;
    }
    let addr = listener.listen.place;
    let socket = match listener.socket.attach() {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%addr, %error, "cannot accept connections"),
    };
    loop {
        let accepted = tokio::select! {
            () = gate.stopping.cancelled() => return,
            accepted = async { acceptor.ready().await; socket.accept().await } => accepted,
        };
        match accepted.and_then(Stream::detach) {
            Ok(stream) => {
                let (gate, acceptor) = (gate.clone(), acceptor.clone());
                threads.spawn_connection(serve(gate, stream, listener.port, acceptor));
            }
            // The client was gone before it was accepted.
            Err(error) if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) => {
            }
            Err(error) => {
                tracing::warn!(%addr, %error, "cannot accept connections for now");
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

async fn serve(gate: Arc<Gate>, stream: Detached, port: Port, acceptor: Acceptor) {
    // Registered here, with the runtime that it is served on.
    if let Ok(stream) = stream.attach() {
        gate.serve_socket(stream, port, acceptor).await;
    }
}

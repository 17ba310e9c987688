//! From an accepted socket to a connection that can be served.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use super::reload::TlsReloader;
use super::stream::MaybeTlsStream;
use crate::socket::Stream;
use crate::types::ListenAddr;

/// The first byte of every TLS connection: a handshake record. No HTTP method begins with it.
const TLS_FIRST_BYTE: u8 = 0x16;

/// Rejected connections are logged one by one at most this often; the others are counted.
const REJECTION_LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Bounds on connections that are not yet served.
#[derive(Clone, Copy, Debug)]
pub struct AcceptLimits {
    /// How long a handshake may take, from the first byte waited for, its turn included. 10 s.
    pub handshake_timeout: Duration,
    /// How many handshakes may be under way on one acceptor. 1,024; the next ones wait for their turn.
    pub max_handshakes: usize,
}

impl Default for AcceptLimits {
    fn default() -> Self {
        Self { handshake_timeout: Duration::from_secs(10), max_handshakes: 1024 }
    }
}

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The client did not finish its handshake in time.
    #[error("TLS handshake timed out")]
    TimedOut,
    /// The handshake failed.
    #[error("TLS handshake failed: {0}")]
    Handshake(io::Error),
    /// The certificate is for another address than that it came from.
    #[error("the certificate does not fit the address: {0}")]
    Elsewhere(String),
    /// What came is none of the protocols that are served.
    #[error("it does not speak HTTP: {0}")]
    NotHttp(String),
    /// The socket failed.
    #[error("connection failed: {0}")]
    Socket(#[from] io::Error),
}

/// Whose connections are taken: what the log says of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Callers {
    /// Clients.
    Clients,
    /// Other members.
    Members,
}

impl Callers {
    const fn endpoint(self) -> &'static str {
        match self {
            Self::Clients => "client",
            Self::Members => "peer",
        }
    }
}

/// What became of the connections of an acceptor.
#[derive(Debug, Default)]
pub struct AcceptStats {
    accepted: AtomicU64,
    rejected: AtomicU64,
}

impl AcceptStats {
    /// Connections that came out fit to be served.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Connections that did not.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }
}

/// Takes the connections of one listener through their handshakes. Cheap to clone; clones share their limits.
#[derive(Clone, Debug)]
pub struct Acceptor {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    mode: Mode,
    callers: Callers,
    limits: AcceptLimits,
    handshakes: Semaphore,
    stats: AcceptStats,
    rejections: Mutex<RejectionLog>,
}

#[derive(Debug)]
enum Mode {
    Plain,
    Tls(Arc<TlsReloader>),
    /// Both on one port, told apart by the first byte.
    Either(Arc<TlsReloader>),
}

impl Acceptor {
    /// An acceptor without TLS.
    pub fn plain(limits: AcceptLimits) -> Self {
        Self::new(Mode::Plain, Callers::Clients, limits)
    }

    /// An acceptor for TLS alone.
    pub fn tls(reloader: Arc<TlsReloader>, limits: AcceptLimits) -> Self {
        Self::new(Mode::Tls(reloader), Callers::Clients, limits)
    }

    /// The acceptor for a listener that serves what `listen` says. `reloader` is that of [`super::client_tls`]; without
    /// one nothing is served over TLS, which a valid configuration excludes where `listen` asks for it.
    pub fn for_listener(
        listen: &ListenAddr,
        reloader: Option<&Arc<TlsReloader>>,
        callers: Callers,
        limits: AcceptLimits,
    ) -> Self {
        let mode = match reloader {
            Some(reloader) if listen.tls && listen.plain => Mode::Either(Arc::clone(reloader)),
            Some(reloader) if listen.tls => Mode::Tls(Arc::clone(reloader)),
            _ => Mode::Plain,
        };
        Self::new(mode, callers, limits)
    }

    #[expect(clippy::disallowed_methods, reason = "log lines are held back by the clock")]
    fn new(mode: Mode, callers: Callers, limits: AcceptLimits) -> Self {
        let handshakes = Semaphore::new(limits.max_handshakes);
        let stats = AcceptStats::default();
        let rejections = Mutex::new(RejectionLog { next: Instant::now(), unlogged: 0 });
        Self { inner: Arc::new(Inner { mode, callers, limits, handshakes, stats, rejections }) }
    }

    /// What became of the connections so far.
    pub fn stats(&self) -> &AcceptStats {
        &self.inner.stats
    }

    /// Handshakes under way.
    pub fn handshakes(&self) -> usize {
        self.inner.limits.max_handshakes - self.inner.handshakes.available_permits()
    }

    /// Waits until a handshake could begin at once. An accept loop calls this before each accept, so that under a flood
    /// connections wait in the kernel's queue and not in tasks of ours.
    pub async fn ready(&self) {
        // The semaphore is never closed.
        let _ = self.inner.handshakes.acquire().await;
    }

    /// Takes `stream` through its handshake. Waits for the client, so not to be awaited in an accept loop.
    ///
    /// # Errors
    /// If the connection is not to be served; it is closed and, unless the client merely hung up, logged.
    pub async fn accept(&self, stream: impl Into<Stream>) -> Result<MaybeTlsStream, AcceptError> {
        let stream = stream.into();
        let peer = stream.peer_addr();
        let result = self.inner.accept(stream).await;
        match &result {
            Ok(_) => drop(self.inner.stats.accepted.fetch_add(1, Ordering::Relaxed)),
            Err(error) => self.reject(peer.ok().flatten(), error),
        }
        result
    }

    /// Notes, and logs, that a connection from `peer` is not served any more, for `error`.
    pub fn reject(&self, peer: Option<SocketAddr>, error: &AcceptError) {
        self.inner.log_rejection(peer, error);
        self.inner.stats.rejected.fetch_add(1, Ordering::Relaxed);
    }
}

impl Inner {
    async fn accept(&self, stream: Stream) -> Result<MaybeTlsStream, AcceptError> {
        stream.set_nodelay()?;
        let (reloader, either) = match &self.mode {
            Mode::Plain => return Ok(MaybeTlsStream::plain(stream)),
            Mode::Tls(reloader) => (reloader, false),
            Mode::Either(reloader) => (reloader, true),
        };
        let handshake = async {
            let _permit = self.handshakes.acquire().await;
            // A client that hangs up before its first byte counts as plain, and is then served nothing.
            if either && stream.first_byte().await? != Some(TLS_FIRST_BYTE) {
                return Ok(MaybeTlsStream::plain(stream));
            }
            let config = reloader.current().await;
            TlsAcceptor::from(config).accept(stream).await.map(MaybeTlsStream::tls).map_err(AcceptError::Handshake)
        };
        tokio::time::timeout(self.limits.handshake_timeout, handshake).await.unwrap_or(Err(AcceptError::TimedOut))
    }

    #[expect(clippy::disallowed_methods, reason = "log lines are held back by the clock")]
    fn log_rejection(&self, peer: Option<SocketAddr>, error: &AcceptError) {
        let endpoint = self.callers.endpoint();
        let peer = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string());
        // Port scanners and health checks of load balancers connect and hang up.
        if matches!(error, AcceptError::Handshake(error) | AcceptError::Socket(error) if is_hang_up(error)) {
            tracing::debug!("remote-addr" = peer, %error, "rejected connection on {endpoint} endpoint");
            return;
        }
        if let Some(unlogged) = self.rejections.lock().turn(Instant::now()) {
            tracing::warn!("remote-addr" = peer, %error, unlogged, "rejected connection on {endpoint} endpoint");
        }
    }
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

/// Keeps a flood of bad connections from becoming a flood of log lines.
#[derive(Debug)]
struct RejectionLog {
    next: Instant,
    unlogged: u64,
}

impl RejectionLog {
    /// If it is time for a line, how many were left out since the last one.
    fn turn(&mut self, now: Instant) -> Option<u64> {
        if now < self.next {
            self.unlogged += 1;
            return None;
        }
        self.next = now + REJECTION_LOG_INTERVAL;
        Some(std::mem::take(&mut self.unlogged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "an instant can be had in no other way")]
    fn a_flood_of_rejections_is_counted_not_logged() {
        let start = Instant::now();
        let mut log = RejectionLog { next: start, unlogged: 0 };
        assert_eq!(log.turn(start), Some(0));
        assert_eq!(log.turn(start + Duration::from_millis(1)), None);
        assert_eq!(log.turn(start + Duration::from_millis(999)), None);
        assert_eq!(log.turn(start + Duration::from_secs(1)), Some(2));
        assert_eq!(log.turn(start + Duration::from_secs(2)), Some(0));
    }
}

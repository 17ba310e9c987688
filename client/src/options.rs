//! What a client can be told before it starts.

use std::{future::Future, io, sync::Arc, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    client::Client,
    endpoint::{Endpoint, InvalidEndpoint},
    error::BuildError,
    login::{Identity, Login},
    tls::TlsOptions,
    transport::{BoxIo, Connect},
};

/// Servers end connections that ping more often than every five seconds; no client of ours comes near that.
pub const KEEP_ALIVE_INTERVAL_MIN: Duration = Duration::from_secs(10);

const DIAL_TIMEOUT: Duration = Duration::from_secs(2);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: KeepAlive = KeepAlive { interval: Duration::from_secs(10), timeout: Duration::from_secs(6) };

#[derive(Debug, Clone, Copy)]
pub(crate) struct KeepAlive {
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
}

/// The options in force; see [`ClientBuilder`] for what each does.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) identity: Identity,
    pub(crate) tls: Option<TlsOptions>,
    pub(crate) connect: Option<Connect>,
    pub(crate) dial_timeout: Duration,
    pub(crate) command_timeout: Option<Duration>,
    pub(crate) keep_alive: Option<KeepAlive>,
    pub(crate) request_bytes_max: usize,
    pub(crate) answer_bytes_max: usize,
    pub(crate) require_leader: bool,
    pub(crate) fail_fast: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            identity: Identity::Anonymous,
            tls: None,
            connect: None,
            dial_timeout: DIAL_TIMEOUT,
            command_timeout: Some(COMMAND_TIMEOUT),
            keep_alive: Some(KEEP_ALIVE),
            request_bytes_max: usize::MAX,
            answer_bytes_max: usize::MAX,
            require_leader: false,
            fail_fast: false,
        }
    }
}

/// Collects options and starts a [`Client`].
#[derive(Clone)]
pub struct ClientBuilder {
    endpoints: Vec<Result<Endpoint, InvalidEndpoint>>,
    options: Options,
}

impl ClientBuilder {
    pub(crate) fn new<E>(endpoints: impl IntoIterator<Item = E>) -> Self
    where
        E: TryInto<Endpoint>,
        InvalidEndpoint: From<E::Error>,
    {
        let endpoints = endpoints.into_iter().map(|endpoint| Ok(endpoint.try_into()?)).collect();
        Self { endpoints, options: Options::default() }
    }

    pub(crate) fn with_options(endpoints: impl IntoIterator<Item = Endpoint>, options: Options) -> Self {
        Self { endpoints: endpoints.into_iter().map(Ok).collect(), options }
    }

    /// Speaks TLS with every endpoint whose scheme is not `http://`.
    ///
    /// Without this option only `https://` endpoints get TLS, with the default [`TlsOptions`].
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.options.tls = Some(tls);
        self
    }

    /// Speaks as this user. Where servers want no users, nothing changes.
    ///
    /// Name and password are changed for a token when the first request needs one, and again when a server does not accept
    /// the token any more: because it ran out, the server was restarted, or permissions have changed. One request asks for
    /// all; then each is sent again, once. Watches and leases that are kept alive go on likewise.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.options.identity = Identity::User(Arc::new(Login::new(name.into(), password.into())));
        self
    }

    /// Longest time for making a connection, TLS handshake included. Default: 2 s.
    #[must_use]
    pub fn dial_timeout(mut self, timeout: Duration) -> Self {
        self.options.dial_timeout = timeout;
        self
    }

    /// Longest time for a request: connecting, all attempts, and the answer (of an answer in pieces, its beginning).
    /// Default: 5 s. `None` waits as long as it takes, for a connection too.
    #[must_use]
    pub fn command_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.options.command_timeout = timeout.into();
        self
    }

    /// While requests are under way, pings the server at this interval and gives the connection up if no answer comes
    /// within `timeout`. Default: every 10 s, 6 s. An interval below [`KEEP_ALIVE_INTERVAL_MIN`] is raised to it.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration, timeout: Duration) -> Self {
        self.options.keep_alive = Some(KeepAlive { interval, timeout });
        self
    }

    /// Does not ping.
    #[must_use]
    pub fn no_keep_alive(mut self) -> Self {
        self.options.keep_alive = None;
        self
    }

    /// Largest request to send, in bytes. Default: no limit here; servers have one (1.5 MiB unless told otherwise).
    #[must_use]
    pub fn request_bytes_max(mut self, bytes: usize) -> Self {
        self.options.request_bytes_max = bytes;
        self
    }

    /// Largest answer to accept, in bytes. Default: no limit; ranges are as large as they are.
    #[must_use]
    pub fn answer_bytes_max(mut self, bytes: usize) -> Self {
        self.options.answer_bytes_max = bytes;
        self
    }

    /// Has members that know no leader refuse requests at once, instead of answering what they still can.
    #[must_use]
    pub fn require_leader(mut self) -> Self {
        self.options.require_leader = true;
        self
    }

    /// Tries every endpoint once, then fails, instead of going on until the command time-out.
    #[must_use]
    pub fn fail_fast(mut self) -> Self {
        self.options.fail_fast = true;
        self
    }

    /// Makes raw connections with `connect` instead of TCP: over sockets of another kind, or through a simulated network.
    ///
    /// TLS still goes on top where the endpoint asks for it, and the dial time-out still holds.
    #[must_use]
    pub fn connector<F, C, T>(mut self, connect: F) -> Self
    where
        F: Fn(Endpoint) -> C + Send + Sync + 'static,
        C: Future<Output = io::Result<T>> + Send + 'static,
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        self.options.connect = Some(Arc::new(move |endpoint| {
            let connecting = connect(endpoint);
            Box::pin(async move { connecting.await.map(|io| Box::new(io) as BoxIo) })
        }));
        self
    }

    /// Starts the client. Connections are made when they are needed.
    ///
    /// Must be called inside a tokio runtime: the connections live on it.
    pub fn build(self) -> Result<Client, BuildError> {
        let endpoints = self.endpoints.into_iter().collect::<Result<Vec<_>, _>>()?;
        Client::start(endpoints, self.options)
    }
}

//! The client itself: a handle that is cheap to clone, on connections that its clones share.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::runtime::Handle;
use tonic::{
    body::Body,
    metadata::{Ascii, MetadataValue},
};

use crate::{
    endpoint::{Endpoint, InvalidEndpoint},
    error::BuildError,
    options::{ClientBuilder, Options},
    peers::Peers,
    tls::TlsOptions,
    transport::{BoxError, Dialer, Link, Transport},
    watch::Hubs,
};

/// A client of one cluster.
///
/// Cloning is cheap, and clones share their connections: one to each endpoint, made on first use and again after a loss.
/// Dropping the last clone closes them.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
    /// Index of the one endpoint to use; all if there is none.
    only: Option<usize>,
    timeout: Option<Duration>,
    token: Option<MetadataValue<Ascii>>,
}

struct Shared {
    peers: Peers,
    options: Options,
    watches: Hubs,
}

impl Client {
    /// A client of these endpoints, with the default options. Must be called inside a tokio runtime.
    pub fn new<E>(endpoints: impl IntoIterator<Item = E>) -> Result<Self, BuildError>
    where
        E: TryInto<Endpoint>,
        InvalidEndpoint: From<E::Error>,
    {
        Self::builder(endpoints).build()
    }

    /// Options for a client of these endpoints.
    pub fn builder<E>(endpoints: impl IntoIterator<Item = E>) -> ClientBuilder
    where
        E: TryInto<Endpoint>,
        InvalidEndpoint: From<E::Error>,
    {
        ClientBuilder::new(endpoints)
    }

    /// A client of a gRPC service of this process, such as a server that is embedded in it.
    ///
    /// Requests and answers are encoded as ever, but go through no connection.
    pub fn in_process<S, B>(service: S) -> Self
    where
        S: tower::Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let peers =
            Peers::new([(Endpoint::in_process(), Transport::in_process(service), Arc::new(Link::in_process()))]);
        Self::with(peers, Options::default())
    }

    pub(crate) fn start(endpoints: Vec<Endpoint>, options: Options) -> Result<Self, BuildError> {
        if endpoints.is_empty() {
            return Err(BuildError::NoEndpoint);
        }
        if Handle::try_current().is_err() {
            return Err(BuildError::NoRuntime);
        }
        let tls = match &options.tls {
            Some(tls) => Some(tls.prepare()?),
            None if endpoints.iter().any(Endpoint::demands_tls) => Some(TlsOptions::default().prepare()?),
            None => None,
        };
        if let Some(tls) = &tls {
            for endpoint in endpoints.iter().filter(|endpoint| endpoint.uses_tls(true)) {
                tls.name_of(endpoint.host())?;
            }
        }
        let dialer = Dialer { connect: options.connect.clone(), tls, timeout: options.dial_timeout };
        let peers = Peers::new(endpoints.into_iter().map(|endpoint| {
            let link = Arc::default();
            let transport = Transport::http2(&endpoint, &link, &dialer, &options);
            (endpoint, transport, link)
        }));
        Ok(Self::with(peers, options))
    }

    fn with(peers: Peers, options: Options) -> Self {
        let timeout = options.command_timeout;
        Self { shared: Arc::new(Shared { peers, options, watches: Hubs::default() }), only: None, timeout, token: None }
    }

    /// A client with the same options for other endpoints, such as those a member list names.
    pub fn with_endpoints(&self, endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Self, BuildError> {
        let builder = ClientBuilder::with_options(endpoints, self.shared.options.clone());
        Ok(Self { token: self.token.clone(), ..builder.command_timeout(self.timeout).build()? })
    }

    /// The same client with another command time-out.
    #[must_use]
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        Self { timeout: timeout.into(), ..self.clone() }
    }

    /// The same client, showing this token with every request. Servers give one for a name and a password
    /// ([`AuthenticateRequest`](cairn_proto::etcdserverpb::AuthenticateRequest)).
    pub fn with_token(&self, token: &str) -> Result<Self, BuildError> {
        Ok(Self { token: Some(token.parse().map_err(|_| BuildError::Token)?), ..self.clone() })
    }

    /// The endpoints this client uses.
    pub fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.used().map(|index| &self.peers().list()[index].endpoint)
    }

    /// The same client, using only the endpoint at `index`.
    pub(crate) fn narrowed(&self, index: usize) -> Self {
        Self { only: Some(index), ..self.clone() }
    }

    /// Indices of the endpoints in use.
    pub(crate) fn used(&self) -> std::ops::Range<usize> {
        match self.only {
            Some(index) => index..index + 1,
            None => 0..self.peers().list().len(),
        }
    }

    pub(crate) fn peers(&self) -> &Peers {
        &self.shared.peers
    }

    /// The one endpoint in use, if there is only one by choice.
    pub(crate) fn only(&self) -> Option<usize> {
        self.only
    }

    pub(crate) fn watches(&self) -> &Hubs {
        &self.shared.watches
    }

    pub(crate) fn options(&self) -> &Options {
        &self.shared.options
    }

    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    pub(crate) fn token(&self) -> Option<&MetadataValue<Ascii>> {
        self.token.as_ref()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

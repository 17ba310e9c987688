//! The client itself: a handle that is cheap to clone, on connections that its clones share.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tonic::body::Body;

use crate::{
    endpoint::{Endpoint, InvalidEndpoint},
    error::{BuildError, Error},
    key::IntoBytes,
    login::{Hidden, Identity, Login},
    namespace::Namespace,
    options::{ClientBuilder, Options},
    peers::{Peer, Peers},
    seen::Seen,
    tls::{TlsError, TlsOptions},
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
    /// The one endpoint to use; all that are shared if there is none.
    only: Option<Arc<Peers>>,
    timeout: Option<Duration>,
    identity: Identity,
    namespace: Option<Namespace>,
    seen: Option<Arc<Seen>>,
}

struct Shared {
    peers: RwLock<Arc<Peers>>,
    /// Makes connections; none if the service is in this process.
    dialer: Option<Dialer>,
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
        let peer = Peer::new(Endpoint::in_process(), Transport::in_process(service), Arc::new(Link::in_process()));
        Self::with(Peers::new([Arc::new(peer)]), None, Options::default())
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
        let dialer = Dialer { connect: options.connect.clone(), tls, timeout: options.dial_timeout };
        let peers = endpoints.into_iter().map(|endpoint| connected(endpoint, &dialer, &options));
        let peers = Peers::new(peers.collect::<Result<Vec<_>, _>>()?);
        Ok(Self::with(peers, Some(dialer), options))
    }

    fn with(peers: Peers, dialer: Option<Dialer>, options: Options) -> Self {
        let timeout = options.command_timeout;
        let identity = options.identity.clone();
        let peers = RwLock::new(Arc::new(peers));
        let shared = Arc::new(Shared { peers, dialer, options, watches: Hubs::default() });
        Self { shared, only: None, timeout, identity, namespace: None, seen: None }
    }

    /// A client with the same options for other endpoints, such as those a member list names.
    pub fn with_endpoints(&self, endpoints: impl IntoIterator<Item = Endpoint>) -> Result<Self, BuildError> {
        let builder = ClientBuilder::with_options(endpoints, self.shared.options.clone());
        let other = builder.command_timeout(self.timeout).build()?;
        Ok(Self { shared: other.shared, only: None, ..self.clone() })
    }

    /// The same client with another command time-out.
    #[must_use]
    pub fn with_timeout(&self, timeout: impl Into<Option<Duration>>) -> Self {
        Self { timeout: timeout.into(), ..self.clone() }
    }

    /// The same client, showing this token with every request. Servers give one for a name and a password
    /// ([`AuthenticateRequest`](cairn_proto::etcdserverpb::AuthenticateRequest)).
    pub fn with_token(&self, token: &str) -> Result<Self, BuildError> {
        let token = token.parse().map_err(|_| BuildError::Token)?;
        Ok(Self { identity: Identity::Token(Hidden(token)), ..self.clone() })
    }

    /// The same client as this user, as [`ClientBuilder::user`] makes one.
    #[must_use]
    pub fn with_user(&self, name: impl Into<String>, password: impl Into<String>) -> Self {
        let login = Arc::new(Login::new(name.into(), password.into()));
        Self { identity: Identity::User(login), ..self.clone() }
    }

    /// The same client as no user, without a namespace and a guard.
    pub(crate) fn anonymous(&self) -> Self {
        Self { identity: Identity::Anonymous, namespace: None, seen: None, ..self.clone() }
    }

    /// Changes the name and the password for a token now, instead of when the first request needs it, so that a wrong password
    /// is told apart from a request that failed. Without a name, or where servers want no users, nothing happens.
    pub async fn authenticate(&self) -> Result<(), Error> {
        self.shown().await.map(|_| ())
    }

    /// The same client, seeing only the keys that begin with `prefix`, and these without it.
    ///
    /// Everything that names keys stays inside: reads, writes, transactions with their conditions, watches, and the recipes
    /// built on them. A range to the end of the key space ends with the prefix. Keys of leases and answers come without the
    /// prefix. A namespace of a namespace lies inside it. Requests that name no keys are what they are without it; those of
    /// the server's own Lock and Election services ([`Client::call`]) are not in a namespace.
    #[must_use]
    pub fn namespaced(&self, prefix: impl IntoBytes) -> Self {
        let namespace = Namespace::inside(self.namespace.as_ref(), &prefix.into_bytes());
        Self { namespace: Some(namespace), ..self.clone() }
    }

    /// The same client, never going back in time: it accepts no answer about keys from before the newest one that it, or a
    /// clone of it, had when the request was made, nor from before the last event of its watches.
    ///
    /// Members may be behind each other, which shows in reads that are [`serializable`](crate::Get::serializable): one that
    /// is answered with an older state is sent to the other endpoints, and is an [`Error::Outdated`]
    /// if none of them is as far. Answers in pieces are judged by the last piece, which tells the revision.
    #[must_use]
    pub fn ordered(&self) -> Self {
        Self { seen: Some(Arc::default()), ..self.clone() }
    }

    /// The endpoints this client uses.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.peers().list().iter().map(|peer| peer.endpoint.clone()).collect()
    }

    /// Uses these endpoints from now on, in this client and its clones. Connections to endpoints that stay are kept; a
    /// service of this process has no others.
    pub(crate) fn replace_endpoints(&self, endpoints: Vec<Endpoint>) -> Result<(), TlsError> {
        let Some(dialer) = &self.shared.dialer else { return Ok(()) };
        let known = Arc::clone(&self.shared.peers.read());
        let peers =
            endpoints.into_iter().map(|endpoint| match known.list().iter().find(|peer| peer.endpoint == endpoint) {
                Some(peer) => Ok(Arc::clone(peer)),
                None => connected(endpoint, dialer, self.options()),
            });
        let peers = Peers::new(peers.collect::<Result<Vec<_>, _>>()?);
        *self.shared.peers.write() = Arc::new(peers);
        Ok(())
    }

    /// The same client, using only this endpoint.
    pub(crate) fn narrowed(&self, peer: &Arc<Peer>) -> Self {
        Self { only: Some(Arc::new(Peers::new([Arc::clone(peer)]))), ..self.clone() }
    }

    /// The endpoints in use now.
    pub(crate) fn peers(&self) -> Arc<Peers> {
        self.only.clone().unwrap_or_else(|| Arc::clone(&self.shared.peers.read()))
    }

    /// The one endpoint in use, if there is only one by choice.
    pub(crate) fn only(&self) -> Option<Endpoint> {
        self.only.as_ref().map(|only| only.list()[0].endpoint.clone())
    }

    /// Makes connections; none if the service is in this process.
    pub(crate) fn dialer(&self) -> Option<&Dialer> {
        self.shared.dialer.as_ref()
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

    pub(crate) fn namespace(&self) -> Option<&Namespace> {
        self.namespace.as_ref()
    }

    pub(crate) fn seen(&self) -> Option<&Arc<Seen>> {
        self.seen.as_ref()
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints()).finish_non_exhaustive()
    }
}

/// An endpoint with a connection that is made on first use.
fn connected(endpoint: Endpoint, dialer: &Dialer, options: &Options) -> Result<Arc<Peer>, TlsError> {
    if let Some(tls) = dialer.tls.as_ref().filter(|_| endpoint.uses_tls(true)) {
        tls.name_of(endpoint.host())?;
    }
    let link = Arc::default();
    let transport = Transport::http2(&endpoint, &link, dialer, options);
    Ok(Arc::new(Peer::new(endpoint, transport, link)))
}

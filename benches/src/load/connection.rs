//! One HTTP/2 connection, plain or TLS.
//!
//! gRPC runs straight over hyper's connection handle: the usual channel's buffer and reconnect layers cost the generator, which shares the machine
//! with the server, more than they give a load test.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use anyhow::{Context as _, Result};
use cairn_proto::etcdserverpb::{AuthenticateRequest, auth_client::AuthClient};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio::{net::TcpStream, sync::OnceCell};
use tonic::body::Body;

use super::options::Target;

/// A clonable handle of one connection.
#[derive(Clone)]
pub struct Connection {
    sender: http2::SendRequest<Body>,
    origin: http::uri::Authority,
    scheme: http::uri::Scheme,
    token: Option<http::HeaderValue>,
}

/// Opens connections to the endpoints in turn.
pub struct Connector {
    tls: Option<tokio_rustls::TlsConnector>,
    endpoints: Vec<String>,
    /// Name and password.
    user: Option<(String, String)>,
    /// That of the user, once it is known.
    token: OnceCell<http::HeaderValue>,
}

impl Connector {
    /// Reads the certificates.
    pub fn new(target: &Target) -> Result<Self> {
        let wants_tls =
            target.cacert.is_some() || target.endpoints.iter().any(|endpoint| endpoint.starts_with("https://"));
        let tls = wants_tls.then(|| tls(target)).transpose()?.map(tokio_rustls::TlsConnector::from);
        let bare = |endpoint: &String| endpoint.trim_start_matches("https://").trim_start_matches("http://").to_owned();
        let user = target
            .user
            .as_ref()
            .map(|user| user.split_once(':').map(|(name, password)| (name.to_owned(), password.to_owned())));
        let user =
            user.map(|user| user.context("--user is a name and a password, with a colon between")).transpose()?;
        let endpoints = target.endpoints.iter().map(bare).collect();
        Ok(Self { tls, endpoints, user, token: OnceCell::new() })
    }

    /// Opens the connection with this number.
    pub async fn connect(&self, number: usize) -> Result<Connection> {
        let endpoint = &self.endpoints[number % self.endpoints.len()];
        let tcp = TcpStream::connect(endpoint).await.with_context(|| format!("connect to {endpoint}"))?;
        tcp.set_nodelay(true)?;
        let origin: http::uri::Authority =
            endpoint.parse().with_context(|| format!("{endpoint} is no host and port"))?;
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).initial_stream_window_size(1 << 20).initial_connection_window_size(16 << 20);
        let (sender, scheme) = if let Some(tls) = &self.tls {
            let name = ServerName::try_from(origin.host().to_owned())
                .with_context(|| format!("{origin} is no server name"))?;
            let stream = tls.connect(name, tcp).await.with_context(|| format!("TLS handshake with {endpoint}"))?;
            let (sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
            tokio::spawn(connection);
            (sender, http::uri::Scheme::HTTPS)
        } else {
            let (sender, connection) = builder.handshake(TokioIo::new(tcp)).await?;
            tokio::spawn(connection);
            (sender, http::uri::Scheme::HTTP)
        };
        let mut connection = Connection { sender, origin, scheme, token: None };
        if let Some(user) = &self.user {
            let token = self.token.get_or_try_init(|| log_in(connection.clone(), user)).await?;
            connection.token = Some(token.clone());
        }
        Ok(connection)
    }
}

/// The token of a user.
async fn log_in(connection: Connection, (name, password): &(String, String)) -> Result<http::HeaderValue> {
    let request = AuthenticateRequest { name: name.clone(), password: password.clone() };
    let answer =
        AuthClient::new(connection).authenticate(request).await.with_context(|| format!("log in as {name}"))?;
    Ok(answer.into_inner().token.parse()?)
}

fn tls(target: &Target) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    let path = target.cacert.as_ref().context("TLS needs --cacert")?;
    for certificate in CertificateDer::pem_file_iter(path).with_context(|| format!("read {}", path.display()))? {
        roots.add(certificate?)?;
    }
    let builder = rustls::ClientConfig::builder().with_root_certificates(roots);
    let mut config = match (&target.cert, &target.key) {
        (Some(cert), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(cert)?.collect::<Result<Vec<_>, _>>()?;
            builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_file(key)?)?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

impl tower::Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.sender.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let mut parts = std::mem::take(request.uri_mut()).into_parts();
        parts.authority = Some(self.origin.clone());
        parts.scheme = Some(self.scheme.clone());
        *request.uri_mut() = http::Uri::from_parts(parts).unwrap_or_default();
        if let Some(token) = &self.token {
            request.headers_mut().insert("token", token.clone());
        }
        Box::pin(self.sender.send_request(request))
    }
}

/// Requests of a stream that stays open: the receiving end of a channel.
pub struct Requests<T>(pub tokio::sync::mpsc::Receiver<T>);

impl<T> tonic::codegen::tokio_stream::Stream for Requests<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}

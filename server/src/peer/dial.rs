//! Connections towards other members.

use std::{io, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::{CONNECTION_WINDOW_BYTES, LOCAL_RESETS_MAX, STREAM_WINDOW_BYTES};
use crate::{security::TlsReloader, types::Url};

/// How long it may take until a connection is there, with TLS and all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a member cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// It has no URL.
    #[error("it has no peer URL")]
    NoUrl,
    /// A URL of it makes no sense.
    #[error("its peer URL cannot be used: {0}")]
    Url(String),
    /// It does not answer.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// Where it was tried.
        url: String,
        /// Why not.
        reason: String,
    },
}

/// Connects to members.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    tls: Option<Arc<TlsReloader<ClientConfig>>>,
}

/// A connection, with TLS or without.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Dialer {
    /// Connects with TLS where a URL says https, if there is a certificate to show.
    pub fn new(tls: Option<Arc<TlsReloader<ClientConfig>>>) -> Self {
        Self { tls }
    }

    /// A connection to the member at `urls`: the first of them that answers. Within a tokio runtime.
    pub async fn connect(&self, urls: &[String]) -> Result<Channel, DialError> {
        let mut failed = DialError::NoUrl;
        for url in urls {
            match self.connect_one(url).await {
                Ok(channel) => return Ok(channel),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    async fn connect_one(&self, text: &str) -> Result<Channel, DialError> {
        let url = Url::parse(text).map_err(DialError::Url)?;
        let unreachable = |reason: String| DialError::Unreachable { url: text.to_owned(), reason };
        // The connection is made here, whatever the endpoint's URL says.
        let endpoint = Endpoint::from_static("http://member")
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .http2_max_local_error_reset_streams(LOCAL_RESETS_MAX);
        let dialer = self.clone();
        let connector = service_fn(move |_| {
            let (dialer, url) = (dialer.clone(), url.clone());
            async move { dialer.open(&url).await.map(TokioIo::new) }
        });
        match tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(connector)).await {
            Ok(Ok(channel)) => Ok(channel),
            Ok(Err(error)) => Err(unreachable(root_cause(&error))),
            Err(_) => Err(unreachable("it did not answer in time".to_owned())),
        }
    }

    async fn open(&self, url: &Url) -> io::Result<Box<dyn Io>> {
        let stream = connect(url).await?;
        if !url.is_tls() {
            return Ok(stream);
        }
        let Some(tls) = &self.tls else {
            return Err(io::Error::other("its URL asks for TLS, but this member has no --peer-cert-file"));
        };
        let name = ServerName::try_from(url.host().to_owned()).map_err(io::Error::other)?;
        Ok(Box::new(TlsConnector::from(tls.current().await).connect(name, stream).await?))
    }
}

async fn connect(url: &Url) -> io::Result<Box<dyn Io>> {
    if let Some(path) = url.socket() {
        return Ok(Box::new(UnixStream::connect(path).await?));
    }
    let stream = match url.ip_addr().map_err(io::Error::other)? {
        Some(addr) => TcpStream::connect(addr).await?,
        None => TcpStream::connect((url.host(), url.port().unwrap_or_default())).await?,
    };
    // Without this, small frames wait for the other side's delayed acknowledgements (40 ms).
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

/// The innermost reason of an error: what is around it only says that connecting failed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

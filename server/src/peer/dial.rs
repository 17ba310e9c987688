//! Connections towards other members.

use std::{io, time::Duration};

use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use super::WINDOW_BYTES;
use crate::config::{Scheme, Url};

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
pub struct Dialer {}

impl Dialer {
    /// Without TLS.
    pub fn plain() -> Self {
        Self {}
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
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES);
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

    async fn open(&self, url: &Url) -> io::Result<TcpStream> {
        let stream = TcpStream::connect((url.host(), url.port())).await?;
        // Without this, small frames wait for the other side's delayed acknowledgements (40 ms).
        stream.set_nodelay(true)?;
        if url.scheme() == Scheme::Https {
            return Err(io::Error::other("TLS between members is not served yet"));
        }
        Ok(stream)
    }
}

/// The innermost reason of an error: what is around it only says that connecting failed.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

//! Making one connection: raw (TCP, or a socket in the file system), then TLS, both within the dial time-out.

use std::{future::Future, io, pin::Pin, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::Instant,
};
use tokio_rustls::TlsConnector;

use super::greeting::greet;
use crate::{deadline::until, endpoint::Endpoint, tls::Tls};

pub(crate) type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A connection of any kind.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

pub(crate) type BoxIo = Box<dyn Io>;

/// The user's way to make raw connections.
pub(crate) type Connect = Arc<dyn Fn(Endpoint) -> BoxFuture<io::Result<BoxIo>> + Send + Sync>;

/// Makes connections.
#[derive(Clone)]
pub(crate) struct Dialer {
    /// Makes raw connections; as the endpoint says if there is none.
    pub(crate) connect: Option<Connect>,
    pub(crate) tls: Option<Tls>,
    /// For everything until the connection can be used.
    pub(crate) timeout: Duration,
}

impl Dialer {
    pub(crate) fn has_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) async fn dial(&self, endpoint: &Endpoint) -> io::Result<BoxIo> {
        self.in_time(endpoint, self.dial_unhurried(endpoint)).await
    }

    /// Makes a connection on which the server has begun to speak HTTP/2.
    pub(crate) async fn dial_http2(&self, endpoint: &Endpoint) -> io::Result<BoxIo> {
        self.in_time(endpoint, async { greet(self.dial_unhurried(endpoint).await?).await }).await
    }

    async fn in_time(&self, endpoint: &Endpoint, dial: impl Future<Output = io::Result<BoxIo>>) -> io::Result<BoxIo> {
        until(Instant::now() + self.timeout, dial).await.unwrap_or_else(|| {
            let text = format!("no connection to {endpoint} within {:?}", self.timeout);
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    async fn dial_unhurried(&self, endpoint: &Endpoint) -> io::Result<BoxIo> {
        let raw = match &self.connect {
            Some(connect) => connect(endpoint.clone()).await?,
            None => raw(endpoint).await?,
        };
        match &self.tls {
            Some(tls) if endpoint.uses_tls(true) => {
                let name = tls.name_of(endpoint.host()).map_err(io::Error::other)?;
                Ok(Box::new(TlsConnector::from(tls.config()).connect(name, raw).await?))
            }
            _ => Ok(raw),
        }
    }
}

async fn raw(endpoint: &Endpoint) -> io::Result<BoxIo> {
    if let Some(path) = endpoint.socket() {
        return Ok(Box::new(UnixStream::connect(path).await?));
    }
    let stream = match endpoint.zoned_addr()? {
        Some(addr) => TcpStream::connect(addr).await?,
        None => TcpStream::connect((endpoint.host(), endpoint.port())).await?,
    };
    stream.set_nodelay(true)?;
    Ok(Box::new(stream))
}

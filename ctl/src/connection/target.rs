//! Endpoints as users write them, and opening a byte stream to one.
//!
//! | written | reached |
//! |---|---|
//! | `host:port` | with TLS if certificates are given or `--insecure-transport=false`, else in plain text |
//! | `http://host:port` | in plain text, whatever certificates are given |
//! | `https://host:port` | with TLS |
//! | `unix:path`, `unix://path`, `unixs://path` | a local socket, `unixs` with TLS |

use std::io;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

/// A byte stream to a member, encrypted or not.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// One endpoint, understood.
#[derive(Debug, Clone)]
pub struct Target {
    /// As the user wrote it.
    pub endpoint: String,
    /// What requests name as their authority.
    pub authority: String,
    address: Address,
    /// Whether to encrypt.
    pub tls_wanted: bool,
    /// How to encrypt.
    pub tls: Option<Arc<rustls::ClientConfig>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Tcp(String),
    Unix(String),
}

impl Target {
    /// Reads an endpoint; `tls_by_default` decides for those without a scheme.
    pub fn parse(endpoint: &str, tls_by_default: bool) -> Self {
        let (tls_wanted, address) = if let Some(path) = socket_path(endpoint, "unix") {
            (tls_by_default, Address::Unix(path))
        } else if let Some(path) = socket_path(endpoint, "unixs") {
            (true, Address::Unix(path))
        } else if let Some(rest) = endpoint.strip_prefix("http://") {
            (false, Address::Tcp(host_part(rest)))
        } else if let Some(rest) = endpoint.strip_prefix("https://") {
            (true, Address::Tcp(host_part(rest)))
        } else {
            (tls_by_default, Address::Tcp(endpoint.to_owned()))
        };
        let authority = match &address {
            Address::Tcp(address) => address.clone(),
            Address::Unix(_) => "localhost".to_owned(),
        };
        Self { endpoint: endpoint.to_owned(), authority, address, tls_wanted, tls: None }
    }

    /// Opens a stream to the endpoint.
    pub async fn open(&self) -> io::Result<Box<dyn Io>> {
        match &self.address {
            Address::Tcp(address) => {
                let Some((host, port)) = split_host_port(address) else {
                    return Err(io::Error::other("missing port in address"));
                };
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                self.encrypt(stream, host).await
            }
            Address::Unix(path) => self.encrypt(UnixStream::connect(path).await?, "localhost").await,
        }
    }

    async fn encrypt(&self, stream: impl Io + 'static, host: &str) -> io::Result<Box<dyn Io>> {
        let Some(config) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
        Ok(Box::new(stream))
    }
}

fn socket_path(endpoint: &str, scheme: &str) -> Option<String> {
    let rest = endpoint.strip_prefix(scheme)?.strip_prefix(':')?;
    Some(rest.strip_prefix("//").unwrap_or(rest).to_owned())
}

/// The part of a URL that names host and port, without user, path or query.
fn host_part(rest: &str) -> String {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    rest[..end].rsplit('@').next().unwrap_or_default().to_owned()
}

/// Host and port; the brackets of an IPv6 address are taken off.
fn split_host_port(address: &str) -> Option<(&str, u16)> {
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host, port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_decides_about_encryption_and_its_absence_leaves_it_to_the_flags() {
        for (endpoint, by_default, tls, authority) in [
            ("a:1", false, false, "a:1"),
            ("a:1", true, true, "a:1"),
            ("http://a:1/", true, false, "a:1"),
            ("https://a:1/path?x", false, true, "a:1"),
            ("unix:///tmp/s", false, false, "localhost"),
            ("unixs:/tmp/s", false, true, "localhost"),
        ] {
            let target = Target::parse(endpoint, by_default);
            assert_eq!((target.tls_wanted, target.authority.as_str()), (tls, authority), "{endpoint}");
        }
    }

    #[test]
    fn local_sockets_and_bracketed_addresses_are_understood() {
        assert_eq!(Target::parse("unix:///tmp/s", false).address, Address::Unix("/tmp/s".to_owned()));
        assert_eq!(Target::parse("unix:tmp/s", false).address, Address::Unix("tmp/s".to_owned()));
        assert_eq!(split_host_port("[::1]:2379"), Some(("::1", 2379)));
        assert_eq!(split_host_port("localhost:2379"), Some(("localhost", 2379)));
        assert_eq!(split_host_port("localhost"), None);
    }
}

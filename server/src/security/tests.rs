//! TLS over real sockets.

mod handshakes;
mod kinds;
mod reloading;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::acceptor::{AcceptLimits, Acceptor};
use super::reload::TlsReloader;
use super::test_certs::{Ca, Files, Signed};

/// A server that greets each connection with what it knows of it, one line, and then echoes.
struct Server {
    addr: SocketAddr,
    acceptor: Acceptor,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(acceptor: Acceptor) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(accept_loop(listener, acceptor.clone()));
        Self { addr, acceptor, task }
    }

    /// A TLS server that looks at its files before every handshake.
    async fn of(files: &Files) -> (Self, Arc<TlsReloader>) {
        let reloader = Arc::new(TlsReloader::new(files.tls.clone(), Duration::ZERO).unwrap());
        (Self::start(Acceptor::tls(Arc::clone(&reloader), AcceptLimits::default())).await, reloader)
    }

    /// Waits for so many connections to have been rejected.
    async fn wait_rejected(&self, count: u64) {
        let rejected = async {
            while self.acceptor.stats().rejected() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), rejected).await.expect("connections must be rejected");
    }
}

async fn accept_loop(listener: TcpListener, acceptor: Acceptor) {
    loop {
        acceptor.ready().await;
        let (stream, _) = listener.accept().await.unwrap();
        let acceptor = acceptor.clone();
        tokio::spawn(async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let greeting = format!(
                "tls={} cn={} alpn={}\n",
                stream.is_tls(),
                stream.peer_identity().and_then(|peer| peer.common_name.clone()).unwrap_or_default(),
                String::from_utf8_lossy(stream.alpn_protocol().unwrap_or_default()),
            );
            let _ = stream.write_all(greeting.as_bytes()).await;
            let (mut reader, mut writer) = tokio::io::split(stream);
            let _ = tokio::io::copy(&mut reader, &mut writer).await;
        });
    }
}

/// What a client trusts, shows and speaks.
struct Client {
    config: Arc<ClientConfig>,
}

impl Client {
    fn trusting(ca: &Ca) -> Self {
        Self::build(ca, None, rustls::ALL_VERSIONS)
    }

    fn showing(ca: &Ca, cert: &Signed) -> Self {
        Self::build(ca, Some(cert), rustls::ALL_VERSIONS)
    }

    fn speaking(ca: &Ca, versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        Self::build(ca, None, versions)
    }

    fn build(ca: &Ca, cert: Option<&Signed>, versions: &[&'static rustls::SupportedProtocolVersion]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(ca.der()).unwrap();
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots);
        let config = match cert {
            Some(cert) => builder.with_client_auth_cert(cert.chain(), cert.key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        Self { config: Arc::new(config) }
    }

    fn with_alpn(mut self, protocols: &[&str]) -> Self {
        let config = Arc::make_mut(&mut self.config);
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        self
    }

    /// Connects and reads the greeting: only then a server that speaks TLS 1.3 has checked the client.
    async fn connect(&self, server: &Server) -> io::Result<Connection> {
        let tcp = TcpStream::connect(server.addr).await?;
        let name = ServerName::try_from("localhost").unwrap();
        let mut stream = TlsConnector::from(Arc::clone(&self.config)).connect(name, tcp).await?;
        let greeting = read_line(&mut stream).await?;
        Ok(Connection { stream, greeting })
    }
}

struct Connection {
    stream: TlsStream<TcpStream>,
    greeting: String,
}

impl Connection {
    fn server_cert(&self) -> CertificateDer<'static> {
        self.stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
    }

    async fn echo(&mut self, text: &str) {
        self.stream.write_all(format!("{text}\n").as_bytes()).await.unwrap();
        assert_eq!(read_line(&mut self.stream).await.unwrap(), text);
    }
}

async fn read_line(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await? {
            b'\n' => return Ok(String::from_utf8(line).unwrap()),
            byte => line.push(byte),
        }
    }
}

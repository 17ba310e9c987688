//! Servers, certificates and raw clients for the tests.

use std::{net::SocketAddr, path::PathBuf, sync::OnceLock, time::Duration};

use bytes::{Buf, BufMut, Bytes};
use cairn_proto::etcdserverpb::{
    kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
};
use cairn_server::{
    config::{Config, Url},
    server::{Builder, Server},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tonic::{
    Request, Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

/// How long a condition may take to come true.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A server with a directory of its own.
pub struct TestServer {
    pub server: Server,
    pub dir: TempDir,
}

/// What a test server is started with: free ports, data in `dir`.
pub fn builder(dir: &TempDir) -> Builder {
    Server::builder().data_dir(dir.path().join("data")).listen_client_urls([url("http")]).configure(|config| {
        config.api_threads = 2;
        config.listen_peer_urls = vec![url("http")];
    })
}

fn url(scheme: &str) -> Url {
    Url::parse(&format!("{scheme}://127.0.0.1:0")).expect("a valid URL")
}

impl TestServer {
    pub async fn start() -> Self {
        Self::with(|_| ()).await
    }

    /// Starts a server whose configuration was changed.
    pub async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let server = builder(&dir).configure(change).start().await.expect("the server starts");
        Self { server, dir }
    }

    /// Starts a server that takes only clients with a certificate of `certs`.
    pub async fn with_tls(certs: &Certs) -> Self {
        Self::with(|config| {
            config.listen_client_urls = vec![url("https")];
            config.client_tls.cert_file = Some(certs.path("server.crt"));
            config.client_tls.key_file = Some(certs.path("server.key"));
            config.client_tls.trusted_ca_file = Some(certs.path("ca.crt"));
            config.client_tls.client_cert_auth = true;
        })
        .await
    }

    pub fn addr(&self) -> SocketAddr {
        self.server.addrs()[0]
    }

    pub async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addr())).expect("a valid URL");
        endpoint.connect().await.expect("the server accepts")
    }

    pub async fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel().await).max_decoding_message_size(usize::MAX)
    }

    pub async fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel().await)
    }

    pub async fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel().await)
    }

    /// Makes one HTTP/1.1 request.
    pub async fn http(&self, method: &str, target: &str) -> HttpAnswer {
        http(self.addr(), &format!("{method} {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")).await
    }
}

/// An answer of the HTTP endpoints.
#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl HttpAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Sends `request` as it is and reads the answer to the end of the connection.
pub async fn http(addr: SocketAddr, request: &str) -> HttpAnswer {
    let answer = String::from_utf8(raw(addr, request.as_bytes()).await).expect("the answer is text");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no HTTP answer: {answer:?}"));
    let mut lines = head.lines();
    let status =
        lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).expect("a status line");
    let headers =
        lines.filter_map(|line| line.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned()));
    HttpAnswer { status, headers: headers.collect(), body: body.to_owned() }
}

/// Sends bytes and reads until the server closes the connection.
pub async fn raw(addr: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(addr).await.expect("the server accepts");
    stream.write_all(bytes).await.expect("the bytes are sent");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer))
        .await
        .expect("the server closes the connection");
    // A reset is a way of closing.
    let _ = read;
    answer
}

/// Certificates of one authority, as files: `ca.crt`, `server.crt`, `server.key`, `client.crt`, `client.key`.
pub struct Certs {
    dir: TempDir,
}

impl Certs {
    pub fn new() -> Self {
        let dir = TempDir::new().expect("a temporary directory");
        let certs = Self { dir };
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test authority");
        let authority = params.self_signed(&key).expect("a certificate");
        certs.write("ca.crt", &authority.pem());
        let issuer = Issuer::new(params, key);
        certs.issue(&issuer, "server", vec!["127.0.0.1".to_owned(), "localhost".to_owned()]);
        certs.issue(&issuer, "client", vec!["client".to_owned()]);
        certs
    }

    /// One certificate that signs itself, as authority and as server.
    pub fn of_itself() -> Self {
        let certs = Self { dir: TempDir::new().expect("a temporary directory") };
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("valid names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        for name in ["ca.crt", "server.crt"] {
            certs.write(name, &certificate);
        }
        certs.write("server.key", &key.serialize_pem());
        certs
    }

    fn issue(&self, issuer: &Issuer<'_, KeyPair>, name: &str, hosts: Vec<String>) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(hosts).expect("valid names");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, issuer).expect("a certificate");
        self.write(&format!("{name}.crt"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("the file is written");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("the file is there")
    }

    /// What a client needs that trusts this authority; with a certificate of its own if `identity`.
    pub fn client_tls(&self, identity: Option<&Self>) -> ClientTlsConfig {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.read("ca.crt")));
        match identity {
            Some(own) => tls.identity(Identity::from_pem(own.read("client.crt"), own.read("client.key"))),
            None => tls,
        }
    }

    /// Connects to `server` as `identity`.
    pub async fn connect(
        &self,
        server: &TestServer,
        identity: Option<&Self>,
    ) -> Result<Channel, tonic::transport::Error> {
        self.connect_to(server.addr(), identity).await
    }

    /// Connects to the server at `addr` as `identity`.
    pub async fn connect_to(
        &self,
        addr: SocketAddr,
        identity: Option<&Self>,
    ) -> Result<Channel, tonic::transport::Error> {
        let endpoint = Endpoint::from_shared(format!("https://{addr}"))?.tls_config(self.client_tls(identity))?;
        endpoint.connect().await
    }
}

/// One set of certificates for all tests that need no second one.
pub fn certs() -> &'static Certs {
    static CERTS: OnceLock<Certs> = OnceLock::new();
    CERTS.get_or_init(Certs::new)
}

/// Sends and receives messages as bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct RawCodec;

impl Codec for RawCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for RawCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Calls a unary method with a message as bytes.
pub async fn call(channel: &Channel, path: &'static str, message: impl Into<Bytes>) -> Result<Bytes, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone()).max_decoding_message_size(usize::MAX);
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    let answer = grpc.unary(Request::new(message.into()), http_path(path), RawCodec).await?;
    Ok(answer.into_inner())
}

fn http_path(path: &'static str) -> ::http::uri::PathAndQuery {
    ::http::uri::PathAndQuery::from_static(path)
}

/// Waits for a condition.
pub async fn eventually<T>(what: &str, mut check: impl AsyncFnMut() -> Option<T>) -> T {
    let waited = async {
        loop {
            if let Some(value) = check().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waited).await.unwrap_or_else(|_| panic!("{what} did not come true in time"))
}

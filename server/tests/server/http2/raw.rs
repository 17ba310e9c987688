//! A client that writes frames by itself, so that it can do what libraries do not let it.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::Arc,
};

use bytes::{Buf, BytesMut};
use cairn_proto::etcdserverpb::{self as pb, watch_request::RequestUnion};
use prost::Message;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_rustls::TlsConnector;

use super::super::support::{Certs, DEADLINE};

pub const KEEP_ALIVE: &str = "/etcdserverpb.Lease/LeaseKeepAlive";
pub const WATCH: &str = "/etcdserverpb.Watch/Watch";
pub const RANGE: &str = "/etcdserverpb.KV/Range";
pub const PUT: &str = "/etcdserverpb.KV/Put";

const HEADER_BYTES: usize = 9;
pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    out.extend([kind, flags]);
    out.extend(stream.to_be_bytes());
    out.extend(payload);
    out
}

/// A field that is in no table and goes into none.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![0, name.len() as u8];
    out.extend(name.bytes());
    out.push(value.len() as u8);
    out.extend(value.bytes());
    out
}

/// The head of a gRPC request with further fields.
pub fn head(path: &str, more: &[u8]) -> Vec<u8> {
    // :method POST, :scheme http, :path, :authority
    let mut out = vec![0x83, 0x86, 0x04, path.len() as u8];
    out.extend(path.bytes());
    out.extend([0x01, 1, b'a']);
    out.extend(field("content-type", "application/grpc"));
    out.extend(more);
    out
}

/// A message with gRPC's prefix.
pub fn message(message: &impl Message) -> Vec<u8> {
    let mut out = vec![0];
    out.extend((message.encoded_len() as u32).to_be_bytes());
    out.extend(message.encode_to_vec());
    out
}

/// Opens a call.
pub fn open(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head(path, &[]))
}

/// All of a call with one message.
pub fn unary(stream: u32, path: &str, request: &impl Message, more: &[u8]) -> Vec<u8> {
    let mut out = frame(HEADERS, END_HEADERS, stream, &head(path, more));
    out.extend(frame(DATA, END_STREAM, stream, &message(request)));
    out
}

/// Gives a call up.
pub fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())
}

/// Renews a lease.
pub fn renewal(stream: u32, id: i64) -> Vec<u8> {
    frame(DATA, 0, stream, &message(&pb::LeaseKeepAliveRequest { id }))
}

/// Watches a key on an open call.
pub fn watch(stream: u32, key: &str) -> Vec<u8> {
    let create = pb::WatchCreateRequest { key: key.to_owned().into(), ..Default::default() };
    let request = pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    frame(DATA, 0, stream, &message(&request))
}

pub fn range(key: &str) -> pb::RangeRequest {
    pb::RangeRequest { key: key.to_owned().into(), ..Default::default() }
}

pub fn put(key: &str) -> pb::PutRequest {
    pb::PutRequest { key: key.to_owned().into(), ..Default::default() }
}

/// What has come on a connection.
#[derive(Debug, Default)]
pub struct Seen {
    /// Messages of each stream.
    pub messages: BTreeMap<u32, usize>,
    /// The server's settings.
    pub settings: bool,
    /// Streams that the server reset.
    pub resets: usize,
    /// Streams that the server ended with a status.
    pub ended: usize,
    /// The server said that it ends the connection, and why.
    pub goaway: Option<String>,
    /// The connection was closed.
    pub closed: bool,
    unread: BytesMut,
    halves: HashMap<u32, Vec<u8>>,
}

impl Seen {
    pub fn of(&self, stream: u32) -> usize {
        self.messages.get(&stream).copied().unwrap_or_default()
    }

    /// Takes whole frames out of what was read; how many bytes of data there were on which streams.
    fn take(&mut self) -> HashMap<u32, u32> {
        let mut data_bytes = HashMap::new();
        while self.unread.len() >= HEADER_BYTES {
            let len = u32::from_be_bytes([0, self.unread[0], self.unread[1], self.unread[2]]) as usize;
            if self.unread.len() < HEADER_BYTES + len {
                break;
            }
            let (kind, flags, stream) = (self.unread[3], self.unread[4], (&self.unread[5..9]).get_u32());
            let payload = self.unread.split_to(HEADER_BYTES + len).split_off(HEADER_BYTES);
            match kind {
                DATA => {
                    *data_bytes.entry(stream).or_default() += len as u32;
                    let half = self.halves.entry(stream).or_default();
                    half.extend(payload);
                    while let Some(whole) = half.get(1..5).map(|mut len| len.get_u32() as usize + 5)
                        && half.len() >= whole
                    {
                        half.drain(..whole);
                        *self.messages.entry(stream).or_default() += 1;
                    }
                }
                HEADERS => self.ended += usize::from(flags & END_STREAM != 0),
                RST_STREAM => self.resets += 1,
                SETTINGS => self.settings = true,
                GOAWAY => self.goaway = Some(String::from_utf8_lossy(&payload[8..]).into_owned()),
                _ => {}
            }
        }
        data_bytes
    }
}

/// A connection that speaks HTTP/2.
pub struct Raw {
    reader: ReadHalf<Box<dyn Io>>,
    writer: Option<WriteHalf<Box<dyn Io>>>,
    pub seen: Seen,
}

impl Raw {
    /// Connects, with a window of the usual 65,535 bytes for each stream.
    pub async fn connect(addr: SocketAddr) -> Self {
        Self::over(Box::new(TcpStream::connect(addr).await.expect("the server accepts"))).await
    }

    /// The same over TLS.
    pub async fn connect_tls(addr: SocketAddr, certs: &Certs) -> Self {
        let pem = |name| std::fs::read(certs.path(name)).expect("the file is there");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(&pem("ca.crt")).expect("a certificate")).expect("an authority");
        let chain = vec![CertificateDer::from_pem_slice(&pem("client.crt")).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(&pem("client.key")).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions that the provider has")
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .expect("a certificate and its key");
        config.alpn_protocols = vec![b"h2".to_vec()];
        let stream = TcpStream::connect(addr).await.expect("the server accepts");
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await.expect("a handshake");
        Self::over(Box::new(stream)).await
    }

    async fn over(io: Box<dyn Io>) -> Self {
        let (reader, writer) = tokio::io::split(io);
        let mut raw = Self { reader, writer: Some(writer), seen: Seen::default() };
        raw.write(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat()).await;
        raw.read_until("the server says its settings", |seen| seen.settings).await;
        // Only now may a stream have the window that they say.
        raw.write(&frame(SETTINGS, ACK, 0, &[])).await;
        raw
    }

    /// Writes without reading.
    pub async fn write(&mut self, bytes: &[u8]) {
        self.try_write(bytes).await.expect("the connection is open");
    }

    pub async fn try_write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let writer = self.writer.as_mut().expect("nothing else writes");
        let written = tokio::time::timeout(DEADLINE, async {
            writer.write_all(bytes).await?;
            writer.flush().await
        });
        written.await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    /// Writes while something else is done, for as long as the server takes it.
    pub fn write_meanwhile(&mut self, bytes: Vec<u8>) -> JoinHandle<()> {
        let mut writer = self.writer.take().expect("nothing else writes");
        tokio::spawn(async move {
            let _ = writer.write_all(&bytes).await;
            let _ = writer.flush().await;
            // Not dropped, as the connection goes on.
            std::future::pending::<()>().await;
        })
    }

    /// Reads until something is seen, and gives the server room for more.
    #[track_caller]
    pub fn read_until(&mut self, what: &str, until: impl Fn(&Seen) -> bool) -> impl Future<Output = ()> {
        let what = what.to_owned();
        async move {
            let read = async {
                while !until(&self.seen) && self.seen.goaway.is_none() && !self.seen.closed {
                    self.read().await;
                }
            };
            let in_time = tokio::time::timeout(DEADLINE, read).await.is_ok();
            assert!(until(&self.seen), "{what}: {in_time} {:?}", self.seen);
        }
    }

    /// Reads once.
    pub async fn read(&mut self) {
        let read = self.reader.read_buf(&mut self.seen.unread).await;
        self.seen.closed |= read.map_or(true, |bytes| bytes == 0);
        let data_bytes = self.seen.take();
        let all: u32 = data_bytes.values().sum();
        if all > 0 && self.writer.is_some() {
            let mut room = frame(WINDOW_UPDATE, 0, 0, &all.to_be_bytes());
            for (stream, bytes) in data_bytes.iter().filter(|(_, bytes)| **bytes > 0) {
                room.extend(frame(WINDOW_UPDATE, 0, *stream, &bytes.to_be_bytes()));
            }
            let _ = self.try_write(&room).await;
        }
    }

    /// Watches `key` on `stream`.
    pub async fn watch(&mut self, stream: u32, key: &str) {
        self.write(&[open(stream, WATCH), watch(stream, key)].concat()).await;
        self.read_until("a watch is created", |seen| seen.of(stream) == 1).await;
    }

    /// Whether calls are served, and the watch of `key` on the stream `watched` is told of them.
    pub async fn goes_on(&mut self, stream: u32, watched: u32, key: &str) {
        let events = self.seen.of(watched);
        self.write(&unary(stream, PUT, &put(key), &[])).await;
        self.read_until("a put is answered", |seen| seen.of(stream) == 1).await;
        self.read_until("the watch is told of it", |seen| seen.of(watched) > events).await;
        assert_eq!(self.seen.goaway, None);
    }
}

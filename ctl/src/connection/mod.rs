//! Talking to the members: endpoints, dialling, retries, deadlines, tokens.
//!
//! A [`Connection`] knows some endpoints and keeps one channel, to whichever answered first. Dialling goes on, all endpoints
//! at a time, until the caller's deadline: a command typed while a member restarts succeeds. A call whose repetition does no
//! harm is repeated when the member is unavailable; any other call is sent once, and a lost connection is then an error,
//! because nobody knows whether the member has done it.
//!
//! What is not here: spreading load over members, following membership changes, streams that outlive a connection. A
//! command line ends before it would need them.

mod target;
mod tls;

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use cairn_proto::ApiError;
use cairn_proto::etcdserverpb as pb;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout_at};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

pub use target::Target;
pub use tls::{TlsError, TlsFiles};

/// The largest request sent unless the user says otherwise.
pub const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// The largest answer accepted unless the user says otherwise.
pub const MAX_RECV_BYTES: usize = i32::MAX as usize;
/// Servers close connections that ping more often than they allow; nobody needs more than this.
const KEEPALIVE_TIME_MIN: Duration = Duration::from_secs(10);
/// The first and the longest pause between rounds of dialling.
const DIAL_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The time of a call without a deadline.
const FOREVER: Duration = Duration::from_hours(24 * 365);
/// The pause before a call is repeated.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// A method of the API.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    path: &'static str,
    /// Whether sending it twice does no harm.
    repeatable: bool,
}

/// The methods the commands use.
pub mod method {
    use super::Method;

    const fn read(path: &'static str) -> Method {
        Method { path, repeatable: true }
    }

    const fn write(path: &'static str) -> Method {
        Method { path, repeatable: false }
    }

    /// `KV.Range`
    pub const RANGE: Method = read("/etcdserverpb.KV/Range");
    /// `KV.RangeStream`
    pub const RANGE_STREAM: Method = read("/etcdserverpb.KV/RangeStream");
    /// `KV.Put`
    pub const PUT: Method = write("/etcdserverpb.KV/Put");
    /// `KV.DeleteRange`
    pub const DELETE_RANGE: Method = write("/etcdserverpb.KV/DeleteRange");
    /// `KV.Txn`
    pub const TXN: Method = write("/etcdserverpb.KV/Txn");
    /// `KV.Compact`
    pub const COMPACT: Method = write("/etcdserverpb.KV/Compact");
    /// `Cluster.MemberList`
    pub const MEMBER_LIST: Method = read("/etcdserverpb.Cluster/MemberList");
    /// `Maintenance.Alarm`, to list them
    pub const ALARM_LIST: Method = read("/etcdserverpb.Maintenance/Alarm");
    /// `Maintenance.Alarm`, to change them
    pub const ALARM: Method = write("/etcdserverpb.Maintenance/Alarm");
    /// `Maintenance.Status`
    pub const STATUS: Method = read("/etcdserverpb.Maintenance/Status");
    /// `Maintenance.HashKV`
    pub const HASH_KV: Method = read("/etcdserverpb.Maintenance/HashKV");
    /// `Maintenance.Defragment`
    pub const DEFRAGMENT: Method = write("/etcdserverpb.Maintenance/Defragment");
    /// `Auth.Authenticate`
    pub const AUTHENTICATE: Method = write("/etcdserverpb.Auth/Authenticate");
}

/// Who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A name and a password, to be changed for a token first.
    User {
        /// The user's name.
        name: String,
        /// The user's password.
        password: String,
    },
    /// A token.
    Token(String),
}

/// How to reach the members.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long one attempt to connect may take.
    pub dial_timeout: Duration,
    /// After how much silence to ask whether the member is still there.
    pub keepalive_time: Duration,
    /// How long to wait for its answer.
    pub keepalive_timeout: Duration,
    /// Certificates and keys.
    pub tls: TlsFiles,
    /// Whether an endpoint without a scheme is reached in plain text when no certificate is given.
    pub insecure_transport: bool,
    /// Who is asking, where the members want to know.
    pub credentials: Option<Credentials>,
    /// The largest request sent.
    pub max_request_bytes: usize,
    /// The largest answer accepted.
    pub max_recv_bytes: usize,
}

/// Why a connection cannot even be tried.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is no endpoint.
    #[error("etcdclient: no available endpoints")]
    NoEndpoints,
    /// Certificates or keys cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The token is not text.
    #[error("the token has characters that cannot be sent")]
    BadToken,
}

/// Why a call has no answer. The texts are those etcdctl prints.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The time was up.
    #[error("context deadline exceeded")]
    Deadline {
        /// The last reason why it had not worked until then.
        last: Option<String>,
    },
    /// The member refused, or the connection was lost.
    #[error("{}", status_text(.0))]
    Status(Box<Status>),
    /// The request was not sent.
    #[error("rpc error: code = ResourceExhausted desc = trying to send message larger than max ({size} vs. {limit})")]
    TooLarge {
        /// The request's size in bytes.
        size: usize,
        /// What is allowed.
        limit: usize,
    },
}

impl CallError {
    /// The error of the catalogue, if it is one.
    pub fn api(&self) -> Option<ApiError> {
        if let Self::Status(status) = self { ApiError::from_status(status) } else { None }
    }

    /// What else the user should know, where the text leaves it open.
    pub fn note(&self) -> Option<String> {
        if let Self::Deadline { last: Some(last) } = self {
            Some(format!("last connection error: {last}"))
        } else {
            None
        }
    }
}

/// A way to one or more members.
#[derive(Debug, Clone)]
pub struct Connection {
    options: Arc<Options>,
    targets: Arc<[Target]>,
    channel: Option<Channel>,
    token: Option<MetadataValue<Ascii>>,
}

impl Connection {
    /// Prepares a connection; nothing is dialled yet.
    pub fn new(endpoints: &[String], options: Options) -> Result<Self, SetupError> {
        if endpoints.is_empty() {
            return Err(SetupError::NoEndpoints);
        }
        let token = match &options.credentials {
            Some(Credentials::Token(token)) => Some(token.parse().map_err(|_| SetupError::BadToken)?),
            _ => None,
        };
        let targets = targets(endpoints, &options)?;
        Ok(Self { options: Arc::new(options), targets, channel: None, token })
    }

    /// A connection to another endpoint, as the same user.
    pub fn at(&self, endpoint: &str) -> Result<Self, SetupError> {
        let targets = targets(&[endpoint.to_owned()], &self.options)?;
        Ok(Self { options: self.options.clone(), targets, channel: None, token: self.token.clone() })
    }

    /// Changes name and password for a token, where there are any and the members want one.
    pub async fn authenticate(&mut self) -> Result<(), CallError> {
        let Some(Credentials::User { name, password }) = self.options.credentials.clone() else { return Ok(()) };
        let deadline = Instant::now() + self.options.dial_timeout;
        let request = pb::AuthenticateRequest { name, password };
        match self.unary::<_, pb::AuthenticateResponse>(method::AUTHENTICATE, &request, Some(deadline)).await {
            Ok(answer) => {
                self.token = answer.token.parse().ok();
                Ok(())
            }
            Err(error) if error.api() == Some(ApiError::AuthNotEnabled) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// One request, one answer, until the deadline.
    pub async fn unary<Q, A>(&mut self, method: Method, request: &Q, deadline: Option<Instant>) -> Result<A, CallError>
    where
        Q: Message + Clone + 'static,
        A: Message + Default + 'static,
    {
        self.call(method, request, deadline, async |mut grpc, request, path| {
            grpc.unary(request, path, ProstCodec::<Q, A>::default()).await.map(tonic::Response::into_inner)
        })
        .await
    }

    /// A range in pieces, put together to the answer a plain range would have given.
    pub async fn range_stream(
        &mut self,
        request: &pb::RangeRequest,
        deadline: Option<Instant>,
    ) -> Result<pb::RangeResponse, CallError> {
        self.call(method::RANGE_STREAM, request, deadline, async |mut grpc, request, path| {
            let codec = ProstCodec::<pb::RangeRequest, pb::RangeStreamResponse>::default();
            let mut pieces = grpc.server_streaming(request, path, codec).await?.into_inner();
            let mut whole = pb::RangeResponse::default();
            while let Some(piece) = pieces.message().await? {
                let Some(piece) = piece.range_response else { continue };
                whole.kvs.extend(piece.kvs);
                whole.header = piece.header.or(whole.header);
                whole.more |= piece.more;
                whole.count = whole.count.max(piece.count);
            }
            Ok(whole)
        })
        .await
    }

    async fn call<Q, A>(
        &mut self,
        method: Method,
        request: &Q,
        deadline: Option<Instant>,
        send: impl AsyncFn(tonic::client::Grpc<Channel>, Request<Q>, http::uri::PathAndQuery) -> Result<A, Status>,
    ) -> Result<A, CallError>
    where
        Q: Message + Clone + 'static,
    {
        let size = request.encoded_len();
        if size > self.options.max_request_bytes {
            return Err(CallError::TooLarge { size, limit: self.options.max_request_bytes });
        }
        let deadline = deadline.unwrap_or_else(|| Instant::now() + FOREVER);
        let mut last = None;
        loop {
            let Ok(channel) = timeout_at(deadline, self.channel(&mut last)).await else {
                return Err(CallError::Deadline { last });
            };
            let mut outgoing = Request::new(request.clone());
            if let Some(token) = &self.token {
                outgoing.metadata_mut().insert("token", token.clone());
            }
            outgoing.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let mut grpc = tonic::client::Grpc::new(channel)
                .max_decoding_message_size(self.options.max_recv_bytes)
                .max_encoding_message_size(usize::MAX);
            let path = http::uri::PathAndQuery::from_static(method.path);
            let attempt = timeout_at(deadline, async {
                grpc.ready().await.map_err(|error| Status::from_error(error.into()))?;
                send(grpc, outgoing, path).await
            });
            match attempt.await {
                Ok(Ok(answer)) => return Ok(answer),
                Err(_) => return Err(CallError::Deadline { last }),
                Ok(Err(status)) if status.code() == Code::DeadlineExceeded || Instant::now() >= deadline => {
                    return Err(CallError::Deadline { last });
                }
                Ok(Err(status)) => {
                    let status = as_unavailable(status);
                    if status.code() != Code::Unavailable {
                        return Err(CallError::Status(Box::new(status)));
                    }
                    self.channel = None;
                    if !method.repeatable {
                        return Err(CallError::Status(Box::new(status)));
                    }
                    last = Some(status.message().to_owned());
                    let _ = timeout_at(deadline, sleep(RETRY_PAUSE)).await;
                }
            }
        }
    }

    /// The channel, dialled if there is none, for as long as it takes. `last` learns why it takes long.
    async fn channel(&mut self, last: &mut Option<String>) -> Channel {
        if let Some(channel) = &self.channel {
            return channel.clone();
        }
        let (mut pause, pause_max) = DIAL_PAUSE;
        loop {
            let mut attempts = JoinSet::new();
            for target in self.targets.iter().cloned() {
                let options = self.options.clone();
                attempts.spawn(async move { dial(target, options).await });
            }
            while let Some(attempt) = attempts.join_next().await {
                match attempt {
                    Ok(Ok(channel)) => {
                        self.channel = Some(channel.clone());
                        return channel;
                    }
                    Ok(Err(reason)) => *last = Some(reason),
                    Err(panicked) => *last = Some(panicked.to_string()),
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(pause_max);
        }
    }
}

fn targets(endpoints: &[String], options: &Options) -> Result<Arc<[Target]>, SetupError> {
    let tls = options.tls.wanted() || !options.insecure_transport;
    let given = if options.tls.wanted() { Some(options.tls.load()?) } else { None };
    endpoints
        .iter()
        .map(|endpoint| {
            let mut target = Target::parse(endpoint, tls);
            if target.tls_wanted {
                target.tls = Some(match &given {
                    Some(config) => config.clone(),
                    None => options.tls.load()?,
                });
            }
            Ok(target)
        })
        .collect()
}

/// Connects to one endpoint. The error says what was tried and why it failed.
async fn dial(target: Target, options: Arc<Options>) -> Result<Channel, String> {
    let reason = |error: &dyn std::fmt::Display| format!("{}: {error}", target.endpoint);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", target.authority))
        .map_err(|error| reason(&error))?
        .connect_timeout(options.dial_timeout)
        .http2_keep_alive_interval(options.keepalive_time.max(KEEPALIVE_TIME_MIN))
        .keep_alive_timeout(options.keepalive_timeout)
        .user_agent(concat!("cairnctl/", env!("CARGO_PKG_VERSION")))
        .map_err(|error| reason(&error))?;
    let io_target = target.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let target = io_target.clone();
        async move { target.open().await.map(TokioIo::new) }
    });
    let connected = endpoint.connect_with_connector(connector).await;
    connected.map_err(|error| reason(&innermost(&error)))
}

/// The error at the bottom of a chain: the one that says what happened.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// A status that did not come from the member but from a lost connection gets the code that says so, and the reason.
fn as_unavailable(status: Status) -> Status {
    match status.source() {
        Some(source) => Status::new(Code::Unavailable, innermost(source)),
        None => status,
    }
}

/// A status as etcdctl prints it: errors of the catalogue by their text, everything else with its code.
fn status_text(status: &Status) -> String {
    let message = status.message();
    if message.starts_with("etcdserver: ") && ApiError::from_status(status).is_some() {
        return message.to_owned();
    }
    format!("rpc error: code = {} desc = {message}", code_name(status.code()))
}

/// A code's name as Go writes it.
fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> Options {
        Options {
            dial_timeout: Duration::from_secs(2),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            tls: TlsFiles::default(),
            insecure_transport: true,
            credentials: None,
            max_request_bytes: 100,
            max_recv_bytes: MAX_RECV_BYTES,
        }
    }

    #[test]
    fn a_status_is_printed_by_its_text_when_the_catalogue_has_it() {
        let status = Status::from(ApiError::Compacted);
        assert_eq!(status_text(&status), "etcdserver: mvcc: required revision has been compacted");
        let status = Status::new(Code::Unimplemented, "unknown method RangeStream");
        assert_eq!(status_text(&status), "rpc error: code = Unimplemented desc = unknown method RangeStream");
        let status = Status::new(Code::Cancelled, "gone");
        assert_eq!(status_text(&status), "rpc error: code = Canceled desc = gone");
        let status = Status::new(Code::Unknown, "auth: user name is empty");
        assert_eq!(status_text(&status), "rpc error: code = Unknown desc = auth: user name is empty");
    }

    #[test]
    fn no_endpoint_is_an_error_before_anything_is_dialled() {
        let error = Connection::new(&[], options()).expect_err("nothing to connect to");
        assert_eq!(error.to_string(), "etcdclient: no available endpoints");
    }

    #[tokio::test]
    async fn a_request_above_the_limit_is_not_sent() {
        let mut connection = Connection::new(&["127.0.0.1:1".to_owned()], options()).expect("one endpoint");
        let request = pb::PutRequest { key: vec![0; 200].into(), ..Default::default() };
        let error = connection.unary::<_, pb::PutResponse>(method::PUT, &request, None).await.expect_err("too large");
        assert_eq!(
            error.to_string(),
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (203 vs. 100)"
        );
    }

    #[tokio::test]
    async fn a_member_that_is_not_there_is_dialled_until_the_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let mut connection = Connection::new(std::slice::from_ref(&endpoint), options()).expect("one endpoint");
        let deadline = Instant::now() + Duration::from_millis(200);
        let request = pb::RangeRequest::default();
        let error = connection
            .unary::<_, pb::RangeResponse>(method::RANGE, &request, Some(deadline))
            .await
            .expect_err("refused");
        assert_eq!(error.to_string(), "context deadline exceeded");
        let note = error.note().expect("a reason");
        assert!(note.starts_with(&format!("last connection error: {endpoint}: ")), "{note}");
    }
}

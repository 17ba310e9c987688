//! From flags to a client: endpoints, certificates, users.
//!
//! The client does the talking ([`cairn_client`]): dialling until the deadline, turns among endpoints, and sending again only
//! what is safe to send again. Here is what etcdctl's users expect around it: which endpoints get TLS, the words for what is
//! wrong with a file, and the words for what went wrong with a request.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cairn_client::{BuildError, Client, Error, TlsError, TlsOptions};
use tonic::Code;

/// The largest request sent unless the user says otherwise, in bytes.
pub const MAX_REQUEST_BYTES: usize = 2 * 1024 * 1024;
/// The largest answer accepted unless the user says otherwise, in bytes.
pub const MAX_RECV_BYTES: usize = i32::MAX as usize;

/// How long an attempt to connect may take where the user sets no limit (`--dial-timeout 0s`): gRPC's own.
const DIAL_TIMEOUT_UNSET: Duration = Duration::from_secs(20);

/// The files and switches that decide about TLS.
#[derive(Debug, Clone, Default)]
pub struct TlsFiles {
    /// The client's certificate.
    pub cert: Option<PathBuf>,
    /// Its key.
    pub key: Option<PathBuf>,
    /// The CAs that servers' certificates are checked against.
    pub cacert: Option<PathBuf>,
    /// Whether to take any certificate.
    pub skip_verify: bool,
}

/// Who is asking.
#[derive(Clone, PartialEq, Eq)]
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

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User { name, .. } => f.debug_struct("User").field("name", name).finish_non_exhaustive(),
            Self::Token(_) => f.debug_tuple("Token").finish_non_exhaustive(),
        }
    }
}

/// How to reach the members.
#[derive(Debug, Clone)]
pub struct Options {
    /// How long one attempt to connect may take, and changing a password for a token. Zero sets no limit.
    pub dial_timeout: Duration,
    /// How long a request may take, connecting included.
    pub command_timeout: Duration,
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
    /// The largest request sent, in bytes.
    pub max_request_bytes: usize,
    /// The largest answer accepted, in bytes.
    pub max_recv_bytes: usize,
}

/// Why a connection cannot even be tried. Where etcdctl has a text for it, it is etcdctl's.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// There is no endpoint.
    #[error("etcdclient: no available endpoints")]
    NoEndpoints,
    /// A certificate without its key, or a key without its certificate.
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {cert}]")]
    HalfAPair {
        /// The key's path, may be empty.
        key: String,
        /// The certificate's path, may be empty.
        cert: String,
    },
    /// A file cannot be read.
    #[error("open {path}: {}", reason(.source))]
    Open {
        /// The file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Certificate and key do not belong together.
    #[error("tls: private key does not match public key")]
    Mismatch,
    /// Anything else.
    #[error(transparent)]
    Build(BuildError),
}

impl From<BuildError> for SetupError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::NoEndpoint => Self::NoEndpoints,
            BuildError::Tls(TlsError::Unusable(rustls::Error::InconsistentKeys(_))) => Self::Mismatch,
            other => Self::Build(other),
        }
    }
}

/// Whether the scheme of an endpoint asks for TLS.
fn wants_tls(endpoint: &str) -> bool {
    endpoint.starts_with("https://") || endpoint.starts_with("unixs:")
}

fn has_scheme(endpoint: &str) -> bool {
    endpoint.contains("://") || endpoint.starts_with("unix:") || endpoint.starts_with("unixs:")
}

/// An I/O error in the few words Go has for the common ones.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

impl Options {
    fn dial_limit(&self) -> Option<Duration> {
        Some(self.dial_timeout).filter(|limit| !limit.is_zero())
    }

    /// A client of these endpoints, not yet known as any user unless by a token.
    pub fn client(&self, endpoints: &[String]) -> Result<Client, SetupError> {
        let tls_by_default = self.tls.given() || !self.insecure_transport;
        let secured = tls_by_default || endpoints.iter().any(|endpoint| wants_tls(endpoint));
        let endpoints = endpoints.iter().filter(|endpoint| !endpoint.is_empty());
        // Once TLS is set up it is for every endpoint but those whose scheme says no, so others that want none have to
        // say so.
        let plain = |endpoint: &str| secured && !tls_by_default && !has_scheme(endpoint);
        let endpoints =
            endpoints.map(|endpoint| if plain(endpoint) { format!("http://{endpoint}") } else { endpoint.clone() });
        let mut builder = Client::builder(endpoints)
            .dial_timeout(self.dial_limit().unwrap_or(DIAL_TIMEOUT_UNSET))
            .command_timeout(self.command_timeout)
            .keep_alive(self.keepalive_time, self.keepalive_timeout)
            .request_bytes_max(self.max_request_bytes)
            .answer_bytes_max(self.max_recv_bytes);
        if secured {
            builder = builder.tls(self.tls.load()?);
        }
        let client = builder.build()?;
        match &self.credentials {
            Some(Credentials::Token(token)) => Ok(client.with_token(token)?),
            _ => Ok(client),
        }
    }

    /// The same client as the user the flags name, once a member has changed the password for a token. Where members want
    /// no users, nothing changes.
    pub async fn authenticated(&self, client: Client) -> Result<Client, Error> {
        let Some(Credentials::User { name, password }) = self.credentials.clone() else { return Ok(client) };
        let client = client.with_user(name, password);
        client.with_timeout(self.dial_limit()).authenticate().await?;
        Ok(client)
    }
}

impl TlsFiles {
    /// Whether any of them asks for TLS by being there.
    fn given(&self) -> bool {
        self.cert.is_some() || self.key.is_some() || self.cacert.is_some()
    }

    /// Reads the files.
    fn load(&self) -> Result<TlsOptions, SetupError> {
        let mut options = TlsOptions::new();
        match (&self.cert, &self.key) {
            (None, None) => {}
            (Some(cert), Some(key)) => options = options.identity_pem(read(cert)?, read(key)?),
            (cert, key) => {
                let shown =
                    |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
                return Err(SetupError::HalfAPair { key: shown(key), cert: shown(cert) });
            }
        }
        if let Some(path) = &self.cacert {
            options = options.ca_pem(read(path)?);
        }
        Ok(if self.skip_verify { options.accept_any_certificate() } else { options })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, SetupError> {
    std::fs::read(path).map_err(|source| SetupError::Open { path: path.display().to_string(), source })
}

/// An error as etcdctl prints it: those it has a text for by that text, others with their code.
pub fn error_text(error: &Error) -> String {
    match error {
        Error::Answered { status, .. } if !status.message().starts_with("etcdserver: ") => {
            let code = match status.code() {
                Code::Ok => "OK".to_owned(),
                Code::Cancelled => "Canceled".to_owned(),
                code => format!("{code:?}"),
            };
            format!("rpc error: code = {code} desc = {}", status.message())
        }
        other => other.to_string(),
    }
}

/// What else the user should know about an error, where its text leaves it open.
pub fn error_note(error: &Error) -> Option<String> {
    match error {
        Error::DeadlineExceeded { last: Some(last), .. } => Some(format!("last error: {}", error_text(last))),
        Error::DeadlineExceeded { endpoint: Some(endpoint), .. } => Some(format!("no answer from {endpoint}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::ApiError;
    use cairn_proto::etcdserverpb as pb;
    use tonic::Status;

    use super::*;

    fn options() -> Options {
        Options {
            dial_timeout: Duration::from_secs(2),
            command_timeout: Duration::from_millis(200),
            keepalive_time: Duration::from_secs(2),
            keepalive_timeout: Duration::from_secs(6),
            tls: TlsFiles::default(),
            insecure_transport: true,
            credentials: None,
            max_request_bytes: 100,
            max_recv_bytes: MAX_RECV_BYTES,
        }
    }

    fn answered(status: Status) -> Error {
        let endpoint = "a:1".parse().expect("an endpoint");
        Error::Answered { endpoint, status: Box::new(status) }
    }

    #[test]
    fn an_error_is_printed_by_its_text_when_etcdctl_knows_it() {
        let error = answered(Status::from(ApiError::Compacted));
        assert_eq!(error_text(&error), "etcdserver: mvcc: required revision has been compacted");
        let error = answered(Status::unimplemented("unknown method RangeStream"));
        assert_eq!(error_text(&error), "rpc error: code = Unimplemented desc = unknown method RangeStream");
        let error = answered(Status::from(ApiError::NoPasswordUser));
        let text = "auth: authentication failed, password was given for no password user";
        assert_eq!(error_text(&error), format!("rpc error: code = Unknown desc = {text}"));
    }

    #[tokio::test]
    async fn no_endpoint_is_an_error_before_anything_is_dialled() {
        for endpoints in [&[][..], &[String::new()]] {
            let error = options().client(endpoints).expect_err("nothing to connect to");
            assert_eq!(error.to_string(), "etcdclient: no available endpoints");
        }
    }

    #[tokio::test]
    async fn a_request_above_the_limit_is_not_sent() {
        let client = options().client(&["127.0.0.1:1".to_owned()]).expect("one endpoint");
        let request = pb::PutRequest { key: vec![0; 200].into(), ..Default::default() };
        let error = client.call(request).await.expect_err("too large");
        let text = "rpc error: code = ResourceExhausted desc = trying to send message larger than max (203 vs. 100)";
        assert_eq!(error_text(&error), text);
    }

    #[tokio::test]
    async fn a_member_that_is_not_there_is_dialled_until_the_deadline() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let client = options().client(std::slice::from_ref(&endpoint)).expect("one endpoint");
        let error = client.call(pb::RangeRequest::default()).await.expect_err("refused");
        assert_eq!(error_text(&error), "context deadline exceeded");
        let note = error_note(&error).expect("a reason");
        assert!(note.starts_with("last error: cannot reach ") && note.contains(&endpoint), "{note}");
    }
}

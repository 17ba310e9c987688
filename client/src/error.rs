//! What can go wrong: before a client starts, and with a request.

use std::{fmt, time::Duration};

use cairn_proto::ApiError;
use tonic::{Code, Status};

use crate::{
    endpoint::{Endpoint, InvalidEndpoint},
    tls::TlsError,
};

/// A client cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// An endpoint is not an address.
    #[error(transparent)]
    Endpoint(#[from] InvalidEndpoint),
    /// The list of endpoints is empty.
    #[error("a client needs at least one endpoint")]
    NoEndpoint,
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A token has characters that cannot be sent.
    #[error("the token has characters that cannot be sent")]
    Token,
    /// There is no tokio runtime for the connections to live on.
    #[error("a client must be built inside a tokio runtime")]
    NoRuntime,
}

/// A request failed.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// A server answered with an error.
    Answered {
        /// Who answered.
        endpoint: Endpoint,
        /// What.
        status: Box<Status>,
    },
    /// The request is larger than the client may send, and was not sent.
    TooLarge {
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// The request never reached a server, and the client is not to wait for one.
    Unreachable {
        /// The endpoint tried last.
        endpoint: Endpoint,
        /// Why it was not reached.
        status: Box<Status>,
    },
    /// The request was sent and the connection ended without an answer.
    Lost {
        /// Where it was sent.
        endpoint: Endpoint,
        /// How the connection ended.
        status: Box<Status>,
    },
    /// No endpoint is as far as this client has seen the store ([`Client::ordered`](crate::Client::ordered)).
    Outdated {
        /// Who answered last.
        endpoint: Endpoint,
        /// The revision of its answer.
        revision: i64,
        /// The revision this client has seen.
        seen: i64,
    },
    /// The command time-out passed.
    DeadlineExceeded {
        /// The time-out.
        timeout: Duration,
        /// The endpoint that had the request when time was up, if one did.
        endpoint: Option<Endpoint>,
        /// Why the attempt before failed, if there was one.
        last: Option<Box<Error>>,
    },
}

impl Error {
    /// The status behind the error; of a passed deadline, that of the last failed attempt.
    pub fn status(&self) -> Option<&Status> {
        match self {
            Self::Answered { status, .. } | Self::Unreachable { status, .. } | Self::Lost { status, .. } => {
                Some(status)
            }
            Self::DeadlineExceeded { last, .. } => last.as_ref()?.status(),
            Self::TooLarge { .. } | Self::Outdated { .. } => None,
        }
    }

    /// The endpoint that answered or was tried last.
    pub fn endpoint(&self) -> Option<&Endpoint> {
        match self {
            Self::Answered { endpoint, .. }
            | Self::Unreachable { endpoint, .. }
            | Self::Lost { endpoint, .. }
            | Self::Outdated { endpoint, .. } => Some(endpoint),
            Self::DeadlineExceeded { endpoint, last, .. } => endpoint.as_ref().or_else(|| last.as_ref()?.endpoint()),
            Self::TooLarge { .. } => None,
        }
    }

    /// The gRPC code, `DeadlineExceeded` included.
    pub fn code(&self) -> Code {
        match self {
            Self::Answered { status, .. } => status.code(),
            Self::TooLarge { .. } => Code::ResourceExhausted,
            Self::Unreachable { .. } | Self::Lost { .. } | Self::Outdated { .. } => Code::Unavailable,
            Self::DeadlineExceeded { .. } => Code::DeadlineExceeded,
        }
    }

    /// The error of the API's catalogue that a server answered with, if it is one.
    pub fn api_error(&self) -> Option<ApiError> {
        match self {
            Self::Answered { status, .. } => ApiError::from_status(status),
            _ => None,
        }
    }

    /// Whether a write may have taken effect all the same.
    ///
    /// `false` only if it certainly has not: the request never reached a server, or the server refused it. Then sending it
    /// again cannot do it twice.
    pub fn may_have_happened(&self) -> bool {
        match self {
            Self::Answered { .. } => !self.api_error().is_some_and(is_refusal) && self.code() != Code::Unimplemented,
            Self::TooLarge { .. } | Self::Unreachable { .. } => false,
            // The answer was refused, not what it answers.
            Self::Lost { .. } | Self::Outdated { .. } => true,
            // Earlier attempts were provably without effect, or else there would not have been another one.
            Self::DeadlineExceeded { endpoint, .. } => endpoint.is_some(),
        }
    }
}

/// The errors that say that nothing was done. Those of availability leave it open.
fn is_refusal(error: ApiError) -> bool {
    match error.code() {
        Code::InvalidArgument
        | Code::NotFound
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::ResourceExhausted
        | Code::Unimplemented => true,
        _ => matches!(error, ApiError::TooManyRequests | ApiError::MemberNotEnoughStarted | ApiError::NoPasswordUser),
    }
}

/// What users of etcd know: the bare text of an error of the catalogue, and the gRPC form of every other.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answered { status, .. } if ApiError::from_status(status).is_some() => f.write_str(status.message()),
            Self::Answered { status, .. } => {
                write!(f, "rpc error: code = {:?} desc = {}", Spelt(status.code()), status.message())
            }
            Self::TooLarge { bytes, bytes_max } => {
                let code = Spelt(Code::ResourceExhausted);
                write!(
                    f,
                    "rpc error: code = {code:?} desc = trying to send message larger than max ({bytes} vs. {bytes_max})"
                )
            }
            Self::Unreachable { endpoint, status } => write!(f, "cannot reach {endpoint}: {}", Chain(status)),
            Self::Lost { endpoint, status } => write!(f, "lost the connection to {endpoint}: {}", Chain(status)),
            Self::Outdated { endpoint, revision, seen } => {
                write!(
                    f,
                    "no endpoint has revision {seen}, which was seen before: {endpoint} is at revision {revision}"
                )
            }
            Self::DeadlineExceeded { .. } => f.write_str("context deadline exceeded"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::DeadlineExceeded { last: Some(last), .. } => Some(last),
            _ => None,
        }
    }
}

/// A code as gRPC's own documents spell it.
struct Spelt(Code);

impl fmt::Debug for Spelt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Code::Ok => f.write_str("OK"),
            Code::Cancelled => f.write_str("Canceled"),
            code => write!(f, "{code:?}"),
        }
    }
}

/// The innermost cause, which is the one that tells something ("connection refused"), after the outermost.
struct Chain<'a>(&'a Status);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut innermost = std::error::Error::source(self.0);
        while let Some(next) = innermost.and_then(std::error::Error::source) {
            innermost = Some(next);
        }
        match innermost {
            Some(cause) => write!(f, "{cause}"),
            None => f.write_str(self.0.message()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: Status) -> Error {
        Error::Answered { endpoint: Endpoint::in_process(), status: Box::new(status) }
    }

    #[test]
    fn an_error_of_the_catalogue_reads_as_its_bare_text() {
        let error = answered(ApiError::Compacted.into());
        assert_eq!(error.to_string(), "etcdserver: mvcc: required revision has been compacted");
        assert_eq!(error.api_error(), Some(ApiError::Compacted));
    }

    #[test]
    fn any_other_error_reads_as_grpc_writes_it() {
        let error = answered(Status::cancelled("gone"));
        assert_eq!(error.to_string(), "rpc error: code = Canceled desc = gone");
    }

    #[test]
    fn a_refused_write_has_not_happened_and_a_timed_out_one_may_have() {
        for refused in [ApiError::KeyNotFound, ApiError::NoSpace, ApiError::TooManyRequests, ApiError::PermissionDenied]
        {
            assert!(!answered(refused.into()).may_have_happened(), "{refused}");
        }
        for open in [ApiError::Timeout, ApiError::LeaderChanged, ApiError::Stopped, ApiError::NoLeader] {
            assert!(answered(open.into()).may_have_happened(), "{open}");
        }
        assert!(answered(Status::invalid_argument("not of the catalogue")).may_have_happened());
        assert!(!answered(Status::unimplemented("unknown method")).may_have_happened());
    }
}

//! Why a request gets no answer.

use std::borrow::Cow;

use cairn_proto::ApiError;
use tonic::{Code, Status};

use crate::state::command::rules::Broken;

/// Why a request gets no answer: an error of the catalogue, or one that only this server has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An error of the catalogue.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The server does not have this yet.
    #[error("{0} is not implemented by this server yet")]
    Missing(&'static str),
    /// A service is asked for that the health service does not know.
    #[error("unknown service")]
    UnknownService,
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(Cow<'static, str>),
    /// An error of the catalogue as Lock and Election tell it: its text without its code.
    #[error("{}", .0.text())]
    Uncoded(ApiError),
    /// An error without a code.
    #[error("{0}")]
    Unknown(Cow<'static, str>),
    /// The server failed.
    #[error("{0}")]
    Internal(Cow<'static, str>),
    /// The time that the client gave the call is up.
    #[error("context deadline exceeded")]
    DeadlineExceeded,
    /// The transport could not bring the request: its code and words.
    #[error("{text}")]
    Transport {
        /// The gRPC code.
        code: Code,
        /// What went wrong.
        text: Box<str>,
    },
}

impl Refusal {
    /// The gRPC code.
    pub fn code(&self) -> Code {
        match self {
            Self::Api(error) => error.code(),
            Self::Missing(_) => Code::Unimplemented,
            Self::UnknownService => Code::NotFound,
            Self::Invalid(_) => Code::InvalidArgument,
            Self::Uncoded(_) | Self::Unknown(_) => Code::Unknown,
            Self::Internal(_) => Code::Internal,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::Transport { code, .. } => *code,
        }
    }

    /// This refusal as Lock and Election tell it.
    #[must_use]
    pub fn without_code(self) -> Self {
        match self {
            Self::Api(error) => Self::Uncoded(error),
            other => other,
        }
    }
}

impl From<Broken> for Refusal {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Api(error) => Self::Api(error),
            Broken::Other(text) => Self::Invalid(text),
        }
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Transport { code: status.code(), text: status.message().into() }
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Api(error) => error.into(),
            other => Self::new(other.code(), other.to_string()),
        }
    }
}

//! Errors of the replicated state.

use cairn_proto::ApiError;

use super::{command::CommandError, mvcc::ReadError, record::RecordError};
use crate::store::StoreError;

/// Why the state could not do what was asked.
///
/// A *deterministic* error is an answer: every member that applies the command gives the same one. All others are about
/// this member alone (its disk, its version): it must not apply anything more, because it would part from the others.
/// [`StateError::Stalled`] is the one to wait out.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The command is refused; the answer to its caller.
    #[error(transparent)]
    Refused(ApiError),
    /// The store asks to wait. What was to be written is kept; call [`State::retry`](super::State::retry) until it is
    /// through.
    #[error("the store's write buffers are full; what was applied waits to be written")]
    Stalled,
    /// An entry of the log holds a command this version cannot apply.
    #[error("cannot apply the log entry {index}: {source}")]
    Command {
        /// The entry's index.
        index: u64,
        /// What is wrong with the command.
        source: CommandError,
    },
    /// The store failed.
    #[error(transparent)]
    Store(StoreError),
    /// A stored record is damaged.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Index and store contradict each other, or a stored value does not decode.
    #[error("the stored state is damaged: {what}")]
    Corrupt {
        /// What was found.
        what: String,
    },
    /// The data directory was written by a newer version.
    #[error(
        "the stored state has format {found}, this version reads up to {supported}: run the version that wrote it, or a newer one"
    )]
    NewerFormat {
        /// The format found.
        found: u32,
        /// The newest format this version reads.
        supported: u32,
    },
    /// The store already holds a cluster's state.
    #[error("the store already holds the state of a cluster and cannot be made the first state of another")]
    NotEmpty,
    /// The store holds no cluster's state yet.
    #[error("the store holds no state to apply to")]
    Empty,
    /// Entries were handed over with a gap.
    #[error("log entry {found} was to be applied, but the next one is {expected}")]
    OutOfOrder {
        /// The index that follows the applied one.
        expected: u64,
        /// The index found.
        found: u64,
    },
    /// An earlier error made the state unusable, or entries were applied while earlier ones still wait to be written.
    #[error("the state is not usable: {why}")]
    Unusable {
        /// What happened.
        why: &'static str,
    },
}

impl StateError {
    /// Whether the error is an answer, the same on every member.
    pub fn is_deterministic(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

impl From<ApiError> for StateError {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

impl From<StoreError> for StateError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Stalled => Self::Stalled,
            other => Self::Store(other),
        }
    }
}

impl From<ReadError> for StateError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Api(error) => Self::Refused(error),
            ReadError::Store(error) => Self::Store(error),
            ReadError::Corrupt { what } => Self::Corrupt { what },
        }
    }
}

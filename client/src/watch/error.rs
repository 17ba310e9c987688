//! How a watch ends.

use cairn_proto::{ApiError, etcdserverpb as pb};

use crate::error::Error;

/// Why a watch is over.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// The history the watch needs has been given up. Nothing before was left out.
    #[error("{}", ApiError::Compacted.text())]
    Compacted {
        /// The oldest revision that is left.
        compact_revision: i64,
        /// Who says so.
        header: pb::ResponseHeader,
    },
    /// A server refused or ended the watch, for a reason in its own words.
    #[error("{reason}")]
    Cancelled {
        /// The reason; see [`cancel_reason`](cairn_proto::cancel_reason).
        reason: String,
    },
    /// An answer in pieces grew beyond the largest answer the client accepts.
    #[error("an answer of more than {bytes_max} bytes was not accepted")]
    TooLarge {
        /// The limit.
        bytes_max: usize,
    },
    /// The stream failed in a way that trying again cannot mend.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The watch has ended before.
    #[error("the watch has ended")]
    Ended,
}

//! Errors of the store.

use std::{io, path::PathBuf};

/// Why the store could not do what was asked. Everything but [`StoreError::Stalled`] is fatal to the replica.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The engine asks writers to wait; nothing was written.
    #[error("the store's write buffers are full; the write may be tried again")]
    Stalled,
    /// The engine failed.
    #[error("store at {path}: {action} failed: {reason}")]
    Engine {
        /// Directory of the store.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The engine's own words.
        reason: String,
    },
    /// The directory holds no usable store.
    #[error("store at {path}: {reason}")]
    Unusable {
        /// Directory of the store.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A file operation around the engine failed.
    #[error("store at {path}: {action} failed: {source}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's words.
        source: io::Error,
    },
}

impl StoreError {
    /// Whether the call may be repeated and may then succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Stalled)
    }
}

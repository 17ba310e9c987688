//! What can go wrong in a recipe.

use crate::{error::Error, lease::LeaseLost, watch::WatchError};

/// A recipe failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// A request failed.
    #[error(transparent)]
    Request(#[from] Error),
    /// A watch failed.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The session's lease is lost, and with it every place in a queue.
    #[error("session expired: {0}")]
    SessionLost(#[from] LeaseLost),
    /// The key that stands for the place in the queue was deleted by somebody.
    #[error("the key of this place in the queue is gone")]
    PlaceLost,
    /// The leadership has passed to somebody else.
    #[error("election: not leader")]
    NotLeader,
    /// A transaction met others' writes each time it was tried.
    #[error("others were faster than the transaction {attempts} times")]
    Conflicts {
        /// How often it was tried.
        attempts: u32,
    },
}

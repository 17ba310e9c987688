//! Snapshots as files: a leader's checkpoint on its way out, a member's on its way in.
//!
//! ```text
//!   leader: member/outgoing-<n>/      hard links to the store's files, made between two writes; read in pieces
//!              │ files, in pieces, each file with its checksum          (peer/ carries them)
//!              ▼
//!   member: member/incoming-<n>/      <name>.part while it comes, <name> once its checksum is right and it is synced
//!              │ whole: renamed, opened, looked at, marked as being installed
//!              ▼
//!           member/state-<k>/         counts for nothing until CURRENT names it
//! ```
//! What lives here: [`Outgoing`] and [`Reading`], [`Incoming`], and [`Installer`], which makes a state of what was received.
//! What may call it: `node/shell` and, through the node's handle, `peer/`. Everything here waits for the disk.
//!
//! The one invariant: a state directory that `CURRENT` names holds a whole snapshot, of which every file had the checksum
//! that its sender read it with, or a state that this member made itself.
//!
//! # Interrupted
//!
//! A transfer can end anywhere and go on: the receiver says what it has, the sender begins there. That holds as long as the
//! sender has the snapshot, also when the receiver was killed meanwhile. A snapshot with another number begins anew, and what
//! there is of the one before is removed. A start removes `outgoing-…`, and states that are not the current one: an
//! installation that was killed before `CURRENT` was replaced never was, one that was killed after it is finished by the
//! next start, which resets the log.

mod incoming;
mod install;
mod open;
mod outgoing;
#[cfg(test)]
mod tests;

pub use incoming::Incoming;
pub use install::{Installer, Received};
pub use outgoing::{Outgoing, Reading};

/// Files that a snapshot may have.
pub const FILES_MAX: usize = 100_000;
/// Bytes that a file's name may have.
const NAME_BYTES_MAX: usize = 255;

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFile {
    /// Its name, in a directory of its own.
    pub name: String,
    /// Its bytes, or those that are there.
    pub bytes: u64,
}

/// A file as far as a receiver has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The file and the bytes of it that are there.
    pub file: SnapshotFile,
    /// It is whole, and its checksum was right.
    pub complete: bool,
}

/// A piece of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Which file, in the order of the list.
    pub file: usize,
    /// Where in it the piece begins.
    pub offset: u64,
    /// The bytes; possibly none, if only the checksum was missing.
    pub data: bytes::Bytes,
    /// With the last piece of a file: the CRC-32C of all of it.
    pub crc: Option<u32>,
}

/// Why a snapshot could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// A file or directory could not be read or written.
    #[error("{path}: {action} failed: {source}")]
    Io {
        /// The file or directory.
        path: std::path::PathBuf,
        /// What was being done.
        action: &'static str,
        /// The system's words.
        source: std::io::Error,
    },
    /// What came makes no sense.
    #[error("{0}")]
    Nonsense(String),
    /// What was received is no state of this cluster, or could not be opened.
    #[error(transparent)]
    State(#[from] crate::state::StateError),
}

impl From<crate::store::StoreError> for SnapshotError {
    fn from(error: crate::store::StoreError) -> Self {
        Self::State(error.into())
    }
}

/// Makes an I/O error of what was tried.
fn failed(path: &std::path::Path, action: &'static str) -> impl FnOnce(std::io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Io { path, action, source }
}

/// Whether a name is one of a file that may lie in a snapshot's directory, and nowhere else.
fn is_file_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.bytes().all(plain)
        && !name.starts_with('.')
        && !name.ends_with(incoming::PART)
}

//! What can go wrong with the log on disk. Every error here but [`LogError::Purged`] and [`LogError::OutOfRange`] is
//! fatal for the server.

use std::io;
use std::path::PathBuf;

/// Result of an operation on the log.
pub type Result<T> = std::result::Result<T, LogError>;

/// Why the log could not do what it was asked to.
///
/// Apart from the two conditions a reader of old entries has to expect ([`LogError::Purged`], [`LogError::OutOfRange`])
/// all of these are fatal: the member must stop acknowledging and stop.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operating system refused a file operation.
    #[error("raft log: cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb: `create`, `write`, `fdatasync` and so on.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The file system is full (or the quota used up).
    #[error(
        "raft log: cannot {action} {}: no space left on the device. Nothing acknowledged is lost; free some space \
         on this file system and start again",
        path.display()
    )]
    NoSpace {
        /// The operation, as a verb.
        action: &'static str,
        /// The file that could not be created or extended.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// An earlier operation failed, so nothing may be written any more: after a failed write or sync nobody knows what
    /// is on the disk.
    #[error("raft log: refused because an earlier operation failed ({cause}); it is never retried, restart the member")]
    Poisoned {
        /// The first error.
        cause: String,
    },

    /// A batch in the middle of the log does not verify. A torn last write can not explain it, because something that
    /// was written after it is there.
    #[error(
        "raft log: {} is damaged at byte {offset}: batch {batch} cannot be read ({why}), but the log goes on with \
         batch {later_batch} (byte {later_offset} of {}), so this is not a write torn by a crash. Nothing was \
         changed. Check the disk; then restore this member from a backup, or remove it from the cluster, delete its \
         data directory and add it again",
        path.display(), later_path.display()
    )]
    Damaged {
        /// The damaged segment file.
        path: PathBuf,
        /// Where the batch that does not verify begins.
        offset: u64,
        /// The number the batch at this place must have.
        batch: u64,
        /// What does not verify.
        why: String,
        /// A batch that can only exist if `batch` was complete and synced.
        later_batch: u64,
        /// The file of the later batch.
        later_path: PathBuf,
        /// Where in it the later batch was found.
        later_offset: u64,
    },

    /// What the records say, although each of them verifies, makes no sense.
    #[error(
        "raft log: {} is inconsistent at byte {offset}, batch {batch}: {why}. Nothing was changed. Restore this \
         member from a backup, or remove it from the cluster, delete its data directory and add it again",
        path.display()
    )]
    Inconsistent {
        /// The segment file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// The batch it is in.
        batch: u64,
        /// What is wrong with it.
        why: String,
    },

    /// An entry that was written cannot be read back.
    #[error(
        "raft log: cannot read an entry back from {} at byte {offset}: {why}. Check the disk",
        path.display()
    )]
    Unreadable {
        /// The segment file.
        path: PathBuf,
        /// Where the record begins.
        offset: u64,
        /// What is wrong with it.
        why: String,
    },

    /// A segment file has no readable header, so it is no segment or it is damaged.
    #[error(
        "raft log: {} has no valid segment header ({why}). Nothing was changed. If the file does not belong to this \
         log, move it away; otherwise restore this member from a backup, or remove it from the cluster, delete its \
         data directory and add it again",
        path.display()
    )]
    BadHeader {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        why: String,
    },

    /// The segment was written by a newer version of the program.
    #[error(
        "raft log: {} has format version {found}, this program reads versions up to {supported}. Start the version \
         that wrote it, or a newer one",
        path.display()
    )]
    NewerFormat {
        /// The segment file.
        path: PathBuf,
        /// Its format version.
        found: u32,
        /// The newest version known here.
        supported: u32,
    },

    /// The log belongs to another cluster or to another member.
    #[error(
        "raft log: {} belongs to {what} {found:x}, but this is {what} {expected:x}. The data directory is another \
         member's; check --data-dir, --name and the --initial-cluster flags",
        path.display()
    )]
    WrongIdentity {
        /// The segment file.
        path: PathBuf,
        /// `cluster` or `member`.
        what: &'static str,
        /// Our id.
        expected: u64,
        /// The id in the file.
        found: u64,
    },

    /// A segment file between two others, or before the first one, is gone.
    #[error(
        "raft log: {} is missing, but entries that are only in it are still needed. Put the file back, or restore \
         this member from a backup, or remove it from the cluster, delete its data directory and add it again",
        path.display()
    )]
    MissingSegment {
        /// The file that should be there.
        path: PathBuf,
    },

    /// The hard state names a committed entry that the log does not have.
    #[error(
        "raft log: {}: entry {commit} is recorded as committed, but the log ends at entry {last}. Nothing was \
         changed. Restore this member from a backup, or remove it from the cluster, delete its data directory and \
         add it again",
        path.display()
    )]
    CommitBeyondEnd {
        /// The last segment file.
        path: PathBuf,
        /// The commit index of the hard state.
        commit: u64,
        /// The index of the last entry.
        last: u64,
    },

    /// The caller asked for something that would break the log; it was not done.
    #[error("raft log: refused a change that makes no sense: {0}")]
    Misuse(String),

    /// The wanted entries have been purged.
    #[error("raft log: entry {index} was purged, the first one kept is {first_index}")]
    Purged {
        /// The first wanted index.
        index: u64,
        /// The first index there is.
        first_index: u64,
    },

    /// The wanted entries are beyond the end of the log.
    #[error("raft log: entry {index} was asked for, the last one is {last_index}")]
    OutOfRange {
        /// The last wanted index.
        index: u64,
        /// The last index there is.
        last_index: u64,
    },
}

impl LogError {
    /// An I/O error with its context; a full disk gets a message of its own.
    pub(crate) fn io(action: &'static str, path: PathBuf, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { action, path, source },
            _ => Self::Io { action, path, source },
        }
    }
}

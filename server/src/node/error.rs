//! Why a replica could not do what it was asked to: errors that are an answer to one request, and errors that end the
//! replica.

use std::{path::PathBuf, sync::Arc};

use cairn_proto::ApiError;
use semver::Version;

use crate::{
    log::LogError,
    state::{StateError, command::COMMAND_LEVEL, mvcc::ReadError},
};

/// Why a proposal has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// Too much is waiting already. The command was not proposed.
    #[error("too many requests are waiting")]
    TooManyRequests,
    /// Leadership was lost before the command was committed; it was not and will not be applied.
    #[error("the leader changed before the command was committed")]
    LeaderChanged,
    /// Not applied in time. It may still be, if it was proposed.
    #[error("not applied in time")]
    Timeout,
    /// Not applied in time, and the leader changed shortly before or meanwhile. It may still be.
    #[error("not applied in time, possibly because the leader failed")]
    TimeoutLeaderFailure,
    /// It is for the leader, which this member is not. It was not proposed.
    #[error("this member does not lead")]
    NotLeader,
    /// The request does not fit what it is about; nothing was changed.
    #[error("refused: {}", .0.text())]
    Refused(ApiError),
    /// The membership change makes no sense, whatever the members are; it was not proposed.
    #[error("the membership change makes no sense: {0}")]
    Malformed(&'static str),
    /// A membership change is under way; this one was not proposed.
    #[error("another membership change is under way")]
    ChangePending,
    /// The replica stops. The command may or may not be applied.
    #[error("the server stops")]
    Stopped,
}

impl From<ProposeError> for ApiError {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::TooManyRequests => Self::TooManyRequests,
            ProposeError::LeaderChanged => Self::LeaderChanged,
            ProposeError::Timeout => Self::Timeout,
            ProposeError::TimeoutLeaderFailure => Self::TimeoutLeaderFailure,
            ProposeError::NotLeader => Self::NotLeader,
            ProposeError::Refused(error) => error,
            // Clients can only get the URLs wrong.
            ProposeError::Malformed(_) => Self::MemberBadUrls,
            ProposeError::ChangePending => Self::Unhealthy,
            ProposeError::Stopped => Self::Stopped,
        }
    }
}

/// Why a linearizable read could not begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadIndexError {
    /// Too many reads are waiting already.
    #[error("too many requests are waiting")]
    TooManyRequests,
    /// No leader confirmed in time that it still leads.
    #[error("no leader confirmed the read in time")]
    Timeout,
    /// What the read must see was not applied here in time.
    #[error("what the read must see was not applied in time")]
    TimeoutNotApplied,
    /// The replica stops.
    #[error("the server stops")]
    Stopped,
}

impl From<ReadIndexError> for ApiError {
    fn from(error: ReadIndexError) -> Self {
        match error {
            ReadIndexError::TooManyRequests => Self::TooManyRequests,
            ReadIndexError::Timeout => Self::Timeout,
            ReadIndexError::TimeoutNotApplied => Self::TimeoutWaitAppliedIndex,
            ReadIndexError::Stopped => Self::Stopped,
        }
    }
}

/// What ends a replica, or keeps it from starting. Nothing is acknowledged any more after one.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The state machine or its store failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The raft log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The raft log failed while it ran.
    #[error(transparent)]
    LogThread(Arc<LogError>),
    /// raft-rs refused something that it must not refuse.
    #[error("raft: {action} failed: {source}")]
    Raft {
        /// What was done.
        action: &'static str,
        /// raft-rs's words.
        source: raft::Error,
    },
    /// Log and state do not belong together.
    #[error("the raft log and the stored state do not fit together: {0}")]
    Unfit(#[from] Unfit),
    /// A committed entry makes no sense.
    #[error("committed entry {index} cannot be applied: {reason}")]
    BadEntry {
        /// Its index.
        index: u64,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The data directory cannot be used.
    #[error("data directory {path}: {reason}")]
    Directory {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// The cluster goes on without this member.
    #[error(
        "member {member:x} was removed from the cluster. Its data directory is of no use any more: to come back, add it \
         anew and start it with an empty one"
    )]
    Removed {
        /// This member.
        member: u64,
    },
    /// The cluster is at a version that this program does not serve.
    #[error(
        "the cluster is at version {cluster}, this program serves {own} and may not understand what the others say: start a \
         newer one"
    )]
    TooOld {
        /// What the program serves.
        own: Version,
        /// The cluster's.
        cluster: Version,
    },
    /// The cluster's commands are of a newer kind or format.
    #[error(
        "the cluster is at command level {cluster}, this program applies commands up to level {COMMAND_LEVEL}: start a newer one"
    )]
    CommandLevel {
        /// The cluster's.
        cluster: u32,
    },
    /// The other members know that this one had begun, and its data directory is empty.
    #[error(
        "member {member:x} has been part of the cluster before, and now it has an empty data directory: whatever it had \
         promised to the others is lost, so it must not take part again. Put its data directory back, or remove it from the \
         cluster and add it anew"
    )]
    Blank {
        /// This member.
        member: u64,
    },
    /// The replica's own task or one of its threads ended by a panic.
    #[error("{0} ended unexpectedly; this is a defect of the program")]
    Panicked(&'static str),
}

impl NodeError {
    /// Whether every member meets this error at the same entry: such an error would be an answer. None of these is.
    pub const fn is_deterministic(&self) -> bool {
        false
    }
}

/// A read that met an error which is no answer.
impl From<ReadError> for NodeError {
    fn from(error: ReadError) -> Self {
        Self::State(error.into())
    }
}

/// How log and state contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// The state is ahead of the log.
    #[error(
        "the state has applied entry {applied}, the log ends at {last}: the log has lost entries, or is another one. \
         Restore both from the same copy, or remove the member and add it anew"
    )]
    LogTooShort {
        /// Applied by the state.
        applied: u64,
        /// Last of the log.
        last: u64,
    },
    /// The log begins too late.
    #[error(
        "the state has applied entry {applied}, the log begins at {first}: what is between is lost. \
         Restore both from the same copy, or remove the member and add it anew"
    )]
    LogBeginsTooLate {
        /// Applied by the state.
        applied: u64,
        /// First of the log.
        first: u64,
    },
    /// The same index has two terms.
    #[error(
        "entry {index} has term {in_log} in the log and {in_state} in the state: they belong to different histories"
    )]
    Terms {
        /// The index.
        index: u64,
        /// Its term in the log.
        in_log: u64,
        /// Its term in the state.
        in_state: u64,
    },
    /// The hard state is older than the log.
    #[error("the log's hard state has term {hard_state}, its last entry {last}: the log is damaged")]
    HardState {
        /// Term of the hard state.
        hard_state: u64,
        /// Term of the last entry.
        last: u64,
    },
    /// The hard state claims more than the log has.
    #[error("the log says that entry {commit} is committed, but it ends at {last}: the log is damaged")]
    Commit {
        /// The commit index.
        commit: u64,
        /// Last of the log.
        last: u64,
    },
    /// There is a log but no state.
    #[error(
        "there is a log with entries up to {last}, but the state is empty: the state was removed or is another one"
    )]
    StateEmpty {
        /// Last of the log.
        last: u64,
    },
    /// A cluster cannot begin anew from this member.
    #[error(
        "--force-new-cluster: by its log and state member {member:x} is no member of the cluster, or not yet: force another \
         one, or start this one without the flag"
    )]
    NoMember {
        /// This member.
        member: u64,
    },
    /// They belong to different clusters.
    #[error(
        "the log belongs to cluster {log:x}, the state to cluster {state:x}: one of them was moved here from elsewhere"
    )]
    Clusters {
        /// The cluster of the log.
        log: u64,
        /// The cluster of the state.
        state: u64,
    },
}

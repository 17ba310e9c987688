//! Commands: what goes through the raft log, and what applying one answers.
//!
//! Everything that is not deterministic (lease ids, member ids, times, password hashes) was chosen before a command was
//! encoded and is carried in it. `codec` is the byte layout of one command, `entry` how many of them travel in one raft
//! entry. [`shape`] and [`rules`] say which may be proposed.

use bytes::Bytes;
use cairn_proto::{ApiError, etcdserverpb as pb};
use semver::Version;

use super::{
    auth::{Actor, AuthRequest},
    mvcc::revision::Revision,
};

mod auth_codec;
mod codec;
mod entry;
pub mod rules;
pub mod shape;
mod txn_codec;

#[cfg(test)]
pub(in crate::state) use codec::tests::command as any_command;
pub use codec::{COMMAND_FORMAT, CommandError, decode, encode, granted_lease};
pub use entry::{ENTRY_BYTES_MAX, ENTRY_COMMANDS_MAX, EntryBuilder, EntryCommands, check_entry, decode_entry};
pub use txn_codec::{TXN_DEPTH_MAX, TxnUnreadable, decode_txn};

/// The command level of this build: it applies every kind and format of a command up to this level. A new kind or format
/// raises it by one.
///
/// | level | what it added |
/// |---|---|
/// | 1 | everything before levels were stated |
/// | 2 | [`Request::CommandLevel`] |
/// | 3 | the [format](COMMAND_FORMAT) that carries an [`Actor`] |
/// | 4 | [`Request::Auth`] and [`Request::Token`] |
pub const COMMAND_LEVEL: u32 = 4;
/// The level of a cluster that has none on record, and of a member that states none.
pub const COMMAND_LEVEL_FIRST: u32 = 1;

/// Names one request of one run of one member, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId {
    /// The member that accepted the request.
    pub member: u64,
    /// Drawn at random each time that member starts.
    pub nonce: u64,
    /// Counts requests since that start.
    pub counter: u64,
}

/// One replicated request.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Which request it is.
    pub id: RequestId,
    /// On whose behalf.
    pub actor: Actor,
    /// What to do.
    pub request: Request,
}

/// The kinds of replicated requests.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Sets a key.
    Put(pb::PutRequest),
    /// Deletes a range.
    DeleteRange(pb::DeleteRangeRequest),
    /// Runs a transaction.
    Txn(pb::TxnRequest),
    /// Compacts history.
    Compact(pb::CompactionRequest),
    /// Creates a lease; the id and the TTL in seconds were chosen by the member that accepted the request.
    LeaseGrant(pb::LeaseGrantRequest),
    /// Ends a lease and deletes its keys. For an expiry, the term of the leader that decided it: apply ignores one from
    /// another term.
    LeaseRevoke {
        /// The lease.
        id: i64,
        /// `None` when a client asked.
        expired_in_term: Option<u64>,
    },
    /// Records the remaining seconds of long leases; 0 means the whole TTL.
    LeaseCheckpoint(pb::LeaseCheckpointRequest),
    /// Raises, lowers or lists alarms.
    Alarm(pb::AlarmRequest),
    /// Publishes a member's name and client URLs.
    PublishMember {
        /// The member.
        member: u64,
        /// Its name.
        name: String,
        /// Where clients reach it.
        client_urls: Vec<String>,
    },
    /// Raises the replicated cluster version, e.g. `3.7.0`. One that is not higher changes nothing.
    ClusterVersion(Version),
    /// Raises the replicated command level. One that is not higher changes nothing.
    CommandLevel(u32),
    /// Changes users, roles or the switch.
    Auth(AuthRequest),
    /// Lets a simple token stand for a user.
    Token {
        /// The user.
        user: Bytes,
        /// The token.
        token: Bytes,
        /// Seconds since 1970 when it was made.
        made: u64,
    },
}

/// A kind of [`Request`], for metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "as the requests")]
pub enum RequestKind {
    Put,
    DeleteRange,
    Txn,
    Compact,
    LeaseGrant,
    LeaseRevoke,
    LeaseCheckpoint,
    Alarm,
    PublishMember,
    ClusterVersion,
    CommandLevel,
    Auth,
    Token,
}

impl Request {
    /// Which kind it is.
    pub const fn kind(&self) -> RequestKind {
        match self {
            Self::Put(_) => RequestKind::Put,
            Self::DeleteRange(_) => RequestKind::DeleteRange,
            Self::Txn(_) => RequestKind::Txn,
            Self::Compact(_) => RequestKind::Compact,
            Self::LeaseGrant(_) => RequestKind::LeaseGrant,
            Self::LeaseRevoke { .. } => RequestKind::LeaseRevoke,
            Self::LeaseCheckpoint(_) => RequestKind::LeaseCheckpoint,
            Self::Alarm(_) => RequestKind::Alarm,
            Self::PublishMember { .. } => RequestKind::PublishMember,
            Self::ClusterVersion(_) => RequestKind::ClusterVersion,
            Self::CommandLevel(_) => RequestKind::CommandLevel,
            Self::Auth(_) => RequestKind::Auth,
            Self::Token { .. } => RequestKind::Token,
        }
    }

    /// The command level of the cluster from which on this kind may be proposed. A member below it may not know the kind, and
    /// ends when it finds an unknown kind in its log.
    pub const fn since(&self) -> u32 {
        match self {
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Txn(_)
            | Self::Compact(_)
            | Self::LeaseGrant(_)
            | Self::LeaseRevoke { .. }
            | Self::LeaseCheckpoint(_)
            | Self::Alarm(_)
            | Self::PublishMember { .. }
            | Self::ClusterVersion(_)
            // What all members state gates it: the leader proposes no level that one of them does not know.
            | Self::CommandLevel(_) => COMMAND_LEVEL_FIRST,
            Self::Auth(_) | Self::Token { .. } => 4,
        }
    }
}

/// Whether a kind that there is `since` a level may be proposed in a cluster of command level `cluster`.
///
/// # Errors
/// [`ApiError::NotCapable`].
pub fn may_be_proposed(since: u32, cluster: u32) -> Result<(), ApiError> {
    if since <= cluster { Ok(()) } else { Err(ApiError::NotCapable) }
}

/// What applying a command answers: the deterministic result, the same on every member.
pub type Outcome = Result<Reply, ApiError>;

/// The result of a command, as revisions to read rather than bytes: rows are built off the apply path by the member
/// that owes the answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// Of a KV request.
    Kv {
        /// The store's revision after the command.
        revision: i64,
        /// What happened.
        done: OpReply,
    },
    /// Of a compaction.
    Compact {
        /// The store's revision.
        revision: i64,
        /// The revision compacted to; its physical part runs in the background.
        compacted: i64,
    },
    /// Of a lease request: id and TTL in seconds as granted.
    Lease {
        /// The store's revision after the command.
        revision: i64,
        /// The lease.
        id: i64,
        /// Seconds; 0 for a revoked lease.
        ttl: i64,
    },
    /// The alarms that the request raised, lowered or listed, by kind and member.
    Alarms(Vec<pb::AlarmMember>),
    /// Nothing to tell.
    Done,
}

/// What one KV operation did.
#[derive(Debug, Clone, PartialEq)]
pub enum OpReply {
    /// A put.
    Put {
        /// Revision for the sub-answer's header inside a txn.
        revision: i64,
        /// The previous value, if it was asked for and there was one.
        previous: Option<Revision>,
    },
    /// A delete.
    DeleteRange {
        /// Revision for the sub-answer's header inside a txn.
        revision: i64,
        /// Keys deleted.
        deleted: i64,
        /// The previous values, if asked for, in key order.
        previous: Vec<Revision>,
    },
    /// A range inside a txn, to be read at `at`.
    Range {
        /// Revision for the sub-answer's header.
        revision: i64,
        /// Read exactly what was visible here.
        at: Revision,
        /// What to read.
        request: Box<pb::RangeRequest>,
    },
    /// A txn, nested or whole.
    Txn {
        /// Which branch ran.
        succeeded: bool,
        /// Its operations' answers.
        ops: Vec<OpReply>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_kind_waits_for_the_cluster_to_be_at_its_level() {
        for (cluster, may) in [(COMMAND_LEVEL_FIRST, false), (2, false), (3, true), (4, true)] {
            let expected = if may { Ok(()) } else { Err(ApiError::NotCapable) };
            assert_eq!(may_be_proposed(3, cluster), expected, "at {cluster}");
        }
    }
}

//! Persisted records other than values: one file for each kind, with its bytes, encoding, decoding and round-trip test.
//!
//! | table | key | record |
//! |---|---|---|
//! | `meta` | `format` | [`mod@format`]: version of everything below |
//! | `meta` | `cluster` | [`cluster`]: the cluster's id |
//! | `meta` | `initial` | [`initial`]: the members that the cluster began with |
//! | `meta` | `applied` | [`applied`]: index and term of the newest applied raft entry |
//! | `meta` | `revision` | [`current`]: the store's revision |
//! | `meta` | `compaction/scheduled` | [`scheduled`]: the newest compactions asked for |
//! | `meta` | `compaction/finished` | [`finished`]: how far they have been carried out here, and their hashes |
//! | `meta` | `conf_state` | [`conf_state`]: raft's view of the membership |
//! | `meta` | `installing` | [`installing`]: the store is a snapshot that was being installed |
//! | `meta` | `version` | [`version`]: the replicated cluster version |
//! | `meta` | `command_level` | [`command_level`]: the replicated command level |
//! | `meta` | `downgrade` | [`downgrade`]: a running downgrade |
//! | `lease` | id | [`lease`]: a lease |
//! | `member` | `m` or `r`, id | [`member`]: a member, or the id of a removed one |
//! | `alarm` | kind, member | [`alarm`]: a raised alarm |
//! | `auth` | `s`, `u` or `r` and a name | [`auth`]: the switch, a user, a role |
//!
//! All integers are big endian. Everything is replicated (the same on every member that applied the same entries)
//! except `compaction/finished`, which says what this member has physically removed, and `installing`. Table `rev` (values) is not
//! described here.

use bytes::TryGetError;

pub mod alarm;
pub mod applied;
pub mod auth;
pub mod cluster;
pub mod command_level;
pub mod conf_state;
pub mod current;
pub mod downgrade;
pub mod finished;
pub mod format;
pub mod initial;
pub mod installing;
pub mod lease;
pub mod member;
pub mod scheduled;
pub mod version;

/// A record whose bytes make no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the stored record `{record}` is damaged: {what}")]
pub struct RecordError {
    /// Which kind of record.
    pub record: &'static str,
    /// What is wrong with it.
    pub what: String,
}

impl RecordError {
    fn new(record: &'static str, what: impl Into<String>) -> Self {
        Self { record, what: what.into() }
    }

    fn short(record: &'static str) -> impl FnOnce(TryGetError) -> Self {
        move |error| Self::new(record, error.to_string())
    }

    fn unless_empty(record: &'static str, rest: &[u8]) -> Result<(), Self> {
        if rest.is_empty() { Ok(()) } else { Err(Self::new(record, format!("{} bytes too many", rest.len()))) }
    }
}

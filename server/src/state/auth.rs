//! Who acts, and the proof that it may.
//!
//! A call comes with a [`Principal`]: what its connection and its metadata claim. The [`Authorizer`] turns it into a
//! [`Permit`] for one [`Need`]. Proposing a command and pinning a revision take a permit, which nothing else can make, so that
//! code that forgets the check does not compile. The permit's [`Actor`] travels in the command.
//!
//! There are no users yet: every need of every principal is permitted.

use std::sync::Arc;

use bytes::Bytes;
use cairn_proto::{ApiError, etcdserverpb as pb};

use super::command::Request;

/// On whose behalf a command is applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// A member, by itself: expiries, alarms, publications.
    Server,
    /// A client without a user.
    Anonymous,
    /// An authenticated user.
    User {
        /// The name.
        name: Bytes,
        /// The auth revision at which the permissions of the user were checked.
        auth_revision: u64,
    },
}

/// Who calls, as the connection and the metadata of the call claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Principal {
    /// A client that claims nothing.
    Anonymous,
    /// A client with a verified certificate of this common name.
    Certificate(Arc<str>),
    /// A client with a token.
    Token(Bytes),
    /// The program around the server.
    InProcess,
    /// The member itself. No call from outside has this principal.
    Server,
}

/// What a call wants to do.
#[derive(Debug, Clone, Copy)]
pub enum Need<'a> {
    /// Read a range.
    Range(&'a pb::RangeRequest),
    /// Run a transaction that only reads.
    ReadTxn(&'a pb::TxnRequest),
    /// Apply a request.
    Apply(&'a Request),
    /// Watch a range.
    Watch(&'a pb::WatchCreateRequest),
    /// Renew a lease, or see its time and keys.
    Lease(i64),
    /// List the leases.
    Leases,
    /// List the members.
    Members,
    /// Change the members or the leader.
    ChangeMembers,
    /// Look after a member.
    Maintain,
}

/// The proof that a need was permitted. Only an [`Authorizer`] makes one.
///
/// ```compile_fail,E0451
/// # use cairn_server::state::auth::{Actor, Permit};
/// let made_up = Permit { actor: Actor::Server };
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Permit {
    actor: Actor,
}

impl Permit {
    /// On whose behalf the permitted need is served.
    pub fn into_actor(self) -> Actor {
        self.actor
    }
}

/// Decides what principals may do. Clones are cheap and share everything.
#[derive(Debug, Clone, Default)]
pub struct Authorizer(());

impl Authorizer {
    /// Permits the member itself.
    pub fn own(&self) -> Permit {
        Permit { actor: Actor::Server }
    }

    /// Permits a principal what it needs.
    ///
    /// # Errors
    /// None yet.
    pub fn authorize(&self, principal: &Principal, _need: Need<'_>) -> Result<Permit, ApiError> {
        match principal {
            Principal::Server => Ok(self.own()),
            Principal::Anonymous | Principal::Certificate(_) | Principal::Token(_) | Principal::InProcess => {
                Ok(Permit { actor: Actor::Anonymous })
            }
        }
    }
}

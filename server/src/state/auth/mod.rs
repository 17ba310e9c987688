//! Who acts, and the proof that it may.
//!
//! A call comes with a [`Principal`]: what its connection and its metadata claim. The [`Authorizer`] turns it into a
//! [`Permit`] for one [`Need`]. Proposing a command and pinning a revision take a permit, which nothing else can make, so that
//! code that forgets the check does not compile. The permit's [`Actor`] travels in the command.
//!
//! | part | what it has |
//! |---|---|
//! | `store` | users, roles, the switch and the auth revision, as they are replicated |
//! | `ranges` | the keys that permissions open |
//! | `check` | what each request needs |
//! | `tokens` | whom simple tokens stand for |

mod check;
mod ranges;
mod store;
#[cfg(test)]
mod tests;
mod tokens;

use std::{fmt, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use bytes::Bytes;
use cairn_proto::{ApiError, etcdserverpb as pb};

pub use self::{
    check::LeaseKeys,
    store::{AuthRequest, AuthStore, ROOT, Written},
    tokens::Tokens,
};
use super::{command::Request, leases::LeaseView, mvcc::index::RangeEnd};

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
    /// The program around the server, as a user that it names.
    InProcess(Option<Arc<str>>),
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
    /// Watch keys from here to there.
    Watch(&'a [u8], &'a RangeEnd),
    /// Renew a lease.
    RenewLease(i64),
    /// See the time of a lease, and its keys.
    SeeLease {
        /// The lease.
        id: i64,
        /// Its keys are told.
        keys: bool,
    },
    /// List the leases.
    Leases,
    /// See this user.
    UserOf(&'a str),
    /// See this role.
    Role(&'a str),
    /// Be a user.
    User,
    /// Be root.
    Root,
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
    /// Whether it was given for what a user may do now, which may change.
    pub fn may_grow_old(&self) -> bool {
        matches!(self.actor, Actor::User { .. })
    }

    /// On whose behalf the permitted need is served.
    pub fn into_actor(self) -> Actor {
        self.actor
    }
}

/// What a signed token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bearer {
    /// Its user.
    pub user: Bytes,
    /// The auth revision at which it was made. It is worth nothing at another one.
    pub auth_revision: u64,
}

/// Reads signed tokens.
pub trait ReadToken: fmt::Debug + Send + Sync {
    /// What a token says, if it is good now.
    fn read(&self, token: &[u8]) -> Option<Bearer>;
}

/// How callers are told apart.
#[derive(Debug, Clone, Default)]
pub struct Identification {
    /// Reads the tokens, where they are signed. Otherwise they are simple.
    pub signed: Option<Arc<dyn ReadToken>>,
    /// How long a simple token lives that is not used.
    pub token_ttl: Duration,
    /// Common names of certificates are users.
    pub by_certificate: bool,
}

/// Decides what principals may do. Clones are cheap and share everything.
#[derive(Clone, Default)]
pub struct Authorizer {
    store: Arc<ArcSwap<AuthStore>>,
    leases: LeaseView,
    tokens: Tokens,
    how: Identification,
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer").finish_non_exhaustive()
    }
}

impl Authorizer {
    /// Takes neither tokens nor certificates before it is told [how](Self::with).
    pub(in crate::state) fn new(store: Arc<ArcSwap<AuthStore>>, leases: LeaseView, tokens: Tokens) -> Self {
        Self { store, leases, tokens, how: Identification::default() }
    }

    /// Tells callers apart by `how`.
    #[must_use]
    pub fn with(self, how: Identification) -> Self {
        Self { how, ..self }
    }

    /// Users and roles as they are now.
    pub fn store(&self) -> Arc<AuthStore> {
        self.store.load_full()
    }

    /// Forgets the tokens whose time is over, if that was not done in the last tenth of it.
    pub fn sweep_tokens(&self) {
        self.tokens.sweep(self.how.token_ttl);
    }

    /// Permits the member itself.
    pub fn own(&self) -> Permit {
        Permit { actor: Actor::Server }
    }

    /// Permits a principal what it needs.
    ///
    /// # Errors
    /// [`ApiError::InvalidAuthToken`], [`ApiError::UserEmpty`], [`ApiError::PermissionDenied`];
    /// [`ApiError::AuthOldRevision`] for a signed token of another auth revision.
    pub fn authorize(&self, principal: &Principal, need: Need<'_>) -> Result<Permit, ApiError> {
        let store = self.store.load();
        let actor = match principal {
            Principal::Server => return Ok(self.own()),
            _ if !store.is_enabled() => return Ok(Permit { actor: Actor::Anonymous }),
            principal => match self.identify(&store, principal)? {
                Some(Bearer { user: name, auth_revision }) => Actor::User { name, auth_revision },
                None => Actor::Anonymous,
            },
        };
        store.check(&actor, need, &self.leases)?;
        Ok(Permit { actor })
    }

    /// The user that a principal claims to be, if it claims one.
    fn identify(&self, store: &AuthStore, principal: &Principal) -> Result<Option<Bearer>, ApiError> {
        let named = |name: Bytes| Some(Bearer { user: name, auth_revision: store.revision() });
        Ok(match principal {
            Principal::Token(token) => {
                let bearer = match &self.how.signed {
                    Some(signed) => signed.read(token),
                    None => self.tokens.user_of(token, self.how.token_ttl).and_then(named),
                };
                Some(bearer.ok_or(ApiError::InvalidAuthToken)?)
            }
            Principal::Certificate(name) if self.how.by_certificate => named(Bytes::copy_from_slice(name.as_bytes())),
            Principal::InProcess(Some(name)) => named(Bytes::copy_from_slice(name.as_bytes())),
            Principal::Anonymous | Principal::Certificate(_) | Principal::InProcess(None) | Principal::Server => None,
        })
    }

    /// The user that a principal is taken for, if authentication is on.
    pub fn user_of(&self, principal: &Principal) -> Option<Bytes> {
        let store = self.store.load();
        let bearer = if store.is_enabled() { self.identify(&store, principal).ok()? } else { None };
        bearer.map(|bearer| bearer.user)
    }

    /// Permits anew what was permitted before users or roles have changed. A user that is known is not identified
    /// again, so that its token may have run out.
    ///
    /// # Errors
    /// As of [`Self::authorize`].
    pub fn authorize_again(&self, permit: &Permit, principal: &Principal, need: Need<'_>) -> Result<Permit, ApiError> {
        match &permit.actor {
            Actor::Server => Ok(self.own()),
            Actor::Anonymous => self.authorize(principal, need),
            Actor::User { name, .. } => {
                let store = self.store.load();
                let actor = Actor::User { name: name.clone(), auth_revision: store.revision() };
                store.check(&actor, need, &self.leases)?;
                Ok(Permit { actor })
            }
        }
    }

    /// Whether what a permit permits is still permitted: to be asked after a read.
    ///
    /// # Errors
    /// [`ApiError::AuthOldRevision`].
    pub fn is_current(&self, permit: &Permit) -> Result<(), ApiError> {
        match &permit.actor {
            Actor::User { auth_revision, .. } if *auth_revision != self.store.load().revision() => {
                Err(ApiError::AuthOldRevision)
            }
            _ => Ok(()),
        }
    }
}

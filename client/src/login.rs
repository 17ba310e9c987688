//! Names changed for tokens: who the client is, and the token that a server gave it for that.
//!
//! All clones of a client share one [`Login`]. A token is asked for when the first request needs one, and again when a server
//! refuses the one in use. However many requests find that out at the same time, one of them asks and the others wait:
//!
//! ```text
//!   request ──token 1──► refused ─┐
//!   request ──token 1──► refused ─┼─► Authenticate, once ──token 2──► each is sent again, once
//!   request ──token 1──► refused ─┘
//! ```

use std::{fmt, sync::Arc};

use cairn_proto::{ApiError, etcdserverpb as pb};
use parking_lot::RwLock;
use tonic::{
    Status,
    metadata::{Ascii, MetadataValue},
};

use crate::{client::Client, error::Error, transport::BoxFuture};

/// What a request shows, and which round of asking it is from.
#[derive(Clone, Default)]
pub(crate) struct Shown {
    pub(crate) token: Option<MetadataValue<Ascii>>,
    /// 0 if none was asked for.
    round: u64,
}

/// A name, its password, and the token they were changed for.
pub(crate) struct Login {
    name: String,
    password: String,
    /// How the last round ended.
    last: RwLock<(u64, Result<Shown, Error>)>,
    asking: tokio::sync::Mutex<()>,
}

impl Login {
    pub(crate) fn new(name: String, password: String) -> Self {
        Self { name, password, last: RwLock::new((0, Ok(Shown::default()))), asking: tokio::sync::Mutex::default() }
    }

    /// What to show; asks first if no round before ended well.
    async fn shown(&self, client: &Client) -> Result<Shown, Error> {
        let (round, last) = self.last.read().clone();
        match last {
            Ok(shown) if round > 0 => Ok(shown),
            _ => self.after(round, client).await,
        }
    }

    /// The outcome of a round later than `round`: of one that others have asked for meanwhile, or of a new one.
    async fn after(&self, round: u64, client: &Client) -> Result<Shown, Error> {
        let _asking = self.asking.lock().await;
        let (newest, last) = self.last.read().clone();
        if newest > round {
            return last;
        }
        let outcome = self.ask(client).await.map(|token| Shown { token, round: newest + 1 });
        *self.last.write() = (newest + 1, outcome.clone());
        outcome
    }

    /// Changes the password for a token; for none where servers want no users.
    fn ask(&self, client: &Client) -> BoxFuture<Result<Option<MetadataValue<Ascii>>, Error>> {
        let request = pb::AuthenticateRequest { name: self.name.clone(), password: self.password.clone() };
        let client = client.anonymous();
        Box::pin(async move {
            match client.call(request).await {
                Ok(answer) => Ok(answer.token.parse().ok()),
                Err(error) if error.api_error() == Some(ApiError::AuthNotEnabled) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }
}

/// Neither the password nor the token.
impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who a client is.
#[derive(Clone, Debug, Default)]
pub(crate) enum Identity {
    /// Nobody in particular, or what its certificate says.
    #[default]
    Anonymous,
    /// The bearer of a token.
    Token(Hidden),
    /// A user with a password.
    User(Arc<Login>),
}

/// Which of several identities one is.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key(Option<Vec<u8>>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

impl Identity {
    /// Differs from the keys of all other identities in use.
    pub(crate) fn key(&self) -> Key {
        Key(match self {
            Self::Anonymous => None,
            Self::Token(Hidden(token)) => Some(token.as_bytes().to_vec()),
            // A token has no zero bytes.
            Self::User(login) => Some([&[0], &Arc::as_ptr(login).addr().to_le_bytes()[..]].concat()),
        })
    }
}

/// A token that is not shown.
#[derive(Clone)]
pub(crate) struct Hidden(pub(crate) MetadataValue<Ascii>);

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Client {
    /// What a request shows now.
    pub(crate) async fn shown(&self) -> Result<Shown, Error> {
        match self.identity() {
            Identity::Anonymous => Ok(Shown::default()),
            Identity::Token(Hidden(token)) => Ok(Shown { token: Some(token.clone()), round: 0 }),
            Identity::User(login) => login.shown(self).await,
        }
    }

    /// Has what was `refused` replaced; `false` if there is nothing to replace it by.
    pub(crate) async fn renew(&self, refused: &Shown) -> Result<bool, Error> {
        match self.identity() {
            Identity::User(login) => login.after(refused.round, self).await.map(|_| true),
            Identity::Anonymous | Identity::Token(_) => Ok(false),
        }
    }
}

/// What etcd until 3.5.1 says when permissions have changed since, with the code `Unknown`.
const OLD_REVISION: &str = "auth: revision in header is old";

/// Whether a server wants another token: it does not know this one, permissions have changed since, or there was none.
pub(crate) fn wants_another(status: &Status) -> bool {
    status.message() == OLD_REVISION
        || ApiError::from_status(status).is_some_and(|error| {
            matches!(error, ApiError::InvalidAuthToken | ApiError::AuthOldRevision | ApiError::UserEmpty)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let login = Login::new("ann".to_owned(), "secret".to_owned());
        let identities = [Identity::User(Arc::new(login)), Identity::Token(Hidden("secret".parse().expect("a token")))];
        let shown = format!("{identities:?}");
        assert!(shown.contains("ann") && !shown.contains("secret"), "{shown}");
    }
}

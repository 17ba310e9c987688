//! The Auth service: users, roles, their permissions, and tokens.
//!
//! Passwords are hashed, and compared (`passwords`), on the blocking pool before anything is proposed. What is
//! replicated is a hash.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use cairn_proto::{ApiError, etcdserverpb as pb};
use rand::{Rng, distr::Alphabetic};

use super::{Context, passwords::Passwords, refusal::Refusal, router::Origin};
use crate::{
    security::Jwt,
    state::{
        auth::{AuthRequest, AuthStore, Bearer, Need, Principal, ReadToken},
        command::Request,
    },
};

/// How often is looked whether the command level has risen.
const LEVEL_POLL: Duration = Duration::from_millis(20);
/// Letters of a simple token.
const TOKEN_LETTERS: usize = 16;
/// Bytes of the longest password: bcrypt takes no more.
const PASSWORD_BYTES_MAX: usize = 72;

impl ReadToken for Jwt {
    fn read(&self, token: &[u8]) -> Option<Bearer> {
        self.verify(token).map(|claims| Bearer { user: claims.user, auth_revision: claims.revision })
    }
}

/// The Auth service. Clones are cheap.
#[derive(Clone)]
pub struct Auth {
    context: Arc<Context>,
    passwords: Arc<Passwords>,
}

impl Auth {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context, passwords: Passwords::new().into() }
    }

    /// The user that a principal is taken for, if authentication is on.
    pub(super) fn user_of(&self, principal: &Principal) -> Option<Bytes> {
        self.context.authorizer.user_of(principal)
    }

    /// Turns authentication on.
    pub async fn enable(
        &self,
        principal: &Principal,
        _request: pb::AuthEnableRequest,
    ) -> Result<pb::AuthEnableResponse, Refusal> {
        self.change(principal, AuthRequest::Enable).await?;
        Ok(pb::AuthEnableResponse { header: self.header() })
    }

    /// Turns authentication off.
    pub async fn disable(
        &self,
        principal: &Principal,
        _request: pb::AuthDisableRequest,
    ) -> Result<pb::AuthDisableResponse, Refusal> {
        self.change(principal, AuthRequest::Disable).await?;
        Ok(pb::AuthDisableResponse { header: self.header() })
    }

    /// Whether authentication is on, which anybody may ask.
    pub async fn status(&self, _request: pb::AuthStatusRequest) -> Result<pb::AuthStatusResponse, Refusal> {
        let store = self.newest().await?;
        let (enabled, auth_revision) = (store.is_enabled(), store.revision());
        Ok(pb::AuthStatusResponse { header: self.header(), enabled, auth_revision })
    }

    /// A token for a name and a password.
    pub async fn authenticate(
        &self,
        origin: &Origin,
        request: pb::AuthenticateRequest,
    ) -> Result<pb::AuthenticateResponse, Refusal> {
        loop {
            let store = self.newest().await?;
            let hash = match store.password_of(&request.name) {
                Ok(hash) => Some(hash),
                // As long as for a user that exists, so that the time does not tell which names do.
                Err(ApiError::AuthFailed) => None,
                Err(error) => return Err(error.into()),
            };
            let claimed = (&*request.name, &*request.password);
            if !self.passwords.is_right(&self.context, origin.ip(), claimed, hash.as_ref()).await? {
                return Err(ApiError::AuthFailed.into());
            }
            let token = match &self.context.jwt {
                Some(jwt) => self.sign_token(jwt, &request.name, store.revision()).await?,
                None => self.assign_token(&request.name).await?,
            };
            // The password may have been changed while it was compared.
            if self.context.authorizer.store().revision() == store.revision() {
                return Ok(pb::AuthenticateResponse { header: self.header(), token });
            }
        }
    }

    /// Adds a user.
    pub async fn user_add(
        &self,
        principal: &Principal,
        mut request: pb::AuthUserAddRequest,
    ) -> Result<pb::AuthUserAddResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::Root)?;
        let password = std::mem::take(&mut request.password);
        request.hashed_password.clear();
        if !request.options.is_some_and(|options| options.no_password) {
            request.hashed_password = self.hash(password).await?;
        }
        self.change(principal, AuthRequest::UserAdd(request)).await?;
        Ok(pb::AuthUserAddResponse { header: self.header() })
    }

    /// The roles of a user. A user may see its own.
    pub async fn user_get(
        &self,
        principal: &Principal,
        request: pb::AuthUserGetRequest,
    ) -> Result<pb::AuthUserGetResponse, Refusal> {
        let store = self.seen(principal, Need::UserOf(&request.name)).await?;
        Ok(pb::AuthUserGetResponse { header: self.header(), roles: store.roles_of(&request.name)? })
    }

    /// All users.
    pub async fn user_list(
        &self,
        principal: &Principal,
        _request: pb::AuthUserListRequest,
    ) -> Result<pb::AuthUserListResponse, Refusal> {
        let store = self.seen(principal, Need::Root).await?;
        Ok(pb::AuthUserListResponse { header: self.header(), users: store.user_names().cloned().collect() })
    }

    /// Deletes a user.
    pub async fn user_delete(
        &self,
        principal: &Principal,
        request: pb::AuthUserDeleteRequest,
    ) -> Result<pb::AuthUserDeleteResponse, Refusal> {
        self.change(principal, AuthRequest::UserDelete(request)).await?;
        Ok(pb::AuthUserDeleteResponse { header: self.header() })
    }

    /// Changes a user's password.
    pub async fn user_change_password(
        &self,
        principal: &Principal,
        mut request: pb::AuthUserChangePasswordRequest,
    ) -> Result<pb::AuthUserChangePasswordResponse, Refusal> {
        let _permit = self.context.authorize(principal, Need::Root)?;
        request.hashed_password = self.hash(std::mem::take(&mut request.password)).await?;
        self.change(principal, AuthRequest::UserChangePassword(request)).await?;
        Ok(pb::AuthUserChangePasswordResponse { header: self.header() })
    }

    /// Gives a role to a user.
    pub async fn user_grant_role(
        &self,
        principal: &Principal,
        request: pb::AuthUserGrantRoleRequest,
    ) -> Result<pb::AuthUserGrantRoleResponse, Refusal> {
        self.change(principal, AuthRequest::UserGrantRole(request)).await?;
        Ok(pb::AuthUserGrantRoleResponse { header: self.header() })
    }

    /// Takes a role from a user.
    pub async fn user_revoke_role(
        &self,
        principal: &Principal,
        request: pb::AuthUserRevokeRoleRequest,
    ) -> Result<pb::AuthUserRevokeRoleResponse, Refusal> {
        self.change(principal, AuthRequest::UserRevokeRole(request)).await?;
        Ok(pb::AuthUserRevokeRoleResponse { header: self.header() })
    }

    /// Adds a role.
    pub async fn role_add(
        &self,
        principal: &Principal,
        request: pb::AuthRoleAddRequest,
    ) -> Result<pb::AuthRoleAddResponse, Refusal> {
        self.change(principal, AuthRequest::RoleAdd(request)).await?;
        Ok(pb::AuthRoleAddResponse { header: self.header() })
    }

    /// The permissions of a role. A user may see those of its own roles.
    pub async fn role_get(
        &self,
        principal: &Principal,
        request: pb::AuthRoleGetRequest,
    ) -> Result<pb::AuthRoleGetResponse, Refusal> {
        let store = self.seen(principal, Need::Role(&request.role)).await?;
        Ok(pb::AuthRoleGetResponse { header: self.header(), perm: store.permissions_of(&request.role)? })
    }

    /// All roles.
    pub async fn role_list(
        &self,
        principal: &Principal,
        _request: pb::AuthRoleListRequest,
    ) -> Result<pb::AuthRoleListResponse, Refusal> {
        let store = self.seen(principal, Need::Root).await?;
        Ok(pb::AuthRoleListResponse { header: self.header(), roles: store.role_names().cloned().collect() })
    }

    /// Deletes a role.
    pub async fn role_delete(
        &self,
        principal: &Principal,
        request: pb::AuthRoleDeleteRequest,
    ) -> Result<pb::AuthRoleDeleteResponse, Refusal> {
        self.change(principal, AuthRequest::RoleDelete(request)).await?;
        Ok(pb::AuthRoleDeleteResponse { header: self.header() })
    }

    /// Gives a permission to a role.
    pub async fn role_grant_permission(
        &self,
        principal: &Principal,
        request: pb::AuthRoleGrantPermissionRequest,
    ) -> Result<pb::AuthRoleGrantPermissionResponse, Refusal> {
        self.change(principal, AuthRequest::RoleGrantPermission(request)).await?;
        Ok(pb::AuthRoleGrantPermissionResponse { header: self.header() })
    }

    /// Takes a permission from a role.
    pub async fn role_revoke_permission(
        &self,
        principal: &Principal,
        request: pb::AuthRoleRevokePermissionRequest,
    ) -> Result<pb::AuthRoleRevokePermissionResponse, Refusal> {
        self.change(principal, AuthRequest::RoleRevokePermission(request)).await?;
        Ok(pb::AuthRoleRevokePermissionResponse { header: self.header() })
    }

    async fn change(&self, principal: &Principal, request: AuthRequest) -> Result<(), Refusal> {
        let request = Request::Auth(request);
        self.wait_for_level(request.since()).await;
        self.context.propose(principal, request).await.map(drop)
    }

    /// A new cluster raises its command level in its first moments; a request that needs the level waits for that, for a
    /// while.
    async fn wait_for_level(&self, level: u32) {
        let risen = async {
            while self.context.node.command_level() < level {
                tokio::time::sleep(LEVEL_POLL).await;
            }
        };
        let _ = tokio::time::timeout(self.context.election_timeout, risen).await;
    }

    /// Users and roles, as the need to see them is permitted.
    async fn seen(&self, principal: &Principal, need: Need<'_>) -> Result<Arc<AuthStore>, Refusal> {
        let store = self.newest().await?;
        let _permit = self.context.authorize(principal, need)?;
        Ok(store)
    }

    /// Users and roles with everything that was acknowledged before now.
    async fn newest(&self) -> Result<Arc<AuthStore>, Refusal> {
        self.context.node.linearize().await.map_err(ApiError::from)?;
        Ok(self.context.authorizer.store())
    }

    async fn hash(&self, password: String) -> Result<String, Refusal> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(Refusal::Unknown("bcrypt: password length exceeds 72 bytes".into()));
        }
        let cost = self.context.bcrypt_cost;
        let hashed = self.context.hashing(move || bcrypt::hash(password, cost)).await?;
        hashed.map_err(|error| Refusal::Internal(format!("a password cannot be hashed: {error}").into()))
    }

    async fn sign_token(&self, jwt: &Arc<Jwt>, user: &str, revision: u64) -> Result<String, Refusal> {
        let (jwt, user) = (jwt.clone(), user.to_owned());
        // To sign by RSA takes a core for a while.
        let signed = self.context.hashing(move || jwt.sign(&user, revision)).await?;
        signed.map_err(|error| Refusal::Unknown(error.to_string().into()))
    }

    /// Draws a simple token, of which every member hears.
    async fn assign_token(&self, user: &str) -> Result<String, Refusal> {
        let token = self.draw_token();
        let user = Bytes::copy_from_slice(user.as_bytes());
        let known = Request::Token { user, token: token.clone().into(), made: now() };
        self.context.propose(&Principal::Server, known).await?;
        self.context.authorizer.sweep_tokens();
        Ok(token)
    }

    fn draw_token(&self) -> String {
        let letters: String = rand::rng().sample_iter(Alphabetic).take(TOKEN_LETTERS).map(char::from).collect();
        format!("{letters}.{}", self.context.node.status().applied_index)
    }

    #[expect(clippy::unnecessary_wraps, reason = "answers have an optional header")]
    fn header(&self) -> Option<pb::ResponseHeader> {
        Some(self.context.header(self.context.node.reader().revision()).into())
    }
}

#[expect(clippy::disallowed_methods, reason = "what is not deterministic is decided before a command is proposed")]
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

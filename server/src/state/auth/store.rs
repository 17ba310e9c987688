//! Users and roles, as they are replicated.
//!
//! Changes come as commands and are evaluated in their order; passwords come hashed. Each change but turning on raises the
//! auth revision, so that a command that was checked before it is noticed when it is applied.
//!
//! A user's permissions are merged when they are first asked for after a change, and kept until the next change of the user
//! or of one of its roles.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    authpb::{Permission, Role, User as UserRecord, permission::Type},
    etcdserverpb as pb,
};

use super::ranges::KeyRanges;

/// The user and the role that may do everything.
pub const ROOT: &str = "root";

/// A request about users, roles or the switch, as it is replicated.
#[derive(Debug, Clone, PartialEq)]
pub enum AuthRequest {
    /// Turns authentication on.
    Enable,
    /// Turns it off.
    Disable,
    /// Adds a user, whose password is hashed.
    UserAdd(pb::AuthUserAddRequest),
    /// Deletes a user.
    UserDelete(pb::AuthUserDeleteRequest),
    /// Changes a password, which is hashed.
    UserChangePassword(pb::AuthUserChangePasswordRequest),
    /// Gives a role to a user.
    UserGrantRole(pb::AuthUserGrantRoleRequest),
    /// Takes a role from a user.
    UserRevokeRole(pb::AuthUserRevokeRoleRequest),
    /// Adds a role.
    RoleAdd(pb::AuthRoleAddRequest),
    /// Deletes a role.
    RoleDelete(pb::AuthRoleDeleteRequest),
    /// Gives a permission to a role.
    RoleGrantPermission(pb::AuthRoleGrantPermissionRequest),
    /// Takes a permission from a role.
    RoleRevokePermission(pb::AuthRoleRevokePermissionRequest),
}

/// A record that a change writes, or deletes.
#[derive(Debug, Clone, PartialEq)]
pub enum Written {
    /// The switch and the revision.
    Switch,
    /// A user; `None` if it is deleted.
    User(String, Option<UserRecord>),
    /// A role; `None` if it is deleted.
    Role(String, Option<Role>),
}

/// The auth revision before the first change.
const FIRST_REVISION: u64 = 1;

/// Users, roles and the switch.
#[derive(Debug, Clone)]
pub struct AuthStore {
    enabled: bool,
    revision: u64,
    users: BTreeMap<String, Arc<User>>,
    roles: BTreeMap<String, Arc<Role>>,
}

impl Default for AuthStore {
    fn default() -> Self {
        Self { enabled: false, revision: FIRST_REVISION, users: BTreeMap::new(), roles: BTreeMap::new() }
    }
}

/// A user and what it may do.
#[derive(Debug, Default)]
pub(super) struct User {
    record: UserRecord,
    open: OnceLock<Open>,
}

/// The keys that a user may read and write.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) read: KeyRanges,
    pub(super) write: KeyRanges,
}

impl User {
    pub(super) fn is_root(&self) -> bool {
        self.has_role(ROOT)
    }

    pub(super) fn has_role(&self, role: &str) -> bool {
        self.record.roles.iter().any(|own| own == role)
    }

    /// The hash of the password; `None` if the user has none.
    pub(super) fn password(&self) -> Option<&Bytes> {
        let without = self.record.options.is_some_and(|options| options.no_password);
        (!without).then_some(&self.record.password)
    }
}

impl AuthStore {
    /// The store of these records.
    pub fn restored(
        switch: Option<(bool, u64)>,
        users: impl Iterator<Item = (String, UserRecord)>,
        roles: impl Iterator<Item = (String, Role)>,
    ) -> Self {
        let (enabled, revision) = switch.unwrap_or((false, FIRST_REVISION));
        let users = users.map(|(name, record)| (name, Arc::new(User { record, open: OnceLock::new() }))).collect();
        let roles = roles.map(|(name, role)| (name, Arc::new(role))).collect();
        Self { enabled, revision, users, roles }
    }

    /// Whether authentication is on.
    pub const fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The auth revision.
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    pub(super) fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name).map(|user| &**user)
    }

    /// The names of all users, in their order.
    pub fn user_names(&self) -> impl Iterator<Item = &String> {
        self.users.keys()
    }

    /// The names of all roles, in their order.
    pub fn role_names(&self) -> impl Iterator<Item = &String> {
        self.roles.keys()
    }

    /// The roles of a user.
    ///
    /// # Errors
    /// [`ApiError::UserNotFound`].
    pub fn roles_of(&self, name: &str) -> Result<Vec<String>, ApiError> {
        self.user(name).map(|user| user.record.roles.clone()).ok_or(ApiError::UserNotFound)
    }

    /// The permissions of a role.
    ///
    /// # Errors
    /// [`ApiError::RoleNotFound`].
    pub fn permissions_of(&self, name: &str) -> Result<Vec<Permission>, ApiError> {
        let role = self.roles.get(name).ok_or(ApiError::RoleNotFound)?;
        if name == ROOT {
            let all = Permission {
                perm_type: Type::Readwrite.into(),
                key: Bytes::new(),
                range_end: Bytes::from_static(&[0]),
            };
            return Ok(vec![all]);
        }
        Ok(role.key_permission.clone())
    }

    /// The hash of a user's password.
    ///
    /// # Errors
    /// Authentication is off, there is no such user, or it has no password.
    pub fn password_of(&self, name: &str) -> Result<Bytes, ApiError> {
        if !self.enabled {
            return Err(ApiError::AuthNotEnabled);
        }
        let user = self.user(name).ok_or(ApiError::AuthFailed)?;
        user.password().cloned().ok_or(ApiError::NoPasswordUser)
    }

    /// The keys that a user may read and write.
    pub(super) fn open_to<'a>(&self, user: &'a User) -> &'a Open {
        user.open.get_or_init(|| {
            let permissions = || {
                let roles = user.record.roles.iter().filter_map(|role| self.roles.get(role));
                roles.flat_map(|role| &role.key_permission)
            };
            let of = |but: Type| {
                KeyRanges::union(
                    permissions()
                        .filter(|permission| permission.perm_type() != but)
                        .map(|permission| (&permission.key, &permission.range_end)),
                )
            };
            Open { read: of(Type::Write), write: of(Type::Read) }
        })
    }

    /// Evaluates a request: the records that it writes.
    ///
    /// # Errors
    /// As the API has them; nothing is changed then.
    pub fn evaluate(&mut self, request: &AuthRequest) -> Result<Vec<Written>, ApiError> {
        let mut written = match request {
            AuthRequest::Enable => return self.enable(),
            AuthRequest::Disable if !self.enabled => return Ok(Vec::new()),
            AuthRequest::Disable => {
                self.enabled = false;
                Vec::new()
            }
            AuthRequest::UserAdd(request) => self.add_user(request)?,
            AuthRequest::UserDelete(request) => self.delete_user(&request.name)?,
            AuthRequest::UserChangePassword(request) => self.change_password(request)?,
            AuthRequest::UserGrantRole(request) => self.grant_role(&request.user, &request.role)?,
            AuthRequest::UserRevokeRole(request) => self.revoke_role(&request.name, &request.role)?,
            AuthRequest::RoleAdd(request) => self.add_role(&request.name)?,
            AuthRequest::RoleDelete(request) => self.delete_role(&request.role)?,
            AuthRequest::RoleGrantPermission(request) => self.grant_permission(request)?,
            AuthRequest::RoleRevokePermission(request) => self.revoke_permission(request)?,
        };
        if written.is_empty() && !matches!(request, AuthRequest::Disable) {
            return Ok(written);
        }
        self.revision += 1;
        written.push(Written::Switch);
        Ok(written)
    }

    fn enable(&mut self) -> Result<Vec<Written>, ApiError> {
        if self.enabled {
            return Ok(Vec::new());
        }
        let root = self.user(ROOT).ok_or(ApiError::RootUserNotExist)?;
        if !root.is_root() {
            return Err(ApiError::RootRoleNotGranted);
        }
        self.enabled = true;
        Ok(vec![Written::Switch])
    }

    fn add_user(&mut self, request: &pb::AuthUserAddRequest) -> Result<Vec<Written>, ApiError> {
        if request.name.is_empty() {
            return Err(ApiError::UserEmpty);
        }
        if self.users.contains_key(&request.name) {
            return Err(ApiError::UserExists);
        }
        let options = Some(request.options.unwrap_or_default());
        let password = Bytes::copy_from_slice(request.hashed_password.as_bytes());
        let name = request.name.clone();
        Ok(vec![self.write_user(UserRecord { name: name.into(), password, roles: Vec::new(), options })])
    }

    fn delete_user(&mut self, name: &str) -> Result<Vec<Written>, ApiError> {
        if self.enabled && name == ROOT {
            return Err(ApiError::InvalidAuthManagement);
        }
        self.users.remove(name).ok_or(ApiError::UserNotFound)?;
        Ok(vec![Written::User(name.to_owned(), None)])
    }

    fn change_password(&mut self, request: &pb::AuthUserChangePasswordRequest) -> Result<Vec<Written>, ApiError> {
        let user = self.user(&request.name).ok_or(ApiError::UserNotFound)?;
        let password = match user.password() {
            Some(_) => Bytes::copy_from_slice(request.hashed_password.as_bytes()),
            None => Bytes::new(),
        };
        let record = UserRecord { password, ..user.record.clone() };
        Ok(vec![self.write_user(record)])
    }

    fn grant_role(&mut self, name: &str, role: &str) -> Result<Vec<Written>, ApiError> {
        let user = self.user(name).ok_or(ApiError::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(role) {
            return Err(ApiError::RoleNotFound);
        }
        let mut record = user.record.clone();
        match record.roles.binary_search_by(|own| own.as_str().cmp(role)) {
            Ok(_) => Ok(Vec::new()),
            Err(at) => {
                record.roles.insert(at, role.to_owned());
                Ok(vec![self.write_user(record)])
            }
        }
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<Vec<Written>, ApiError> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(ApiError::InvalidAuthManagement);
        }
        let user = self.user(name).ok_or(ApiError::UserNotFound)?;
        if !user.has_role(role) {
            return Err(ApiError::RoleNotGranted);
        }
        let mut record = user.record.clone();
        record.roles.retain(|own| own != role);
        Ok(vec![self.write_user(record)])
    }

    fn add_role(&mut self, name: &str) -> Result<Vec<Written>, ApiError> {
        if name.is_empty() {
            return Err(ApiError::RoleEmpty);
        }
        if self.roles.contains_key(name) {
            return Err(ApiError::RoleExists);
        }
        Ok(self.write_role(name, Role { name: Bytes::copy_from_slice(name.as_bytes()), key_permission: Vec::new() }))
    }

    fn delete_role(&mut self, name: &str) -> Result<Vec<Written>, ApiError> {
        if self.enabled && name == ROOT {
            return Err(ApiError::InvalidAuthManagement);
        }
        self.roles.remove(name).ok_or(ApiError::RoleNotFound)?;
        let mut written = vec![Written::Role(name.to_owned(), None)];
        for mut record in self.records_with(name) {
            record.roles.retain(|own| own != name);
            written.push(self.write_user(record));
        }
        Ok(written)
    }

    fn grant_permission(&mut self, request: &pb::AuthRoleGrantPermissionRequest) -> Result<Vec<Written>, ApiError> {
        let permission = request.perm.as_ref().ok_or(ApiError::PermissionNotGiven)?;
        if !is_range(&permission.key, &permission.range_end) {
            return Err(ApiError::InvalidAuthManagement);
        }
        let mut role = self.role(&request.name)?;
        let permissions = &mut role.key_permission;
        let at = permissions.partition_point(|own| own.key < permission.key);
        match permissions.get_mut(at) {
            Some(own) if own.key == permission.key && own.range_end == permission.range_end => {
                own.perm_type = permission.perm_type;
            }
            _ => {
                let behind = permissions.partition_point(|own| own.key <= permission.key);
                permissions.insert(behind, permission.clone());
            }
        }
        Ok(self.write_role(&request.name, role))
    }

    fn revoke_permission(&mut self, request: &pb::AuthRoleRevokePermissionRequest) -> Result<Vec<Written>, ApiError> {
        let mut role = self.role(&request.role)?;
        let before = role.key_permission.len();
        role.key_permission.retain(|own| own.key != request.key || own.range_end != request.range_end);
        if role.key_permission.len() == before {
            return Err(ApiError::PermissionNotGranted);
        }
        Ok(self.write_role(&request.role, role))
    }

    fn role(&self, name: &str) -> Result<Role, ApiError> {
        self.roles.get(name).map(|role| Role::clone(role)).ok_or(ApiError::RoleNotFound)
    }

    fn records_with(&self, role: &str) -> Vec<UserRecord> {
        self.users.values().filter(|user| user.has_role(role)).map(|user| user.record.clone()).collect()
    }

    fn write_user(&mut self, record: UserRecord) -> Written {
        let name = String::from_utf8_lossy(&record.name).into_owned();
        self.users.insert(name.clone(), Arc::new(User { record: record.clone(), open: OnceLock::new() }));
        Written::User(name, Some(record))
    }

    /// Writes a role. What its users may do is to be merged again.
    fn write_role(&mut self, name: &str, role: Role) -> Vec<Written> {
        self.roles.insert(name.to_owned(), Arc::new(role.clone()));
        for record in self.records_with(name) {
            self.write_user(record);
        }
        vec![Written::Role(name.to_owned(), Some(role))]
    }
}

/// Whether key and range end make a range that may be permitted.
fn is_range(key: &[u8], range_end: &[u8]) -> bool {
    !key.is_empty() && (matches!(range_end, [] | [0]) || key < range_end)
}

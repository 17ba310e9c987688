//! What a request needs, and whether its actor may have it. One answer for the API, before it proposes or reads, and for the
//! state machine, when it applies.

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, alarm_request::AlarmAction, request_op::Request as Op},
};

use super::{
    Actor, AuthStore, Need,
    store::{Open, User},
};
use crate::state::{
    command::Request,
    mvcc::{index::RangeEnd, range_end},
};

/// The keys of leases, as permissions on leases are permissions on their keys.
pub trait LeaseKeys {
    /// Calls `look` with each key of a lease while that says true; whether it said true of all.
    fn all_keys(&self, lease: i64, look: &mut dyn FnMut(&Bytes) -> bool) -> bool;

    /// Calls `look` with each key of each lease while that says true; whether it said true of all.
    fn all_keys_of_all(&self, look: &mut dyn FnMut(&Bytes) -> bool) -> bool;
}

impl AuthStore {
    /// Whether `actor` may have what it needs.
    ///
    /// # Errors
    /// [`ApiError::UserEmpty`], [`ApiError::AuthOldRevision`] or [`ApiError::PermissionDenied`].
    pub fn check(&self, actor: &Actor, need: Need<'_>, leases: &dyn LeaseKeys) -> Result<(), ApiError> {
        if !self.is_enabled() || *actor == Actor::Server {
            return Ok(());
        }
        let Actor::User { name, auth_revision } = actor else {
            return if is_nothing(need) { Ok(()) } else { Err(ApiError::UserEmpty) };
        };
        // One from the future is a signed token's that was made before the data was restored to what they are.
        if *auth_revision != self.revision() {
            return Err(ApiError::AuthOldRevision);
        }
        let name = str::from_utf8(name).map_err(|_| ApiError::PermissionDenied)?;
        let user = self.user(name).ok_or(ApiError::PermissionDenied)?;
        let rights = Rights { user, name, open: self.open_to(user), leases };
        if user.is_root() || rights.allow(need) { Ok(()) } else { Err(ApiError::PermissionDenied) }
    }
}

/// Whether a need is none: a transaction without compares and operations.
fn is_nothing(need: Need<'_>) -> bool {
    let (Need::ReadTxn(txn) | Need::Apply(Request::Txn(txn))) = need else { return false };
    txn.compare.is_empty() && txn.success.is_empty() && txn.failure.is_empty()
}

/// What one user may do.
struct Rights<'a> {
    user: &'a User,
    name: &'a str,
    open: &'a Open,
    leases: &'a dyn LeaseKeys,
}

impl Rights<'_> {
    fn allow(&self, need: Need<'_>) -> bool {
        match need {
            Need::Range(range) => self.may_read(&range.key, &range_end(&range.range_end)),
            Need::ReadTxn(txn) => self.may_run(txn),
            Need::Watch(from, end) => self.may_read(from, end),
            Need::Apply(request) => self.may_apply(request),
            Need::RenewLease(id) => self.leases.all_keys(id, &mut |key| self.may_write(key, &RangeEnd::Single)),
            Need::SeeLease { id, keys } => {
                !keys || self.leases.all_keys(id, &mut |key| self.may_read(key, &RangeEnd::Single))
            }
            Need::Leases => self.leases.all_keys_of_all(&mut |key| self.may_read(key, &RangeEnd::Single)),
            Need::UserOf(name) => name == self.name,
            Need::Role(role) => self.user.has_role(role),
            Need::User => true,
            Need::Root => false,
        }
    }

    fn may_read(&self, key: &[u8], end: &RangeEnd) -> bool {
        self.open.read.cover(key, end)
    }

    fn may_write(&self, key: &[u8], end: &RangeEnd) -> bool {
        self.open.write.cover(key, end)
    }

    fn may_apply(&self, request: &Request) -> bool {
        match request {
            Request::Put(put) => self.may_put(put),
            Request::DeleteRange(delete) => self.may_delete(delete),
            Request::Txn(txn) => self.may_run(txn),
            Request::LeaseGrant(_) | Request::LeaseCheckpoint(_) => true,
            Request::LeaseRevoke { id, .. } => {
                self.leases.all_keys(*id, &mut |key| self.may_write(key, &RangeEnd::Single))
            }
            Request::Alarm(alarm) => alarm.action == AlarmAction::Get as i32,
            Request::Compact(_)
            | Request::PublishMember { .. }
            | Request::ClusterVersion(_)
            | Request::CommandLevel(_)
            | Request::Auth(_)
            | Request::Token { .. } => false,
        }
    }

    /// A put under a lease makes the other keys of the lease live as long as it does.
    fn may_put(&self, put: &pb::PutRequest) -> bool {
        self.may_write(&put.key, &RangeEnd::Single)
            && (put.lease == 0 || self.leases.all_keys(put.lease, &mut |key| self.may_write(key, &RangeEnd::Single)))
            && (!put.prev_kv || self.may_read(&put.key, &RangeEnd::Single))
    }

    fn may_delete(&self, delete: &pb::DeleteRangeRequest) -> bool {
        let end = range_end(&delete.range_end);
        self.may_write(&delete.key, &end) && (!delete.prev_kv || self.may_read(&delete.key, &end))
    }

    fn may_run(&self, txn: &pb::TxnRequest) -> bool {
        txn.compare.iter().all(|compare| self.may_read(&compare.key, &range_end(&compare.range_end)))
            && txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
                Some(Op::RequestRange(range)) => self.may_read(&range.key, &range_end(&range.range_end)),
                Some(Op::RequestPut(put)) => self.may_put(put),
                Some(Op::RequestDeleteRange(delete)) => self.may_delete(delete),
                Some(Op::RequestTxn(nested)) => self.may_run(nested),
                None => true,
            })
    }
}

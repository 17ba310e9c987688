//! What a command has to satisfy to be proposed, whoever brings it: the member whose client asked, or another one that hands it on.
//!
//! Most of it is the shape of KV requests, which is in [`shape`]; the services ask for theirs before anything else, so that the first fault in the
//! order of the wire contract is the answer. Whoever takes a command from elsewhere asks [`check`] for all of it.
//!
//! What is not here: how large a request and how long a transaction may be. Members may be told different limits, so that only the one that the client
//! asks can know its own; for others, what a frame between members may hold is the bound. Nor is who may ask: a member speaks for its clients.

use std::borrow::Cow;

use cairn_proto::{
    ApiError,
    etcdserverpb::{self as pb, AlarmType, alarm_request::AlarmAction},
};

use super::{Command, Request, shape};
use crate::types::{Url, check_name};

/// Longest time to live that may be asked for, in seconds.
pub const TTL_MAX: i64 = 9_000_000_000;
/// Bytes of the URLs that a member may publish.
const CLIENT_URLS_BYTES_MAX: usize = 64 << 10;

/// Why a command must not be proposed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// An error of the catalogue.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// Something that no other server has words for.
    #[error("{0}")]
    Other(Cow<'static, str>),
}

fn other<T>(text: impl Into<Cow<'static, str>>) -> Result<T, Broken> {
    Err(Broken::Other(text.into()))
}

/// Checks a command that somebody else made.
///
/// # Errors
/// The first rule that it breaks.
pub fn check(command: &Command) -> Result<(), Broken> {
    match &command.request {
        Request::Put(put) => shape::put(put)?,
        Request::DeleteRange(delete) => shape::delete_range(delete)?,
        Request::Txn(txn) => shape::txn(txn, usize::MAX)?,
        // Whether there is a version to be raised, a revision to be compacted, a lease to be revoked or a user to be changed is
        // found out by applying it.
        Request::ClusterVersion(_)
        | Request::CommandLevel(_)
        | Request::Compact(_)
        | Request::LeaseRevoke { .. }
        | Request::Auth(_)
        | Request::Token { .. } => {}
        Request::LeaseGrant(grant) => lease_grant(*grant)?,
        Request::LeaseCheckpoint(request) => lease_checkpoint(request)?,
        Request::Alarm(request) => alarm(request)?,
        Request::PublishMember { member, name, client_urls } => {
            if *member != command.id.member {
                let asked = command.id.member;
                return other(format!("member {asked:x} publishes a name and URLs of member {member:x}"));
            }
            publish(name, client_urls)?;
        }
    }
    Ok(())
}

/// Checks the seconds that a lease is wanted to live.
///
/// # Errors
/// They are too many.
pub fn ttl(seconds: i64) -> Result<(), ApiError> {
    if seconds > TTL_MAX { Err(ApiError::LeaseTtlTooLarge) } else { Ok(()) }
}

/// Checks a request about alarms. One that is raised already may be listed and lowered whatever its kind.
///
/// # Errors
/// What is to be done, or what is to be raised, does not exist.
pub fn alarm(request: &pb::AlarmRequest) -> Result<(), Broken> {
    match AlarmAction::try_from(request.action) {
        Err(_) => other(format!("etcdserver: unknown alarm action {}", request.action)),
        Ok(AlarmAction::Activate) if AlarmType::try_from(request.alarm).is_err() => {
            other(format!("etcdserver: unknown alarm {}", request.alarm))
        }
        Ok(_) => Ok(()),
    }
}

/// A grant says what the lease gets, not what was asked for.
fn lease_grant(grant: pb::LeaseGrantRequest) -> Result<(), Broken> {
    if grant.id == 0 {
        return Err(ApiError::LeaseNotFound.into());
    }
    ttl(grant.ttl)?;
    if grant.ttl < 1 { other(format!("a lease of {} seconds", grant.ttl)) } else { Ok(()) }
}

fn lease_checkpoint(request: &pb::LeaseCheckpointRequest) -> Result<(), Broken> {
    match request.checkpoints.iter().find(|one| !(0..=TTL_MAX).contains(&one.remaining_ttl)) {
        Some(one) => other(format!("a lease that has {} seconds left", one.remaining_ttl)),
        None => Ok(()),
    }
}

fn publish(name: &str, client_urls: &[String]) -> Result<(), Broken> {
    if let Err(reason) = check_name(name) {
        return other(format!("a member's name {reason}"));
    }
    if client_urls.iter().map(String::len).sum::<usize>() > CLIENT_URLS_BYTES_MAX {
        return other("a member's client URLs are too long");
    }
    match client_urls.iter().find_map(|url| Url::parse(url).err()) {
        Some(reason) => other(format!("a member's client URL: {reason}")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::etcdserverpb::request_op::Request as Op;

    use super::*;
    use crate::state::{auth::Actor, command::RequestId};

    fn of_member(member: u64, request: Request) -> Result<(), String> {
        let id = RequestId { member, nonce: 1, counter: 1 };
        let command = Command { id, actor: Actor::Anonymous, request };
        check(&command).map_err(|broken| broken.to_string())
    }

    fn judged(request: Request) -> Result<(), String> {
        of_member(7, request)
    }

    #[track_caller]
    fn refused(request: Request, words: &str) {
        let told = judged(request).unwrap_err();
        assert!(told.contains(words), "{told}");
    }

    fn put(key: &'static str) -> pb::PutRequest {
        pb::PutRequest { key: key.into(), ..Default::default() }
    }

    fn puts(keys: impl IntoIterator<Item = String>) -> Request {
        let op = |key: String| pb::RequestOp {
            request: Some(Op::RequestPut(pb::PutRequest { key: key.into(), ..Default::default() })),
        };
        Request::Txn(pb::TxnRequest { success: keys.into_iter().map(op).collect(), ..Default::default() })
    }

    #[test]
    fn keys_and_values_are_judged_by_their_shape() {
        assert_eq!(judged(Request::Put(put("k"))), Ok(()));
        refused(Request::Put(put("")), "key is not provided");
        refused(Request::Put(pb::PutRequest { ignore_lease: true, lease: 1, ..put("k") }), "lease is provided");
        refused(Request::DeleteRange(pb::DeleteRangeRequest::default()), "key is not provided");
        refused(puts(["a".to_owned(), String::new()]), "key is not provided");
        refused(puts(["a".to_owned(), "a".to_owned()]), "duplicate key given");
        // The member that the client asked may be set to take as many.
        assert_eq!(judged(puts((0..5000).map(|at| at.to_string()))), Ok(()));
    }

    #[test]
    fn leases_live_for_a_time_that_there_is() {
        let grant = |id, ttl| Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl });
        assert_eq!([judged(grant(-7, 1)), judged(grant(7, TTL_MAX))], [Ok(()), Ok(())]);
        refused(grant(0, 60), "requested lease not found");
        refused(grant(1, TTL_MAX + 1), "too large lease TTL");
        refused(grant(1, 0), "a lease of 0 seconds");
        let left = |remaining_ttl| {
            let checkpoints = vec![pb::LeaseCheckpoint { id: 1, remaining_ttl }];
            Request::LeaseCheckpoint(pb::LeaseCheckpointRequest { checkpoints })
        };
        assert_eq!([judged(left(0)), judged(left(TTL_MAX))], [Ok(()), Ok(())]);
        refused(left(-1), "-1 seconds left");
        refused(left(i64::MAX), "seconds left");
    }

    #[test]
    fn only_alarms_that_exist_are_raised_but_any_is_lowered() {
        let alarm = |action, alarm| Request::Alarm(pb::AlarmRequest { action, member_id: 7, alarm });
        for known in [alarm(1, 1), alarm(1, 2), alarm(0, 9), alarm(2, 9)] {
            assert_eq!(judged(known), Ok(()));
        }
        refused(alarm(1, 9), "unknown alarm 9");
        refused(alarm(7, 1), "unknown alarm action 7");
    }

    #[test]
    fn a_member_publishes_what_it_could_be_configured_with_and_only_of_itself() {
        let publish = |name: &str, urls: &[&str]| Request::PublishMember {
            member: 7,
            name: name.to_owned(),
            client_urls: urls.iter().map(|&url| url.to_owned()).collect(),
        };
        assert_eq!(judged(publish("n1", &["http://127.0.0.1:2379", "https://[::1]:1"])), Ok(()));
        assert!(of_member(8, publish("n1", &[])).unwrap_err().contains("member 8 publishes"));
        refused(publish("evil\nevil", &[]), "must not");
        refused(publish("", &[]), "must not be empty");
        refused(publish(&"x".repeat(3_000_000), &[]), "must not");
        refused(publish("n1", &["garbage"]), "client URL: a URL must begin with");
        refused(publish("n1", &[&format!("http://{}:1", "h".repeat(CLIENT_URLS_BYTES_MAX))]), "too long");
    }
}

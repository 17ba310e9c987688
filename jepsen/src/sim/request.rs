//! Requests: what clients ask for, and what is known of each one's fate.

use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest,
    alarm_request::AlarmAction,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op,
};
use cairn_server::state::{MemberChange, command::Request};

/// The member whose disk is said to be full, whether it still is one or not.
const FULL_MEMBER: u64 = 1;

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) enum Ask {
    /// A put, perhaps on a lease, perhaps with the value before.
    Put { key: Bytes, lease: i64, previous: bool },
    /// Puts of several keys at once, in key order.
    Puts { keys: Vec<Bytes> },
    /// A delete of a range.
    Delete { key: Bytes, end: Bytes },
    /// A put if the key was last modified at a revision, 0 for one that is not there; else a read of it.
    Swap { key: Bytes, modified: i64 },
    /// A read of a range, at a revision or at the newest one (0).
    Read { key: Bytes, end: Bytes, revision: i64, serializable: bool },
    /// A compaction.
    Compact { revision: i64 },
    /// A lease.
    Grant { id: i64, ttl: i64 },
    /// Its end.
    Revoke { id: i64 },
    /// Its renewal.
    KeepAlive { id: i64 },
    /// How long it has left.
    TimeToLive { id: i64 },
    /// The alarm of a full disk is raised or lowered.
    Alarm { raises: bool },
    /// A member makes its name known.
    Publish { member: u64 },
    /// A membership change.
    Change(MemberChange),
}

impl Ask {
    /// Whether it is refused while a disk is said to be full.
    pub(super) fn takes_space(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Puts { .. } | Self::Swap { .. } | Self::Grant { .. })
    }
}

/// What is known of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    /// It is under way.
    Open,
    /// It was answered, and the answer was right.
    Answered,
    /// It was not carried out and will not be.
    Refused,
    /// Nobody knows.
    Nothing,
}

/// A request. Its number is its place among all; a write's value holds it.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) ask: Ask,
    /// Whose turn it is when the request has ended.
    pub(super) client: Option<usize>,
    /// The member that was asked.
    pub(super) member: usize,
    /// When it was asked.
    pub(super) at: u64,
    /// The newest revision that any member had published then: what an answer must have seen.
    pub(super) floor: i64,
    /// Bytes of the value it writes.
    pub(super) bytes: usize,
    pub(super) known: Known,
}

/// The value that request `number` writes.
pub(super) fn value_of(number: u64, bytes: usize) -> Bytes {
    format!("{number:<bytes$}").into()
}

/// The order to a range of a read.
pub(super) fn range(key: &Bytes, end: &Bytes, revision: i64) -> RangeRequest {
    RangeRequest { key: key.clone(), range_end: end.clone(), revision, ..RangeRequest::default() }
}

impl Asked {
    /// What goes through the log, if anything does.
    pub(super) fn request(&self, number: u64) -> Option<Request> {
        let value = || value_of(number, self.bytes);
        let put = |key: &Bytes| PutRequest { key: key.clone(), value: value(), ..PutRequest::default() };
        let op = |request| RequestOp { request: Some(request) };
        Some(match &self.ask {
            Ask::Put { key, lease, previous } => {
                Request::Put(PutRequest { lease: *lease, prev_kv: *previous, ..put(key) })
            }
            Ask::Puts { keys } => Request::Txn(TxnRequest {
                success: keys.iter().map(|key| op(request_op::Request::RequestPut(put(key)))).collect(),
                ..TxnRequest::default()
            }),
            Ask::Delete { key, end } => Request::DeleteRange(DeleteRangeRequest {
                key: key.clone(),
                range_end: end.clone(),
                ..DeleteRangeRequest::default()
            }),
            Ask::Swap { key, modified } => Request::Txn(TxnRequest {
                compare: vec![Compare {
                    result: CompareResult::Equal.into(),
                    target: CompareTarget::Mod.into(),
                    key: key.clone(),
                    target_union: Some(TargetUnion::ModRevision(*modified)),
                    ..Compare::default()
                }],
                success: vec![op(request_op::Request::RequestPut(put(key)))],
                failure: vec![op(request_op::Request::RequestRange(range(key, &Bytes::new(), 0)))],
            }),
            Ask::Compact { revision } => Request::Compact(CompactionRequest { revision: *revision, physical: false }),
            Ask::Grant { id, ttl } => Request::LeaseGrant(LeaseGrantRequest { id: *id, ttl: *ttl }),
            Ask::Revoke { id } => Request::LeaseRevoke { id: *id, expired_in_term: None },
            Ask::Alarm { raises } => {
                let action = if *raises { AlarmAction::Activate } else { AlarmAction::Deactivate };
                let alarm = AlarmType::Nospace.into();
                Request::Alarm(AlarmRequest { action: action.into(), member_id: FULL_MEMBER, alarm })
            }
            Ask::Publish { member } => {
                Request::PublishMember { member: *member, name: format!("m{member}"), client_urls: Vec::new() }
            }
            Ask::Read { .. } | Ask::KeepAlive { .. } | Ask::TimeToLive { .. } | Ask::Change(_) => return None,
        })
    }
}

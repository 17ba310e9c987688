//! What a call did, and the line that says so.

use std::{
    borrow::Cow,
    fmt,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use cairn_proto::{
    etcdserverpb::{self as pb, alarm_request::AlarmAction, request_op::Request as Op, watch_request::RequestUnion},
    rpc::Method,
    v3electionpb as election, v3lockpb as lock,
};
use prost::{
    Message,
    encoding::{WireType, decode_key, decode_varint},
};
use serde::{Serialize, Serializer};
use tonic::Code;

use super::Caller;
use crate::config::{AuditAccess, AuditRule, AuditValues};

/// Keys and ranges of a line; the others are counted.
const KEYS_MAX: usize = 1000;
/// Nested transactions that are looked into. The server takes fewer.
const NESTED_MAX: usize = 100;

/// What a call did, or was meant to do.
#[derive(Debug, Default)]
pub struct Happened {
    /// Whether it may have changed something.
    pub access: AuditAccess,
    keys: Vec<Touched>,
    /// Keys beyond the most that a line has.
    more_keys: usize,
    /// Keys that a delete has found.
    deleted: Option<u64>,
    lease: Option<i64>,
    /// A user, role or member that it was about.
    target: Option<String>,
    /// The role, revision, alarm or URLs that the target was given, or that the call was about.
    argument: Option<String>,
}

/// A key or a range that was read or written.
#[derive(Debug)]
struct Touched {
    access: AuditAccess,
    /// It is written, and what was there before is told.
    is_told: bool,
    key: Bytes,
    range_end: Bytes,
    value: Option<Bytes>,
}

/// Whether a method reads or writes. None: that depends on the request.
pub fn access_of(method: Method) -> Option<AuditAccess> {
    Some(match method {
        Method::Txn | Method::Alarm => return None,
        Method::Range
        | Method::RangeStream
        | Method::Watch
        | Method::LeaseTimeToLive
        | Method::LeaseLeases
        | Method::LeaseKeepAlive
        | Method::Leader
        | Method::Observe
        | Method::MemberList
        | Method::Status
        | Method::Hash
        | Method::HashKv
        | Method::Snapshot
        | Method::AuthStatus
        | Method::UserGet
        | Method::UserList
        | Method::RoleGet
        | Method::RoleList
        | Method::HealthCheck
        | Method::HealthWatch
        | Method::HealthList
        | Method::Reflection
        | Method::ReflectionAlpha => AuditAccess::Read,
        Method::Put
        | Method::DeleteRange
        | Method::Compact
        | Method::LeaseGrant
        | Method::LeaseRevoke
        | Method::Lock
        | Method::Unlock
        | Method::Campaign
        | Method::Proclaim
        | Method::Resign
        | Method::MemberAdd
        | Method::MemberRemove
        | Method::MemberUpdate
        | Method::MemberPromote
        | Method::MoveLeader
        | Method::Defragment
        | Method::Downgrade
        | Method::Authenticate
        | Method::AuthEnable
        | Method::AuthDisable
        | Method::UserAdd
        | Method::UserDelete
        | Method::UserChangePassword
        | Method::UserGrantRole
        | Method::UserRevokeRole
        | Method::RoleAdd
        | Method::RoleDelete
        | Method::RoleGrantPermission
        | Method::RoleRevokePermission => AuditAccess::Write,
    })
}

/// What calls of a method may do. Those that write may read as well: the value that was there before.
pub fn accesses_of(method: Method) -> &'static [AuditAccess] {
    match access_of(method) {
        Some(AuditAccess::Read) => &[AuditAccess::Read],
        Some(AuditAccess::Write) if !matches!(method, Method::Put | Method::DeleteRange) => &[AuditAccess::Write],
        Some(AuditAccess::Write) | None => &[AuditAccess::Read, AuditAccess::Write],
    }
}

impl Happened {
    /// What a request is about, by what its answer says of it. `lease_keys` hang on the lease that it revokes.
    pub fn of(method: Method, request: &Bytes, answered: &Answered, lease_keys: &[Bytes]) -> Self {
        let mut happened = Self { access: access_of(method).unwrap_or_default(), ..Self::default() };
        let succeeded = answered.second.map(|second| second != 0);
        // What does not decode was refused, and is about nothing.
        let _ = happened.read(method, request.clone(), succeeded);
        if method == Method::DeleteRange {
            happened.deleted = answered.second;
        }
        for key in lease_keys {
            happened.write(key.clone());
        }
        happened
    }

    fn read(&mut self, method: Method, request: Bytes, succeeded: Option<bool>) -> Result<(), prost::DecodeError> {
        match method {
            Method::Range | Method::RangeStream => self.range(&pb::RangeRequest::decode(request)?),
            Method::Put => self.put(&pb::PutRequest::decode(request)?),
            Method::DeleteRange => self.delete(&pb::DeleteRangeRequest::decode(request)?),
            Method::Txn => self.txn(&pb::TxnRequest::decode(request)?, succeeded, NESTED_MAX),
            Method::Compact => self.argument = Some(pb::CompactionRequest::decode(request)?.revision.to_string()),
            Method::Watch => {
                if let Some(RequestUnion::CreateRequest(create)) = pb::WatchRequest::decode(request)?.request_union {
                    self.touch(AuditAccess::Read, create.key, create.range_end, None);
                }
            }
            Method::LeaseGrant => self.lease = Some(pb::LeaseGrantRequest::decode(request)?.id),
            Method::LeaseRevoke => self.lease = Some(pb::LeaseRevokeRequest::decode(request)?.id),
            Method::LeaseTimeToLive => self.lease = Some(pb::LeaseTimeToLiveRequest::decode(request)?.id),
            Method::Lock => {
                let request = lock::LockRequest::decode(request)?;
                self.queue(AuditAccess::Write, &request.name, request.lease);
            }
            Method::Unlock => self.write(lock::UnlockRequest::decode(request)?.key),
            Method::Campaign => {
                let request = election::CampaignRequest::decode(request)?;
                self.queue(AuditAccess::Write, &request.name, request.lease);
            }
            Method::Proclaim => self.leader(election::ProclaimRequest::decode(request)?.leader),
            Method::Resign => self.leader(election::ResignRequest::decode(request)?.leader),
            Method::Leader | Method::Observe => {
                self.queue(AuditAccess::Read, &election::LeaderRequest::decode(request)?.name, 0);
            }
            Method::MemberAdd => self.argument = Some(pb::MemberAddRequest::decode(request)?.peer_urls.join(",")),
            Method::MemberRemove => self.member(pb::MemberRemoveRequest::decode(request)?.id),
            Method::MemberUpdate => {
                let request = pb::MemberUpdateRequest::decode(request)?;
                self.member(request.id);
                self.argument = Some(request.peer_urls.join(","));
            }
            Method::MemberPromote => self.member(pb::MemberPromoteRequest::decode(request)?.id),
            Method::MoveLeader => self.member(pb::MoveLeaderRequest::decode(request)?.target_id),
            Method::Alarm => {
                let request = pb::AlarmRequest::decode(request)?;
                if request.action != AlarmAction::Get as i32 {
                    self.access = AuditAccess::Write;
                }
                self.member(request.member_id);
                self.argument = Some(format!("{:?} {:?}", request.action(), request.alarm()));
            }
            Method::Downgrade => self.argument = Some(pb::DowngradeRequest::decode(request)?.version),
            Method::Authenticate => self.target = Some(pb::AuthenticateRequest::decode(request)?.name),
            Method::UserAdd => self.target = Some(pb::AuthUserAddRequest::decode(request)?.name),
            Method::UserGet => self.target = Some(pb::AuthUserGetRequest::decode(request)?.name),
            Method::UserDelete => self.target = Some(pb::AuthUserDeleteRequest::decode(request)?.name),
            Method::UserChangePassword => self.target = Some(pb::AuthUserChangePasswordRequest::decode(request)?.name),
            Method::UserGrantRole => {
                let request = pb::AuthUserGrantRoleRequest::decode(request)?;
                (self.target, self.argument) = (Some(request.user), Some(request.role));
            }
            Method::UserRevokeRole => {
                let request = pb::AuthUserRevokeRoleRequest::decode(request)?;
                (self.target, self.argument) = (Some(request.name), Some(request.role));
            }
            Method::RoleAdd => self.target = Some(pb::AuthRoleAddRequest::decode(request)?.name),
            Method::RoleGet => self.target = Some(pb::AuthRoleGetRequest::decode(request)?.role),
            Method::RoleDelete => self.target = Some(pb::AuthRoleDeleteRequest::decode(request)?.role),
            Method::RoleGrantPermission => {
                let request = pb::AuthRoleGrantPermissionRequest::decode(request)?;
                self.target = Some(request.name);
                if let Some(permission) = request.perm {
                    self.argument = Some(permission.perm_type().as_str_name().to_lowercase());
                    self.touch(AuditAccess::Write, permission.key, permission.range_end, None);
                }
            }
            Method::RoleRevokePermission => {
                let request = pb::AuthRoleRevokePermissionRequest::decode(request)?;
                self.target = Some(request.role);
                self.touch(AuditAccess::Write, request.key, request.range_end, None);
            }
            // They are about the member or about everything.
            Method::LeaseLeases
            | Method::LeaseKeepAlive
            | Method::MemberList
            | Method::Status
            | Method::Defragment
            | Method::Hash
            | Method::HashKv
            | Method::Snapshot
            | Method::AuthStatus
            | Method::AuthEnable
            | Method::AuthDisable
            | Method::UserList
            | Method::RoleList
            | Method::HealthCheck
            | Method::HealthWatch
            | Method::HealthList
            | Method::Reflection
            | Method::ReflectionAlpha => {}
        }
        Ok(())
    }

    fn touch(&mut self, access: AuditAccess, key: Bytes, range_end: Bytes, value: Option<Bytes>) {
        if access == AuditAccess::Write {
            self.access = access;
        }
        if self.keys.len() < KEYS_MAX {
            self.keys.push(Touched { access, is_told: false, key, range_end, value });
        } else {
            self.more_keys += 1;
        }
    }

    fn range(&mut self, range: &pb::RangeRequest) {
        self.touch(AuditAccess::Read, range.key.clone(), range.range_end.clone(), None);
    }

    fn put(&mut self, put: &pb::PutRequest) {
        self.touch(AuditAccess::Write, put.key.clone(), Bytes::new(), Some(put.value.clone()));
        self.tells(put.prev_kv);
        self.lease = self.lease.or((put.lease != 0).then_some(put.lease));
    }

    fn delete(&mut self, delete: &pb::DeleteRangeRequest) {
        self.touch(AuditAccess::Write, delete.key.clone(), delete.range_end.clone(), None);
        self.tells(delete.prev_kv);
    }

    /// Whether the write that came last is answered with what was there before.
    fn tells(&mut self, prev_kv: bool) {
        if let Some(last) = self.keys.last_mut() {
            last.is_told |= prev_kv;
        }
    }

    /// What was compared, and the branch that was taken; both, if that is not known.
    fn txn(&mut self, txn: &pb::TxnRequest, succeeded: Option<bool>, depth: usize) {
        for compare in &txn.compare {
            self.touch(AuditAccess::Read, compare.key.clone(), compare.range_end.clone(), None);
        }
        let branches = [(true, &txn.success), (false, &txn.failure)];
        let taken = branches.into_iter().filter(|(branch, _)| succeeded.is_none_or(|succeeded| succeeded == *branch));
        for op in taken.flat_map(|(_, ops)| ops) {
            match &op.request {
                Some(Op::RequestRange(range)) => self.range(range),
                Some(Op::RequestPut(put)) => self.put(put),
                Some(Op::RequestDeleteRange(delete)) => self.delete(delete),
                Some(Op::RequestTxn(nested)) if depth > 0 => self.txn(nested, None, depth - 1),
                Some(Op::RequestTxn(_)) | None => {}
            }
        }
    }

    fn write(&mut self, key: Bytes) {
        self.touch(AuditAccess::Write, key, Bytes::new(), None);
    }

    /// The keys of those who wait under a name, which are `NAME/` and a number.
    fn queue(&mut self, access: AuditAccess, name: &[u8], lease: i64) {
        // The first byte behind the slash.
        let [from, to] = [b'/', b'0'].map(|end| [name, &[end]].concat().into());
        self.touch(access, from, to, None);
        self.lease = (lease != 0).then_some(lease);
    }

    fn leader(&mut self, leader: Option<election::LeaderKey>) {
        if let Some(leader) = leader {
            self.write(leader.key);
        }
    }

    fn member(&mut self, id: u64) {
        self.target = Some(format!("{id:x}"));
    }

    /// Whether anything that it did is what a rule wants on record: a range is if it has keys in common with a prefix.
    pub fn concerns(&self, rule: &AuditRule) -> bool {
        let wanted = |touched: &Touched| {
            (rule.wants(touched.access) || touched.is_told && rule.wants(AuditAccess::Read))
                && rule.prefixes.as_ref().is_none_or(|prefixes| prefixes.iter().any(|prefix| meets(touched, prefix)))
        };
        // What is not told may be anything.
        let unknown = self.more_keys > 0;
        rule.prefixes.is_none() && rule.wants(self.access) || unknown || self.keys.iter().any(wanted)
    }

    /// Whether everything that it did is what a rule does not want on record: there are keys, and each is under a
    /// prefix.
    pub fn is_within(&self, rule: &AuditRule) -> bool {
        let under = |touched: &Touched, prefixes: &[String]| prefixes.iter().any(|prefix| is_under(touched, prefix));
        rule.wants(self.access)
            && rule.prefixes.as_ref().is_none_or(|prefixes| {
                !self.keys.is_empty() && self.more_keys == 0 && self.keys.iter().all(|key| under(key, prefixes))
            })
    }
}

/// Whether a key or a range has keys under a prefix.
fn meets(touched: &Touched, prefix: &str) -> bool {
    let prefix = prefix.as_bytes();
    let begins_before_its_end = touched.key.starts_with(prefix) || touched.key < prefix;
    match &touched.range_end[..] {
        [] => touched.key.starts_with(prefix),
        [0] => begins_before_its_end,
        end => begins_before_its_end && end > prefix,
    }
}

/// Whether all keys of a range are under a prefix.
fn is_under(touched: &Touched, prefix: &str) -> bool {
    let prefix = prefix.as_bytes();
    let end: &[u8] = &touched.range_end;
    // Of a range every key but its end, which may be the first one behind the prefix.
    let ends_within = match end {
        [] => true,
        [0] => prefix.is_empty(),
        end => end.starts_with(prefix) || is_first_behind(end, prefix),
    };
    touched.key.starts_with(prefix) && ends_within
}

fn is_first_behind(end: &[u8], prefix: &[u8]) -> bool {
    let Some(last) = prefix.iter().rposition(|byte| *byte < u8::MAX) else { return false };
    let (Some(shorter), Some(byte)) = (prefix.get(..last), prefix.get(last)) else { return false };
    end.strip_prefix(shorter) == Some(&[byte + 1])
}

/// What an answer says of itself.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Answered {
    /// The revision of its header.
    pub revision: Option<i64>,
    /// Its second field, if that is a number: whether the compares of a transaction succeeded, how many keys a delete
    /// found.
    pub second: Option<u64>,
}

/// Reads the first bytes of an answer: its header, and its second field.
pub fn read_answer(mut head: &[u8]) -> Answered {
    let mut answered = Answered::default();
    let Ok((1, WireType::LengthDelimited)) = decode_key(&mut head) else { return answered };
    let Some((mut header, rest)) =
        decode_varint(&mut head).ok().and_then(|len| head.split_at_checked(usize::try_from(len).ok()?))
    else {
        return answered;
    };
    while let Ok((field, WireType::Varint)) = decode_key(&mut header) {
        let Ok(number) = decode_varint(&mut header) else { break };
        if field == 3 {
            answered.revision = Some(number as i64);
        }
    }
    let mut rest = rest;
    // A field that is false or 0 is left out.
    let second = matches!(decode_key(&mut rest), Ok((2, WireType::Varint))).then(|| decode_varint(&mut rest));
    answered.second = Some(second.map_or(0, Result::unwrap_or_default));
    answered
}

/// A line of the record.
pub struct Line<'a> {
    /// When the call ended.
    pub now: SystemTime,
    /// The member that served it.
    pub member: &'a str,
    /// What was called.
    pub method: Method,
    /// By whom.
    pub caller: &'a Caller,
    /// What was done.
    pub happened: &'a Happened,
    /// What is said of values.
    pub values: AuditValues,
    /// The revision that the answer tells.
    pub revision: Option<i64>,
    /// How it ended.
    pub code: Code,
    /// The text of an error.
    pub error: &'a str,
    /// How long it took.
    pub took: Duration,
}

/// A line as JSON. Fields without a content are left out.
#[derive(Serialize)]
struct Json<'a> {
    #[serde(serialize_with = "shown")]
    time: humantime::Rfc3339Timestamp,
    member: &'a str,
    rpc: &'a str,
    access: AuditAccess,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    common_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Keys::is_empty")]
    keys: Keys<'a>,
    #[serde(skip_serializing_if = "is_zero")]
    more_keys: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    deleted: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    argument: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(serialize_with = "debugged")]
    code: Code,
    #[serde(skip_serializing_if = "str::is_empty")]
    error: &'a str,
    micros: u64,
}

/// Written as it is shown, without a string between.
fn shown<S: Serializer>(what: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(what)
}

fn debugged<S: Serializer>(what: &impl fmt::Debug, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{what:?}"))
}

/// The keys and ranges of a line.
struct Keys<'a> {
    touched: &'a [Touched],
    values: AuditValues,
}

impl Keys<'_> {
    const fn is_empty(&self) -> bool {
        self.touched.is_empty()
    }
}

impl Serialize for Keys<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.touched.iter().map(|touched| JsonKey::of(touched, self.values)))
    }
}

/// Bytes that are no UTF-8 stand as base64 in a field of their own.
#[derive(Serialize)]
struct JsonKey<'a> {
    access: AuditAccess,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_end: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    range_end_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_sha256: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// Text, or its base64.
fn text(bytes: &[u8]) -> (Option<&str>, Option<String>) {
    match str::from_utf8(bytes) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(BASE64.encode(bytes))),
    }
}

impl Line<'_> {
    /// Appends the line with its end.
    pub fn write(&self, out: &mut Vec<u8>) {
        let Self { caller, happened, .. } = self;
        let json = Json {
            time: humantime::format_rfc3339_micros(self.now),
            member: self.member,
            rpc: self.method.path().trim_start_matches('/'),
            access: happened.access,
            user: caller.user.as_deref().map(String::from_utf8_lossy),
            common_name: caller.common_name.as_deref(),
            address: caller.address,
            keys: Keys { touched: &happened.keys, values: self.values },
            more_keys: happened.more_keys,
            deleted: happened.deleted,
            lease: happened.lease.map(|lease| format!("{lease:x}")),
            target: happened.target.as_deref(),
            argument: happened.argument.as_deref(),
            revision: self.revision,
            code: self.code,
            error: self.error,
            micros: u64::try_from(self.took.as_micros()).unwrap_or(u64::MAX),
        };
        // Strings and numbers are always JSON, and there is always memory.
        let _ = serde_json::to_writer(&mut *out, &json);
        out.push(b'\n');
    }
}

impl<'a> JsonKey<'a> {
    fn of(touched: &'a Touched, values: AuditValues) -> Self {
        let (key, key_base64) = text(&touched.key);
        let (range_end, range_end_base64) =
            if touched.range_end.is_empty() { (None, None) } else { text(&touched.range_end) };
        let value = touched.value.as_ref().filter(|_| values != AuditValues::None);
        let hashed = value.filter(|_| values == AuditValues::Hash);
        Self {
            access: touched.access,
            key,
            key_base64,
            range_end,
            range_end_base64,
            value_bytes: value.map(Bytes::len),
            value_sha256: hashed.map(|value| hex(ring::digest::digest(&ring::digest::SHA256, value).as_ref())),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

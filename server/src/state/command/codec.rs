//! Byte layout of one command.
//!
//! ```text
//! format u8 = 2 | kind u8 | member u64 | nonce u64 | counter u64 | actor | payload (the rest)
//!
//! actor:  0 u8                                                              the server
//!         1 u8                                                              a client without a user
//!         2 u8 | auth revision varint | name length varint | name           a user
//! ```
//! Format 1 has in place of the actor: auth revision varint | name length varint | name. An empty name stands for the server
//! and for clients alike; it is read as a client without a user. Format 2 is written from command level 3 on.
//!
//! Fixed integers are big endian, varints are LEB128 (at most 10 bytes). The payload is the request as a protobuf
//! message:
//!
//! | kind | request | payload |
//! |---|---|---|
//! | 1 | Put | `etcdserverpb.PutRequest` |
//! | 2 | DeleteRange | `etcdserverpb.DeleteRangeRequest` |
//! | 3 | Txn | `etcdserverpb.TxnRequest` |
//! | 4 | Compact | `etcdserverpb.CompactionRequest` |
//! | 5 | LeaseGrant | `etcdserverpb.LeaseGrantRequest` |
//! | 6 | LeaseRevoke, asked by a client | `etcdserverpb.LeaseRevokeRequest` |
//! | 7 | LeaseRevoke, expired | term u64, then `etcdserverpb.LeaseRevokeRequest` |
//! | 8 | LeaseCheckpoint | `etcdserverpb.LeaseCheckpointRequest` |
//! | 9 | Alarm | `etcdserverpb.AlarmRequest` |
//! | 10 | PublishMember | `etcdserverpb.Member` with ID, name and clientURLs |
//! | 11 | ClusterVersion | the version, UTF-8 |
//! | 12 | CommandLevel | the level, u32 |
//! | 13 | Auth | which, u8, then its message: 1 `AuthEnableRequest`, 2 `AuthDisableRequest`, 3 `AuthUserAddRequest`, 4 `AuthUserDeleteRequest`, \
//!   5 `AuthUserChangePasswordRequest`, 6 `AuthUserGrantRoleRequest`, 7 `AuthUserRevokeRoleRequest`, 8 `AuthRoleAddRequest`, 9 `AuthRoleDeleteRequest`, \
//!   10 `AuthRoleGrantPermissionRequest`, 11 `AuthRoleRevokePermissionRequest` |
//! | 14 | Token | when it was made, u64; length of the user's name, varint; the name; the token |
//!
//! An unknown format or kind is an error, and fatal to a replica that meets one in its log: skipping it would part its
//! state from the others'. From another member it is not taken into the log. A new kind is proposed only once the replicated
//! command level says that every member knows it.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_proto::etcdserverpb as pb;
use prost::{
    Message,
    encoding::{decode_varint, encode_varint},
};

use super::{COMMAND_LEVEL, Command, Request, RequestId, auth_codec, decode_txn};
use crate::state::{auth::Actor, record};

/// The newest format.
pub const COMMAND_FORMAT: u8 = 2;
/// The format of commands below [`ACTORS_SINCE`].
const FORMAT_WITHOUT_ACTOR: u8 = 1;
/// The command level from which on commands carry their actor.
const ACTORS_SINCE: u32 = 3;

/// Bytes before the varints.
const FIXED_BYTES: usize = 2 + 3 * 8;
/// Longest varint of a u64.
const VARINT_BYTES_MAX: usize = 10;

const BY_SERVER: u8 = 0;
const BY_ANONYMOUS: u8 = 1;
const BY_USER: u8 = 2;

const PUT: u8 = 1;
const DELETE_RANGE: u8 = 2;
const TXN: u8 = 3;
const COMPACT: u8 = 4;
const LEASE_GRANT: u8 = 5;
const LEASE_REVOKE: u8 = 6;
const LEASE_EXPIRE: u8 = 7;
const LEASE_CHECKPOINT: u8 = 8;
const ALARM: u8 = 9;
const PUBLISH_MEMBER: u8 = 10;
const CLUSTER_VERSION: u8 = 11;
const COMMAND_LEVEL_KIND: u8 = 12;
pub(super) const AUTH: u8 = 13;
const TOKEN: u8 = 14;

/// Why bytes are no command this version can apply.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum CommandError {
    /// Written by a newer version.
    #[error(
        "a command has format {found}, this version reads up to {COMMAND_FORMAT}: run the version that wrote it, or a newer one"
    )]
    UnknownFormat {
        /// The format found.
        found: u8,
    },
    /// Written by a newer version.
    #[error("a command is of the unknown kind {found}: run the version that wrote it, or a newer one")]
    UnknownKind {
        /// The kind found.
        found: u8,
    },
    /// Written by a newer version.
    #[error(
        "a command raises the command level to {found}, this version applies commands up to level {COMMAND_LEVEL}: run the version \
         that wrote it, or a newer one"
    )]
    UnknownLevel {
        /// The level found.
        found: u32,
    },
    /// The bytes end early or contradict themselves.
    #[error("a command's bytes are damaged: {what}")]
    Damaged {
        /// What is wrong.
        what: &'static str,
    },
    /// The request inside does not decode.
    #[error("the request inside a command of kind {kind} does not decode: {reason}")]
    Payload {
        /// The command's kind.
        kind: u8,
        /// The decoder's words.
        reason: String,
    },
}

/// The bytes of a command in a cluster of command level `level`.
pub fn encode(command: &Command, level: u32) -> Bytes {
    let payload_bytes = payload_len(&command.request);
    let (name, auth_revision) = match &command.actor {
        Actor::User { name, auth_revision } => (&name[..], *auth_revision),
        Actor::Server | Actor::Anonymous => (&[][..], 0),
    };
    let mut out = BytesMut::with_capacity(FIXED_BYTES + 1 + 2 * VARINT_BYTES_MAX + name.len() + payload_bytes);
    let format = if level < ACTORS_SINCE { FORMAT_WITHOUT_ACTOR } else { COMMAND_FORMAT };
    out.put_u8(format);
    out.put_u8(kind(&command.request));
    out.put_u64(command.id.member);
    out.put_u64(command.id.nonce);
    out.put_u64(command.id.counter);
    if format != FORMAT_WITHOUT_ACTOR {
        out.put_u8(match command.actor {
            Actor::Server => BY_SERVER,
            Actor::Anonymous => BY_ANONYMOUS,
            Actor::User { .. } => BY_USER,
        });
    }
    if format == FORMAT_WITHOUT_ACTOR || matches!(command.actor, Actor::User { .. }) {
        encode_varint(auth_revision, &mut out);
        encode_varint(name.len() as u64, &mut out);
        out.put_slice(name);
    }
    put_payload(&mut out, &command.request);
    out.freeze()
}

/// The command in `bytes`, keys and values pointing into them.
pub fn decode(mut bytes: Bytes) -> Result<Command, CommandError> {
    if bytes.len() < FIXED_BYTES {
        return Err(CommandError::Damaged { what: "shorter than its fixed part" });
    }
    let format = bytes.get_u8();
    if !(FORMAT_WITHOUT_ACTOR..=COMMAND_FORMAT).contains(&format) {
        return Err(CommandError::UnknownFormat { found: format });
    }
    let kind = bytes.get_u8();
    let id = RequestId { member: bytes.get_u64(), nonce: bytes.get_u64(), counter: bytes.get_u64() };
    let actor = get_actor(format, &mut bytes)?;
    let request = get_payload(kind, bytes)?;
    Ok(Command { id, actor, request })
}

fn get_actor(format: u8, bytes: &mut Bytes) -> Result<Actor, CommandError> {
    if format == FORMAT_WITHOUT_ACTOR {
        let (name, auth_revision) = get_user(bytes)?;
        return Ok(if name.is_empty() { Actor::Anonymous } else { Actor::User { name, auth_revision } });
    }
    match bytes.try_get_u8() {
        Ok(BY_SERVER) => Ok(Actor::Server),
        Ok(BY_ANONYMOUS) => Ok(Actor::Anonymous),
        Ok(BY_USER) => {
            let (name, auth_revision) = get_user(bytes)?;
            Ok(Actor::User { name, auth_revision })
        }
        Ok(_) => Err(CommandError::Damaged { what: "an unknown kind of actor" }),
        Err(_) => Err(CommandError::Damaged { what: "ends before its actor" }),
    }
}

fn get_user(bytes: &mut Bytes) -> Result<(Bytes, u64), CommandError> {
    let auth_revision = get_varint(bytes)?;
    let name_bytes = usize::try_from(get_varint(bytes)?).unwrap_or(usize::MAX);
    if name_bytes > bytes.len() {
        return Err(CommandError::Damaged { what: "the user's name is longer than the command" });
    }
    Ok((bytes.split_to(name_bytes), auth_revision))
}

/// The lease that an encoded command grants, if it is a grant.
pub fn granted_lease(command: &Bytes) -> Option<i64> {
    if command.get(1) != Some(&LEASE_GRANT) {
        return None;
    }
    match decode(command.clone()).ok()?.request {
        Request::LeaseGrant(grant) => Some(grant.id),
        _ => None,
    }
}

fn kind(request: &Request) -> u8 {
    match request {
        Request::Put(_) => PUT,
        Request::DeleteRange(_) => DELETE_RANGE,
        Request::Txn(_) => TXN,
        Request::Compact(_) => COMPACT,
        Request::LeaseGrant(_) => LEASE_GRANT,
        Request::LeaseRevoke { expired_in_term: None, .. } => LEASE_REVOKE,
        Request::LeaseRevoke { expired_in_term: Some(_), .. } => LEASE_EXPIRE,
        Request::LeaseCheckpoint(_) => LEASE_CHECKPOINT,
        Request::Alarm(_) => ALARM,
        Request::PublishMember { .. } => PUBLISH_MEMBER,
        Request::ClusterVersion(_) => CLUSTER_VERSION,
        Request::CommandLevel(_) => COMMAND_LEVEL_KIND,
        Request::Auth(_) => AUTH,
        Request::Token { .. } => TOKEN,
    }
}

fn payload_len(request: &Request) -> usize {
    match request {
        Request::Put(r) => r.encoded_len(),
        Request::DeleteRange(r) => r.encoded_len(),
        Request::Txn(r) => r.encoded_len(),
        Request::Compact(r) => r.encoded_len(),
        Request::LeaseGrant(r) => r.encoded_len(),
        Request::LeaseRevoke { .. } => 8 + 1 + VARINT_BYTES_MAX,
        Request::LeaseCheckpoint(r) => r.encoded_len(),
        Request::Alarm(r) => r.encoded_len(),
        Request::PublishMember { name, client_urls, .. } => {
            32 + name.len() + client_urls.iter().map(|url| url.len() + 8).sum::<usize>()
        }
        Request::ClusterVersion(version) => version.to_string().len(),
        Request::CommandLevel(_) => 4,
        Request::Auth(request) => auth_codec::len(request),
        Request::Token { user, token, .. } => 8 + VARINT_BYTES_MAX + user.len() + token.len(),
    }
}

fn put_payload(out: &mut BytesMut, request: &Request) {
    match request {
        Request::Put(r) => put_message(out, r),
        Request::DeleteRange(r) => put_message(out, r),
        Request::Txn(r) => put_message(out, r),
        Request::Compact(r) => put_message(out, r),
        Request::LeaseGrant(r) => put_message(out, r),
        Request::LeaseRevoke { id, expired_in_term } => {
            if let Some(term) = expired_in_term {
                out.put_u64(*term);
            }
            put_message(out, &pb::LeaseRevokeRequest { id: *id });
        }
        Request::LeaseCheckpoint(r) => put_message(out, r),
        Request::Alarm(r) => put_message(out, r),
        Request::PublishMember { member, name, client_urls } => {
            put_message(
                out,
                &pb::Member { id: *member, name: name.clone(), client_urls: client_urls.clone(), ..Default::default() },
            );
        }
        Request::ClusterVersion(version) => out.put_slice(version.to_string().as_bytes()),
        Request::CommandLevel(level) => out.put_u32(*level),
        Request::Auth(request) => auth_codec::put(out, request),
        Request::Token { user, token, made } => {
            out.put_u64(*made);
            encode_varint(user.len() as u64, out);
            out.put_slice(user);
            out.put_slice(token);
        }
    }
}

pub(super) fn put_message(out: &mut BytesMut, message: &impl Message) {
    message.encode(out).expect("a BytesMut grows as needed");
}

fn get_payload(kind: u8, mut payload: Bytes) -> Result<Request, CommandError> {
    Ok(match kind {
        PUT => Request::Put(get_message(kind, payload)?),
        DELETE_RANGE => Request::DeleteRange(get_message(kind, payload)?),
        TXN => Request::Txn(
            decode_txn(payload).map_err(|error| CommandError::Payload { kind, reason: error.to_string() })?,
        ),
        COMPACT => Request::Compact(get_message(kind, payload)?),
        LEASE_GRANT => Request::LeaseGrant(get_message(kind, payload)?),
        LEASE_REVOKE => {
            let request: pb::LeaseRevokeRequest = get_message(kind, payload)?;
            Request::LeaseRevoke { id: request.id, expired_in_term: None }
        }
        LEASE_EXPIRE => {
            if payload.len() < 8 {
                return Err(CommandError::Damaged { what: "an expiry without its term" });
            }
            let term = payload.get_u64();
            let request: pb::LeaseRevokeRequest = get_message(kind, payload)?;
            Request::LeaseRevoke { id: request.id, expired_in_term: Some(term) }
        }
        LEASE_CHECKPOINT => Request::LeaseCheckpoint(get_message(kind, payload)?),
        ALARM => Request::Alarm(get_message(kind, payload)?),
        PUBLISH_MEMBER => {
            let member: pb::Member = get_message(kind, payload)?;
            Request::PublishMember { member: member.id, name: member.name, client_urls: member.client_urls }
        }
        CLUSTER_VERSION => match record::version::decode(&payload) {
            Ok(version) => Request::ClusterVersion(version),
            Err(error) => return Err(CommandError::Payload { kind, reason: error.to_string() }),
        },
        COMMAND_LEVEL_KIND => match record::command_level::decode(&payload) {
            Ok(level) if level <= COMMAND_LEVEL => Request::CommandLevel(level),
            Ok(found) => return Err(CommandError::UnknownLevel { found }),
            Err(error) => return Err(CommandError::Payload { kind, reason: error.to_string() }),
        },
        AUTH => Request::Auth(auth_codec::get(payload)?),
        TOKEN => {
            let made = payload.try_get_u64().map_err(|_| CommandError::Damaged { what: "a token without its time" })?;
            let user_bytes = usize::try_from(get_varint(&mut payload)?).unwrap_or(usize::MAX);
            if user_bytes > payload.len() {
                return Err(CommandError::Damaged { what: "the name of a token's user is longer than the command" });
            }
            let user = payload.split_to(user_bytes);
            Request::Token { user, token: payload, made }
        }
        found => return Err(CommandError::UnknownKind { found }),
    })
}

pub(super) fn get_message<M: Message + Default>(kind: u8, payload: Bytes) -> Result<M, CommandError> {
    M::decode(payload).map_err(|error| CommandError::Payload { kind, reason: error.to_string() })
}

pub(super) fn get_varint(bytes: &mut Bytes) -> Result<u64, CommandError> {
    decode_varint(bytes).map_err(|_| CommandError::Damaged { what: "ends inside a number, or the number is too large" })
}

#[cfg(test)]
pub(super) mod tests {
    use cairn_proto::authpb::{Permission, UserAddOptions};
    use proptest::{collection::vec, option, prelude::*};
    use semver::Version;

    use super::*;
    use crate::state::{auth::AuthRequest, command::TXN_DEPTH_MAX};

    fn bytes() -> impl Strategy<Value = Bytes> {
        vec(any::<u8>(), 0..40).prop_map(Bytes::from)
    }

    fn put() -> impl Strategy<Value = pb::PutRequest> {
        (bytes(), bytes(), any::<i64>(), any::<[bool; 3]>()).prop_map(
            |(key, value, lease, [prev_kv, ignore_value, ignore_lease])| pb::PutRequest {
                key,
                value,
                lease,
                prev_kv,
                ignore_value,
                ignore_lease,
            },
        )
    }

    pub(in super::super) fn txn() -> impl Strategy<Value = pb::TxnRequest> {
        use pb::{compare::TargetUnion, request_op};
        let op = |request| pb::RequestOp { request };
        let compare = (0..4i32, bytes(), bytes(), bytes()).prop_map(|(result, key, range_end, value)| pb::Compare {
            result,
            target: 3,
            key,
            range_end,
            target_union: Some(TargetUnion::Value(value)),
        });
        let leaf = prop_oneof![
            Just(None),
            put().prop_map(|put| Some(request_op::Request::RequestPut(put))),
            (bytes(), bytes()).prop_map(|(key, range_end)| Some(request_op::Request::RequestDeleteRange(
                pb::DeleteRangeRequest { key, range_end, prev_kv: true }
            ))),
            (bytes(), any::<i64>()).prop_map(|(key, revision)| Some(request_op::Request::RequestRange(
                pb::RangeRequest { key, revision, ..Default::default() }
            ))),
        ];
        let ops = leaf.clone().prop_map(op).prop_recursive(3, 12, 4, move |inner| {
            vec(inner, 0..4).prop_map(move |success| {
                op(Some(request_op::Request::RequestTxn(pb::TxnRequest { success, ..Default::default() })))
            })
        });
        (vec(compare, 0..3), vec(ops.clone(), 0..4), vec(ops, 0..3))
            .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            put().prop_map(Request::Put),
            txn().prop_map(Request::Txn),
            (bytes(), bytes(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| Request::DeleteRange(
                pb::DeleteRangeRequest { key, range_end, prev_kv }
            )),
            (any::<i64>(), any::<bool>())
                .prop_map(|(revision, physical)| Request::Compact(pb::CompactionRequest { revision, physical })),
            (any::<i64>(), any::<i64>()).prop_map(|(id, ttl)| Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl })),
            (any::<i64>(), option::of(any::<u64>()))
                .prop_map(|(id, expired_in_term)| Request::LeaseRevoke { id, expired_in_term }),
            vec((any::<i64>(), any::<i64>()), 0..4).prop_map(|all| Request::LeaseCheckpoint(
                pb::LeaseCheckpointRequest {
                    checkpoints: all
                        .into_iter()
                        .map(|(id, remaining_ttl)| pb::LeaseCheckpoint { id, remaining_ttl })
                        .collect(),
                }
            )),
            (0..3i32, any::<u64>(), 0..3i32).prop_map(|(action, member_id, alarm)| Request::Alarm(pb::AlarmRequest {
                action,
                member_id,
                alarm
            })),
            (any::<u64>(), ".{0,8}", vec(".{0,12}", 0..3))
                .prop_map(|(member, name, client_urls)| Request::PublishMember { member, name, client_urls }),
            any::<[u64; 3]>()
                .prop_map(|[major, minor, patch]| Request::ClusterVersion(Version::new(major, minor, patch))),
            (1..=COMMAND_LEVEL).prop_map(Request::CommandLevel),
            auth_request().prop_map(Request::Auth),
            (bytes(), bytes(), any::<u64>()).prop_map(|(user, token, made)| Request::Token { user, token, made }),
        ]
    }

    fn auth_request() -> impl Strategy<Value = AuthRequest> {
        let names = (".{0,8}", ".{0,8}");
        prop_oneof![
            Just(AuthRequest::Enable),
            Just(AuthRequest::Disable),
            (".{0,8}", ".{0,8}", option::of(any::<bool>())).prop_map(|(name, hashed_password, no_password)| {
                let options = no_password.map(|no_password| UserAddOptions { no_password });
                AuthRequest::UserAdd(pb::AuthUserAddRequest { name, hashed_password, options, ..Default::default() })
            }),
            ".{0,8}".prop_map(|name| AuthRequest::UserDelete(pb::AuthUserDeleteRequest { name })),
            names.prop_map(|(name, hashed_password)| {
                let password = String::new();
                AuthRequest::UserChangePassword(pb::AuthUserChangePasswordRequest { name, password, hashed_password })
            }),
            names.prop_map(|(user, role)| AuthRequest::UserGrantRole(pb::AuthUserGrantRoleRequest { user, role })),
            names.prop_map(|(name, role)| AuthRequest::UserRevokeRole(pb::AuthUserRevokeRoleRequest { name, role })),
            ".{0,8}".prop_map(|name| AuthRequest::RoleAdd(pb::AuthRoleAddRequest { name })),
            ".{0,8}".prop_map(|role| AuthRequest::RoleDelete(pb::AuthRoleDeleteRequest { role })),
            (".{0,8}", bytes(), bytes(), 0..3i32).prop_map(|(name, key, range_end, perm_type)| {
                let perm = Some(Permission { perm_type, key, range_end });
                AuthRequest::RoleGrantPermission(pb::AuthRoleGrantPermissionRequest { name, perm })
            }),
            (".{0,8}", bytes(), bytes()).prop_map(|(role, key, range_end)| {
                AuthRequest::RoleRevokePermission(pb::AuthRoleRevokePermissionRequest { role, key, range_end })
            }),
        ]
    }

    pub(in crate::state) fn command() -> impl Strategy<Value = Command> {
        (any::<[u64; 3]>(), actor(), request()).prop_map(|([member, nonce, counter], actor, request)| Command {
            id: RequestId { member, nonce, counter },
            actor,
            request,
        })
    }

    fn actor() -> impl Strategy<Value = Actor> {
        prop_oneof![
            Just(Actor::Server),
            Just(Actor::Anonymous),
            (vec(any::<u8>(), 1..40), any::<u64>())
                .prop_map(|(name, auth_revision)| Actor::User { name: name.into(), auth_revision }),
        ]
    }

    proptest! {
        #[test]
        fn commands_round_trip(command in command()) {
            prop_assert_eq!(decode(encode(&command, COMMAND_LEVEL)), Ok(command));
        }

        #[test]
        fn below_the_level_of_actors_only_users_are_told_apart(command in command(), level in 1..ACTORS_SINCE) {
            let read = decode(encode(&command, level)).unwrap();
            let actor = if command.actor == Actor::Server { Actor::Anonymous } else { command.actor.clone() };
            prop_assert_eq!(read, Command { actor, ..command });
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
            let _ = decode(Bytes::from(bytes));
        }

        #[test]
        fn damaged_commands_never_panic(
            command in command(),
            level in 1..=COMMAND_LEVEL,
            at: prop::sample::Index,
            with: u8,
            cut: prop::sample::Index,
        ) {
            let mut bytes = encode(&command, level).to_vec();
            let at = at.index(bytes.len());
            bytes[at] = with;
            let _ = decode(Bytes::from(bytes.clone()));
            bytes.truncate(cut.index(bytes.len() + 1));
            let _ = decode(Bytes::from(bytes));
        }
    }

    fn a_command() -> Command {
        let put = pb::PutRequest { key: "k".into(), value: "v".into(), ..Default::default() };
        Command {
            id: RequestId { member: 1, nonce: 2, counter: 3 },
            actor: Actor::Anonymous,
            request: Request::Put(put),
        }
    }

    #[test]
    fn the_layout_is_what_the_format_page_says() {
        let user = Actor::User { name: "root".into(), auth_revision: 300 };
        let by = |actor, level| encode(&Command { actor, ..a_command() }, level);
        for (encoded, format, actor) in [
            (by(Actor::Server, 3), 2, &b"\x00"[..]),
            (by(Actor::Anonymous, 3), 2, b"\x01"),
            (by(user.clone(), 3), 2, b"\x02\xac\x02\x04root"),
            (by(Actor::Server, 2), 1, b"\x00\x00"),
            (by(Actor::Anonymous, 2), 1, b"\x00\x00"),
            (by(user, 2), 1, b"\xac\x02\x04root"),
        ] {
            let mut expected = vec![format, 1];
            for word in [1u64, 2, 3] {
                expected.extend(word.to_be_bytes());
            }
            expected.extend(actor);
            expected.extend(b"\x0a\x01k\x12\x01v");
            assert_eq!(encoded, expected);
        }
    }

    #[test]
    fn newer_formats_and_unknown_kinds_are_refused() {
        let mut bytes = encode(&a_command(), COMMAND_LEVEL).to_vec();
        for format in [0, COMMAND_FORMAT + 1] {
            bytes[0] = format;
            assert_eq!(decode(Bytes::from(bytes.clone())), Err(CommandError::UnknownFormat { found: format }));
        }
        bytes[0] = COMMAND_FORMAT;
        bytes[1] = 200;
        assert_eq!(decode(Bytes::from(bytes)), Err(CommandError::UnknownKind { found: 200 }));
    }

    #[test]
    fn a_grant_is_told_from_other_commands() {
        assert_eq!(granted_lease(&encode(&a_command(), COMMAND_LEVEL)), None);
        assert_eq!(granted_lease(&Bytes::from_static(&[COMMAND_FORMAT, LEASE_GRANT])), None);
        let request = Request::LeaseGrant(pb::LeaseGrantRequest { id: -7, ttl: 5 });
        assert_eq!(granted_lease(&encode(&Command { request, ..a_command() }, COMMAND_LEVEL)), Some(-7));
    }

    #[test]
    fn txns_nested_as_deeply_as_allowed_decode() {
        let put = pb::PutRequest { key: "k".into(), ..Default::default() };
        let op = |request| pb::RequestOp { request: Some(request) };
        let mut txn =
            pb::TxnRequest { success: vec![op(pb::request_op::Request::RequestPut(put))], ..Default::default() };
        for _ in 1..TXN_DEPTH_MAX {
            txn = pb::TxnRequest { failure: vec![op(pb::request_op::Request::RequestTxn(txn))], ..Default::default() };
        }
        let command = Command { request: Request::Txn(txn), ..a_command() };
        assert_eq!(decode(encode(&command, COMMAND_LEVEL)), Ok(command));
    }

    #[test]
    fn decoding_copies_neither_key_nor_value() {
        let bytes = encode(&a_command(), COMMAND_LEVEL);
        let range = bytes.as_ptr_range();
        let Request::Put(put) = decode(bytes.clone()).unwrap().request else { panic!("a put went in") };
        assert!(range.contains(&put.key.as_ptr()) && range.contains(&put.value.as_ptr()));
    }
}

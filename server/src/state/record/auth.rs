//! Table `auth`: the switch with the auth revision, users, roles.
//!
//! ```text
//! key  s             on u8 (0, 1) | auth revision u64
//! key  u name        authpb.User
//! key  r name        authpb.Role
//! ```

use bytes::{Buf, BufMut, Bytes};
use cairn_proto::authpb::{Role, User};
use prost::Message;

use super::RecordError;

/// The key of the switch.
pub const SWITCH: &[u8] = b"s";
const USER: u8 = b'u';
const ROLE: u8 = b'r';

/// What a record of the table is.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    /// Whether authentication is on, and the auth revision.
    Switch(bool, u64),
    /// A user.
    User(String, User),
    /// A role.
    Role(String, Role),
}

/// The key of a user.
pub fn user_key(name: &str) -> Vec<u8> {
    [&[USER], name.as_bytes()].concat()
}

/// The key of a role.
pub fn role_key(name: &str) -> Vec<u8> {
    [&[ROLE], name.as_bytes()].concat()
}

/// The bytes of the switch.
pub fn encode_switch(enabled: bool, revision: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(9);
    out.put_u8(u8::from(enabled));
    out.put_u64(revision);
    out
}

/// The record of a key and its bytes.
pub fn decode(key: &[u8], mut bytes: &[u8]) -> Result<Record, RecordError> {
    let damaged = |what: String| RecordError::new("auth", what);
    let name = |name: &[u8]| String::from_utf8(name.to_vec()).map_err(|error| damaged(error.to_string()));
    match key.split_first() {
        Some((b's', [])) => {
            let enabled = match bytes.try_get_u8().map_err(RecordError::short("auth"))? {
                0 => false,
                1 => true,
                other => return Err(damaged(format!("the switch is {other}"))),
            };
            let revision = bytes.try_get_u64().map_err(RecordError::short("auth"))?;
            RecordError::unless_empty("auth", bytes)?;
            Ok(Record::Switch(enabled, revision))
        }
        Some((&USER, rest)) => {
            let user = User::decode(Bytes::copy_from_slice(bytes)).map_err(|error| damaged(error.to_string()))?;
            Ok(Record::User(name(rest)?, user))
        }
        Some((&ROLE, rest)) => {
            let role = Role::decode(Bytes::copy_from_slice(bytes)).map_err(|error| damaged(error.to_string()))?;
            Ok(Record::Role(name(rest)?, role))
        }
        _ => Err(damaged(format!("the key {key:02x?} is unknown"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_refuses_what_is_none() {
        assert_eq!(decode(SWITCH, &encode_switch(true, 7)), Ok(Record::Switch(true, 7)));
        let user = User { name: "alice".into(), roles: vec!["reader".into()], ..User::default() };
        assert_eq!(decode(&user_key("alice"), &user.encode_to_vec()), Ok(Record::User("alice".into(), user)));
        let role = Role { name: "reader".into(), ..Role::default() };
        assert_eq!(decode(&role_key("reader"), &role.encode_to_vec()), Ok(Record::Role("reader".into(), role)));
        for (key, bytes) in [
            (&b""[..], &b""[..]),
            (b"s", b""),
            (b"s", &[2; 9]),
            (b"s", &[0; 10]),
            (b"x", b""),
            (b"u\xff", b""),
            (b"ua", b"\xff"),
        ] {
            assert!(decode(key, bytes).is_err(), "{key:?} {bytes:?}");
        }
    }
}

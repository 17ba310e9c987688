//! Byte layout of a request about users, roles or the switch: which one, and its message.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cairn_proto::etcdserverpb as pb;
use prost::Message;

use super::codec::{AUTH, CommandError, get_message, put_message};
use crate::state::auth::AuthRequest;

const ENABLE: u8 = 1;
const DISABLE: u8 = 2;

macro_rules! with_messages {
    ($($number:literal $request:ident $message:ty;)+) => {
        /// Bytes of the layout, at most.
        pub(super) fn len(request: &AuthRequest) -> usize {
            1 + match request {
                AuthRequest::Enable | AuthRequest::Disable => 0,
                $(AuthRequest::$request(message) => message.encoded_len(),)+
            }
        }

        pub(super) fn put(out: &mut BytesMut, request: &AuthRequest) {
            match request {
                AuthRequest::Enable => out.put_u8(ENABLE),
                AuthRequest::Disable => out.put_u8(DISABLE),
                $(AuthRequest::$request(message) => {
                    out.put_u8($number);
                    put_message(out, message);
                })+
            }
        }

        pub(super) fn get(mut payload: Bytes) -> Result<AuthRequest, CommandError> {
            let which = payload.try_get_u8().map_err(|_| CommandError::Damaged { what: "an empty request about users" })?;
            Ok(match which {
                ENABLE => AuthRequest::Enable,
                DISABLE => AuthRequest::Disable,
                $($number => AuthRequest::$request(get_message::<$message>(AUTH, payload)?),)+
                found => return Err(CommandError::UnknownKind { found }),
            })
        }
    };
}

with_messages! {
    3 UserAdd pb::AuthUserAddRequest;
    4 UserDelete pb::AuthUserDeleteRequest;
    5 UserChangePassword pb::AuthUserChangePasswordRequest;
    6 UserGrantRole pb::AuthUserGrantRoleRequest;
    7 UserRevokeRole pb::AuthUserRevokeRoleRequest;
    8 RoleAdd pb::AuthRoleAddRequest;
    9 RoleDelete pb::AuthRoleDeleteRequest;
    10 RoleGrantPermission pb::AuthRoleGrantPermissionRequest;
    11 RoleRevokePermission pb::AuthRoleRevokePermissionRequest;
}

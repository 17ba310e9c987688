//! `role …`.

use bytes::Bytes;
use cairn_proto::authpb::{Permission, permission::Type};
use cairn_proto::etcdserverpb as pb;

use super::{keys, one_name};
use crate::cli::Invocation;
use crate::exit::Failure;
use crate::session::Session;

pub async fn add(invocation: &Invocation) -> Result<(), Failure> {
    let name = one_name(invocation, "role add command requires role name as its argument")?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let done = format!("Role {name} created\n");
    let answer = session.request(pb::AuthRoleAddRequest { name }).await?;
    session.printer.done(&answer, answer.header.as_ref(), &done)
}

pub async fn delete(invocation: &Invocation) -> Result<(), Failure> {
    let role = one_name(invocation, "role delete command requires role name as its argument")?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let done = format!("Role {role} deleted\n");
    let answer = session.request(pb::AuthRoleDeleteRequest { role }).await?;
    session.printer.done(&answer, answer.header.as_ref(), &done)
}

pub async fn get(invocation: &Invocation) -> Result<(), Failure> {
    let role = one_name(invocation, "role get command requires role name as its argument")?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let answer = session.request(pb::AuthRoleGetRequest { role: role.clone() }).await?;
    session.printer.role(&role, &answer)
}

pub async fn list(invocation: &Invocation) -> Result<(), Failure> {
    if !invocation.args.is_empty() {
        return Err(Failure::bad_args("role list command requires no arguments"));
    }
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    session.printer.roles(&session.request(pb::AuthRoleListRequest {}).await?)
}

pub async fn grant_permission(invocation: &Invocation) -> Result<(), Failure> {
    let [role, kind, range_args @ ..] = invocation.args.as_slice() else { return Err(grant_usage()) };
    let [key, ends @ ..] = range_args else { return Err(grant_usage()) };
    let kind = String::from_utf8_lossy(kind);
    let perm_type = match kind.to_lowercase().as_str() {
        "read" => Type::Read,
        "write" => Type::Write,
        "readwrite" => Type::Readwrite,
        _ => return Err(Failure::bad_args(format!("invalid permission type: {kind}"))),
    };
    let (key, range_end) = range(invocation, key, ends)?;
    let name = String::from_utf8_lossy(role).into_owned();
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let done = format!("Role {name} updated\n");
    let perm = Some(Permission { perm_type: perm_type.into(), key, range_end });
    let answer = session.request(pb::AuthRoleGrantPermissionRequest { name, perm }).await?;
    session.printer.done(&answer, answer.header.as_ref(), &done)
}

fn grant_usage() -> Failure {
    Failure::bad_args("role grant command requires role name, permission type, and key [endkey] as its argument")
}

pub async fn revoke_permission(invocation: &Invocation) -> Result<(), Failure> {
    let [role, named_key, ends @ ..] = invocation.args.as_slice() else {
        let usage = "role revoke-permission command requires role name and key [endkey] as its argument";
        return Err(Failure::bad_args(usage));
    };
    let (key, range_end) = range(invocation, named_key, ends)?;
    let role = String::from_utf8_lossy(role).into_owned();
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let (shown, end) = (String::from_utf8_lossy(named_key), String::from_utf8_lossy(&range_end).into_owned());
    let done = match end.as_str() {
        "" => format!("Permission of key {shown} is revoked from role {role}\n"),
        "\0" => format!("Permission of range [{shown}, <open ended> is revoked from role {role}\n"),
        end => format!("Permission of range [{shown}, {end}) is revoked from role {role}\n"),
    };
    let answer = session.request(pb::AuthRoleRevokePermissionRequest { role, key, range_end }).await?;
    session.printer.done(&answer, answer.header.as_ref(), &done)
}

/// The range of a permission. The empty key stands for the first one, and an end behind it is not looked at.
fn range(invocation: &Invocation, key: &[u8], ends: &[Vec<u8>]) -> Result<(Bytes, Bytes), Failure> {
    let (prefix, from_key) = (invocation.flags.bool("prefix"), invocation.flags.bool("from-key"));
    let end = if key.is_empty() { None } else { ends.first() };
    match (prefix, from_key, end) {
        (true, _, Some(_)) => Err(Failure::bad_args("unexpected endkey argument with --prefix flag")),
        (_, true, Some(_)) => Err(Failure::bad_args("unexpected endkey argument with --from-key flag")),
        (true, true, None) => Err(Failure::bad_args("--from-key and --prefix flags are mutually exclusive")),
        (true, false, None) => Ok(keys::prefix(key)),
        (false, true, None) => Ok(keys::from_key(key)),
        (false, false, None) if key.is_empty() => Ok((Bytes::from_static(keys::OPEN), Bytes::new())),
        (false, false, end) => {
            Ok((Bytes::copy_from_slice(key), end.map(|end| Bytes::copy_from_slice(end)).unwrap_or_default()))
        }
    }
}

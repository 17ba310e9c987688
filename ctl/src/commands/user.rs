//! `user …`.

use cairn_proto::authpb::UserAddOptions;
use cairn_proto::etcdserverpb as pb;

use super::{one_name, two_names};
use crate::cli::Invocation;
use crate::exit::Failure;
use crate::output::emit;
use crate::password;
use crate::session::{Session, failed};

pub async fn add(invocation: &Invocation) -> Result<(), Failure> {
    let request = added(invocation)?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let done = format!("User {} created\n", request.name);
    let answer = session.request(request).await?;
    session.printer.done(&answer, answer.header.as_ref(), &done)
}

/// The user that flags and arguments describe; asks for the password if neither has it.
fn added(invocation: &Invocation) -> Result<pb::AuthUserAddRequest, Failure> {
    let argument = one_name(invocation, "user add command requires user name as its argument")?;
    let (no_password, by_flag) = (invocation.flags.bool("no-password"), invocation.flags.text("new-user-password"));
    let (name, password) = match argument.split_once(':') {
        _ if no_password => (argument, String::new()),
        _ if !by_flag.is_empty() => (argument, by_flag),
        Some(("", _)) => return Err(Failure::bad_args("empty user name is not allowed")),
        Some((name, password)) => (name.to_owned(), password.to_owned()),
        None => {
            let password = new_password(invocation, &argument)?;
            (argument, password)
        }
    };
    let options = Some(UserAddOptions { no_password });
    Ok(pb::AuthUserAddRequest { name, password, options, ..Default::default() })
}

/// Asks twice, or reads a word from standard input without asking.
fn new_password(invocation: &Invocation, name: &str) -> Result<String, Failure> {
    let failed = |error| Failure::bad_args(format!("failed to ask password: {error}"));
    if !invocation.flags.bool("interactive") {
        return password::read_word().map_err(failed);
    }
    let password = password::ask(&format!("Password of {name}: ")).map_err(failed)?;
    if password.is_empty() {
        return Err(Failure::bad_args("empty password"));
    }
    let again = password::ask(&format!("Type password of {name} again for confirmation: ")).map_err(failed)?;
    if password == again { Ok(password) } else { Err(Failure::bad_args("given passwords are different")) }
}

pub async fn passwd(invocation: &Invocation) -> Result<(), Failure> {
    let name = one_name(invocation, "user passwd command requires user name as its argument")?;
    let password = new_password(invocation, &name)?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let request = pb::AuthUserChangePasswordRequest { name, password, ..Default::default() };
    let answer = session.request(request).await?;
    session.printer.done(&answer, answer.header.as_ref(), "Password updated\n")
}

pub async fn delete(invocation: &Invocation) -> Result<(), Failure> {
    let name = one_name(invocation, "user delete command requires user name as its argument")?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let done = format!("User {name} deleted\n");
    let answer = session.request(pb::AuthUserDeleteRequest { name }).await?;
    session.printer.done(&answer, answer.header.as_ref(), &done)
}

pub async fn get(invocation: &Invocation) -> Result<(), Failure> {
    let name = one_name(invocation, "user get command requires user name as its argument")?;
    let session = Session::new(invocation)?;
    let request = pb::AuthUserGetRequest { name: name.clone() };
    if !invocation.flags.bool("detail") {
        session.printer.expect_no_fields()?;
        return session.printer.user(&name, &session.request(request).await?);
    }
    session.printer.expect_answer()?;
    let client = session.connect().await?;
    let user = client.call(request).await.map_err(|error| failed(&error))?;
    emit(format!("User: {name}\n").as_bytes())?;
    for role in user.roles {
        emit(b"\n")?;
        let request = pb::AuthRoleGetRequest { role: role.clone() };
        let answer = client.call(request).await.map_err(|error| failed(&error))?;
        session.printer.role(&role, &answer)?;
    }
    Ok(())
}

pub async fn list(invocation: &Invocation) -> Result<(), Failure> {
    if !invocation.args.is_empty() {
        return Err(Failure::bad_args("user list command requires no arguments"));
    }
    let session = Session::new(invocation)?;
    session.printer.expect_no_fields()?;
    session.printer.users(&session.request(pb::AuthUserListRequest {}).await?)
}

pub async fn grant_role(invocation: &Invocation) -> Result<(), Failure> {
    let usage = "user grant command requires user name and role name as its argument";
    let (user, role) = two_names(invocation, usage)?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let done = format!("Role {role} is granted to user {user}\n");
    let answer = session.request(pb::AuthUserGrantRoleRequest { user, role }).await?;
    session.printer.done(&answer, answer.header.as_ref(), &done)
}

pub async fn revoke_role(invocation: &Invocation) -> Result<(), Failure> {
    let usage = "user revoke-role requires user name and role name as its argument";
    let (name, role) = two_names(invocation, usage)?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let done = format!("Role {role} is revoked from user {name}\n");
    let answer = session.request(pb::AuthUserRevokeRoleRequest { name, role }).await?;
    session.printer.done(&answer, answer.header.as_ref(), &done)
}

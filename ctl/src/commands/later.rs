//! Commands that are not there yet: their arguments are checked as etcdctl checks them, then they say so.

use crate::cli::{Invocation, PROGRAM};
use crate::exit::Failure;

/// Checks the arguments of the command at the end of `path`, and says that it is not there yet.
pub fn run(path: &[&str], invocation: &Invocation) -> Result<(), Failure> {
    check(path, invocation).map_err(Failure::bad_args)?;
    Err(Failure::error(format!("\"{}\" is not available yet in {PROGRAM}", path.join(" "))))
}

fn check(path: &[&str], invocation: &Invocation) -> Result<(), String> {
    let args = &invocation.args;
    let complaint = match (path, args.len()) {
        (["auth", what], 1..) => format!("auth {what} command does not accept any arguments"),
        (["user" | "role", "list"], 1..) => format!("{} list command requires no arguments", path[0]),
        (["user", "add" | "delete" | "get" | "passwd"], 0 | 2..) => {
            format!("user {} command requires user name as its argument", path[1])
        }
        (["user", "add"], 1) if args[0].starts_with(b":") && nameless(invocation) => {
            "empty user name is not allowed".to_owned()
        }
        (["user", "grant-role"], 0 | 1 | 3..) => {
            "user grant command requires user name and role name as its argument".to_owned()
        }
        (["user", "revoke-role"], 0 | 1 | 3..) => {
            "user revoke-role requires user name and role name as its argument".to_owned()
        }
        (["role", "add" | "delete" | "get"], 0 | 2..) => {
            format!("role {} command requires role name as its argument", path[1])
        }
        (["role", "grant-permission"], count) => return permission(invocation, count),
        (["role", "revoke-permission"], 0 | 1) => {
            "role revoke-permission command requires role name and key [endkey] as its argument".to_owned()
        }
        (["role", "revoke-permission"], count) => return range(invocation, count > 2),
        (["snapshot", "save"], 0 | 2..) => "snapshot save expects one argument".to_owned(),
        (["downgrade", "validate" | "enable"], 0) => "TARGET_VERSION not provided".to_owned(),
        (["downgrade", "validate" | "enable"], 2..) => "too many arguments".to_owned(),
        (["downgrade", "validate" | "enable"], _) if args[0].is_empty() => "target version not provided".to_owned(),
        _ => return Ok(()),
    };
    Err(complaint)
}

/// Whether what stands before the colon is the name: not if the password comes by a flag, or there is to be none.
fn nameless(invocation: &Invocation) -> bool {
    !invocation.flags.bool("no-password") && invocation.flags.bytes("new-user-password").is_empty()
}

fn permission(invocation: &Invocation, count: usize) -> Result<(), String> {
    if count < 3 {
        return Err(
            "role grant command requires role name, permission type, and key [endkey] as its argument".to_owned()
        );
    }
    let kind = String::from_utf8_lossy(&invocation.args[1]);
    if !["read", "write", "readwrite"].contains(&kind.to_lowercase().as_str()) {
        return Err(format!("invalid permission type: {kind}"));
    }
    range(invocation, count > 3)
}

/// A flag that makes a range of one key leaves no room for an end.
fn range(invocation: &Invocation, has_end: bool) -> Result<(), String> {
    let (prefix, from_key) = (invocation.flags.bool("prefix"), invocation.flags.bool("from-key"));
    match (prefix, from_key, has_end) {
        (true, _, true) => Err("unexpected endkey argument with --prefix flag".to_owned()),
        (_, true, true) => Err("unexpected endkey argument with --from-key flag".to_owned()),
        (true, true, false) => Err("--from-key and --prefix flags are mutually exclusive".to_owned()),
        _ => Ok(()),
    }
}

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
        (["snapshot", "save"], 0 | 2..) => "snapshot save expects one argument",
        (["downgrade", "validate" | "enable"], 0) => "TARGET_VERSION not provided",
        (["downgrade", "validate" | "enable"], 2..) => "too many arguments",
        (["downgrade", "validate" | "enable"], _) if args[0].is_empty() => "target version not provided",
        _ => return Ok(()),
    };
    Err(complaint.to_owned())
}

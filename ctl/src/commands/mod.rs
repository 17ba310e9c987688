//! The commands, one file each.
//!
//! A command checks its arguments, then the global flags (which may ask for a password), then whether the output format
//! fits, and only then talks to anybody.

mod alarm;
mod audit;
mod auth;
pub mod check;
mod compaction;
mod defrag;
mod del;
mod elect;
mod endpoint;
mod execute;
mod get;
pub mod keys;
mod later;
mod lease;
mod lock;
mod make_mirror;
mod member;
mod put;
mod role;
mod txn;
mod user;
mod watch;

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::resolve::resolve;
use crate::cli::{Action, Invocation, PROGRAM, help as help_texts};
use crate::exit::Failure;
use crate::output::emit;
use crate::{API_LEVEL, API_VERSION};

pub use later::run as later;

/// Runs a command.
pub fn run(invocation: &Invocation) -> Result<(), Failure> {
    match invocation.action {
        Action::AlarmDisarm => block_on(alarm::disarm(invocation)),
        Action::AlarmList => block_on(alarm::list(invocation)),
        Action::AuditGrep => audit::grep(invocation),
        Action::AuthEnable => block_on(auth::enable(invocation)),
        Action::AuthDisable => block_on(auth::disable(invocation)),
        Action::AuthStatus => block_on(auth::status(invocation)),
        Action::CheckDatascale => block_on(check::datascale(invocation)),
        Action::CheckPerf => block_on(check::perf(invocation)),
        Action::Compaction => block_on(compaction::run(invocation)),
        Action::Defrag => block_on(defrag::run(invocation)),
        Action::Del => block_on(del::run(invocation)),
        Action::Elect => block_on(elect::run(invocation)),
        Action::EndpointHashKv => block_on(endpoint::hash_kv(invocation)),
        Action::EndpointHealth => block_on(endpoint::health(invocation)),
        Action::EndpointStatus => block_on(endpoint::status(invocation)),
        Action::Get => block_on(get::run(invocation)),
        Action::LeaseGrant => block_on(lease::grant(invocation)),
        Action::LeaseKeepAlive => block_on(lease::keep_alive(invocation)),
        Action::LeaseList => block_on(lease::list(invocation)),
        Action::LeaseRevoke => block_on(lease::revoke(invocation)),
        Action::LeaseTimeToLive => block_on(lease::time_to_live(invocation)),
        Action::Lock => block_on(lock::run(invocation)),
        Action::MakeMirror => block_on(make_mirror::run(invocation)),
        Action::MemberAdd => block_on(member::add(invocation)),
        Action::MemberList => block_on(member::list(invocation)),
        Action::MemberPromote => block_on(member::promote(invocation)),
        Action::MemberRemove => block_on(member::remove(invocation)),
        Action::MemberUpdate => block_on(member::update(invocation)),
        Action::MoveLeader => block_on(member::move_leader(invocation)),
        Action::Options => emit(help_texts::options().as_bytes()),
        Action::Put => block_on(put::run(invocation)),
        Action::RoleAdd => block_on(role::add(invocation)),
        Action::RoleDelete => block_on(role::delete(invocation)),
        Action::RoleGet => block_on(role::get(invocation)),
        Action::RoleList => block_on(role::list(invocation)),
        Action::RoleRevokePermission => block_on(role::revoke_permission(invocation)),
        Action::RoleGrantPermission => block_on(role::grant_permission(invocation)),
        Action::Txn => block_on(txn::run(invocation)),
        Action::UserAdd => block_on(user::add(invocation)),
        Action::UserDelete => block_on(user::delete(invocation)),
        Action::UserGet => block_on(user::get(invocation)),
        Action::UserList => block_on(user::list(invocation)),
        Action::UserPasswd => block_on(user::passwd(invocation)),
        Action::UserGrantRole => block_on(user::grant_role(invocation)),
        Action::UserRevokeRole => block_on(user::revoke_role(invocation)),
        Action::Version => version(),
        Action::Watch => block_on(watch::run(invocation)),
        Action::Completion | Action::Group | Action::Help | Action::Later => Ok(()),
    }
}

/// `help`, with the words that name a command. Where they name none, the program's usage is said with the complaint.
pub fn help(words: &[Vec<u8>]) -> Result<(), Failure> {
    if let Ok(resolved) = resolve(words) {
        return emit(help_texts::help(&resolved.path).as_bytes());
    }
    let topics: Vec<_> = words.iter().map(|word| format!("`{}`", String::from_utf8_lossy(word))).collect();
    eprint!("Unknown help topic [{}]\n{}", topics.join(" "), help_texts::usage(&[]));
    Ok(())
}

/// `version`: the lines scripts look for, then our own.
fn version() -> Result<(), Failure> {
    let own = env!("CARGO_PKG_VERSION");
    emit(format!("etcdctl version: {API_LEVEL}\nAPI version: {API_VERSION}\n{PROGRAM} version: {own}\n").as_bytes())
}

/// Somebody wants the program to end.
struct Interrupt {
    interrupt: Signal,
    terminate: Signal,
}

/// From now on an interrupt and a request to terminate are told here instead of ending the program.
fn interrupted() -> Result<Interrupt, Failure> {
    let listen = |kind| signal(kind).map_err(|error| Failure::error(format!("listening for signals: {error}")));
    Ok(Interrupt { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
}

impl Interrupt {
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The one argument, as text.
fn one_name(invocation: &Invocation, usage: &str) -> Result<String, Failure> {
    let [name] = invocation.args.as_slice() else { return Err(Failure::bad_args(usage)) };
    Ok(String::from_utf8_lossy(name).into_owned())
}

/// The two arguments, as text.
fn two_names(invocation: &Invocation, usage: &str) -> Result<(String, String), Failure> {
    let [first, second] = invocation.args.as_slice() else { return Err(Failure::bad_args(usage)) };
    Ok((String::from_utf8_lossy(first).into_owned(), String::from_utf8_lossy(second).into_owned()))
}

fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::error(format!("starting up: {error}")))?;
    let ended = runtime.block_on(command);
    // A command that still runs, or a look-up of a name, must not hold the program up.
    runtime.shutdown_background();
    ended
}

//! `lock`: holds a lock until interrupted, or for as long as a command runs.

use cairn_client::Get;
use cairn_client::recipe::{Held, Mutex, RecipeError, Session as Lease};

use super::execute::{self, Executed};
use super::interrupted;
use crate::cli::Invocation;
use crate::connection::error_text;
use crate::exit::Failure;
use crate::output::aside;
use crate::session::{Session, failed};

/// The time to live, in seconds, where none is asked for that is above 0.
const TTL: i64 = 60;

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let Some((name, command)) = invocation.args.split_first() else {
        return Err(Failure::bad_args("lock takes a lock name argument and an optional command to execute"));
    };
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let client = session.connect().await?;
    let ttl = Some(invocation.flags.int("ttl")).filter(|ttl| *ttl > 0).unwrap_or(TTL);
    let lease = Lease::start(&client, ttl).await.map_err(|error| failed(&error))?;
    let mutex = Mutex::new(&lease, name);
    let done = hold(&session, &lease, &mutex, command).await;
    let unlocked = mutex.unlock().await;
    // The lock is given up by now; the lease would go by itself.
    let _ = lease.close().await;
    done?;
    unlocked.map_err(|error| failure(&error))
}

async fn hold(session: &Session, lease: &Lease, mutex: &Mutex<'_>, command: &[Vec<u8>]) -> Result<(), Failure> {
    let mut interrupt = interrupted()?;
    let held = tokio::select! {
        held = mutex.lock() => held.map_err(|error| failure(&error))?,
        () = interrupt.wait() => return Err(Failure::error("context canceled")),
    };
    if !command.is_empty() {
        return run_command(&held, command).await;
    }
    if !show(session, lease, &held).await? {
        return Err(Failure::error("lock lost on init"));
    }
    tokio::select! {
        () = interrupt.wait() => Ok(()),
        _ = lease.lost() => Err(Failure::error("session expired")),
    }
}

async fn run_command(held: &Held, command: &[Vec<u8>]) -> Result<(), Failure> {
    let variables = vec![
        ("ETCD_LOCK_KEY", String::from_utf8_lossy(held.key()).into_owned()),
        ("ETCD_LOCK_REV", held.header().revision.to_string()),
    ];
    match execute::run(command, variables).await? {
        Executed::Succeeded => Ok(()),
        Executed::Failed { code, reason } => Err(Failure::new(code, reason)),
    }
}

/// Prints the key that stands for the lock or the leadership. Returns whether it is there.
pub async fn show(session: &Session, lease: &Lease, held: &Held) -> Result<bool, Failure> {
    let request = Get::new(held.key()).into_request();
    let answer = lease.client().call(request).await.map_err(|error| failed(&error))?;
    let there = !answer.kvs.is_empty();
    if there {
        let printer = session.printer;
        aside(move || printer.get(&answer)).await?;
    }
    Ok(there)
}

/// A recipe's error as etcdctl prints it.
pub fn failure(error: &RecipeError) -> Failure {
    match error {
        RecipeError::Request(error) => failed(error),
        RecipeError::SessionLost(_) | RecipeError::PlaceLost => Failure::error("mutex: session is expired"),
        RecipeError::Watch(cairn_client::WatchError::Failed(error)) => Failure::error(error_text(error)),
        other => Failure::error(other),
    }
}

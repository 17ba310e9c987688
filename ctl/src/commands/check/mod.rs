//! `check perf`: writes at a fixed rate for a minute and judges what came back. `check datascale`: writes so many keys and tells
//! what they cost in memory.

pub mod load;
pub mod report;
pub mod scale;

use std::convert::Infallible;
use std::io::IsTerminal as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cairn_client::Client;
use cairn_proto::etcdserverpb as pb;
use tokio::time::{Instant, sleep};

use super::keys;
use crate::cli::Invocation;
use crate::exit::{Failure, code};
use crate::golang::{format_duration, quote};
use crate::output::emit;
use crate::session::{Session, failed};
use load::Load;
use scale::Scale;

/// How long cleaning up, compacting and defragmenting may take each.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Between two looks at how far a load is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// `check perf`.
pub async fn perf(invocation: &Invocation) -> Result<(), Failure> {
    let flags = &invocation.flags;
    let name = flags.text("load");
    let Some(load) = Load::named(&name) else {
        return Err(Failure::bad_feature(format!("unknown load option {name}")));
    };
    let session = Session::new(invocation)?;
    let prefix = flags.bytes("prefix").to_vec();

    let clients = connect(&session, load.clients).await?;
    let first = clients[0].clone();
    refuse_existing_keys(&first, &prefix, "'", load.duration).await?;

    let seconds = load.duration.as_secs();
    let results = tokio::select! {
        results = load.run(clients, &prefix) => results,
        Err(failure) = show_progress(seconds, |elapsed| elapsed.as_secs()) => return Err(failure),
        _ = tokio::signal::ctrl_c() => {
            delete_keys(&first, &prefix).await?;
            return Err(Failure::silent(code::ERROR));
        }
    };
    show_end(seconds, load.duration)?;

    match delete_keys(&first, &prefix).await {
        Ok(revision) => tidy(&session, &first, revision, invocation).await?,
        Err(failure) => {
            let error = failure.text.unwrap_or_default();
            emit(format!("FAIL: Cleanup failed during key deletion: ERROR({error})\n").as_bytes())?;
        }
    }
    let (text, passed) = results.judge(load.limit);
    emit(text.as_bytes())?;
    if passed { Ok(()) } else { Err(Failure::silent(code::ERROR)) }
}

/// `check datascale`.
pub async fn datascale(invocation: &Invocation) -> Result<(), Failure> {
    let flags = &invocation.flags;
    let name = flags.text("load");
    let Some(scale) = Scale::named(&name) else {
        return Err(Failure::bad_feature(format!("unknown load option {name}")));
    };
    let session = Session::new(invocation)?;
    let prefix = flags.bytes("prefix").to_vec();
    let clients = connect(&session, scale.clients).await?;
    let first = clients[0].clone();
    refuse_existing_keys(&first, &prefix, "", session.command_timeout()).await?;

    let before = memory(&first, "before").await?;
    emit(scale.announcement().as_bytes())?;
    let (start, answered) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let results = tokio::select! {
        results = scale.run(clients, &prefix, &answered) => results,
        Err(failure) = show_progress(scale.keys, |_| answered.load(Ordering::Relaxed)) => return Err(failure),
        _ = tokio::signal::ctrl_c() => {
            delete_keys(&first, &prefix).await?;
            return Err(Failure::silent(code::ERROR));
        }
    };
    show_end(scale.keys, Duration::from_secs(start.elapsed().as_secs()))?;
    let after = memory(&first, "after").await;

    let revision = delete_keys(&first, &prefix).await?;
    let after = after?;
    tidy(&session, &first, revision, invocation).await?;
    let errors = results.errors();
    if errors.is_empty() {
        return emit(scale::verdict(before, after).as_bytes());
    }
    emit(errors.as_bytes())?;
    Err(Failure::silent(code::ERROR))
}

/// What the member at the first endpoint takes, or the end of the check.
async fn memory(client: &Client, when: &str) -> Result<f64, Failure> {
    match scale::resident_memory(client).await {
        Ok(bytes) => Ok(bytes),
        Err(complaint) => {
            let fail = format!("FAIL: Could not read process_resident_memory_bytes {when} the put operations.");
            emit(format!("{complaint}\n{fail}\n").as_bytes())?;
            Err(Failure::silent(code::ERROR))
        }
    }
}

async fn connect(session: &Session, count: usize) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(session.connect().await?);
    }
    Ok(clients)
}

/// Of the two commands one quotes, as etcdctl's do.
async fn refuse_existing_keys(client: &Client, prefix: &[u8], quotes: &str, timeout: Duration) -> Result<(), Failure> {
    let (key, range_end) = keys::prefix(prefix);
    let request = pb::RangeRequest { key, range_end, limit: 1, ..Default::default() };
    let answer = client.with_timeout(timeout).call(request).await.map_err(|error| failed(&error))?;
    if answer.kvs.is_empty() {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(prefix);
    let text =
        format!("prefix {} has keys. Delete with {quotes}cairnctl del --prefix {shown}{quotes} first", quote(prefix));
    Err(Failure::new(code::INVALID_INPUT, text))
}

/// Deletes what the load wrote; returns the revision behind it.
async fn delete_keys(client: &Client, prefix: &[u8]) -> Result<i64, Failure> {
    let (key, range_end) = keys::prefix(prefix);
    let request = pb::DeleteRangeRequest { key, range_end, prev_kv: false };
    let answer = client.with_timeout(CLEANUP_TIMEOUT).call(request).await.map_err(|error| failed(&error))?;
    Ok(answer.header.unwrap_or_default().revision)
}

/// Gives up the history of what was deleted, and the space, if asked to.
async fn tidy(session: &Session, client: &Client, revision: i64, invocation: &Invocation) -> Result<(), Failure> {
    if invocation.flags.bool("auto-compact") {
        emit(format!("Compacting with revision {revision}\n").as_bytes())?;
        let request = pb::CompactionRequest { revision, physical: true };
        client.with_timeout(CLEANUP_TIMEOUT).call(request).await.map_err(|error| failed(&error))?;
        emit(format!("Compacted with revision {revision}\n").as_bytes())?;
    }
    if invocation.flags.bool("auto-defrag") {
        for endpoint in session.endpoints(false).await? {
            defragment(session, &endpoint).await?;
        }
    }
    Ok(())
}

async fn defragment(session: &Session, endpoint: &str) -> Result<(), Failure> {
    let name = quote(endpoint.as_bytes());
    emit(format!("Defragmenting {name}\n").as_bytes())?;
    let client = session.connect_to(endpoint).await?.map_err(|error| failed(&error))?;
    let done = client.with_timeout(CLEANUP_TIMEOUT).call(pb::DefragmentRequest {}).await;
    done.map_err(|error| failed(&error))?;
    emit(format!("Defragmented {name}\n").as_bytes())
}

/// On a terminal, a line that tells how far the load is; it does not end by itself.
async fn show_progress(total: u64, done: impl Fn(Duration) -> u64) -> Result<Infallible, Failure> {
    let (show, start) = (std::io::stdout().is_terminal(), Instant::now());
    loop {
        let elapsed = start.elapsed();
        let done = done(elapsed).min(total);
        if show && done > 0 {
            let share = done as f64 / total as f64;
            let filled = "o".repeat((share * 40.0) as usize);
            let left = format_duration(Duration::from_secs(elapsed.div_f64(share).saturating_sub(elapsed).as_secs()));
            emit(format!("\r {done} / {total} B{filled:40}! {:.2}% {left:>5}", share * 100.0).as_bytes())?;
        }
        sleep(PROGRESS_INTERVAL).await;
    }
}

/// The last state of that line, which is all that is shown elsewhere.
fn show_end(total: u64, took: Duration) -> Result<(), Failure> {
    let show = std::io::stdout().is_terminal();
    let start = if show { "\r" } else { "" };
    let bar = if show { format!("B{}! ", "o".repeat(40)) } else { " ".to_owned() };
    emit(format!("{start} {total} / {total} {bar}100.00% {}\n", format_duration(took)).as_bytes())
}

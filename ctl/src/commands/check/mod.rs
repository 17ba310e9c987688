//! `check perf`: writes at a fixed rate for a minute and judges what came back.

pub mod load;
pub mod report;

use std::io::IsTerminal as _;
use std::time::Duration;

use cairn_proto::etcdserverpb as pb;
use tokio::time::{Instant, sleep};

use super::keys;
use crate::cli::Invocation;
use crate::connection::{CallError, Connection, method};
use crate::exit::{Failure, code};
use crate::golang::{format_duration, quote};
use crate::output::emit;
use crate::session::{Session, failed};
use load::Load;

/// How long cleaning up, compacting and defragmenting may take each.
const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs the command.
pub async fn perf(invocation: &Invocation) -> Result<(), Failure> {
    let flags = &invocation.flags;
    let name = flags.text("load");
    let Some(load) = Load::named(&name) else {
        return Err(Failure::bad_feature(format!("unknown load option {name}")));
    };
    let session = Session::new(invocation)?;
    let prefix = flags.bytes("prefix").to_vec();

    let mut clients = Vec::with_capacity(load.clients);
    for _ in 0..load.clients {
        clients.push(session.connect().await?);
    }
    let mut first = clients[0].clone();
    refuse_existing_keys(&mut first, &prefix, load.duration).await?;

    let progress = tokio::spawn(show_progress(load.duration));
    let results = tokio::select! {
        results = load.run(clients, &prefix) => results,
        _ = tokio::signal::ctrl_c() => {
            progress.abort();
            clean_up(&mut first, &prefix, false).await?;
            return Err(Failure::silent(code::ERROR));
        }
    };
    progress.await.map_err(|error| Failure::error(format!("showing progress: {error}")))??;

    clean_up(&mut first, &prefix, flags.bool("auto-compact")).await?;
    if flags.bool("auto-defrag") {
        for endpoint in session.endpoints(false).await? {
            defragment(&first, &endpoint).await?;
        }
    }
    let (text, passed) = results.judge(load.limit);
    emit(text.as_bytes())?;
    if passed { Ok(()) } else { Err(Failure::silent(code::ERROR)) }
}

async fn refuse_existing_keys(client: &mut Connection, prefix: &[u8], timeout: Duration) -> Result<(), Failure> {
    let (key, range_end) = keys::prefix(prefix);
    let request = pb::RangeRequest { key, range_end, limit: 1, ..Default::default() };
    let answer: pb::RangeResponse =
        client.unary(method::RANGE, &request, Some(Instant::now() + timeout)).await.map_err(failed)?;
    if answer.kvs.is_empty() {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(prefix);
    let text = format!("prefix {} has keys. Delete with 'cairnctl del --prefix {shown}' first", quote(prefix));
    Err(Failure::new(code::INVALID_INPUT, text))
}

/// Deletes what the load wrote, and if asked gives the history of it up.
async fn clean_up(client: &mut Connection, prefix: &[u8], compact: bool) -> Result<(), Failure> {
    let deadline = || Some(Instant::now() + CLEANUP_TIMEOUT);
    let (key, range_end) = keys::prefix(prefix);
    let request = pb::DeleteRangeRequest { key, range_end, prev_kv: false };
    let deleted: Result<pb::DeleteRangeResponse, CallError> =
        client.unary(method::DELETE_RANGE, &request, deadline()).await;
    let revision = match deleted {
        Ok(answer) => answer.header.unwrap_or_default().revision,
        Err(error) => {
            return emit(format!("FAIL: Cleanup failed during key deletion: ERROR({error})\n").as_bytes());
        }
    };
    if compact {
        emit(format!("Compacting with revision {revision}\n").as_bytes())?;
        let request = pb::CompactionRequest { revision, physical: true };
        let _: pb::CompactionResponse = client.unary(method::COMPACT, &request, deadline()).await.map_err(failed)?;
        emit(format!("Compacted with revision {revision}\n").as_bytes())?;
    }
    Ok(())
}

async fn defragment(client: &Connection, endpoint: &str) -> Result<(), Failure> {
    let name = quote(endpoint.as_bytes());
    emit(format!("Defragmenting {name}\n").as_bytes())?;
    let mut member = client.at(endpoint)?;
    let deadline = Some(Instant::now() + CLEANUP_TIMEOUT);
    let _: pb::DefragmentResponse =
        member.unary(method::DEFRAGMENT, &pb::DefragmentRequest {}, deadline).await.map_err(failed)?;
    emit(format!("Defragmented {name}\n").as_bytes())
}

/// A line that counts the seconds on a terminal; elsewhere only its last state.
async fn show_progress(duration: Duration) -> Result<(), Failure> {
    let total = duration.as_secs();
    let show = std::io::stdout().is_terminal();
    for second in 0..=total {
        let share = second as f64 / total.max(1) as f64;
        if show && second < total {
            let filled = "o".repeat((share * 40.0) as usize);
            let left = format_duration(Duration::from_secs(total - second));
            emit(format!("\r {second} / {total} B{filled:40}! {:.2}% {left:>5}", share * 100.0).as_bytes())?;
        }
        if second < total {
            sleep(Duration::from_secs(1)).await;
        }
    }
    let start = if show { "\r" } else { "" };
    let bar = if show { format!("B{}! ", "o".repeat(40)) } else { " ".to_owned() };
    emit(format!("{start} {total} / {total} {bar}100.00% {}\n", format_duration(duration)).as_bytes())
}

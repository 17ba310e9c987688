//! `check perf`: writes at a fixed rate for a minute and judges what came back.

pub mod load;
pub mod report;

use std::io::IsTerminal as _;
use std::time::Duration;

use cairn_client::Client;
use cairn_proto::etcdserverpb as pb;
use tokio::time::sleep;

use super::keys;
use crate::cli::Invocation;
use crate::connection::error_text;
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
    let first = clients[0].clone();
    refuse_existing_keys(&first, &prefix, load.duration).await?;

    let progress = tokio::spawn(show_progress(load.duration));
    let results = tokio::select! {
        results = load.run(clients, &prefix) => results,
        _ = tokio::signal::ctrl_c() => {
            progress.abort();
            clean_up(&first, &prefix, false).await?;
            return Err(Failure::silent(code::ERROR));
        }
    };
    progress.await.map_err(|error| Failure::error(format!("showing progress: {error}")))??;

    clean_up(&first, &prefix, flags.bool("auto-compact")).await?;
    if flags.bool("auto-defrag") {
        for endpoint in session.endpoints(false).await? {
            defragment(&session, &endpoint).await?;
        }
    }
    let (text, passed) = results.judge(load.limit);
    emit(text.as_bytes())?;
    if passed { Ok(()) } else { Err(Failure::silent(code::ERROR)) }
}

async fn refuse_existing_keys(client: &Client, prefix: &[u8], timeout: Duration) -> Result<(), Failure> {
    let (key, range_end) = keys::prefix(prefix);
    let request = pb::RangeRequest { key, range_end, limit: 1, ..Default::default() };
    let answer = client.with_timeout(timeout).call(request).await.map_err(|error| failed(&error))?;
    if answer.kvs.is_empty() {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(prefix);
    let text = format!("prefix {} has keys. Delete with 'cairnctl del --prefix {shown}' first", quote(prefix));
    Err(Failure::new(code::INVALID_INPUT, text))
}

/// Deletes what the load wrote, and if asked gives the history of it up.
async fn clean_up(client: &Client, prefix: &[u8], compact: bool) -> Result<(), Failure> {
    let client = client.with_timeout(CLEANUP_TIMEOUT);
    let (key, range_end) = keys::prefix(prefix);
    let revision = match client.call(pb::DeleteRangeRequest { key, range_end, prev_kv: false }).await {
        Ok(answer) => answer.header.unwrap_or_default().revision,
        Err(error) => {
            let text = format!("FAIL: Cleanup failed during key deletion: ERROR({})\n", error_text(&error));
            return emit(text.as_bytes());
        }
    };
    if compact {
        emit(format!("Compacting with revision {revision}\n").as_bytes())?;
        let request = pb::CompactionRequest { revision, physical: true };
        client.call(request).await.map_err(|error| failed(&error))?;
        emit(format!("Compacted with revision {revision}\n").as_bytes())?;
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

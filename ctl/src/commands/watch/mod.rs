//! `watch`: tells what happens to keys until it is interrupted, or until the watch ends.

mod backlog;
mod wanted;

use std::convert::Infallible;
use std::future::pending;
use std::io::BufRead as _;

use bytes::Bytes;
use cairn_client::{Client, KeyRange, WatchAnswer, WatchError, Watcher};
use tokio::sync::mpsc;

use super::execute::{self, Executed};
use super::{keys, txn};
use crate::cli::Invocation;
use crate::cli::env::lookup;
use crate::connection::error_text;
use crate::exit::{Failure, code};
use crate::golang::{quote, quote_list};
use crate::output::{Printer, Watched, aside, emit};
use crate::session::Session;
use backlog::{ANSWERS_AHEAD, Told, backlog};
use wanted::{Line, Wanted};

/// Lines read from standard input that may wait; who types ahead further waits.
const LINES_MAX: usize = 16;

/// MiB of events that are kept while the output takes none.
const BACKLOG_MIB_MAX: u32 = 256;

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let variable = |name| lookup(&invocation.environment, name).unwrap_or_default();
    let (key, end) = (variable("ETCDCTL_WATCH_KEY"), variable("ETCDCTL_WATCH_RANGE_END"));
    if key.is_empty() && !end.is_empty() {
        let text = format!("ETCDCTL_WATCH_KEY is empty but got ETCDCTL_WATCH_RANGE_END={}", quote(end));
        return Err(Failure::bad_args(text));
    }
    let preset: Vec<_> = [key, end].into_iter().filter(|word| !word.is_empty()).map(<[u8]>::to_vec).collect();
    if invocation.flags.bool("interactive") {
        return interactive(invocation, &preset).await;
    }
    let wanted = Wanted::read(&invocation.flags, &invocation.args, &invocation.words, &preset)?;
    let range = wanted.range().map_err(Failure::bad_args)?;
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let client = session.connect().await?.with_timeout(None);
    follow(&client, range, &wanted, session.printer).await?;
    Err(Failure::new(code::INTERRUPTED, "watch is canceled by the server"))
}

/// Watches as lines on standard input say.
async fn interactive(invocation: &Invocation, preset: &[Vec<u8>]) -> Result<(), Failure> {
    let session = Session::new(invocation)?;
    session.printer.expect_answer()?;
    let client = session.connect().await?.with_timeout(None);
    let mut lines = lines();
    let mut watches = tokio::task::JoinSet::new();
    // A watch without events that hears of progress as long as this one lives: a question about it needs a stream.
    let mut ask: Option<mpsc::Sender<()>> = None;
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            Some(ended) = watches.join_next() => match ended {
                Ok(Err(failure)) => return Err(failure),
                _ => continue,
            },
        };
        let line = line.ok_or_else(|| Failure::new(code::INVALID_INPUT, "error reading watch request line: EOF"))?;
        let words = txn::words::split(&line).map_err(|error| Failure::new(code::INVALID_INPUT, error.to_string()))?;
        let shown = String::from_utf8_lossy(&line).into_owned();
        match words.first().map(Vec::as_slice) {
            None => eprintln!("Invalid command: {shown} (watch and progress supported)"),
            Some(b"watch") if words.len() < 2 && preset.is_empty() => {
                eprintln!("Invalid command {shown} (command type or key is not provided)");
            }
            Some(b"watch") => {
                let wanted = match Wanted::of_line(&words[1..], preset)? {
                    Line::Watch(wanted) => wanted,
                    Line::Help => continue,
                };
                match wanted.range() {
                    Err(error) => eprintln!("Invalid command {shown} ({error})"),
                    Ok(range) => {
                        let (sender, asked) = mpsc::channel(1);
                        ask = Some(sender);
                        let (client, printer) = (client.clone(), session.printer);
                        watches.spawn(async move { follow_asked(&client, range, &wanted, printer, asked).await });
                    }
                }
            }
            Some(b"progress") => {
                if let Some(ask) = &ask {
                    // If the question before has not been put yet, one answer is as good as two.
                    let _ = ask.try_send(());
                }
            }
            Some(_) => eprintln!("Invalid command {shown} (only support watch)"),
        }
    }
}

/// The lines of standard input, without their ends. A last one without an end does not count.
fn lines() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    // A thread of its own, because nothing else can wait for standard input; it ends with the program.
    std::thread::spawn(move || {
        let mut input = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            match input.read_until(b'\n', &mut line) {
                Ok(_) if line.pop() == Some(b'\n') && sender.blocking_send(line).is_ok() => {}
                _ => return,
            }
        }
    });
    receiver
}

async fn follow(client: &Client, range: KeyRange, wanted: &Wanted, printer: Printer) -> Result<(), Failure> {
    let (_nobody, asked) = mpsc::channel(1);
    follow_asked(client, range, wanted, printer, asked).await
}

/// Watches and prints until the watch ends; asks for progress when told to.
async fn follow_asked(
    client: &Client,
    range: KeyRange,
    wanted: &Wanted,
    printer: Printer,
    mut asked: mpsc::Receiver<()>,
) -> Result<(), Failure> {
    let mut watch = client.watch(range).revision(wanted.revision).require_leader().buffer(ANSWERS_AHEAD);
    if wanted.prev_kv {
        watch = watch.prev_kv();
    }
    if wanted.progress_notify {
        watch = watch.progress_notify();
    }
    let mut watcher: Watcher = match watch.await {
        Ok(watcher) => watcher,
        Err(error) => return over(&error, printer),
    };
    let (mut backlog, mut told) = backlog(BACKLOG_MIB_MAX * 1024);
    let fetching = async {
        loop {
            let answer = tokio::select! {
                answer = watcher.next() => answer,
                Some(()) = asked.recv() => {
                    // An end of the watch is told by the watch.
                    let _ = watcher.request_progress().await;
                    continue;
                }
            };
            match answer {
                Ok(answer) => backlog.add(answer).await,
                Err(error) => {
                    backlog.end(error);
                    return pending::<Infallible>().await;
                }
            }
        }
    };
    let showing = async {
        while let Some(told) = told.recv().await {
            match told {
                Told::Answer(answer, _room) => show(answer, wanted, printer).await?,
                Told::Over { error, was_full } => {
                    if was_full && matches!(error, WatchError::Compacted { .. }) {
                        eprintln!(
                            "the output was more than {BACKLOG_MIB_MAX} MiB behind, and what followed has been compacted \
                             meanwhile"
                        );
                    }
                    return over(&error, printer);
                }
            }
        }
        Ok(())
    };
    tokio::select! {
        ended = showing => ended,
        never = fetching => match never {},
    }
}

async fn show(answer: WatchAnswer, wanted: &Wanted, printer: Printer) -> Result<(), Failure> {
    let revision = answer.header.revision;
    let events = answer.events.clone();
    aside(move || {
        if answer.is_progress() {
            emit(format!("progress notify: {revision}\n").as_bytes())?;
        }
        printer.watch(&Watched { header: answer.header, events: Some(answer.events), ..Default::default() })
    })
    .await?;
    if wanted.command.is_empty() {
        return Ok(());
    }
    for event in events {
        let kind = event.r#type().as_str_name();
        let kv = event.kv.unwrap_or_default();
        let variables = vec![
            ("ETCD_WATCH_REVISION", revision.to_string()),
            ("ETCD_WATCH_EVENT_TYPE", quote(kind.as_bytes())),
            ("ETCD_WATCH_KEY", quote(&kv.key)),
            ("ETCD_WATCH_VALUE", quote(&kv.value)),
        ];
        if let Executed::Failed { reason, .. } = execute::run(&wanted.command, variables).await? {
            eprintln!("command {} error ({reason})", quote_list(&wanted.command));
            return Err(Failure::silent(code::ERROR));
        }
    }
    Ok(())
}

/// Tells that and why the watch is over.
fn over(error: &WatchError, printer: Printer) -> Result<(), Failure> {
    let told = match error {
        WatchError::Compacted { compact_revision, header } => {
            Watched { header: *header, events: Some(Vec::new()), compact_revision: *compact_revision, canceled: true }
        }
        _ => Watched { canceled: true, ..Default::default() },
    };
    let text = match error {
        WatchError::Failed(error) => error_text(error),
        other => other.to_string(),
    };
    eprintln!("watch was canceled ({text})");
    printer.watch(&told)
}

/// The range that a key, and perhaps an end, describe.
fn range(key: &[u8], end: Option<&[u8]>, prefix: bool) -> KeyRange {
    let (key, end) = match end {
        None if prefix => keys::prefix(key),
        None => (Bytes::copy_from_slice(key), Bytes::new()),
        Some(end) => (Bytes::copy_from_slice(key), Bytes::copy_from_slice(end)),
    };
    // The empty key watches from the smallest one on.
    KeyRange::between(if key.is_empty() { Bytes::from_static(keys::OPEN) } else { key }, end)
}

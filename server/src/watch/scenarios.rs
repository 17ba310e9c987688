//! Readable scenarios (testdata/): what happens goes in, what clients are told comes out. `UPDATE_GOLDENFILES=1` writes what happens now.
//!
//! ```text
//! put KEY [VALUE], delete KEY [END], txn "put a 1; delete b"          batch "put a 1; put a 2" (revisions that are published together)
//! compact REVISION, remove (the physical part)                        dispatch (events go to the mailboxes of live watchers)
//! watch KEY [END] [rev=N] [id=N] [prev] [noput] [nodelete] [fragment] [notify]
//! cancel ID, progress, refuse REASON, tick                            requests, and time that passes
//! forbid KEY                                                          permissions change: KEY may not be watched
//! poll [N] (what there is to do: answers, or a piece to read)         read (the piece, which is handed in)
//! drain (dispatches, polls and reads until nothing is left)           counts (watchers, those behind, events that wait)
//! ```
//! In tests a mailbox holds 6 events and 2 for each watcher, an answer 100 bytes, a look at the window 3 events. The window has room for about six events.
//! The numbers of two watchers that were compacted are kept.

use std::{
    error::Error,
    fmt::Write as _,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{
    ApiError,
    etcdserverpb::{
        self as pb, WatchCreateRequest, WatchRequest, request_op, watch_create_request::FilterType,
        watch_request::RequestUnion,
    },
    mvccpb::KeyValue,
};
use goldenscript::Argument;
use prost::Message;

use super::{CatchUp, Step, StreamOptions, WatchAnswer, WatchEvent, WatchStream, tests::Member};
use crate::{
    golden::golden,
    state::{auth::Authorizer, command::Request, mvcc::ChangeSink},
};

type Told = Result<String, Box<dyn Error>>;

/// About six events.
const WINDOW_BYTES: usize = 1000;
/// More steps than any scenario takes.
const STEPS_MAX: usize = 1000;

struct Scene {
    stream: WatchStream,
    job: Option<CatchUp>,
    member: Member,
    /// Watchers from here on are not permitted.
    forbidden: Bytes,
}

/// The words of a command, and its values by name.
struct Words<'a>(&'a [Argument]);

impl Words<'_> {
    const FLAGS: [&'static str; 5] = ["prev", "noput", "nodelete", "fragment", "notify"];

    fn at(&self, at: usize) -> Option<&str> {
        let mut words = self.0.iter().filter_map(|argument| match argument {
            Argument::Positional(word) if !Self::FLAGS.contains(&word.as_str()) => Some(word.as_str()),
            _ => None,
        });
        words.nth(at)
    }

    fn bytes(&self, at: usize) -> Bytes {
        self.at(at).map(|word| word.replace("\\0", "\0").into_bytes().into()).unwrap_or_default()
    }

    fn number(&self, name: &str) -> i64 {
        let named = self.0.iter().find_map(|argument| match argument {
            Argument::KeyValue(key, value) if key == name => Some(value),
            _ => None,
        });
        named.map_or(0, |value| value.parse().unwrap())
    }

    fn flag(&self, flag: &str) -> bool {
        self.0.iter().any(|argument| matches!(argument, Argument::Positional(word) if word == flag))
    }

    fn filters(&self) -> Vec<i32> {
        let mut filters = Vec::new();
        filters.extend(self.flag("noput").then_some(FilterType::Noput as i32));
        filters.extend(self.flag("nodelete").then_some(FilterType::Nodelete as i32));
        filters
    }
}

/// Operations such as `put a 1; delete b`.
fn ops(text: &str) -> Result<Vec<request_op::Request>, Box<dyn Error>> {
    let op = |text: &str| {
        let words: Vec<_> = text.split_whitespace().map(|word| Bytes::from(word.to_owned())).collect();
        let word = |at: usize| words.get(at).cloned().unwrap_or_default();
        Ok(match &word(0)[..] {
            b"put" => {
                request_op::Request::RequestPut(pb::PutRequest { key: word(1), value: word(2), ..Default::default() })
            }
            b"delete" => request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
                key: word(1),
                range_end: word(2),
                prev_kv: false,
            }),
            _ => return Err(format!("no operation: {text}").into()),
        })
    };
    text.split(';').map(op).collect()
}

impl Scene {
    fn new() -> Self {
        let member = Member::new(WINDOW_BYTES);
        Self {
            stream: member.hub.open(StreamOptions { fragment_bytes: 100 }),
            job: None,
            member,
            forbidden: Bytes::new(),
        }
    }

    fn request(&mut self, union: RequestUnion) {
        self.stream.request(WatchRequest { request_union: Some(union) }, |_| Ok(Authorizer::default().own()));
    }

    /// Applies requests and tells the revision after them.
    fn apply(&mut self, requests: Vec<Request>) -> String {
        self.member.apply(requests);
        format!("revision {}\n", self.member.revision())
    }

    /// One thing that there is to do; nothing if there is none.
    fn poll(&mut self, out: &mut String) -> Result<bool, Box<dyn Error>> {
        let mut context = Context::from_waker(Waker::noop());
        match self.stream.poll_next(&mut context) {
            Poll::Pending => return Ok(false),
            Poll::Ready(Step::Closed) => writeln!(out, "closed")?,
            Poll::Ready(Step::Recheck) => {
                writeln!(out, "the watchers are checked")?;
                let forbidden = &self.forbidden;
                self.stream.recheck(|interest| {
                    let permitted = interest.from != *forbidden;
                    permitted.then(|| Authorizer::default().own()).ok_or(ApiError::PermissionDenied)
                });
            }
            Poll::Ready(Step::Read(job)) => {
                writeln!(out, "a piece is to be read")?;
                self.job = Some(job);
            }
            Poll::Ready(Step::Answer(answer)) => out.push_str(&tell(&answer)?),
        }
        Ok(true)
    }

    fn read(&mut self) -> Result<(), Box<dyn Error>> {
        let job = self.job.take().ok_or("nothing is to be read")?;
        self.stream.caught_up(job.run()?);
        Ok(())
    }

    fn drain(&mut self) -> Told {
        let mut out = String::new();
        for _ in 0..STEPS_MAX {
            self.member.dispatch();
            if self.poll(&mut out)? {
                continue;
            }
            if self.job.is_none() {
                return Ok(out);
            }
            self.read()?;
        }
        Err("there is no end to it".into())
    }
}

fn tell(answer: &WatchAnswer) -> Told {
    let mut out = String::new();
    let whom = if answer.watch_id == super::NO_WATCHER { "nobody".into() } else { format!("{}", answer.watch_id) };
    let said = match (answer.created, answer.canceled, answer.events.is_empty()) {
        (true, false, _) => "created",
        (true, true, _) => "created and canceled",
        (false, true, _) => "canceled",
        (false, false, true) => "progress",
        (false, false, false) => "events",
    };
    write!(out, "{said} {whom} at {}", answer.revision)?;
    if answer.compact_revision != 0 {
        write!(out, " compacted {}", answer.compact_revision)?;
    }
    if !answer.cancel_reason.is_empty() {
        write!(out, " because {:?}", answer.cancel_reason)?;
    }
    if answer.fragment {
        write!(out, " (more follows)")?;
    }
    out.push('\n');
    for event in &answer.events {
        tell_event(&mut out, event)?;
    }
    Ok(out)
}

fn tell_event(out: &mut String, event: &WatchEvent) -> Result<(), Box<dyn Error>> {
    let kv = KeyValue::decode(&event.change.stored[..])?;
    let (key, value) = (kv.key.escape_ascii(), kv.value.escape_ascii());
    if event.change.tombstone {
        write!(out, "  {} delete {key}", event.change.at.main)?;
    } else {
        write!(out, "  {} put {key}={value} created {}", event.change.at.main, kv.create_revision)?;
    }
    if let Some(previous) = &event.previous {
        let kv = KeyValue::decode(&previous[..])?;
        write!(out, " was {}={} of {}", kv.key.escape_ascii(), kv.value.escape_ascii(), kv.mod_revision)?;
    }
    out.push('\n');
    Ok(())
}

impl goldenscript::Runner for Scene {
    type Command = goldenscript::Command;

    fn run(&mut self, command: &Self::Command, _: &goldenscript::Context) -> Told {
        let words = Words(&command.args);
        let first = words.at(0).unwrap_or_default();
        match command.name.as_str() {
            name @ ("put" | "delete") => {
                let all: Vec<_> = (0..3).map_while(|at| words.at(at)).collect();
                let op = ops(&format!("{name} {}", all.join(" ")))?;
                Ok(self.apply(op.into_iter().map(alone).collect()))
            }
            "batch" => {
                let ops = ops(first)?;
                Ok(self.apply(ops.into_iter().map(alone).collect()))
            }
            "txn" => {
                let success = ops(first)?.into_iter().map(|op| pb::RequestOp { request: Some(op) }).collect();
                Ok(self.apply(vec![Request::Txn(pb::TxnRequest { success, ..Default::default() })]))
            }
            "compact" => {
                let revision = first.parse()?;
                Ok(self.apply(vec![Request::Compact(pb::CompactionRequest { revision, physical: false })]))
            }
            "remove" => {
                for _ in 0..STEPS_MAX {
                    self.member.compactor.step(Duration::ZERO)?;
                }
                Ok(String::new())
            }
            "dispatch" => {
                self.member.dispatch();
                Ok(String::new())
            }
            "watch" => {
                self.request(RequestUnion::CreateRequest(WatchCreateRequest {
                    key: words.bytes(0),
                    range_end: words.bytes(1),
                    start_revision: words.number("rev"),
                    watch_id: words.number("id"),
                    prev_kv: words.flag("prev"),
                    filters: words.filters(),
                    fragment: words.flag("fragment"),
                    progress_notify: words.flag("notify"),
                }));
                Ok(String::new())
            }
            "cancel" => {
                self.request(RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: first.parse()? }));
                Ok(String::new())
            }
            "progress" => {
                self.request(RequestUnion::ProgressRequest(pb::WatchProgressRequest {}));
                Ok(String::new())
            }
            "refuse" => {
                let create =
                    WatchRequest { request_union: Some(RequestUnion::CreateRequest(WatchCreateRequest::default())) };
                self.stream.request(create, |_| Err(ApiError::PermissionDenied));
                Ok(String::new())
            }
            "forbid" => {
                self.forbidden = words.bytes(0);
                self.member.hub.permissions_changed();
                Ok(String::new())
            }
            "tick" => {
                self.stream.tick();
                Ok(String::new())
            }
            "poll" => {
                let mut out = String::new();
                for _ in 0..first.parse().unwrap_or(1) {
                    if !self.poll(&mut out)? {
                        out.push_str("nothing to do\n");
                        break;
                    }
                }
                Ok(out)
            }
            "read" => {
                self.read()?;
                Ok(String::new())
            }
            "drain" => self.drain(),
            "counts" => {
                let metrics = self.member.hub.metrics();
                let (watchers, slow, pending) = (metrics.watchers.get(), metrics.slow.get(), metrics.pending.get());
                Ok(format!("watchers {watchers}, behind {slow}, events that wait {pending}\n"))
            }
            other => Err(format!("unknown command {other}").into()),
        }
    }
}

/// An operation as a request of its own.
fn alone(op: request_op::Request) -> Request {
    match op {
        request_op::Request::RequestPut(put) => Request::Put(put),
        request_op::Request::RequestDeleteRange(delete) => Request::DeleteRange(delete),
        other => panic!("no operation of a scenario: {other:?}"),
    }
}

golden! {
    "src/watch/testdata", Scene::new(),
    a_canceled_watcher_is_told_nothing_of_what_was_queued_for_it
    a_full_queue_is_made_good_from_the_window_or_the_store
    a_progress_request_is_not_answered_while_a_watcher_is_behind
    a_revision_is_told_whole_however_full_the_queue_is
    a_start_after_the_newest_revision_waits_for_it
    an_answer_with_events_is_no_bookmark_while_a_watcher_catches_up
    periodic_progress_comes_after_silence_and_only_in_sync
    previous_values_are_told_unless_they_were_compacted_away
    the_number_of_a_compacted_watcher_is_in_use_until_it_is_canceled
    watchers_of_a_stream_take_turns
    what_was_behind_when_it_was_compacted_is_told_so
    who_may_not_watch_any_more_is_told_no_later_event
    who_may_not_watch_is_told_why
}

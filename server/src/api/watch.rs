//! The Watch service: drives a stream of the hub for one client.
//!
//! The hub decides what is sent; here is what it has not: the client's requests, time, threads that may wait for the
//! disk, headers and the wire.

use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use cairn_proto::{
    ApiError,
    etcdserverpb::{WatchCreateRequest, WatchRequest, watch_create_request::FilterType, watch_request::RequestUnion},
    rpc::Method,
};
use futures::{FutureExt, Stream, StreamExt, future::BoxFuture, stream};
use prost::Message as _;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tonic::Code;

use super::{
    Context,
    answer::{Answer, Header},
    refusal::Refusal,
    wire,
};
use crate::{
    audit::{Audit, Caller, Outcome, Trail},
    state::{
        auth::{Need, Permit, Principal},
        mvcc::ReadError,
    },
    watch::{CaughtUp, Hub, Step, StreamOptions, WatchAnswer, WatchEvent, WatchStream},
};

/// What the interval of a stream is longer than configured at most, as a part of it.
const PROGRESS_SPREAD: f64 = 0.1;
/// What a response may exceed the request limit by before it is split for those who want that.
const FRAGMENT_SLACK_BYTES: usize = 512 << 10;

/// One answer with events in so many is measured, beginning with the first.
const MEASURED_PART: u32 = 16;

/// The Watch service. Clones are cheap.
#[derive(Clone)]
pub struct Watches {
    context: Arc<Context>,
}

impl Watches {
    pub(super) fn new(context: Arc<Context>) -> Self {
        Self { context }
    }

    fn hub(&self) -> &Hub {
        self.context.node.hub()
    }

    fn open(&self) -> WatchStream {
        self.hub().open(StreamOptions { fragment_bytes: self.context.max_request_bytes + FRAGMENT_SLACK_BYTES })
    }

    /// Serves one client: its requests in, everything it is told out. The end of the requests does not end the watchers;
    /// dropping the answers does. Watchers are put on record in `audit`.
    pub fn watch<S>(
        &self,
        principal: &Principal,
        requests: S,
        audit: Option<(Arc<Audit>, Caller)>,
    ) -> impl Stream<Item = Result<WatchReply, Refusal>> + Send + use<S>
    where
        S: Stream<Item = WatchRequest> + Send + 'static,
    {
        let session = Session {
            context: self.context.clone(),
            principal: principal.clone(),
            permit: None,
            audit,
            requests: Some(Box::pin(requests)),
            stream: self.open(),
            reading: None,
            ticks: self.ticks(),
            sending: None,
            sent: 0,
        };
        stream::unfold(Some(session), |session| async move {
            let mut session = session?;
            session.has_sent();
            match session.next().await {
                Ok(answer) => Some((Ok(session.reply(answer)), Some(session))),
                Err(refusal) => Some((Err(refusal), None)),
            }
        })
    }

    /// Spread out, so that clients that connected together are not told together.
    fn ticks(&self) -> Interval {
        let interval = progress_interval(self.context.watch_progress_notify_interval, rand::random());
        let mut ticks = interval_at(Instant::now() + interval, interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    }

    /// Waits until `key` is deleted at revision `from` or later, and gives the revision of the delete. For whoever read
    /// the key at `from - 1`. Errors: that is compacted, or the server stops.
    pub async fn deleted(&self, key: Bytes, from: i64) -> Result<i64, Refusal> {
        let create = WatchCreateRequest {
            key,
            start_revision: from,
            filters: vec![FilterType::Noput.into()],
            ..WatchCreateRequest::default()
        };
        let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        let mut answers = Box::pin(self.watch(&Principal::Server, stream::iter([create]), None));
        while let Some(reply) = answers.next().await {
            let answer = reply?.answer;
            if let Some(event) = answer.events.first() {
                return Ok(event.change.at.main);
            }
            if answer.canceled {
                return Err(ApiError::Compacted.into());
            }
        }
        Err(ApiError::Stopped.into())
    }
}

/// How far apart the progress answers of one stream are: as long as was configured, and up to a tenth longer. `spread` is from 0 to 1.
fn progress_interval(configured: Duration, spread: f64) -> Duration {
    configured + configured.mul_f64(spread * PROGRESS_SPREAD)
}

/// One client's stream, as it runs.
struct Session {
    context: Arc<Context>,
    principal: Principal,
    /// The last one that was given for a watcher. All are for the same user, once it is known.
    permit: Option<Permit>,
    /// Where watchers are put on record, and whose they are.
    audit: Option<(Arc<Audit>, Caller)>,
    requests: Option<Pin<Box<dyn Stream<Item = WatchRequest> + Send>>>,
    stream: WatchStream,
    reading: Option<BoxFuture<'static, Result<Result<CaughtUp, ReadError>, Refusal>>>,
    ticks: Interval,
    /// When the last answer was handed over, and how many events are in it, if that is measured.
    sending: Option<(Instant, usize)>,
    /// Answers with events that were handed over.
    sent: u32,
}

impl Session {
    /// The next answer is asked for: the last one was taken.
    fn has_sent(&mut self) {
        let Some((since, events)) = self.sending.take() else { return };
        let (took, metrics) = (since.elapsed(), self.context.node.hub().metrics());
        match u32::try_from(events) {
            Ok(0) => metrics.send_control.observe(took),
            Ok(events) => {
                metrics.send_events.observe(took);
                metrics.send_per_event.observe(took / events);
            }
            Err(_) => {}
        }
    }

    /// An answer is handed over. To read the clock twice for each would cost a twentieth of what sending an event costs.
    fn sends(&mut self, events: usize) {
        let measured = events == 0 || self.sent.is_multiple_of(MEASURED_PART);
        self.sent = self.sent.wrapping_add(u32::from(events > 0));
        self.sending = measured.then(|| (Instant::now(), events));
    }

    /// The next answer. What comes first goes first: with much to send, requests get their turn all the same.
    async fn next(&mut self) -> Result<WatchAnswer, Refusal> {
        loop {
            let settled = self.stream.is_settled();
            tokio::select! {
                request = next_of(&mut self.requests), if settled && self.requests.is_some() => match request {
                    Some(request) => {
                        self.context.check_intact()?;
                        let trail = self.follow(&request);
                        let Self { context, principal, permit, stream, .. } = self;
                        let mut refused = None;
                        stream.request(request, |interest| {
                            let need = Need::Watch(&interest.from, &interest.end);
                            let given = context.authorizer.authorize(principal, need);
                            match &given {
                                Ok(given) => *permit = Some(given.clone()),
                                Err(error) => refused = Some(*error),
                            }
                            given
                        });
                        let waiting = trail.and_then(|trail| {
                            let (code, error) = refused.map_or((Code::Ok, ""), |error| (error.code(), error.text()));
                            trail.end(&Outcome { code, error, answer: &[] })
                        });
                        if let Some(waiting) = waiting {
                            waiting.wait().await;
                        }
                    }
                    None => self.requests = None,
                },
                step = poll_fn(|cx| self.stream.poll_next(cx)) => match step {
                    Step::Answer(answer) => return Ok(answer),
                    Step::Read(job) => {
                        self.context.check_intact()?;
                        let context = self.context.clone();
                        self.reading = Some(async move { context.catch_up(job).await }.boxed());
                    }
                    Step::Recheck => self.recheck(),
                    Step::Closed => return Err(ApiError::Stopped.into()),
                },
                read = next_of_read(&mut self.reading), if self.reading.is_some() => {
                    self.reading = None;
                    let caught = self.context.read(read?)?;
                    self.stream.caught_up(caught);
                }
                _ = self.ticks.tick(), if settled => {
                    let began = Instant::now();
                    self.stream.tick();
                    self.context.node.hub().metrics().progress.observe(began.elapsed());
                }
            }
        }
    }

    /// Follows the creation of a watcher.
    fn follow(&self, request: &WatchRequest) -> Option<Trail> {
        let (audit, caller) = self.audit.as_ref()?;
        let Some(RequestUnion::CreateRequest(_)) = &request.request_union else { return None };
        let mut trail = audit.follow(Method::Watch, || caller.clone())?;
        trail.request(request.encode_to_vec().into());
        Some(trail)
    }

    /// Users or roles have changed: ends the watchers that are not permitted any more.
    fn recheck(&mut self) {
        let Self { context, principal, permit, stream, .. } = self;
        // Without a permit there is no watcher.
        let Some(before) = permit.take() else { return };
        stream.recheck(|interest| {
            let need = Need::Watch(&interest.from, &interest.end);
            let given = context.authorizer.authorize_again(&before, principal, need);
            given.inspect(|given| *permit = Some(given.clone()))
        });
        permit.get_or_insert(before);
    }

    fn reply(&mut self, answer: WatchAnswer) -> WatchReply {
        self.sends(answer.events.len());
        WatchReply { header: self.context.header(answer.revision), answer }
    }
}

async fn next_of(requests: &mut Option<Pin<Box<dyn Stream<Item = WatchRequest> + Send>>>) -> Option<WatchRequest> {
    requests.as_mut()?.next().await
}

async fn next_of_read<T>(reading: &mut Option<BoxFuture<'static, T>>) -> T {
    match reading {
        Some(reading) => reading.await,
        None => std::future::pending().await,
    }
}

/// `WatchResponse`.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchReply {
    /// Who answered.
    pub header: Header,
    /// What is said.
    pub answer: WatchAnswer,
}

/// The field of events.
const EVENTS: u8 = 11;

impl Answer for WatchReply {
    fn wire_len(&self) -> usize {
        let answer = &self.answer;
        let reason = answer.cancel_reason.len();
        self.header.field_len()
            + wire::integer_len(answer.watch_id as u64)
            + wire::integer_len(u64::from(answer.created))
            + wire::integer_len(u64::from(answer.canceled))
            + wire::integer_len(answer.compact_revision as u64)
            + if reason == 0 { 0 } else { wire::delimited_len(reason) }
            + wire::integer_len(u64::from(answer.fragment))
            + answer.events.iter().map(|event| wire::delimited_len(event_len(event))).sum::<usize>()
    }

    fn write(&self, out: &mut BytesMut) {
        let answer = &self.answer;
        self.header.put_field(out);
        wire::put_integer(out, 2, answer.watch_id as u64);
        wire::put_integer(out, 3, u64::from(answer.created));
        wire::put_integer(out, 4, u64::from(answer.canceled));
        wire::put_integer(out, 5, answer.compact_revision as u64);
        if !answer.cancel_reason.is_empty() {
            wire::put_delimiter(out, 6, answer.cancel_reason.len());
            out.put_slice(answer.cancel_reason.as_bytes());
        }
        wire::put_integer(out, 7, u64::from(answer.fragment));
        for event in &answer.events {
            wire::put_delimiter(out, EVENTS, event_len(event));
            put_event(out, event);
        }
    }
}

/// Bytes of `mvccpb.Event.kv`: the value as it is stored; a delete's is stored without its revision.
fn kv_len(event: &WatchEvent) -> usize {
    let change = &event.change;
    change.stored.len() + if change.tombstone { wire::integer_len(change.at.main as u64) } else { 0 }
}

fn event_len(event: &WatchEvent) -> usize {
    wire::integer_len(u64::from(event.change.tombstone))
        + wire::delimited_len(kv_len(event))
        + event.previous.as_ref().map_or(0, |previous| wire::delimited_len(previous.len()))
}

fn put_event(out: &mut BytesMut, event: &WatchEvent) {
    let change = &event.change;
    wire::put_integer(out, 1, u64::from(change.tombstone));
    wire::put_delimiter(out, 2, kv_len(event));
    out.put_slice(&change.stored);
    if change.tombstone {
        wire::put_integer(out, 3, change.at.main as u64);
    }
    if let Some(previous) = &event.previous {
        wire::put_delimiter(out, 3, previous.len());
        out.put_slice(previous);
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::{etcdserverpb as pb, mvccpb};
    use prost::Message;

    use super::*;
    use crate::state::mvcc::{Change, revision::Revision};

    fn kv(key: &'static str, modified: i64, value: &'static str) -> mvccpb::KeyValue {
        let (key, value) = (key.into(), value.into());
        mvccpb::KeyValue { key, value, create_revision: 2, mod_revision: modified, version: 3, lease: 0 }
    }

    fn event(kv: &mvccpb::KeyValue, at: i64, tombstone: bool, previous: Option<&mvccpb::KeyValue>) -> WatchEvent {
        let change = Change { at: Revision::new(at, 0), tombstone, stored: kv.encode_to_vec().into() };
        WatchEvent { change, previous: previous.map(|previous| previous.encode_to_vec().into()) }
    }

    #[test]
    fn progress_is_told_no_earlier_than_configured_and_a_tenth_later_at_most() {
        for least in [100, 101, 600_000].map(Duration::from_millis) {
            let after = |spread| progress_interval(least, spread);
            assert_eq!([after(0.0), after(0.5), after(1.0)], [least, least * 21 / 20, least * 11 / 10]);
        }
    }

    #[test]
    fn answers_are_written_as_their_message() {
        let header = Header { cluster_id: 1, member_id: 2, revision: 300, raft_term: 4 };
        let gone = mvccpb::KeyValue { key: "a".into(), ..Default::default() };
        let events = vec![
            event(&kv("a", 300, "new"), 300, false, Some(&kv("a", 7, "old"))),
            event(&kv("b", 300, "new"), 300, false, None),
            event(&gone, 1 << 40, true, Some(&kv("a", 8, ""))),
        ];
        let message = pb::WatchResponse {
            header: Some(header.into()),
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 17,
            cancel_reason: "why".into(),
            fragment: true,
            events: vec![
                mvccpb::Event { r#type: 0, kv: Some(kv("a", 300, "new")), prev_kv: Some(kv("a", 7, "old")) },
                mvccpb::Event { r#type: 0, kv: Some(kv("b", 300, "new")), prev_kv: None },
                mvccpb::Event {
                    r#type: 1,
                    kv: Some(mvccpb::KeyValue { mod_revision: 1 << 40, ..gone }),
                    prev_kv: Some(kv("a", 8, "")),
                },
            ],
        };
        let answer = WatchAnswer {
            revision: 300,
            watch_id: -1,
            created: true,
            canceled: true,
            compact_revision: 17,
            cancel_reason: "why",
            fragment: true,
            events,
        };
        let reply = WatchReply { header, answer };
        let mut out = BytesMut::new();
        reply.write(&mut out);
        assert_eq!(out.len(), reply.wire_len());
        assert_eq!(&out[..], &message.encode_to_vec()[..]);
        assert_eq!(reply.to_message::<pb::WatchResponse>(), Ok(message));
    }
}

//! Playing sequences on a pair of servers and comparing the answers.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use cairn_proto::etcdserverpb::{
    self as pb, CompactionRequest, DeleteRangeRequest, RangeRequest, ResponseHeader, auth_client::AuthClient,
    kv_client::KvClient, lease_client::LeaseClient, request_op, response_op, watch_client::WatchClient,
};
use tempfile::TempDir;
use tonic::transport::Channel;

use super::{
    Coverage, Plan, Sequence, Step, exceptions,
    users::{self, Caller, Tokens},
    watches::{Differing, MARKER, Streams, Told},
};
use crate::process::Member;

/// An answer with everything set aside that two equal servers may differ in.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// Of a put.
    Put(pb::PutResponse),
    /// Of a range.
    Range(pb::RangeResponse),
    /// Of a delete.
    DeleteRange(pb::DeleteRangeResponse),
    /// Of a transaction.
    Txn(pb::TxnResponse),
    /// Of a compaction.
    Compact(pb::CompactionResponse),
    /// Of a grant.
    Grant(pb::LeaseGrantResponse),
    /// Of a revoke.
    Revoke(pb::LeaseRevokeResponse),
    /// Of a question for a lease, the keys in order.
    TimeToLive(pb::LeaseTimeToLiveResponse),
    /// Of a keep-alive.
    KeepAlive(pb::LeaseKeepAliveResponse),
    /// Of a list of leases, by id.
    Leases(pb::LeaseLeasesResponse),
    /// Of a watch stream, to a request.
    Watch(Option<pb::WatchResponse>),
    /// Of the Auth service: the message as text, and its header.
    Auth(String, Option<ResponseHeader>),
    /// What the watch of a number was told.
    Told(i64, Vec<Told>),
    /// The status of a refused request.
    Refused(tonic::Code, String),
}

/// Where two servers' answers part.
#[derive(Debug, Clone)]
pub struct Difference {
    /// Which step of the sequence.
    pub step: usize,
    /// The request as sent.
    pub request: Step,
    /// What the genuine server said.
    pub genuine: Answer,
    /// What ours said.
    pub ours: Answer,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "step {}: {:?}\n  genuine: {:?}\n  ours:    {:?}", self.step, self.request, self.genuine, self.ours)
    }
}

/// How playing a sequence ended.
#[derive(Debug, Clone)]
pub enum Played {
    /// Every answer was equal.
    Equal,
    /// Answers parted.
    Differs(Box<Difference>),
    /// The genuine server ended itself on a request that ours survived; the pair is of no more use.
    GenuineEnded,
}

/// What a server is asked with.
struct Clients {
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
    watch: WatchClient<Channel>,
    auth: AuthClient<Channel>,
    tokens: Tokens,
}

/// After so many steps at most, all that watches were told is compared.
const SETTLE_EVERY: usize = 20;

/// Ids above this one, but for the largest, are not of a sequence but were drawn by a server.
const DRAWN_MIN: i64 = 1_000;

/// A genuine server and ours, started fresh.
pub struct Pair {
    genuine: (Member, Clients),
    ours: (Member, Clients),
    _directories: (TempDir, TempDir),
}

impl Pair {
    /// Starts both.
    pub async fn start(plan: &Plan) -> Result<Self> {
        let directories = (TempDir::new()?, TempDir::new()?);
        // Nothing here is about durability, and the genuine server is waited for at every request.
        let mut genuine = Member::new(
            &plan.etcd,
            directories.0.path(),
            &["--unsafe-no-fsync", "--log-level", "error", "--bcrypt-cost=4"],
        )?;
        let mut ours = Member::new(&plan.cairn, directories.1.path(), &["--log-level", "warn", "--bcrypt-cost=4"])?;
        let genuine_client = client(genuine.start().await?);
        let ours_client = client(ours.start().await?);
        Ok(Self { genuine: (genuine, genuine_client), ours: (ours, ours_client), _directories: directories })
    }

    /// Plays a sequence from an empty, compacted store on. Stops at the first difference.
    pub async fn play(&mut self, sequence: &Sequence, coverage: &mut Coverage) -> Result<Played> {
        let played = self.try_play(sequence, coverage).await;
        if played.is_err() && self.genuine.0.has_ended() {
            let probe = Step::Range(RangeRequest { key: "probe".into(), ..Default::default() });
            ask(&mut self.ours.1, &probe).await.with_context(|| self.ours.0.log_tail())?;
            coverage.note("the genuine server ended itself, ours answered");
            return Ok(Played::GenuineEnded);
        }
        played
    }

    async fn try_play(&mut self, sequence: &Sequence, coverage: &mut Coverage) -> Result<Played> {
        let mut newest = self.empty().await?;
        let mut compacted = newest;
        let mut streams = Streams::default();
        let differs = |step, request: &Step, genuine, ours| {
            Ok(Played::Differs(Box::new(Difference { step, request: request.clone(), genuine, ours })))
        };
        for (number, step) in sequence.steps.iter().enumerate() {
            let settle = match step {
                Step::Watch(stream, request) => streams.wants_settling(*stream, request),
                Step::Compact(_) => true,
                _ => number % SETTLE_EVERY == 0,
            };
            if settle && let Some((genuine, ours)) = self.settle(&mut streams, &mut newest, coverage).await? {
                return differs(number, step, genuine, ours);
            }
            let request = step.resolved(newest);
            if let Step::Watch(stream, union) = &request {
                coverage.requests += 1;
                let clients = (&mut self.genuine.1.watch, &mut self.ours.1.watch);
                let differing = streams.ask(clients, (*stream, union), (newest, compacted), coverage).await;
                if let Some((genuine, ours)) = differing.with_context(|| self.ours.0.log_tail())? {
                    return differs(number, &request, genuine, ours);
                }
                continue;
            }
            let (genuine, ours) = tokio::join!(ask(&mut self.genuine.1, &request), ask(&mut self.ours.1, &request));
            let mut ours = ours.with_context(|| self.ours.0.log_tail())?;
            exceptions::order_ties(request.request(), &mut ours);
            let mut genuine = genuine?;
            exceptions::order_ties(request.request(), &mut genuine);
            newest = revision(&genuine).unwrap_or(newest).max(newest);
            if let (Step::Compact(request), Answer::Compact(_)) = (request.request(), &genuine) {
                compacted = request.revision;
            }
            note(coverage, request.request(), &genuine, newest);
            if genuine != ours && !exceptions::explained(request.request(), &genuine, &ours) {
                return differs(number, &request, genuine, ours);
            }
        }
        match (self.settle(&mut streams, &mut newest, coverage).await?, sequence.steps.last()) {
            (Some((genuine, ours)), Some(last)) => differs(sequence.steps.len() - 1, last, genuine, ours),
            _ => Ok(Played::Equal),
        }
    }

    /// Waits until the streams have told everything, and compares it. The newest revision is another one afterwards.
    async fn settle(&mut self, streams: &mut Streams, newest: &mut i64, coverage: &mut Coverage) -> Result<Differing> {
        if streams.is_empty() {
            return Ok(None);
        }
        let start = if streams.has_past() { self.put_marker().await? } else { 0 };
        streams.call_witnesses(start).await.with_context(|| self.ours.0.log_tail())?;
        *newest = self.put_marker().await?;
        streams.settle(*newest, coverage).await.with_context(|| self.ours.0.log_tail())
    }

    async fn put_marker(&mut self) -> Result<i64> {
        let marker = Step::Put(pb::PutRequest { key: MARKER.into(), ..Default::default() });
        let (genuine, ours) = tokio::join!(ask(&mut self.genuine.1, &marker), ask(&mut self.ours.1, &marker));
        let (genuine, ours) = (genuine?, ours.with_context(|| self.ours.0.log_tail())?);
        ensure!(genuine == ours, "the servers put a marker otherwise: {genuine:?}, {ours:?}");
        revision(&genuine).context("a put's answer without a revision")
    }

    /// Deletes everything, compacts it away and returns the newest revision.
    async fn empty(&mut self) -> Result<i64> {
        let everything = DeleteRangeRequest { key: "\0".into(), range_end: "\0".into(), prev_kv: false };
        let mut newest = 0;
        for Clients { kv: client, lease, auth, tokens, .. } in [&mut self.genuine.1, &mut self.ours.1] {
            users::clear(auth, tokens).await?;
            for found in lease.lease_leases(pb::LeaseLeasesRequest {}).await?.into_inner().leases {
                lease.lease_revoke(pb::LeaseRevokeRequest { id: found.id }).await?;
            }
            client.delete_range(everything.clone()).await?;
            // A delete of nothing leaves the revision as it is: the put makes sure that there is something new to compact.
            client.put(pb::PutRequest { key: "begin".into(), ..Default::default() }).await?;
            let deleted = client.delete_range(everything.clone()).await?.into_inner();
            newest = deleted.header.context("a delete's answer without a header")?.revision;
            client.compact(CompactionRequest { revision: newest, physical: true }).await?;
        }
        Ok(newest)
    }
}

fn client(channel: Channel) -> Clients {
    let lease = LeaseClient::new(channel.clone());
    let watch = WatchClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    let auth = AuthClient::new(channel.clone());
    let kv = KvClient::new(channel).max_decoding_message_size(usize::MAX);
    Clients { kv, lease, watch, auth, tokens: Tokens::default() }
}

async fn ask(clients: &mut Clients, step: &Step) -> Result<Answer> {
    if let Step::As(caller, inner) = step {
        clients.tokens.call_as(*caller);
        let answer = Box::pin(ask(clients, inner)).await;
        clients.tokens.call_as(Caller::Nobody);
        return answer;
    }
    let Clients { kv: client, lease, auth, tokens, .. } = clients;
    let answer = match step.clone() {
        Step::Put(request) => client.put(tokens.on(request)).await.map(|answer| Answer::Put(answer.into_inner())),
        Step::Range(request) => client.range(tokens.on(request)).await.map(|answer| Answer::Range(answer.into_inner())),
        Step::DeleteRange(request) => {
            client.delete_range(tokens.on(request)).await.map(|answer| Answer::DeleteRange(answer.into_inner()))
        }
        Step::Txn(request) => client.txn(tokens.on(request)).await.map(|answer| Answer::Txn(answer.into_inner())),
        Step::Compact(request) => {
            client.compact(tokens.on(request)).await.map(|answer| Answer::Compact(answer.into_inner()))
        }
        Step::Grant(request) => {
            lease.lease_grant(tokens.on(request)).await.map(|answer| Answer::Grant(answer.into_inner()))
        }
        Step::Revoke(request) => {
            lease.lease_revoke(tokens.on(request)).await.map(|answer| Answer::Revoke(answer.into_inner()))
        }
        Step::TimeToLive(request) => {
            lease.lease_time_to_live(tokens.on(request)).await.map(|answer| Answer::TimeToLive(answer.into_inner()))
        }
        Step::KeepAlive(request) => keep_alive(lease, request).await,
        Step::Leases => {
            lease.lease_leases(pb::LeaseLeasesRequest {}).await.map(|answer| Answer::Leases(answer.into_inner()))
        }
        Step::Auth(step) => users::ask(auth, tokens, step).await.map(|(text, header)| Answer::Auth(text, header)),
        Step::As(..) => bail!("a caller calls for another one: {step:?}"),
        Step::Watch(..) => bail!("a watch request is asked on its stream: {step:?}"),
    };
    match answer {
        Ok(mut answer) => {
            set_aside(&mut answer);
            Ok(answer)
        }
        Err(status) if status.code() == tonic::Code::Unavailable || status.message() == "transport error" => {
            Err(status).context(format!("{step:?}"))
        }
        Err(status) => Ok(Answer::Refused(status.code(), status.message().to_owned())),
    }
}

/// One keep-alive on a stream of its own.
async fn keep_alive(
    lease: &mut LeaseClient<Channel>,
    request: pb::LeaseKeepAliveRequest,
) -> Result<Answer, tonic::Status> {
    let mut answers = lease.lease_keep_alive(futures::stream::iter([request])).await?.into_inner();
    let answer = answers.message().await?;
    answer.map(Answer::KeepAlive).ok_or_else(|| tonic::Status::internal("the stream ended without an answer"))
}

fn set_aside(answer: &mut Answer) {
    match answer {
        // Drawn by the server.
        Answer::Grant(answer) if answer.id > DRAWN_MIN && answer.id != i64::MAX => answer.id = DRAWN_MIN,
        Answer::TimeToLive(answer) => {
            answer.keys.sort();
            // A second may begin between the two answers.
            if answer.ttl > 0 && answer.ttl < answer.granted_ttl && answer.granted_ttl - answer.ttl < 60 {
                answer.ttl = answer.granted_ttl - 1;
            }
        }
        Answer::Leases(answer) => {
            for lease in answer.leases.iter_mut().filter(|lease| lease.id > DRAWN_MIN && lease.id != i64::MAX) {
                lease.id = DRAWN_MIN;
            }
            // Leases granted within the same moment are in no certain order.
            answer.leases.sort_by_key(|lease| lease.id);
        }
        _ => {}
    }
    let header = match answer {
        Answer::Put(answer) => &mut answer.header,
        Answer::Range(answer) => &mut answer.header,
        Answer::DeleteRange(answer) => &mut answer.header,
        Answer::Txn(answer) => &mut answer.header,
        Answer::Compact(answer) => &mut answer.header,
        Answer::Grant(answer) => &mut answer.header,
        Answer::Revoke(answer) => &mut answer.header,
        Answer::TimeToLive(answer) => &mut answer.header,
        Answer::KeepAlive(answer) => &mut answer.header,
        Answer::Leases(answer) => &mut answer.header,
        Answer::Auth(_, header) => header,
        Answer::Watch(_) | Answer::Told(..) | Answer::Refused(..) => return,
    };
    // Sub-answers of a transaction carry no ids: they are compared as they are.
    if let Some(ResponseHeader { cluster_id, member_id, raft_term, .. }) = header {
        (*cluster_id, *member_id, *raft_term) = (0, 0, 0);
    }
}

fn revision(answer: &Answer) -> Option<i64> {
    let header = match answer {
        Answer::Put(answer) => &answer.header,
        Answer::Range(answer) => &answer.header,
        Answer::DeleteRange(answer) => &answer.header,
        Answer::Txn(answer) => &answer.header,
        Answer::Compact(answer) => &answer.header,
        Answer::Grant(answer) => &answer.header,
        Answer::Revoke(answer) => &answer.header,
        Answer::TimeToLive(answer) => &answer.header,
        Answer::KeepAlive(answer) => &answer.header,
        Answer::Leases(answer) => &answer.header,
        Answer::Auth(_, header) => header,
        Answer::Watch(_) | Answer::Told(..) | Answer::Refused(..) => &None,
    };
    header.as_ref().map(|header| header.revision)
}

/// Counts what a step exercised.
fn note(coverage: &mut Coverage, request: &Step, answer: &Answer, newest: i64) {
    coverage.requests += 1;
    let kind = match request {
        Step::Put(put) => {
            note_put(coverage, "put", put);
            "put"
        }
        Step::Range(range) => {
            coverage.reads += 1;
            if range.revision != 0 && range.revision != newest {
                coverage.reads_elsewhere += 1;
            }
            note_range(coverage, "range", range);
            "range"
        }
        Step::DeleteRange(_) => "delete",
        Step::Txn(txn) => {
            note_txn(coverage, txn);
            "txn"
        }
        Step::Compact(compact) => {
            coverage.note(format!("compact physical={}", compact.physical));
            "compact"
        }
        Step::Grant(_) => "lease grant",
        Step::Revoke(_) => "lease revoke",
        Step::TimeToLive(request) => {
            coverage.note(format!("lease time to live keys={}", request.keys));
            "lease time to live"
        }
        Step::KeepAlive(_) => "lease keep-alive",
        Step::Leases => "lease list",
        Step::Watch(..) => "watch",
        Step::Auth(step) => {
            let text = format!("{step:?}");
            coverage.note(format!("auth {}", text.split('(').next().unwrap_or_default()));
            "auth"
        }
        Step::As(..) => "a call for another caller",
    };
    match answer {
        Answer::Refused(code, text) => coverage.note(format!("{kind} refused: {code:?} {text}")),
        Answer::Txn(answer) => {
            coverage.note(format!("txn succeeded={}", answer.succeeded));
            for op in &answer.responses {
                if let Some(response_op::Response::ResponseTxn(_)) = op.response {
                    coverage.note("txn nested ran");
                }
            }
        }
        Answer::TimeToLive(answer) if !answer.keys.is_empty() => coverage.note(format!("{kind} answered with keys")),
        Answer::TimeToLive(pb::LeaseTimeToLiveResponse { ttl: -1, .. })
        | Answer::KeepAlive(pb::LeaseKeepAliveResponse { ttl: 0, .. }) => {
            coverage.note(format!("{kind} of an unknown lease"));
        }
        _ => coverage.note(format!("{kind} answered")),
    }
}

fn note_put(coverage: &mut Coverage, prefix: &str, put: &pb::PutRequest) {
    for (set, option) in [
        (put.prev_kv, "prev_kv"),
        (put.ignore_value, "ignore_value"),
        (put.ignore_lease, "ignore_lease"),
        (put.lease != 0, "lease"),
    ] {
        if set {
            coverage.note(format!("{prefix} {option}"));
        }
    }
}

fn note_range(coverage: &mut Coverage, prefix: &str, range: &RangeRequest) {
    for (set, option) in [
        (range.limit > 0, "limit"),
        (range.limit < 0, "negative limit"),
        (range.revision > 0, "revision"),
        (range.revision < 0, "negative revision"),
        (range.serializable, "serializable"),
        (range.keys_only, "keys_only"),
        (range.count_only, "count_only"),
        (range.min_mod_revision != 0, "min_mod_revision"),
        (range.max_mod_revision != 0, "max_mod_revision"),
        (range.min_create_revision != 0, "min_create_revision"),
        (range.max_create_revision != 0, "max_create_revision"),
        (range.range_end.as_ref() == b"\0", "to the end"),
        (!range.range_end.is_empty() && range.range_end < range.key, "end before key"),
    ] {
        if set {
            coverage.note(format!("{prefix} {option}"));
        }
    }
    if range.sort_order != 0 || range.sort_target != 0 {
        coverage.note(format!("{prefix} sort order {} target {}", range.sort_order, range.sort_target));
    }
}

fn note_txn(coverage: &mut Coverage, txn: &pb::TxnRequest) {
    for compare in &txn.compare {
        let over = if compare.range_end.is_empty() { "" } else { " over a range" };
        coverage.note(format!("compare target {} result {}{over}", compare.target, compare.result));
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match &op.request {
            Some(request_op::Request::RequestPut(put)) => note_put(coverage, "txn put", put),
            Some(request_op::Request::RequestRange(range)) => note_range(coverage, "txn range", range),
            Some(request_op::Request::RequestDeleteRange(_)) => coverage.note("txn delete"),
            Some(request_op::Request::RequestTxn(txn)) => {
                coverage.note("txn nested");
                note_txn(coverage, txn);
            }
            None => coverage.note("txn empty operation"),
        }
    }
}

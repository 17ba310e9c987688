//! Watch streams, each opened at both servers, and what they tell.
//!
//! A genuine server tells a watch of the past what it missed in rounds, ten in a second, so what has been told at some moment says little. Before a step
//! whose effect depends on it (a compaction, a cancel, a progress request), now and then, and at the end, the streams are settled: a marker is put, and a
//! further watch, the witness, is told it on each stream. Where watches of the past were made since, the witness starts at a marker that was put before it,
//! so that it goes through the same round or a later one; a second marker then comes after all that the round tells. After that everything is compared, watch
//! by watch, with patience for whoever told less. What is told before the settling and how it is cut into answers does not matter, but each answer
//! is held to the rules that any answer has to keep.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use cairn_proto::{
    etcdserverpb::{
        WatchCancelRequest, WatchCreateRequest, WatchRequest, WatchResponse, watch_client::WatchClient,
        watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tonic::{Streaming, transport::Channel};

use super::{Coverage, exceptions, play::Answer};

/// The key whose puts are markers.
pub const MARKER: &[u8] = b"~marker";
/// The witness' number on each stream, which no sequence uses.
const WITNESS: i64 = 1 << 50;
/// How long a server may take to tell what it has to.
const PATIENCE: Duration = Duration::from_secs(10);
/// Requests under way on a stream: the answer to one is waited for before the next but one.
const REQUESTS_MAX: usize = 4;
/// Of what was told otherwise, so much is shown.
const SHOWN_MAX: usize = 3;

/// What a watch was told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// A change.
    Event(Event),
    /// That what it wants was compacted away, the last it is told.
    Compacted(WatchResponse),
    /// Something that no server may tell, by the rule that is named.
    Against(&'static str),
}

/// Both answers, where they differ.
pub type Differing = Option<(Answer, Answer)>;

/// A stream at one server.
struct Stream {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
    /// Answers to requests that were not looked at yet.
    replies: VecDeque<WatchResponse>,
    /// What each watch was told since the last comparison.
    told: BTreeMap<i64, Vec<Told>>,
}

impl Stream {
    /// Opens it, with a first watch that is canceled at once: a genuine server shows no sign of a stream before its first answer.
    async fn open(client: &mut WatchClient<Channel>) -> Result<Self> {
        let (requests, incoming) = mpsc::channel(REQUESTS_MAX);
        requests.send(witness(0)).await?;
        let incoming =
            futures::stream::unfold(incoming, |mut incoming| async { Some((incoming.recv().await?, incoming)) });
        let opened = timeout_at(Instant::now() + PATIENCE, client.watch(incoming)).await.context("open a watch")??;
        let answers = opened.into_inner();
        let mut stream = Self { requests, answers, replies: VecDeque::new(), told: BTreeMap::new() };
        stream.expect(WITNESS, "be told of the first watch").await?;
        stream.dismiss_witness().await?;
        Ok(stream)
    }

    async fn send(&self, request: RequestUnion) -> Result<()> {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.context("ask on a watch stream")
    }

    /// Reads one answer; `false` if none came in time.
    async fn read(&mut self, until: Instant) -> Result<bool> {
        let Ok(answer) = timeout_at(until, self.answers.message()).await else { return Ok(false) };
        let mut answer = answer.context("read a watch stream")?.context("a watch stream ended")?;
        let Some(header) = &mut answer.header else { bail!("a watch answer without a header: {answer:?}") };
        (header.cluster_id, header.member_id, header.raft_term) = (0, 0, 0);
        self.note(answer);
        Ok(true)
    }

    fn note(&mut self, answer: WatchResponse) {
        if answer.created || answer.events.is_empty() && answer.compact_revision == 0 {
            return self.replies.push_back(answer);
        }
        let told = self.told.entry(answer.watch_id).or_default();
        if answer.compact_revision != 0 {
            return told.push(Told::Compacted(answer));
        }
        let revision_of = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
        let (first, last) = (answer.events.first().map_or(0, revision_of), answer.events.last().map_or(0, revision_of));
        if answer.header.is_none_or(|header| header.revision < last) {
            told.push(Told::Against("an answer's revision is not below that of its events"));
        }
        if matches!(told.last(), Some(Told::Event(before)) if revision_of(before) >= first) {
            told.push(Told::Against("a revision is told in one answer, and after the ones before it"));
        }
        told.extend(answer.events.into_iter().map(Told::Event));
    }

    /// The next answer to a request; `None` if none comes.
    async fn reply(&mut self) -> Result<Option<WatchResponse>> {
        let until = Instant::now() + PATIENCE;
        while self.replies.is_empty() && self.read(until).await? {}
        Ok(self.replies.pop_front())
    }

    /// The next answer about a watch. Others stay where they are.
    async fn expect(&mut self, watch_id: i64, what: &str) -> Result<WatchResponse> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = self.replies.iter().position(|reply| reply.watch_id == watch_id) {
                return self.replies.remove(found).context("it was just found");
            }
            if !self.read(until).await? {
                bail!("waited {PATIENCE:?} to {what}");
            }
        }
    }

    /// Waits until the witness is told the marker of a revision.
    async fn witness_told(&mut self, revision: i64) -> Result<()> {
        let until = Instant::now() + PATIENCE;
        let marker =
            |told: &Told| matches!(told, Told::Event(Event { kv: Some(kv), .. }) if kv.mod_revision == revision);
        while !self.told.get(&WITNESS).is_some_and(|told| told.iter().any(marker)) {
            if !self.read(until).await? {
                bail!("waited {PATIENCE:?} for the marker of revision {revision}; told were {:?}", self.told);
            }
        }
        Ok(())
    }

    async fn call_witness(&mut self, start: i64) -> Result<()> {
        self.requests.send(witness(start)).await?;
        self.expect(WITNESS, "be told of the witness").await?;
        if start > 0 { self.witness_told(start).await } else { Ok(()) }
    }

    async fn dismiss_witness(&mut self) -> Result<()> {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id: WITNESS })).await?;
        let canceled = self.expect(WITNESS, "cancel the witness").await?;
        self.told.remove(&WITNESS);
        if canceled.canceled { Ok(()) } else { bail!("the witness was not canceled but {canceled:?}") }
    }
}

fn witness(start_revision: i64) -> WatchRequest {
    let create =
        WatchCreateRequest { key: MARKER.into(), watch_id: WITNESS, start_revision, ..WatchCreateRequest::default() };
    WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }
}

/// A watch that both servers have.
struct Watch {
    /// The first revision asked for; 0 if none was.
    start: i64,
    /// The revision up to which everything was compacted when it was made.
    compacted: i64,
}

/// A stream at both servers.
struct Twins {
    genuine: Stream,
    ours: Stream,
    live: BTreeMap<i64, Watch>,
    /// Those that were ended by a compaction.
    ended: BTreeSet<i64>,
    /// Watches of the past were made since all was told.
    past: bool,
    /// The servers are no longer in the same state: what follows needs another stream.
    parted: bool,
}

impl Twins {
    async fn ask(
        &mut self,
        request: &RequestUnion,
        (newest, compacted): (i64, i64),
        coverage: &mut Coverage,
    ) -> Result<Differing> {
        self.genuine.send(request.clone()).await?;
        self.ours.send(request.clone()).await?;
        let (from_genuine, from_ours) = match request {
            RequestUnion::CreateRequest(_) => (true, true),
            RequestUnion::CancelRequest(WatchCancelRequest { watch_id }) => {
                // One that a compaction ended is in use until it is canceled.
                let used = self.live.contains_key(watch_id) || self.ended.contains(watch_id);
                (used, used)
            }
            RequestUnion::ProgressRequest(_) => {
                let begun = self.live.values().all(|watch| watch.start <= newest);
                (true, !exceptions::progress_untimely(self.live.is_empty(), begun))
            }
        };
        let genuine = if from_genuine { self.genuine.reply().await? } else { None };
        let ours = if from_ours { self.ours.reply().await? } else { None };
        let missing = from_genuine && genuine.is_none() || from_ours && ours.is_none();
        note_answer(coverage, request, genuine.as_ref(), ours.as_ref());
        let same = genuine == ours || !(from_genuine && from_ours);
        let parted = exceptions::watches_part(request, genuine.as_ref(), ours.as_ref());
        let explained = same || parted || exceptions::negative_start(request, ours.as_ref());
        if missing || !explained {
            return Ok(Some((Answer::Watch(genuine), Answer::Watch(ours))));
        }
        let refused = genuine.as_ref().is_some_and(|answer| answer.created && answer.canceled);
        self.parted |= parted || refused && self.live.contains_key(&exceptions::SILENCED);
        match (request, genuine) {
            (RequestUnion::CreateRequest(create), Some(answer)) if !answer.canceled => {
                self.live.insert(answer.watch_id, Watch { start: create.start_revision, compacted });
                self.past |= create.start_revision != 0 && create.start_revision <= newest;
            }
            (RequestUnion::CancelRequest(cancel), _) => {
                self.live.remove(&cancel.watch_id);
                self.ended.remove(&cancel.watch_id);
            }
            _ => {}
        }
        Ok(None)
    }

    /// Compares all that was told, with patience for whoever told less.
    async fn compare(&mut self, coverage: &mut Coverage) -> Result<Differing> {
        if self.genuine.replies != self.ours.replies {
            let (genuine, ours) = (self.genuine.replies.pop_front(), self.ours.replies.pop_front());
            return Ok(Some((Answer::Watch(genuine), Answer::Watch(ours))));
        }
        let until = Instant::now() + PATIENCE;
        loop {
            for (id, watch) in &self.live {
                for stream in [&mut self.genuine, &mut self.ours] {
                    if let Some(told) = stream.told.get_mut(id) {
                        exceptions::set_aside_first_deletes(watch.start, watch.compacted, told);
                    }
                }
            }
            let Some((id, at, short)) = self.first_difference() else { break };
            let read = if short {
                tokio::select! {
                    read = self.genuine.read(until) => read?,
                    read = self.ours.read(until) => read?,
                }
            } else {
                false
            };
            if !read {
                let shown = |stream: &Stream| {
                    let told = stream.told.get(&id).map_or(&[][..], |told| &told[at..]);
                    Answer::Told(id, told.iter().take(SHOWN_MAX).cloned().collect())
                };
                return Ok(Some((shown(&self.genuine), shown(&self.ours))));
            }
        }
        self.ours.told.clear();
        for (id, told) in std::mem::take(&mut self.genuine.told) {
            coverage.events += told.len() as u64;
            if matches!(told.last(), Some(Told::Compacted(_))) {
                coverage.note("watch ended by a compaction");
                self.live.remove(&id);
                self.ended.insert(id);
            }
            note_told(coverage, &told);
        }
        self.past = false;
        Ok(None)
    }

    /// The first watch that was told otherwise, since where, and whether one of the servers only told less.
    fn first_difference(&self) -> Option<(i64, usize, bool)> {
        let nothing = Vec::new();
        self.genuine.told.keys().chain(self.ours.told.keys()).find_map(|id| {
            let genuine = self.genuine.told.get(id).unwrap_or(&nothing);
            let ours = self.ours.told.get(id).unwrap_or(&nothing);
            let same = genuine.iter().zip(ours).take_while(|(genuine, ours)| genuine == ours).count();
            let less = same == genuine.len().min(ours.len());
            (genuine.len() != ours.len() || !less).then_some((*id, same, less))
        })
    }
}

/// The streams of a sequence.
#[derive(Default)]
pub struct Streams(BTreeMap<usize, Twins>);

impl Streams {
    /// Whether all has to be told and compared before a request.
    pub fn wants_settling(&self, stream: usize, request: &RequestUnion) -> bool {
        self.0.get(&stream).is_some_and(|twins| match request {
            RequestUnion::CreateRequest(create) => {
                create.start_revision < 0 || twins.live.contains_key(&exceptions::SILENCED)
            }
            RequestUnion::CancelRequest(cancel) => twins.live.contains_key(&cancel.watch_id),
            RequestUnion::ProgressRequest(_) => true,
        })
    }

    /// Whether there is nobody to be told anything.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether watches of the past were made since all was told.
    pub fn has_past(&self) -> bool {
        self.0.values().any(|twins| twins.past)
    }

    /// Asks both servers, on a stream that is opened for it if need be, and compares the answers.
    pub async fn ask(
        &mut self,
        (genuine, ours): (&mut WatchClient<Channel>, &mut WatchClient<Channel>),
        (stream, request): (usize, &RequestUnion),
        revisions: (i64, i64),
        coverage: &mut Coverage,
    ) -> Result<Differing> {
        note_request(coverage, request, revisions);
        let mut twins = match self.0.remove(&stream) {
            Some(twins) => twins,
            None => Twins {
                genuine: Stream::open(genuine).await.context("at the genuine server")?,
                ours: Stream::open(ours).await.context("at ours")?,
                live: BTreeMap::new(),
                ended: BTreeSet::new(),
                past: false,
                parted: false,
            },
        };
        let differing = twins.ask(request, revisions, coverage).await?;
        if !twins.parted {
            self.0.insert(stream, twins);
        }
        Ok(differing)
    }

    /// Has a witness made on each stream, which starts at the marker of a revision, or (0) at the next one.
    pub async fn call_witnesses(&mut self, start: i64) -> Result<()> {
        for twins in self.0.values_mut() {
            let (genuine, ours) = tokio::join!(twins.genuine.call_witness(start), twins.ours.call_witness(start));
            genuine.context("at the genuine server").and(ours.context("at ours"))?;
        }
        Ok(())
    }

    /// Waits until the witnesses were told the marker of a revision, and compares all that was told.
    pub async fn settle(&mut self, marker: i64, coverage: &mut Coverage) -> Result<Differing> {
        for twins in self.0.values_mut() {
            for (stream, whose) in [(&mut twins.genuine, "at the genuine server"), (&mut twins.ours, "at ours")] {
                stream.witness_told(marker).await.context(whose)?;
                stream.dismiss_witness().await.context(whose)?;
            }
            if let Some(differing) = twins.compare(coverage).await? {
                return Ok(Some(differing));
            }
        }
        Ok(None)
    }
}

fn note_request(coverage: &mut Coverage, request: &RequestUnion, (newest, compacted): (i64, i64)) {
    let RequestUnion::CreateRequest(create) = request else { return };
    let start = match create.start_revision {
        ..0 => "negative start",
        0 => "start now",
        start if start < compacted => "compacted start",
        start if start == compacted => "start at the compacted revision",
        start if start <= newest => "start in the past",
        start if start == newest + 1 => "start at the next revision",
        _ => "start in the future",
    };
    coverage.note(format!("watch {start}"));
    for (set, option) in [
        (create.watch_id != 0, "chosen id"),
        (create.range_end.is_empty(), "of one key"),
        (!create.range_end.is_empty(), "of a range"),
        (create.key.is_empty(), "of an empty key"),
        (create.range_end.as_ref() == b"\0", "to the end"),
        (create.prev_kv, "prev_kv"),
        (!create.filters.is_empty(), "filters"),
    ] {
        if set {
            coverage.note(format!("watch {option}"));
        }
    }
    for filter in &create.filters {
        coverage.note(format!("watch filter {filter}"));
    }
}

fn note_answer(
    coverage: &mut Coverage,
    request: &RequestUnion,
    genuine: Option<&WatchResponse>,
    ours: Option<&WatchResponse>,
) {
    let kind = match request {
        RequestUnion::CreateRequest(_) => "create",
        RequestUnion::CancelRequest(_) => "cancel",
        RequestUnion::ProgressRequest(_) => "progress",
    };
    let answered = match (genuine, ours) {
        (_, Some(ours)) if ours.created && ours.canceled => &format!("refused: {}", ours.cancel_reason),
        (Some(_), Some(_)) => "answered",
        (None, None) => "not answered",
        _ => "answered by one as it should be",
    };
    coverage.note(format!("watch {kind} {answered}"));
}

fn note_told(coverage: &mut Coverage, told: &[Told]) {
    for told in told {
        let Told::Event(event) = told else { continue };
        let created = event.kv.as_ref().is_some_and(|kv| kv.create_revision == kv.mod_revision);
        let kind = match event.r#type() {
            EventType::Delete => "delete",
            EventType::Put if created => "create",
            EventType::Put => "change",
        };
        let previous = if event.prev_kv.is_some() { " with the previous value" } else { "" };
        coverage.note(format!("watch told of a {kind}{previous}"));
    }
}

//! A watch stream as a client has it, and the writes that it is to hear of.

use std::time::Duration;

use cairn_proto::{
    etcdserverpb::{
        self as pb, PutRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest,
        WatchResponse, kv_client::KvClient, request_op, watch_client::WatchClient, watch_request::RequestUnion,
    },
    mvccpb::{Event, event::EventType},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use crate::support::{DEADLINE, TestServer};

/// How often a progress answer is asked for again.
const ASK_AGAIN: Duration = Duration::from_millis(20);

/// One stream.
pub struct Watching {
    requests: mpsc::Sender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

pub fn create(key: &str, range_end: &str) -> WatchCreateRequest {
    WatchCreateRequest {
        key: key.as_bytes().to_vec().into(),
        range_end: range_end.as_bytes().to_vec().into(),
        ..Default::default()
    }
}

/// Everything from a revision on.
pub fn all(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest { start_revision, ..create("\0", "\0") }
}

/// An event as text: what, key, revision.
pub fn text(event: &Event) -> String {
    let kv = event.kv.clone().unwrap_or_default();
    let kind = if event.r#type() == EventType::Put { "put" } else { "delete" };
    format!("{kind} {} {}", String::from_utf8_lossy(&kv.key), kv.mod_revision)
}

pub fn texts(events: &[Event]) -> Vec<String> {
    events.iter().map(text).collect()
}

pub fn revision_of(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

pub fn header_revision(answer: &WatchResponse) -> i64 {
    answer.header.as_ref().map_or(0, |header| header.revision)
}

impl Watching {
    pub async fn open(server: &TestServer) -> Self {
        Self::on(server.channel().await).await
    }

    pub async fn on(channel: Channel) -> Self {
        let (requests, incoming) = mpsc::channel(16);
        let mut client = WatchClient::new(channel).max_decoding_message_size(usize::MAX);
        let answers = client.watch(ReceiverStream::new(incoming)).await.expect("the stream opens").into_inner();
        Self { requests, answers }
    }

    /// Opens a stream with one watcher, whose created answer is taken.
    pub async fn with(server: &TestServer, create: WatchCreateRequest) -> Self {
        let mut watching = Self::open(server).await;
        let created = watching.create(create).await;
        assert!(created.created && !created.canceled, "{created:?}");
        watching
    }

    pub async fn send_raw(&self, request: WatchRequest) {
        self.requests.send(request).await.expect("the stream is open");
    }

    pub async fn send(&self, union: RequestUnion) {
        self.send_raw(WatchRequest { request_union: Some(union) }).await;
    }

    /// Creates a watcher and gives the next answer.
    pub async fn create(&mut self, create: WatchCreateRequest) -> WatchResponse {
        self.send(RequestUnion::CreateRequest(create)).await;
        self.next().await
    }

    pub async fn cancel(&self, watch_id: i64) {
        self.send(RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await;
    }

    pub async fn ask_progress(&self) {
        self.send(RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    }

    pub async fn try_next(&mut self) -> Result<Option<WatchResponse>, Status> {
        tokio::time::timeout(DEADLINE, self.answers.message()).await.expect("an answer comes in time")
    }

    pub async fn next(&mut self) -> WatchResponse {
        self.try_next().await.expect("the stream goes on").expect("the stream does not end")
    }

    /// Events until there are `count`, in answers.
    pub async fn batches(&mut self, count: usize) -> Vec<WatchResponse> {
        let (mut batches, mut seen) = (Vec::new(), 0);
        while seen < count {
            let answer = self.next().await;
            assert!(!answer.created && !answer.canceled, "{answer:?}");
            seen += answer.events.len();
            batches.push(answer);
        }
        assert_eq!(seen, count, "{batches:?}");
        batches
    }

    /// The next `count` events.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        self.batches(count).await.into_iter().flat_map(|answer| answer.events).collect()
    }

    /// Everything up to the next progress answer, for which it asks until it comes: the events and the revision.
    pub async fn until_progress(&mut self) -> (Vec<Event>, i64) {
        let mut events = Vec::new();
        loop {
            self.ask_progress().await;
            while let Ok(answer) = tokio::time::timeout(ASK_AGAIN, self.answers.message()).await {
                let answer = answer.expect("the stream goes on").expect("the stream does not end");
                if answer.watch_id == -1 && answer.events.is_empty() {
                    return (events, header_revision(&answer));
                }
                events.extend(answer.events);
            }
        }
    }

    /// Nothing is waiting to be received: cancels an unknown watcher and creates one, whose answer must be the next.
    pub async fn is_silent(&mut self) {
        let created = self.create(create("only/to/see/an/answer", "")).await;
        assert!(created.created && created.events.is_empty(), "{created:?}");
        self.cancel(created.watch_id).await;
        let canceled = self.next().await;
        assert!(canceled.canceled && canceled.watch_id == created.watch_id, "{canceled:?}");
    }
}

/// Writes to a server.
#[derive(Clone)]
pub struct Writer(KvClient<Channel>);

impl Writer {
    pub async fn of(server: &TestServer) -> Self {
        Self(server.kv().await)
    }

    pub fn on(channel: Channel) -> Self {
        Self(KvClient::new(channel))
    }

    pub async fn put(&mut self, key: &str, value: impl Into<Vec<u8>>) -> i64 {
        let put = PutRequest { key: key.as_bytes().to_vec().into(), value: value.into().into(), ..Default::default() };
        revision(self.0.put(put).await.expect("it is put").into_inner().header)
    }

    pub async fn delete(&mut self, key: &str, range_end: &str) -> i64 {
        let request = pb::DeleteRangeRequest {
            key: key.as_bytes().to_vec().into(),
            range_end: range_end.as_bytes().to_vec().into(),
            ..Default::default()
        };
        revision(self.0.delete_range(request).await.expect("it is deleted").into_inner().header)
    }

    /// One txn: `(key, value)` puts, `(key, none)` deletes.
    pub async fn txn(&mut self, ops: &[(&str, Option<Vec<u8>>)]) -> i64 {
        let ops = ops.iter().map(|(key, value)| {
            let key = key.as_bytes().to_vec().into();
            let request = match value {
                Some(value) => request_op::Request::RequestPut(PutRequest {
                    key,
                    value: value.clone().into(),
                    ..Default::default()
                }),
                None => request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest { key, ..Default::default() }),
            };
            pb::RequestOp { request: Some(request) }
        });
        let txn = pb::TxnRequest { success: ops.collect(), ..Default::default() };
        revision(self.0.txn(txn).await.expect("it is done").into_inner().header)
    }

    pub async fn compact(&mut self, revision: i64) {
        let compact = pb::CompactionRequest { revision, physical: true };
        self.0.compact(compact).await.expect("it is compacted");
    }
}

fn revision(header: Option<pb::ResponseHeader>) -> i64 {
    header.expect("an answer has a header").revision
}

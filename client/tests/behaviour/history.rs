//! The Watch service of a member: one event for each revision of a history that members share.

use std::sync::Arc;

use cairn_client::proto::{
    etcdserverpb::{self as pb, watch_request::RequestUnion},
    mvccpb::{Event, KeyValue},
};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

const ANSWERS_MAX: usize = 16;

/// What has happened, to any key: nothing but revisions.
pub struct History {
    head: watch::Sender<i64>,
    compacted: Mutex<i64>,
    fragments: Mutex<bool>,
    streams: Mutex<usize>,
    /// The first revision that each creation asked for.
    starts: Mutex<Vec<i64>>,
}

impl History {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            head: watch::channel(1).0,
            compacted: Mutex::default(),
            fragments: Mutex::default(),
            streams: Mutex::default(),
            starts: Mutex::default(),
        })
    }

    /// So many more revisions come to be.
    pub fn go_on(&self, revisions: i64) {
        self.head.send_modify(|head| *head += revisions);
    }

    /// Forgets what was before `revision`.
    pub fn compact(&self, revision: i64) {
        *self.compacted.lock() = revision;
    }

    /// From now on every event comes in an answer of its own, all but the last marked as pieces.
    pub fn in_fragments(&self) {
        *self.fragments.lock() = true;
    }

    pub fn streams(&self) -> usize {
        *self.streams.lock()
    }

    pub fn starts(&self) -> Vec<i64> {
        self.starts.lock().clone()
    }

    /// Serves one stream.
    pub fn serve(
        self: Arc<Self>,
        mut requests: Streaming<pb::WatchRequest>,
    ) -> mpsc::Receiver<Result<pb::WatchResponse, Status>> {
        *self.streams.lock() += 1;
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        tokio::spawn(async move {
            let mut head = self.head.subscribe();
            let mut watches: Vec<(i64, i64)> = Vec::new();
            let mut next_id = 0;
            loop {
                let answers = tokio::select! {
                    request = requests.message() => {
                        let Ok(Some(pb::WatchRequest { request_union: Some(request) })) = request else { return };
                        self.request(request, &mut watches, &mut next_id)
                    }
                    changed = head.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        Vec::new()
                    }
                };
                let now = *head.borrow_and_update();
                let events = watches.iter_mut().flat_map(|(id, next)| self.events(*id, next, now)).collect::<Vec<_>>();
                for answer in answers.into_iter().chain(events) {
                    if sender.send(Ok(answer)).await.is_err() {
                        return;
                    }
                }
            }
        });
        receiver
    }

    fn header(&self) -> pb::ResponseHeader {
        pb::ResponseHeader { revision: *self.head.borrow(), ..Default::default() }
    }

    fn request(
        &self,
        request: RequestUnion,
        watches: &mut Vec<(i64, i64)>,
        next_id: &mut i64,
    ) -> Vec<pb::WatchResponse> {
        match request {
            RequestUnion::CreateRequest(create) => {
                self.starts.lock().push(create.start_revision);
                let header = Some(self.header());
                if create.key == "refused" {
                    return vec![pb::WatchResponse {
                        header,
                        watch_id: -1,
                        created: true,
                        canceled: true,
                        cancel_reason: "no such luck".into(),
                        ..Default::default()
                    }];
                }
                let id = *next_id;
                *next_id += 1;
                let mut answers = vec![pb::WatchResponse { header, watch_id: id, created: true, ..Default::default() }];
                let compacted = *self.compacted.lock();
                let start = match create.start_revision {
                    0 => *self.head.borrow() + 1,
                    start => start,
                };
                if start < compacted {
                    answers.push(pb::WatchResponse {
                        watch_id: id,
                        canceled: true,
                        compact_revision: compacted,
                        ..Default::default()
                    });
                } else {
                    watches.push((id, start));
                }
                answers
            }
            RequestUnion::CancelRequest(cancel) => {
                watches.retain(|(id, _)| *id != cancel.watch_id);
                vec![pb::WatchResponse { watch_id: cancel.watch_id, canceled: true, ..Default::default() }]
            }
            RequestUnion::ProgressRequest(_) => {
                vec![pb::WatchResponse { header: Some(self.header()), watch_id: -1, ..Default::default() }]
            }
        }
    }

    fn events(&self, watch_id: i64, next: &mut i64, now: i64) -> Vec<pb::WatchResponse> {
        let first = std::mem::replace(next, (now + 1).max(*next));
        let event = |revision| Event {
            kv: Some(KeyValue { mod_revision: revision, ..Default::default() }),
            ..Default::default()
        };
        let answer = |events: Vec<Event>, fragment| pb::WatchResponse {
            header: Some(self.header()),
            watch_id,
            events,
            fragment,
            ..Default::default()
        };
        if *self.fragments.lock() {
            (first..=now).map(|revision| answer(vec![event(revision)], revision < now)).collect()
        } else {
            (first..=now).map(|revision| answer(vec![event(revision)], false)).collect()
        }
    }
}

//! One watch as its hub sees it.

use cairn_proto::{
    etcdserverpb::{self as pb, watch_request::RequestUnion},
    mvccpb::Event,
};
use prost::Message as _;
use tokio::sync::{mpsc, oneshot};

use super::{WatchAnswer, WatchError};

/// Where a watch stands on the present stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Its creation has been asked for, or will be.
    Creating,
    /// The server calls it by this number.
    Live(i64),
    /// Its queue was full. It is not at the server.
    Paused,
}

/// What became of an answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivery {
    /// It is in the queue, or there was nothing new in it, or more pieces of it are to come.
    Done,
    /// The queue is full.
    Full,
    /// Nobody reads any more.
    Closed,
    /// The pieces are too many.
    TooLarge,
}

#[derive(Debug)]
pub(super) struct Watched {
    request: pb::WatchCreateRequest,
    /// The first revision that has not been delivered; 0 until it is known.
    next_revision: i64,
    pub(super) answers: mpsc::Sender<Result<WatchAnswer, WatchError>>,
    created: Option<oneshot::Sender<Result<pb::ResponseHeader, WatchError>>>,
    pub(super) place: Place,
    pieces: Vec<Event>,
    pieces_bytes: usize,
}

impl Watched {
    pub(super) fn new(
        request: pb::WatchCreateRequest,
        answers: mpsc::Sender<Result<WatchAnswer, WatchError>>,
        created: oneshot::Sender<Result<pb::ResponseHeader, WatchError>>,
    ) -> Self {
        Self {
            request,
            next_revision: 0,
            answers,
            created: Some(created),
            place: Place::Creating,
            pieces: Vec::new(),
            pieces_bytes: 0,
        }
    }

    /// The request that creates it, or continues it where it stands.
    pub(super) fn create(&mut self) -> pb::WatchRequest {
        self.place = Place::Creating;
        self.forget_pieces();
        let mut request = self.request.clone();
        if self.next_revision > 0 {
            request.start_revision = self.next_revision;
        }
        pb::WatchRequest { request_union: Some(RequestUnion::CreateRequest(request)) }
    }

    pub(super) fn forget_pieces(&mut self) {
        self.pieces = Vec::new();
        self.pieces_bytes = 0;
    }

    /// The server has created it.
    pub(super) fn is_created(&mut self, header: pb::ResponseHeader, id: i64) {
        self.place = Place::Live(id);
        if self.next_revision == 0 {
            let start = self.request.start_revision;
            self.next_revision = if start > 0 { start } else { header.revision.saturating_add(1) };
        }
        if let Some(created) = self.created.take() {
            // If nobody waits any more, the queue is closed, too, and the hub learns it from there.
            let _ = created.send(Ok(header));
        }
    }

    /// Hands events over, or that there were none up to the header's revision.
    pub(super) fn deliver(&mut self, answer: pb::WatchResponse, bytes_max: usize) -> Delivery {
        let header = answer.header.unwrap_or_default();
        if answer.events.is_empty() && !answer.fragment && self.pieces.is_empty() {
            let delivery = self.tell_progress(header);
            if delivery == Delivery::Done {
                self.next_revision = self.next_revision.max(header.revision.saturating_add(1));
            }
            return delivery;
        }
        if answer.fragment || !self.pieces.is_empty() {
            self.pieces_bytes += answer.events.iter().map(Event::encoded_len).sum::<usize>();
            if self.pieces_bytes > bytes_max {
                return Delivery::TooLarge;
            }
        }
        self.pieces.extend(answer.events);
        if answer.fragment {
            return Delivery::Done;
        }
        let mut events = std::mem::take(&mut self.pieces);
        self.forget_pieces();
        events.retain(|event| revision(event) >= self.next_revision);
        let Some(last) = events.last().map(revision) else { return Delivery::Done };
        match self.answers.try_send(Ok(WatchAnswer { header, events })) {
            Ok(()) => {
                self.next_revision = last.saturating_add(1);
                Delivery::Done
            }
            Err(mpsc::error::TrySendError::Full(_)) => Delivery::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Delivery::Closed,
        }
    }

    /// Tells progress, if there is room for it: whoever is behind can do without.
    pub(super) fn tell_progress(&self, header: pb::ResponseHeader) -> Delivery {
        match self.answers.try_send(Ok(WatchAnswer { header, events: Vec::new() })) {
            Err(mpsc::error::TrySendError::Closed(_)) => Delivery::Closed,
            Ok(()) | Err(mpsc::error::TrySendError::Full(_)) => Delivery::Done,
        }
    }

    /// Ends it.
    pub(super) fn fail(self, error: WatchError) {
        if let Some(created) = self.created {
            let _ = created.send(Err(error));
        } else if let Err(mpsc::error::TrySendError::Full(error)) = self.answers.try_send(Err(error)) {
            // The one thing that must not get lost waits for its place.
            tokio::spawn(async move { self.answers.send(error).await });
        }
    }
}

/// When it happened.
pub(super) fn revision(event: &Event) -> i64 {
    event.kv.as_ref().map_or(0, |kv| kv.mod_revision)
}

#[cfg(test)]
mod tests {
    use cairn_proto::mvccpb::KeyValue;

    use super::*;

    type Queue = mpsc::Receiver<Result<WatchAnswer, WatchError>>;

    fn watched(start_revision: i64, buffer: usize) -> (Watched, Queue) {
        let (answers, queue) = mpsc::channel(buffer);
        let request = pb::WatchCreateRequest { start_revision, ..Default::default() };
        let mut watched = Watched::new(request, answers, oneshot::channel().0);
        watched.is_created(header(10), 0);
        (watched, queue)
    }

    fn header(revision: i64) -> pb::ResponseHeader {
        pb::ResponseHeader { revision, ..Default::default() }
    }

    fn answer(revisions: &[i64], fragment: bool) -> pb::WatchResponse {
        let event = |revision: &i64| Event {
            kv: Some(KeyValue { mod_revision: *revision, ..Default::default() }),
            ..Default::default()
        };
        let events = revisions.iter().map(event).collect();
        pb::WatchResponse { header: Some(header(20)), events, fragment, ..Default::default() }
    }

    fn starts_at(watched: &mut Watched) -> i64 {
        match watched.create().request_union {
            Some(RequestUnion::CreateRequest(request)) => request.start_revision,
            other => panic!("{other:?}"),
        }
    }

    fn revisions(queue: &mut Queue) -> Vec<i64> {
        queue.try_recv().unwrap().unwrap().events.iter().map(revision).collect()
    }

    #[test]
    fn a_watch_continues_behind_the_last_event_it_has_delivered() {
        let (mut watched, mut queue) = watched(5, 4);
        assert_eq!(starts_at(&mut watched), 5);
        assert_eq!(watched.deliver(answer(&[5, 7], false), usize::MAX), Delivery::Done);
        assert_eq!(starts_at(&mut watched), 8);
        assert_eq!(watched.deliver(answer(&[7, 8], false), usize::MAX), Delivery::Done);
        assert_eq!((revisions(&mut queue), revisions(&mut queue)), (vec![5, 7], vec![8]));
    }

    #[test]
    fn a_watch_from_now_on_continues_from_its_creation() {
        let (mut watched, _queue) = watched(0, 4);
        assert_eq!(starts_at(&mut watched), 11);
    }

    #[test]
    fn progress_moves_a_watch_on_but_never_back_or_before_its_start() {
        let (mut late, _queue) = watched(0, 4);
        assert_eq!(late.deliver(answer(&[], false), usize::MAX), Delivery::Done);
        assert_eq!(starts_at(&mut late), 21);
        let (mut future, _queue) = watched(100, 4);
        assert_eq!(future.deliver(answer(&[], false), usize::MAX), Delivery::Done);
        assert_eq!(starts_at(&mut future), 100);
    }

    #[test]
    fn pieces_are_delivered_together_or_not_at_all() {
        let (mut watched, mut queue) = watched(5, 4);
        watched.deliver(answer(&[5], true), usize::MAX);
        assert_eq!(starts_at(&mut watched), 5, "the pieces are asked for again");
        watched.deliver(answer(&[5], true), usize::MAX);
        watched.deliver(answer(&[5], true), usize::MAX);
        watched.deliver(answer(&[6], false), usize::MAX);
        assert_eq!(revisions(&mut queue), [5, 5, 6]);
        watched.deliver(answer(&[7], true), 4);
        assert_eq!(watched.deliver(answer(&[7], true), 4), Delivery::TooLarge);
    }

    #[test]
    fn what_does_not_fit_is_asked_for_again() {
        let (mut watched, mut queue) = watched(5, 1);
        assert_eq!(watched.deliver(answer(&[5], false), usize::MAX), Delivery::Done);
        assert_eq!(watched.deliver(answer(&[6], false), usize::MAX), Delivery::Full);
        assert_eq!(starts_at(&mut watched), 6);
        assert_eq!(revisions(&mut queue), [5]);
        drop(queue);
        assert_eq!(watched.deliver(answer(&[6], false), usize::MAX), Delivery::Closed);
    }
}

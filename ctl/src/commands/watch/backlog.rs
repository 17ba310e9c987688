//! What a watch has been told and the output has not taken yet.
//!
//! The output of a watch may stand still: a pager, a pipe into a program that is busy, a command that runs for each event. Members
//! do not wait: what is not fetched from them is gone with the next compaction. So answers are fetched as they come and kept here,
//! as many as fit. When no more fit, none are fetched until there is room, and if history has been compacted away by then,
//! [`Told::Over`] says that the output was too far behind.

use std::sync::Arc;

use cairn_client::{WatchAnswer, WatchError};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// Answers the client may have ready besides those kept here.
pub const ANSWERS_AHEAD: usize = 64;

/// What comes out of a backlog, in the order of its coming in.
#[derive(Debug)]
pub enum Told {
    /// An answer. Its room is free once both are dropped.
    Answer(WatchAnswer, OwnedSemaphorePermit),
    /// The end of the watch.
    Over {
        /// Why.
        error: WatchError,
        /// Whether answers had to be left with the member shortly before.
        was_full: bool,
    },
}

/// Where answers are added.
#[derive(Debug)]
pub struct Backlog {
    room: Arc<Semaphore>,
    kib_max: u32,
    queue: mpsc::UnboundedSender<Told>,
    /// Answers added since one had to wait for room.
    since_full: usize,
}

/// A backlog that keeps so many KiB of events.
pub fn backlog(kib_max: u32) -> (Backlog, mpsc::UnboundedReceiver<Told>) {
    let (queue, told) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(kib_max as usize));
    (Backlog { room, kib_max, queue, since_full: usize::MAX }, told)
}

impl Backlog {
    /// Adds an answer once there is room for it.
    pub async fn add(&mut self, answer: WatchAnswer) {
        let bytes: usize = answer.events.iter().map(Message::encoded_len).sum();
        // One that is larger than everything takes everything.
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX).min(self.kib_max);
        let waits = self.room.available_permits() < kib as usize;
        self.since_full = if waits { 0 } else { self.since_full.saturating_add(1) };
        if let Ok(room) = Arc::clone(&self.room).acquire_many_owned(kib).await {
            // A queue that is closed belongs to a command that has ended.
            let _ = self.queue.send(Told::Answer(answer, room));
        }
    }

    /// Adds the end.
    pub fn end(&self, error: WatchError) {
        let was_full = self.since_full <= ANSWERS_AHEAD;
        let _ = self.queue.send(Told::Over { error, was_full });
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::etcdserverpb::ResponseHeader;
    use cairn_proto::mvccpb::{Event, KeyValue};
    use tokio::task::yield_now;

    use super::*;

    fn answer(kib: usize) -> WatchAnswer {
        let kv = KeyValue { value: vec![0; kib * 1024 - 100].into(), ..Default::default() };
        WatchAnswer { header: ResponseHeader::default(), events: vec![Event { kv: Some(kv), ..Default::default() }] }
    }

    fn was_full(told: Option<Told>) -> bool {
        match told {
            Some(Told::Over { was_full, .. }) => was_full,
            other => panic!("not the end: {other:?}"),
        }
    }

    #[tokio::test]
    async fn as_much_as_fits_is_kept_and_the_next_answer_waits_for_room() {
        let (mut backlog, mut told) = backlog(10);
        for _ in 0..3 {
            backlog.add(answer(3)).await;
        }
        let mut fourth = tokio::spawn(async move {
            backlog.add(answer(3)).await;
            backlog
        });
        for _ in 0..10 {
            yield_now().await;
        }
        assert!(!fourth.is_finished() && told.len() == 3);
        drop(told.recv().await);
        let backlog = (&mut fourth).await.expect("there is room");
        assert_eq!(told.len(), 3);
        backlog.end(WatchError::Ended);
        for _ in 0..3 {
            assert!(matches!(told.recv().await, Some(Told::Answer(..))));
        }
        assert!(was_full(told.recv().await));
    }

    #[tokio::test]
    async fn an_answer_larger_than_the_backlog_is_kept_alone() {
        let (mut backlog, mut told) = backlog(2);
        backlog.add(answer(50)).await;
        assert!(matches!(told.recv().await, Some(Told::Answer(..))));
        backlog.end(WatchError::Ended);
        assert!(!was_full(told.recv().await), "nothing had to wait");
    }

    #[tokio::test]
    async fn a_backlog_that_was_full_long_ago_is_no_reason_for_an_end() {
        let (mut backlog, mut told) = backlog(2);
        backlog.add(answer(2)).await;
        tokio::join!(backlog.add(answer(2)), async { drop(told.recv().await) });
        drop(told.recv().await);
        for _ in 0..=ANSWERS_AHEAD {
            backlog.add(answer(1)).await;
            drop(told.recv().await);
        }
        backlog.end(WatchError::Ended);
        assert!(!was_full(told.recv().await));
    }
}

//! What waits to be sent to one member.

use std::{
    collections::VecDeque,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use cairn_proto::peer::{Frame, Hello, RefusedCommand};
use futures::Stream;
use parking_lot::Mutex;

use super::{FRAME_BYTES, QUEUE_BYTES_MAX, QUEUE_COUNT_MAX};
use crate::node::Sent;

/// A bounded queue of what is to be sent, and the stream of frames that empties it. It takes nothing while there is no
/// connection: what is old by the time there is one would only be in raft's way.
#[derive(Debug, Default)]
pub(super) struct Queue {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Counts connections; only the frames of the newest one give anything.
    connection: u64,
    /// Whether the connection is established.
    open: bool,
    /// The member there proposes a command in its term only, and says which ones it does not propose.
    heeds_terms: bool,
    hello: Option<Hello>,
    ping: u64,
    alive: u64,
    /// The newest one only: there is one at a time.
    snapshot_failed: u64,
    messages: VecDeque<Bytes>,
    /// With the term of each, if the member there heeds it.
    commands: VecDeque<(u64, Bytes)>,
    refused: VecDeque<RefusedCommand>,
    bytes: usize,
    waker: Option<Waker>,
}

impl Inner {
    /// Forgets everything. Gives how many messages and commands that are.
    fn clear(&mut self) -> usize {
        let dropped = self.count();
        self.messages.clear();
        self.commands.clear();
        self.refused.clear();
        self.bytes = 0;
        self.ping = 0;
        self.alive = 0;
        self.snapshot_failed = 0;
        dropped
    }

    fn count(&self) -> usize {
        self.messages.len() + self.commands.len() + self.refused.len()
    }

    fn has_room(&self, bytes: usize) -> bool {
        let count = self.count();
        self.open && count < QUEUE_COUNT_MAX && (count == 0 || self.bytes + bytes <= QUEUE_BYTES_MAX)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Whatever is there, up to the bytes of a frame.
    fn frame(&mut self) -> Option<Frame> {
        let mut frame = Frame {
            hello: self.hello.take(),
            ping: mem::take(&mut self.ping),
            alive: mem::take(&mut self.alive),
            snapshot_failed: mem::take(&mut self.snapshot_failed),
            ..Frame::default()
        };
        if self.open {
            let mut bytes = 0;
            while bytes < FRAME_BYTES {
                let Some(message) = self.messages.pop_front() else { break };
                bytes += message.len();
                frame.messages.push(message);
            }
            while bytes < FRAME_BYTES {
                let Some((term, command)) = self.commands.pop_front() else { break };
                bytes += command.len();
                frame.commands.push(command);
                if self.heeds_terms {
                    frame.command_terms.push(term);
                }
            }
            self.bytes -= bytes;
            frame.refused_commands.extend(self.refused.drain(..));
        }
        (frame != Frame::default()).then_some(frame)
    }
}

impl Queue {
    /// Begins a connection that introduces itself with `hello`; the frames of an earlier one end.
    pub(super) fn connect(self: &Arc<Self>, hello: Hello) -> Frames {
        let mut inner = self.inner.lock();
        inner.connection += 1;
        inner.open = false;
        inner.heeds_terms = false;
        inner.hello = Some(hello);
        inner.clear();
        inner.wake();
        Frames { queue: Arc::clone(self), connection: inner.connection }
    }

    /// The connection is established: from now on there is room. Whether the member there heeds the terms of commands
    /// is known as long as the connection lasts: it may come back as another build.
    pub(super) fn open(&self, heeds_terms: bool) {
        let mut inner = self.inner.lock();
        inner.open = true;
        inner.heeds_terms = heeds_terms;
    }

    /// The connection is over. Gives how many messages and commands waited for it.
    pub(super) fn close(&self) -> usize {
        let mut inner = self.inner.lock();
        inner.connection += 1;
        inner.open = false;
        inner.wake();
        inner.clear()
    }

    /// Whether there is a connection.
    pub(super) fn is_open(&self) -> bool {
        self.inner.lock().open
    }

    /// Takes an encoded message, unless there is no room or no connection.
    pub(super) fn push_message(&self, message: Bytes) -> bool {
        self.push(message.len(), |inner| inner.messages.push_back(message)).is_some()
    }

    /// Takes an encoded command to be proposed in a term, unless there is no room or no connection.
    pub(super) fn push_command(&self, term: u64, command: Bytes) -> Sent {
        let heeds_terms = self.push(command.len(), |inner| inner.commands.push_back((term, command)));
        match heeds_terms {
            Some(true) => Sent::Bound,
            Some(false) => Sent::Loose,
            None => Sent::Unsent,
        }
    }

    /// Takes what the member there is to hear of a command that it had forwarded, likewise.
    pub(super) fn push_refused(&self, refused: RefusedCommand) -> bool {
        self.push(0, |inner| inner.refused.push_back(refused)).is_some()
    }

    /// If there is room: whether the member there heeds the terms of commands.
    fn push(&self, bytes: usize, push: impl FnOnce(&mut Inner)) -> Option<bool> {
        let mut inner = self.inner.lock();
        if !inner.has_room(bytes) {
            return None;
        }
        inner.bytes += bytes;
        push(&mut inner);
        inner.wake();
        Some(inner.heeds_terms)
    }

    /// Asks the other side for a sign of life, ahead of everything that waits.
    pub(super) fn ping(&self, number: u64) {
        let mut inner = self.inner.lock();
        inner.ping = number;
        inner.wake();
    }

    /// Answers a probe of the other side, likewise.
    pub(super) fn alive(&self, probe: u64) {
        let mut inner = self.inner.lock();
        inner.alive = probe;
        inner.wake();
    }

    /// Says that a snapshot did not come, if there is a connection.
    pub(super) fn snapshot_failed(&self, id: u64) {
        let mut inner = self.inner.lock();
        if inner.open {
            inner.snapshot_failed = id;
            inner.wake();
        }
    }
}

/// The frames of one connection. Ends with it.
#[derive(Debug)]
pub(super) struct Frames {
    queue: Arc<Queue>,
    connection: u64,
}

impl Stream for Frames {
    type Item = Frame;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Frame>> {
        let mut inner = self.queue.inner.lock();
        if inner.connection != self.connection {
            return Poll::Ready(None);
        }
        let frame = inner.frame();
        if frame.is_none() {
            inner.waker = Some(cx.waker().clone());
        }
        frame.map_or(Poll::Pending, |frame| Poll::Ready(Some(frame)))
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    /// What a poll of the frames gives.
    fn next(frames: &mut Frames) -> Poll<Option<Frame>> {
        frames.next().now_or_never().map_or(Poll::Pending, Poll::Ready)
    }

    fn frame(frames: &mut Frames) -> Option<Frame> {
        frames.next().now_or_never().flatten()
    }

    #[test]
    fn nothing_is_taken_without_a_connection_and_the_introduction_comes_first() {
        let queue = Arc::new(Queue::default());
        assert!(!queue.push_message(Bytes::from_static(b"lost")));
        let mut frames = queue.connect(Hello { from: 1, ..Hello::default() });
        assert!(!queue.push_message(Bytes::from_static(b"too early")));
        let hello = frame(&mut frames).unwrap();
        assert!(hello.hello.is_some() && hello.messages.is_empty());
        assert_eq!(next(&mut frames), Poll::Pending);
        queue.open(true);
        assert!(
            queue.push_message(Bytes::from_static(b"m"))
                && queue.push_command(4, Bytes::from_static(b"c")) == Sent::Bound
        );
        queue.ping(7);
        queue.alive(8);
        queue.snapshot_failed(9);
        let frame = frame(&mut frames).unwrap();
        assert_eq!((frame.alive, frame.snapshot_failed), (8, 9));
        assert_eq!((frame.ping, frame.messages.len(), frame.commands.len()), (7, 1, 1));
        assert_eq!(frame.command_terms, [4]);
    }

    #[test]
    fn a_member_of_an_earlier_build_is_sent_no_terms_and_the_sender_knows_it() {
        let queue = Arc::new(Queue::default());
        let command = || Bytes::from_static(b"c");
        assert_eq!(queue.push_command(4, command()), Sent::Unsent);
        for (heeds_terms, sent, terms) in
            [(true, Sent::Bound, &[4][..]), (false, Sent::Loose, &[]), (true, Sent::Bound, &[4])]
        {
            let mut frames = queue.connect(Hello::default());
            assert_eq!(queue.push_command(4, command()), Sent::Unsent);
            queue.open(heeds_terms);
            assert_eq!(queue.push_command(4, command()), sent);
            let frame = frame(&mut frames).unwrap();
            assert_eq!((&frame.command_terms[..], frame.commands.len()), (terms, 1));
        }
    }

    #[test]
    fn what_is_refused_is_told_within_the_bound_and_lost_with_the_connection() {
        let queue = Arc::new(Queue::default());
        let refused = |counter| RefusedCommand { counter, ..RefusedCommand::default() };
        assert!(!queue.push_refused(refused(1)));
        let mut frames = queue.connect(Hello::default());
        queue.open(true);
        assert_eq!(
            (0..=QUEUE_COUNT_MAX as u64).filter(|&counter| queue.push_refused(refused(counter))).count(),
            QUEUE_COUNT_MAX
        );
        assert_eq!(frame(&mut frames).unwrap().refused_commands.len(), QUEUE_COUNT_MAX);
        assert!(queue.push_refused(refused(1)) && queue.push_message(Bytes::from_static(b"m")));
        assert_eq!(queue.close(), 2);
    }

    #[test]
    fn a_frame_takes_what_is_there_but_not_too_much() {
        let queue = Arc::new(Queue::default());
        let mut frames = queue.connect(Hello::default());
        queue.open(true);
        for _ in 0..5 {
            assert!(queue.push_message(Bytes::from(vec![0; FRAME_BYTES / 2])));
        }
        let counts: Vec<_> = std::iter::from_fn(|| frame(&mut frames)).map(|frame| frame.messages.len()).collect();
        assert_eq!(counts, [2, 2, 1]);
    }

    #[test]
    fn what_waits_is_bounded_but_one_message_always_fits() {
        let queue = Arc::new(Queue::default());
        let _frames = queue.connect(Hello::default());
        queue.open(true);
        assert!(queue.push_message(Bytes::from(vec![0; QUEUE_BYTES_MAX + 1])));
        assert!(!queue.push_message(Bytes::from_static(b"x")));
    }

    #[test]
    fn a_new_connection_ends_the_frames_of_the_old_one_and_begins_empty() {
        let queue = Arc::new(Queue::default());
        let mut old = queue.connect(Hello::default());
        queue.open(true);
        queue.push_message(Bytes::from_static(b"stale"));
        let mut new = queue.connect(Hello { from: 1, ..Hello::default() });
        assert_eq!(next(&mut old), Poll::Ready(None));
        queue.open(true);
        assert!(frame(&mut new).unwrap().messages.is_empty());
        queue.close();
        assert_eq!(next(&mut new), Poll::Ready(None));
    }
}

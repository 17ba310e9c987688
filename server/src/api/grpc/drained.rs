//! The body of a request that is received whether or not anyone reads it.
//!
//! ```text
//!   HTTP/2's windows ─▶ Incoming ──a task──▶ bytes, up to a bound ─▶ whoever reads the body
//! ```
//!
//! HTTP drives a call by its answers: while a client takes none of them, nothing asks for the next request. The requests would wait in the HTTP/2 library,
//! frame by frame, at about 256 bytes for each however short it is, until the library ends the connection with all other calls on it. Here they wait
//! as the bytes that they are. When a bound is reached the rest waits in the library, up to the call's window, and then at the client. There is a bound for
//! each call, and one for all calls of a connection: when that one is reached, a call receives only when nothing of it waits.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// Bytes that are received before they are read: renewals of 8,000 leases.
const BYTES_MAX: usize = 128 << 10;
/// The same for all calls of a connection, as far as none of them is held up altogether: the connection's window.
const CONNECTION_BYTES_MAX: usize = 32 << 20;

/// Bytes that are given out at once: what a call is being served of does not count as waiting.
const PIECE_BYTES_MAX: usize = 16 << 10;

/// The bytes that the calls of one connection have received and that wait to be read.
#[derive(Debug, Clone, Default)]
pub struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn has_room(&self) -> bool {
        self.0.load(Ordering::Relaxed) < CONNECTION_BYTES_MAX
    }
}

/// A body of which some is received before it is read. What was not read ends with it.
pub struct Drained<E = hyper::Error> {
    queue: Arc<Mutex<Queue<E>>>,
    _task: AbortOnDropHandle<()>,
}

struct Queue<E> {
    bytes: BytesMut,
    /// Those of the whole connection; `bytes` are among them.
    waiting: Waiting,
    /// The body has ended, well or not.
    end: Option<Result<(), E>>,
    /// Waits for bytes or the end.
    reader: Option<Waker>,
    /// Waits for room.
    writer: Option<Waker>,
}

impl<E: Send + 'static> Drained<E> {
    /// Receives `body`, a call's on a connection with `waiting` bytes. To be called within a runtime.
    pub fn new(mut body: impl Body<Data = Bytes, Error = E> + Send + Unpin + 'static, waiting: Waiting) -> Self {
        let queue = Queue { bytes: BytesMut::new(), waiting, end: None, reader: None, writer: None };
        let queue = Arc::new(Mutex::new(queue));
        let received = Arc::clone(&queue);
        let task = tokio::spawn(poll_fn(move |cx| {
            loop {
                if !received.lock().has_room(cx) {
                    return Poll::Pending;
                }
                let frame = ready!(Pin::new(&mut body).poll_frame(cx));
                if received.lock().receive(frame) {
                    return Poll::Ready(());
                }
            }
        }));
        Self { queue, _task: AbortOnDropHandle::new(task) }
    }
}

impl<E> Queue<E> {
    fn has_room(&mut self, cx: &Context<'_>) -> bool {
        // What is read wakes this call; that an empty one has room keeps it from waiting for the others.
        let has_room = self.bytes.is_empty() || self.bytes.len() < BYTES_MAX && self.waiting.has_room();
        if !has_room {
            self.writer = Some(cx.waker().clone());
        }
        has_room
    }

    /// Takes what the body gave; true when it was the last.
    fn receive(&mut self, frame: Option<Result<Frame<Bytes>, E>>) -> bool {
        match frame {
            // What is not data is trailers, which mean nothing here.
            Some(Ok(frame)) => {
                let data = frame.into_data().unwrap_or_default();
                self.waiting.add(data.len());
                self.bytes.extend_from_slice(&data);
            }
            Some(Err(error)) => self.end = Some(Err(error)),
            None => self.end = Some(Ok(())),
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.end.is_some()
    }
}

impl<E> Drop for Queue<E> {
    fn drop(&mut self) {
        self.waiting.remove(self.bytes.len());
    }
}

impl<E> Body for Drained<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let mut queue = self.queue.lock();
        if !queue.bytes.is_empty() {
            let piece = queue.bytes.len().min(PIECE_BYTES_MAX);
            let bytes = queue.bytes.split_to(piece).freeze();
            queue.waiting.remove(bytes.len());
            if let Some(writer) = queue.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match queue.end.take() {
            Some(Err(error)) => {
                queue.end = Some(Ok(()));
                Poll::Ready(Some(Err(error)))
            }
            Some(Ok(())) => {
                queue.end = Some(Ok(()));
                Poll::Ready(None)
            }
            None => {
                queue.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::UnboundedReceiverStream;

    use super::*;

    type Sent = Result<Frame<Bytes>, &'static str>;

    fn drained() -> (mpsc::UnboundedSender<Sent>, Drained<&'static str>) {
        drained_beside(&Waiting::default())
    }

    fn drained_beside(waiting: &Waiting) -> (mpsc::UnboundedSender<Sent>, Drained<&'static str>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Drained::new(StreamBody::new(UnboundedReceiverStream::new(receiver)), waiting.clone()))
    }

    /// Lets the other tasks of the runtime run until they wait.
    async fn settle() {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    fn data(len: usize) -> Frame<Bytes> {
        Frame::data(vec![7; len].into())
    }

    #[tokio::test]
    async fn what_nobody_reads_is_received_up_to_the_bound() {
        let (sender, mut body) = drained();
        for _ in 0..4 * BYTES_MAX / 1024 {
            sender.send(Ok(data(1024))).expect("the body is open");
        }
        settle().await;
        assert_eq!(body.queue.lock().bytes.len(), BYTES_MAX);
        drop(sender);
        let mut read = 0;
        while let Some(frame) = body.frame().await {
            read += frame.expect("no error").into_data().expect("data").len();
            settle().await;
            assert!(body.queue.lock().bytes.len() <= BYTES_MAX);
        }
        assert_eq!(read, 4 * BYTES_MAX);
    }

    #[tokio::test]
    async fn the_calls_of_a_connection_share_a_bound() {
        let waiting = Waiting::default();
        let calls: Vec<_> = (0..2 * CONNECTION_BYTES_MAX / BYTES_MAX).map(|_| drained_beside(&waiting)).collect();
        for (sender, _) in &calls {
            for _ in 0..2 * BYTES_MAX / 1024 {
                sender.send(Ok(data(1024))).expect("the body is open");
            }
            settle().await;
        }
        let total = || waiting.0.load(Ordering::Relaxed);
        assert_eq!(total(), CONNECTION_BYTES_MAX + calls.len() / 2 * 1024, "each call has received something");
        let (first, mut others) = (calls.len() / 2, calls);
        let mut read = 0;
        for (sender, body) in &mut others[first..] {
            // The connection has no room, and this call is read to its end all the same.
            sender.send(Err("the end")).expect("the body is open");
            while let Some(Ok(frame)) = body.frame().await {
                read += frame.into_data().expect("data").len();
            }
        }
        assert_eq!(read, first * 2 * BYTES_MAX);
        drop(others);
        for _ in 0..100 {
            settle().await;
        }
        assert_eq!(total(), 0);
    }

    #[tokio::test]
    async fn what_came_before_an_error_is_read_before_it() {
        let (sender, mut body) = drained();
        sender.send(Ok(data(3))).expect("the body is open");
        sender.send(Err("reset")).expect("the body is open");
        settle().await;
        assert_eq!(body.frame().await.expect("data").expect("data").into_data().expect("data").len(), 3);
        assert_eq!(body.frame().await.expect("an error").err(), Some("reset"));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test]
    async fn a_body_that_is_dropped_is_received_no_more() {
        let (sender, body) = drained();
        settle().await;
        drop(body);
        tokio::time::timeout(std::time::Duration::from_secs(30), sender.closed()).await.expect("the task ends");
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken() {
        let (sender, mut body) = drained();
        let reading = tokio::spawn(async move { body.frame().await.map(|frame| frame.map(|frame| frame.is_data())) });
        settle().await;
        sender.send(Ok(data(1))).expect("the body is open");
        assert_eq!(reading.await.expect("it ends"), Some(Ok(true)));
    }
}

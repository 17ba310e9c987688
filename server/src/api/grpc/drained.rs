//! The body of a request that is received whether or not anyone reads it.
//!
//! ```text
//!   HTTP/2's windows ─▶ Incoming ──a task──▶ bytes, up to a bound ─▶ whoever reads the body
//! ```
//!
//! HTTP drives a call by its answers: while a client takes none of them, nothing asks for the next request. The requests would wait in the HTTP/2 library,
//! frame by frame, at about 256 bytes for each however short it is, until the library ends the connection with all other calls on it. Here they wait
//! as the bytes that they are. When the bound is reached the rest waits in the library, up to the call's window, and then at the client.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};
use parking_lot::Mutex;
use tokio_util::task::AbortOnDropHandle;

/// Bytes that are received before they are read: renewals of 8,000 leases.
const BYTES_MAX: usize = 128 << 10;

/// A body of which some is received before it is read. What was not read ends with it.
pub struct Drained<E = hyper::Error> {
    queue: Arc<Mutex<Queue<E>>>,
    _task: AbortOnDropHandle<()>,
}

struct Queue<E> {
    bytes: BytesMut,
    /// The body has ended, well or not.
    end: Option<Result<(), E>>,
    /// Waits for bytes or the end.
    reader: Option<Waker>,
    /// Waits for room.
    writer: Option<Waker>,
}

impl<E: Send + 'static> Drained<E> {
    /// Receives `body`. To be called within a runtime.
    pub fn new(mut body: impl Body<Data = Bytes, Error = E> + Send + Unpin + 'static) -> Self {
        let queue = Queue { bytes: BytesMut::new(), end: None, reader: None, writer: None };
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
        let has_room = self.bytes.len() < BYTES_MAX;
        if !has_room {
            self.writer = Some(cx.waker().clone());
        }
        has_room
    }

    /// Takes what the body gave; true when it was the last.
    fn receive(&mut self, frame: Option<Result<Frame<Bytes>, E>>) -> bool {
        match frame {
            // What is not data is trailers, which mean nothing here.
            Some(Ok(frame)) => self.bytes.extend_from_slice(&frame.into_data().unwrap_or_default()),
            Some(Err(error)) => self.end = Some(Err(error)),
            None => self.end = Some(Ok(())),
        }
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
        self.end.is_some()
    }
}

impl<E> Body for Drained<E> {
    type Data = Bytes;
    type Error = E;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, E>>> {
        let mut queue = self.queue.lock();
        if !queue.bytes.is_empty() {
            let bytes = queue.bytes.split().freeze();
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
        let (sender, receiver) = mpsc::unbounded_channel();
        (sender, Drained::new(StreamBody::new(UnboundedReceiverStream::new(receiver))))
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

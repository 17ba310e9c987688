//! The messages of a request, out of the frames of its body.
//!
//! gRPC frames a message as one byte (compressed or not), four bytes of length (big endian) and the message.

use std::{future::poll_fn, pin::Pin};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;
use tonic::Status;

use super::encoding::Encoding;
use crate::api::framed::PREFIX_BYTES;

/// Reads messages from a request's body.
pub struct Messages<B> {
    body: B,
    /// Received, but not yet given out.
    received: BytesMut,
    /// Received in one piece and not yet looked at.
    fresh: Bytes,
    encoding: Encoding,
    max_message_bytes: usize,
    ended: bool,
}

/// A message of `bytes` is more than is taken.
#[cold]
pub(crate) fn too_large(bytes: usize, bytes_max: usize) -> Status {
    Status::resource_exhausted(format!("grpc: received message larger than max ({bytes} vs. {bytes_max})"))
}

impl<B> Messages<B>
where
    B: Body<Data = Bytes> + Unpin,
{
    /// Reads messages of at most `max_message_bytes`, decompressed, from `body`.
    pub fn new(body: B, encoding: Encoding, max_message_bytes: usize) -> Self {
        Self { body, received: BytesMut::new(), fresh: Bytes::new(), encoding, max_message_bytes, ended: false }
    }

    /// The next message, `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            if self.ended {
                let left = self.received.len() + self.fresh.len();
                return if left == 0 { Ok(None) } else { Err(Status::internal("unexpected EOF")) };
            }
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame {
                None => self.ended = true,
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.add(data);
                    }
                }
                Some(Err(_)) => return Err(Status::cancelled("context canceled")),
            }
        }
    }

    /// The only message of a unary request.
    pub async fn only(&mut self) -> Result<Bytes, Status> {
        let message = self.next().await?.ok_or_else(|| Status::internal("EOF"))?;
        match self.next().await? {
            None => Ok(message),
            Some(_) => Err(Status::internal("a second message came on a call that takes one")),
        }
    }

    fn add(&mut self, data: Bytes) {
        if self.received.is_empty() && self.fresh.is_empty() {
            self.fresh = data;
            return;
        }
        // What came before holds no whole message.
        self.received.extend_from_slice(&self.fresh);
        self.fresh = Bytes::new();
        self.received.extend_from_slice(&data);
    }

    #[cold]
    fn decompress(&self, message: &[u8]) -> Result<Bytes, Status> {
        self.encoding.decompress(message, self.max_message_bytes)
    }

    /// A whole message, if there is one. Mostly a message comes in one piece and is given out as it came.
    fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let waiting: &[u8] = if self.received.is_empty() { &self.fresh } else { &self.received };
        let Some((prefix, rest)) = waiting.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let [compressed, length @ ..] = *prefix;
        let len = u32::from_be_bytes(length) as usize;
        if len > self.max_message_bytes {
            return Err(too_large(len, self.max_message_bytes));
        }
        if compressed > 1 {
            return Err(Status::internal(format!("grpc: received unexpected payload format {compressed}")));
        }
        if rest.len() < len {
            if self.received.is_empty() {
                self.received.reserve(PREFIX_BYTES + len);
            }
            return Ok(None);
        }
        let message = if self.received.is_empty() {
            self.fresh.advance(PREFIX_BYTES);
            self.fresh.split_to(len)
        } else {
            self.received.advance(PREFIX_BYTES);
            self.received.split_to(len).freeze()
        };
        if compressed == 0 { Ok(Some(message)) } else { self.decompress(&message).map(Some) }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, task::Poll};

    use http_body::Frame;
    use proptest::prelude::*;
    use tonic::Code;

    use super::*;

    struct Chunks(std::vec::IntoIter<Bytes>);

    impl Body for Chunks {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.next().map(|chunk| Ok(Frame::data(chunk))))
        }
    }

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut out = vec![0];
        out.extend((message.len() as u32).to_be_bytes());
        out.extend(message);
        out
    }

    fn of(chunks: Vec<Vec<u8>>) -> Messages<Chunks> {
        let chunks: Vec<Bytes> = chunks.into_iter().map(Bytes::from).collect();
        Messages::new(Chunks(chunks.into_iter()), Encoding::Identity, 1000)
    }

    fn now<T>(future: impl Future<Output = T>) -> T {
        futures::FutureExt::now_or_never(future).expect("the chunks are there")
    }

    #[test]
    fn a_message_above_the_limit_is_refused_before_it_is_received() {
        let mut prefix = vec![0];
        prefix.extend(1001u32.to_be_bytes());
        let status = now(of(vec![prefix]).next()).expect_err("too large");
        assert_eq!(
            (status.code(), status.message()),
            (Code::ResourceExhausted, "grpc: received message larger than max (1001 vs. 1000)")
        );
    }

    #[test]
    fn a_body_that_ends_within_a_message_is_refused() {
        for cut in 1..8 {
            let status = now(of(vec![framed(b"abc")[..cut].to_vec()]).next()).expect_err("cut off");
            assert_eq!(status.code(), Code::Internal, "cut at {cut}");
        }
    }

    #[test]
    fn messages_that_are_compressed_in_no_known_way_are_refused() {
        for flag in [1, 2, 255] {
            let status = now(of(vec![vec![flag, 0, 0, 0, 0]]).next()).expect_err("compressed");
            assert_eq!(status.code(), Code::Internal, "{flag}");
        }
    }

    #[test]
    fn a_unary_call_has_exactly_one_message() {
        assert_eq!(now(of(vec![]).only()).expect_err("none").code(), Code::Internal);
        assert_eq!(now(of(vec![framed(b"a"), framed(b"b")]).only()).expect_err("two").code(), Code::Internal);
        assert_eq!(now(of(vec![framed(b"")]).only()).expect("one"), Bytes::new());
    }

    proptest! {
        #[test]
        fn messages_come_out_as_they_went_in_however_the_body_is_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..50), 0..6),
            sizes in prop::collection::vec(1..40usize, 1..60),
        ) {
            let mut stream: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();
            let mut chunks = vec![];
            for size in sizes {
                let rest = stream.split_off(size.min(stream.len()));
                chunks.push(std::mem::replace(&mut stream, rest));
            }
            chunks.push(stream);
            let mut reader = of(chunks);
            for message in messages {
                prop_assert_eq!(now(reader.next()).expect("valid"), Some(Bytes::from(message)));
            }
            prop_assert_eq!(now(reader.next()).expect("valid"), None);
        }
    }
}

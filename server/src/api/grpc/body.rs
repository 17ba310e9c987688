//! The bodies of answers: framed messages followed by the status, or plain bytes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use tonic::Status;

use super::message::PREFIX_BYTES;
use crate::api::{
    answer::{Answer, Parts},
    wire,
};

/// Rows below this size are copied together; one of at least this size goes to the socket as it is.
const SPLICE_BYTES_MIN: usize = 16 * 1024;
/// Rows are copied together up to this many bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// The body of any answer.
pub enum Body {
    /// Nothing.
    Empty,
    /// Plain bytes.
    Plain(Bytes),
    /// One framed message and an OK status.
    Unary(Framed),
    /// Framed messages, what is left of the last one, and the status that ends them.
    Stream(MessageStream, Option<Framed>),
    /// The body of one of tonic's own services.
    Tonic(tonic::body::Body),
    /// The trailers were sent.
    Done,
}

/// Messages to be framed, and how the call ended.
pub type MessageStream = Pin<Box<dyn Stream<Item = Result<Framed, Status>> + Send>>;

/// A message with its prefix.
pub enum Framed {
    /// In one piece.
    Whole(Bytes),
    /// Put together while it is sent.
    Parts(Splice),
}

impl Framed {
    /// Frames an answer.
    pub fn new<A: Answer>(answer: A) -> Self {
        match answer.into_parts() {
            Ok(parts) => Self::Parts(Splice::new(parts)),
            Err(answer) => {
                let len = answer.wire_len();
                let mut out = BytesMut::with_capacity(PREFIX_BYTES + len);
                put_prefix(&mut out, len);
                answer.write(&mut out);
                debug_assert_eq!(out.len(), PREFIX_BYTES + len, "an answer's length and its bytes must agree");
                Self::Whole(out.freeze())
            }
        }
    }

    /// Bytes of the message.
    pub fn message_bytes(&self) -> usize {
        match self {
            Self::Whole(bytes) => bytes.len().saturating_sub(PREFIX_BYTES),
            Self::Parts(splice) => splice.message_bytes,
        }
    }

    /// The next bytes to send.
    fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Whole(bytes) if bytes.is_empty() => None,
            Self::Whole(bytes) => Some(std::mem::take(bytes)),
            Self::Parts(splice) => splice.next(),
        }
    }
}

fn put_prefix(out: &mut BytesMut, len: usize) {
    out.put_u8(0);
    out.put_u32(u32::try_from(len).expect("an answer of 4 GiB would have exhausted memory before"));
}

/// A large message that is put together while it is sent, so that it is never in memory twice.
pub struct Splice {
    message_bytes: usize,
    /// Put together, but not sent.
    ready: BytesMut,
    /// Follows `ready` before all other rows.
    joined: Bytes,
    /// Follows `ready` as it is.
    row: Option<Bytes>,
    field: u8,
    rows: std::vec::IntoIter<Bytes>,
    tail: Bytes,
}

impl Splice {
    fn new(parts: Parts) -> Self {
        let Parts { len, head, joined, field, rows, tail } = parts;
        let mut ready = BytesMut::new();
        if rows.len() > 0 {
            ready.reserve(CHUNK_BYTES + SPLICE_BYTES_MIN);
        }
        put_prefix(&mut ready, len);
        ready.put_slice(&head);
        Self { message_bytes: len, ready, joined, row: None, field, rows, tail }
    }

    fn next(&mut self) -> Option<Bytes> {
        if let Some(row) = self.row.take() {
            return Some(row);
        }
        while self.ready.len() < CHUNK_BYTES {
            if !self.joined.is_empty() {
                self.row = Some(std::mem::take(&mut self.joined));
                break;
            }
            let Some(row) = self.rows.next() else {
                self.ready.put_slice(&std::mem::take(&mut self.tail));
                break;
            };
            wire::put_delimiter(&mut self.ready, self.field, row.len());
            if row.len() >= SPLICE_BYTES_MIN {
                self.row = Some(row);
                break;
            }
            self.ready.put_slice(&row);
        }
        if self.ready.is_empty() {
            return None;
        }
        let chunk = self.ready.split().freeze();
        if self.rows.len() > 0 {
            self.ready.reserve(CHUNK_BYTES + SPLICE_BYTES_MIN);
        }
        Some(chunk)
    }
}

/// What can go wrong while a body is sent: only what tonic's own services report.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl Body {
    /// The last frame.
    fn end(&mut self, trailers: HeaderMap) -> Frame<Bytes> {
        *self = Self::Done;
        Frame::trailers(trailers)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = match &mut *self {
            Self::Empty | Self::Done => return Poll::Ready(None),
            Self::Tonic(body) => return Pin::new(body).poll_frame(cx).map_err(Into::into),
            Self::Plain(bytes) => {
                let bytes = std::mem::take(bytes);
                *self = Self::Done;
                Frame::data(bytes)
            }
            Self::Unary(framed) => match framed.next() {
                Some(bytes) => Frame::data(bytes),
                None => self.end(ok_trailers()),
            },
            Self::Stream(stream, sending) => loop {
                if let Some(bytes) = sending.as_mut().and_then(Framed::next) {
                    break Frame::data(bytes);
                }
                match ready!(stream.as_mut().poll_next(cx)) {
                    Some(Ok(framed)) => *sending = Some(framed),
                    Some(Err(status)) => break self.end(trailers(&status)),
                    None => break self.end(ok_trailers()),
                }
            },
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty | Self::Done => true,
            Self::Tonic(body) => body.is_end_stream(),
            Self::Plain(_) | Self::Unary(_) | Self::Stream(..) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty | Self::Done => SizeHint::with_exact(0),
            Self::Plain(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Unary(_) | Self::Stream(..) | Self::Tonic(_) => SizeHint::default(),
        }
    }
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

fn ok_trailers() -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
    trailers
}

fn trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::with_capacity(2);
    if status.add_header(&mut trailers).is_err() {
        // The message cannot be a header value, which percent-encoding should have prevented: the code goes alone.
        trailers.clear();
        trailers.insert(GRPC_STATUS, HeaderValue::from(status.code() as i32));
    }
    trailers
}

#[cfg(test)]
mod tests {
    use cairn_proto::etcdserverpb as pb;
    use futures::FutureExt;
    use http_body_util::BodyExt;
    use prost::Message;

    use super::*;
    use crate::{
        api::answer::{Header, RangeAnswer},
        state::mvcc::Rows,
    };

    fn collect(body: Body) -> (Vec<Bytes>, HeaderMap) {
        let collected = async {
            let (mut body, mut data, mut end) = (body, vec![], HeaderMap::new());
            while let Some(frame) = body.frame().await {
                match frame.expect("the body has no errors").into_data() {
                    Ok(bytes) => data.push(bytes),
                    Err(frame) => end = frame.into_trailers().expect("data or trailers"),
                }
            }
            (data, end)
        };
        collected.now_or_never().expect("the body waits for nothing")
    }

    fn range_answer(sizes: &[usize]) -> (RangeAnswer, Vec<u8>) {
        let kvs: Vec<_> = sizes
            .iter()
            .map(|size| cairn_proto::mvccpb::KeyValue {
                key: "k".into(),
                value: vec![7; *size].into(),
                ..Default::default()
            })
            .collect();
        let header = Header { cluster_id: 1, member_id: 2, revision: 3, raft_term: 4 };
        let message = pb::RangeResponse { header: Some(header.into()), kvs: kvs.clone(), more: true, count: 77 };
        let rows = Rows { count: 77, more: true, kvs: kvs.iter().map(|kv| kv.encode_to_vec().into()).collect() };
        (RangeAnswer { header: Some(header), rows }, message.encode_to_vec())
    }

    #[test]
    fn a_unary_answer_is_one_frame_and_an_ok_status() {
        let (answer, message) = range_answer(&[10, 20]);
        let (data, end) = collect(Body::Unary(Framed::new(answer)));
        assert_eq!(data.len(), 1);
        assert_eq!(data[0][..5], [0, 0, 0, 0, message.len() as u8]);
        assert_eq!(data[0][5..], message[..]);
        assert_eq!(end.get("grpc-status"), Some(&HeaderValue::from_static("0")));
    }

    #[test]
    fn an_empty_message_still_has_its_prefix() {
        let (data, _) = collect(Body::Unary(Framed::new(pb::DefragmentResponse::default())));
        assert_eq!(data, [Bytes::from_static(&[0; 5])]);
    }

    #[test]
    fn a_large_answer_is_sent_in_chunks_of_the_same_bytes() {
        for sizes in [&[100; 2000][..], &[70_000, 1, 300_000, 5], &[40_000; 4]] {
            let (answer, message) = range_answer(sizes);
            let framed = Framed::new(answer);
            assert_eq!(framed.message_bytes(), message.len());
            let (data, _) = collect(Body::Unary(framed));
            assert!(data.len() > 1);
            let all = data.concat();
            assert_eq!(all[1..5], (message.len() as u32).to_be_bytes());
            assert_eq!(all[5..], message[..]);
        }
    }

    #[test]
    fn a_stream_ends_with_its_status() {
        let messages =
            vec![Ok(Framed::new(pb::DefragmentResponse::default())), Err(cairn_proto::ApiError::Compacted.into())];
        let (data, end) = collect(Body::Stream(Box::pin(futures::stream::iter(messages)), None));
        assert_eq!(data.len(), 1);
        assert_eq!(end.get("grpc-status"), Some(&HeaderValue::from_static("11")));
        let message = end.get("grpc-message").and_then(|m| m.to_str().ok());
        assert_eq!(message, Some("etcdserver:%20mvcc:%20required%20revision%20has%20been%20compacted"));
    }
}

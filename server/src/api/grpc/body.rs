//! The bodies of answers: framed messages followed by the status, or plain bytes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body::{Frame, SizeHint};
use tonic::Status;

use crate::api::framed::{Answers, Framed};

/// The body of any answer.
pub enum Body {
    /// Nothing.
    Empty,
    /// Plain bytes.
    Plain(Bytes),
    /// One framed message and an OK status.
    Unary(Framed),
    /// Framed messages, what is left of the last one, and the status that ends them.
    Stream(Answers, Option<Framed>),
    /// The body of one of tonic's own services.
    Tonic(tonic::body::Body),
    /// The trailers were sent.
    Done,
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
                    Some(Err(refusal)) => break self.end(trailers(&refusal.into())),
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

//! Answers as bytes: one encoded message with the prefix that gRPC gives it.
//!
//! The prefix has room in the same buffer, so that no transport copies a message to put something before it. A transport
//! that has no use for it takes [`Framed::into_message`].

use std::pin::Pin;

use bytes::{BufMut, Bytes, BytesMut};
use futures::Stream;

use super::{
    answer::{Answer, Parts},
    refusal::Refusal,
    wire,
};

/// Bytes before each message: whether it is compressed, and its length.
pub const PREFIX_BYTES: usize = 5;
/// Rows below this size are copied together; one of at least this size goes to the socket as it is.
const SPLICE_BYTES_MIN: usize = 16 * 1024;
/// Rows are copied together up to this many bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// The answers of a call that has many, and how it ended.
pub type Answers = Pin<Box<dyn Stream<Item = Result<Framed, Refusal>> + Send>>;

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

    /// The first bytes of the message, with its header.
    pub fn head(&self) -> &[u8] {
        let bytes: &[u8] = match self {
            Self::Whole(bytes) => bytes,
            Self::Parts(splice) => &splice.ready,
        };
        bytes.get(PREFIX_BYTES..).unwrap_or_default()
    }

    /// The message without its prefix, in one piece.
    pub fn into_message(mut self) -> Bytes {
        let whole = match &mut self {
            Self::Whole(bytes) => std::mem::take(bytes),
            Self::Parts(splice) => {
                let mut whole = BytesMut::with_capacity(PREFIX_BYTES + splice.message_bytes);
                while let Some(bytes) = splice.next() {
                    whole.put_slice(&bytes);
                }
                whole.freeze()
            }
        };
        whole.slice(PREFIX_BYTES.min(whole.len())..)
    }

    /// The next bytes to send.
    pub(crate) fn next(&mut self) -> Option<Bytes> {
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

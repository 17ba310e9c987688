//! Whether a server is at the other end: a connection counts as made once that end has said something.
//!
//! A member that starts, or one that stands still, has its connections taken by the system long before it serves them. A
//! request that was sent there would wait for it, although other endpoints would answer. So the dialer sends the first
//! bytes of HTTP/2, waits for the first bytes of the answer, and hands on a stream on which both are still to come.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::dial::BoxIo;

/// What a client begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of the answer that are taken at most.
const ANSWER_BYTES_MAX: usize = 1024;

/// A stream whose first bytes in each direction have passed already.
struct Greeted {
    io: BoxIo,
    /// What the other end has said.
    said: Bytes,
    /// Bytes of the preface that are still to be written, and have been sent.
    preface_left: usize,
}

/// Waits until the other end of `io` says something.
pub(super) async fn greet(mut io: BoxIo) -> io::Result<BoxIo> {
    io.write_all(PREFACE).await?;
    io.flush().await?;
    let mut said = BytesMut::with_capacity(ANSWER_BYTES_MAX);
    if io.read_buf(&mut said).await? == 0 {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection without an answer"));
    }
    Ok(Box::new(Greeted { io, said: said.freeze(), preface_left: PREFACE.len() }))
}

impl AsyncRead for Greeted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.said.is_empty() {
            return Pin::new(&mut self.io).poll_read(cx, buf);
        }
        let taken = self.said.len().min(buf.remaining());
        buf.put_slice(&self.said[..taken]);
        self.said.advance(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Greeted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.preface_left == 0 {
            return Pin::new(&mut self.io).poll_write(cx, bytes);
        }
        let sent = &PREFACE[PREFACE.len() - self.preface_left..];
        let taken = sent.len().min(bytes.len());
        debug_assert_eq!(sent[..taken], bytes[..taken], "a client begins with the preface");
        self.preface_left -= taken;
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.preface_left == 0 {
            return Pin::new(&mut self.io).poll_write_vectored(cx, pieces);
        }
        let mut written = 0;
        for piece in pieces {
            if self.preface_left == 0 {
                break;
            }
            written += ready!(self.as_mut().poll_write(cx, piece))?;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn both_directions_pass_whole_whatever_the_sizes() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(b"settings").await.expect("it is written");
        let mut greeted = greet(Box::new(ours)).await.expect("the other end has spoken");
        theirs.write_all(b" and more").await.expect("it is written");
        for piece in PREFACE.chunks(5) {
            greeted.write_all(piece).await.expect("it is written");
        }
        greeted.write_all(b"request").await.expect("it is written");
        let (mut heard, mut sent) = ([0; 17], [0; 31]);
        for piece in heard.chunks_mut(3) {
            greeted.read_exact(piece).await.expect("it is read");
        }
        theirs.read_exact(&mut sent).await.expect("it is read");
        assert_eq!(&heard, b"settings and more");
        assert_eq!(sent, [PREFACE, b"request"].concat()[..]);
    }

    #[tokio::test]
    async fn a_silent_end_is_waited_for_and_one_that_closes_is_an_error() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut greeting = Box::pin(greet(Box::new(ours)));
        let waiting = tokio::time::timeout(Duration::from_millis(50), &mut greeting).await;
        assert!(waiting.is_err(), "nothing was said");
        drop(theirs);
        let refused = greeting.await.err().expect("it is closed");
        assert_eq!(refused.kind(), io::ErrorKind::UnexpectedEof);
    }
}

//! A connection's bytes on their way out: what is said in one turn is sent together.
//!
//! ```text
//!   HTTP ──writes, flushes──▶ out ──poll_send, after each turn──▶ TLS or TCP
//!             '────────── what is large, with what waits before it ──────▶──'
//! ```
//!
//! HTTP/2's implementation flushes with every answer that is not tiny (256 bytes), which would be a system call each, and a record each within TLS. So
//! flushes mean nothing here. Whoever drives the connection gives it its turn, in which it may answer many calls, and then sends.

use std::{
    io::{self, IoSlice},
    iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that wait to be sent at most; then the connection waits for the client.
const OUT_BYTES_MAX: usize = 64 << 10;
/// As many bytes at once are not copied, but sent with what waits before them.
const COPIED_BYTES_MAX: usize = 8 << 10;
/// Room for so many bytes is kept while nothing waits.
const KEPT_BYTES_MAX: usize = 4 << 10;

/// Both ends of a line: one is written to, the other sends. Clones are of the same line.
pub struct CoalescingIo<I>(Arc<Mutex<Inner<I>>>);

impl<I> Clone for CoalescingIo<I> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<I> {
    io: I,
    out: Vec<u8>,
    /// Bytes of `out` that are sent.
    sent: usize,
    /// Something was written since all was sent.
    written: bool,
}

impl<I: AsyncWrite + Unpin> CoalescingIo<I> {
    /// A line over `io`.
    pub fn new(io: I) -> Self {
        Self(Arc::new(Mutex::new(Inner { io, out: Vec::new(), sent: 0, written: false })))
    }

    /// Sends what waits.
    pub fn poll_send(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.lock().poll_send(cx)
    }
}

impl<I: AsyncWrite + Unpin> Inner<I> {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.written {
            return Poll::Ready(Ok(()));
        }
        while self.sent < self.out.len() {
            ready!(self.poll_send_with(cx, &[]))?;
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.written = false;
        Poll::Ready(Ok(()))
    }

    /// Sends some of what waits and of what follows it; how many bytes of the latter.
    fn poll_send_with(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let out = &self.out[self.sent..];
        let (waiting, io) = (out.len(), Pin::new(&mut self.io));
        let sent = if bufs.is_empty() {
            ready!(io.poll_write(cx, out))?
        } else if waiting == 0 {
            ready!(io.poll_write_vectored(cx, bufs))?
        } else {
            let all: Vec<_> = iter::once(out).chain(bufs.iter().map(|buf| &**buf)).map(IoSlice::new).collect();
            ready!(io.poll_write_vectored(cx, &all))?
        };
        if sent == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.sent += sent.min(waiting);
        if self.sent == self.out.len() {
            self.sent = 0;
            self.out.clear();
            self.out.shrink_to(KEPT_BYTES_MAX);
        }
        Poll::Ready(Ok(sent.saturating_sub(waiting)))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        self.written = true;
        loop {
            if len <= COPIED_BYTES_MAX && self.out.len() + len <= OUT_BYTES_MAX {
                for buf in bufs {
                    self.out.extend_from_slice(buf);
                }
                return Poll::Ready(Ok(len));
            }
            let taken = ready!(self.poll_send_with(cx, bufs))?;
            if taken > 0 {
                return Poll::Ready(Ok(taken));
            }
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for CoalescingIo<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for CoalescingIo<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_send(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Takes a few bytes at a time, and sometimes none.
    #[derive(Default)]
    struct Slow {
        takes: Vec<usize>,
        got: Vec<u8>,
        calls: usize,
        flushed: usize,
    }

    impl AsyncWrite for Slow {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(buf)])
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bufs: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.calls += 1;
            let takes = self.takes.pop().unwrap_or(usize::MAX);
            if takes == 0 {
                return Poll::Pending;
            }
            let bytes: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).take(takes).collect();
            self.got.extend_from_slice(&bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushed = self.got.len();
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn write(line: &mut CoalescingIo<Slow>, bufs: &[&[u8]]) -> Poll<usize> {
        let bufs: Vec<_> = bufs.iter().map(|buf| IoSlice::new(buf)).collect();
        Pin::new(line).poll_write_vectored(&mut Context::from_waker(Waker::noop()), &bufs).map(Result::unwrap)
    }

    fn send(line: &CoalescingIo<Slow>) -> bool {
        line.poll_send(&mut Context::from_waker(Waker::noop())).map(Result::unwrap).is_ready()
    }

    #[test]
    fn many_answers_of_one_turn_are_one_call() {
        let mut line = CoalescingIo::new(Slow::default());
        for _ in 0..10 {
            assert_eq!(write(&mut line, &[&[1; 100], &[2; 400]]), Poll::Ready(500));
            let flush = Pin::new(&mut line).poll_flush(&mut Context::from_waker(Waker::noop()));
            assert!(matches!(flush, Poll::Ready(Ok(()))));
        }
        assert_eq!(line.0.lock().io.calls, 0);
        assert!(send(&line) && send(&line));
        let inner = line.0.lock();
        assert_eq!((inner.io.calls, inner.io.got.len(), inner.io.flushed), (1, 5000, 5000));
    }

    #[test]
    fn a_client_that_takes_nothing_holds_its_connection_up() {
        let mut line = CoalescingIo::new(Slow { takes: vec![0; 1000], ..Slow::default() });
        let mut written = 0;
        while let Poll::Ready(len) = write(&mut line, &[&[0; 4096]]) {
            written += len;
        }
        assert_eq!(written, OUT_BYTES_MAX);
        assert!(!send(&line));
    }

    proptest! {
        #[test]
        fn everything_arrives_in_order(
            writes in vec((0..3usize, 0..COPIED_BYTES_MAX * 3, any::<bool>()), 1..60),
            takes in vec(prop_oneof![Just(0), 1..200usize, 1..100_000usize], 0..300),
        ) {
            let mut line = CoalescingIo::new(Slow { takes, ..Slow::default() });
            let mut said = Vec::new();
            for (pieces, len, sends) in writes {
                let bytes: Vec<u8> = (said.len()..said.len() + len).map(|at| (at % 251) as u8).collect();
                let mut at = 0;
                while at < bytes.len() {
                    let bufs: Vec<&[u8]> = bytes[at..].chunks((bytes.len() - at).div_ceil(pieces + 1)).collect();
                    if let Poll::Ready(taken) = write(&mut line, &bufs) {
                        at += taken;
                    }
                }
                said.extend(bytes);
                if sends {
                    send(&line);
                }
                prop_assert!(line.0.lock().out.len() <= OUT_BYTES_MAX);
            }
            while !send(&line) {}
            let inner = line.0.lock();
            prop_assert!(inner.io.got == said);
            prop_assert_eq!(inner.io.flushed, said.len());
        }
    }
}

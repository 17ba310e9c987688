//! Keeps clients from pinging too often (`--grpc-keepalive-min-time`), and has the names mended by which some call this server ([`authority`]): what
//! clients say is followed here.
//!
//! The rule is gRPC's: a ping that comes sooner after the last one than allowed is a strike, and so is any within two hours while no call is open. Data
//! sent to the client clears the strikes. The third strike ends the connection with `ENHANCE_YOUR_CALM` and the words `too_many_pings`, upon which
//! well-behaved clients ping less.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use super::{
    authority,
    frames::{Frames, calm_down},
};

/// Strikes that are forgiven.
const STRIKES_MAX: u32 = 2;
/// The least time between pings while no call is open.
const IDLE_MIN_TIME: Duration = Duration::from_hours(2);

/// What a connection's service tells about its calls.
#[derive(Debug, Default)]
pub struct Activity {
    /// Calls that were handed over to be served.
    begun: AtomicUsize,
    /// Those of them that are open.
    open: AtomicUsize,
    /// Something was sent since the last ping.
    sent: AtomicBool,
    /// The client has said something.
    heard: AtomicBool,
}

impl Activity {
    /// A call begins; it ends when what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> OpenCall {
        self.begun.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        OpenCall(self.clone())
    }

    /// Whether the client has said something.
    pub fn heard(&self) -> bool {
        self.heard.load(Relaxed)
    }
}

/// A call that is open.
#[derive(Debug)]
pub struct OpenCall(Arc<Activity>);

impl OpenCall {
    /// Something is sent.
    pub fn sending(&self) {
        self.0.sent.store(true, Relaxed);
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// The strikes of one connection.
#[derive(Debug)]
struct Strikes {
    min_time: Duration,
    last: Option<Instant>,
    count: u32,
}

impl Strikes {
    /// Judges a ping; false when it was one too many.
    fn ping(&mut self, now: Instant, sent: bool, calls: usize) -> bool {
        let since = self.last.replace(now).map(|last| now.duration_since(last));
        if sent {
            self.count = 0;
            return true;
        }
        let min_time = if calls == 0 { IDLE_MIN_TIME } else { self.min_time };
        if since.is_some_and(|since| since < min_time) {
            self.count += 1;
        }
        self.count <= STRIKES_MAX
    }
}

/// A connection whose pings are watched.
pub struct Watched<I> {
    io: I,
    activity: Arc<Activity>,
    read: Frames,
    written: Frames,
    last_stream: u32,
    /// Calls that the client has opened.
    opened: usize,
    strikes: Strikes,
    /// The last words and how many bytes of them are written, once there were too many pings.
    farewell: Option<(Vec<u8>, usize)>,
}

impl<I> Watched<I> {
    /// Watches `io`.
    pub fn new(io: I, activity: Arc<Activity>, min_time: Duration) -> Self {
        Self {
            io,
            activity,
            read: Frames::of_client(),
            written: Frames::of_server(),
            last_stream: 0,
            opened: 0,
            strikes: Strikes { min_time, last: None, count: 0 },
            farewell: None,
        }
    }

    fn heard(&mut self, bytes: &mut [u8]) {
        if bytes.is_empty() {
            return;
        }
        self.activity.heard.store(true, Relaxed);
        let passed = self.read.follow_heads(bytes, authority::mend);
        self.last_stream = self.last_stream.max(passed.last_stream);
        self.opened += passed.streams;
        // What was opened but not handed over yet is open too.
        let waiting = self.opened.saturating_sub(self.activity.begun.load(Relaxed));
        let open = self.activity.open.load(Relaxed) + waiting;
        for _ in 0..passed.pings {
            let sent = self.activity.sent.swap(false, Relaxed);
            if !self.strikes.ping(Instant::now(), sent, open) && self.farewell.is_none() {
                self.farewell = Some((calm_down(self.last_stream), 0));
            }
        }
    }
}

impl<I: AsyncWrite + Unpin> Watched<I> {
    /// Says the last words, if it is time for them, and fails the connection. The library answers every ping, so that a write follows soon.
    fn poll_farewell(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some((words, said)) = &mut self.farewell else { return Poll::Ready(Ok(())) };
        if !self.written.is_between_frames() {
            return Poll::Ready(Ok(()));
        }
        while *said < words.len() {
            *said += ready!(Pin::new(&mut self.io).poll_write(cx, &words[*said..]))?;
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "too many pings")))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.io).poll_read(cx, buf))?;
        self.heard(&mut buf.filled_mut()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_farewell(cx))?;
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf))?;
        if self.read.is_http2() {
            self.written.follow(&buf[..written]);
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_farewell(cx))?;
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs))?;
        if self.read.is_http2() {
            let mut left = written;
            for buf in bufs {
                let len = left.min(buf.len());
                self.written.follow(&buf[..len]);
                left -= len;
            }
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
    use super::*;

    fn strikes() -> (Strikes, Instant) {
        (Strikes { min_time: Duration::from_secs(5), last: None, count: 0 }, Instant::now())
    }

    #[test]
    fn pings_at_the_allowed_pace_go_on_for_ever() {
        let (mut strikes, start) = strikes();
        assert!((0..100).all(|n| strikes.ping(start + n * Duration::from_secs(5), false, 1)));
    }

    #[test]
    fn the_third_ping_too_soon_is_one_too_many() {
        let (mut strikes, start) = strikes();
        let judged: Vec<_> = (0..4).map(|n| strikes.ping(start + n * Duration::from_secs(1), false, 1)).collect();
        assert_eq!(judged, [true, true, true, false]);
    }

    #[test]
    fn what_is_sent_between_clears_the_strikes() {
        let (mut strikes, start) = strikes();
        assert!((0..100).all(|n| strikes.ping(start + n * Duration::from_secs(1), n % 3 == 2, 1)));
    }

    #[test]
    fn without_an_open_call_pings_are_hardly_allowed() {
        let (mut strikes, start) = strikes();
        let judged: Vec<_> = (0..4).map(|n| strikes.ping(start + n * Duration::from_mins(1), false, 0)).collect();
        assert_eq!(judged, [true, true, true, false]);
    }
}

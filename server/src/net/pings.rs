//! Keeps clients from pinging too often (`--grpc-keepalive-min-time`), and from more than this server takes at once: what clients say is followed here, on
//! its way through the [`intake`](super::intake).
//!
//! The rule is gRPC's: a ping that comes sooner after the last one than allowed is a strike, and so is any within two hours while no call is open. Data
//! sent to the client clears the strikes. The third strike ends the connection with `ENHANCE_YOUR_CALM` and the words `too_many_pings`, upon which
//! well-behaved clients ping less.
//!
//! The HTTP/2 library reads all that there is before the tasks of its calls have a turn, and counts what they have not read and accepted by then: after a
//! pause of this server or of the network that would be the whole socket. So a turn of the connection ends after [some frames](TURN_FRAMES_MAX), and the
//! next one follows after the other tasks of the thread. And while a client takes nothing of what is sent, only [so many](BLOCKED_FRAMES_MAX) frames are
//! read: most frames that break a rule are answered by one, which would pile up.

use std::{
    io::{self, IoSlice},
    mem::MaybeUninit,
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
    frames::{Frames, calm_down},
    intake::{Intake, Passed},
};

/// Strikes that are forgiven.
const STRIKES_MAX: u32 = 2;
/// The least time between pings while no call is open.
const IDLE_MIN_TIME: Duration = Duration::from_hours(2);

/// Frames that are read in a turn of a connection, and those of one more piece of it: the library's budget for unread frames is a hundred times as large.
const TURN_FRAMES_MAX: usize = 512;
/// Frames that are read while nothing can be sent. A stream that such a frame opens and resets takes about 600 bytes.
const BLOCKED_FRAMES_MAX: usize = 64 << 10;
/// Bytes that are read at once where something is held.
const HELD_READ_BYTES: usize = 8 << 10;

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
    /// Frames that were read in this turn.
    turn_frames: AtomicUsize,
}

impl Activity {
    /// A call begins; it ends when what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> OpenCall {
        self.begun.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
        OpenCall(self.clone())
    }

    /// A turn of the connection begins.
    pub fn begin_turn(&self) {
        self.turn_frames.store(0, Relaxed);
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

/// A connection whose frames are watched.
pub struct PingGuard<I> {
    io: I,
    activity: Arc<Activity>,
    intake: Intake,
    written: Frames,
    /// Calls that the client has opened.
    opened: usize,
    strikes: Strikes,
    /// Frames that were read since the client last took something, if it takes nothing.
    blocked: Option<usize>,
    /// The last words and how many bytes of them are written, once there were too many pings.
    farewell: Option<(Vec<u8>, usize)>,
}

impl<I> PingGuard<I> {
    /// Watches `io`.
    pub fn new(io: I, activity: Arc<Activity>, min_time: Duration) -> Self {
        Self {
            io,
            activity,
            intake: Intake::new(),
            written: Frames::new(),
            opened: 0,
            strikes: Strikes { min_time, last: None, count: 0 },
            blocked: None,
            farewell: None,
        }
    }

    fn heard(&mut self, passed: Passed) {
        self.activity.heard.store(true, Relaxed);
        self.activity.turn_frames.fetch_add(passed.frames, Relaxed);
        if let Some(frames) = &mut self.blocked {
            *frames += passed.frames;
        }
        self.opened += passed.streams;
        if passed.pings == 0 {
            return;
        }
        // What was opened but not handed over yet is open too.
        let waiting = self.opened.saturating_sub(self.activity.begun.load(Relaxed));
        let open = self.activity.open.load(Relaxed) + waiting;
        for _ in 0..passed.pings {
            let sent = self.activity.sent.swap(false, Relaxed);
            if !self.strikes.ping(Instant::now(), sent, open) && self.farewell.is_none() {
                self.farewell = Some((calm_down(self.intake.last_stream()), 0));
            }
        }
    }

    /// Whether no more is read for now. The task is woken when that changes.
    fn pauses(&self, cx: &Context<'_>) -> bool {
        if self.activity.turn_frames.load(Relaxed) >= TURN_FRAMES_MAX {
            cx.waker().wake_by_ref();
            return true;
        }
        // Whatever can be written wakes the task.
        self.blocked.is_some_and(|frames| frames >= BLOCKED_FRAMES_MAX)
    }

    /// Notes whether the client takes what is sent.
    fn wrote<T>(&mut self, written: &Poll<T>) {
        self.blocked = match written {
            Poll::Ready(_) => None,
            Poll::Pending => self.blocked.or(Some(0)),
        };
    }
}

impl<I: AsyncWrite + Unpin> PingGuard<I> {
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

impl<I: AsyncRead + Unpin> AsyncRead for PingGuard<I> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        while !this.intake.give(buf) {
            if this.pauses(cx) {
                return Poll::Pending;
            }
            let Some(held) = this.intake.held() else {
                ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
                let fresh = &mut buf.filled_mut()[before..];
                if fresh.is_empty() {
                    return Poll::Ready(Ok(()));
                }
                let (len, passed) = this.intake.take(fresh);
                buf.set_filled(before + len);
                this.heard(passed);
                if len > 0 {
                    return Poll::Ready(Ok(()));
                }
                continue;
            };
            let mut more = [MaybeUninit::uninit(); HELD_READ_BYTES];
            let mut more = ReadBuf::uninit(&mut more);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut more))?;
            if more.filled().is_empty() {
                this.intake.end();
                continue;
            }
            held.extend_from_slice(more.filled());
            let passed = this.intake.take_held();
            this.heard(passed);
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for PingGuard<I> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_farewell(cx))?;
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.wrote(&written);
        let written = ready!(written)?;
        if self.intake.is_http2() {
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
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.wrote(&written);
        let written = ready!(written)?;
        if self.intake.is_http2() {
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

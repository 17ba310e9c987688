//! Calls with many messages: requests as a stream, and what ends a stream from outside.
//!
//! ```text
//!   a transport ─▶ Messages ─▶ requests() ─▶ a service: requests in, answers out ─▶ Guarded ─▶ the transport
//!                                       '──── a broken request ends the call ────────▶──┘ ◀── deadline, no leader, shutdown
//! ```
//!
//! A service takes the next request when its answers are read. What a client gives up is dropped with everything that the
//! service keeps in its streams.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use cairn_proto::{ApiError, rpc::Method};
use futures::{Stream, StreamExt};
use prost::Message;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{framed::Answers, metrics::ApiMetrics, refusal::Refusal, router::Call};

/// What ends streams that would otherwise go on for as long as their clients like.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The server stops.
    pub stopping: CancellationToken,
    /// Changes when there has been no leader for three election time-outs.
    pub leaderless: watch::Receiver<()>,
}

/// How a stream may be ended from outside.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// The client's own deadline.
    pub(super) deadline: Option<Instant>,
    /// The client wants to hear of it when there is no leader.
    pub(super) wants_leader: bool,
    /// It does not end by itself.
    pub(super) endless: bool,
}

impl Limits {
    /// The limits of a call that began then.
    pub(super) fn of(call: &Call, began: std::time::Instant) -> Self {
        let deadline = call.timeout.and_then(|timeout| Instant::from_std(began).checked_add(timeout));
        Self { deadline, wants_leader: call.wants_leader, endless: call.method.is_endless() }
    }
}

impl Ends {
    /// Ends `stream` when one of its limits is reached.
    pub(super) fn guard(&self, limits: Limits, stream: Answers) -> Answers {
        let Limits { deadline, wants_leader, endless } = limits;
        if deadline.is_none() && !wants_leader && !endless {
            return stream;
        }
        let Self { stopping, mut leaderless } = self.clone();
        leaderless.mark_unchanged();
        let over = async move {
            let too_late = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline).await,
                    None => pending().await,
                }
            };
            let no_leader = async {
                if !wants_leader || leaderless.changed().await.is_err() {
                    pending::<()>().await;
                }
            };
            tokio::select! {
                () = too_late => Refusal::DeadlineExceeded,
                () = no_leader => ApiError::NoLeader.into(),
                () = stopping.cancelled(), if endless => ApiError::Stopped.into(),
            }
        };
        guarded(stream, over)
    }
}

/// A stream that ends with a refusal when `over` says so.
pub(super) fn guarded(stream: Answers, over: impl Future<Output = Refusal> + Send + 'static) -> Answers {
    Box::pin(Guarded { running: Some((stream, Box::pin(over))) })
}

/// Becomes ready when a stream is to end.
type Over = Pin<Box<dyn Future<Output = Refusal> + Send>>;

struct Guarded {
    running: Option<(Answers, Over)>,
}

impl Stream for Guarded {
    type Item = <Answers as Stream>::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some((stream, over)) = &mut self.running else { return Poll::Ready(None) };
        if let Poll::Ready(refusal) = over.as_mut().poll(cx) {
            // What the stream holds is dropped now, not when the connection has sent the refusal.
            self.running = None;
            return Poll::Ready(Some(Err(refusal)));
        }
        stream.as_mut().poll_next(cx)
    }
}

/// The requests of a call as a service takes them.
pub(super) type Requests<M> = Pin<Box<dyn Stream<Item = M> + Send>>;

/// The requests of a call that has many, still encoded, as its transport brings them.
pub type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Refusal>> + Send>>;

/// The requests of a call, and how it ends should one of them not be readable. After such a one the requests neither go on nor end.
pub(super) fn requests<M: Message + Default + 'static>(
    messages: Messages,
    method: Method,
    metrics: Arc<ApiMetrics>,
) -> (Requests<M>, impl Future<Output = Refusal> + Send + 'static) {
    let (report, broken) = oneshot::channel();
    let reading = (messages, metrics, report);
    let requests = futures::stream::unfold(reading, move |(mut messages, metrics, report)| async move {
        let read = messages.next().await?.and_then(|bytes| {
            metrics.received(method, bytes.len());
            super::router::decode(bytes)
        });
        match read {
            Ok(message) => Some((message, (messages, metrics, report))),
            Err(refusal) => {
                // The other side is gone if the call has ended.
                let _ = report.send(refusal);
                pending().await
            }
        }
    });
    let broken = async {
        match broken.await {
            Ok(refusal) => refusal,
            // The requests ended well.
            Err(_) => pending().await,
        }
    };
    (Box::pin(requests), broken)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, stream};

    use super::*;
    use crate::api::framed::Framed;

    fn ends() -> (Ends, watch::Sender<()>) {
        let (sender, leaderless) = watch::channel(());
        (Ends { stopping: CancellationToken::new(), leaderless }, sender)
    }

    fn silent() -> Answers {
        Box::pin(stream::pending())
    }

    fn limits() -> Limits {
        Limits { deadline: None, wants_leader: false, endless: false }
    }

    fn refusal_of(stream: &mut Answers) -> Option<Refusal> {
        stream.next().now_or_never()?.expect("a refusal ends the stream").err()
    }

    #[test]
    fn only_streams_that_want_a_leader_end_without_one() {
        let (ends, sender) = ends();
        sender.send_replace(());
        let mut wanting = ends.guard(Limits { wants_leader: true, ..limits() }, silent());
        let mut content = ends.guard(Limits { endless: true, ..limits() }, silent());
        assert!(refusal_of(&mut wanting).is_none(), "what was before the call does not count");
        sender.send_replace(());
        assert_eq!(refusal_of(&mut wanting), Some(ApiError::NoLeader.into()));
        assert!(refusal_of(&mut content).is_none());
        assert!(wanting.next().now_or_never().expect("it has ended").is_none());
    }

    #[test]
    fn a_stop_ends_endless_streams_and_lets_the_others_finish() {
        let (ends, _sender) = ends();
        let mut endless = ends.guard(Limits { endless: true, ..limits() }, silent());
        let mut finite = ends.guard(limits(), silent());
        ends.stopping.cancel();
        assert_eq!(refusal_of(&mut endless), Some(ApiError::Stopped.into()));
        assert!(refusal_of(&mut finite).is_none());
    }

    #[test]
    fn messages_pass_until_the_end() {
        let message = || Framed::new(cairn_proto::etcdserverpb::DefragmentResponse::default());
        let items: Answers = Box::pin(stream::iter([Ok(message()), Ok(message())]));
        let passed = guarded(items, pending()).count().now_or_never();
        assert_eq!(passed, Some(2));
    }
}

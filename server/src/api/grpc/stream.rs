//! Calls with many messages: requests as a stream, and what ends a stream from outside.
//!
//! ```text
//!   body ─▶ Drained ─▶ Messages ─▶ requests() ─▶ a service: requests in, answers out ─▶ Guarded ─▶ Body
//!                                       '──── a broken request ends the call ────────▶──┘ ◀── deadline, no leader, shutdown
//! ```
//!
//! A service takes the next request when its answers are read. Requests of a client that reads none wait in `Drained`, and
//! when that is full the client is held up by HTTP's own windows. What a client gives up is dropped with everything the service keeps in its streams.

use std::{
    future::{Future, pending},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use cairn_proto::ApiError;
use futures::Stream;
use prost::Message;
use tokio::{
    sync::{oneshot, watch},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{body::MessageStream, drained::Drained, message::Messages, method::Method};
use crate::{api::metrics::ApiMetrics, node::NodeHandle};

/// Election time-outs without a leader after which streams that want one are ended.
const LEADERLESS_TIMEOUTS_MAX: u32 = 3;

/// What ends streams that would otherwise go on for as long as their clients like.
#[derive(Debug, Clone)]
pub struct Ends {
    /// The server stops.
    pub stopping: CancellationToken,
    /// Changes when there has been no leader for [three election time-outs](watch_leader).
    pub leaderless: watch::Receiver<()>,
}

/// Tells streams when there has been no leader for too long, until the server stops.
pub async fn watch_leader(
    node: NodeHandle,
    election: Duration,
    leaderless: watch::Sender<()>,
    stopping: CancellationToken,
) {
    let mut looks = tokio::time::interval(election);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut without = 0;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = looks.tick() => {}
        }
        without = if node.status().leader == 0 { without + 1 } else { 0 };
        if without >= LEADERLESS_TIMEOUTS_MAX {
            leaderless.send_replace(());
        }
    }
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

impl Ends {
    /// Ends `stream` when one of its limits is reached.
    pub(super) fn guard(&self, limits: Limits, stream: MessageStream) -> MessageStream {
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
                () = too_late => Status::deadline_exceeded("context deadline exceeded"),
                () = no_leader => ApiError::NoLeader.into(),
                () = stopping.cancelled(), if endless => ApiError::Stopped.into(),
            }
        };
        guarded(stream, over)
    }
}

/// A stream that ends with a status when `over` says so.
pub(super) fn guarded(stream: MessageStream, over: impl Future<Output = Status> + Send + 'static) -> MessageStream {
    Box::pin(Guarded { running: Some((stream, Box::pin(over))) })
}

/// Becomes ready when a stream is to end.
type Over = Pin<Box<dyn Future<Output = Status> + Send>>;

struct Guarded {
    running: Option<(MessageStream, Over)>,
}

impl Stream for Guarded {
    type Item = <MessageStream as Stream>::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some((stream, over)) = &mut self.running else { return Poll::Ready(None) };
        if let Poll::Ready(status) = over.as_mut().poll(cx) {
            // Whatever the stream holds is not kept until the connection has sent the status.
            self.running = None;
            return Poll::Ready(Some(Err(status)));
        }
        stream.as_mut().poll_next(cx)
    }
}

/// The requests of a call, and how it ends should one of them not be readable. After such a one the requests neither go on nor end.
pub(super) fn requests<M: Message + Default>(
    messages: Messages<Drained>,
    method: Method,
    metrics: Arc<ApiMetrics>,
) -> (impl Stream<Item = M> + Send + 'static, impl Future<Output = Status> + Send + 'static) {
    let (report, broken) = oneshot::channel();
    let reading = (messages, metrics, report);
    let requests = futures::stream::unfold(reading, move |(mut messages, metrics, report)| async move {
        match next(&mut messages, method, &metrics).await {
            Ok(message) => Some((message?, (messages, metrics, report))),
            Err(status) => {
                // Nobody listens any more if the call has ended.
                let _ = report.send(status);
                pending().await
            }
        }
    });
    let broken = async {
        match broken.await {
            Ok(status) => status,
            // The requests ended well.
            Err(_) => pending().await,
        }
    };
    (requests, broken)
}

async fn next<M: Message + Default>(
    messages: &mut Messages<Drained>,
    method: Method,
    metrics: &ApiMetrics,
) -> Result<Option<M>, Status> {
    let Some(bytes) = messages.next().await? else { return Ok(None) };
    metrics.received(method, bytes.len());
    super::decode(bytes).map(Some)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt, stream};

    use super::*;
    use crate::api::grpc::body::Framed;

    fn ends() -> (Ends, watch::Sender<()>) {
        let (sender, leaderless) = watch::channel(());
        (Ends { stopping: CancellationToken::new(), leaderless }, sender)
    }

    fn silent() -> MessageStream {
        Box::pin(stream::pending())
    }

    fn limits() -> Limits {
        Limits { deadline: None, wants_leader: false, endless: false }
    }

    fn status_of(stream: &mut MessageStream) -> Option<Status> {
        stream.next().now_or_never()?.expect("a status ends the stream").err()
    }

    #[test]
    fn only_streams_that_want_a_leader_end_without_one() {
        let (ends, sender) = ends();
        sender.send_replace(());
        let mut wanting = ends.guard(Limits { wants_leader: true, ..limits() }, silent());
        let mut content = ends.guard(Limits { endless: true, ..limits() }, silent());
        assert!(status_of(&mut wanting).is_none(), "what was before the call does not count");
        sender.send_replace(());
        let status = status_of(&mut wanting).expect("it ends");
        assert_eq!((status.code(), status.message()), (tonic::Code::Unavailable, "etcdserver: no leader"));
        assert!(status_of(&mut content).is_none());
        assert!(wanting.next().now_or_never().expect("it has ended").is_none());
    }

    #[test]
    fn a_stop_ends_endless_streams_and_lets_the_others_finish() {
        let (ends, _sender) = ends();
        let mut endless = ends.guard(Limits { endless: true, ..limits() }, silent());
        let mut finite = ends.guard(limits(), silent());
        ends.stopping.cancel();
        assert_eq!(status_of(&mut endless).expect("it ends").message(), "etcdserver: server stopped");
        assert!(status_of(&mut finite).is_none());
    }

    #[test]
    fn messages_pass_until_the_end() {
        let message = || Framed::new(cairn_proto::etcdserverpb::DefragmentResponse::default());
        let items: MessageStream = Box::pin(stream::iter([Ok(message()), Ok(message())]));
        let passed = guarded(items, pending()).count().now_or_never();
        assert_eq!(passed, Some(2));
    }
}

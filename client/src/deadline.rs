//! Time that is up is up: nothing is begun or sent after it.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use tokio::time::{Instant, timeout_at};

/// What `future` comes to, or `None` if that takes until `deadline` or longer.
///
/// From the deadline on the future is not looked at again, even if it could go on at once: what it would do then (send a request
/// over a connection that has just been made) would be too late. A timer alone does not promise that, because timers fire
/// some time after the clock says so, and a future that is looked at first wins.
pub(crate) async fn until<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let in_time =
        poll_fn(
            |context| {
                if Instant::now() < deadline { future.as_mut().poll(context).map(Some) } else { Poll::Ready(None) }
            },
        );
    timeout_at(deadline, in_time).await.unwrap_or(None)
}

#[cfg(test)]
mod tests {
    use std::{future::ready, time::Duration};

    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn what_can_go_on_at_once_is_not_looked_at_when_the_time_is_up() {
        assert_eq!(until(Instant::now(), ready(1)).await, None);
        assert_eq!(until(Instant::now() + Duration::from_hours(1), ready(1)).await, Some(1));
    }

    #[tokio::test]
    async fn what_becomes_possible_after_the_deadline_is_not_done_any_more() {
        let connected = Notify::new();
        let mut sent = false;
        let deadline = Instant::now() + Duration::from_millis(1);
        let request = async {
            connected.notified().await;
            sent = true;
        };
        let connecting = async {
            // The connection is there before a timer has had its turn, and after the deadline.
            while Instant::now() < deadline {
                std::hint::spin_loop();
            }
            connected.notify_one();
        };
        assert_eq!(tokio::join!(until(deadline, request), connecting).0, None);
        assert!(!sent);
    }
}

//! Renewing a lease for as long as somebody wants it.
//!
//! ```text
//!          renew ──ok──► wait TTL/3 ──► renew ──failed──► try again, other endpoints included …
//!            │                                                   │ … until the TTL since the last
//!            │ TTL 0: the lease is not there                     │     success began has passed
//!            ▼                                                   ▼
//!        LeaseLost::Gone                                  LeaseLost::Unrenewed
//! ```
//!
//! The time counts from before a renewal was sent: the server counts from when it arrived, which is later. So the handle
//! tells the loss before the server ends the lease, never after. Clocks that run at different speeds are beyond it.

use std::time::Duration;

use cairn_proto::{ApiError, etcdserverpb as pb};
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep_until, timeout_at},
};

use crate::{client::Client, error::Error, peers::jittered};

/// Pause between a renewal that failed at all endpoints and the next one.
const PAUSE: Duration = Duration::from_millis(250);

/// Until the first answer tells the time to live, this is how long to try for one.
const FIRST_ANSWER_MAX: Duration = Duration::from_secs(5);

/// Why a lease is not kept alive any more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseLost {
    /// A server says that there is no such lease: it has expired, was revoked, or never was.
    #[error("lease {id:016x} has expired or was revoked")]
    Gone {
        /// The lease.
        id: i64,
    },
    /// No renewal came through for the whole time to live, so the lease must be taken for expired.
    #[error("lease {id:016x} could not be renewed in time: {reason}")]
    Unrenewed {
        /// The lease.
        id: i64,
        /// Why the last renewal failed.
        reason: String,
    },
    /// A server refuses to renew it, and will go on refusing.
    #[error("lease {id:016x} may not be renewed: {reason}")]
    Refused {
        /// The lease.
        id: i64,
        /// The server's words.
        reason: String,
    },
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Starting,
    Renewed(pb::LeaseKeepAliveResponse),
    Lost(LeaseLost),
}

/// A lease being renewed. Dropping it ends that, and leaves the lease to its time to live.
#[derive(Debug)]
pub struct KeepAlive {
    id: i64,
    state: watch::Receiver<State>,
    task: AbortHandle,
}

impl KeepAlive {
    pub(super) fn start(client: Client, id: i64) -> Self {
        let (sender, state) = watch::channel(State::Starting);
        let task = tokio::spawn(async move {
            let lost = renew(&client, id, &sender).await;
            tracing::warn!(lease = id, %lost, "lease lost");
            sender.send_replace(State::Lost(lost));
        });
        Self { id, state, task: task.abort_handle() }
    }

    /// The lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Waits for the next renewal, the first one included. Whoever asks seldom gets the latest and not those before it.
    pub async fn renewed(&mut self) -> Result<pb::LeaseKeepAliveResponse, LeaseLost> {
        if let State::Lost(lost) = &*self.state.borrow() {
            return Err(lost.clone());
        }
        if self.state.changed().await.is_err() {
            return Err(self.ended());
        }
        let state = self.state.borrow_and_update().clone();
        match state {
            State::Renewed(answer) => Ok(answer),
            State::Lost(lost) => Err(lost),
            State::Starting => Err(self.ended()),
        }
    }

    /// Waits until the lease is lost.
    pub async fn lost(&self) -> LeaseLost {
        let mut state = self.state.clone();
        match state.wait_for(|state| matches!(state, State::Lost(_))).await.as_deref() {
            Ok(State::Lost(lost)) => lost.clone(),
            _ => self.ended(),
        }
    }

    /// Why the lease is lost, if it is.
    pub fn is_lost(&self) -> Option<LeaseLost> {
        match &*self.state.borrow() {
            State::Lost(lost) => Some(lost.clone()),
            _ => None,
        }
    }

    /// The task ended without a word: the runtime shuts down.
    fn ended(&self) -> LeaseLost {
        LeaseLost::Unrenewed { id: self.id, reason: "the runtime shuts down".to_owned() }
    }
}

impl Drop for KeepAlive {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Renews until the lease is lost.
async fn renew(client: &Client, id: i64, state: &watch::Sender<State>) -> LeaseLost {
    let client = client.with_timeout(None);
    let mut valid_until = Instant::now() + FIRST_ANSWER_MAX;
    let mut reason = "no answer".to_owned();
    loop {
        let sent = Instant::now();
        match timeout_at(valid_until, client.lease_keep_alive_once(id)).await {
            Err(_) => return LeaseLost::Unrenewed { id, reason },
            Ok(Ok(answer)) => {
                let Some(seconds) = u64::try_from(answer.ttl).ok().filter(|seconds| *seconds > 0) else {
                    return LeaseLost::Gone { id };
                };
                let ttl = Duration::from_secs(seconds.min(FARTHEST_SECONDS));
                valid_until = sent + ttl;
                state.send_replace(State::Renewed(answer));
                sleep_until(sent + ttl / 3).await;
            }
            Ok(Err(error)) if is_final(&error) => return LeaseLost::Refused { id, reason: error.to_string() },
            Ok(Err(error)) => {
                reason = error.to_string();
                let next = Instant::now() + jittered(PAUSE);
                if next >= valid_until {
                    return LeaseLost::Unrenewed { id, reason };
                }
                sleep_until(next).await;
            }
        }
    }
}

/// A time to live beyond this many seconds (a year) is renewed as if it were this: further off than any clock should be set.
const FARTHEST_SECONDS: u64 = 365 * 24 * 3600;

/// Whether asking again cannot help.
fn is_final(error: &Error) -> bool {
    use tonic::Code;
    matches!(error, Error::Answered { .. })
        && error.api_error() != Some(ApiError::AuthOldRevision)
        && matches!(
            error.code(),
            Code::InvalidArgument
                | Code::NotFound
                | Code::PermissionDenied
                | Code::Unauthenticated
                | Code::Unimplemented
                | Code::FailedPrecondition
        )
}

//! What a failed attempt means: did the request reach a server, and did the server answer?
//!
//! tonic hides most of this behind a status. A status that came over the wire has no source; one that tonic made up for a
//! failure on the way has, and the types in its chain of sources tell what happened. Whatever is not recognised as unsent
//! counts as lost: the caller is told that it may have happened.

use std::error::Error;

use tonic::{Code, ConnectError, Status, TimeoutExpired};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No server has seen the request, or one has promised not to have looked at it.
    Unsent,
    /// A server answered with this status.
    Answered,
    /// The request was, or may have been, sent, and no answer came.
    Lost,
    /// Time was up, for the server or for the transport.
    TimedOut,
}

/// What tonic's servers and channels say when the time a request has is up.
const TONIC_TIMEOUT_TEXT: &str = "Timeout expired";

pub(crate) fn judge(status: &Status) -> Verdict {
    let mut source = status.source();
    if source.is_none() {
        let timed_out = match status.code() {
            Code::DeadlineExceeded => true,
            Code::Cancelled => status.message() == TONIC_TIMEOUT_TEXT,
            _ => false,
        };
        return if timed_out { Verdict::TimedOut } else { Verdict::Answered };
    }
    while let Some(error) = source {
        if error.is::<TimeoutExpired>() {
            return Verdict::TimedOut;
        }
        if error.is::<ConnectError>() || error.is::<NotReady>() {
            return Verdict::Unsent;
        }
        // hyper cancels requests that still wait for a connection when it closes; those it has begun to write fail otherwise.
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return Verdict::Unsent;
        }
        if error.downcast_ref::<h2::Error>().is_some_and(left_unprocessed) {
            return Verdict::Unsent;
        }
        source = error.source();
    }
    Verdict::Lost
}

/// RFC 9113, 6.8 and 8.7: a stream above the last one that a GOAWAY names, and a stream reset with REFUSED_STREAM, have not
/// been processed in any way. h2 fails only such streams with the peer's GOAWAY.
fn left_unprocessed(error: &h2::Error) -> bool {
    error.is_remote() && (error.is_go_away() || error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM))
}

/// The transport did not take the request.
#[derive(Debug, thiserror::Error)]
#[error("the connection takes no requests: {0}")]
pub(crate) struct NotReady(pub(crate) Box<dyn Error + Send + Sync>);

impl NotReady {
    pub(crate) fn into_status(self) -> Status {
        let mut status = Status::unavailable(self.to_string());
        status.set_source(std::sync::Arc::new(self));
        status
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_from_the_wire_is_an_answer() {
        assert_eq!(judge(&Status::unavailable("etcdserver: no leader")), Verdict::Answered);
        assert_eq!(judge(&Status::cancelled("etcdserver: request canceled")), Verdict::Answered);
    }

    #[test]
    fn a_server_that_gave_up_in_time_has_timed_out() {
        assert_eq!(judge(&Status::deadline_exceeded("context deadline exceeded")), Verdict::TimedOut);
        assert_eq!(judge(&Status::cancelled(TONIC_TIMEOUT_TEXT)), Verdict::TimedOut);
        assert_eq!(judge(&Status::from_error(Box::new(TimeoutExpired(())))), Verdict::TimedOut);
    }

    #[test]
    fn a_failed_connect_leaves_the_request_unsent() {
        let error = ConnectError("connection refused".into());
        assert_eq!(judge(&Status::from_error(Box::new(error))), Verdict::Unsent);
        assert_eq!(judge(&NotReady("closed".into()).into_status()), Verdict::Unsent);
    }

    #[test]
    fn an_unknown_failure_on_the_way_may_have_lost_an_answer() {
        assert_eq!(judge(&Status::from_error("connection reset".into())), Verdict::Lost);
    }
}

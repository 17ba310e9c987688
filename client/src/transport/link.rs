//! What is known about the connection to one endpoint, besides the channel that uses it.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::Instant;

use super::dial::{BoxIo, Dialer};
use crate::endpoint::Endpoint;

/// For so long after a failed dial, the next one fails likewise without trying.
///
/// A channel dials again for each request that waits for it. Were each to wait for its own time-out, the last of many would
/// never get the chance to try another endpoint.
const FAILURE_HOLDS: Duration = Duration::from_millis(20);

/// The connection to one endpoint.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Connections made so far.
    established: AtomicU64,
    dialing: AtomicBool,
    failure: Mutex<Option<(Instant, io::ErrorKind, String)>>,
}

/// A moment in the life of a [`Link`] at which it certainly had no connection.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unconnected {
    established: u64,
}

impl Link {
    /// Stands for a service of this process, which is always connected.
    pub(crate) fn in_process() -> Self {
        Self { established: AtomicU64::new(1), ..Self::default() }
    }

    /// Makes a connection, or fails as the one just before did.
    pub(crate) async fn dial(self: Arc<Self>, dialer: &Dialer, endpoint: &Endpoint) -> io::Result<BoxIo> {
        if let Some((until, kind, text)) = &*self.failure.lock()
            && Instant::now() < *until
        {
            return Err(io::Error::new(*kind, text.clone()));
        }
        let _dialing = Dialing::begin(&self.dialing);
        match dialer.dial_http2(endpoint).await {
            Ok(io) => {
                self.established.fetch_add(1, Ordering::SeqCst);
                Ok(io)
            }
            Err(error) => {
                *self.failure.lock() = Some((Instant::now() + FAILURE_HOLDS, error.kind(), error.to_string()));
                Err(error)
            }
        }
    }

    /// Notes that there is no connection now, if that is certain: none was ever made, or one is being made, which a channel
    /// only does when it has none.
    pub(crate) fn unconnected(&self) -> Option<Unconnected> {
        let established = self.established.load(Ordering::SeqCst);
        let without = established == 0 || self.dialing.load(Ordering::SeqCst);
        without.then_some(Unconnected { established })
    }

    /// Whether there has been no connection since.
    pub(crate) fn still_unconnected(&self, then: Unconnected) -> bool {
        self.established.load(Ordering::SeqCst) == then.established
    }
}

/// Marks the dial for as long as it is not given up.
struct Dialing<'a>(&'a AtomicBool);

impl<'a> Dialing<'a> {
    fn begin(flag: &'a AtomicBool) -> Self {
        flag.store(true, Ordering::SeqCst);
        Self(flag)
    }
}

impl Drop for Dialing<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

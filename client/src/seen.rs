//! What a client has seen of the store, so that it can tell older answers from newer ones.
//!
//! One number is enough, since the revisions of a store never go back. A store that was restored from a copy is another
//! store: whoever has seen the old one has to start with a new client.

use std::sync::atomic::{AtomicI64, Ordering};

/// The newest revision that a client and its clones have seen.
#[derive(Debug, Default)]
pub(crate) struct Seen(AtomicI64);

impl Seen {
    pub(crate) fn revision(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(crate) fn see(&self, revision: i64) {
        self.0.fetch_max(revision, Ordering::SeqCst);
    }
}

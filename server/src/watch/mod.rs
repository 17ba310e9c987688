//! Watches: every change, told to whoever wants it, in order, once, without a gap.
//!
//! ```text
//!   state (apply) ── Changes ──▶ window: the newest changes, bounded in bytes        store: all of them, by revision
//!                                   │  dispatcher: matcher finds who is live           │
//!                                   ▼                                                  │
//!                                mailboxes: numbers of events, bounded                 │
//!                                   ▼                                                  │
//!   requests ──▶ stream: live watchers take from the mailbox, those behind catch up ◀──┘ from the window, else the store
//!                                   ▼
//!                                answers
//!
//!   interest   what a watcher wants       matcher, intervals   who wants a key      registry   the live watchers
//!   window     recent changes             hub                  publish, dispatch    mailbox    a stream's queue
//!   stream     one client's watchers      catch_up             reading the past     metrics    etcd's names
//! ```
//! What may call it: `node/` tells it of changes and drives the dispatcher; `api/` drives streams. It has no clock, no
//! threads and no runtime: whoever drives it brings [wakers](std::task::Waker), tells streams when time has passed
//! ([`WatchStream::tick`]) and runs their reads where blocking is allowed ([`Step::Read`]).
//!
//! # The one number
//!
//! `dispatched` is the revision up to which every live watcher's events are in its mailbox. A watcher becomes live in
//! the same step in which it has seen everything up to `dispatched`, and a mailbox gives out nothing above it, so that
//!
//! * a revision's events are taken together (atomic), in order, once, and none is missed;
//! * a progress answer that says `dispatched`, sent when the mailbox is drained, promises that nothing up to it follows.
//!
//! A progress request is answered at the revision that the store had when it came, or above: the dispatcher may be a
//! little behind what is published, and the answer waits for it.
//!
//! # What is bounded
//!
//! An event's bytes are in the window and, while an answer is being sent, in that answer. Queues hold numbers: at most
//! about 500 a stream, and 16 more for each of its watchers. When a queue is full, or its events have gone out of the
//! window, the watcher falls behind and reads the past at its own pace, 64 KiB an answer; two watchers of a member read the store at a time, so nobody else notices. If the
//! dispatcher itself is overtaken by the window, all live watchers do so. A single revision is never split (but into
//! fragments, for those who ask), so an answer is as large as the largest revision.
//!
//! # Previous values
//!
//! While a live watcher wants them, each batch comes with a pin on what was there before, which the dispatcher gives
//! back as soon as it has read what is needed: a compaction waits for that, so a live watcher gets every previous value,
//! even of a change that is compacted in the same breath. A watcher that is behind gets those that are not compacted.
//!
//! # Inside the server
//!
//! Whoever waits for something to happen to a key opens a stream as a client does; `api`'s `Watches::deleted` waits
//! for the end of a key that way.
//!
//! # Caveats
//!
//! A watcher of few keys that is behind looks its changes up in the key index, and skips what does not concern it. Watchers of many keys each read the past for
//! themselves: a thousand that start at the same old revision read it a thousand times. The number of watchers is not limited, as in etcd.

#![deny(clippy::disallowed_methods)]

mod catch_up;
mod event;
mod hub;
mod interest;
mod intervals;
mod mailbox;
mod matcher;
mod metrics;
mod registry;
#[cfg(test)]
mod scenarios;
mod stream;
#[cfg(test)]
mod tests;
mod window;

pub use catch_up::{CatchUp, CaughtUp};
pub use event::{NO_WATCHER, WatchAnswer, WatchEvent};
pub use hub::Hub;
pub use interest::Interest;
pub use metrics::WatchMetrics;
pub use stream::{Step, StreamOptions, WatchStream};

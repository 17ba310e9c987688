//! Consensus: raft-rs behind a narrow, validated interface.
//!
//! ```text
//!            proposals, messages of peers, ticks                    synced(n), applied(i)
//!                          |                                               |
//!                          v                                               v
//!   validate::check -> Group (RawNode + EntryCache) -> Work { entries and hard state to write,
//!                                                             messages to send now,
//!                                                             messages to send once that is synced,
//!                                                             how far the log is committed, answered read indexes }
//! ```
//!
//! What lives here: [`Group`], the only owner of a `RawNode`; [`EntryCache`], the part of the log that is in memory and
//! raft-rs's view of the rest; the checks that keep bad bytes away from raft-rs, which panics on many of them; the
//! bridge for its log lines. What may call it: `node/core`.
//!
//! The one invariant: this layer does no I/O and has neither clock nor randomness. Time is [`Group::tick`], luck is the
//! seed in [`RaftOptions`] (raft-rs draws its election time-outs from the thread's generator; [`Group`] overwrites
//! every one of them), and disk and network are what the caller does with a [`Work`].
//!
//! # The asynchronous protocol
//!
//! raft-rs knows two ways of being driven. We use the one with `advance_append_async`: a ready is taken while earlier
//! ones are still being written, and [`Group::synced`] says later which are durable. Three rules make it right:
//!
//! * Entries are readable in the cache before the ready is handed back, durable or not.
//! * A follower's or candidate's messages are promises about what it has stored: they are parked until the batch with
//!   that ready is synced. A leader's go out at once, so that followers write in parallel with it.
//! * Committed entries are only those this member itself has synced: raft-rs 0.7 hands out `min(committed, persisted)`,
//!   and `persisted` moves in [`Group::synced`] alone.
//!
//! In this protocol raft-rs has no `LightReady`: what a sync makes possible comes with the next ready.
//!
//! # Snapshots
//!
//! raft is told of them, and carries none: see `snapshot`. One that was received is installed in three steps, whose order
//! is the core's business: raft-rs lets its log begin anew, the store takes the state's place, and only then is the reset
//! of the log written.

#![deny(clippy::disallowed_methods)]

mod cache;
mod drain;
mod election;
mod group;
mod options;
mod snapshot;
mod storage;
mod validate;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod traces;

pub use cache::EntryCache;
pub use drain::logger;
pub use group::{Fetch, Follower, Group, InFlight, Role, Standing, Work};
pub use options::RaftOptions;
pub use snapshot::{Offer, SnapshotMeta};
pub use storage::LogStart;
pub use validate::Refused;

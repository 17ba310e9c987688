//! The leader's clock over leases: when they run out, and what is to be written about it.
//!
//! ```text
//!        state: Granted, Revoked, Checkpointed        time (milliseconds, from outside)
//!                       |                                  |
//!                       v                                  v
//!   keep-alive ──▶  LeaseClock { id -> time to live, expiry }  queue by due time ──▶ due(): leases to revoke, times to record ──▶ raft
//! ```
//!
//! The replicated table (`state/`) knows which leases there are and for how long they were granted, but no time. Time is the leader's alone, and it is in
//! memory: a follower keeps none, a leader that is deposed forgets it ([`LeaseClock::follow`]), and a new leader gives every lease its whole time again,
//! counted from when it has applied an entry of its own term ([`LeaseClock::lead`]). So whatever happens, a lease lives at least as long as its holder was
//! told, and what goes wrong makes it live longer.
//!
//! What lives here: the clock and nothing else: no clock of its own, no thread, no randomness, no I/O. What may call it: `node/core`, which
//! feeds it with what was applied and takes from it what is due, and through the node's handle `api/`, which renews and asks. Both share it behind
//! a lock that is held for microseconds.
//!
//! # Keeping a lease alive
//!
//! A renewal changes nothing but this memory, so it must be certain that this memory still counts. Whoever answers a keep-alive first waits for a read index
//! asked for after the request came: a majority then still followed this leader, so that any other leader began later than the request came, and
//! gives the lease its whole time from then on. What this leader tells is true even if it is deposed before it has told it. One such round serves all
//! keep-alives that wait; a member that decides alone needs none. A lease that has run out is not renewed, even if its revoke is only on its way.
//!
//! # Running out
//!
//! Expired leases are revoked through the log, hundreds of them in one entry ([`Due`]). The command carries the leader's term and is ignored when it is
//! applied in another one. One such entry is under way at a time: the next is made when it was applied, behind the writes that came meanwhile, so
//! that a hundred thousand leases running out together take their turns with the clients. The keys that hang on the leases count, not only their number.
//!
//! An id may be used again at once. A grant that is in the log but not applied keeps what is due for its id back ([`LeaseClock::proposed_grant`]), so that no
//! revoke decided about the old lease can hit the new one.
//!
//! # Recording the remaining time
//!
//! With every change of leader a lease begins anew, so an hour may never end. Leases longer than the checkpoint interval therefore have their remaining seconds
//! recorded in the log after each interval without a renewal, and a new leader gives them that much only. Such a record would cut a
//! later renewal short: before a lease with one is renewed, a record of the whole time is committed ([`Renewal::Recorded`]).
//! A lease that is kept alive is never recorded.
//!
//! # What it costs
//!
//! Nothing while nothing is due: the queue is a heap with one entry a lease. A renewal moves the expiry only; when the entry's old time comes it is
//! put back with the new one.
//!
//! # Followers
//!
//! A member that does not lead answers neither keep-alives nor questions for the remaining time: [`NotLeading`]. The Lease service hands such a request to the
//! leader, which asks for a read index of its own when it has come; the clock stays out of it.
//!
//! # Caveats
//!
//! A leader that is paused counts the pause: a single member's leases may run out while it could not hear its clients.

#![deny(clippy::disallowed_methods)]

mod clock;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use clock::{Due, DueLimits, LeaseClock, NotLeading, Renewal, TimeLeft};

use crate::state::command::rules::TTL_MAX;

/// Time without a renewal after which the remaining time of a lease is recorded, unless told otherwise.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_mins(5);
/// The shortest such time.
pub const CHECKPOINT_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// The shortest time to live, in seconds: one and a half election time-outs, so that a lease outlives an election. What is asked for below it is raised
/// to it.
pub fn ttl_min(heartbeat: Duration, election: Duration) -> i64 {
    let heartbeat_ms = heartbeat.as_millis().max(1);
    let election_ticks = election.as_millis() / heartbeat_ms;
    let shortest_ms = 3 * election_ticks / 2 * heartbeat_ms;
    i64::try_from(shortest_ms.div_ceil(1000)).unwrap_or(TTL_MAX).clamp(1, TTL_MAX)
}

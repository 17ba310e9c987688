//! What can be built from keys, leases and watches: locks, elections, and transactions written as ordinary code.
//!
//! The first two are queues. Everybody in one has a key under the queue's prefix, attached to the lease of a [`Session`]; the key with
//! the lowest create revision is first. Whoever stops renewing its lease leaves the queue. Keys and order are etcd's, so that
//! programs of other languages can queue with these.
//!
//! # Holding is not protection
//!
//! A lock says who is first, as far as the cluster knows. A holder that was suspended for longer than its time to live wakes
//! up believing that it still is, while somebody else has been first for long. What the lock protects has to check: every
//! [`Held`] has a fencing token that grows from holder to holder ([`Held::token`]), and a condition for transactions in the
//! same cluster ([`Held::is_first`]). Without either, a lock is a hint.

mod election;
mod error;
mod mutex;
mod queue;
mod session;
mod stm;

pub use election::{Election, Observer};
pub use error::RecipeError;
pub use mutex::Mutex;
pub use queue::Held;
pub use session::Session;
pub use stm::{Isolation, Stm, Transaction};

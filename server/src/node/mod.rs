//! The running replica: consensus, log and state machine put together.
//!
//! ```text
//!   api, peer --handles-->  shell: one task with an inbox   <--completions--  log thread, flush thread
//!                             |            ^
//!                             v            |
//!                           core: inputs -> outputs          (no clock, no threads, no I/O but the state machine's store)
//! ```
//!
//! What lives here: [`core`], which decides; [`shell`], which has the threads, the clock and the files; [`snapshot`], which has
//! the files of snapshots; who a member is
//! ([`identity`]); which membership changes are allowed ([`Judge`]); what is counted ([`NodeMetrics`]). What may call
//! it: `api/`, `peer/` and `http/`, each through the handles of what it may do; the server through [`NodeHandle`], to start and
//! stop it.
//!
//! The one invariant: what was answered as done is in the synced logs of a majority, and is applied here.

pub mod core;
mod error;
pub mod identity;
pub mod membership;
mod metrics;
pub mod shell;
pub mod snapshot;

pub use error::{NodeError, ProposeError, ReadIndexError, Unfit};
pub use membership::{ChangeRules, Judge};
pub use metrics::{NodeMetrics, ReadKind, ReceivedMetrics};
pub use shell::{
    Alone, CompactionPace, History, Leases, Membership, NodeConfig, NodeHandle, NodeStatus, PeerInbox, Proposer,
    ReplicaView, Sent, StoreMaintenance, Transport,
};

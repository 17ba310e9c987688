//! What surrounds the core: one task, a clock, the log's thread, a thread for flushes, one for compactions, and the
//! files. It decides nothing.
//!
//! ```text
//!   handles (any thread) ----inbox--> replica task --batches--> log thread (write, fdatasync) --Synced--> inbox
//!                                          |----------flush----> flush thread (store flush)    --Flushed-> inbox
//!                                          |                     compaction thread (small steps over index and store, then `space`)
//!                                          |--messages-----> Transport (the connections to the other members)
//!                                          '--answers--> those who wait, a thread's together (delivery)
//! ```
//!
//! The replica task may run on a runtime that also serves requests: a request then costs no wake-up of another thread.
//! It does not wait for the disk, with one exception (`lone`); long work comes in pieces between which other tasks get
//! their turn.
//!
//! # Directory
//!
//! ```text
//!   <data-dir>/LOCK                  held while the process runs
//!   <data-dir>/member/wal/           the raft log, unless it has a directory of its own, which is locked likewise
//!   <data-dir>/member/state-<n>/     the store; CURRENT names the one in use
//!   <data-dir>/member/outgoing-<n>/  a snapshot that others fetch
//!   <data-dir>/member/incoming-<n>/  a snapshot that comes
//! ```
//! The first start creates the log before the state, and bootstraps the state before anything is written to the log. So
//! a log without entries may lack its state (the start was interrupted), a log with entries may not, and a state
//! without a log is damage.
//!
//! A snapshot becomes the state first, and the log is reset to it afterwards. So a state that says that it was being
//! installed may be ahead of its log, and the start resets the log; any other may not.
//!
//! # When something fails
//!
//! An error of the log, the store or the state machine *poisons* the replica: everybody who waits is told that the
//! server stops, nothing is acknowledged any more, and [`ReplicaView::fatal`] shows the error. Whoever embeds the server
//! decides what then happens to the process.

mod apply_timer;
mod background;
mod budget;
mod config;
mod delivery;
mod directory;
mod handle;
mod hashing;
mod inputs;
mod lone;
mod replica;
mod serving;
mod shared;
mod space;
mod start;
#[cfg(test)]
mod tests;
mod transport;

pub use config::{CompactionPace, NodeConfig};
pub use handle::{Leases, Membership, NodeHandle, PeerInbox, Proposer, ReplicaView, StoreMaintenance};
pub use shared::{History, NodeStatus};
pub use start::{is_new, start, start_member};
pub use transport::{Alone, Sent, Transport};

//! The harness that tries to break Cairn.
//!
//! ```text
//! process       servers as real processes: started on free ports, killed without warning, started again
//! differential  random requests against a genuine etcd and Cairn: every answer equal
//! cluster       several members: killed, stopped, restarted, added, removed under load; nothing acknowledged lost
//! counting      keys whose values count up: what `cluster` and `crash` write
//! crash         kill -9 under load: nothing acknowledged lost, nothing applied twice, the revision never back
//! failover      how long writes are not acknowledged when a leader dies or is stopped
//! network       a network between members that drops, delays, reorders and cuts, by proxies
//! sim           whole clusters in one thread, with every fault that can be drawn from a seed
//! succession    the leader killed again and again: no write through the others fails, or waits long
//! watch         watchers under compactions and kill -9: the nine guarantees, against everything that happened
//! ```
//! Everything is seeded and bounded. A failure prints the seed and the command that repeats it.

pub mod cluster;
mod counting;
pub mod crash;
pub mod differential;
pub mod failover;
pub mod network;
pub mod process;
pub mod sim;
pub mod succession;
pub mod watch;

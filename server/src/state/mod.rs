//! The replicated state machine: commands in, effects out.
//!
//! What lives here: the key-value store with history (`mvcc/`), leases, members, alarms, and the one function that applies committed commands in log
//! order. What may call it: `node/` applies; `api/` reads through [`Reader`](mvcc::Reader). The one invariant: the same commands give the same state and
//! the same answers on every member: no clock, no random number, no hash-map order, and no error that one member can have and another not.

pub mod command;
pub mod mvcc;

//! The front end: listeners, connections, and HTTP as clients speak it.
//!
//! ```text
//!   listener ── accept loop ──▶ threads: the one with the fewest connections
//!                                 │
//!   connection: Acceptor (TLS) ─▶ CoalescingIo ─▶ PingGuard (pings, names) ─▶ HTTP ─▶ api/grpc, http/
//! ```
//!
//! | part | what it does |
//! |---|---|
//! | [`listener`] | binds sockets and accepts |
//! | [`threads`] | the threads that connections live on |
//! | [`connection`] | one connection: handshake, HTTP, its end |
//! | `line` | writes what one turn of a connection gives with one system call |
//! | `pings`, `frames`, `intake`, `authority` | what HTTP/2 is guarded against, and what is mended for it |
//!
//! The one invariant: a connection that is full is held up by windows; only one that breaks a rule is ended.

mod authority;
pub mod connection;
mod frames;
mod intake;
mod line;
pub mod listener;
mod pings;
pub mod threads;

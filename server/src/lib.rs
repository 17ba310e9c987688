//! Cairn's server as a library. Each module is a layer and knows only the layers below it:
//!
//! ```text
//! api, http      gRPC services, health, metrics         node         the running replica: core (decides) and shell (threads, sockets)
//! state          the replicated state machine, MVCC     raft         raft-rs without I/O
//! log            the durable raft log                   store        RocksDB behind a trait
//! security       TLS and certificates                   config       flags, environment, YAML
//! ```

pub mod config;
pub mod log;
pub mod node;
pub mod raft;
pub mod security;
pub mod state;
pub mod store;

//! Cairn's server as a library: an etcd-compatible, Raft-replicated key-value store that runs as the binary `cairn` or inside another program.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use cairn_server::server::Server;
//!
//! let server = Server::builder().data_dir("/var/lib/control-plane/store").in_process_only().start().await?;
//! let put = cairn_proto::etcdserverpb::PutRequest { key: "/registry/a".into(), value: "1".into(), ..Default::default() };
//! println!("revision {}", server.client().call(put).await?.header.unwrap_or_default().revision);
//! server.shutdown().await;
//! # Ok(())
//! # }
//! ```
//!
//! Each module is a layer and knows only the layers below it:
//!
//! ```text
//! server         starting and stopping everything
//! monitor        what a member does unasked              net          listeners, connections, threads
//! http           health, metrics
//! peer           the connections between members
//! api            router, services, gRPC                  node         the running replica: core (decides) and shell (threads, sockets)
//! watch          who hears of which change              state        the replicated state machine, MVCC
//! raft           raft-rs without I/O
//! log            the durable raft log                   store        RocksDB behind a trait
//! security       TLS and certificates                   socket       TCP, or a file of the file system
//! config         flags, environment, YAML               durations    histograms of what happens with every request
//! types          URLs, names, versions: known to all
//! ```
//!
//! # The way of a write
//!
//! [`api::grpc`] takes the message out of its frame, [`api::router`] takes it to [`api::kv`], which checks it and proposes one [`state::command::Command`]. The node packs commands into raft
//! entries; the log's thread writes a batch of them with one `fdatasync`; committed entries are applied by [`state`], which writes one batch to the
//! [`store`] and publishes the new revision. The answer is a plan of revisions to read, and the API that owes it reads them off the apply path.
//!
//! # The way of a read
//!
//! [`api::kv`] asks the node until when it has to wait (for a single member: not at all), pins a revision and reads there through
//! [`state::mvcc::Reader`], from memory at once or on a thread that may wait for the disk. Rows go from the store to the socket as they are.

pub mod api;
pub mod audit;
pub mod config;
pub mod durations;
#[cfg(test)]
mod golden;
pub mod http;
pub mod lease;
pub mod log;
pub mod monitor;
pub mod net;
pub mod node;
pub mod peer;
pub mod raft;
pub mod security;
pub mod server;
pub mod socket;
pub mod state;
pub mod store;
pub mod types;
pub mod watch;

//! Async Rust client of Cairn and any etcd v3 server.
//!
//! ```no_run
//! # async fn tour() -> Result<(), Box<dyn std::error::Error>> {
//! use cairn_client::{Client, Compare, Get, KeyRange, Put};
//!
//! let client = Client::new(["10.0.0.1:2379", "10.0.0.2:2379", "10.0.0.3:2379"])?;
//! client.put("/registry/pods/web", "spec").await?;
//! let pods = client.get(KeyRange::prefix("/registry/pods/")).limit(500).await?;
//!
//! let revision = pods.kvs[0].mod_revision;
//! let update = client
//!     .txn()
//!     .when(Compare::mod_revision("/registry/pods/web").equal_to(revision))
//!     .then(Put::new("/registry/pods/web", "new spec"))
//!     .otherwise(Get::new("/registry/pods/web"))
//!     .await?;
//! assert!(update.succeeded);
//! # Ok(())
//! # }
//! ```
//!
//! # How a request travels
//!
//! ```text
//!   client.put("k", "v")            a builder: nothing happens until it is awaited
//!          │ .await
//!          ▼
//!   attempts (call.rs)              one deadline for everything below, retries included
//!          │ picks an endpoint      round robin; those that refused connections rest for a while (peers.rs)
//!          ▼
//!   transport                       HTTP/2 over TCP, over TLS, over whatever a connector gives,
//!          │                        or a service of this process without any of these
//!          ▼
//!   verdict (verdict.rs)            answered, never sent, or lost on the way?
//! ```
//!
//! # What is sent again, and what never is
//!
//! A request that **provably never reached** a server (no connection, a connection that closed before it was written, a
//! stream the server refused unprocessed) is sent to the next endpoint, whatever it asks for. A request that **changes
//! nothing** is also sent again when the answer was lost or said `Unavailable`. Everything else is reported at once: a put
//! whose answer was lost may have happened, and only the caller can know whether putting it again is harmless.
//! [`Error::may_have_happened`] tells the two kinds of failure apart.
//!
//! # Layers
//!
//! * Builders for people: [`Client::get`], [`Client::put`], [`Client::delete`], [`Client::txn`], [`Client::compact`].
//! * Leases: [`Client::lease_grant`] and its like; [`Client::keep_alive`] renews one and tells when it is lost.
//! * Watches: [`Client::watch`] goes on over lost connections without gap or repeat, or says that it cannot.
//! * Recipes: [`recipe`] has sessions, locks, elections, and transactions written as ordinary code.
//! * Views: [`Client::namespaced`] sees only the keys with a prefix, [`Client::ordered`] never goes back in time.
//! * Endpoints: [`Client::sync_endpoints`] takes them from the member list.
//! * Single members: [`Client::at`] and [`Client::each`] give an [`EndpointClient`], whose requests go to one endpoint.
//! * Everything else: [`Client::call`] sends any request of the API ([`Unary`]) and returns its answer as it came,
//!   [`Client::stream`] does so for answers in pieces ([`ServerStreaming`]).
//!
//! # Users
//!
//! [`ClientBuilder::user`] takes a name and a password, [`Client::with_token`] a token. A name is changed for a token when
//! the first request needs it. When a server refuses the token, one request asks for a new one on behalf of all, and each is
//! sent again, once; watches and leases that are kept alive go on. A token that was given is not replaced.
//!
//! # Left out so far
//!
//! No request is hedged: one endpoint at a time works on it.

mod call;
mod client;
mod cluster;
mod deadline;
mod endpoint;
mod error;
mod key;
mod kv;
mod lease;
mod login;
mod maintenance;
mod metrics;
mod namespace;
mod options;
mod peers;
pub mod recipe;
mod rpc;
mod seen;
mod tls;
mod transport;
mod verdict;
mod watch;

pub use cairn_proto as proto;

pub use call::Answers;
pub use client::Client;
pub use cluster::SyncError;
pub use endpoint::{DEFAULT_PORT, Endpoint, InvalidEndpoint};
pub use error::{BuildError, Error};
pub use key::{IntoBytes, KeyRange};
pub use kv::{Compact, Compare, Delete, Get, Op, Property, Put, Txn};
pub use lease::{KeepAlive, LeaseLost};
pub use maintenance::EndpointClient;
pub use namespace::Namespace;
pub use options::{ClientBuilder, KEEP_ALIVE_INTERVAL_MIN};
pub use rpc::{ServerStreaming, Unary};
pub use tls::{TlsError, TlsOptions};
pub use watch::{Watch, WatchAnswer, WatchError, Watcher};

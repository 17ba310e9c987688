//! The configuration of a server: one typed [`Config`], and the three places it can come from.
//!
//! ```text
//!   command line ─┐
//!   ETCD_* ───────┼─▶ table ─▶ draft ─▶ Config ─▶ validate ─▶ notices
//!   YAML file ────┘  (a flag's syntax, default, class and setter)
//! ```
//!
//! * [`settings`](Config) and [`TlsConfig`] are what the rest of the server reads and an embedding program fills in.
//! * `table/` has a row for every flag of etcd, whether it takes effect here or not. Everything that knows flags by name
//!   goes through it: [`load()`], the config file, [`help_text`], `docs/flags.md`.
//! * `load` reads the command line and the environment, `file` the config file, `validate` checks what no single flag can.
//! * `address` compares URLs that are spelled in two ways.
//! * [`InitialCluster`] makes the ids of members and cluster, [`init_logging`] sets up the log.
//!
//! This layer knows no other. Its one invariant: **no setting is silently without effect.** What is given takes effect,
//! or is named in a [`Notice`] that is logged as a warning, or ends the start with an error that says what to do.
//!
//! Left out: changing the configuration of a running server. Only certificates and keys of tokens are read again, by
//! `security/`, and the level of the log, by [`LevelControl`].

mod address;
mod audit;
mod auth_token;
mod error;
mod file;
mod flag;
mod help;
mod identity;
mod limits;
mod load;
mod log_settings;
mod logging;
mod settings;
mod table;
mod tls;
mod validate;
mod value;

pub use crate::types::{ListenAddr, Place, Scheme, Url, listen_addrs};
pub(crate) use address::{Comparison, is_same_literally};
pub use audit::{AuditAccess, AuditConfig, AuditPolicy, AuditRule, AuditValues, is_kept};
pub use auth_token::{AuthToken, JwtConfig, JwtMethod};
pub use error::{ConfigError, Notice};
pub use help::{help_text, version_text};
pub use identity::{InitialCluster, InitialMember, added_member_id, cluster_id, initial_member_id};
pub use load::{Invocation, Loaded, load};
pub use log_settings::{LogConfig, LogFormat, LogLevel, LogOutput, LogRotation};
pub(crate) use logging::Sink;
pub use logging::{LevelControl, LogError, init_logging};
pub use settings::{AutoCompaction, ClusterState, Config, DEFAULT_QUOTA_BYTES, GRPC_OVERHEAD_BYTES, MetricsLevel};
pub use tls::{CipherSuite, TlsConfig, TlsVersion};

//! Whole servers, driven from outside as clients drive them: through sockets, TLS and raw bytes. One binary, because each one links the storage engine.

mod bad_input;
mod cluster;
mod corruption;
mod election;
mod embedding;
mod flags;
mod forged;
mod http;
mod http2;
mod kubernetes;
mod lease;
mod lock;
mod maintenance;
mod members;
mod process;
mod refusals;
mod service;
mod snapshots;
mod starting;
mod strangers;
mod support;
mod trio;
mod unix;
mod upgrade;
mod watch;
mod wire;

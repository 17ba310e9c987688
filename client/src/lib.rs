//! Async Rust client of Cairn and any etcd v3 server.

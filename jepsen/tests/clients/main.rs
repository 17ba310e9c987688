//! Genuine clients, unmodified, with their own test suites, against Cairn.
//!
//! ```text
//! python    etcd3 of PyPI: the suite in its source distribution
//! npm       etcd3 of npm: the suite in its package
//! rust      etcd-client of crates.io: the suite in its crate
//! sessions  a genuine etcdctl: the same sessions with a genuine etcd and with Cairn, the same transcript
//! queues    the Lock and Election services: the same calls of a genuine etcd and of Cairn, the same answers
//! pauses    the client crate and members, while those at the other end are paused
//! rehearsal a small control plane, from the examples of the client crate
//!
//! suite     a suite's outcomes against what is expected of it: every exception by name and with its reason
//! network   a network of its own for a suite that wants the default port
//! server    Cairn on the default port of such a network
//! terminal  a program with lines going in and coming out
//! ```
//! `scripts/install-clients` puts the suites in place; a suite that is missing fails its test. `CAIRN_BIN` names another server to hold them against, such as
//! a genuine etcd: what fails there too is no difference of Cairn's. The figures in docs/compatibility.md are checked here.

mod network;
mod npm;
mod pauses;
mod python;
mod queues;
mod rehearsal;
mod rust;
mod server;
mod sessions;
mod suite;
mod terminal;

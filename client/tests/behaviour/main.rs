//! How the client behaves towards members that answer, refuse, hang, vanish, or are not there at all.
//!
//! Members are the generated KV service in this process ([`member`]); connections go through a network in memory that can
//! refuse, swallow and cut them ([`network`]), except where TLS over real sockets is the subject. What is built on the meaning
//! of keys, leases and watches (namespaces, recipes, optimistic transactions) is tested on members of Cairn ([`cluster`]).

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]
#![allow(
    clippy::disallowed_methods,
    reason = "meant for the deterministic layers; the tests run clients beside servers"
)]

mod cluster;
mod deadline;
mod elections;
mod endpoints;
mod failover;
mod history;
mod leases;
mod locks;
mod member;
mod namespaces;
mod network;
mod order;
mod requests;
mod retry;
mod three_members;
mod tls;
mod transactions;
mod unprocessed;
mod users;
mod watches;

use std::time::Duration;

/// What comes within half a minute.
async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let soon = tokio::time::timeout(Duration::from_secs(30), future).await;
    soon.unwrap_or_else(|_| panic!("never happened: {what}"))
}

/// Waits until the condition holds; panics if it does not within ten seconds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), holds).await.is_ok(), "never happened: {what}");
}

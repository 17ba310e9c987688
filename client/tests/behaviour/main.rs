//! How the client behaves towards members that answer, refuse, hang, vanish, or are not there at all.
//!
//! Members are the generated KV service in this process ([`member`]); connections go through a network in memory that can
//! refuse, swallow and cut them ([`network`]), except where TLS over real sockets is the subject.

#![expect(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]
#![allow(
    clippy::disallowed_methods,
    reason = "meant for the deterministic layers; the tests run clients beside servers"
)]

mod deadline;
mod failover;
mod history;
mod leases;
mod member;
mod network;
mod requests;
mod retry;
mod tls;
mod unprocessed;
mod watches;

use std::time::Duration;

/// Waits until the condition holds; panics if it does not within ten seconds.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let holds = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(10), holds).await.is_ok(), "never happened: {what}");
}

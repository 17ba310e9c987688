//! The command time-out, and what it says about a write.

use std::{error::Error as _, time::Duration};

use cairn_client::{Client, Error, Put, WatchError, proto::ApiError};
use tonic::Code;

use crate::{
    member::{Behaviour, Member},
    network::Network,
};

const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_put_that_hangs_ends_with_the_time_out_and_may_have_happened() {
    let (network, member) = (Network::new(), Member::behaving(1, Behaviour::Hang));
    network.accept("a", &member);
    let client = network.client(["a"]).command_timeout(SHORT).build().unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(error.to_string(), "context deadline exceeded");
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.may_have_happened());
    assert_eq!(error.endpoint().unwrap().as_str(), "a");
    assert_eq!(member.seen(), ["put"]);
}

#[tokio::test]
async fn a_put_that_finds_nobody_ends_with_the_time_out_and_has_not_happened() {
    let network = Network::new();
    network.refuse("a");
    let client = network.client(["a"]).command_timeout(SHORT).build().unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::DeadlineExceeded { timeout: SHORT, endpoint: None, .. }), "{error:?}");
    assert!(!error.may_have_happened());
    let cause = error.source().unwrap().to_string();
    assert!(cause.contains("connection refused"), "{cause}");
}

#[tokio::test]
async fn a_put_that_never_gets_a_connection_has_not_happened() {
    let network = Network::new();
    network.swallow("a");
    let client = network.client(["a"]).command_timeout(SHORT).build().unwrap();
    let puts: Vec<_> = (0..3).map(|_| tokio::spawn(client.put("k", "v").send())).collect();
    for put in puts {
        let error = put.await.unwrap().unwrap_err();
        assert!(matches!(error, Error::DeadlineExceeded { endpoint: None, .. }), "{error:?}");
        assert!(!error.may_have_happened());
    }
}

#[tokio::test]
async fn a_read_of_a_leaderless_cluster_ends_with_the_time_out_and_its_cause() {
    let (network, member) = (Network::new(), Member::behaving(1, Behaviour::Fail(ApiError::NoLeader)));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap().with_timeout(SHORT);
    let error = client.get("k").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert_eq!(error.source().unwrap().to_string(), "etcdserver: no leader");
    assert_eq!(error.status().unwrap().message(), "etcdserver: no leader");
}

#[tokio::test]
async fn an_answer_in_pieces_must_begin_in_time() {
    let (network, member) = (Network::new(), Member::behaving(1, Behaviour::Hang));
    network.accept("a", &member);
    let client = network.client(["a"]).command_timeout(SHORT).build().unwrap();
    let error = client.get("k").stream().await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_hanging_service_of_this_process_is_given_up_too() {
    let member = Member::behaving(1, Behaviour::Hang);
    let client = Client::in_process(member.routes()).with_timeout(SHORT);
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(error.code(), Code::DeadlineExceeded);
    assert!(error.may_have_happened());
}

/// Whatever a client can do, with no time for it: it ends with the time-out, every time, and the member hears nothing.
#[tokio::test]
async fn nothing_is_sent_when_the_time_is_up() {
    const TIMES: usize = 200;
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    let connected = network.client(["a"]).build().unwrap();
    connected.get("k").await.unwrap();
    let asked = member.seen();
    for client in [connected, network.client(["a"]).build().unwrap(), Client::in_process(member.routes())] {
        let client = client.with_timeout(Duration::ZERO);
        for _ in 0..TIMES {
            let ended = [
                client.get("k").await.err(),
                client.put("k", "v").await.err(),
                client.delete("k").await.err(),
                client.txn().then(Put::new("k", "v")).await.err(),
                client.get("k").stream().await.err(),
                client.lease_grant(10, 0).await.err(),
                client.lease_keep_alive_once(1).await.err(),
                client.alarms().await.err(),
                client.member_list().await.err(),
            ];
            for error in ended {
                let error = error.expect("there was no time");
                assert!(matches!(error, Error::DeadlineExceeded { endpoint: None, .. }), "{error:?}");
                assert!(!error.may_have_happened());
            }
            let error = client.watch("k").await.expect_err("there was no time");
            assert!(matches!(error, WatchError::Failed(Error::DeadlineExceeded { .. })), "{error:?}");
        }
    }
    assert_eq!(member.seen(), asked);
}

//! Several endpoints: turns, and going on with the others.

use std::collections::BTreeMap;

use cairn_client::{Error, proto::ApiError};

use crate::{
    eventually,
    member::{Behaviour, Member},
    network::Network,
};

#[tokio::test]
async fn requests_take_turns_over_the_endpoints() {
    let network = Network::new();
    let members = [Member::new(1), Member::new(2), Member::new(3)];
    for (host, member) in ["a", "b", "c"].iter().zip(&members) {
        network.accept(host, member);
    }
    let client = network.client(["a", "b", "c"]).build().unwrap();
    let mut answers = BTreeMap::new();
    for _ in 0..9 {
        let answer = client.put("k", "v").await.unwrap();
        *answers.entry(answer.header.unwrap().member_id).or_insert(0) += 1;
    }
    assert_eq!(answers, BTreeMap::from([(1, 3), (2, 3), (3, 3)]));
}

#[tokio::test]
async fn a_put_goes_to_the_next_endpoint_when_one_refuses_connections() {
    let (network, member) = (Network::new(), Member::new(2));
    network.refuse("a");
    network.accept("b", &member);
    let client = network.client(["a", "b"]).build().unwrap();
    for _ in 0..10 {
        client.put("k", "v").await.unwrap();
    }
    assert_eq!(member.seen().len(), 10, "each put arrived once");
    assert!(network.dials("a") >= 1);
}

#[tokio::test]
async fn a_put_goes_to_the_next_endpoint_when_one_swallows_connections() {
    let (network, member) = (Network::new(), Member::new(2));
    network.swallow("a");
    network.accept("b", &member);
    let client = network.client(["a", "b"]).dial_timeout(std::time::Duration::from_millis(50)).build().unwrap();
    let puts: Vec<_> = (0..20).map(|_| tokio::spawn(client.put("k", "v").send())).collect();
    for put in puts {
        put.await.unwrap().unwrap();
    }
    assert_eq!(member.seen().len(), 20, "each put arrived once");
}

#[tokio::test]
async fn a_put_goes_to_the_next_endpoint_when_one_takes_connections_and_says_nothing() {
    let (network, member) = (Network::new(), Member::new(1));
    network.hold("a");
    network.accept("b", &member);
    let client = network.client(["a", "b"]).dial_timeout(std::time::Duration::from_millis(50)).build().unwrap();
    for _ in 0..4 {
        client.put("k", "v").await.unwrap();
    }
    assert_eq!(member.seen().len(), 4, "each put was sent once");
}

#[tokio::test]
async fn a_request_waits_for_an_endpoint_that_comes_up_later() {
    let (network, member) = (Network::new(), Member::new(1));
    network.refuse("a");
    let client = network.client(["a"]).build().unwrap();
    let put = tokio::spawn(client.put("k", "v").send());
    eventually("the put finds nobody", || network.dials("a") >= 2).await;
    network.accept("a", &member);
    put.await.unwrap().unwrap();
    assert_eq!(member.seen(), ["put"]);
}

#[tokio::test]
async fn a_client_connects_again_after_its_connection_was_cut() {
    let (network, member) = (Network::new(), Member::new(1));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    client.put("k", "1").await.unwrap();
    network.cut("a");
    // Whether the client has noticed by the time of the next request is open; a read does not care.
    client.get("k").await.unwrap();
    client.put("k", "2").await.unwrap();
    assert_eq!(network.dials("a"), 2);
}

#[tokio::test]
async fn a_client_that_fails_fast_tries_every_endpoint_once() {
    let network = Network::new();
    network.refuse("a");
    network.refuse("b");
    let client = network.client(["a", "b"]).fail_fast().build().unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(!error.may_have_happened());
    assert_eq!((network.dials("a"), network.dials("b")), (1, 1));
    assert!(error.to_string().contains("connection refused"), "{error}");
}

#[tokio::test]
async fn a_client_that_fails_fast_reads_from_the_endpoint_that_answers() {
    let network = Network::new();
    let (bad, good) = (Member::behaving(1, Behaviour::Fail(ApiError::NoLeader)), Member::new(2));
    network.accept("a", &bad);
    network.accept("b", &good);
    let client = network.client(["a", "b"]).fail_fast().build().unwrap();
    for _ in 0..4 {
        assert_eq!(client.get("k").await.unwrap().header.unwrap().member_id, 2);
    }
    good.behave(Behaviour::Fail(ApiError::Timeout));
    let error = client.get("k").await.unwrap_err();
    assert!(error.api_error().is_some(), "{error:?}");
}

#[tokio::test]
async fn a_client_of_one_endpoint_talks_to_that_endpoint_only() {
    let network = Network::new();
    let members = [Member::new(1), Member::new(2)];
    network.accept("a", &members[0]);
    network.accept("b", &members[1]);
    let client = network.client(["a", "b"]).build().unwrap();
    let second = client.at(&"b".parse().unwrap()).unwrap();
    for _ in 0..3 {
        assert_eq!(second.status().await.unwrap().header.unwrap().member_id, 2);
        assert_eq!(second.client().get("k").await.unwrap().header.unwrap().member_id, 2);
    }
    assert!(members[0].seen().is_empty());
    assert!(client.at(&"c".parse().unwrap()).is_none());

    let mut ids = Vec::new();
    for one in client.each() {
        ids.push(one.hash_kv(0).await.unwrap().header.unwrap().member_id);
    }
    assert_eq!(ids, [1, 2]);
}

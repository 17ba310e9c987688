//! What is sent again, and what never is.

use cairn_client::{Error, Get, Put, proto::ApiError};

use crate::{
    eventually,
    member::{Behaviour, Member},
    network::Network,
};

#[tokio::test]
async fn a_read_answered_unavailable_is_sent_to_another_endpoint() {
    let network = Network::new();
    let (bad, good) = (Member::behaving(1, Behaviour::Fail(ApiError::NoLeader)), Member::new(2));
    network.accept("a", &bad);
    network.accept("b", &good);
    let client = network.client(["a", "b"]).build().unwrap();
    for _ in 0..6 {
        assert_eq!(client.get("k").await.unwrap().header.unwrap().member_id, 2);
    }
    assert!(!bad.seen().is_empty());
}

#[tokio::test]
async fn a_read_is_sent_again_until_the_leader_is_back() {
    let (network, member) = (Network::new(), Member::behaving(1, Behaviour::Fail(ApiError::LeaderChanged)));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    let get = tokio::spawn(client.get("k").send());
    eventually("the read is repeated", || member.seen().len() >= 3).await;
    member.behave(Behaviour::Serve);
    get.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_put_answered_unavailable_is_not_sent_again() {
    let network = Network::new();
    let members = [1, 2].map(|id| Member::behaving(id, Behaviour::Fail(ApiError::Timeout)));
    network.accept("a", &members[0]);
    network.accept("b", &members[1]);
    let client = network.client(["a", "b"]).build().unwrap();
    let error = client.put("k", "v").await.unwrap_err();
    assert_eq!(error.api_error(), Some(ApiError::Timeout));
    assert!(error.may_have_happened());
    assert_eq!(members[0].seen().len() + members[1].seen().len(), 1);
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_is_not_sent_again() {
    let network = Network::new();
    let (hanging, other) = (Member::behaving(1, Behaviour::Hang), Member::new(2));
    network.accept("a", &hanging);
    network.accept("b", &other);
    let client = network.client(["a", "b"]).build().unwrap();
    let put = tokio::spawn(client.put("k", "v").send());
    eventually("the put arrives", || hanging.seen() == ["put"]).await;
    network.cut("a");
    let error = put.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Lost { .. }), "{error:?}");
    assert!(error.may_have_happened());
    assert_eq!(error.endpoint().unwrap().as_str(), "a");
    assert_eq!((hanging.seen(), other.seen()), (vec!["put"], vec![]));
}

#[tokio::test]
async fn a_read_whose_answer_is_lost_is_sent_to_another_endpoint() {
    let network = Network::new();
    let (hanging, other) = (Member::behaving(1, Behaviour::Hang), Member::new(2));
    network.accept("a", &hanging);
    network.accept("b", &other);
    let client = network.client(["a", "b"]).build().unwrap();
    let get = tokio::spawn(client.get("k").send());
    eventually("the read arrives", || hanging.seen() == ["range"]).await;
    network.cut("a");
    assert_eq!(get.await.unwrap().unwrap().header.unwrap().member_id, 2);
}

#[tokio::test]
async fn only_a_txn_that_reads_is_sent_again() {
    let (network, member) = (Network::new(), Member::behaving(1, Behaviour::Fail(ApiError::Stopped)));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    let error = client.txn().then(Get::new("k")).otherwise(Put::new("k", "v")).await.unwrap_err();
    assert_eq!(error.api_error(), Some(ApiError::Stopped));
    assert_eq!(member.seen(), ["txn"]);

    let txn = tokio::spawn(client.txn().then(Get::new("k")).send());
    eventually("the reading txn is repeated", || member.seen().len() >= 3).await;
    member.behave(Behaviour::Serve);
    txn.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_refused_request_is_not_sent_again() {
    let network = Network::new();
    let members = [1, 2].map(|id| Member::behaving(id, Behaviour::Fail(ApiError::Compacted)));
    network.accept("a", &members[0]);
    network.accept("b", &members[1]);
    let client = network.client(["a", "b"]).build().unwrap();
    let error = client.get("k").revision(1).await.unwrap_err();
    assert_eq!(error.to_string(), "etcdserver: mvcc: required revision has been compacted");
    assert!(!error.may_have_happened());
    assert_eq!(members[0].seen().len() + members[1].seen().len(), 1);
}

#[tokio::test]
async fn a_compaction_a_delete_and_a_txn_that_writes_are_not_sent_again() {
    let (network, member) = (Network::new(), Member::behaving(1, Behaviour::Fail(ApiError::NoLeader)));
    network.accept("a", &member);
    let client = network.client(["a"]).build().unwrap();
    client.compact(5).await.unwrap_err();
    client.delete("k").await.unwrap_err();
    client.txn().then(Put::new("k", "v")).await.unwrap_err();
    assert_eq!(member.seen(), ["compact", "delete_range", "txn"]);
}

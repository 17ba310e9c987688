//! A client that does not go back in time, on members that are behind each other.

use std::sync::Arc;

use cairn_client::{Client, Error, Get, Put};

use crate::{
    history::History,
    member::{Behaviour, Member},
    network::Network,
    soon,
};
use cairn_client::proto::ApiError;

/// Three members at these revisions, and a client that asks them in turn.
fn members(revisions: [i64; 3]) -> (Arc<Network>, Vec<Arc<Member>>, Client) {
    let network = Network::new();
    let members: Vec<_> = (1..=3).map(Member::new).collect();
    for ((host, member), revision) in ["a", "b", "c"].iter().zip(&members).zip(revisions) {
        network.accept(host, member);
        member.is_at(revision);
    }
    let client = network.client(["a", "b", "c"]).build().unwrap();
    (network, members, client)
}

#[tokio::test]
async fn an_answer_older_than_the_last_one_is_asked_for_elsewhere() {
    let (_network, members, client) = members([5, 3, 4]);
    let ordered = client.ordered();
    for _ in 0..6 {
        let answer = ordered.get("k").serializable().await.unwrap();
        assert_eq!(answer.header.unwrap().revision, 5);
    }
    assert!(members[1].seen().len() > 1 && members[2].seen().len() > 1, "they were asked, and were behind");
    let mut revisions = Vec::new();
    for _ in 0..3 {
        revisions.push(client.get("k").serializable().await.unwrap().header.unwrap().revision);
    }
    revisions.sort_unstable();
    assert_eq!(revisions, [3, 4, 5], "who does not ask for order gets none");
}

#[tokio::test]
async fn without_an_endpoint_that_is_as_far_the_answer_is_an_error() {
    let (network, members, client) = members([9, 3, 4]);
    let ordered = client.ordered();
    while ordered.get("k").await.unwrap().header.unwrap().revision < 9 {}
    network.refuse("a");
    network.cut("a");
    let before = members[1].seen().len() + members[2].seen().len();
    let error = ordered.get("k").await.unwrap_err();
    assert!(matches!(error, Error::Outdated { seen: 9, .. }), "{error:?}");
    assert!(error.to_string().starts_with("no endpoint has revision 9"), "{error}");
    assert_eq!(members[1].seen().len() + members[2].seen().len(), before + 2, "each was asked once");
    members[2].is_at(12);
    assert_eq!(ordered.get("k").await.unwrap().header.unwrap().revision, 12);
    // What others have seen is no business of a new one.
    assert!(client.ordered().get("k").await.is_ok());
}

#[tokio::test]
async fn an_endpoint_that_is_behind_is_no_reason_to_wait_for_one_that_fails() {
    let (_network, members, client) = members([7, 3, 3]);
    let ordered = client.ordered();
    while ordered.get("k").await.unwrap().header.unwrap().revision < 7 {}
    members[0].behave(Behaviour::Fail(ApiError::NoLeader));
    let error = soon("an answer", ordered.get("k").send()).await.unwrap_err();
    assert!(matches!(error, Error::Outdated { seen: 7, .. }), "{error:?}");
}

#[tokio::test]
async fn writes_and_transactions_tell_how_far_the_store_is() {
    let (_network, members, client) = members([2, 2, 2]);
    let ordered = client.ordered();
    for member in &members {
        member.is_at(6);
    }
    ordered.put("k", "v").await.unwrap();
    for member in &members {
        member.is_at(5);
    }
    let read = ordered.txn().then(Get::new("k")).await.unwrap_err();
    assert!(matches!(read, Error::Outdated { revision: 5, seen: 6, .. }), "{read:?}");
    let before: usize = members.iter().map(|member| member.seen().len()).sum();
    let error = ordered.txn().then(Put::new("k", "v")).await.unwrap_err();
    assert!(matches!(error, Error::Outdated { .. }) && error.may_have_happened(), "{error:?}");
    let after: usize = members.iter().map(|member| member.seen().len()).sum();
    assert_eq!(after, before + 1, "a write is not sent again, whoever answers");
}

#[tokio::test]
async fn an_answer_in_pieces_ends_with_an_error_if_it_is_older() {
    let (_network, members, client) = members([8, 8, 8]);
    let ordered = client.ordered();
    ordered.get("k").await.unwrap();
    for member in &members {
        member.is_at(7);
    }
    let mut answers = ordered.get("k").stream().await.unwrap();
    assert!(answers.next().await.unwrap().is_some() && answers.next().await.unwrap().is_some());
    let error = answers.next().await.unwrap_err();
    assert!(matches!(error, Error::Outdated { revision: 7, seen: 8, .. }), "{error:?}");
}

#[tokio::test]
async fn events_of_watches_are_seen_too() {
    let (network, history) = (Network::new(), History::new());
    let member = Member::with_history(1, &history);
    network.accept("a", &member);
    let ordered = network.client(["a"]).build().unwrap().ordered();
    let mut watcher = ordered.watch("k").await.unwrap();
    history.go_on(4);
    while soon("an event", watcher.next()).await.unwrap().events.last().unwrap().kv.as_ref().unwrap().mod_revision < 5 {
    }
    let error = ordered.get("k").await.unwrap_err();
    assert!(matches!(error, Error::Outdated { revision: 1, seen: 5, .. }), "{error:?}");
    member.is_at(5);
    ordered.get("k").await.unwrap();
}

//! Watches over connections that are cut, members that vanish, histories that are compacted and readers that are slow.

use std::{sync::Arc, time::Duration};

use cairn_client::{Error, WatchError, Watcher, proto::ApiError};

use crate::{
    eventually,
    history::History,
    member::{Behaviour, Member},
    network::Network,
};

fn members(network: &Arc<Network>, hosts: &[&str]) -> (Arc<History>, Vec<Arc<Member>>) {
    let history = History::new();
    let members: Vec<_> = (1..).zip(hosts).map(|(id, _)| Member::with_history(id, &history)).collect();
    for (host, member) in hosts.iter().zip(&members) {
        network.accept(host, member);
    }
    (history, members)
}

/// The revisions told until `last` was.
async fn told(watcher: &mut Watcher, last: i64) -> Vec<i64> {
    let mut revisions = Vec::new();
    while revisions.last() != Some(&last) {
        let answer = tokio::time::timeout(Duration::from_secs(30), watcher.next()).await.unwrap().unwrap();
        revisions.extend(answer.events.iter().map(|event| event.kv.as_ref().unwrap().mod_revision));
    }
    revisions
}

fn all(first: i64, last: i64) -> Vec<i64> {
    (first..=last).collect()
}

#[tokio::test]
async fn a_watch_continues_without_gap_or_repeat_when_its_connection_is_cut() {
    let network = Network::new();
    let (history, _members) = members(&network, &["a"]);
    let client = network.client(["a"]).build().unwrap();
    let mut watcher = client.watch("k").await.unwrap();
    let mut revisions = Vec::new();
    for last in [5, 9, 20] {
        network.cut("a");
        history.go_on(last - revisions.last().copied().unwrap_or(1));
        revisions.extend(told(&mut watcher, last).await);
    }
    assert_eq!(revisions, all(2, 20));
}

#[tokio::test]
async fn a_watch_goes_to_another_member_when_its_own_is_gone() {
    let network = Network::new();
    let (history, _members) = members(&network, &["a", "b"]);
    let client = network.client(["a", "b"]).build().unwrap();
    let mut watcher = client.watch("k").revision(1).await.unwrap();
    history.go_on(2);
    let mut revisions = told(&mut watcher, 3).await;
    for host in ["a", "b"] {
        network.refuse(host);
        network.cut(host);
        let last = revisions.last().unwrap() + 3;
        history.go_on(3);
        if host == "b" {
            network.accept("a", &Member::with_history(3, &history));
        }
        revisions.extend(told(&mut watcher, last).await);
    }
    assert_eq!(revisions, all(1, 9));
}

#[tokio::test]
async fn history_that_is_gone_ends_a_watch_with_the_revision_that_is_left() {
    let network = Network::new();
    let (history, _members) = members(&network, &["a"]);
    let client = network.client(["a"]).build().unwrap();
    let mut watcher = client.watch("k").await.unwrap();
    network.refuse("a");
    network.cut("a");
    history.go_on(9);
    history.compact(8);
    network.accept("a", &Member::with_history(1, &history));
    let error = watcher.next().await.unwrap_err();
    assert!(matches!(error, WatchError::Compacted { compact_revision: 8, .. }), "{error}");
    assert!(matches!(watcher.next().await, Err(WatchError::Ended)));
}

#[tokio::test]
async fn a_slow_reader_is_paused_and_holds_nobody_up() {
    let network = Network::new();
    let (history, _members) = members(&network, &["a"]);
    let client = network.client(["a"]).build().unwrap();
    let mut slow = client.watch("k").buffer(2).await.unwrap();
    let mut quick = client.watch("k").await.unwrap();
    for last in 2..=40 {
        history.go_on(1);
        assert_eq!(told(&mut quick, last).await, [last]);
    }
    assert_eq!(history.starts(), [0, 0], "it is not asked for again before there is room");
    assert_eq!(told(&mut slow, 40).await, all(2, 40));
    assert_eq!(history.streams(), 1);
}

#[tokio::test]
async fn pieces_of_an_answer_are_put_together() {
    let network = Network::new();
    let (history, _members) = members(&network, &["a"]);
    history.in_fragments();
    history.go_on(9);
    let client = network.client(["a"]).build().unwrap();
    let mut watcher = client.watch("k").revision(2).await.unwrap();
    assert_eq!(watcher.next().await.unwrap().events.len(), 9);
}

#[tokio::test]
async fn watches_share_a_stream_unless_one_requires_a_leader() {
    let network = Network::new();
    let (history, members) = members(&network, &["a"]);
    let client = network.client(["a"]).build().unwrap();
    let mut watchers = Vec::new();
    for _ in 0..20 {
        watchers.push(client.clone().watch("k").await.unwrap());
    }
    watchers.push(client.watch("k").require_leader().await.unwrap());
    assert_eq!(history.streams(), 2);
    assert_eq!(members[0].leader_requirements(), [false, true]);
    history.go_on(1);
    for watcher in &mut watchers {
        assert_eq!(told(watcher, 2).await, [2]);
    }
}

#[tokio::test]
async fn a_stream_ends_with_its_last_watch_and_comes_back_with_the_next() {
    let network = Network::new();
    let (history, _members) = members(&network, &["a"]);
    let client = network.client(["a"]).build().unwrap();
    drop(client.watch("k").await.unwrap());
    eventually("a new stream", || {
        let client = client.clone();
        tokio::spawn(async move { client.watch("k").await.map(drop) });
        history.streams() > 1
    })
    .await;
}

#[tokio::test]
async fn progress_is_told_to_every_watch_of_the_stream() {
    let network = Network::new();
    let (history, _members) = members(&network, &["a"]);
    history.go_on(6);
    let client = network.client(["a"]).build().unwrap();
    let mut watchers = [client.watch("k").await.unwrap(), client.watch("l").await.unwrap()];
    watchers[0].request_progress().await.unwrap();
    for watcher in &mut watchers {
        let answer = watcher.next().await.unwrap();
        assert_eq!((answer.is_progress(), answer.header.revision), (true, 7));
    }
}

#[tokio::test]
async fn refusals_are_told_to_whom_they_concern() {
    let network = Network::new();
    let (history, members) = members(&network, &["a"]);
    let client = network.client(["a"]).build().unwrap();
    let mut other = client.watch("k").await.unwrap();
    let error = client.watch("refused").await.unwrap_err();
    assert!(matches!(&error, WatchError::Cancelled { reason } if reason == "no such luck"), "{error}");
    history.go_on(1);
    assert_eq!(told(&mut other, 2).await, [2]);

    members[0].behave(Behaviour::Fail(ApiError::PermissionDenied));
    let error = client.watch("k").require_leader().await.unwrap_err();
    assert!(matches!(error, WatchError::Failed(Error::Answered { .. })), "{error}");
}

#[tokio::test]
async fn a_watch_that_nobody_creates_in_time_is_an_error() {
    let network = Network::new();
    network.refuse("a");
    let client = network.client(["a"]).command_timeout(Duration::from_millis(100)).build().unwrap();
    let error = client.watch("k").await.unwrap_err();
    assert!(matches!(error, WatchError::Failed(Error::DeadlineExceeded { .. })), "{error}");
}

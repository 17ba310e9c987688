//! The lock, held and lost.

use std::time::Duration;

use cairn_client::{
    Client, KeyRange, LeaseLost, Put,
    recipe::{Mutex, RecipeError, Session},
};
use tokio::task::JoinHandle;

use crate::{cluster::Cluster, soon};

async fn session(client: &Client, ttl: i64) -> Session {
    Session::start(client, ttl).await.unwrap()
}

/// Waits until so many stand in the queue of a lock.
async fn queued(client: &Client, name: &str, count: i64) {
    let queue = KeyRange::prefix(format!("{name}/"));
    let waits = async {
        while client.get(queue.clone()).count_only().await.unwrap().count != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the queue", waits).await;
}

/// Takes the lock in a task of its own; returns the token, and the session that holds it.
fn takes(session: Session) -> JoinHandle<Result<(i64, Session), RecipeError>> {
    tokio::spawn(async move {
        let token = Mutex::new(&session, "l").lock().await?.token();
        Ok((token, session))
    })
}

#[tokio::test]
async fn a_lock_goes_round_in_the_order_in_which_it_was_asked_for() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let first = session(&client, 60).await;
    let lock = Mutex::new(&first, "l");
    let held = lock.lock().await.unwrap();
    let mut waiting = Vec::new();
    for place in 2..=4 {
        waiting.push(takes(session(&client, 60).await));
        queued(&client, "l", place).await;
    }
    assert!(waiting.iter().all(|task| !task.is_finished()));
    lock.unlock().await.unwrap();
    let mut token = held.token();
    for task in waiting {
        let (next, session) = soon("the next holder", task).await.unwrap().unwrap();
        assert!(next > token, "a token that rises from holder to holder");
        token = next;
        session.close().await.unwrap();
    }
    queued(&client, "l", 0).await;
}

#[tokio::test]
async fn whoever_does_not_want_to_wait_leaves_the_queue_at_once() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let (one, other) = (session(&client, 60).await, session(&client, 60).await);
    let (mine, theirs) = (Mutex::new(&one, "l"), Mutex::new(&other, "l"));
    assert!(mine.try_lock().await.unwrap().is_some());
    assert!(mine.try_lock().await.unwrap().is_some(), "the holder holds it already");
    assert!(theirs.try_lock().await.unwrap().is_none());
    queued(&client, "l", 1).await;
    mine.unlock().await.unwrap();
    assert!(theirs.try_lock().await.unwrap().is_some());
    mine.unlock().await.unwrap();
    queued(&client, "l", 1).await;
}

#[tokio::test]
async fn a_holder_whose_lease_is_revoked_learns_of_it_and_cannot_write_behind_its_token() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let first = session(&client, 2).await;
    let held = Mutex::new(&first, "l").lock().await.unwrap();
    let next = takes(session(&client, 60).await);
    queued(&client, "l", 2).await;
    client.lease_revoke(first.lease()).await.unwrap();
    let (token, second) = soon("the next holder", next).await.unwrap().unwrap();
    assert!(token > held.token());
    assert_eq!(soon("the loss", first.lost()).await, LeaseLost::Gone { id: first.lease() });
    let late = client.txn().when(held.is_first()).then(Put::new("guarded", "late")).await.unwrap();
    assert!(!late.succeeded, "it is not first any more");
    let error = Mutex::new(&first, "l").lock().await.unwrap_err();
    assert!(matches!(error, RecipeError::SessionLost(LeaseLost::Gone { .. }) | RecipeError::Request(_)), "{error}");
    second.close().await.unwrap();
}

#[tokio::test]
async fn who_loses_the_lease_while_waiting_stops_waiting() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let holder = session(&client, 60).await;
    let lock = Mutex::new(&holder, "l");
    lock.lock().await.unwrap();
    let waiter = session(&client, 2).await;
    let lease = waiter.lease();
    let waiting = takes(waiter);
    queued(&client, "l", 2).await;
    client.lease_revoke(lease).await.unwrap();
    let error = soon("the end of the wait", waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, RecipeError::SessionLost(LeaseLost::Gone { .. })), "{error}");
    queued(&client, "l", 1).await;
}

#[tokio::test]
async fn a_place_whose_key_somebody_deleted_is_lost() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let holder = session(&client, 60).await;
    let lock = Mutex::new(&holder, "l");
    lock.lock().await.unwrap();
    let waiter = session(&client, 60).await;
    let key = format!("l/{:x}", waiter.lease());
    let waiting = takes(waiter);
    queued(&client, "l", 2).await;
    client.delete(key).await.unwrap();
    lock.unlock().await.unwrap();
    let error = soon("the end of the wait", waiting).await.unwrap().unwrap_err();
    assert!(matches!(error, RecipeError::PlaceLost), "{error}");
}

#[tokio::test]
async fn a_wait_that_is_given_up_keeps_its_place_until_it_is_given_up_too() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let (one, other) = (session(&client, 60).await, session(&client, 60).await);
    let (mine, theirs) = (Mutex::new(&one, "l"), Mutex::new(&other, "l"));
    mine.lock().await.unwrap();
    let given_up = tokio::time::timeout(Duration::from_millis(300), theirs.lock()).await;
    assert!(given_up.is_err());
    queued(&client, "l", 2).await;
    theirs.unlock().await.unwrap();
    queued(&client, "l", 1).await;
}

#[tokio::test]
async fn a_holder_that_is_cut_off_knows_of_its_loss_before_anybody_else_gets_the_lock() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let first = session(&client, 2).await;
    let held = Mutex::new(&first, "l").lock().await.unwrap();
    cluster.signal(0, "STOP");
    let lost = soon("the loss", first.lost()).await;
    assert!(matches!(lost, LeaseLost::Unrenewed { .. }), "{lost}");
    cluster.signal(0, "CONT");
    let (token, _second) = soon("the next holder", takes(session(&client, 60).await)).await.unwrap().unwrap();
    assert!(token > held.token());
}

#[tokio::test]
async fn a_session_that_is_dropped_holds_the_lock_for_its_time_to_live_and_no_longer() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let first = session(&client, 2).await;
    let token = Mutex::new(&first, "l").lock().await.unwrap().token();
    let waiting = takes(session(&client, 60).await);
    queued(&client, "l", 2).await;
    drop(first);
    let (next, _session) = soon("the next holder", waiting).await.unwrap().unwrap();
    assert!(next > token);
}

#[tokio::test]
async fn locks_of_the_same_name_in_two_namespaces_are_two() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let (a, b) = (session(&client.namespaced("a/"), 60).await, session(&client.namespaced("b/"), 60).await);
    let (in_a, in_b) = (Mutex::new(&a, "l"), Mutex::new(&b, "l"));
    let held = in_a.lock().await.unwrap();
    in_b.lock().await.unwrap();
    assert!(held.key().starts_with(b"l/"), "{:?}", held.key());
    queued(&client, "a/l", 1).await;
    let guarded = client.namespaced("a/").txn().when(held.is_first()).then(Put::new("k", "v")).await.unwrap();
    assert!(guarded.succeeded);
}

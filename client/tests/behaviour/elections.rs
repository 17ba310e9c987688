//! The election: won, watched, resigned and lost.

use cairn_client::{
    Client, LeaseLost, Put,
    recipe::{Election, Observer, RecipeError, Session},
};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{cluster::Cluster, soon};

/// Stands for election until told to resign; reports when it leads.
struct Candidate {
    leads: oneshot::Receiver<i64>,
    resign: oneshot::Sender<()>,
    task: JoinHandle<Result<(), RecipeError>>,
    lease: i64,
}

async fn candidate(client: &Client, name: &'static str, ttl: i64) -> Candidate {
    let session = Session::start(client, ttl).await.unwrap();
    let (lease, (elected, leads), (resign, resigned)) = (session.lease(), oneshot::channel(), oneshot::channel());
    let task = tokio::spawn(async move {
        let election = Election::new(&session, "e");
        let held = election.campaign(name).await?;
        let _ = elected.send(held.token());
        tokio::select! {
            _ = resigned => election.resign().await,
            lost = session.lost() => Err(lost.into()),
        }
    });
    Candidate { leads, resign, task, lease }
}

async fn told(observer: &mut Observer) -> String {
    let (header, kv) = soon("the next leader", observer.next()).await.unwrap();
    assert!(header.revision >= kv.mod_revision);
    String::from_utf8_lossy(&kv.value).into_owned()
}

#[tokio::test]
async fn leaders_follow_each_other_and_an_observer_hears_of_each() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let mut observer = Observer::new(&client, "e");
    let first = candidate(&client, "one", 60).await;
    let token = soon("a leader", first.leads).await.unwrap();
    assert_eq!(told(&mut observer).await, "one");
    let second = candidate(&client, "two", 60).await;
    first.resign.send(()).unwrap();
    first.task.await.unwrap().unwrap();
    let next = soon("the next leader", second.leads).await.unwrap();
    assert!(next > token);
    assert_eq!(told(&mut observer).await, "two");
}

#[tokio::test]
async fn a_leader_says_something_new_without_another_election() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let session = Session::start(&client, 60).await.unwrap();
    let election = Election::new(&session, "e");
    assert!(matches!(election.proclaim("too early").await, Err(RecipeError::NotLeader)));
    assert_eq!(election.leader().await.unwrap(), None);
    let held = election.campaign("1").await.unwrap();
    let mut observer = Observer::new(&client, "e");
    assert_eq!(told(&mut observer).await, "1");
    election.proclaim("2").await.unwrap();
    assert_eq!(told(&mut observer).await, "2");
    let again = election.campaign("3").await.unwrap();
    assert_eq!(again.token(), held.token(), "it leads already");
    assert_eq!(told(&mut observer).await, "3");
    let leader = election.leader().await.unwrap().unwrap();
    assert_eq!((&leader.key, leader.create_revision), (held.key(), held.token()));
    let guarded = client.txn().when(held.is_first()).then(Put::new("guarded", "v")).await.unwrap();
    assert!(guarded.succeeded);
    election.resign().await.unwrap();
    election.resign().await.unwrap();
    assert!(matches!(election.proclaim("too late").await, Err(RecipeError::NotLeader)));
    let late = client.txn().when(held.is_first()).then(Put::new("guarded", "late")).await.unwrap();
    assert!(!late.succeeded);
}

#[tokio::test]
async fn a_leader_whose_lease_is_revoked_is_replaced_and_knows_it() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let mut observer = Observer::new(&client, "e");
    let first = candidate(&client, "one", 2).await;
    soon("a leader", first.leads).await.unwrap();
    assert_eq!(told(&mut observer).await, "one");
    let second = candidate(&client, "two", 60).await;
    client.lease_revoke(first.lease).await.unwrap();
    soon("the next leader", second.leads).await.unwrap();
    assert_eq!(told(&mut observer).await, "two");
    let error = soon("the loss", first.task).await.unwrap().unwrap_err();
    assert!(matches!(error, RecipeError::SessionLost(LeaseLost::Gone { .. })), "{error}");
}

#[tokio::test]
async fn a_leader_that_fell_silent_is_replaced_when_its_time_is_over() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let silent = Session::start(&client, 2).await.unwrap();
    let held = Election::new(&silent, "e").campaign("silent").await.unwrap();
    let next = candidate(&client, "next", 60).await;
    drop(silent);
    let token = soon("the next leader", next.leads).await.unwrap();
    assert!(token > held.token());
}

#[tokio::test]
async fn an_observer_waits_for_the_first_leader_and_for_the_one_after_a_gap() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let observing = client.clone();
    let (tell, mut heard) = tokio::sync::mpsc::channel(4);
    let observer = tokio::spawn(async move {
        let mut observer = Observer::new(&observing, "e");
        while let Ok((_, kv)) = observer.next().await {
            if tell.send(kv.value).await.is_err() {
                return;
            }
        }
    });
    for name in ["one", "two"] {
        let leader = candidate(&client, name, 60).await;
        soon("a leader", leader.leads).await.unwrap();
        assert_eq!(soon("the news", heard.recv()).await.unwrap(), name);
        leader.resign.send(()).unwrap();
        leader.task.await.unwrap().unwrap();
    }
    drop(heard);
    observer.abort();
}

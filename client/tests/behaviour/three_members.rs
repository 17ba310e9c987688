//! Three members: requests spread over them, members that are killed, suspended and behind.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use cairn_client::{Client, Compare, Put};

use crate::{cluster::Cluster, eventually, soon};

#[tokio::test]
async fn a_client_of_one_member_spreads_its_requests_over_all_it_learns_of() {
    let cluster = Cluster::of(3).await;
    let client = Client::new([&cluster.endpoint(0)]).unwrap();
    let mut synced: Vec<_> = client.sync_endpoints().await.unwrap();
    synced.sort_by_key(ToString::to_string);
    let mut expected = cluster.endpoints();
    expected.sort_by_key(ToString::to_string);
    assert_eq!(synced, expected);
    let mut answers = BTreeMap::new();
    for _ in 0..12 {
        let answer = client.put("k", "v").await.unwrap();
        *answers.entry(answer.header.unwrap().member_id).or_insert(0) += 1;
    }
    assert_eq!(answers.into_values().collect::<Vec<_>>(), [4, 4, 4]);
}

/// A writer that counts up, and what it knows for certain.
async fn count_up(client: Client, stop: Arc<AtomicBool>, acknowledged: Arc<AtomicU64>) -> u64 {
    let (mut last, mut revision) = (0u64, 0);
    while !stop.load(Ordering::SeqCst) {
        let next = last + 1;
        let unchanged = Compare::mod_revision("count").equal_to(revision);
        match client.txn().when(unchanged).then(Put::new("count", next.to_string())).await {
            Ok(answer) if answer.succeeded => {
                (last, revision) = (next, answer.header.unwrap().revision);
                acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            // Either nobody knows whether it was done, or the one before was: look.
            Ok(_) | Err(_) => {
                if let Ok(found) = client.get("count").await
                    && let Some(kv) = found.kvs.first()
                {
                    let value: u64 = String::from_utf8_lossy(&kv.value).parse().unwrap();
                    assert!(value == last || value == last + 1, "{value} after {last}");
                    (last, revision) = (value, kv.mod_revision);
                }
            }
        }
    }
    last
}

#[tokio::test]
async fn requests_and_watches_go_on_when_the_leader_is_killed() {
    let mut cluster = Cluster::of(3).await;
    let client = cluster.client();
    let mut watcher = client.watch("count").require_leader().await.unwrap();
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn(count_up(client.clone(), Arc::clone(&stop), Arc::clone(&acknowledged)));
    eventually("the first writes", || acknowledged.load(Ordering::SeqCst) >= 20).await;
    let leader = cluster.leader().await;
    cluster.kill(leader);
    let before = acknowledged.load(Ordering::SeqCst);
    soon("writes behind the kill", async {
        while acknowledged.load(Ordering::SeqCst) < before + 50 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    stop.store(true, Ordering::SeqCst);
    let last = writer.await.unwrap();
    // Every value once and in order, whoever told it.
    let mut expected = 1;
    while expected <= last {
        let answer = soon("the next event", watcher.next()).await.unwrap();
        for event in answer.events {
            let value = event.kv.unwrap().value;
            assert_eq!(String::from_utf8_lossy(&value), expected.to_string());
            expected += 1;
        }
    }
}

#[tokio::test]
async fn a_suspended_member_costs_reads_one_time_out_and_then_rests() {
    let cluster = Cluster::of(3).await;
    let client = Client::builder(&cluster.endpoints()).build().unwrap();
    client.put("k", "v").await.unwrap();
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    cluster.signal(follower, "STOP");
    let impatient = client.with_timeout(Duration::from_secs(2));
    let (mut answered, mut late) = (0, 0);
    while answered < 30 {
        match impatient.get("k").await {
            Ok(answer) => answered += i32::from(answer.kvs.len() == 1),
            Err(_) => late += 1,
        }
        assert!(late < 10, "it is asked again and again");
    }
    cluster.signal(follower, "CONT");
    let one = client.at(&cluster.endpoint(follower)).unwrap();
    soon("the member answers again", async { while one.status().await.is_err() {} }).await;
}

#[tokio::test]
async fn an_ordered_client_reads_no_older_state_from_a_member_that_fell_behind() {
    let cluster = Cluster::of(3).await;
    let client = cluster.client();
    let follower = (cluster.leader().await + 1) % 3;
    let ordered = client.ordered();
    for round in 0..20 {
        // The follower learns of a write later than whoever made it.
        let written = ordered.put("k", round.to_string()).await.unwrap().header.unwrap().revision;
        for _ in 0..6 {
            let answer = ordered.get("k").serializable().await.unwrap();
            assert!(answer.header.unwrap().revision >= written);
            assert_eq!(answer.kvs[0].value, round.to_string());
        }
    }
    // The same client, of this member only: it has nobody else to ask, so it waits for the member or says so.
    let behind = client.at(&cluster.endpoint(follower)).unwrap();
    let revision = behind.client().get("k").await.unwrap().header.unwrap().revision;
    assert!(behind.client().ordered().get("k").serializable().await.unwrap().header.unwrap().revision >= revision);
}

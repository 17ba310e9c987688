//! Transactions written as ordinary code, alone and against each other.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    sync::atomic::{AtomicU32, Ordering},
};

use cairn_client::{
    Client, Error, KeyRange,
    proto::ApiError,
    recipe::{Isolation, RecipeError, Transaction},
};
use tokio::task::JoinSet;

use crate::cluster::Cluster;

async fn number(transaction: &Transaction, key: &str) -> Result<i64, RecipeError> {
    let value = transaction.get(key).await?;
    Ok(value.map_or(0, |value| String::from_utf8_lossy(&value).parse().unwrap()))
}

async fn stored(client: &Client, key: &str) -> Option<String> {
    let answer = client.get(key).await.unwrap();
    answer.kvs.first().map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
}

#[tokio::test]
async fn every_step_of_many_counters_counts_once() {
    let cluster = Cluster::of(1).await;
    let (runs, mut tasks) = (std::sync::Arc::new(AtomicU32::new(0)), JoinSet::new());
    for _ in 0..8 {
        let (client, runs) = (cluster.client(), std::sync::Arc::clone(&runs));
        tasks.spawn(async move {
            for _ in 0..25 {
                client
                    .stm()
                    .run(async |transaction: Transaction| {
                        runs.fetch_add(1, Ordering::SeqCst);
                        let count = number(&transaction, "count").await?;
                        transaction.put("count", (count + 1).to_string());
                        Ok::<_, RecipeError>(())
                    })
                    .await
                    .unwrap();
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(stored(&cluster.client(), "count").await.as_deref(), Some("200"));
    assert!(runs.load(Ordering::SeqCst) > 200, "nobody ever met anybody: this tested nothing");
}

#[tokio::test]
async fn money_moved_between_accounts_is_neither_made_nor_lost() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    for account in 0..5 {
        client.put(format!("account/{account}"), "100").await.unwrap();
    }
    let mut tasks = JoinSet::new();
    for mover in 0..4 {
        let client = cluster.client();
        tasks.spawn(async move {
            for step in 0..30 {
                let (from, to) = ((mover + step) % 5, (mover * 2 + step * 3 + 1) % 5);
                let moved = async |transaction: Transaction| {
                    let (from, to) = (format!("account/{from}"), format!("account/{to}"));
                    let left = number(&transaction, &from).await? - 7;
                    transaction.put(&from, left.to_string());
                    let more = number(&transaction, &to).await? + 7;
                    transaction.put(&to, more.to_string());
                    Ok::<_, RecipeError>(())
                };
                client.stm().run(moved).await.unwrap();
            }
        });
    }
    // Whoever reads meanwhile sees all of a move or nothing of it, without writing anything.
    let mut sums = Vec::new();
    while !tasks.is_empty() {
        let sum = client.stm().run(async |transaction: Transaction| {
            let mut sum = 0;
            for account in 0..5 {
                sum += number(&transaction, &format!("account/{account}")).await?;
            }
            Ok::<_, RecipeError>(sum)
        });
        sums.push(sum.await.unwrap());
        while let Some(done) = tasks.try_join_next() {
            done.unwrap();
        }
    }
    assert!(sums.len() > 1 && sums.iter().all(|sum| *sum == 500), "{sums:?}");
}

#[tokio::test]
async fn a_transaction_reads_what_it_wrote() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    client.put("a", "1").await.unwrap();
    let revision = client.put("b", "1").await.unwrap().header.unwrap().revision;
    client
        .stm()
        .run(async |transaction: Transaction| {
            transaction.put("a", "2");
            assert_eq!(transaction.get("a").await?.as_deref(), Some(&b"2"[..]));
            transaction.delete("b");
            assert_eq!(transaction.get("b").await?, None);
            assert_eq!(transaction.mod_revision("b").await?, revision);
            assert_eq!(transaction.mod_revision("nothing").await?, 0);
            transaction.put("a", "3");
            Ok::<_, RecipeError>(())
        })
        .await
        .unwrap();
    assert_eq!(stored(&client, "a").await.as_deref(), Some("3"));
    assert_eq!(stored(&client, "b").await, None);
    let committed = client.get("a").await.unwrap().kvs[0].mod_revision;
    assert_eq!(committed, revision + 1, "all of it is one revision");
}

#[tokio::test]
async fn a_lease_goes_with_the_key() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let lease = client.lease_grant(600, 0).await.unwrap().id;
    let work = async |transaction: Transaction| {
        transaction.put_with_lease("k", "v", lease);
        Ok::<_, RecipeError>(())
    };
    client.stm().run(work).await.unwrap();
    assert_eq!(client.get("k").await.unwrap().kvs[0].lease, lease);
}

/// Runs a transaction that reads `read` and writes `written`, while somebody else writes `meddled` before its first commit.
/// Returns how often the work was done.
async fn runs(client: &Client, isolation: Isolation, read: &str, written: &str, meddled: &str) -> u32 {
    let runs = Cell::new(0);
    let work = async |transaction: Transaction| {
        runs.set(runs.get() + 1);
        transaction.get(read).await?;
        if runs.get() == 1 {
            client.put(meddled, "theirs").await?;
        }
        transaction.put(written, "ours");
        Ok::<_, RecipeError>(())
    };
    client.stm().isolation(isolation).run(work).await.unwrap();
    runs.get()
}

#[tokio::test]
async fn the_levels_differ_in_keys_that_are_only_written() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let meddlings = HashMap::from([("read", (2, 2)), ("written", (2, 1)), ("else", (1, 1))]);
    for (meddled, (snapshot, serializable)) in meddlings {
        let done = runs(&client, Isolation::SerializableSnapshot, "read", "written", meddled).await;
        assert_eq!(done, snapshot, "{meddled}, snapshot");
        let done = runs(&client, Isolation::Serializable, "read", "written", meddled).await;
        assert_eq!(done, serializable, "{meddled}, serializable");
    }
    // A key that was not there when it was read is watched as well.
    assert_eq!(runs(&client, Isolation::Serializable, "new", "written", "new").await, 2);
    assert_eq!(stored(&client, "written").await.as_deref(), Some("ours"));
}

#[tokio::test]
async fn two_who_each_read_what_the_other_writes_do_not_both_commit_on_old_state() {
    let cluster = Cluster::of(1).await;
    for isolation in [Isolation::SerializableSnapshot, Isolation::Serializable] {
        let client = cluster.client();
        for doctor in ["x", "y"] {
            client.put(doctor, "on call").await.unwrap();
        }
        let mut tasks = JoinSet::new();
        for (own, other) in [("x", "y"), ("y", "x")] {
            let client = cluster.client();
            tasks.spawn(async move {
                let leave = async |transaction: Transaction| {
                    if transaction.get(other).await?.as_deref() == Some(b"on call") {
                        transaction.put(own, "gone");
                    }
                    Ok::<_, RecipeError>(())
                };
                client.stm().isolation(isolation).run(leave).await.unwrap();
            });
        }
        tasks.join_all().await;
        let left = [stored(&client, "x").await, stored(&client, "y").await];
        assert_eq!(left.iter().filter(|state| state.as_deref() == Some("gone")).count(), 1, "{left:?}");
    }
}

#[tokio::test]
async fn whoever_always_meets_somebody_gives_up_after_so_many_tries_and_has_written_nothing() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let runs = Cell::new(0);
    let work = async |transaction: Transaction| {
        runs.set(runs.get() + 1);
        transaction.get("k").await?;
        client.put("k", "theirs").await?;
        transaction.put("k", "ours");
        Ok::<_, RecipeError>(())
    };
    let error = client.stm().attempts_max(4).run(work).await.unwrap_err();
    assert!(matches!(error, RecipeError::Conflicts { attempts: 4 }), "{error}");
    assert_eq!(runs.get(), 4);
    assert_eq!(stored(&client, "k").await.as_deref(), Some("theirs"));
}

#[derive(Debug)]
enum Refused {
    NotEnough,
    Recipe(RecipeError),
}

impl From<RecipeError> for Refused {
    fn from(error: RecipeError) -> Self {
        Self::Recipe(error)
    }
}

#[tokio::test]
async fn an_error_of_the_work_ends_it_and_nothing_is_written() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let work = async |transaction: Transaction| {
        transaction.put("k", "v");
        if number(&transaction, "balance").await? < 1 {
            return Err(Refused::NotEnough);
        }
        Ok(())
    };
    let error = client.stm().run(work).await.unwrap_err();
    assert!(matches!(error, Refused::NotEnough), "{error:?}");
    assert_eq!(stored(&client, "k").await, None);

    let too_many = async |transaction: Transaction| {
        (0..200).for_each(|number| transaction.put(format!("{number}"), "v"));
        Ok(())
    };
    let error = client.stm().run(too_many).await.unwrap_err();
    let Refused::Recipe(RecipeError::Request(error)) = error else { panic!("{error:?}") };
    assert_eq!(error.api_error(), Some(ApiError::TooManyOps));
}

#[tokio::test]
async fn work_whose_revision_is_compacted_away_starts_over() {
    let cluster = Cluster::of(1).await;
    let client = cluster.client();
    let runs = Cell::new(0);
    let work = async |transaction: Transaction| {
        runs.set(runs.get() + 1);
        let first = transaction.mod_revision("a").await?;
        if runs.get() == 1 {
            client.put("b", "newer").await?;
            let newest = client.put("a", "newer").await?.header.unwrap().revision;
            client.compact(newest).await?;
        }
        let second = transaction.mod_revision("b").await?;
        transaction.put("c", "v");
        Ok::<_, RecipeError>((first, second))
    };
    let (a, b) = client.stm().run(work).await.unwrap();
    assert_eq!(runs.get(), 2);
    assert_eq!(a, b + 1, "both of the newer state");
}

#[tokio::test]
async fn a_transaction_in_a_namespace_stays_inside() {
    let cluster = Cluster::of(1).await;
    let whole = cluster.client();
    whole.put("k", "outside").await.unwrap();
    let work = async |transaction: Transaction| {
        let found = transaction.get("k").await?;
        transaction.put("k", "inside");
        Ok::<_, RecipeError>(found)
    };
    assert_eq!(whole.namespaced("n/").stm().run(work).await.unwrap(), None);
    let answer = whole.get(KeyRange::all()).await.unwrap();
    let all: Vec<_> = answer.kvs.iter().map(|kv| (&kv.key[..], &kv.value[..])).collect();
    assert_eq!(all, [(&b"k"[..], &b"outside"[..]), (b"n/k", b"inside")]);
}

#[tokio::test]
async fn a_commit_that_nobody_answers_is_told_and_not_repeated() {
    let cluster = RefCell::new(Cluster::of(1).await);
    let client = cluster.borrow().client().with_timeout(std::time::Duration::from_secs(1));
    client.get("k").await.unwrap();
    let runs = Cell::new(0);
    let work = async |transaction: Transaction| {
        runs.set(runs.get() + 1);
        cluster.borrow_mut().kill(0);
        transaction.put("k", "v");
        Ok::<_, RecipeError>(())
    };
    let error = client.stm().run(work).await.unwrap_err();
    let lost = matches!(error, RecipeError::Request(Error::Lost { .. } | Error::DeadlineExceeded { .. }));
    assert!(lost && runs.get() == 1, "{error:?}");
}

//! Watchers that note everything that they are told, whatever becomes of the member that they watch at.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::{
    sync::Mutex,
    task::JoinHandle,
    time::{Instant, timeout},
};

use super::DEADLINE;
use crate::{
    process::endpoint,
    watch::{checker::Session, open},
};

/// Pause between two looks at a condition.
const LOOK: Duration = Duration::from_millis(2);

/// An event as it was told: revision, version, key.
type Told = (i64, i64, Vec<u8>);

/// Watches the clients' keys at one member, from the first revision on, over lost connections.
pub(super) struct Watcher {
    url: String,
    told: Arc<Mutex<Vec<Told>>>,
    task: JoinHandle<()>,
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watcher {
    pub(super) fn start(url: String) -> Self {
        let told = Arc::new(Mutex::new(Vec::new()));
        let task = tokio::spawn({
            let (url, told) = (url.clone(), told.clone());
            async move {
                loop {
                    // The member may be dead, or about to be.
                    let _ = watch(&url, &told).await;
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        });
        Self { url, told, task }
    }

    pub(super) async fn wait_for_events(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while self.told.lock().await.len() < count {
            ensure!(Instant::now() < deadline, "{} tells nothing", self.url);
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Waits until everything up to `revision` was told.
    async fn wait_for(&self, revision: i64) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while self.told.lock().await.last().is_none_or(|(last, ..)| *last < revision) {
            ensure!(Instant::now() < deadline, "{} does not tell of revision {revision}", self.url);
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }
}

async fn watch(url: &str, told: &Mutex<Vec<Told>>) -> Result<()> {
    let channel = endpoint(url)?.connect().await?;
    let start = told.lock().await.last().map_or(1, |(revision, ..)| revision + 1);
    let (key, range_end) = ("/registry/cluster/".into(), "/registry/cluster0".into());
    let session = Session { key, range_end, start, puts: true, deletes: true, ..Session::default() };
    let (_requests, mut answers) = open(channel, session.request()).await?;
    while let Some(answer) = answers.message().await? {
        ensure!(!answer.canceled, "the watch was ended: {answer:?}");
        let kvs = answer.events.into_iter().filter_map(|event| event.kv);
        told.lock().await.extend(kvs.map(|kv| (kv.mod_revision, kv.version, kv.key.to_vec())));
    }
    Ok(())
}

/// All must have been told the same, each change of each key once and in order. How much it was.
pub(super) async fn compare(watchers: &[Watcher]) -> Result<usize> {
    let mut newest = 0;
    for watcher in watchers {
        newest = newest.max(watcher.told.lock().await.last().map_or(0, |(revision, ..)| *revision));
    }
    let mut all: Vec<Vec<Told>> = Vec::new();
    for watcher in watchers {
        let waited = timeout(DEADLINE, watcher.wait_for(newest)).await;
        waited.context("the watchers do not get on")??;
        let told = watcher.told.lock().await;
        all.push(told.iter().filter(|(revision, ..)| *revision <= newest).cloned().collect());
    }
    check(&all)
}

/// What [`compare`] wants of what each was told.
fn check(all: &[Vec<Told>]) -> Result<usize> {
    let Some((one, others)) = all.split_first() else { return Ok(0) };
    for (number, other) in others.iter().enumerate() {
        if let Some(at) = (0..one.len().max(other.len())).find(|&at| one.get(at) != other.get(at)) {
            anyhow::bail!(
                "event {at} is {:?} to the first watcher, {:?} to watcher {}",
                one.get(at),
                other.get(at),
                number + 2
            );
        }
    }
    ensure!(one.windows(2).all(|pair| pair[0].0 < pair[1].0), "the events are out of order");
    let mut versions: HashMap<&[u8], i64> = HashMap::new();
    for (revision, version, key) in one {
        let before = versions.insert(key, *version).unwrap_or(0);
        ensure!(
            *version == before + 1,
            "at revision {revision} key {:?} was told to have version {version}, after version {before}",
            String::from_utf8_lossy(key)
        );
    }
    Ok(one.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(events: &[(i64, i64, &str)]) -> Vec<Told> {
        events.iter().map(|&(revision, version, key)| (revision, version, key.as_bytes().to_vec())).collect()
    }

    #[test]
    fn what_is_told_once_in_order_and_to_all_passes() {
        let one = told(&[(2, 1, "a"), (3, 1, "b"), (4, 2, "a")]);
        assert_eq!(check(&[one.clone(), one]).expect("all is well"), 3);
    }

    #[test]
    fn events_that_are_missing_told_twice_out_of_order_or_applied_twice_are_found() {
        let right = told(&[(2, 1, "a"), (3, 1, "b"), (4, 2, "a")]);
        for (wrong, to_all, words) in [
            (told(&[(2, 1, "a"), (4, 2, "a")]), false, "to watcher 2"),
            (told(&[(2, 1, "a"), (3, 1, "b"), (3, 1, "b"), (4, 2, "a")]), false, "to watcher 2"),
            (told(&[(2, 1, "a"), (3, 1, "b"), (4, 3, "a")]), false, "to watcher 2"),
            // The same to all: a watch that resumes too early, too late, or a write that was applied twice.
            (told(&[(2, 1, "a"), (3, 1, "b"), (3, 1, "b"), (4, 2, "a")]), true, "out of order"),
            (told(&[(3, 1, "b"), (2, 1, "a"), (4, 2, "a")]), true, "out of order"),
            (told(&[(3, 1, "b"), (4, 2, "a")]), true, "after version 0"),
            (told(&[(2, 1, "a"), (3, 1, "b"), (4, 3, "a")]), true, "after version 1"),
        ] {
            let first = if to_all { wrong.clone() } else { right.clone() };
            let error = check(&[first, wrong.clone()]).expect_err("it is wrong").to_string();
            assert!(error.contains(words), "{wrong:?}: {error}");
        }
    }
}

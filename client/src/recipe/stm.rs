//! Transactions written as ordinary code: read, decide, write, and start over if somebody else was faster.
//!
//! ```text
//!   work            get a   get b   put a            reads are of one revision, writes are kept back
//!                     │       │       │
//!   commit          Txn: if a and b are as they were read, put a
//!                     │
//!            taken ◄──┴──► refused: pause, do the work again on what is there now
//! ```
//!
//! No lock is held, so nobody waits for anybody, and one of those who collide always gets through. The work runs as often as
//! it takes: what it does besides reading and writing keys has to be harmless when it is done again.
//!
//! All reads of one run are of one revision, that of the first. So the work never sees a half of what others wrote together,
//! not even in a run that is going to be refused; if that revision is compacted away meanwhile, the work starts over. A
//! transaction that wrote nothing has nothing to commit: it saw the store as it was at its first read.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::{ApiError, mvccpb::KeyValue};
use parking_lot::Mutex;
use tokio::{sync::Mutex as AsyncMutex, time::sleep};

use super::RecipeError;
use crate::{Client, Compare, Delete, Error, Put, key::IntoBytes, peers::jittered};

/// How often the work is done unless told otherwise.
const ATTEMPTS_MAX: u32 = 100;

/// Pause before the second run; doubles from run to run.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(64);

/// What a transaction may not have missed when it commits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Isolation {
    /// Nobody wrote a key that it read, nor, since its first read, one that it writes.
    #[default]
    SerializableSnapshot,
    /// Nobody wrote a key that it read. Keys that it only writes are overwritten, whoever wrote them last.
    Serializable,
}

/// A transaction to be run: its options.
#[derive(Debug, Clone)]
#[must_use = "a transaction does nothing until it is run"]
pub struct Stm {
    client: Client,
    isolation: Isolation,
    attempts_max: u32,
}

impl Client {
    /// A transaction written as ordinary code ([`recipe`](crate::recipe)).
    ///
    /// ```no_run
    /// # async fn example(client: cairn_client::Client) -> Result<(), cairn_client::recipe::RecipeError> {
    /// use cairn_client::recipe::{RecipeError, Transaction};
    ///
    /// let visits = client
    ///     .stm()
    ///     .run(async |transaction: Transaction| {
    ///         let visits = transaction.get("visits").await?;
    ///         let visits = visits.and_then(|text| String::from_utf8_lossy(&text).parse().ok()).unwrap_or(0u64) + 1;
    ///         transaction.put("visits", visits.to_string());
    ///         Ok::<_, RecipeError>(visits)
    ///     })
    ///     .await?;
    /// # let _ = visits;
    /// # Ok(())
    /// # }
    /// ```
    pub fn stm(&self) -> Stm {
        Stm { client: self.clone(), isolation: Isolation::default(), attempts_max: ATTEMPTS_MAX }
    }
}

impl Stm {
    /// What the transaction may not have missed. Default: [`Isolation::SerializableSnapshot`].
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How often the work is done before the transaction fails with [`RecipeError::Conflicts`]; at least once. Default: 100.
    pub fn attempts_max(mut self, attempts: u32) -> Self {
        self.attempts_max = attempts.max(1);
        self
    }

    /// Does the work until its writes are committed, and returns what it returned then.
    ///
    /// An error of the work ends the transaction, and nothing is written. An error whose outcome is unknown
    /// ([`Error::may_have_happened`]) ends it, too: the writes may have been committed.
    pub async fn run<T, E, F>(self, mut work: impl FnMut(Transaction) -> F) -> Result<T, E>
    where
        F: Future<Output = Result<T, E>>,
        E: From<RecipeError>,
    {
        let mut pause = PAUSE_MIN;
        for attempt in 1..=self.attempts_max {
            let transaction = Transaction::new(self.client.clone());
            match work(transaction.clone()).await {
                Ok(result) => {
                    if transaction.commit(self.isolation).await.map_err(RecipeError::from)? {
                        return Ok(result);
                    }
                }
                Err(_) if transaction.run.lock().outrun => {}
                Err(error) => return Err(error),
            }
            if attempt < self.attempts_max {
                sleep(jittered(pause)).await;
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
        Err(RecipeError::Conflicts { attempts: self.attempts_max }.into())
    }
}

/// One run of a transaction's work. Clones are the same run; what is written when it is over is lost.
#[derive(Debug, Clone)]
pub struct Transaction {
    client: Client,
    /// The revision of all reads, 0 before the first. Locked while a key is read, so that there is one first read.
    snapshot: Arc<AsyncMutex<i64>>,
    run: Arc<Mutex<Run>>,
}

#[derive(Debug, Default)]
struct Run {
    reads: BTreeMap<Bytes, Option<KeyValue>>,
    writes: BTreeMap<Bytes, Write>,
    /// The snapshot was compacted away.
    outrun: bool,
}

#[derive(Debug, Clone)]
enum Write {
    Put { value: Bytes, lease: i64 },
    Delete,
}

impl Transaction {
    fn new(client: Client) -> Self {
        Self { client, snapshot: Arc::default(), run: Arc::default() }
    }

    /// The value of a key, if it is there: as this transaction wrote it, else as it was at the first read.
    pub async fn get(&self, key: impl IntoBytes) -> Result<Option<Bytes>, RecipeError> {
        let key = key.into_bytes();
        let written = self.run.lock().writes.get(&key).cloned();
        match written {
            Some(Write::Put { value, .. }) => Ok(Some(value)),
            Some(Write::Delete) => Ok(None),
            None => Ok(self.read(key).await?.map(|kv| kv.value)),
        }
    }

    /// The revision that last wrote a key, 0 if it is not there. What this transaction writes has none yet.
    pub async fn mod_revision(&self, key: impl IntoBytes) -> Result<i64, RecipeError> {
        Ok(self.read(key.into_bytes()).await?.map_or(0, |kv| kv.mod_revision))
    }

    /// Puts a key when the transaction commits.
    pub fn put(&self, key: impl IntoBytes, value: impl IntoBytes) {
        self.put_with_lease(key, value, 0);
    }

    /// Puts a key when the transaction commits, and attaches it to a lease.
    pub fn put_with_lease(&self, key: impl IntoBytes, value: impl IntoBytes, lease: i64) {
        let write = Write::Put { value: value.into_bytes(), lease };
        self.run.lock().writes.insert(key.into_bytes(), write);
    }

    /// Deletes a key when the transaction commits.
    pub fn delete(&self, key: impl IntoBytes) {
        self.run.lock().writes.insert(key.into_bytes(), Write::Delete);
    }

    async fn read(&self, key: Bytes) -> Result<Option<KeyValue>, RecipeError> {
        let mut snapshot = self.snapshot.lock().await;
        if let Some(read) = self.run.lock().reads.get(&key) {
            return Ok(read.clone());
        }
        // Linearizable all the same: the member asked may not have come to that revision yet.
        let answer = self.client.get(&key).revision(*snapshot).await.inspect_err(|error| {
            self.run.lock().outrun |= *snapshot > 0 && error.api_error() == Some(ApiError::Compacted);
        })?;
        if *snapshot == 0 {
            *snapshot = answer.header.unwrap_or_default().revision;
        }
        let read = answer.kvs.into_iter().next();
        self.run.lock().reads.insert(key, read.clone());
        Ok(read)
    }

    /// Writes everything if nothing has changed; `false` if something has.
    async fn commit(&self, isolation: Isolation) -> Result<bool, Error> {
        let snapshot = *self.snapshot.lock().await;
        let Run { reads, writes, .. } = std::mem::take(&mut *self.run.lock());
        if writes.is_empty() {
            return Ok(true);
        }
        let mut txn = self.client.txn();
        for (key, read) in &reads {
            let revision = read.as_ref().map_or(0, |kv| kv.mod_revision);
            txn = txn.when(Compare::mod_revision(key).equal_to(revision));
        }
        if isolation == Isolation::SerializableSnapshot && snapshot > 0 {
            for key in writes.keys().filter(|key| !reads.contains_key(*key)) {
                txn = txn.when(Compare::mod_revision(key).less_than(snapshot.saturating_add(1)));
            }
        }
        for (key, write) in writes {
            txn = match write {
                Write::Put { value, lease } => txn.then(Put::new(key, value).lease(lease)),
                Write::Delete => txn.then(Delete::new(key)),
            };
        }
        Ok(txn.await?.succeeded)
    }
}

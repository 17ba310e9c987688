//! `make-mirror`: copies keys to another cluster, then follows what happens to them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cairn_client::{Client, Delete, Get, KeyRange, Op, Put, WatchError};
use cairn_proto::mvccpb::event::EventType;
use cairn_proto::mvccpb::{Event, KeyValue};

use super::keys;
use crate::cli::Invocation;
use crate::connection::error_text;
use crate::exit::Failure;
use crate::output::emit;
use crate::session::{Session, failed};

/// Keys read at once.
const PAGE_KEYS: i64 = 1000;
/// How often to print how many changes were copied so far.
const REPORT_INTERVAL: Duration = Duration::from_secs(30);

pub async fn run(invocation: &Invocation) -> Result<(), Failure> {
    let flags = &invocation.flags;
    let [destination] = invocation.args.as_slice() else {
        return Err(Failure::bad_args("make-mirror takes one destination argument"));
    };
    let (prefix, given) = (flags.bytes("prefix"), flags.bytes("dest-prefix"));
    let new_prefix = match (flags.bool("no-dest-prefix"), given) {
        (true, []) => &[],
        (true, _) => {
            let text = "`--dest-prefix` and `--no-dest-prefix` cannot be set at the same time, choose one";
            return Err(Failure::bad_args(text));
        }
        (false, []) => prefix,
        (false, given) => given,
    };
    let session = Session::new(invocation)?;
    let to = session.connect_to_destination(flags, &String::from_utf8_lossy(destination)).await?.with_timeout(None);
    let from = session.connect().await?.with_timeout(None);
    let mirror = Mirror {
        from,
        to,
        prefix: Bytes::copy_from_slice(prefix),
        new_prefix: Bytes::copy_from_slice(new_prefix),
        txn_ops_max: usize::try_from(flags.int("max-txn-ops")).unwrap_or(1).max(1),
        copied: Arc::default(),
    };
    let copied = mirror.copied.clone();
    tokio::select! {
        ended = mirror.run(flags.int("rev")) => ended,
        failure = report(&copied) => Err(failure),
    }
}

/// Prints the number of changes copied, now and then, until that fails.
async fn report(copied: &AtomicU64) -> Failure {
    loop {
        tokio::time::sleep(REPORT_INTERVAL).await;
        if let Err(failure) = emit(format!("{}\n", copied.load(Ordering::Relaxed)).as_bytes()) {
            return failure;
        }
    }
}

struct Mirror {
    from: Client,
    to: Client,
    prefix: Bytes,
    new_prefix: Bytes,
    txn_ops_max: usize,
    copied: Arc<AtomicU64>,
}

impl Mirror {
    /// Copies everything and follows from there; or follows from `revision`, if that says more than "from the beginning".
    async fn run(&self, revision: i64) -> Result<(), Failure> {
        let next = if revision > 1 { revision } else { self.copy().await?.saturating_add(1) };
        self.follow(next).await
    }

    fn range(&self) -> KeyRange {
        let (key, end) = keys::prefix(&self.prefix);
        KeyRange::between(key, end)
    }

    /// Copies all keys as they are at one revision, which it returns.
    async fn copy(&self) -> Result<i64, Failure> {
        let (mut start, end) = self.range().into_parts();
        let mut revision = 0;
        loop {
            let page = Get::new(KeyRange::between(&start, &end)).limit(PAGE_KEYS).revision(revision);
            let answer = self.from.call(page.into_request()).await.map_err(|error| failed(&error))?;
            if revision == 0 {
                revision = answer.header.unwrap_or_default().revision;
            }
            for kv in &answer.kvs {
                let put = Put::new(self.renamed(&kv.key), &kv.value);
                self.to.call(put.into_request()).await.map_err(|error| failed(&error))?;
                self.copied.fetch_add(1, Ordering::Relaxed);
            }
            let Some(last) = answer.kvs.last().filter(|_| answer.more) else { return Ok(revision) };
            start = [&last.key[..], b"\0"].concat().into();
        }
    }

    /// Copies every change from `revision` on, those of one revision in one transaction where it can hold them.
    async fn follow(&self, revision: i64) -> Result<(), Failure> {
        let mut watch = self.from.watch(self.range()).revision(revision).await.map_err(|error| ended(&error))?;
        loop {
            let answer = watch.next().await.map_err(|error| ended(&error))?;
            for batch in batches(&answer.events, self.txn_ops_max) {
                let mut txn = self.to.txn();
                for event in batch {
                    txn = txn.then(self.operation(event));
                }
                txn.await.map_err(|error| failed(&error))?;
                self.copied.fetch_add(batch.len() as u64, Ordering::Relaxed);
            }
        }
    }

    fn operation(&self, event: &Event) -> Op {
        let KeyValue { key, value, .. } = event.kv.clone().unwrap_or_default();
        let key = self.renamed(&key);
        match event.r#type() {
            EventType::Put => Put::new(key, value).into(),
            EventType::Delete => Delete::new(key).into(),
        }
    }

    fn renamed(&self, key: &[u8]) -> Bytes {
        let rest = key.strip_prefix(&self.prefix[..]).unwrap_or(key);
        [&self.new_prefix[..], rest].concat().into()
    }
}

/// Runs of events of one revision, none longer than a transaction may be.
fn batches(events: &[Event], ops_max: usize) -> impl Iterator<Item = &[Event]> {
    let revision = |event: &Event| event.kv.as_ref().map_or(0, |kv| kv.mod_revision);
    events.chunk_by(move |one, next| revision(one) == revision(next)).flat_map(move |run| run.chunks(ops_max))
}

/// The failure that the end of the source's watch is.
fn ended(error: &WatchError) -> Failure {
    match error {
        WatchError::Failed(error) => Failure::error(error_text(error)),
        other => Failure::error(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_end_with_their_revision_or_when_they_are_full() {
        let event =
            |mod_revision| Event { kv: Some(KeyValue { mod_revision, ..Default::default() }), ..Default::default() };
        let events: Vec<_> = [2, 3, 3, 3, 4].into_iter().map(event).collect();
        let lengths: Vec<_> = batches(&events, 2).map(<[Event]>::len).collect();
        assert_eq!(lengths, [1, 2, 1, 1]);
    }
}

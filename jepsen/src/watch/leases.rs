//! Somebody whose keys hang on leases, which it revokes or lets run out. Nobody else writes these keys, so it knows what the end of a lease deletes; at which
//! revision, the answer of a revoke says, and of a lease that ran out it is found by reads of the past.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    DeleteRangeRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
    kv_client::KvClient, lease_client::LeaseClient, request_op::Request,
};
use rand::{Rng, rngs::StdRng};
use tonic::{Code, transport::Channel};

use super::{World, checker::Change, pause};

/// Keys of each.
const KEYS: u32 = 4;
/// Seconds that a lease lives that is to run out: as few as there are.
const SHORT_TTL: i64 = 1;
/// Seconds that one lives that is to be revoked: longer than any run lets it be.
const LONG_TTL: i64 = 600;
/// How often is looked whether a lease has run out.
const POLL: Duration = Duration::from_millis(50);
/// How long one may take from its grant to its end.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the keys are that hang on leases: behind all others, and under the prefix that is watched. Each says in its value on which lease, in hexadecimal.
const PREFIX: &str = "k/leased/";

/// The lease that a key with this value hangs on; 0 for none.
pub(super) fn of(key: &[u8], value: &[u8]) -> i64 {
    let text = std::str::from_utf8(value).ok().filter(|_| key.starts_with(PREFIX.as_bytes()));
    text.and_then(|text| i64::from_str_radix(text, 16).ok()).unwrap_or(0)
}

/// Who grants and ends leases.
pub(super) struct Holder {
    world: Arc<World>,
    number: usize,
    kv: KvClient<Channel>,
    lease: LeaseClient<Channel>,
}

impl Holder {
    pub(super) fn new(world: Arc<World>, number: usize) -> Self {
        let channel = world.endpoint.connect_lazy();
        Self { world, number, kv: KvClient::new(channel.clone()), lease: LeaseClient::new(channel) }
    }

    /// Grants and ends leases until told to stop.
    pub(super) async fn run(mut self, mut random: StdRng) -> Result<()> {
        while !self.world.stopped() {
            pause(&mut random, Duration::from_millis(200)).await;
            let world = self.world.clone();
            let _going = world.gate.read().await;
            match tokio::time::timeout(PATIENCE, self.episode(&mut random)).await {
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(error)) if error.is::<tonic::Status>() => {}
                Ok(Err(error)) => return Err(error),
            }
        }
        Ok(())
    }

    /// One lease from its grant to its end.
    async fn episode(&mut self, random: &mut StdRng) -> Result<()> {
        self.clear().await?;
        let (ttl, runs_out) = if random.random() { (SHORT_TTL, true) } else { (LONG_TTL, false) };
        let id = self.lease.lease_grant(LeaseGrantRequest { id: 0, ttl }).await?.into_inner().id;
        let attached: Vec<Bytes> = (0..random.random_range(1..=KEYS)).map(|key| self.key(key)).collect();
        let value = Bytes::from(format!("{id:x}"));
        let put =
            |key: &Bytes| PutRequest { key: key.clone(), value: value.clone(), lease: id, ..PutRequest::default() };
        let success = attached.iter().map(|key| RequestOp { request: Some(Request::RequestPut(put(key))) }).collect();
        let done = self.kv.txn(TxnRequest { success, ..TxnRequest::default() }).await?.into_inner();
        let written = done.header.unwrap_or_default().revision;
        self.learn(written, attached.iter().map(|key| Change::put(key.clone(), value.clone())).collect())?;
        let revision = if runs_out {
            self.end_of(&attached, written).await?
        } else {
            pause(random, Duration::from_millis(300)).await;
            self.lease.lease_revoke(LeaseRevokeRequest { id }).await?.into_inner().header.unwrap_or_default().revision
        };
        self.learn(revision, attached.into_iter().map(Change::delete).collect())?;
        let ended = if runs_out { &self.world.leases_expired } else { &self.world.leases_revoked };
        ended.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Deletes what an episode left that a kill interrupted, before its lease runs out at a revision that nobody knows.
    async fn clear(&mut self) -> Result<()> {
        let request = DeleteRangeRequest { key: self.key(0), range_end: self.key(KEYS), prev_kv: true };
        let done = self.kv.delete_range(request).await?.into_inner();
        let changes: Vec<_> = done.prev_kvs.into_iter().map(|kv| Change::delete(kv.key)).collect();
        if changes.is_empty() { Ok(()) } else { self.learn(done.header.unwrap_or_default().revision, changes) }
    }

    fn key(&self, key: u32) -> Bytes {
        format!("{PREFIX}{}/{key}", self.number).into()
    }

    fn learn(&self, revision: i64, changes: Vec<Change>) -> Result<()> {
        let mut history = self.world.history();
        ensure!(!history.knows(revision), "revision {revision} was made twice");
        history.learn(revision, changes);
        Ok(())
    }

    /// Waits until keys that were written at a revision are gone: the revision at which they went.
    async fn end_of(&mut self, keys: &[Bytes], written: i64) -> Result<i64> {
        let first = keys.first().context("a lease without keys")?;
        let gone = loop {
            let found =
                self.kv.range(RangeRequest { key: first.clone(), ..RangeRequest::default() }).await?.into_inner();
            if found.kvs.is_empty() {
                break found.header.unwrap_or_default().revision;
            }
            tokio::time::sleep(POLL).await;
        };
        // There at the first, gone at the second.
        let (mut there, mut gone) = (written, gone);
        while gone - there > 1 {
            let middle = there + (gone - there) / 2;
            let request = RangeRequest { key: first.clone(), revision: middle, ..RangeRequest::default() };
            match self.kv.range(request).await {
                Ok(found) if found.get_ref().kvs.is_empty() => gone = middle,
                Ok(_) => there = middle,
                // Nothing is compacted that is not known, so the end comes later.
                Err(status) if status.code() == Code::OutOfRange => there = middle,
                Err(status) => return Err(status.into()),
            }
        }
        Ok(gone)
    }
}

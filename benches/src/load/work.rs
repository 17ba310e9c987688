//! What a client sends.

use std::{
    collections::HashMap,
    io::Write as _,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    Compare, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    kv_client::KvClient,
    request_op, response_op,
};
use rand::{Rng, RngCore, SeedableRng, rngs::SmallRng};

use super::{
    connection::Connection,
    lease::Leases,
    options::{Consistency, Options, Work},
    watchers::Audience,
};

/// Seconds that an event and a lease of a control plane live.
const CONTROL_PLANE_TTL: i64 = 60;

/// Makes the keys and values of one client.
pub struct Keys {
    prefix: Vec<u8>,
    digits: usize,
    space: u64,
    sequential: bool,
    next: u64,
    step: u64,
    value: Bytes,
    random: SmallRng,
}

impl Keys {
    /// Of client `number` out of `clients`.
    pub fn new(options: &Options, number: u64, clients: u64) -> Result<Self> {
        let is_watched = options.watchers().is_some();
        if is_watched && options.value_size < 8 {
            bail!("--value-size {} is too small for the eight bytes that say when a put was due", options.value_size);
        }
        let digits = options.key_size.checked_sub(options.prefix.len()).filter(|digits| *digits >= 1);
        let digits = digits
            .with_context(|| format!("--key-size {} leaves no room behind {:?}", options.key_size, options.prefix))?;
        if digits < 20 && options.key_space > 10u64.pow(digits as u32) {
            bail!("--key-space {} does not fit into {digits} digits", options.key_space);
        }
        let mut random = SmallRng::seed_from_u64(options.seed.wrapping_mul(1_000_003).wrapping_add(number));
        let mut value = vec![0; options.value_size];
        random.fill_bytes(&mut value);
        Ok(Self {
            prefix: options.prefix.clone().into_bytes(),
            digits,
            space: options.key_space.max(1),
            sequential: options.sequential,
            next: number,
            step: clients.max(1),
            value: value.into(),
            random,
        })
    }

    /// The number of the next key.
    fn index(&mut self) -> u64 {
        if !self.sequential {
            return self.random.random_range(0..self.space);
        }
        let index = self.next % self.space;
        self.next += self.step;
        index
    }

    /// The key with this number.
    pub fn key(&self, index: u64) -> Bytes {
        let mut key = Vec::with_capacity(self.prefix.len() + self.digits);
        key.extend_from_slice(&self.prefix);
        write!(key, "{index:0width$}", width = self.digits).expect("a vector takes every write");
        key.into()
    }

    /// The first key of the range with all keys.
    pub fn start(&self) -> Bytes {
        self.prefix.clone().into()
    }

    /// The range end behind all keys.
    pub fn end(&self) -> Bytes {
        let mut end = self.prefix.clone();
        match end.last_mut() {
            Some(last) => *last = last.saturating_add(1),
            None => end.push(0),
        }
        end.into()
    }

    /// The value.
    pub fn value(&self) -> Bytes {
        self.value.clone()
    }

    /// The value with a stamp in its first eight bytes.
    fn stamped(&self, stamp: u64) -> Bytes {
        let mut value = self.value.to_vec();
        value[..8].copy_from_slice(&stamp.to_be_bytes());
        value.into()
    }

    /// A number below `bound`.
    fn below(&mut self, bound: u32) -> u32 {
        self.random.random_range(0..bound)
    }
}

/// One client: a connection, its keys and what it remembers.
pub struct Client {
    kv: KvClient<Connection>,
    keys: Keys,
    leases: Leases,
    work: Work,
    timeout: Duration,
    /// Who gets what is put, if anybody watches.
    audience: Option<Arc<Audience>>,
    /// Of keys this client wrote by transactions: the revision last seen.
    revisions: HashMap<u64, i64>,
}

impl Client {
    /// A client on `connection`.
    pub fn new(
        options: &Options,
        connection: Connection,
        number: u64,
        audience: Option<Arc<Audience>>,
    ) -> Result<Self> {
        let ttl = match options.work {
            Work::LeaseKeepalive { ttl, .. } | Work::LeaseChurn { ttl, .. } => ttl,
            _ => CONTROL_PLANE_TTL,
        };
        Ok(Self {
            leases: Leases::new(connection.clone(), ttl),
            audience,
            kv: KvClient::new(connection).max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX),
            keys: Keys::new(options, number, options.clients as u64)?,
            work: options.work.clone(),
            timeout: options.timeout(),
            revisions: HashMap::new(),
        })
    }

    /// Writes every key of the space that is this client's share.
    pub async fn fill(&mut self, number: u64, clients: u64, space: u64) -> Result<()> {
        for index in (number..space).step_by(clients as usize) {
            self.kv
                .put(PutRequest { key: self.keys.key(index), value: self.keys.value(), ..Default::default() })
                .await?;
        }
        Ok(())
    }

    /// Grants this client's share of `count` leases and puts a key with each.
    pub async fn grant(&mut self, number: u64, clients: u64, count: u64) -> Result<()> {
        for index in (number..count).step_by(clients as usize) {
            let lease = self.leases.grant().await?;
            self.leases.attach(expiring(&self.keys.key(index)), self.keys.value(), lease).await?;
        }
        Ok(())
    }

    /// Revokes the lease that this client has begun with and not come to the end of.
    pub async fn end_churn(&mut self) -> Result<()> {
        Ok(self.leases.end_churn().await?)
    }

    /// Sends one request, which was due at that moment, and waits for its answer. Returns what kind it was.
    pub async fn send(&mut self, due: Instant) -> Result<&'static str, tonic::Status> {
        match tokio::time::timeout(self.timeout, self.send_now(due)).await {
            Ok(answer) => answer,
            Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
        }
    }

    async fn send_now(&mut self, due: Instant) -> Result<&'static str, tonic::Status> {
        let index = self.keys.index();
        let key = self.keys.key(index);
        match self.work {
            Work::Range { consistency, limit, .. } => {
                let serializable = consistency == Consistency::S;
                if self.range(key, limit, serializable).await? == 0 {
                    return Err(tonic::Status::not_found("the key space is not filled: use --fill"));
                }
                Ok("range")
            }
            Work::Txn => self.compare_and_put(index, key, due).await,
            Work::LeaseKeepalive { stream_a_call, .. } => {
                self.leases.keep_alive(stream_a_call).await?;
                Ok("keep-alive")
            }
            Work::LeaseChurn { expire: 0, .. } => self.leases.churn(leased(&key), self.keys.value()).await,
            Work::Put | Work::Watch { .. } | Work::WatchLatency | Work::LeaseChurn { .. } => {
                self.put(index, key, due).await
            }
            Work::ControlPlane { page, .. } => match self.keys.below(100) {
                0..55 => self.compare_and_put(index, key, due).await,
                55..75 => self.range(key, 1, false).await.map(|_| "get"),
                75..80 => self.range(key, page, false).await.map(|_| "list"),
                80..95 => {
                    self.leases.put_event(leased(&key), self.keys.value()).await?;
                    Ok("event")
                }
                _ => {
                    self.leases.keep_alive(false).await?;
                    Ok("keep-alive")
                }
            },
            Work::Compare(_) => Err(tonic::Status::internal("this is no load of its own")),
            // Has its own way.
            Work::Keyspace(_) | Work::LeaseHold(_) => Ok("nothing"),
        }
    }

    /// The value of a put: with the moment it was due, where somebody watches.
    fn value(&self, due: Instant) -> Bytes {
        match &self.audience {
            Some(audience) => self.keys.stamped(audience.stamp(due)),
            None => self.keys.value(),
        }
    }

    async fn put(&mut self, index: u64, key: Bytes, due: Instant) -> Result<&'static str, tonic::Status> {
        self.kv.put(PutRequest { key, value: self.value(due), ..Default::default() }).await?;
        self.note_put(index);
        Ok("put")
    }

    fn note_put(&self, index: u64) {
        if let Some(audience) = &self.audience {
            audience.expect(index);
        }
    }

    /// Reads a key, or `limit` from it on, and returns how many there were.
    async fn range(&mut self, key: Bytes, limit: i64, serializable: bool) -> Result<usize, tonic::Status> {
        let range_end = if limit == 1 { Bytes::new() } else { self.keys.end() };
        let request = RangeRequest { key, range_end, limit, serializable, ..Default::default() };
        Ok(self.kv.range(request).await?.into_inner().kvs.len())
    }

    /// Creates the key if it is absent, else updates it at the revision last seen; a lost race only teaches the new revision.
    async fn compare_and_put(&mut self, index: u64, key: Bytes, due: Instant) -> Result<&'static str, tonic::Status> {
        let seen = self.revisions.get(&index).copied().unwrap_or(0);
        let put = PutRequest { key: key.clone(), value: self.value(due), ..Default::default() };
        let get = RangeRequest { key: key.clone(), ..Default::default() };
        let txn = TxnRequest {
            compare: vec![Compare {
                key,
                target: CompareTarget::Mod as i32,
                result: CompareResult::Equal as i32,
                target_union: Some(TargetUnion::ModRevision(seen)),
                ..Default::default()
            }],
            success: vec![RequestOp { request: Some(request_op::Request::RequestPut(put)) }],
            failure: vec![RequestOp { request: Some(request_op::Request::RequestRange(get)) }],
        };
        let answer = self.kv.txn(txn).await?.into_inner();
        let revision = if answer.succeeded {
            self.note_put(index);
            answer.header.map_or(0, |header| header.revision)
        } else {
            match answer.responses.into_iter().next().and_then(|op| op.response) {
                Some(response_op::Response::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| kv.mod_revision),
                _ => 0,
            }
        };
        self.revisions.insert(index, revision);
        Ok("update")
    }
}

/// The key beside another one that holds what has a lease: nobody watches it.
fn leased(key: &[u8]) -> Bytes {
    [b"leased", key].concat().into()
}

/// The key beside another one that goes with a lease that expires during the run.
pub fn expiring(key: &[u8]) -> Bytes {
    [&b"expiring"[..], key].concat().into()
}

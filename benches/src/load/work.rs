//! What a client sends.

use std::{collections::HashMap, io::Write as _, time::Duration};

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
    options::{Consistency, Options, Work},
};

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
}

/// One client: a connection, its keys and what it remembers.
pub struct Client {
    kv: KvClient<Connection>,
    keys: Keys,
    work: Work,
    timeout: Duration,
    /// Of keys this client wrote by transactions: the revision last seen.
    revisions: HashMap<u64, i64>,
}

impl Client {
    /// A client on `connection`.
    pub fn new(options: &Options, connection: Connection, number: u64) -> Result<Self> {
        Ok(Self {
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

    /// Sends one request and waits for its answer.
    pub async fn send(&mut self) -> Result<(), tonic::Status> {
        match tokio::time::timeout(self.timeout, self.send_now()).await {
            Ok(answer) => answer,
            Err(_) => Err(tonic::Status::deadline_exceeded("no answer in time")),
        }
    }

    async fn send_now(&mut self) -> Result<(), tonic::Status> {
        let index = self.keys.index();
        let key = self.keys.key(index);
        match self.work {
            Work::Put => {
                self.kv.put(PutRequest { key, value: self.keys.value(), ..Default::default() }).await?;
            }
            Work::Range { consistency, limit, .. } => {
                let range_end = if limit == 1 { Bytes::new() } else { self.keys.end() };
                let serializable = consistency == Consistency::S;
                let request = RangeRequest { key, range_end, limit, serializable, ..Default::default() };
                let answer = self.kv.range(request).await?.into_inner();
                if answer.kvs.is_empty() {
                    return Err(tonic::Status::not_found("the key space is not filled: use --fill"));
                }
            }
            Work::Txn => self.compare_and_put(index, key).await?,
        }
        Ok(())
    }

    /// Creates the key if it is absent, else updates it at the revision last seen; a lost race only teaches the new revision.
    async fn compare_and_put(&mut self, index: u64, key: Bytes) -> Result<(), tonic::Status> {
        let seen = self.revisions.get(&index).copied().unwrap_or(0);
        let put = PutRequest { key: key.clone(), value: self.keys.value(), ..Default::default() };
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
            answer.header.map_or(0, |header| header.revision)
        } else {
            match answer.responses.into_iter().next().and_then(|op| op.response) {
                Some(response_op::Response::ResponseRange(range)) => range.kvs.first().map_or(0, |kv| kv.mod_revision),
                _ => 0,
            }
        };
        self.revisions.insert(index, revision);
        Ok(())
    }
}

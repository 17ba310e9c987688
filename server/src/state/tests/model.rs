//! A naive model of the keys: every revision keeps a whole copy of them. Slow, and hard to get wrong.

use std::collections::BTreeMap;

use cairn_proto::etcdserverpb::{
    compare::{CompareResult, CompareTarget, TargetUnion},
    range_request::{SortOrder, SortTarget},
};
use pb::{request_op, response_op};

use super::*;

type Keys = BTreeMap<Bytes, KeyValue>;

/// One change: main, sub, the key and its new value, or none for a delete.
#[derive(Debug, Clone)]
struct Change {
    main: i64,
    sub: u64,
    key: Bytes,
    put: Option<KeyValue>,
}

#[derive(Debug, Clone)]
pub(super) struct Model {
    /// The keys after each revision, from revision 1.
    history: Vec<Keys>,
    changes: Vec<Change>,
    pub(super) compacted: i64,
    /// Compactions: revision, and the compacted revision before.
    compactions: Vec<(i64, i64)>,
}

fn within(key: &Bytes, range_end: &Bytes, candidate: &Bytes) -> bool {
    match &range_end[..] {
        [] => candidate == key,
        [0] => candidate >= key,
        _ => candidate >= key && candidate < range_end,
    }
}

impl Model {
    pub(super) fn new() -> Self {
        Self { history: vec![Keys::new()], changes: Vec::new(), compacted: -1, compactions: Vec::new() }
    }

    pub(super) fn revision(&self) -> i64 {
        self.history.len() as i64
    }

    fn at(&self, revision: i64) -> &Keys {
        &self.history[revision as usize - 1]
    }

    pub(super) fn range(&self, request: &pb::RangeRequest) -> Result<pb::RangeResponse, ApiError> {
        let revision = if request.revision <= 0 { self.revision() } else { request.revision };
        if revision > self.revision() {
            return Err(ApiError::FutureRevision);
        }
        if revision < self.compacted {
            return Err(ApiError::Compacted);
        }
        Ok(Self::range_of(self.at(revision), self.revision(), request))
    }

    pub(super) fn range_of(keys: &Keys, header_revision: i64, request: &pb::RangeRequest) -> pb::RangeResponse {
        let all: Vec<_> =
            keys.values().filter(|kv| within(&request.key, &request.range_end, &kv.key)).cloned().collect();
        let count = all.len() as i64;
        let bounded =
            |min: i64, max: i64, revision: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
        let filtered = request.min_mod_revision != 0
            || request.max_mod_revision != 0
            || request.min_create_revision != 0
            || request.max_create_revision != 0;
        let mut kvs: Vec<_> = all
            .into_iter()
            .filter(|kv| bounded(request.min_mod_revision, request.max_mod_revision, kv.mod_revision))
            .filter(|kv| bounded(request.min_create_revision, request.max_create_revision, kv.create_revision))
            .collect();
        let (order, target) = (request.sort_order(), request.sort_target());
        if order == SortOrder::None && !filtered && request.limit > 0 {
            kvs.truncate(request.limit as usize + 1);
        }
        match target {
            SortTarget::Key => {}
            SortTarget::Version => kvs.sort_by_key(|kv| kv.version),
            SortTarget::Create => kvs.sort_by_key(|kv| kv.create_revision),
            SortTarget::Mod => kvs.sort_by_key(|kv| kv.mod_revision),
            SortTarget::Value => kvs.sort_by_key(|kv| kv.value.clone()),
        }
        if order == SortOrder::Descend {
            // Equal ones stay in key order.
            let rank = |kv: &KeyValue| match target {
                SortTarget::Key => kv.key.clone(),
                SortTarget::Version => Bytes::copy_from_slice(&kv.version.to_be_bytes()),
                SortTarget::Create => Bytes::copy_from_slice(&kv.create_revision.to_be_bytes()),
                SortTarget::Mod => Bytes::copy_from_slice(&kv.mod_revision.to_be_bytes()),
                SortTarget::Value => kv.value.clone(),
            };
            kvs.sort_by_key(|kv| std::cmp::Reverse(rank(kv)));
        }
        let more = request.limit > 0 && kvs.len() as i64 > request.limit;
        if more {
            kvs.truncate(request.limit as usize);
        }
        if request.keys_only {
            for kv in &mut kvs {
                kv.value.clear();
                if target != SortTarget::Value {
                    kv.lease = 0;
                }
            }
        }
        if request.count_only {
            kvs.clear();
        }
        pb::RangeResponse { header: header(header_revision), kvs, more: more && !request.count_only, count }
    }

    pub(super) fn compact(&mut self, revision: i64) -> Result<(), ApiError> {
        if revision <= self.compacted {
            return Err(ApiError::Compacted);
        }
        if revision > self.revision() {
            return Err(ApiError::FutureRevision);
        }
        self.compactions.push((revision, self.compacted));
        self.compacted = revision;
        Ok(())
    }

    /// Runs a put, a delete or a txn as one operation of an enclosing txn.
    pub(super) fn run(&mut self, op: &request_op::Request) -> Result<(i64, response_op::Response), ApiError> {
        let mut running = Running {
            begin: self.at(self.revision()).clone(),
            keys: self.at(self.revision()).clone(),
            model: self,
            changes: Vec::new(),
        };
        running.check(op)?;
        let response = running.run(op)?;
        let (changes, keys) = (running.changes, running.keys);
        if !changes.is_empty() {
            self.history.push(keys);
            self.changes.extend(changes);
        }
        Ok((self.revision(), response))
    }

    /// HashKV, by the book: over all changes ever made, from the definition.
    pub(super) fn hash_kv(&self, revision: i64) -> Result<(u32, i64, i64), ApiError> {
        let newest_ten = self.compactions.iter().rev().take(10);
        if let Some((at, previous)) = newest_ten.clone().find(|(at, _)| *at == revision) {
            return Ok((self.hash(*at, *previous, true), *previous, *at));
        }
        if revision > self.revision() {
            return Err(ApiError::FutureRevision);
        }
        if revision > 0 && revision < self.compacted {
            return Err(ApiError::Compacted);
        }
        let at = if revision == 0 { self.revision() } else { revision };
        Ok((self.hash(at, self.compacted, false), self.compacted, at))
    }

    /// Revision, compacted revision before, and hash of the newest ten compactions, the newest first.
    pub(super) fn compaction_hashes(&self) -> Vec<(i64, i64, u32)> {
        let newest_ten = self.compactions.iter().rev().take(10);
        newest_ten.map(|(at, previous)| (*at, *previous, self.hash(*at, *previous, true))).collect()
    }

    pub(super) fn hash(&self, at: i64, compacted: i64, for_compaction: bool) -> u32 {
        let living = |main: i64| {
            let mut newest = BTreeMap::new();
            for change in self.changes.iter().filter(|change| change.main <= main) {
                newest.insert(change.key.clone(), change.clone());
            }
            newest
        };
        let newest = living(at);
        let kept = |change: &Change| change.put.is_some() || (for_compaction && change.main == at);
        let empty = !newest.values().any(kept);
        let keep = if empty { living(compacted) } else { newest };
        let mut crc = crc32c::crc32c(b"key");
        for change in self.changes.iter().filter(|change| change.main <= at) {
            if change.main <= compacted {
                let newest =
                    keep.get(&change.key).is_some_and(|kept| (kept.main, kept.sub) == (change.main, change.sub));
                // What came after a tombstone in the compacted revision itself is not superseded by what came later in it.
                let beside = |other: &&Change| {
                    (&other.key, other.main) == (&change.key, compacted)
                        && other.put.is_none()
                        && other.sub < change.sub
                };
                let survives =
                    newest || (empty && change.main == compacted && self.changes.iter().any(|other| beside(&other)));
                if change.put.is_none() || !survives {
                    continue;
                }
            }
            crc = crc32c::crc32c_append(crc, &change.main.to_be_bytes());
            crc = crc32c::crc32c_append(crc, b"_");
            crc = crc32c::crc32c_append(crc, &change.sub.to_be_bytes());
            let stored = if let Some(kv) = &change.put {
                kv.encode_to_vec()
            } else {
                crc = crc32c::crc32c_append(crc, b"t");
                KeyValue { key: change.key.clone(), ..Default::default() }.encode_to_vec()
            };
            crc = crc32c::crc32c_append(crc, &stored);
        }
        crc
    }
}

/// A command being run.
struct Running<'a> {
    model: &'a Model,
    begin: Keys,
    keys: Keys,
    changes: Vec<Change>,
}

impl Running<'_> {
    fn compares_hold(&self, compares: &[pb::Compare]) -> bool {
        compares.iter().all(|compare| {
            let seen: Vec<_> =
                self.begin.values().filter(|kv| within(&compare.key, &compare.range_end, &kv.key)).cloned().collect();
            if seen.is_empty() {
                return compare.target() != CompareTarget::Value && compare_one(compare, &KeyValue::default());
            }
            seen.iter().all(|kv| compare_one(compare, kv))
        })
    }

    fn branch<'t>(&self, txn: &'t pb::TxnRequest) -> (bool, &'t [pb::RequestOp]) {
        if self.compares_hold(&txn.compare) { (true, &txn.success) } else { (false, &txn.failure) }
    }

    fn check(&self, op: &request_op::Request) -> Result<(), ApiError> {
        match op {
            request_op::Request::RequestRange(range) if range.revision > self.model.revision() => {
                Err(ApiError::FutureRevision)
            }
            request_op::Request::RequestRange(range)
                if range.revision != 0 && range.revision < self.model.compacted =>
            {
                Err(ApiError::Compacted)
            }
            request_op::Request::RequestPut(put) => {
                if put.lease != 0 {
                    return Err(ApiError::LeaseNotFound);
                }
                if (put.ignore_value || put.ignore_lease) && !self.begin.contains_key(&put.key) {
                    return Err(ApiError::KeyNotFound);
                }
                Ok(())
            }
            request_op::Request::RequestTxn(txn) => self
                .branch(txn)
                .1
                .iter()
                .try_for_each(|op| op.request.as_ref().map_or(Err(ApiError::KeyNotFound), |op| self.check(op))),
            _ => Ok(()),
        }
    }

    fn change(&mut self, key: &Bytes, put: Option<KeyValue>) {
        match &put {
            Some(kv) => self.keys.insert(key.clone(), kv.clone()),
            None => self.keys.remove(key),
        };
        let (main, sub) = (self.model.revision() + 1, self.changes.len() as u64);
        self.changes.push(Change { main, sub, key: key.clone(), put });
    }

    fn header_revision(&self) -> i64 {
        self.model.revision() + i64::from(!self.changes.is_empty())
    }

    fn run(&mut self, op: &request_op::Request) -> Result<response_op::Response, ApiError> {
        Ok(match op {
            request_op::Request::RequestRange(range) => {
                let keys = if range.revision > 0 { self.model.at(range.revision) } else { &self.keys };
                response_op::Response::ResponseRange(Model::range_of(keys, self.header_revision(), range))
            }
            request_op::Request::RequestPut(put) => {
                let main = self.model.revision() + 1;
                let previous = self.keys.get(&put.key).cloned();
                if (put.ignore_value || put.ignore_lease) && previous.is_none() {
                    return Err(ApiError::KeyNotFound);
                }
                let value = if put.ignore_value { previous.clone().unwrap().value } else { put.value.clone() };
                let (create_revision, version) =
                    previous.as_ref().map_or((main, 1), |kv| (kv.create_revision, kv.version + 1));
                let kv =
                    KeyValue { key: put.key.clone(), value, create_revision, mod_revision: main, version, lease: 0 };
                self.change(&put.key, Some(kv));
                let prev_kv = if put.prev_kv { previous } else { None };
                response_op::Response::ResponsePut(pb::PutResponse { header: header(main), prev_kv })
            }
            request_op::Request::RequestDeleteRange(delete) => {
                let gone: Vec<_> =
                    self.keys.values().filter(|kv| within(&delete.key, &delete.range_end, &kv.key)).cloned().collect();
                for kv in &gone {
                    self.change(&kv.key, None);
                }
                let deleted = gone.len() as i64;
                let prev_kvs = if delete.prev_kv { gone } else { Vec::new() };
                response_op::Response::ResponseDeleteRange(pb::DeleteRangeResponse {
                    header: header(self.header_revision()),
                    deleted,
                    prev_kvs,
                })
            }
            request_op::Request::RequestTxn(txn) => {
                let (succeeded, ops) = self.branch(txn);
                let mut responses = Vec::new();
                for op in ops {
                    responses.push(pb::ResponseOp { response: Some(self.run(op.request.as_ref().unwrap())?) });
                }
                response_op::Response::ResponseTxn(pb::TxnResponse {
                    header: Some(pb::ResponseHeader::default()),
                    succeeded,
                    responses,
                })
            }
        })
    }
}

fn compare_one(compare: &pb::Compare, kv: &KeyValue) -> bool {
    let number = match compare.target_union {
        Some(
            TargetUnion::Version(n)
            | TargetUnion::CreateRevision(n)
            | TargetUnion::ModRevision(n)
            | TargetUnion::Lease(n),
        ) => n,
        _ => 0,
    };
    let value = if let Some(TargetUnion::Value(value)) = &compare.target_union { value.clone() } else { Bytes::new() };
    let ordering = match compare.target() {
        CompareTarget::Version => kv.version.cmp(&number),
        CompareTarget::Create => kv.create_revision.cmp(&number),
        CompareTarget::Mod => kv.mod_revision.cmp(&number),
        CompareTarget::Lease => kv.lease.cmp(&number),
        CompareTarget::Value => kv.value.cmp(&value),
    };
    match compare.result() {
        CompareResult::Equal => ordering.is_eq(),
        CompareResult::NotEqual => ordering.is_ne(),
        CompareResult::Greater => ordering.is_gt(),
        CompareResult::Less => ordering.is_lt(),
    }
}

//! Random sequences of requests, made to collide.

use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCancelRequest, WatchCreateRequest,
    WatchProgressRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    range_request::{SortOrder, SortTarget},
    request_op,
    watch_request::RequestUnion,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};

use super::users::{AuthStep, Caller};

/// Revisions from here up are symbolic: `SYMBOLIC + d` means the newest revision plus `d`, which may be negative.
const SYMBOLIC: i64 = 1 << 41;
/// Symbolic distances stay below this.
const SYMBOLIC_REACH: i64 = 1 << 40;

/// The hot keys; few, so that requests meet.
const KEYS: [&[u8]; 16] = [
    b"a",
    b"a/1",
    b"a/2",
    b"a/3",
    b"a0",
    b"b",
    b"b/1",
    b"b\x00",
    b"c",
    b"z",
    b"z/",
    b"z/1",
    b"\x01",
    b"\xff",
    b"\xff\xff",
    b"/registry/pods/x",
];

/// The leases that requests name: few, so that they meet. They live long: when one runs out differs between two servers.
pub(super) const LEASES: [i64; 4] = [1, 2, -3, i64::MAX];

/// The numbers that clients choose for watches, some of them also drawn by servers.
const WATCHES: [i64; 7] = [1, 2, 3, 4, -1, i64::MIN, i64::MAX];
/// Every so-manieth sequence has watches: a genuine server takes its time to tell what they missed.
const WATCHED_EVERY: u64 = 5;

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// KV.Put
    Put(PutRequest),
    /// KV.Range
    Range(RangeRequest),
    /// KV.DeleteRange
    DeleteRange(DeleteRangeRequest),
    /// KV.Txn
    Txn(TxnRequest),
    /// KV.Compact
    Compact(CompactionRequest),
    /// Lease.LeaseGrant
    Grant(LeaseGrantRequest),
    /// Lease.LeaseRevoke
    Revoke(LeaseRevokeRequest),
    /// Lease.LeaseTimeToLive
    TimeToLive(LeaseTimeToLiveRequest),
    /// Lease.LeaseKeepAlive, with one request
    KeepAlive(LeaseKeepAliveRequest),
    /// Lease.LeaseLeases
    Leases,
    /// Watch.Watch, a request on one of the sequence's streams
    Watch(usize, RequestUnion),
    /// One of the Auth service
    Auth(AuthStep),
    /// Any of the others but Watch, sent by this caller
    As(Caller, Box<Step>),
}

/// Requests to be sent one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequence {
    /// In this order.
    pub steps: Vec<Step>,
}

impl Sequence {
    /// The sequence of a seed, with users and permissions or with watches.
    pub fn generate(seed: u64, steps: usize, users: bool) -> Self {
        let mut random = Random(StdRng::seed_from_u64(seed));
        if users {
            let mut steps_of_users = random.user_prologue();
            steps_of_users.extend((0..steps).map(|_| random.user_step()));
            return Self { steps: steps_of_users };
        }
        let watched = seed.is_multiple_of(WATCHED_EVERY);
        let mut step = || if watched && random.chance(14) { random.watch_step() } else { random.step() };
        Self { steps: (0..steps).map(|_| step()).collect() }
    }
}

impl Step {
    /// This step with symbolic revisions replaced, where `newest` is the newest revision.
    #[must_use]
    pub fn resolved(&self, newest: i64) -> Self {
        let mut step = self.clone();
        match &mut step {
            Self::Put(_)
            | Self::DeleteRange(_)
            | Self::Grant(_)
            | Self::Revoke(_)
            | Self::TimeToLive(_)
            | Self::KeepAlive(_)
            | Self::Leases
            | Self::Auth(_)
            | Self::Watch(_, RequestUnion::CancelRequest(_) | RequestUnion::ProgressRequest(_)) => {}
            Self::As(_, inner) => **inner = inner.resolved(newest),
            Self::Range(range) => resolve_range(range, newest),
            Self::Txn(txn) => resolve_txn(txn, newest),
            Self::Compact(compact) => resolve(&mut compact.revision, newest),
            Self::Watch(_, RequestUnion::CreateRequest(create)) => resolve(&mut create.start_revision, newest),
        }
        step
    }

    /// The request, whoever sends it.
    pub fn request(&self) -> &Self {
        if let Self::As(_, inner) = self { inner } else { self }
    }
}

fn resolve(revision: &mut i64, newest: i64) {
    if (*revision - SYMBOLIC).abs() < SYMBOLIC_REACH {
        *revision = newest + (*revision - SYMBOLIC);
    }
}

fn resolve_range(range: &mut RangeRequest, newest: i64) {
    for revision in [
        &mut range.revision,
        &mut range.min_mod_revision,
        &mut range.max_mod_revision,
        &mut range.min_create_revision,
        &mut range.max_create_revision,
    ] {
        resolve(revision, newest);
    }
}

fn resolve_txn(txn: &mut TxnRequest, newest: i64) {
    for compare in &mut txn.compare {
        if let Some(TargetUnion::ModRevision(revision) | TargetUnion::CreateRevision(revision)) =
            &mut compare.target_union
        {
            resolve(revision, newest);
        }
    }
    for op in txn.success.iter_mut().chain(&mut txn.failure) {
        match &mut op.request {
            Some(request_op::Request::RequestRange(range)) => resolve_range(range, newest),
            Some(request_op::Request::RequestTxn(txn)) => resolve_txn(txn, newest),
            _ => {}
        }
    }
}

pub(super) struct Random(StdRng);

impl Random {
    pub(super) fn chance(&mut self, percent: u32) -> bool {
        self.0.random_range(0..100) < percent
    }

    pub(super) fn below(&mut self, n: usize) -> usize {
        self.0.random_range(0..n)
    }

    pub(super) fn step(&mut self) -> Step {
        match self.below(100) {
            0..26 => Step::Put(self.put()),
            26..50 => Step::Range(self.range()),
            50..59 => Step::DeleteRange(self.delete_range()),
            59..84 => Step::Txn(self.txn(0)),
            84..97 => self.lease_step(),
            _ => Step::Compact(self.compact()),
        }
    }

    /// A lease's id: one of a few, seldom none.
    fn lease(&mut self) -> i64 {
        LEASES[self.below(LEASES.len())]
    }

    fn lease_step(&mut self) -> Step {
        match self.below(10) {
            0..4 => {
                let ttl = [600, 9_000_000_000, 3_600, 9_000_000_001, i64::MAX][self.below(5)];
                let id = if self.chance(4) { 0 } else { self.lease() };
                Step::Grant(LeaseGrantRequest { id, ttl })
            }
            4 | 5 => Step::Revoke(LeaseRevokeRequest { id: self.lease() }),
            6 | 7 => Step::TimeToLive(LeaseTimeToLiveRequest { id: self.lease(), keys: self.chance(70) }),
            8 => Step::KeepAlive(LeaseKeepAliveRequest { id: self.lease() }),
            _ => Step::Leases,
        }
    }

    fn watch_step(&mut self) -> Step {
        let request = match self.below(10) {
            0..6 => RequestUnion::CreateRequest(self.watch()),
            6 | 7 => {
                // The first numbers that servers draw, one that nobody has, and those that clients choose.
                let drawn = [0, 1, 2, 77][self.below(4)];
                let watch_id = if self.chance(60) { drawn } else { WATCHES[self.below(WATCHES.len())] };
                RequestUnion::CancelRequest(WatchCancelRequest { watch_id })
            }
            _ => RequestUnion::ProgressRequest(WatchProgressRequest {}),
        };
        Step::Watch(usize::from(self.chance(40)), request)
    }

    fn watch(&mut self) -> WatchCreateRequest {
        let (key, range_end) = match self.below(10) {
            0..3 => ("\0".into(), "\0".into()),
            3 | 4 => ("a".into(), "c".into()),
            _ => self.span(),
        };
        let start_revision = match self.below(40) {
            0..14 => 0,
            14..26 => SYMBOLIC - self.below(25) as i64,
            26..33 => SYMBOLIC + 1 + self.below(6) as i64,
            33..35 => SYMBOLIC - 200,
            35 => 1,
            36 => i64::MAX,
            37 => -1 - self.below(5) as i64,
            _ => SYMBOLIC,
        };
        let filters: &[i32] = match self.below(12) {
            0 | 1 => &[0],
            2 | 3 => &[1],
            4 => [&[0, 1][..], &[1, 1], &[7]][self.below(3)],
            _ => &[],
        };
        let watch_id = if self.chance(40) { WATCHES[self.below(WATCHES.len())] } else { 0 };
        let (prev_kv, filters) = (self.chance(50), filters.to_vec());
        WatchCreateRequest { key, range_end, start_revision, filters, prev_kv, watch_id, ..Default::default() }
    }

    fn key(&mut self) -> Bytes {
        if self.chance(1) {
            return Bytes::new();
        }
        Bytes::from_static(KEYS.choose(&mut self.0).expect("there are keys"))
    }

    /// A key and a range end, often a sensible pair.
    pub(super) fn span(&mut self) -> (Bytes, Bytes) {
        let key = self.key();
        let end = match self.below(10) {
            0..5 => Bytes::new(),
            5 | 6 => {
                let mut end = key.to_vec();
                if let Some(last) = end.last_mut() {
                    *last = last.wrapping_add(1);
                }
                end.into()
            }
            7 => Bytes::from_static(b"\0"),
            _ => self.key(),
        };
        if self.chance(4) { (Bytes::from_static(b"\0"), Bytes::from_static(b"\0")) } else { (key, end) }
    }

    fn value(&mut self) -> Bytes {
        match self.below(8) {
            0 => Bytes::new(),
            1..6 => Bytes::from(format!("v{}", self.below(4))),
            _ => (0..self.below(60)).map(|_| self.0.random::<u8>()).collect(),
        }
    }

    fn revision(&mut self, elsewhere_percent: u32) -> i64 {
        if !self.chance(elsewhere_percent) {
            return 0;
        }
        match self.below(20) {
            0 => -1,
            1 => 1,
            2 | 3 => SYMBOLIC + 1 + self.below(3) as i64,
            4 => SYMBOLIC - 200,
            _ => SYMBOLIC - self.below(25) as i64,
        }
    }

    fn put(&mut self) -> PutRequest {
        let ignore_value = self.chance(8);
        let ignore_lease = self.chance(6);
        PutRequest {
            key: self.key(),
            value: if ignore_value && !self.chance(15) { Bytes::new() } else { self.value() },
            lease: if self.chance(20) { self.lease() } else { 0 },
            prev_kv: self.chance(40),
            ignore_value,
            ignore_lease,
        }
    }

    fn range(&mut self) -> RangeRequest {
        let (key, range_end) = self.span();
        let mut range = RangeRequest { key, range_end, revision: self.revision(45), ..Default::default() };
        if self.chance(35) {
            range.limit = self.below(6) as i64 - 1;
        }
        if self.chance(35) {
            range.sort_order = self.below(3) as i32;
            range.sort_target = self.below(5) as i32;
        }
        if self.chance(2) {
            range.sort_order = 7;
        }
        range.serializable = self.chance(25);
        range.keys_only = self.chance(15);
        range.count_only = self.chance(12);
        for filter in [
            &mut range.min_mod_revision,
            &mut range.max_mod_revision,
            &mut range.min_create_revision,
            &mut range.max_create_revision,
        ] {
            if self.chance(8) {
                *filter = SYMBOLIC - self.0.random_range(0..30);
            }
        }
        range
    }

    fn delete_range(&mut self) -> DeleteRangeRequest {
        let (key, range_end) = self.span();
        DeleteRangeRequest { key, range_end, prev_kv: self.chance(40) }
    }

    fn compact(&mut self) -> CompactionRequest {
        let revision = match self.below(10) {
            0 => 0,
            1 => SYMBOLIC + 1,
            2 => SYMBOLIC - 100,
            _ => SYMBOLIC - self.below(20) as i64,
        };
        CompactionRequest { revision, physical: self.chance(50) }
    }

    fn compare(&mut self) -> Compare {
        let target = [
            CompareTarget::Version,
            CompareTarget::Create,
            CompareTarget::Mod,
            CompareTarget::Value,
            CompareTarget::Lease,
        ][self.below(5)];
        let near = SYMBOLIC - self.below(12) as i64;
        let revision = if self.chance(25) { 0 } else { near };
        let union = match target {
            CompareTarget::Version => TargetUnion::Version(self.below(4) as i64),
            CompareTarget::Create => TargetUnion::CreateRevision(revision),
            CompareTarget::Mod => TargetUnion::ModRevision(revision),
            CompareTarget::Value => TargetUnion::Value(self.value()),
            CompareTarget::Lease => TargetUnion::Lease(if self.chance(50) { 0 } else { self.lease() }),
        };
        let (key, range_end) = if self.chance(30) { self.span() } else { (self.key(), Bytes::new()) };
        let result =
            [CompareResult::Equal, CompareResult::Greater, CompareResult::Less, CompareResult::NotEqual][self.below(4)];
        let target_union = (!self.chance(3)).then_some(union);
        Compare { result: result as i32, target: target as i32, key, range_end, target_union }
    }

    fn txn(&mut self, depth: usize) -> TxnRequest {
        let most = if self.chance(1) { 140 } else { 4 };
        let (compares, successes, failures) = (self.below(3), self.below(most), self.below(most));
        TxnRequest {
            compare: (0..compares).map(|_| self.compare()).collect(),
            success: (0..successes).map(|_| self.op(depth)).collect(),
            failure: (0..failures).map(|_| self.op(depth)).collect(),
        }
    }

    fn op(&mut self, depth: usize) -> RequestOp {
        let request = match self.below(100) {
            ..30 => {
                let mut range = self.range();
                // A genuine 3.5 takes any number for a sort option inside a transaction, and then the states part.
                range.sort_order = range.sort_order.min(SortOrder::Descend as i32);
                range.sort_target = range.sort_target.min(SortTarget::Value as i32);
                if !self.chance(25) {
                    // Most ranges inside a transaction read what it sees, or the transaction would rarely succeed.
                    range.revision = 0;
                }
                Some(request_op::Request::RequestRange(range))
            }
            30..47 => Some(request_op::Request::RequestDeleteRange(self.delete_range())),
            47..64 if depth < 2 => Some(request_op::Request::RequestTxn(self.txn(depth + 1))),
            64 => None,
            _ => Some(request_op::Request::RequestPut(self.put())),
        };
        RequestOp { request }
    }
}

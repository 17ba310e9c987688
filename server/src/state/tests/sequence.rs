//! Random sequences against the naive model: MVCC, compaction, crashes, pins and hashes in every order.

use pb::{compare::TargetUnion, request_op};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::{model::Model, *};
use crate::store::{RocksOptions, RocksStore};

/// One step. Revisions are relative to the newest one, so that most exist.
#[derive(Debug, Clone)]
pub(super) enum Step {
    Change(request_op::Request),
    Range(pb::RangeRequest),
    Compact { back: i64 },
    CompactionSteps(usize),
    Image,
    HashKv { back: Option<i64> },
    Hold { back: i64 },
    Release(usize),
    Crash,
}

const KEYS: &[&[u8]] = &[b"a", b"ab", b"b", b"b\0", b"c", b"\xff", b"d", b"/x/1", b"/x/2"];

const VALUES: &[&[u8]] = &[b"", b"1", b"22", b"333"];

fn key() -> impl Strategy<Value = Bytes> {
    select(KEYS).prop_map(Bytes::from_static)
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        4 => Just(Bytes::new()),
        2 => key(),
        1 => Just(Bytes::from_static(b"\0")),
    ]
}

fn put() -> impl Strategy<Value = pb::PutRequest> {
    (key(), select(VALUES), any::<bool>(), 0..8u8).prop_map(|(key, value, prev_kv, flags)| {
        let ignore_value = flags == 1;
        pb::PutRequest {
            key,
            value: if ignore_value { Bytes::new() } else { Bytes::from_static(value) },
            prev_kv,
            ignore_value,
            ignore_lease: flags == 2,
            lease: if flags == 3 { 77 } else { 0 },
        }
    })
}

fn delete() -> impl Strategy<Value = pb::DeleteRangeRequest> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| pb::DeleteRangeRequest {
        key,
        range_end,
        prev_kv,
    })
}

fn bound() -> impl Strategy<Value = i64> {
    prop_oneof![6 => Just(0), 1 => 1..20i64]
}

/// A range whose revision is still relative: 0 or less is so many revisions back, 1 the newest, more the future.
fn range() -> impl Strategy<Value = pb::RangeRequest> {
    let options = (-1..6i64, 0..3i32, 0..5i32, any::<bool>(), 0..6u8);
    let revision = prop_oneof![3 => Just(1), 3 => -20..1i64, 1 => 2..4i64];
    (key(), range_end(), options, revision, [bound(), bound(), bound(), bound()]).prop_map(
        |(key, range_end, (limit, sort_order, sort_target, keys_only, count), revision, bounds)| pb::RangeRequest {
            key,
            range_end,
            limit,
            revision,
            sort_order,
            sort_target,
            keys_only,
            count_only: count == 0,
            min_mod_revision: bounds[0],
            max_mod_revision: bounds[1],
            min_create_revision: bounds[2],
            max_create_revision: bounds[3],
            ..Default::default()
        },
    )
}

fn compare() -> impl Strategy<Value = pb::Compare> {
    let number = 0..12i64;
    let union = prop_oneof![
        number.clone().prop_map(|n| (0, TargetUnion::Version(n % 3))),
        number.clone().prop_map(|n| (1, TargetUnion::CreateRevision(n))),
        number.prop_map(|n| (2, TargetUnion::ModRevision(n))),
        select(VALUES).prop_map(|value| (3, TargetUnion::Value(Bytes::from_static(value)))),
        Just((4, TargetUnion::Lease(0))),
    ];
    (0..4i32, key(), range_end(), option::weighted(0.9, union)).prop_map(|(result, key, range_end, union)| {
        let (target, target_union) = union.map_or((3, None), |(target, union)| (target, Some(union)));
        pb::Compare { result, target, key, range_end, target_union }
    })
}

fn txn() -> impl Strategy<Value = pb::TxnRequest> {
    let op = |request| pb::RequestOp { request: Some(request) };
    let leaf = prop_oneof![
        3 => put().prop_map(request_op::Request::RequestPut),
        2 => delete().prop_map(request_op::Request::RequestDeleteRange),
        2 => range().prop_map(request_op::Request::RequestRange),
    ];
    let whole = |ops: BoxedStrategy<pb::RequestOp>| {
        (vec(compare(), 0..3), vec(ops.clone(), 0..4), vec(ops, 0..3))
            .prop_map(|(compare, success, failure)| pb::TxnRequest { compare, success, failure })
    };
    let nested = leaf.prop_map(op).prop_recursive(2, 10, 3, move |inner| {
        whole(inner).prop_map(move |txn| op(request_op::Request::RequestTxn(txn)))
    });
    whole(nested.boxed())
}

pub(super) fn change() -> impl Strategy<Value = request_op::Request> {
    prop_oneof![
        4 => put().prop_map(request_op::Request::RequestPut),
        2 => delete().prop_map(request_op::Request::RequestDeleteRange),
        3 => txn().prop_map(request_op::Request::RequestTxn),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => change().prop_map(Step::Change),
        6 => range().prop_map(Step::Range),
        2 => (-2..25i64).prop_map(|back| Step::Compact { back }),
        2 => (1..8usize).prop_map(Step::CompactionSteps),
        1 => Just(Step::Image),
        2 => option::of(-1..25i64).prop_map(|back| Step::HashKv { back }),
        1 => (0..10i64).prop_map(|back| Step::Hold { back }),
        1 => any::<usize>().prop_map(Step::Release),
        1 => Just(Step::Crash),
    ]
}

/// Turns relative revisions into real ones.
pub(super) fn resolve(op: &mut request_op::Request, newest: i64) {
    match op {
        request_op::Request::RequestRange(range) => resolve_range(range, newest),
        request_op::Request::RequestTxn(txn) => {
            for op in txn.success.iter_mut().chain(&mut txn.failure) {
                resolve(op.request.as_mut().unwrap(), newest);
            }
        }
        _ => {}
    }
}

fn resolve_range(range: &mut pb::RangeRequest, newest: i64) {
    range.revision = match range.revision {
        1 => 0,
        relative => newest + relative - i64::from(relative > 1),
    };
}

pub(super) fn request_of(op: request_op::Request) -> Request {
    match op {
        request_op::Request::RequestPut(put) => Request::Put(put),
        request_op::Request::RequestDeleteRange(delete) => Request::DeleteRange(delete),
        request_op::Request::RequestTxn(txn) => Request::Txn(txn),
        request_op::Request::RequestRange(_) => unreachable!("a range is no command"),
    }
}

/// The model and what it models.
struct Pair {
    member: Member,
    model: Model,
    held: Vec<(super::super::mvcc::Pin, pb::RangeResponse)>,
}

const EVERYTHING: &[u8] = b"\0";

fn everything() -> pb::RangeRequest {
    pb::RangeRequest {
        key: Bytes::from_static(EVERYTHING),
        range_end: Bytes::from_static(EVERYTHING),
        ..Default::default()
    }
}

impl Pair {
    fn new(store: Arc<dyn Store>, images: bool) -> Self {
        let image = if images { MANY_IMAGES } else { ImageOptions { enabled: false, ..ImageOptions::default() } };
        Self { member: Member::with(store, image), model: Model::new(), held: Vec::new() }
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Change(mut op) => {
                resolve(&mut op, self.model.revision());
                let expected = self.model.run(&op);
                let got = self
                    .member
                    .kv(request_of(op))
                    .map(|(revision, rows)| (revision, response_op(&rows).response.unwrap()));
                assert_eq!(got, expected);
            }
            Step::Range(mut request) => {
                resolve_range(&mut request, self.model.revision());
                let got = self.member.range(&request).map(|(revision, rows)| range_response(revision, &rows));
                assert_eq!(got, self.model.range(&request), "{request:?}");
            }
            Step::Compact { back } => {
                let revision = self.model.revision() - back;
                assert_eq!(self.member.compact(revision), self.model.compact(revision));
                assert_eq!(self.member.reader().compacted(), self.model.compacted);
            }
            Step::CompactionSteps(steps) => {
                for _ in 0..steps {
                    self.member.compaction_step(Duration::ZERO).unwrap();
                }
            }
            Step::Image => drop(self.member.write_image()),
            Step::HashKv { back } => self.compare_hash(back.map_or(0, |back| self.model.revision() - back)),
            Step::Hold { back } => {
                let revision = (self.model.revision() - back).max(1);
                if let Ok(pin) = self.member.reader().pin(&Authorizer::default().own(), revision) {
                    let expected = self.model.range(&pb::RangeRequest { revision, ..everything() }).unwrap();
                    self.held.push((pin, expected));
                }
            }
            Step::Release(which) if !self.held.is_empty() => {
                let (pin, expected) = self.held.swap_remove(which % self.held.len());
                let rows = self.member.reader().range(&pin, &everything()).unwrap();
                assert_eq!(range_response(pin.header_revision(), &rows), expected, "pinned at {}", pin.revision());
            }
            Step::Release(_) | Step::Crash => {}
        }
    }

    fn compare_hash(&self, revision: i64) {
        let got = self.member.reader().hash_kv(revision).map(|got| (got.hash, got.compact_revision, got.hash_revision));
        let got = got.map_err(|error| match error {
            ReadError::Api(error) => error,
            error => panic!("{error}"),
        });
        assert_eq!(got, self.model.hash_kv(revision), "hash at {revision}");
    }

    /// What members compare: as of any compaction that may come, whatever this one has carried out.
    fn compare_point(&self, revision: i64, compacted: i64) {
        let mut hashing = self.member.reader().begin_hash(revision, Some(compacted)).unwrap();
        let hash = loop {
            if let Some(hash) = hashing.step().unwrap() {
                break hash;
            }
        };
        assert_eq!((hash.hash_revision, hash.compact_revision), (revision, compacted));
        assert_eq!(
            hash.hash,
            self.model.hash(revision, compacted, false),
            "hash at {revision} compacted to {compacted}"
        );
    }

    /// Every revision that may be read, every hash, and what is left after all removal.
    fn compare_everything(&mut self) {
        for _ in 0..2 {
            for revision in self.model.compacted.max(1)..=self.model.revision() {
                let request = pb::RangeRequest { revision, ..everything() };
                let got = self.member.range(&request).map(|(revision, rows)| range_response(revision, &rows));
                assert_eq!(got, self.model.range(&request));
            }
            for revision in 0..=self.model.revision() + 1 {
                self.compare_hash(revision);
            }
            let (compacted, newest) = (self.model.compacted, self.model.revision());
            for revision in compacted.max(1)..=newest {
                for as_of in [compacted, compacted + 1, revision - 1, revision] {
                    if (compacted..=revision).contains(&as_of) {
                        self.compare_point(revision, as_of);
                    }
                }
            }
            for held in 0..self.held.len() {
                self.take(Step::Release(held));
            }
            self.held.clear();
            self.member.compact_physically();
        }
        let remembered = self.member.reader().compaction_hashes();
        let remembered: Vec<_> =
            remembered.iter().map(|hash| (hash.hash_revision, hash.compact_revision, hash.hash)).collect();
        assert_eq!(remembered, self.model.compaction_hashes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn keys_behave_as_the_model_over_compactions_and_crashes(steps in vec(step(), 1..70), seed: u64, flush_one_in in 1..12u32, images: bool) {
        let store = Arc::new(MemStore::with_flushes(seed, flush_one_in));
        let mut pair = Pair::new(store.clone(), images);
        for step in steps {
            if matches!(step, Step::Crash) {
                pair.held.clear();
                store.crash();
                pair.member = pair.member.restart(store.clone());
            } else {
                pair.take(step);
            }
        }
        pair.compare_everything();
        store.crash();
        pair.member = pair.member.restart(store.clone());
        pair.compare_everything();
        // Without a file: from the rows alone; and with the one that there is.
        for (name, files) in [("bare", &[][..]), ("whole", &[crate::state::INDEX_IMAGE][..])] {
            let path = std::path::Path::new(name);
            store.checkpoint(path, files).unwrap();
            let copy = Member::on(Arc::new(store.open_checkpoint(path).unwrap()));
            prop_assert_eq!(pair.member.state.mvcc.index.read().dump(), copy.state.mvcc.index.read().dump());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn keys_behave_as_the_model_on_disk(steps in vec(step(), 40..120), images: bool) {
        let dir = tempfile::tempdir().unwrap();
        let (path, options) = (dir.path().join("state"), RocksOptions::default());
        let mut pair = Pair::new(Arc::new(RocksStore::create(&path, &options).unwrap()), images);
        for step in steps {
            if matches!(step, Step::Crash) {
                pair.held.clear();
                let Pair { member, model, .. } = pair;
                let closed = member.close();
                let member = closed.open(Arc::new(RocksStore::open(&path, &options).unwrap()));
                pair = Pair { member, model, held: Vec::new() };
            } else {
                pair.take(step);
            }
        }
        pair.compare_everything();
    }
}

//! Benches of the hot write and read path, layer by layer.

use std::{hint::black_box, ops::ControlFlow, sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    CompactionRequest, Compare, Member, PutRequest, RangeRequest, RequestOp, TxnRequest,
    compare::{CompareResult, CompareTarget, TargetUnion},
    request_op,
};
use cairn_server::{
    log::{Identity, Log, LogOptions, LogStore},
    state::{
        Committed, CommittedData, Membership, State, StateOptions,
        auth::{Actor, Authorizer},
        command::{COMMAND_LEVEL, Command, EntryBuilder, Request, RequestId, encode},
        mvcc::{
            index::{Counting, Index, RangeEnd},
            revision::Revision,
        },
    },
    store::{RocksOptions, RocksStore},
};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;
use raft::eraftpb::Entry;
use tempfile::TempDir;

const VALUE_BYTES: usize = 256;

/// A key as a control plane names pods, spread over the key space.
fn key(number: u64) -> Bytes {
    Bytes::from(format!("/registry/pods/namespace-{:03}/pod-{number:012}", number.wrapping_mul(7919) % 200))
}

fn put(number: u64) -> PutRequest {
    PutRequest { key: key(number), value: Bytes::from(vec![b'v'; VALUE_BYTES]), ..Default::default() }
}

fn index(c: &mut Criterion) {
    const KEYS: u64 = 100_000;
    let mut full = Index::default();
    let mut main = 1;
    for number in 0..KEYS {
        main += 1;
        full.put(&key(number), Revision::new(main, 0), 0);
    }
    let mut group = c.benchmark_group("index");
    group.bench_function("insert", |bench| {
        let mut number = KEYS;
        let mut index = Index::default();
        let mut at = 1;
        bench.iter(|| {
            (number, at) = (number + 1, at + 1);
            index.put(black_box(&key(number)), Revision::new(at, 0), 0)
        });
    });
    group.bench_function("get of 100,000", |bench| {
        let mut number = 0;
        bench.iter(|| {
            number = (number + 48_271) % KEYS;
            full.get(black_box(&key(number)), Revision::whole(main))
        });
    });
    let end = RangeEnd::Before(Bytes::from_static(b"/registry/pods0"));
    for (name, at) in [("count of 100,000", main), ("count of 100,000, half of them younger", main / 2)] {
        group.bench_function(name, |bench| {
            bench.iter(|| {
                full.count_step(
                    &mut Counting::new(black_box(b"/registry/pods/"), &end, Revision::whole(at)),
                    usize::MAX,
                )
            });
        });
    }
    group.bench_function("page of 500", |bench| {
        bench.iter(|| {
            let mut seen = 0;
            full.visit(b"/registry/", &RangeEnd::Unbounded, Revision::whole(main), 512, &mut |_, meta| {
                black_box(meta);
                seen += 1;
                if seen == 500 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            })
        });
    });
    group.finish();
}

/// A state on a real store, and the next index and request number.
struct Replica {
    state: State,
    next: u64,
    request: u64,
    _directory: TempDir,
}

impl Replica {
    fn new() -> Self {
        let directory = TempDir::new().expect("a directory");
        let store = RocksStore::create(&directory.path().join("state"), &RocksOptions::default()).expect("a store");
        let mut state = State::open(Arc::new(store), StateOptions::default()).expect("a state");
        let membership =
            Membership { cluster_id: 1, members: vec![Member { id: 1, name: "n1".into(), ..Default::default() }] };
        state.bootstrap(&membership, 1, 1).expect("a first state");
        Self { state, next: 2, request: 0, _directory: directory }
    }

    /// One committed entry with these requests.
    fn entry(&mut self, requests: impl IntoIterator<Item = Request>) -> Committed {
        let mut builder = EntryBuilder::new();
        for request in requests {
            self.request += 1;
            let id = RequestId { member: 1, nonce: 1, counter: self.request };
            assert!(
                builder.push(&encode(&Command { id, actor: Actor::Anonymous, request }, COMMAND_LEVEL)),
                "an entry takes 512 commands"
            );
        }
        self.next += 1;
        Committed { index: self.next - 1, term: 1, data: CommittedData::Commands(builder.finish().into()) }
    }
}

fn apply(c: &mut Criterion) {
    let mut group = c.benchmark_group("apply");
    group.throughput(Throughput::Elements(1000)).measurement_time(Duration::from_secs(8));
    let mut replica = Replica::new();
    let mut number = 0;
    group.bench_function("batch of 1,000 puts", |bench| {
        bench.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                // As from the log: two full entries.
                let entries = [(); 2].map(|()| {
                    let puts: Vec<_> = (0..500).map(|step| Request::Put(put((number + step) % 50_000))).collect();
                    number += 500;
                    replica.entry(puts)
                });
                let begin = std::time::Instant::now();
                let mut answers = replica.state.apply(&entries);
                while replica.state.is_stalled() {
                    answers = replica.state.retry();
                }
                took += begin.elapsed();
                black_box(answers.expect("applied"));
            }
            took
        });
    });
    group.finish();

    let mut group = c.benchmark_group("txn");
    let mut replica = Replica::new();
    let create = replica.entry([Request::Put(put(0))]);
    replica.state.apply(&[create]).expect("applied");
    group.bench_function("compare and put", |bench| {
        bench.iter_batched_ref(
            || {
                let compare = Compare {
                    key: key(0),
                    target: CompareTarget::Mod as i32,
                    result: CompareResult::Greater as i32,
                    target_union: Some(TargetUnion::ModRevision(1)),
                    ..Default::default()
                };
                let success = vec![RequestOp { request: Some(request_op::Request::RequestPut(put(0))) }];
                let failure = vec![RequestOp {
                    request: Some(request_op::Request::RequestRange(RangeRequest {
                        key: key(0),
                        ..Default::default()
                    })),
                }];
                Request::Txn(TxnRequest { compare: vec![compare], success, failure })
            },
            |request| {
                let entry = replica.entry([std::mem::replace(request, Request::Compact(CompactionRequest::default()))]);
                replica.state.apply(&[entry])
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn range(c: &mut Criterion) {
    const KEYS: u64 = 10_000;
    let mut replica = Replica::new();
    for first in (0..KEYS).step_by(500) {
        let entry = replica.entry((first..first + 500).map(|number| Request::Put(put(number))).collect::<Vec<_>>());
        replica.state.apply(&[entry]).expect("applied");
    }
    let reader = replica.state.reader().clone();
    let mut group = c.benchmark_group("range");
    let all = RangeRequest { key: "/registry/".into(), range_end: "/registry0".into(), ..Default::default() };
    group.throughput(Throughput::Elements(KEYS));
    group.bench_function("10,000 keys", |bench| {
        bench.iter(|| {
            let pin = reader.pin(&Authorizer::default().own(), 0).expect("a pin");
            reader.range(&pin, black_box(&all)).expect("rows")
        });
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("one key", |bench| {
        let mut number = 0;
        bench.iter(|| {
            number = (number + 4_271) % KEYS;
            let pin = reader.pin(&Authorizer::default().own(), 0).expect("a pin");
            reader.range(&pin, &RangeRequest { key: key(number), ..Default::default() }).expect("rows")
        });
    });
    group.finish();
}

fn log(c: &mut Criterion) {
    let mut group = c.benchmark_group("log");
    for entries in [1u64, 16, 64] {
        let directory = TempDir::new().expect("a directory");
        let options = LogOptions::new(Identity { cluster_id: 1, member_id: 1 }, 42);
        // Full-grown from the start, or the time goes into the first segments.
        let options = LogOptions { first_segment_bytes: options.segment_bytes, ..options };
        let (mut log, recovered) = Log::open_dir(directory.path(), &options, 0).expect("a log");
        let mut next = recovered.terms.last().index + 1;
        group.throughput(Throughput::Elements(entries));
        group.bench_function(format!("append and sync {entries} of 256 B"), |bench| {
            bench.iter(|| {
                let batch: Vec<_> = (next..next + entries)
                    .map(|index| Entry { index, term: 1, data: vec![7; VALUE_BYTES], ..Default::default() })
                    .collect();
                next += entries;
                log.append(&batch, None).expect("appended");
            });
        });
    }
    group.finish();
}

fn codec(c: &mut Criterion) {
    let mut group = c.benchmark_group("codec");
    let request = put(1);
    let bytes = Bytes::from(request.encode_to_vec());
    group.bench_function("decode put", |bench| bench.iter(|| PutRequest::decode(black_box(bytes.clone()))));
    group.bench_function("encode put", |bench| bench.iter(|| black_box(&request).encode_to_vec()));
    let range = RangeRequest { key: key(1), range_end: key(2), limit: 500, ..Default::default() };
    let range = Bytes::from(range.encode_to_vec());
    group.bench_function("decode range", |bench| bench.iter(|| RangeRequest::decode(black_box(range.clone()))));
    let command = Command {
        id: RequestId { member: 1, nonce: 2, counter: 3 },
        actor: Actor::Anonymous,
        request: Request::Put(request),
    };
    group.bench_function("encode command", |bench| bench.iter(|| encode(black_box(&command), COMMAND_LEVEL)));
    group.finish();
}

criterion_group!(benches, index, apply, range, log, codec);
criterion_main!(benches);

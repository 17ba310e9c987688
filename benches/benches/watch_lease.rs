//! Benches of what many watchers and many leases cost.
//!
//! Fan-out is measured at the hub: an event is published and dispatched, and every watcher that wants it takes it as an answer, encoded as it goes on the
//! wire. Each watcher has a stream of its own.

use std::{
    hint::black_box,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use cairn_proto::{
    etcdserverpb::{Member, WatchCreateRequest, WatchRequest, watch_request::RequestUnion},
    mvccpb::KeyValue,
};
use cairn_server::{
    api::{
        answer::{Answer, Header},
        watch::WatchReply,
    },
    lease::{CHECKPOINT_INTERVAL, DueLimits, LeaseClock},
    state::{
        Lease, LeaseChange, Membership, State, StateOptions,
        auth::Authorizer,
        mvcc::{Change, ChangeSink, Changes, revision::Revision},
    },
    store::MemStore,
    watch::{Hub, Step, StreamOptions, WatchAnswer, WatchEvent, WatchStream},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use prost::Message;

const VALUE_BYTES: usize = 256;
const WINDOW_BYTES: usize = 16 << 20;
const HEADER: Header = Header { cluster_id: u64::MAX / 3, member_id: u64::MAX / 5, revision: 1 << 40, raft_term: 7 };

fn key(number: usize) -> Bytes {
    Bytes::from(format!("/registry/pods/namespace/pod-{number:08}"))
}

fn change(number: usize, main: i64) -> Change {
    let value = Bytes::from(vec![b'v'; VALUE_BYTES]);
    let kv = KeyValue { key: key(number), create_revision: 2, mod_revision: main, version: main, value, lease: 0 };
    Change { at: Revision::new(main, 0), tombstone: false, stored: kv.encode_to_vec().into() }
}

/// A hub with watchers, and the revision that was published last.
struct Watched {
    hub: Hub,
    streams: Vec<WatchStream>,
    main: i64,
    out: BytesMut,
    _state: State,
}

impl Watched {
    /// Watchers of one prefix, or each of a key of its own.
    fn by(watchers: usize, own_keys: bool) -> Self {
        let mut state = State::open(Arc::new(MemStore::new()), StateOptions::default()).expect("a state");
        let members = vec![Member { id: 1, name: "n1".into(), ..Default::default() }];
        state.bootstrap(&Membership { cluster_id: 1, members }, 1, 1).expect("a first state");
        let hub = Hub::new(state.reader().clone(), WINDOW_BYTES);
        let streams = (0..watchers).map(|number| {
            let mut stream = hub.open(StreamOptions { fragment_bytes: 1 << 20 });
            let (key, range_end) =
                if own_keys { (key(number), Bytes::new()) } else { ("/registry/".into(), "/registry0".into()) };
            let create = WatchCreateRequest { key, range_end, ..Default::default() };
            let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
            stream.request(create, |_| Ok(Authorizer::default().own()));
            stream
        });
        let streams = streams.collect();
        let mut watched = Self { hub, streams, main: 1, out: BytesMut::new(), _state: state };
        watched.take(0..watchers);
        watched
    }

    /// Publishes an event of a key and dispatches it.
    fn publish(&mut self, number: usize) {
        self.main += 1;
        self.hub.changed(Changes { list: vec![change(number, self.main)], pin: None });
        assert!(self.hub.poll_dispatch(&mut Context::from_waker(Waker::noop())).is_pending(), "the hub is open");
    }

    /// Takes what there is for some of the streams, encoded; the events.
    fn take(&mut self, streams: std::ops::Range<usize>) -> usize {
        let mut context = Context::from_waker(Waker::noop());
        let mut events = 0;
        for stream in &mut self.streams[streams] {
            while let Poll::Ready(step) = stream.poll_next(&mut context) {
                let Step::Answer(answer) = step else { panic!("nobody is behind, and the hub is open") };
                events += answer.events.len();
                self.out.clear();
                WatchReply { header: HEADER, answer }.write(&mut self.out);
            }
        }
        events
    }
}

fn fan_out(c: &mut Criterion) {
    let mut group = c.benchmark_group("watch fan-out");
    for watchers in [1usize, 100, 10_000] {
        let mut watched = Watched::by(watchers, false);
        group.throughput(Throughput::Elements(watchers as u64)).sample_size(20);
        group.bench_function(format!("{watchers} on one prefix"), |bench| {
            bench.iter(|| {
                watched.publish(7);
                assert_eq!(watched.take(0..watchers), watchers, "each gets it");
            });
        });
    }
    let watchers = 10_000;
    let mut watched = Watched::by(watchers, true);
    group.throughput(Throughput::Elements(1));
    group.bench_function(format!("1 of {watchers} on keys of their own"), |bench| {
        let mut number = 0;
        bench.iter(|| {
            number = (number + 7919) % watchers;
            watched.publish(number);
            assert_eq!(watched.take(number..number + 1), 1, "the one gets it");
        });
    });
    group.finish();
}

fn encoding(c: &mut Criterion) {
    const EVENTS: usize = 100;
    let mut group = c.benchmark_group("watch encoding");
    let events = (0..EVENTS).map(|number| WatchEvent { change: change(number, 1 << 40), previous: None });
    let answer = WatchAnswer { revision: 1 << 40, watch_id: 7, events: events.collect(), ..WatchAnswer::default() };
    let reply = WatchReply { header: HEADER, answer };
    let mut out = BytesMut::with_capacity(reply.wire_len());
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function(format!("an answer of {EVENTS} events"), |bench| {
        bench.iter(|| {
            out.clear();
            black_box(&reply).write(&mut out);
        });
    });
    group.finish();
}

/// As in the replica: what is due in one entry.
const LIMITS: DueLimits = DueLimits { expired: 511, keys: 1024, remaining: 1000 };
const LEASES: i64 = 1_000_000;
const EXPIRING: i64 = 100_000;

/// A million leases of an hour, of which so many live for a second only.
fn clock(short: i64) -> LeaseClock {
    let mut clock = LeaseClock::new(CHECKPOINT_INTERVAL);
    let leases = (1..=LEASES).map(|id| Lease { id, ttl: if id <= short { 1 } else { 3600 }, remaining: 0 });
    clock.lead(1, leases.collect());
    clock
}

fn leases(c: &mut Criterion) {
    let mut group = c.benchmark_group("lease clock of 1,000,000");
    let mut idle = clock(0);
    group.bench_function("a tick without anything due", |bench| {
        bench.iter(|| {
            idle.pass(1000);
            assert!(idle.due(LIMITS, |_| 0).is_empty(), "nothing is due");
        });
    });
    group.bench_function("a renewal", |bench| {
        let mut id = 0;
        bench.iter(|| {
            id = (id + 7919) % LEASES;
            idle.renew(id + 1, 1000)
        });
    });
    drop(idle);
    group.sample_size(10).throughput(Throughput::Elements(EXPIRING as u64));
    group.bench_function("100,000 run out", |bench| {
        bench.iter_custom(|times| {
            let mut took = Duration::ZERO;
            for _ in 0..times {
                let mut clock = clock(EXPIRING);
                let begin = Instant::now();
                clock.pass(1500);
                let (mut entry, mut revoked) = (0, 0);
                loop {
                    let due = clock.due(LIMITS, |_| 1);
                    if due.is_empty() {
                        break;
                    }
                    entry += 1;
                    revoked += due.expired.len();
                    let gone = due.expired.iter().map(|&id| LeaseChange::Revoked { id, expired: true });
                    clock.applied(entry, &gone.collect::<Vec<_>>());
                }
                took += begin.elapsed();
                assert_eq!(revoked as i64, EXPIRING);
            }
            took
        });
    });
    group.finish();
}

criterion_group!(benches, fan_out, encoding, leases);
criterion_main!(benches);

//! What a watcher and a lease take of memory, by the resident size of this process.
//!
//! ```text
//! cargo run --release -p cairn-bench --example watch_lease_memory
//! ```
//! Leases: an entry of the replicated table and one of the leader's clock, without keys. Watchers: alone or with 99 others on a stream, each of one
//! prefix or of a key of its own; what a connection takes is not in it. Figures: docs/benchmarks.md.

use std::{
    fs,
    hint::black_box,
    process,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use cairn_proto::etcdserverpb::{
    LeaseGrantRequest, Member, WatchCreateRequest, WatchRequest, watch_request::RequestUnion,
};
use cairn_server::{
    lease::{CHECKPOINT_INTERVAL, LeaseClock},
    state::{
        Committed, CommittedData, Membership, State, StateOptions,
        auth::{Actor, Authorizer},
        command::{COMMAND_LEVEL, Command, EntryBuilder, Request, RequestId, encode},
    },
    store::{RocksOptions, RocksStore},
    watch::{Hub, StreamOptions, WatchStream},
};
use tempfile::TempDir;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const LEASES: i64 = 1_000_000;
const WATCHERS: usize = 100_000;
/// Commands of one entry.
const ENTRY: i64 = 500;

/// Resident bytes of this process.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has /proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it says the resident size");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") * 1024
}

/// Prints what each of `count` things takes that `make` makes.
fn measure<T>(what: &str, count: u64, make: impl FnOnce() -> T) -> T {
    let before = resident();
    let made = black_box(make());
    println!("{what}: {} bytes each", resident().saturating_sub(before) / count);
    made
}

fn state(directory: &TempDir) -> State {
    let store = RocksStore::create(&directory.path().join("state"), &RocksOptions::default()).expect("a store");
    let mut state = State::open(Arc::new(store), StateOptions::default()).expect("a state");
    let members = vec![Member { id: 1, name: "n1".into(), ..Default::default() }];
    state.bootstrap(&Membership { cluster_id: 1, members }, 1, 1).expect("a first state");
    state
}

/// Grants leases `from..from + ENTRY` in one entry.
fn grant(state: &mut State, index: u64, from: i64) {
    let mut builder = EntryBuilder::new();
    for id in from..from + ENTRY {
        let command = Command {
            id: RequestId { member: 1, nonce: 1, counter: id as u64 },
            actor: Actor::Server,
            request: Request::LeaseGrant(LeaseGrantRequest { id, ttl: 3600 }),
        };
        assert!(builder.push(&encode(&command, COMMAND_LEVEL)), "an entry takes 512 commands");
    }
    let data = CommittedData::Commands(builder.finish().into());
    let mut applied = state.apply(&[Committed { index, term: 1, data }]);
    while state.is_stalled() {
        applied = state.retry();
    }
    applied.expect("applied");
    state.take_lease_changes();
}

/// A million leases.
fn leases(state: &mut State) {
    // The memtables come and go; they are full-grown before anything is measured.
    for (index, from) in (2..).zip((1..=LEASES / 2).step_by(ENTRY as usize)) {
        grant(state, index, from);
    }
    let next = 2 + (LEASES / 2 / ENTRY) as u64;
    measure("a lease in the replicated table", (LEASES / 2) as u64, || {
        for (index, from) in (next..).zip((LEASES / 2 + 1..=LEASES).step_by(ENTRY as usize)) {
            grant(state, index, from);
        }
    });
    let _clock = measure("a lease on the leader's clock", LEASES as u64, || {
        let mut clock = LeaseClock::new(CHECKPOINT_INTERVAL);
        clock.lead(1, state.views().leases.all());
        clock
    });
}

/// Watchers, so many on each stream.
fn watchers(state: &State, own_keys: bool, per_stream: usize) {
    let hub = Hub::new(state.reader().clone(), 16 << 20);
    let of = if own_keys { "a key of its own" } else { "a prefix" };
    measure(&format!("a watcher of {of}, {per_stream} on a stream"), WATCHERS as u64, || {
        let streams = (0..WATCHERS / per_stream).map(|number| {
            let mut stream = hub.open(StreamOptions { fragment_bytes: 1 << 20 });
            for number in number * per_stream..(number + 1) * per_stream {
                create(&mut stream, number, own_keys);
            }
            stream
        });
        streams.collect::<Vec<_>>()
    });
}

/// What is measured, each in a process of its own: freed memory is used again, and would not be seen.
const CASES: [&str; 5] = ["leases", "prefix 1", "keys 1", "prefix 100", "keys 100"];

fn main() {
    let Some(case) = std::env::args().nth(1) else {
        let program = std::env::current_exe().expect("this program has a path");
        for case in CASES {
            assert!(process::Command::new(&program).arg(case).status().expect("it runs").success(), "{case}");
        }
        return;
    };
    let directory = TempDir::new().expect("a directory");
    let mut state = state(&directory);
    match case.split_once(' ') {
        Some((of, per_stream)) => watchers(&state, of == "keys", per_stream.parse().expect("a number")),
        None => leases(&mut state),
    }
}

/// Creates a watcher and takes the answer.
fn create(stream: &mut WatchStream, number: usize, own_keys: bool) {
    let (key, range_end) = if own_keys {
        (format!("/registry/pods/namespace/pod-{number:08}").into(), Bytes::new())
    } else {
        ("/registry/".into(), "/registry0".into())
    };
    let create = WatchCreateRequest { key, range_end, ..Default::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    stream.request(create, |_| Ok(Authorizer::default().own()));
    let created = stream.poll_next(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(created, Poll::Ready(_)), "it is created");
}

//! The hub as a whole against a naive model: a state that is applied to by hand, a dispatcher and streams that are
//! driven by hand, in any order. In tests the limits are a few events, so that queues fill, windows are overtaken and
//! pieces end everywhere.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeMap,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use cairn_proto::{
    etcdserverpb::{self as pb, WatchCreateRequest, WatchRequest, watch_request::RequestUnion},
    mvccpb::KeyValue,
};
use proptest::{collection::vec, prelude::*};
use prost::Message;

use super::{CatchUp, CaughtUp, Hub, Interest, NO_WATCHER, Step, StreamOptions, WatchAnswer, WatchStream};
use crate::{
    state::{
        Committed, CommittedData, Compactor, Membership, State, StateOptions,
        auth::{Actor, Authorizer},
        command::{COMMAND_LEVEL, Command, EntryBuilder, Request, RequestId, encode},
    },
    store::{MemStore, Store},
};

const KEYS: u8 = 5;

fn key(number: u8) -> Bytes {
    Bytes::copy_from_slice(&[b'a' + number])
}

/// A change as it should be told.
#[derive(Debug, Clone, PartialEq)]
struct Expected {
    main: i64,
    key: Bytes,
    tombstone: bool,
    stored: Bytes,
    previous: Option<Bytes>,
}

/// A watcher as its client knows it.
#[derive(Debug)]
struct Watch {
    interest: Interest,
    start: i64,
    /// The revision the client named, if any.
    begins: i64,
    /// Expected changes that were looked at: everything before is delivered or not wanted.
    seen: usize,
    fragment: bool,
}

/// One client.
struct Client {
    stream: WatchStream,
    watches: BTreeMap<i64, Watch>,
    job: Option<CatchUp>,
    done: Option<CaughtUp>,
    asked: Option<i64>,
}

/// A state that is applied to by hand, and a hub over it.
pub(super) struct Member {
    store: Arc<MemStore>,
    pub(super) state: State,
    pub(super) compactor: Compactor,
    pub(super) hub: Hub,
    index: u64,
}

impl Member {
    pub(super) fn new(window_bytes: usize) -> Self {
        let store = Arc::new(MemStore::new());
        let mut state = State::open(store.clone(), StateOptions::default()).unwrap();
        let member = pb::Member { id: 7, peer_urls: vec!["http://a:2380".into()], ..Default::default() };
        state.bootstrap(&Membership { cluster_id: 9, members: vec![member] }, 1, 1).unwrap();
        let hub = Hub::new(state.reader().clone(), window_bytes);
        state.report_to(Arc::new(hub.clone()));
        let compactor = state.compactor();
        Self { store, state, compactor, hub, index: 1 }
    }

    /// Applies requests as one entry, which is published together.
    pub(super) fn apply(&mut self, requests: Vec<Request>) {
        let mut entry = EntryBuilder::new();
        for request in requests {
            let id = RequestId { member: 7, nonce: 1, counter: 1 };
            assert!(entry.push(&encode(&Command { id, actor: Actor::Anonymous, request }, COMMAND_LEVEL)));
        }
        self.index += 1;
        let data = CommittedData::Commands(entry.finish().into());
        self.state.apply(&[Committed { index: self.index, term: 1, data }]).unwrap();
    }

    pub(super) fn revision(&self) -> i64 {
        self.state.reader().revision()
    }

    pub(super) fn dispatch(&self) {
        let mut context = Context::from_waker(Waker::noop());
        assert!(self.hub.poll_dispatch(&mut context).is_pending());
    }
}

struct World {
    member: Member,
    history: Vec<Expected>,
    /// The stored value, create revision and version of each living key, before the revision under way.
    living: BTreeMap<Bytes, (Bytes, i64, i64)>,
    clients: Vec<Client>,
}

#[derive(Debug, Clone)]
enum Op {
    Txn {
        puts: Vec<u8>,
        deletes: Vec<u8>,
        times: u8,
    },
    Compact {
        back: i64,
    },
    CompactStep,
    /// A snapshot with all this in it takes the state's place.
    Jump {
        changes: Vec<(Vec<u8>, Vec<u8>)>,
        compact_back: i64,
        compact_steps: u8,
    },
    Dispatch,
    Open,
    Drop {
        client: usize,
    },
    Create {
        client: usize,
        from: u8,
        to: u8,
        back: i64,
        previous: bool,
        puts: bool,
        deletes: bool,
        fragment: bool,
    },
    Cancel {
        client: usize,
        which: usize,
    },
    Progress {
        client: usize,
    },
    Poll {
        client: usize,
        times: u8,
    },
    Run {
        client: usize,
    },
    Tick {
        client: usize,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let client = 0..3usize;
    prop_oneof![
        6 => (vec(0..KEYS, 0..3), vec(0..KEYS, 0..3), 1..4u8)
            .prop_map(|(puts, deletes, times)| Op::Txn { puts, deletes, times }),
        1 => (0..6i64).prop_map(|back| Op::Compact { back }),
        2 => Just(Op::CompactStep),
        1 => (vec((vec(0..KEYS, 0..3), vec(0..KEYS, 0..3)), 0..6), 0..9i64, 0..6u8)
            .prop_map(|(changes, compact_back, compact_steps)| Op::Jump { changes, compact_back, compact_steps }),
        4 => Just(Op::Dispatch),
        1 => Just(Op::Open),
        1 => client.clone().prop_map(|client| Op::Drop { client }),
        4 => (client.clone(), 0..KEYS, 0..KEYS + 3, -2..12i64, any::<bool>(), (0..8u8, any::<bool>())).prop_map(
            |(client, from, to, back, previous, (kinds, fragment))| Op::Create {
                client, from, to, back, previous, puts: kinds != 0, deletes: kinds != 1, fragment,
            }
        ),
        1 => (client.clone(), any::<usize>()).prop_map(|(client, which)| Op::Cancel { client, which }),
        2 => client.clone().prop_map(|client| Op::Progress { client }),
        6 => (client.clone(), 1..6u8).prop_map(|(client, times)| Op::Poll { client, times }),
        3 => client.clone().prop_map(|client| Op::Run { client }),
        1 => client.prop_map(|client| Op::Tick { client }),
    ]
}

impl World {
    fn new(window_bytes: usize) -> Self {
        Self { member: Member::new(window_bytes), history: vec![], living: BTreeMap::new(), clients: vec![] }
    }

    fn revision(&self) -> i64 {
        self.member.revision()
    }

    fn dispatch(&self) {
        self.member.dispatch();
    }

    /// Puts and deletes in one txn, and notes what it should be told as.
    fn txn(&mut self, main: i64, puts: &[u8], deletes: &[u8]) -> (Request, i64) {
        let mut puts: Vec<_> = puts.iter().filter(|put| !deletes.contains(put)).copied().collect();
        puts.sort_unstable();
        puts.dedup();
        let before = self.living.clone();
        let mut told = Vec::new();
        for name in &puts {
            let name = key(*name);
            let (created, version) =
                before.get(&name).map_or((main, 1), |(_, created, version)| (*created, version + 1));
            let value = vec![b'v'; (main % 40) as usize].into();
            let kv = KeyValue { key: name, create_revision: created, mod_revision: main, version, value, lease: 0 };
            told.push((kv.key.clone(), Some((Bytes::from(kv.encode_to_vec()), created, version))));
        }
        let mut deletes: Vec<_> = deletes.to_vec();
        deletes.sort_unstable();
        deletes.dedup();
        for name in &deletes {
            if before.contains_key(&key(*name)) {
                told.push((key(*name), None));
            }
        }
        for (name, now) in &told {
            let gone = KeyValue { key: name.clone(), ..KeyValue::default() };
            let previous = before.get(name).map(|(stored, _, _)| stored.clone());
            let stored = now.as_ref().map_or_else(|| gone.encode_to_vec().into(), |(stored, _, _)| stored.clone());
            self.history.push(Expected { main, key: name.clone(), tombstone: now.is_none(), stored, previous });
            match now {
                Some(now) => drop(self.living.insert(name.clone(), now.clone())),
                None => drop(self.living.remove(name)),
            }
        }
        let put = |name: &u8| {
            pb::request_op::Request::RequestPut(pb::PutRequest {
                key: key(*name),
                value: vec![b'v'; (main % 40) as usize].into(),
                ..Default::default()
            })
        };
        let delete = |name: &u8| {
            pb::request_op::Request::RequestDeleteRange(pb::DeleteRangeRequest {
                key: key(*name),
                ..Default::default()
            })
        };
        let ops = puts.iter().map(put).chain(deletes.iter().map(delete));
        let success = ops.map(|request| pb::RequestOp { request: Some(request) }).collect();
        let changed = i64::from(!told.is_empty());
        (Request::Txn(pb::TxnRequest { success, ..Default::default() }), main - 1 + changed)
    }

    /// Another member goes on from here, and then its state takes the place of this one.
    fn jump(&mut self, changes: &[(Vec<u8>, Vec<u8>)], compact_back: i64, compact_steps: u8) {
        let path = std::path::PathBuf::from(self.member.index.to_string());
        self.member.store.checkpoint(&path, &[]).unwrap();
        let copy = Arc::new(self.member.store.open_checkpoint(&path).unwrap());
        let other = State::open(copy.clone(), StateOptions::default()).unwrap();
        let here = std::mem::replace(&mut self.member.state, other);
        for (puts, deletes) in changes {
            let request = self.txn(self.revision() + 1, puts, deletes).0;
            self.member.apply(vec![request]);
        }
        self.run(&Op::Compact { back: compact_back });
        let mut compactor = self.member.state.compactor();
        for _ in 0..compact_steps {
            compactor.step(Duration::ZERO).unwrap();
        }
        // Another number, so that the next one's path is another too.
        self.member.apply(Vec::new());
        let other = std::mem::replace(&mut self.member.state, here);
        drop(self.member.state.replace(other));
        (self.member.store, self.member.compactor) = (copy, self.member.state.compactor());
    }

    fn open(&mut self) {
        let stream = self.member.hub.open(StreamOptions { fragment_bytes: 150 });
        self.clients.push(Client { stream, watches: BTreeMap::new(), job: None, done: None, asked: None });
    }

    fn run(&mut self, op: &Op) {
        match op {
            Op::Txn { puts, deletes, times } => {
                let (mut main, mut requests) = (self.revision(), vec![]);
                for _ in 0..*times {
                    let (request, after) = self.txn(main + 1, puts, deletes);
                    main = after;
                    requests.push(request);
                }
                self.member.apply(requests);
                assert_eq!(self.revision(), main);
            }
            Op::Compact { back } => {
                let revision = self.revision() - back;
                if revision > self.member.state.reader().compacted().max(0) {
                    self.member.apply(vec![Request::Compact(pb::CompactionRequest { revision, physical: false })]);
                }
            }
            Op::CompactStep => drop(self.member.compactor.step(Duration::ZERO).unwrap()),
            Op::Jump { changes, compact_back, compact_steps } => self.jump(changes, *compact_back, *compact_steps),
            Op::Dispatch => self.dispatch(),
            Op::Open => self.open(),
            Op::Drop { client } if *client < self.clients.len() => drop(self.clients.swap_remove(*client)),
            Op::Create { client, from, to, back, previous, puts, deletes, fragment } => {
                if *client >= self.clients.len() {
                    return self.open();
                }
                let range_end = match to {
                    to if *to < KEYS => key(*to),
                    to if *to == KEYS => Bytes::from_static(&[0]),
                    _ => Bytes::new(),
                };
                let start_revision = if *back == 11 { 0 } else { (self.revision() - back).max(1) };
                let filters = [(*puts, 0), (*deletes, 1)].into_iter().filter(|(wanted, _)| !wanted);
                let create = WatchCreateRequest {
                    key: key(*from),
                    range_end,
                    start_revision,
                    prev_kv: *previous,
                    filters: filters.map(|(_, filter)| filter).collect(),
                    fragment: *fragment,
                    progress_notify: *fragment,
                    ..Default::default()
                };
                self.create(*client, &create);
            }
            Op::Cancel { client, which } => {
                let Some(id) = self
                    .clients
                    .get(*client)
                    .and_then(|client| client.watches.keys().nth(which % client.watches.len().max(1)).copied())
                else {
                    return;
                };
                let union = RequestUnion::CancelRequest(pb::WatchCancelRequest { watch_id: id });
                self.settle(*client);
                if !self.clients[*client].watches.contains_key(&id) {
                    return;
                }
                self.clients[*client]
                    .stream
                    .request(WatchRequest { request_union: Some(union) }, |_| Ok(Authorizer::default().own()));
                let answer = self.answer(*client).unwrap();
                assert!(answer.canceled && answer.watch_id == id, "{answer:?}");
                self.clients[*client].watches.remove(&id);
            }
            Op::Progress { client } if *client < self.clients.len() => {
                let union = RequestUnion::ProgressRequest(pb::WatchProgressRequest {});
                let asked = self.revision();
                self.clients[*client].asked = Some(asked);
                self.clients[*client]
                    .stream
                    .request(WatchRequest { request_union: Some(union) }, |_| Ok(Authorizer::default().own()));
            }
            Op::Poll { client, times } if *client < self.clients.len() => {
                for _ in 0..*times {
                    if self.poll(*client).is_none() {
                        break;
                    }
                }
            }
            Op::Run { client } if *client < self.clients.len() => self.finish_job(*client),
            Op::Tick { client } if *client < self.clients.len() => {
                self.settle(*client);
                self.clients[*client].stream.tick();
            }
            _ => {}
        }
    }

    fn create(&mut self, client: usize, create: &WatchCreateRequest) {
        self.settle(client);
        let union = RequestUnion::CreateRequest(create.clone());
        self.clients[client]
            .stream
            .request(WatchRequest { request_union: Some(union) }, |_| Ok(Authorizer::default().own()));
        let answer = self.answer(client).unwrap();
        assert!(answer.created && answer.events.is_empty(), "{answer:?}");
        assert_eq!(answer.revision, self.revision());
        match Interest::of(create) {
            interest if interest.is_empty() => assert!(answer.canceled && answer.watch_id == NO_WATCHER),
            interest => {
                assert!(!answer.canceled);
                let start = if create.start_revision == 0 { self.revision() + 1 } else { create.start_revision };
                let watch =
                    Watch { interest, start, begins: create.start_revision, seen: 0, fragment: create.fragment };
                assert!(self.clients[client].watches.insert(answer.watch_id, watch).is_none());
            }
        }
    }

    /// One step of a client: `None` if there is nothing to do.
    fn poll(&mut self, client: usize) -> Option<()> {
        let mut context = Context::from_waker(Waker::noop());
        match self.clients[client].stream.poll_next(&mut context) {
            Poll::Pending => None,
            Poll::Ready(Step::Closed) => panic!("nobody closed the hub"),
            Poll::Ready(Step::Recheck) => {
                self.clients[client].stream.recheck(|_| Ok(Authorizer::default().own()));
                Some(())
            }
            Poll::Ready(Step::Read(job)) => {
                assert!(self.clients[client].job.replace(job).is_none());
                Some(())
            }
            Poll::Ready(Step::Answer(answer)) => {
                self.check(client, &answer);
                Some(())
            }
        }
    }

    /// First a job is run, then, at another time, its result is handed in.
    fn finish_job(&mut self, client: usize) {
        let client = &mut self.clients[client];
        if let Some(done) = client.done.take() {
            client.stream.caught_up(done);
        } else if let Some(job) = client.job.take() {
            client.done = Some(job.run().unwrap());
        }
    }

    /// Takes answers until a request may be made.
    fn settle(&mut self, client: usize) {
        while !self.clients[client].stream.is_settled() {
            self.poll(client);
        }
    }

    /// The answer of a request just made.
    fn answer(&mut self, client: usize) -> Option<WatchAnswer> {
        let mut context = Context::from_waker(Waker::noop());
        match self.clients[client].stream.poll_next(&mut context) {
            Poll::Ready(Step::Answer(answer)) => Some(answer),
            _ => None,
        }
    }

    fn wanted<'a>(history: &'a [Expected], watch: &Watch) -> impl Iterator<Item = (usize, &'a Expected)> {
        let (interest, start) = (watch.interest.clone(), watch.start);
        let wanted = move |one: &Expected| one.main >= start && interest.matches(&one.key, one.tombstone);
        history.iter().enumerate().skip(watch.seen).filter(move |(_, one)| wanted(one))
    }

    fn check(&mut self, client: usize, answer: &WatchAnswer) {
        let (revision, compacted) = (self.revision(), self.member.state.reader().compacted());
        let Client { watches, asked, .. } = &mut self.clients[client];
        if answer.canceled {
            let watch = watches.remove(&answer.watch_id).unwrap();
            let delivered = watch.seen.checked_sub(1).map_or(0, |last| self.history[last].main);
            // It may have waited while more was compacted.
            assert!(answer.compact_revision <= compacted && answer.revision == 0);
            assert!(
                watch.start.max(delivered + 1) < answer.compact_revision,
                "{watch:?} needs nothing that is compacted"
            );
            return;
        }
        if answer.events.is_empty() {
            // A progress answer: nothing up to it is still to come.
            assert!(answer.revision <= revision);
            if answer.watch_id == NO_WATCHER {
                assert!(answer.revision >= asked.take().expect("nobody asked"));
            }
            let about = watches.iter().filter(|(id, _)| answer.watch_id == NO_WATCHER || **id == answer.watch_id);
            for (id, watch) in about {
                assert!(watch.begins <= answer.revision, "the watch has not begun");
                let open = Self::wanted(&self.history, watch).find(|(_, one)| one.main <= answer.revision);
                assert_eq!(open, None, "watch {id} has not got everything up to {}", answer.revision);
            }
            return;
        }
        assert!(answer.revision <= revision);
        let watch = watches.get_mut(&answer.watch_id).expect("an answer for a watch that is not there");
        let mut expected = Self::wanted(&self.history, watch);
        let mut seen = watch.seen;
        for event in &answer.events {
            let (at, one) = expected.next().expect("an event that nobody made");
            seen = at + 1;
            let change = &event.change;
            assert_eq!((change.at.main, change.key(), change.tombstone), (one.main, &one.key[..], one.tombstone));
            assert_eq!(change.stored, one.stored);
            if !watch.interest.previous {
                assert_eq!(event.previous, None);
            } else if event.previous.is_some() || one.main > compacted {
                assert_eq!(event.previous, one.previous, "of revision {}", one.main);
            }
        }
        let last = answer.events.last().unwrap().change.at.main;
        let split = expected.next().is_some_and(|(_, one)| one.main == last);
        assert!(!split || answer.fragment, "revision {last} is split");
        assert!(!answer.fragment || watch.fragment, "a fragment nobody asked for");
        drop(expected);
        watch.seen = seen;
    }

    /// Everything comes to rest: whoever still watches has everything.
    fn finish(&mut self) {
        for client in 0..self.clients.len() {
            loop {
                self.dispatch();
                let worked = self.poll(client).is_some();
                let running = self.clients[client].job.is_some() || self.clients[client].done.is_some();
                self.finish_job(client);
                if !worked && !running {
                    break;
                }
            }
            for (id, watch) in &self.clients[client].watches {
                assert_eq!(Self::wanted(&self.history, watch).next(), None, "watch {id} of {client} misses something");
            }
        }
        let watches: usize = self.clients.iter().map(|client| client.watches.len()).sum();
        let metrics = self.member.hub.metrics();
        assert_eq!(metrics.watchers.get(), watches as i64);
        assert_eq!((metrics.slow.get(), metrics.pending.get()), (0, 0));
        self.clients.clear();
        assert_eq!((metrics.watchers.get(), metrics.streams.get()), (0, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_watch_gets_what_it_wants_in_order_once_and_whole(ops in vec(op(), 1..120), window in prop_oneof![Just(1), 1..3000usize]) {
        let mut world = World::new(window);
        world.open();
        for op in &ops {
            world.run(op);
        }
        world.finish();
    }
}

#[test]
fn a_closed_hub_ends_its_streams_and_its_dispatcher() {
    let mut world = World::new(1000);
    world.open();
    world.member.hub.close();
    let mut context = Context::from_waker(Waker::noop());
    assert!(matches!(world.clients[0].stream.poll_next(&mut context), Poll::Ready(Step::Closed)));
    assert!(matches!(world.member.hub.poll_dispatch(&mut context), Poll::Ready(Ok(()))));
}

#[test]
fn without_live_watchers_nothing_waits_for_the_dispatcher() {
    let mut world = World::new(1 << 20);
    world.open();
    for _ in 0..50 {
        world.run(&Op::Txn { puts: vec![1], deletes: vec![], times: 1 });
    }
    // Nobody has dispatched anything, and yet a watcher that catches up becomes live.
    world.create(0, &WatchCreateRequest { key: key(1), start_revision: 2, ..Default::default() });
    while world.poll(0).is_some() {}
    assert_eq!(world.clients[0].watches[&0].seen, 50);
    assert_eq!(world.member.hub.metrics().slow.get(), 0);
}

#[test]
fn a_pin_is_given_back_once_its_events_are_dispatched() {
    let mut world = World::new(1 << 20);
    world.open();
    world.run(&Op::Txn { puts: vec![1], deletes: vec![], times: 1 });
    world.create(0, &WatchCreateRequest { key: key(1), prev_kv: true, ..Default::default() });
    world.run(&Op::Txn { puts: vec![1], deletes: vec![], times: 1 });
    world.run(&Op::Compact { back: 0 });
    let held = |world: &mut World| {
        (0..10).any(|_| {
            matches!(
                world.member.compactor.step(Duration::ZERO).unwrap(),
                crate::state::mvcc::CompactionStep::Held { by: Some(_) }
            )
        })
    };
    assert!(held(&mut world), "the previous value is kept");
    world.dispatch();
    assert!(!held(&mut world), "nothing keeps it any more");
    while world.poll(0).is_some() {}
    assert_eq!(world.clients[0].watches[&0].seen, 2);
}

#[test]
fn a_watcher_of_few_keys_that_is_far_behind_reads_its_own_changes_only() {
    let mut member = Member::new(1);
    let put = |key: &'static str| Request::Put(pb::PutRequest { key: key.into(), ..Default::default() });
    let (often, seldom, quiet) = ("often", "seldom", "quiet");
    for number in 0..300 {
        member.apply(vec![put(if number == 150 { seldom } else { often })]);
        member.dispatch();
    }
    let mut stream = member.hub.open(StreamOptions { fragment_bytes: 1 << 20 });
    for key in [quiet, seldom] {
        let create = WatchCreateRequest { key: key.into(), start_revision: 1, ..Default::default() };
        stream.request(WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) }, |_| {
            Ok(Authorizer::default().own())
        });
    }
    let mut context = Context::from_waker(Waker::noop());
    let (mut reads, mut told) = (0, Vec::new());
    let mut settle = |stream: &mut WatchStream, told: &mut Vec<_>| {
        while let Poll::Ready(step) = stream.poll_next(&mut context) {
            match step {
                Step::Read(job) => {
                    reads += 1;
                    stream.caught_up(job.run().unwrap());
                }
                Step::Answer(answer) => {
                    told.extend(answer.events.iter().map(|event| (answer.watch_id, event.change.at.main)));
                }
                Step::Closed | Step::Recheck => panic!("nothing closed it, and no permission changed"),
            }
        }
        reads
    };
    assert_eq!(settle(&mut stream, &mut told), 1, "one change of one watcher is read");
    assert_eq!(told, [(1, 152)]);
    for key in [quiet, seldom, often] {
        member.apply(vec![put(key)]);
    }
    member.dispatch();
    settle(&mut stream, &mut told);
    assert_eq!(told[1..], [(0, 302), (1, 303)]);
}

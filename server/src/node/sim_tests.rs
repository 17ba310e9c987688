//! Whole clusters in one thread: real cores over a simulated disk, a store that forgets, and a network that loses, with
//! one seed deciding everything.
//!
//! What must hold in every history:
//! * what was acknowledged is there at the end, at the revision that was told, on every member; nothing is there twice;
//! * a read that was granted sees everything that was acknowledged before it came; revisions never go back;
//! * all members end with the same data, however some of them came to it: by the log, or by a snapshot of another one's
//!   store, whose installation a crash may cut short anywhere;
//! * the same seed gives the same history, to the byte.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write,
    ops::ControlFlow,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use cairn_proto::{etcdserverpb as pb, mvccpb::KeyValue};
use prost::Message as _;
use raft::eraftpb::Message;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::core::{Core, CoreOptions, RetentionOptions, log_of_member, log_of_new_cluster};
use crate::{
    log::{Change, Fault, Identity, Log, LogOptions, LogStore, SimDisk},
    raft::{Fetch, Offer, RaftOptions, Role, SnapshotMeta},
    state::{
        Membership, State, StateOptions,
        command::{Command, Reply, Request, RequestId, encode},
        identify, is_installing, mark_installed, mark_installing, persisted_applied,
    },
    store::{MemStore, Store, Table},
};

/// A member that runs.
struct Run {
    core: Core<u64, (u64, i64)>,
    log: Log,
    /// The newest write that is staged in the log.
    staged: Option<u64>,
    nonce: u64,
    flush: bool,
    /// What a flush that ended made durable, until the core is told.
    flushed: Option<u64>,
    fetches: Vec<Fetch>,
    /// A snapshot is to be made.
    checkpoint: bool,
    /// A snapshot that is offered.
    offer: Option<Offer>,
    /// A snapshot that was fetched: its number, its store and the state in it.
    received: Option<(u64, Arc<MemStore>, State)>,
    /// The received one is to take the state's place.
    install: bool,
    /// It has, on the disk.
    switched: bool,
    /// The state is to forget that it was being installed.
    settle: bool,
}

/// A member, running or not.
struct Member {
    id: u64,
    disk: SimDisk,
    store: Arc<MemStore>,
    run: Option<Run>,
    starts: u64,
    /// The newest revision ever acknowledged by or read from this member.
    seen: i64,
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Unknown,
    Acknowledged(i64),
    /// Certainly not applied.
    Refused,
}

struct World {
    random: StdRng,
    members: Vec<Member>,
    /// Messages on their way, by sender and receiver, in order.
    network: BTreeMap<(u64, u64), VecDeque<Message>>,
    writes: Vec<Fate>,
    reads: u64,
    /// The newest revision acknowledged to anybody.
    acknowledged: i64,
    history: String,
    crashes: u64,
    granted: u64,
    fetched: u64,
    /// Snapshots there are: their number, whose they are, and the store that has them.
    snapshots: BTreeMap<u64, (usize, Arc<MemStore>)>,
    installed: u64,
    /// Installations that a start had to finish.
    finished: u64,
    /// Members crash seldom and stay away for long; while they move snapshots, they crash often.
    lagging: bool,
}

/// Where a store keeps a snapshot.
fn path_of(snapshot: u64) -> PathBuf {
    format!("{snapshot}").into()
}

const CLUSTER: u64 = 0xc1;

fn options(member: u64, nonce: u64, seed: u64) -> CoreOptions {
    CoreOptions {
        retention: RetentionOptions {
            snapshot_count: 20,
            catchup_commands: 10,
            catchup_bytes_max: u64::MAX,
            needed_bytes_max: 12 << 10,
            unflushed_bytes_max: 8 << 10,
            flush_ticks_min: 3,
        },
        piece_entries_max: 3,
        snapshot_silence_ticks: 20,
        snapshot_idle_ticks: 40,
        ..CoreOptions::new(RaftOptions::new(member, seed ^ member << 32 ^ nonce), nonce)
    }
}

impl Member {
    /// Starts it. Whether it had to finish an installation.
    fn start(&mut self, members: &[u64], seed: u64) -> bool {
        self.starts += 1;
        let nonce = self.starts;
        let options = StateOptions { answers_for: Some((self.id, nonce)), ..StateOptions::default() };
        let mut state = State::open(Arc::clone(&self.store) as Arc<dyn Store>, options).unwrap();
        let identity = Identity { cluster_id: CLUSTER, member_id: self.id };
        let log_options = LogOptions { segment_bytes: 8 << 10, ..LogOptions::new(identity, seed ^ nonce) };
        let (mut log, recovered) = Log::open(Arc::new(self.disk.clone()), &log_options, state.applied().0).unwrap();
        let mut finished = false;
        let start = if state.applied() == (0, 0) {
            let start = log_of_new_cluster();
            if recovered.terms.last() != start.terms.base() {
                log.reset(start.terms.base(), Some(&start.hard_state)).unwrap();
            }
            let member = |&id: &u64| pb::Member { id, ..pb::Member::default() };
            let membership = Membership { cluster_id: CLUSTER, members: members.iter().map(member).collect() };
            state.bootstrap(&membership, 1, 1).unwrap();
            start
        } else {
            let installing = is_installing(self.store.as_ref()).unwrap();
            let before = recovered.terms.base();
            let start =
                log_of_member(&mut log, recovered, installing.filter(|last| last.index == state.applied().0)).unwrap();
            finished = start.terms.base() != before;
            if installing.is_some() {
                mark_installed(self.store.as_ref()).unwrap();
            }
            start
        };
        let core = Core::start(self::options(self.id, nonce, seed), state, start).unwrap();
        self.run = Some(Run {
            core,
            log,
            staged: None,
            nonce,
            flush: false,
            flushed: None,
            fetches: Vec::new(),
            checkpoint: false,
            offer: None,
            received: None,
            install: false,
            switched: false,
            settle: false,
        });
        finished
    }

    fn crash(&mut self, power: bool) {
        self.run = None;
        self.store.crash();
        self.disk = if power { self.disk.power_failure() } else { self.disk.kill() };
    }
}

impl World {
    fn new(seed: u64, count: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let members = (1..=count)
            .map(|id| Member {
                id,
                disk: SimDisk::new(random.random()),
                store: Arc::new(MemStore::with_flushes(random.random(), 40)),
                run: None,
                starts: 0,
                seen: 1,
            })
            .collect();
        let mut world = Self {
            random,
            members,
            network: BTreeMap::new(),
            writes: Vec::new(),
            reads: 0,
            acknowledged: 1,
            history: String::new(),
            crashes: 0,
            granted: 0,
            fetched: 0,
            snapshots: BTreeMap::new(),
            installed: 0,
            finished: 0,
            lagging: false,
        };
        (0..count as usize).for_each(|at| world.start(at));
        world
    }

    fn note(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.history, "{line}").unwrap();
    }

    fn start(&mut self, at: usize) {
        let ids: Vec<u64> = self.members.iter().map(|member| member.id).collect();
        let seed = self.random.random();
        // Stalls are the running process's, and a start writes.
        self.members[at].store.set_stalled(false);
        self.finished += u64::from(self.members[at].start(&ids, seed));
        let status = self.members[at].run.as_ref().unwrap().core.status();
        self.note(format_args!("start {at} {status:?}"));
    }

    /// Lets a member do what there is to do, up to syncing.
    fn turn(&mut self, at: usize) {
        let pieces = self.random.random_range(0..4);
        let Some(run) = &mut self.members[at].run else { return };
        for _ in 0..=pieces {
            run.core.advance().unwrap();
            if !run.core.apply().unwrap() {
                break;
            }
        }
        run.core.advance().unwrap();
        self.take_outputs(at);
    }

    fn take_outputs(&mut self, at: usize) {
        let member = &mut self.members[at];
        let Some(run) = &mut member.run else { return };
        let out = std::mem::take(&mut run.core.out);
        for write in out.writes {
            run.log
                .stage(&Change { reset: write.reset, entries: &write.entries, hard_state: write.hard_state.as_ref() })
                .unwrap();
            run.staged = Some(write.number);
        }
        run.flush |= out.flush;
        if let Some(index) = out.purge
            && let Err(error) = run.log.purge(index)
        {
            self.note(format_args!("power cut {at} {error}"));
            return self.crash_with(at, true);
        }
        run.fetches.extend(out.fetches);
        run.checkpoint |= out.checkpoint;
        run.offer = out.receive.or(run.offer);
        run.settle |= out.settled;
        if let Some(id) = out.install {
            assert!(run.received.as_ref().is_some_and(|(received, ..)| *received == id));
            run.install = true;
        }
        if out.abandon.is_some() {
            run.received = None;
        }
        for id in out.discard {
            self.snapshots.remove(&id);
        }
        let revision = run.core.state().reader().revision();
        let from = member.id;
        for (write, answer) in out.answers {
            let fate = match &answer {
                Ok(answer) => match answer.outcome {
                    Ok(Reply::Kv { revision, .. }) => Fate::Acknowledged(revision),
                    ref other => panic!("a put is answered by {other:?}"),
                },
                Err(crate::node::ProposeError::TooManyRequests | crate::node::ProposeError::LeaderChanged) => {
                    Fate::Refused
                }
                Err(_) => Fate::Unknown,
            };
            assert_eq!(self.writes[write as usize], Fate::Unknown, "write {write} is answered twice");
            self.writes[write as usize] = fate;
            if let Fate::Acknowledged(at_revision) = fate {
                assert!(at_revision <= revision, "{at_revision} is acknowledged but not readable at {revision}");
                self.acknowledged = self.acknowledged.max(at_revision);
                self.members[at].seen = self.members[at].seen.max(at_revision);
            }
            self.note(format_args!("answer {at} {write} {fate:?}"));
        }
        for ((read, must_see), leave) in out.reads {
            self.note(format_args!("read {at} {read} {leave:?} {revision}"));
            if leave.is_ok() {
                self.granted += 1;
                assert!(revision >= must_see, "a read at {revision} must see {must_see}");
                self.members[at].seen = self.members[at].seen.max(revision);
            }
        }
        for message in out.messages {
            self.network.entry((from, message.to)).or_default().push_back(message);
        }
        for (leader, command) in out.forwards {
            self.forward(from, leader, command);
        }
    }

    /// A command on its way to the leader: it arrives at once or gets lost.
    fn forward(&mut self, from: u64, leader: u64, command: Bytes) {
        let arrives = self.random.random_bool(0.9);
        self.note(format_args!("forward {from} {leader} {arrives}"));
        if let Some(run) = &mut self.members[leader as usize - 1].run.as_mut().filter(|_| arrives) {
            run.core.forwarded(command);
        }
    }

    fn write(&mut self, at: usize) {
        let write = self.writes.len() as u64;
        let key = self.random.random_range(0..8);
        let padding = self.random.random_range(0..800);
        let id = self.members[at].id;
        let Some(run) = &mut self.members[at].run else { return };
        let put = pb::PutRequest {
            key: format!("k{key}").into(),
            value: format!("{write}{:padding$}", "").into(),
            ..pb::PutRequest::default()
        };
        let id = RequestId { member: id, nonce: run.nonce, counter: write };
        let command = encode(&Command { id, user: Bytes::new(), auth_revision: 0, request: Request::Put(put) });
        self.writes.push(Fate::Unknown);
        run.core.propose(write, command, write);
        self.note(format_args!("write {at} {write}"));
    }

    fn read(&mut self, at: usize) {
        self.reads += 1;
        let (read, must_see) = (self.reads, self.acknowledged);
        if let Some(run) = &mut self.members[at].run {
            run.core.read_index((read, must_see));
        }
    }

    fn sync(&mut self, at: usize, may_fail: bool) {
        let Member { run: Some(run), disk, .. } = &mut self.members[at] else { return };
        let Some(staged) = run.staged.take() else { return };
        if may_fail && self.random.random_bool(0.02) {
            // The power goes while the write or the sync is under way.
            disk.fault_at(disk.operations() + self.random.random_range(1..=2), Fault::PowerCut);
        }
        if let Err(error) = run.log.sync() {
            self.note(format_args!("power cut {at} {error}"));
            return self.crash_with(at, true);
        }
        run.core.synced(staged);
        self.note(format_args!("sync {at} {staged}"));
    }

    fn fetch(&mut self, at: usize) {
        let Some(run) = &mut self.members[at].run else { return };
        let fetches = std::mem::take(&mut run.fetches);
        for Fetch { id, low, high, bytes_max } in fetches {
            let entries = run.log.reader().entries(low, high, bytes_max).unwrap();
            self.fetched += 1;
            run.core.fetched(id, entries);
        }
    }

    fn tell_flushed(&mut self, at: usize) {
        if let Some(run) = &mut self.members[at].run
            && let Some(persisted) = run.flushed.take()
        {
            run.core.flushed(persisted);
        }
    }

    fn flush(&mut self, at: usize) {
        let Some(run) = &mut self.members[at].run else { return };
        // Not the one that is about to take its place.
        let store = Arc::clone(run.core.state().store());
        store.flush().unwrap();
        let persisted = persisted_applied(store.as_ref()).unwrap();
        run.flush = false;
        run.flushed = Some(persisted);
        self.note(format_args!("flush {at} {persisted}"));
    }

    /// Does one thing of what there is to do with snapshots.
    fn move_snapshot(&mut self, at: usize) {
        let id = self.members[at].id;
        let Member { run: Some(run), store, .. } = &mut self.members[at] else { return };
        if std::mem::take(&mut run.checkpoint) {
            let snapshot = self.random.random();
            store.checkpoint(&path_of(snapshot)).unwrap();
            let copy = store.open_checkpoint(&path_of(snapshot)).unwrap();
            let (last, conf_state, _) = identify(&copy).unwrap();
            run.core.checkpointed(Some(&SnapshotMeta { id: snapshot, last, conf_state }));
            self.snapshots.insert(snapshot, (at, Arc::clone(store)));
            self.note(format_args!("checkpoint {at} {last:?}"));
        } else if let Some(offer) = run.offer.take() {
            let arrives = self.random.random_bool(0.8);
            let Some((owner, copy)) = self.snapshots.get(&offer.id).filter(|_| arrives) else {
                run.core.received(offer.id, None);
                return self.note(format_args!("fetch {at} {offer:?} in vain"));
            };
            let (owner, copy) = (*owner, Arc::new(copy.open_checkpoint(&path_of(offer.id)).unwrap()));
            let (last, conf_state, cluster) = identify(copy.as_ref()).unwrap();
            assert_eq!((last, cluster), (offer.last, CLUSTER));
            mark_installing(copy.as_ref(), last).unwrap();
            let options = StateOptions { answers_for: Some((id, run.nonce)), ..StateOptions::default() };
            let state = State::open(Arc::clone(&copy) as Arc<dyn Store>, options).unwrap();
            run.received = Some((offer.id, copy, state));
            run.core.received(offer.id, Some(SnapshotMeta { id: offer.id, last, conf_state }));
            if let Some(run) = &mut self.members[owner].run {
                run.core.snapshot_heard(id, offer.id);
            }
            self.note(format_args!("fetch {at} {offer:?}"));
        } else if std::mem::take(&mut run.install)
            && let Some((_, copy, _)) = &run.received
        {
            *store = Arc::clone(copy);
            run.switched = true;
            self.note(format_args!("switch {at}"));
        } else if std::mem::take(&mut run.switched)
            && let Some((_, _, state)) = run.received.take()
        {
            run.core.installed(state);
            self.installed += 1;
            self.note(format_args!("installed {at}"));
        } else if std::mem::take(&mut run.settle) && mark_installed(run.core.state().store().as_ref()).is_err() {
            // It is stalled.
            run.settle = true;
        }
    }

    /// Delivers or loses the oldest message between two members. Gives the receiver.
    fn deliver(&mut self, lose: f64) -> Option<usize> {
        let ways: Vec<(u64, u64)> =
            self.network.iter().filter(|(_, queue)| !queue.is_empty()).map(|(&way, _)| way).collect();
        let way = *ways.get(self.random.random_range(0..ways.len().max(1)))?;
        let message = self.network.get_mut(&way)?.pop_front()?;
        let at = way.1 as usize - 1;
        if self.random.random_bool(lose) {
            return None;
        }
        let run = self.members[at].run.as_mut()?;
        run.core.step(message).unwrap();
        Some(at)
    }

    fn crash(&mut self, at: usize) {
        if self.members[at].run.is_some() {
            let power = self.random.random_bool(0.7);
            self.crash_with(at, power);
        }
    }

    fn crash_with(&mut self, at: usize, power: bool) {
        self.members[at].crash(power);
        let id = self.members[at].id;
        self.network.retain(|&(from, to), _| from != id && to != id);
        // What was made for others goes with the process.
        self.snapshots.retain(|_, (owner, _)| *owner != at);
        self.crashes += 1;
        self.note(format_args!("crash {at} power {power}"));
    }

    fn step(&mut self) {
        let at = self.random.random_range(0..self.members.len());
        match self.random.random_range(0..101) {
            0..20 => self.write(at),
            20..28 => self.read(at),
            28..45 => self.sync(at, true),
            45..53 => {
                if let Some(run) = &mut self.members[at].run {
                    run.core.tick();
                }
            }
            53..54 => self.flush(at),
            54..55 => {
                self.fetch(at);
                self.tell_flushed(at);
                self.move_snapshot(at);
            }
            60..66 if self.lagging => {
                self.move_snapshot(at);
                let crash = self.members[at].run.as_ref().map_or(0.0, |run| match &run.received {
                    Some(_) if run.switched => 0.7,
                    Some(_) => 0.05,
                    None => 0.0,
                });
                if self.random.random_bool(crash) {
                    self.crash(at);
                }
            }
            55..56 => {
                if !self.lagging || self.random.random_bool(0.2) {
                    self.crash(at);
                }
            }
            56..59 => {
                if self.members[at].run.is_none() && (!self.lagging || self.random.random_bool(0.05)) {
                    self.start(at);
                }
            }
            59..60 => {
                let stalled = self.random.random_bool(0.5);
                self.members[at].store.set_stalled(stalled);
            }
            60 => {
                let to = self.random.random_range(0..self.members.len()) as u64 + 1;
                if let Some(run) = &mut self.members[at].run {
                    run.core.transfer_leader(to);
                }
            }
            _ => {
                if let Some(at) = self.deliver(0.03) {
                    self.turn(at);
                }
            }
        }
        if self.random.random_bool(0.7) {
            self.turn(at);
        }
    }

    /// Everything works again: runs until every member has applied the same and nobody waits.
    fn heal(&mut self) {
        for at in 0..self.members.len() {
            self.members[at].store.set_stalled(false);
            if self.members[at].run.is_none() {
                self.start(at);
            }
        }
        let mut last_write = None;
        for round in 0..2_000 {
            for at in 0..self.members.len() {
                if round % 4 == 0
                    && let Some(run) = &mut self.members[at].run
                {
                    run.core.tick();
                }
                self.turn(at);
                self.sync(at, false);
                self.fetch(at);
                self.move_snapshot(at);
                self.turn(at);
                if self.members[at].run.as_ref().is_some_and(|run| run.flush) {
                    self.flush(at);
                    self.tell_flushed(at);
                }
            }
            while let Some(at) = self.deliver(0.0) {
                self.turn(at);
            }
            let leader = self.members.iter().position(|member| {
                member.run.as_ref().is_some_and(|run| run.core.status().standing.role == Role::Leader)
            });
            let statuses: Vec<_> =
                self.members.iter().filter_map(|member| Some(member.run.as_ref()?.core.status())).collect();
            let settled = statuses.iter().all(|status| {
                status.pending == 0 && status.applied == status.committed && status.applied == statuses[0].applied
            });
            match (leader, last_write) {
                // A write that begins now and is acknowledged carries everything before it.
                (Some(leader), None) if settled => {
                    last_write = Some(self.writes.len());
                    self.write(leader);
                }
                (_, Some(write)) if settled && matches!(self.writes[write], Fate::Acknowledged(_)) => return,
                (_, Some(write)) if settled && self.writes[write] == Fate::Refused => last_write = None,
                _ => {}
            }
        }
        let statuses: Vec<_> =
            self.members.iter().filter_map(|member| Some(member.run.as_ref()?.core.status())).collect();
        panic!("the cluster does not settle: {statuses:#?}, last write {last_write:?}");
    }

    fn stored(&self, at: usize) -> BTreeMap<Bytes, KeyValue> {
        let mut stored = BTreeMap::new();
        let mut visit = |key: &[u8], value: &[u8]| {
            stored.insert(Bytes::copy_from_slice(key), KeyValue::decode(value).unwrap());
            ControlFlow::Continue(())
        };
        self.members[at].store.scan(Table::Rev, b"", None, &mut visit).unwrap();
        stored
    }

    fn check(&self) {
        let stored = self.stored(0);
        for at in 1..self.members.len() {
            assert_eq!(stored, self.stored(at), "members 0 and {at} differ");
        }
        let mut revisions: BTreeMap<u64, i64> = BTreeMap::new();
        for kv in stored.values() {
            let write = std::str::from_utf8(&kv.value).unwrap().trim_end().parse().unwrap();
            let before = revisions.insert(write, kv.mod_revision);
            assert_eq!(before, None, "write {write} is applied twice");
        }
        for (write, fate) in self.writes.iter().enumerate() {
            let found = revisions.get(&(write as u64)).copied();
            match fate {
                Fate::Acknowledged(revision) => assert_eq!(found, Some(*revision), "write {write} was acknowledged"),
                Fate::Refused => assert_eq!(found, None, "write {write} was refused"),
                Fate::Unknown => {}
            }
        }
        for member in &self.members {
            let revision = member.run.as_ref().unwrap().core.state().reader().revision();
            assert!(
                revision >= member.seen,
                "member {} went back to {revision}, it had told {}",
                member.id,
                member.seen
            );
        }
    }
}

fn simulate(seed: u64, members: u64, steps: usize) -> World {
    simulate_with(seed, members, steps, false)
}

fn simulate_with(seed: u64, members: u64, steps: usize, lagging: bool) -> World {
    let mut world = World::new(seed, members);
    world.lagging = lagging;
    for _ in 0..steps {
        world.step();
    }
    world.heal();
    world.check();
    world
}

/// What the histories covered, so that a test cannot pass by doing nothing.
#[derive(Debug, Default)]
struct Coverage {
    acknowledged: usize,
    unknown: usize,
    refused: usize,
    crashes: u64,
    granted: u64,
    fetched: u64,
    installed: u64,
    finished: u64,
}

fn simulate_all(seeds: std::ops::Range<u64>, members: u64, steps: usize) -> Coverage {
    simulate_all_with(seeds, members, steps, false)
}

fn simulate_all_with(seeds: std::ops::Range<u64>, members: u64, steps: usize, lagging: bool) -> Coverage {
    let mut coverage = Coverage::default();
    for seed in seeds {
        let caught = std::panic::catch_unwind(|| simulate_with(seed, members, steps, lagging));
        let world = caught.unwrap_or_else(|_| panic!("seed {seed} of {members} members over {steps} steps"));
        coverage.crashes += world.crashes;
        coverage.granted += world.granted;
        coverage.fetched += world.fetched;
        coverage.installed += world.installed;
        coverage.finished += world.finished;
        for fate in &world.writes {
            match fate {
                Fate::Acknowledged(_) => coverage.acknowledged += 1,
                Fate::Refused => coverage.refused += 1,
                Fate::Unknown => coverage.unknown += 1,
            }
        }
    }
    coverage
}

#[test]
fn a_single_member_keeps_its_word_through_crashes() {
    let coverage = simulate_all(0..150, 1, 600);
    assert!(coverage.acknowledged > 5_000 && coverage.crashes > 200 && coverage.granted > 1_000, "{coverage:?}");
    assert!(coverage.unknown > 0, "{coverage:?}");
}

#[test]
fn three_members_keep_their_word_through_crashes_and_lost_messages() {
    let coverage = simulate_all(0..60, 3, 3_000);
    assert!(coverage.acknowledged > 3_000 && coverage.crashes > 100 && coverage.granted > 500, "{coverage:?}");
    assert!(coverage.fetched > 10, "{coverage:?}");
}

#[test]
fn members_that_stay_away_too_long_catch_up_by_snapshots_through_crashes() {
    for (seeds, members) in [(0..100, 3), (100..150, 5)] {
        let coverage = simulate_all_with(seeds, members, 6_000, true);
        println!("{coverage:?}");
        assert!(coverage.acknowledged > 5_000 && coverage.granted > 500, "{coverage:?}");
        assert!(coverage.installed > 50 && coverage.finished > 2, "{coverage:?}");
    }
}

#[test]
fn one_seed_has_one_history() {
    for (seed, members) in [(1, 1), (2, 1), (3, 3), (4, 3)] {
        let (first, second) = (simulate(seed, members, 1_500), simulate(seed, members, 1_500));
        assert!(first.history == second.history, "seed {seed} of {members} members has two histories");
        assert!(first.history.len() > 1_000);
    }
    let (first, second) = (simulate_with(5, 3, 3_000, true), simulate_with(5, 3, 3_000, true));
    assert!(first.history == second.history, "it has two histories with snapshots");
}

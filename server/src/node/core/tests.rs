//! The core by hand: every input and output one at a time, over a store in memory.

mod alone;
pub(super) mod cluster;

use std::{mem, sync::Arc};

use bytes::Bytes;
use cairn_proto::etcdserverpb as pb;
use raft::eraftpb::{ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2, HardState};

use super::*;
use crate::{
    lease::CHECKPOINT_INTERVAL,
    log::{EntryId, Terms},
    node::error::Unfit,
    raft::{InFlight, RaftOptions},
    state::{
        Answer, MemberChange, Membership, StateOptions,
        auth::Actor,
        command::{COMMAND_LEVEL, Command, Reply, Request, RequestId, decode_entry, encode},
    },
    store::{MemStore, Store},
};

const NONCE: u64 = 9;

/// A core with its store, and its log as a list of writes.
pub(super) struct Bench {
    pub(super) store: Arc<MemStore>,
    pub(super) core: Core<u64, u64>,
    pub(super) unsynced: Vec<InFlight>,
    /// What was sent to the others, whom nobody plays here.
    pub(super) messages: Vec<Message>,
    answers: Vec<(u64, Result<Answer, ProposeError>)>,
    reads: Vec<(u64, Result<(), ReadIndexError>)>,
    counter: u64,
}

fn membership(members: &[u64]) -> Membership {
    let members = members.iter().map(|&id| pb::Member { id, ..pb::Member::default() }).collect();
    Membership { cluster_id: 77, members }
}

fn state_over(store: &Arc<MemStore>) -> State {
    let options = StateOptions { answers_for: Some((1, NONCE)), ..StateOptions::default() };
    State::open(Arc::clone(store) as Arc<dyn Store>, options).unwrap()
}

pub(super) fn options() -> CoreOptions {
    CoreOptions::new(RaftOptions::new(1, 3), NONCE)
}

pub(super) fn command_of(counter: u64, value: &[u8]) -> Bytes {
    let put = pb::PutRequest {
        key: format!("key{counter}").into(),
        value: value.to_vec().into(),
        ..pb::PutRequest::default()
    };
    let id = RequestId { member: 1, nonce: NONCE, counter };
    encode(&Command { id, actor: Actor::Anonymous, request: Request::Put(put) }, COMMAND_LEVEL)
}

impl Bench {
    pub(super) fn new(members: &[u64], options: CoreOptions) -> Self {
        let store = Arc::new(MemStore::new());
        let mut state = state_over(&store);
        state.bootstrap(&membership(members), 1, 1).unwrap();
        let core = Core::start(options, state, log_of_new_cluster()).unwrap();
        Self {
            store,
            core,
            unsynced: Vec::new(),
            messages: Vec::new(),
            answers: Vec::new(),
            reads: Vec::new(),
            counter: 0,
        }
    }

    /// A single voter that leads, with nothing left to do.
    fn leading(options: CoreOptions) -> Self {
        let mut bench = Self::new(&[1], options);
        bench.run();
        assert_eq!(bench.core.status().standing.role, Role::Leader);
        bench
    }

    pub(super) fn put(&mut self) -> u64 {
        self.put_of(10)
    }

    fn put_of(&mut self, bytes: usize) -> u64 {
        self.counter += 1;
        self.core.propose(self.counter, command_of(self.counter, &vec![b'v'; bytes]), self.counter);
        self.counter
    }

    /// Advances and applies until nothing is left but to wait for a sync.
    pub(super) fn turn(&mut self) {
        loop {
            self.core.advance().unwrap();
            let more = self.core.apply().unwrap();
            self.collect();
            if !more && self.core.advance().is_ok() && self.collect() == 0 {
                break;
            }
        }
    }

    fn collect(&mut self) -> usize {
        let out = &mut self.core.out;
        let count = out.writes.len();
        self.unsynced.append(&mut out.writes);
        self.answers.append(&mut out.answers);
        self.reads.append(&mut out.reads);
        self.messages.append(&mut out.messages);
        count
    }

    /// Syncs the oldest write.
    pub(super) fn sync(&mut self) {
        let write = self.unsynced.remove(0);
        self.core.synced(write.number);
        self.turn();
    }

    pub(super) fn run(&mut self) {
        self.turn();
        while !self.unsynced.is_empty() {
            self.sync();
        }
    }

    fn answered(&mut self) -> Vec<u64> {
        mem::take(&mut self.answers).into_iter().map(|(waiter, answer)| answer.map(|_| waiter).unwrap()).collect()
    }

    fn refused(&mut self) -> Vec<(u64, ProposeError)> {
        mem::take(&mut self.answers).into_iter().map(|(waiter, answer)| (waiter, answer.unwrap_err())).collect()
    }
}

fn commands_in(write: &InFlight) -> usize {
    write.entries.iter().map(|entry| decode_entry(entry.data.clone().into()).count()).sum()
}

#[test]
fn a_single_voter_leads_and_reads_locally_after_one_sync() {
    let mut bench = Bench::new(&[1], options());
    bench.turn();
    assert!(!bench.core.status().reads_locally);
    bench.sync();
    let status = bench.core.status();
    assert!(status.reads_locally);
    assert_eq!((status.standing.term, status.applied, status.leader_changes), (2, 2, 1));
}

#[test]
fn a_lone_command_is_written_at_once_and_answered_only_after_its_sync() {
    let mut bench = Bench::leading(options());
    let put = bench.put();
    bench.turn();
    assert_eq!(bench.unsynced.len(), 1);
    assert!(bench.answers.is_empty());
    bench.sync();
    let (waiter, answer) = bench.answers.pop().unwrap();
    assert_eq!(waiter, put);
    assert!(matches!(answer.unwrap().outcome, Ok(Reply::Kv { revision: 2, .. })));
    assert_eq!(bench.core.state().reader().revision(), 2);
}

#[test]
fn commands_that_come_while_writes_are_unsynced_go_together() {
    let mut bench = Bench::leading(options());
    for _ in 0..5 {
        bench.put();
        bench.turn();
    }
    assert_eq!(bench.unsynced.iter().map(commands_in).collect::<Vec<_>>(), [1, 1], "two writes may be on their way");
    bench.sync();
    assert_eq!(bench.unsynced.iter().map(commands_in).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(bench.unsynced[1].entries.len(), 1);
    bench.run();
    assert_eq!(bench.answered(), [1, 2, 3, 4, 5]);
}

#[test]
fn commands_fill_entries_and_writes_up_to_their_limits() {
    let mut bench = Bench::leading(CoreOptions { write_bytes_max: 512 << 10, ..options() });
    for _ in 0..1200 {
        bench.put();
    }
    for _ in 0..4 {
        bench.put_of(200 << 10);
    }
    bench.turn();
    let entries: Vec<usize> =
        bench.unsynced[0].entries.iter().map(|entry| decode_entry(entry.data.clone().into()).count()).collect();
    assert_eq!(entries[..2], [512, 512]);
    bench.run();
    assert_eq!(bench.answered().len(), 1204);
}

#[test]
fn a_full_queue_refuses_at_once() {
    let mut bench = Bench::leading(CoreOptions { queue_commands_max: 3, ..options() });
    bench.put();
    bench.turn();
    bench.put();
    bench.turn();
    for _ in 0..5 {
        bench.put();
    }
    bench.collect();
    assert_eq!(bench.refused(), [(6, ProposeError::TooManyRequests), (7, ProposeError::TooManyRequests)]);
    bench.run();
    assert_eq!(bench.answered(), [1, 2, 3, 4, 5]);
    assert_eq!(bench.core.status().proposals_failed, 2);
}

#[test]
fn without_a_leader_requests_time_out_and_are_never_proposed_later() {
    let mut bench = Bench::new(&[1, 2, 3], options());
    bench.put();
    bench.core.read_index(5);
    bench.turn();
    for _ in 0..69 {
        bench.core.tick();
        bench.turn();
    }
    assert!(bench.answers.is_empty() && bench.reads.is_empty());
    bench.core.tick();
    bench.turn();
    assert_eq!(bench.refused(), [(1, ProposeError::TimeoutLeaderFailure)]);
    assert_eq!(mem::take(&mut bench.reads), [(5, Err(ReadIndexError::Timeout))]);
    assert!(bench.core.next_queued().is_none());
    assert_eq!(bench.core.status().pending, 0);
}

#[test]
fn a_read_waits_for_what_was_committed_when_it_came() {
    let mut bench = Bench::leading(options());
    bench.core.read_index(1);
    bench.turn();
    assert_eq!(mem::take(&mut bench.reads), [(1, Ok(()))]);
    // Committed, but the store does not take it yet.
    bench.put();
    bench.turn();
    bench.store.set_stalled(true);
    bench.sync();
    assert!(bench.core.is_stalled());
    bench.core.read_index(2);
    bench.turn();
    assert!(bench.reads.is_empty());
    bench.store.set_stalled(false);
    bench.turn();
    assert_eq!(bench.reads, [(2, Ok(()))]);
}

#[test]
fn a_stalled_store_holds_proposals_back_but_not_time() {
    let mut bench = Bench::leading(options());
    bench.put();
    bench.turn();
    bench.store.set_stalled(true);
    bench.sync();
    bench.put();
    for _ in 0..30 {
        bench.core.tick();
        bench.turn();
    }
    assert!(bench.unsynced.is_empty() && bench.answers.is_empty());
    assert_eq!(bench.core.status().standing.role, Role::Leader);
    bench.store.set_stalled(false);
    bench.run();
    assert_eq!(bench.answered(), [1, 2]);
}

#[test]
fn a_broken_store_is_an_error_and_answers_nobody() {
    let mut bench = Bench::leading(options());
    bench.put();
    bench.core.advance().unwrap();
    let write = bench.core.out.writes.pop().unwrap();
    bench.store.break_disk();
    bench.core.synced(write.number);
    bench.core.advance().unwrap();
    assert!(matches!(bench.core.apply(), Err(NodeError::State(_))));
    assert!(bench.core.out.answers.is_empty());
}

#[test]
fn a_long_backlog_is_applied_in_pieces() {
    let mut bench = Bench::leading(CoreOptions { piece_bytes_max: 20 << 10, ..options() });
    for _ in 0..8 {
        bench.put_of(8 << 10);
        bench.put_of(300 << 10);
    }
    bench.turn();
    let write = bench.unsynced.remove(0);
    bench.core.synced(write.number);
    bench.core.advance().unwrap();
    let mut pieces = 1;
    while bench.core.apply().unwrap() {
        pieces += 1;
    }
    assert!(pieces >= 8, "{pieces}");
    bench.run();
    assert_eq!(bench.answered().len(), 16);
}

#[test]
fn stopping_tells_everybody() {
    let mut bench = Bench::leading(options());
    bench.put();
    bench.turn();
    bench.put();
    bench.core.stop();
    bench.collect();
    assert_eq!(bench.refused(), [(1, ProposeError::Stopped), (2, ProposeError::Stopped)]);
}

#[test]
fn the_store_is_flushed_and_the_log_cut_behind_it() {
    let retention = RetentionOptions {
        snapshot_count: 50,
        catchup_commands: 10,
        flush_ticks_min: 0,
        ..RetentionOptions::default()
    };
    let mut bench = Bench::leading(CoreOptions { retention, ..options() });
    for _ in 0..60 {
        bench.put();
        bench.run();
    }
    assert!(mem::take(&mut bench.core.out.flush));
    assert_eq!(bench.core.out.purge, None);
    bench.store.flush().unwrap();
    bench.core.flushed(bench.core.state().persisted_applied().unwrap());
    let purged = bench.core.out.purge.take().unwrap();
    assert!((45..=52).contains(&purged), "{purged}");
    assert_eq!(bench.core.cache().before(), purged);
    bench.put();
    bench.run();
}

pub(super) fn change(changes: &[(u64, ConfChangeType)], transition: ConfChangeTransition) -> ConfChangeV2 {
    let single = |&(node_id, kind): &(u64, ConfChangeType)| ConfChangeSingle { node_id, change_type: kind as i32 };
    ConfChangeV2 {
        transition: transition as i32,
        changes: changes.iter().map(single).collect(),
        ..ConfChangeV2::default()
    }
}

#[test]
fn a_member_is_added_with_its_record_in_one_step() {
    let mut bench = Bench::leading(options());
    let learner =
        pb::Member { id: 2, is_learner: true, peer_urls: vec!["http://b:2380".into()], ..pb::Member::default() };
    let context = MemberChange::Add(learner.clone()).encode(RequestId { member: 1, nonce: NONCE, counter: 1 });
    let add = change(&[(2, ConfChangeType::AddLearnerNode)], ConfChangeTransition::Auto);
    bench.core.propose_conf_change(1, add, &context, 1);
    bench.run();
    assert_eq!(bench.answered(), [1]);
    assert_eq!(bench.core.state().conf_state().learners, [2]);
    assert_eq!(bench.core.state().views().members().members.get(&2), Some(&learner));
    assert!(!bench.core.status().reads_locally, "the learner may have shown what is not applied here");
    bench.core.read_index(9);
    bench.turn();
    assert_eq!(mem::take(&mut bench.reads), [(9, Ok(()))], "nobody has to be asked");
    // What is stored is the same.
    bench.store.flush().unwrap();
    assert_eq!(state_over(&bench.store).conf_state(), bench.core.state().conf_state());
}

#[test]
fn reads_ask_the_others_as_soon_as_there_are_other_voters() {
    let mut bench = Bench::leading(options());
    bench.core.propose_conf_change(
        1,
        change(&[(2, ConfChangeType::AddNode)], ConfChangeTransition::Auto),
        &Bytes::new(),
        1,
    );
    bench.run();
    assert!(!bench.core.status().reads_locally);
    bench.core.read_index(1);
    bench.turn();
    assert!(bench.reads.is_empty());
}

#[test]
fn one_of_two_is_not_removed_before_the_other_one_says_so() {
    let mut bench = Bench::leading(options());
    let one = |id, kind| change(&[(id, kind)], ConfChangeTransition::Auto);
    bench.core.propose_conf_change(1, one(2, ConfChangeType::AddNode), &Bytes::new(), 1);
    bench.run();
    let term = bench.core.status().standing.term;
    let from_other = |kind: MessageType, term, index| {
        let mut message = Message { from: 2, to: 1, term, index, ..Message::default() };
        message.set_msg_type(kind);
        message
    };
    let acknowledge = |bench: &mut Bench| {
        let last = bench.core.cache().last();
        bench.core.step(from_other(MessageType::MsgAppendResponse, term, last)).unwrap();
        bench.run();
    };
    acknowledge(&mut bench);
    bench.core.propose_conf_change(2, one(1, ConfChangeType::RemoveNode), &Bytes::new(), 2);
    bench.run();
    acknowledge(&mut bench);
    let status = bench.core.status();
    assert_eq!((status.standing.role, status.applied + 1), (Role::Leader, status.committed));
    assert!(bench.core.may_leave(2) && !bench.core.may_leave(3), "only a voter's word counts");
    bench.core.tick();
    bench.core.advance().unwrap();
    let asks = |message: &Message| (message.to, message.get_msg_type()) == (2, MessageType::MsgTimeoutNow);
    assert!(bench.core.out.messages.iter().any(asks), "the other one is not asked to lead");
    let mut says = |committed| {
        let commit = Message { commit: committed, ..from_other(MessageType::MsgHeartbeat, term + 1, 0) };
        bench.core.step(commit).unwrap();
        bench.run();
        bench.core.status().applied
    };
    assert_eq!(says(status.applied), status.applied, "it leads no more, but the other one knows nothing yet");
    assert_eq!(says(status.committed), status.committed);
    assert_eq!(bench.core.state().conf_state().voters, [2]);
}

#[test]
fn a_change_that_does_not_fit_changes_nothing() {
    let mut bench = Bench::leading(options());
    bench.core.propose_conf_change(
        1,
        change(&[(1, ConfChangeType::RemoveNode)], ConfChangeTransition::Auto),
        &Bytes::new(),
        1,
    );
    bench.run();
    assert_eq!(bench.core.state().conf_state().voters, [1]);
    bench.put();
    bench.run();
    assert_eq!(bench.answered().len(), 1);
}

#[test]
fn a_change_that_the_others_would_refuse_is_never_appended() {
    let mut bench = Bench::leading(options());
    let last = bench.core.cache().last();
    let mut unknown = change(&[(2, ConfChangeType::AddNode)], ConfChangeTransition::Auto);
    unknown.changes[0].change_type = 9;
    let nobody = change(&[(0, ConfChangeType::AddLearnerNode)], ConfChangeTransition::Auto);
    for (waiter, change) in [(1, nobody), (2, unknown)] {
        bench.core.propose_conf_change(waiter, change, &Bytes::new(), waiter);
        bench.run();
        bench.collect();
        let refused = bench.refused();
        assert!(matches!(refused[..], [(for_whom, ProposeError::Malformed(_))] if for_whom == waiter), "{refused:?}");
    }
    assert_eq!(bench.core.cache().last(), last);
    bench.put();
    bench.run();
    assert_eq!(bench.answered().len(), 1, "it goes on");
}

#[test]
fn a_second_change_waits_for_the_first() {
    let mut bench = Bench::leading(options());
    let add = |id| change(&[(id, ConfChangeType::AddLearnerNode)], ConfChangeTransition::Auto);
    bench.core.propose_conf_change(1, add(2), &Bytes::new(), 1);
    bench.core.propose_conf_change(2, add(3), &Bytes::new(), 2);
    bench.collect();
    assert_eq!(bench.refused(), [(2, ProposeError::ChangePending)]);
    bench.run();
    assert_eq!(bench.core.state().conf_state().learners, [2]);
}

#[test]
fn a_leader_ends_a_joint_configuration_by_itself() {
    let mut bench = Bench::leading(options());
    let both = [(2, ConfChangeType::AddLearnerNode), (3, ConfChangeType::AddLearnerNode)];
    bench.core.propose_conf_change(1, change(&both, ConfChangeTransition::Explicit), &Bytes::new(), 1);
    bench.run();
    let conf_state = bench.core.state().conf_state();
    assert_eq!((&conf_state.voters[..], &conf_state.voters_outgoing[..]), (&[1][..], &[][..]));
    let mut learners = conf_state.learners.clone();
    learners.sort_unstable();
    assert_eq!(learners, [2, 3]);
}

fn log(base: EntryId, entries: &[(u64, u64)], after: u64, hard_state: HardState) -> LogStart {
    let mut terms = Terms::new(base);
    for &(index, term) in entries {
        terms.append(EntryId::new(index, term));
    }
    let entry = |&(index, term): &(u64, u64)| raft::eraftpb::Entry { index, term, ..raft::eraftpb::Entry::default() };
    let entries = entries.iter().filter(|(index, _)| *index > after).map(entry).collect();
    LogStart { hard_state, terms, entries }
}

#[test]
fn log_and_state_that_do_not_fit_together_are_refused() {
    let hard_state = |term, commit| HardState { term, commit, vote: 0 };
    let base = EntryId::new(3, 1);
    let entries = [(4, 1), (5, 2), (6, 2)];
    let start = |applied, hard_state| {
        let mut log = log(base, &entries, applied, hard_state);
        let term = log.terms.term(applied).unwrap_or(1);
        check_fit(EntryId::new(applied, term), &mut log).map(|()| log.hard_state.commit)
    };
    assert_eq!(start(5, hard_state(2, 4)), Ok(5), "a commit index behind the applied one is raised");
    assert_eq!(start(3, hard_state(2, 6)), Ok(6));
    assert_eq!(start(2, hard_state(2, 6)), Err(Unfit::LogBeginsTooLate { applied: 2, first: 4 }));
    assert_eq!(start(7, hard_state(2, 6)), Err(Unfit::LogTooShort { applied: 7, last: 6 }));
    assert_eq!(start(5, hard_state(2, 7)), Err(Unfit::Commit { commit: 7, last: 6 }));
    assert_eq!(start(5, hard_state(1, 5)), Err(Unfit::HardState { hard_state: 1, last: 2 }));
    let mut other = log(base, &entries, 5, hard_state(2, 5));
    assert_eq!(check_fit(EntryId::new(5, 1), &mut other), Err(Unfit::Terms { index: 5, in_log: 2, in_state: 1 }));
}

impl Bench {
    fn request(&mut self, request: Request) -> u64 {
        self.counter += 1;
        let id = RequestId { member: 1, nonce: NONCE, counter: self.counter };
        let command = encode(&Command { id, actor: Actor::Anonymous, request }, COMMAND_LEVEL);
        self.core.propose(self.counter, command, self.counter);
        self.counter
    }

    fn grant(&mut self, id: i64, ttl: i64) -> u64 {
        self.request(Request::LeaseGrant(pb::LeaseGrantRequest { id, ttl }))
    }

    /// A tick at this time.
    fn tick_at(&mut self, now_ms: u64) {
        self.core.time_is(now_ms);
        self.core.tick();
        self.turn();
    }

    fn leases(&self) -> usize {
        self.core.state().views().leases.count()
    }
}

fn requests_in(write: &InFlight) -> Vec<Request> {
    let commands = write.entries.iter().flat_map(|entry| decode_entry(entry.data.clone().into()));
    commands.map(|command| command.unwrap().request).collect()
}

#[test]
fn leases_that_run_out_together_are_revoked_in_few_entries_with_writes_between_them() {
    let mut bench = Bench::leading(options());
    for id in 1..=1200 {
        bench.grant(id, 5);
    }
    bench.run();
    bench.tick_at(5_000);
    assert!(bench.unsynced.is_empty() && bench.leases() == 1200);
    bench.tick_at(5_001);
    let (mut revokes, mut waited) = (Vec::new(), 0);
    while let Some(write) = bench.unsynced.first() {
        let revoked = requests_in(write)
            .iter()
            .filter(|request| matches!(request, Request::LeaseRevoke { expired_in_term: Some(2), .. }))
            .count();
        if revoked > 0 {
            revokes.push(revoked);
            bench.put();
        }
        bench.sync();
        waited += 1;
        assert!(waited < 20, "it goes on for ever");
    }
    assert_eq!(revokes, [511, 511, 178]);
    assert_eq!(bench.leases(), 0);
    assert!(bench.core.lease_clock().lock().is_empty());
}

#[test]
fn a_lease_granted_again_is_not_hit_by_the_end_of_the_old_one() {
    let mut bench = Bench::leading(options());
    bench.grant(1, 5);
    bench.run();
    bench.request(Request::LeaseRevoke { id: 1, expired_in_term: None });
    bench.grant(1, 5);
    // Both are in the log, neither is applied, and the clock only knows the old lease.
    bench.turn();
    bench.tick_at(5_001);
    bench.run();
    assert_eq!(bench.leases(), 1);
    bench.tick_at(10_001);
    bench.run();
    assert_eq!(bench.leases(), 1, "its time began when it was granted");
    bench.tick_at(10_002);
    bench.run();
    assert_eq!(bench.leases(), 0);
}

#[test]
fn the_remaining_time_of_a_long_lease_goes_through_the_log_and_outlives_the_leader() {
    let mut bench = Bench::leading(options());
    bench.grant(1, 3_600);
    bench.run();
    bench.tick_at(300_000);
    let Some(Request::LeaseCheckpoint(record)) = requests_in(&bench.unsynced[0]).pop() else {
        panic!("the remaining time is recorded")
    };
    assert_eq!(record.checkpoints, [pb::LeaseCheckpoint { id: 1, remaining_ttl: 3_301 }]);
    bench.run();
    assert_eq!(bench.core.state().views().leases.get(1).unwrap().remaining, 3_301);
    let mut clock = LeaseClock::new(CHECKPOINT_INTERVAL);
    clock.lead(3, bench.core.state().views().leases.all());
    assert_eq!(clock.time_left(1, 0).unwrap().unwrap().left_ms, 3_301_001);
}

#[test]
fn time_is_kept_only_while_leading_and_begins_with_the_first_entry_of_the_term() {
    let mut bench = Bench::new(&[1], options());
    bench.turn();
    assert_eq!(bench.core.lease_clock().lock().leads(), None, "its first entry is not applied");
    bench.run();
    assert_eq!(bench.core.lease_clock().lock().leads(), Some(2));
}

//! A cluster of one member, made of what one member of a larger one still has (`--force-new-cluster`).
//!
//! The removal of all others is written to the log as the membership changes that a leader would have proposed, together
//! with a hard state that says that they are committed, and everything before them too: one batch of the log, so after a
//! crash all of it is there or nothing. From then on it is a log like any other: what it says is applied, now or at the next
//! start, and a member that joins reads it.
//!
//! What is at the end of the log without being known to be committed is kept. Some of it may have been acknowledged, by a
//! majority whose members are lost; of the rest nobody was told what became of it.
//!
//! The changes have a term of their own, so that none of them is taken for an entry that the others have.

use std::collections::BTreeMap;

use prost_raft::Message as _;
use raft::eraftpb::{ConfChangeType, ConfChangeV2, Entry, EntryType, HardState};

use super::start::check_fit;
use crate::{
    log::{EntryId, LogStore},
    node::{NodeError, error::Unfit, membership::single},
    raft::{Group, LogStart},
    state::{MemberChange, State, command::RequestId},
};

/// Makes `member` the only member of its cluster, in the log and in what a replica will be started with. The ids of those
/// that are none any more; if there are none, nothing is written.
///
/// # Errors
/// Log and state do not fit together, or this member is not known to be one.
pub fn force_new_cluster(
    member: u64,
    state: &State,
    log: &mut dyn LogStore,
    start: &mut LogStart,
) -> Result<Vec<u64>, NodeError> {
    let (index, term) = state.applied();
    check_fit(EntryId { index, term }, start)?;
    let Membership { mut learners, is_joint } = membership(state, &start.entries)?;
    if state.members().removed.contains(&member) {
        return Err(NodeError::Removed { member });
    }
    let Some(is_learner) = learners.remove(&member) else { return Err(Unfit::NoMember { member }.into()) };
    let others: Vec<u64> = learners.into_keys().collect();

    let mut changes = Vec::new();
    if is_joint {
        changes.push((ConfChangeV2::default(), None));
    }
    if is_learner {
        changes.push((single(ConfChangeType::AddNode, member), Some(MemberChange::Promote(member))));
    }
    // Whoever votes comes first: raft does without the last voter in no case.
    let remove = |&id| (single(ConfChangeType::RemoveNode, id), Some(MemberChange::Remove(id)));
    changes.extend(others.iter().map(remove));
    if changes.is_empty() {
        return Ok(others);
    }

    // Nobody waits for an answer.
    let id = RequestId { member, nonce: 0, counter: 0 };
    let term = start.hard_state.term + 1;
    let next = start.terms.last().index + 1;
    let entries: Vec<Entry> = (next..)
        .zip(changes)
        .map(|(index, (change, context))| {
            let mut entry = Entry { index, term, data: change.encode_to_vec(), ..Entry::default() };
            entry.set_entry_type(EntryType::EntryConfChangeV2);
            entry.context = context.map(|context| context.encode(id).to_vec()).unwrap_or_default();
            entry
        })
        .collect();
    let commit = entries.last().map_or(start.terms.last().index, |entry| entry.index);
    let hard_state = HardState { term, vote: member, commit };
    log.append(&entries, Some(&hard_state))?;
    start.hard_state = hard_state;
    start.terms = log.terms().clone();
    start.entries.extend(entries);
    Ok(others)
}

/// Whether membership changes are known to be committed that the state has not applied: with them, whoever was a member before
/// must not get a word in.
pub fn has_committed_changes(start: &LogStart) -> bool {
    let known = start.entries.iter().take_while(|entry| entry.index <= start.hard_state.commit);
    { known }.any(|entry| entry.get_entry_type() != EntryType::EntryNormal)
}

/// Who is a member at the end of the log.
struct Membership {
    /// Whether each of them is a learner.
    learners: BTreeMap<u64, bool>,
    /// Whether a change of several at once was begun and not ended.
    is_joint: bool,
}

/// The membership after everything in the log, whose entries that are not applied are `entries`.
fn membership(state: &State, entries: &[Entry]) -> Result<Membership, NodeError> {
    let conf = state.conf_state();
    let voters = conf.voters.iter().chain(&conf.voters_outgoing).map(|&id| (id, false));
    let learners = conf.learners.iter().chain(&conf.learners_next).map(|&id| (id, true));
    let mut learners: BTreeMap<u64, bool> = learners.chain(voters).collect();
    let mut is_joint = !conf.voters_outgoing.is_empty();
    for entry in entries.iter().filter(|entry| entry.get_entry_type() != EntryType::EntryNormal) {
        let change = Group::conf_change(entry).map_err(|reason| NodeError::BadEntry { index: entry.index, reason })?;
        is_joint = change.changes.len() > 1;
        for change in &change.changes {
            match change.get_change_type() {
                ConfChangeType::AddNode => drop(learners.insert(change.node_id, false)),
                ConfChangeType::AddLearnerNode => drop(learners.insert(change.node_id, true)),
                ConfChangeType::RemoveNode => drop(learners.remove(&change.node_id)),
            }
        }
    }
    Ok(Membership { learners, is_joint })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cairn_proto::etcdserverpb as pb;

    use super::*;
    use crate::{
        log::{Fault, Identity, Log, LogOptions, SimDisk},
        node::core::{Core, CoreOptions, FIRST_SNAPSHOT, log_of_member},
        raft::{RaftOptions, Role},
        state::{
            Membership, StateOptions,
            auth::Actor,
            command::{COMMAND_LEVEL, Command, EntryBuilder, Request, encode},
        },
        store::{MemStore, Store},
    };

    fn open(disk: &SimDisk) -> (Log, LogStart) {
        let options = LogOptions::new(Identity { cluster_id: 7, member_id: 1 }, 9);
        let (mut log, recovered) = Log::open(Arc::new(disk.clone()), &options, 1).unwrap();
        let start = log_of_member(&mut log, recovered, None).unwrap();
        (log, start)
    }

    /// The state that all initial members begin with; the second of them never had a name.
    fn state(members: &[u64]) -> State {
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let mut state = State::open(store, StateOptions::default()).unwrap();
        let member = |&id| pb::Member { id, ..pb::Member::default() };
        let members = members.iter().map(member).collect();
        state.bootstrap(&Membership { cluster_id: 7, members }, 1, 1).unwrap();
        state
    }

    fn put(index: u64, key: &'static str) -> Entry {
        let put = pb::PutRequest { key: key.into(), value: "v".into(), ..pb::PutRequest::default() };
        let id = RequestId { member: 2, nonce: 1, counter: index };
        let mut builder = EntryBuilder::new();
        assert!(
            builder.push(&encode(&Command { id, actor: Actor::Anonymous, request: Request::Put(put) }, COMMAND_LEVEL))
        );
        Entry { index, term: 2, data: builder.finish(), ..Entry::default() }
    }

    fn learner_joins(index: u64, id: u64) -> Entry {
        let data = single(ConfChangeType::AddLearnerNode, id).encode_to_vec();
        let member = pb::Member { id, is_learner: true, ..pb::Member::default() };
        let request = RequestId { member: 2, nonce: 1, counter: index };
        let context = MemberChange::Add(member).encode(request).to_vec();
        let mut entry = Entry { index, term: 2, data, context, ..Entry::default() };
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        entry
    }

    /// A log in which entry 2 is known to be committed, and three more are not.
    fn write_log(disk: &SimDisk) {
        let (mut log, _) = open(disk);
        log.reset(FIRST_SNAPSHOT, Some(&HardState { term: 1, vote: 0, commit: 1 })).unwrap();
        let entries = [put(2, "committed"), put(3, "not known to be"), learner_joins(4, 4), put(5, "the last")];
        log.append(&entries, Some(&HardState { term: 2, vote: 2, commit: 2 })).unwrap();
    }

    fn start(state: State, start: LogStart) -> Core<u64, u64> {
        let mut core = Core::start(CoreOptions::new(RaftOptions::new(1, 3), 9), state, start).unwrap();
        assert!(core.settle().unwrap());
        core
    }

    /// One member that has everything, knows nobody, and leads as soon as what it writes is synced.
    fn check(mut core: Core<u64, u64>) {
        let members = core.state().members();
        assert_eq!(members.members.keys().collect::<Vec<_>>(), [&1]);
        assert_eq!(members.removed.iter().collect::<Vec<_>>(), [&2, &3, &4]);
        assert_eq!(core.state().reader().revision(), 4, "all three puts are applied");
        core.advance().unwrap();
        for write in std::mem::take(&mut core.out.writes) {
            core.synced(write.number);
        }
        assert_eq!(core.status().standing.role, Role::Leader);
        assert!(core.out.messages.is_empty(), "nobody is left who could be told anything");
    }

    #[test]
    fn the_others_are_dropped_and_nothing_in_the_log_is() {
        let disk = SimDisk::new(1);
        write_log(&disk);
        let (mut log, mut begin) = open(&disk);
        let state_now = state(&[1, 2, 3]);
        assert_eq!(force_new_cluster(1, &state_now, &mut log, &mut begin).unwrap(), [2, 3, 4]);
        check(start(state_now, begin));
        drop(log);
        // Killed before anything was applied, and started without the flag, or with it again.
        for again in [false, true] {
            let (mut log, mut begin) = open(&disk);
            let state_now = state(&[1, 2, 3]);
            let last = begin.terms.last();
            if again {
                assert!(force_new_cluster(1, &state_now, &mut log, &mut begin).unwrap().is_empty());
            }
            assert_eq!(begin.terms.last(), last, "nothing more is written");
            check(start(state_now, begin));
        }
    }

    #[test]
    fn a_power_failure_leaves_the_old_cluster_or_the_new_one() {
        let (mut old, mut new) = (0, 0);
        for seed in 0..50 {
            for operation in 1.. {
                let disk = SimDisk::new(seed);
                write_log(&disk);
                let (mut log, mut begin) = open(&disk);
                disk.fault_at(disk.operations() + operation, Fault::PowerCut);
                let forced = force_new_cluster(1, &state(&[1, 2, 3]), &mut log, &mut begin);
                let disk = disk.power_failure();
                let (_, found) = open(&disk);
                match (found.terms.last().index, found.hard_state.commit) {
                    (5, 2) if forced.is_err() => old += 1,
                    (8, 8) => {
                        new += 1;
                        check(start(state(&[1, 2, 3]), found));
                    }
                    other => panic!("seed {seed}, operation {operation}: {other:?} after {forced:?}"),
                }
                if forced.is_ok() {
                    break;
                }
            }
        }
        assert!(old > 20 && new > 50, "{old} old, {new} new");
    }

    #[test]
    fn a_learner_gets_the_vote_that_nobody_else_is_left_to_have() {
        let disk = SimDisk::new(1);
        write_log(&disk);
        let (mut log, mut begin) = open(&disk);
        let store: Arc<dyn Store> = Arc::new(MemStore::new());
        let mut learner = State::open(store, StateOptions::default()).unwrap();
        let member = |id| pb::Member { id, is_learner: id == 1, ..pb::Member::default() };
        let members = [1, 2, 3].map(member).to_vec();
        learner.bootstrap(&Membership { cluster_id: 7, members }, 1, 1).unwrap();
        assert_eq!(force_new_cluster(1, &learner, &mut log, &mut begin).unwrap(), [2, 3, 4]);
        let core = start(learner, begin);
        assert!(!core.state().members().members[&1].is_learner && !core.status().learner);
        check(core);
    }

    #[test]
    fn who_is_no_member_is_refused_and_its_log_stays_as_it_is() {
        let disk = SimDisk::new(1);
        write_log(&disk);
        let (mut log, mut begin) = open(&disk);
        let last = begin.terms.last();
        let refused = force_new_cluster(9, &state(&[1, 2, 3]), &mut log, &mut begin).unwrap_err();
        assert!(matches!(refused, NodeError::Unfit(Unfit::NoMember { member: 9 })), "{refused}");
        assert_eq!(log.terms().last(), last);
    }
}

//! The group against hand-made and arbitrary inputs.

use proptest::prelude::*;
use raft::eraftpb::{
    ConfChangeSingle, ConfChangeType, ConfChangeV2, ConfState, Entry, HardState, Message, MessageType, Snapshot,
};

use super::*;
use crate::log::{EntryId, Terms};

fn log() -> LogStart {
    let hard_state = HardState { term: 1, vote: 0, commit: 1 };
    LogStart { hard_state, terms: Terms::new(EntryId::new(1, 1)), entries: Vec::new() }
}

fn group(member: u64, voters: &[u64]) -> Group {
    let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
    Group::start(&RaftOptions::new(member, 7), 1, &conf_state, log()).unwrap()
}

/// Does what the group wants, syncing at once; gives what it wants sent.
fn settle(group: &mut Group) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(work) = group.work() {
        messages.extend(work.messages);
        if let Some(write) = work.write {
            messages.extend(group.synced(write.number));
        }
    }
    messages
}

fn message(kind: MessageType, term: u64) -> Message {
    Message { msg_type: kind as i32, from: 2, to: 1, term, ..Message::default() }
}

fn append(term: u64, index: u64, log_term: u64, entries: Vec<Entry>) -> Message {
    Message { index, log_term, entries, commit: index, ..message(MessageType::MsgAppend, term) }
}

fn entry(index: u64, term: u64, data: &[u8]) -> Entry {
    Entry { index, term, data: data.to_vec(), ..Entry::default() }
}

/// A leader of three at term 2 with nothing unsynced.
fn leader_of_three() -> Group {
    let mut group = group(1, &[1, 2, 3]);
    group.campaign().unwrap();
    settle(&mut group);
    group.step(message(MessageType::MsgRequestPreVoteResponse, 2)).unwrap();
    settle(&mut group);
    group.step(message(MessageType::MsgRequestVoteResponse, 2)).unwrap();
    settle(&mut group);
    assert_eq!(group.standing().role, Role::Leader);
    group
}

#[test]
fn a_voter_that_is_alone_leads_at_once_and_commits_only_what_is_synced() {
    let mut group = group(1, &[1]);
    group.campaign().unwrap();
    let write = group.work().and_then(|work| work.write).unwrap();
    assert_eq!(group.standing(), Standing { term: 2, role: Role::Leader, leader: 1 });
    assert_eq!(write.hard_state.map(|hard_state| (hard_state.term, hard_state.vote)), Some((2, 1)));
    group.propose(b"x".to_vec()).unwrap();
    let second = group.work().and_then(|work| work.write).unwrap();
    assert_eq!((group.commit(), group.committed(), group.unsynced()), (1, 1, 2));
    group.synced(write.number);
    settle(&mut group);
    assert_eq!(group.commit(), 2);
    group.synced(second.number);
    settle(&mut group);
    assert_eq!((group.commit(), group.cache().data(3).as_deref()), (3, Some(&b"x"[..])));
}

#[test]
fn a_follower_promises_nothing_before_the_sync() {
    let mut group = group(1, &[1, 2, 3]);
    group.step(append(2, 1, 1, vec![entry(2, 2, b"a")])).unwrap();
    let work = group.work().unwrap();
    assert!(work.messages.is_empty());
    // A heartbeat's answer rests on the same term and waits as well.
    group.step(message(MessageType::MsgHeartbeat, 2)).unwrap();
    while let Some(work) = group.work() {
        assert!(work.messages.is_empty() && work.write.is_none());
    }
    let kinds: Vec<_> = group.synced(work.write.unwrap().number).iter().map(Message::get_msg_type).collect();
    assert_eq!(kinds, [MessageType::MsgAppendResponse, MessageType::MsgHeartbeatResponse]);
}

#[test]
fn a_leader_sends_before_its_own_sync() {
    let mut group = leader_of_three();
    group.step(Message { index: 2, ..message(MessageType::MsgAppendResponse, 2) }).unwrap();
    settle(&mut group);
    group.propose(b"x".to_vec()).unwrap();
    let work = group.work().unwrap();
    assert!(work.messages.iter().any(|message| message.entries.iter().any(|entry| entry.data == b"x")));
    assert!(work.write.is_some());
}

#[test]
fn followers_get_entries_with_data_and_the_state_machine_gets_them_from_the_cache() {
    let mut group = leader_of_three();
    group.propose(b"x".to_vec()).unwrap();
    settle(&mut group);
    let answer = Message { index: 3, ..message(MessageType::MsgAppendResponse, 2) };
    group.step(answer).unwrap();
    settle(&mut group);
    assert_eq!((group.commit(), group.cache().data(3).as_deref()), (3, Some(&b"x"[..])));
}

#[test]
fn a_voter_left_alone_does_not_campaign_over_an_unsynced_log() {
    let mut group = group(1, &[1]);
    group.step(append(2, 1, 1, vec![entry(2, 2, b"a")])).unwrap();
    let write = group.work().and_then(|work| work.write).unwrap();
    (0..100).for_each(|_| group.tick());
    assert_eq!(group.standing().role, Role::Follower);
    group.synced(write.number);
    (0..100).for_each(|_| group.tick());
    assert_eq!(group.standing().role, Role::Leader);
}

#[test]
fn a_leader_that_removes_itself_may_still_have_writes_under_way() {
    let mut group = leader_of_three();
    let mut single = ConfChangeSingle { node_id: 1, ..ConfChangeSingle::default() };
    single.set_change_type(ConfChangeType::RemoveNode);
    let change = ConfChangeV2 { changes: vec![single], ..ConfChangeV2::default() };
    group.propose_conf_change(change.clone(), Vec::new()).unwrap();
    settle(&mut group);
    for from in [2, 3] {
        group.step(Message { from, index: 3, ..message(MessageType::MsgAppendResponse, 2) }).unwrap();
    }
    let known = group.work().unwrap();
    assert!(known.messages.is_empty(), "nobody is told before it is known here for good");
    let known = known.write.unwrap();
    assert_eq!((known.hard_state.map(|known| known.commit), group.commit()), (Some(3), 2));
    group.propose(b"x".to_vec()).unwrap();
    let write = group.work().and_then(|work| work.write).unwrap();
    assert!(!group.synced(known.number).is_empty());
    assert_eq!(group.commit(), 3);
    group.apply_conf_change(&change).unwrap();
    group.applied_to(3);
    group.synced(write.number);
    settle(&mut group);
    assert!(!group.takes_proposals() && group.is_learner());
}

#[test]
fn no_message_says_more_than_its_entries_do() {
    // The follower is asked about entry 2, denies it, and then there are entries to send from there on: while the question
    // waits to be sent, they must not be put into it.
    let mut group = leader_of_three();
    group.step(Message { index: 2, ..message(MessageType::MsgAppendResponse, 2) }).unwrap();
    settle(&mut group);
    group.unreachable(2);
    group.step(message(MessageType::MsgHeartbeatResponse, 2)).unwrap();
    group
        .step(Message {
            index: 2,
            reject: true,
            reject_hint: 1,
            log_term: 1,
            ..message(MessageType::MsgAppendResponse, 2)
        })
        .unwrap();
    group.propose(b"x".to_vec()).unwrap();
    let appends = settle(&mut group).into_iter().filter(|message| message.get_msg_type() == MessageType::MsgAppend);
    for append in appends {
        assert!(append.entries.first().is_none_or(|first| first.index == append.index + 1), "{append:?}");
    }
}

#[test]
fn a_leader_that_counts_on_lost_entries_is_refused_with_the_reason() {
    let mut group = group(1, &[1, 2, 3]);
    let refused = group.step(Message { commit: 9, ..message(MessageType::MsgHeartbeat, 2) });
    assert_eq!(refused, Err(Refused::LostEntries { from: 2, claimed: 9, last: 1 }));
    // The same from a leader of the past is nothing to worry about.
    group.step(message(MessageType::MsgHeartbeat, 3)).unwrap();
    group.step(Message { commit: 9, ..message(MessageType::MsgHeartbeat, 2) }).unwrap();
}

#[test]
fn what_raft_rs_would_stumble_over_is_refused() {
    let mut group = leader_of_three();
    let snapshot = Message { snapshot: Some(Snapshot::default()), ..message(MessageType::MsgSnapshot, 2) };
    let unknown_entry = Entry { entry_type: 9, ..entry(2, 2, b"") };
    let bad_change = Entry { entry_type: 2, ..entry(2, 2, &[255]) };
    for message in [
        Message { msg_type: 99, ..message(MessageType::MsgAppend, 2) },
        Message { to: 3, ..message(MessageType::MsgHeartbeat, 2) },
        Message { from: 1, ..message(MessageType::MsgHeartbeat, 2) },
        message(MessageType::MsgHeartbeat, 0),
        message(MessageType::MsgRequestVote, u64::MAX),
        message(MessageType::MsgReadIndex, 0),
        message(MessageType::MsgReadIndexResp, 2),
        message(MessageType::MsgPropose, 2),
        message(MessageType::MsgHup, 2),
        append(3, 1, 1, vec![entry(3, 2, b"")]),
        append(3, 1, 1, vec![entry(2, 4, b"")]),
        append(3, 1, 1, vec![unknown_entry]),
        append(3, 1, 1, vec![bad_change]),
        Message { index: 3, ..message(MessageType::MsgAppendResponse, 2) },
        snapshot,
    ] {
        assert!(group.step(message.clone()).is_err(), "{message:?}");
    }
    assert_eq!(group.standing().term, 2);
}

#[test]
fn time_outs_of_elections_come_from_the_seed() {
    let ticks_until_campaign = |seed| {
        let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
        let mut group = Group::start(&RaftOptions::new(1, seed), 1, &conf_state, log()).unwrap();
        let mut history = Vec::new();
        for tick in 0..200 {
            group.tick();
            if settle(&mut group).iter().any(|message| message.get_msg_type() == MessageType::MsgRequestPreVote) {
                history.push(tick);
            }
        }
        history
    };
    assert_eq!(ticks_until_campaign(5), ticks_until_campaign(5));
    assert_ne!(ticks_until_campaign(5), ticks_until_campaign(6));
    let history = ticks_until_campaign(5);
    assert!(history.windows(2).all(|pair| (10..20).contains(&(pair[1] - pair[0]))), "{history:?}");
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let change = prop_oneof![Just(vec![]), Just(vec![0x12, 2, 0x10, 4]), prop::collection::vec(any::<u8>(), 0..6)];
    (0..4_i32, 0..5_u64, 0..8_u64, change).prop_map(|(entry_type, term, index, data)| Entry {
        entry_type,
        term,
        index,
        data,
        ..Entry::default()
    })
}

fn any_number() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..8_u64, 1 => Just(u64::MAX), 1 => Just(1 << 61)]
}

prop_compose! {
    fn any_message()(
        msg_type in 0..20_i32,
        from in 0..5_u64,
        term in any_number(),
        numbers in (any_number(), any_number(), any_number(), any_number(), any_number(), 0..2_u64),
        reject: bool,
        mut entries in prop::collection::vec(any_entry(), 0..4),
        straight in prop::bool::weighted(0.7),
        context in prop::collection::vec(any::<u8>(), 0..3),
    ) -> Message {
        let (log_term, index, commit, commit_term, reject_hint, request_snapshot) = numbers;
        if straight && index < 100 && term < 100 {
            for (entry, at) in entries.iter_mut().zip(index + 1..) {
                (entry.index, entry.term, entry.entry_type) = (at, term, 0);
            }
        }
        Message { msg_type, from, to: 1, term, log_term, index, commit, commit_term, reject, reject_hint, request_snapshot, entries, context, ..Message::default() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_message_ends_the_process(leads: bool, messages in prop::collection::vec((any_message(), 0..3_u8), 1..12)) {
        let mut group = if leads { leader_of_three() } else { group(1, &[1, 2, 3]) };
        let mut unsynced = 0;
        for (message, then) in messages {
            if message.msg_type == MessageType::MsgSnapshot as i32 {
                let _ = group.offered(message);
            } else {
                let _ = group.step(message);
            }
            while let Some(work) = group.work() {
                unsynced = work.write.map_or(unsynced, |write| write.number);
                if group.commit() > group.cache().last() {
                    return Err(TestCaseError::fail("committed past the end"));
                }
            }
            match then {
                0 => drop(group.synced(unsynced)),
                1 => (0..15).for_each(|_| group.tick()),
                _ => {}
            }
            settle(&mut group);
        }
    }
}

fn snapshot_message(term: u64, last: EntryId, data: &[u8]) -> Message {
    let conf_state = ConfState { voters: vec![0, 0], ..ConfState::default() };
    let metadata = raft::eraftpb::SnapshotMetadata { index: last.index, term: last.term, conf_state: Some(conf_state) };
    let snapshot = Snapshot { metadata: Some(metadata), data: data.to_vec() };
    Message { snapshot: Some(snapshot), ..message(MessageType::MsgSnapshot, term) }
}

#[test]
fn a_leader_offers_a_snapshot_once_there_is_one_and_again_if_it_does_not_arrive() {
    let mut leader = leader_of_three();
    // The entry before the first one is gone.
    leader.step(Message { index: 2, from: 3, ..message(MessageType::MsgAppendResponse, 2) }).unwrap();
    settle(&mut leader);
    leader.applied_to(2);
    leader.purged_to(2);
    leader.step(Message { reject: true, index: 1, ..message(MessageType::MsgAppendResponse, 2) }).unwrap();
    settle(&mut leader);
    assert_eq!(leader.snapshot_wishes(), [2]);
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    let meta = SnapshotMeta { id: 77, last: EntryId::new(2, 2), conf_state };
    leader.offer_snapshot(Some(&meta));
    let heartbeat = message(MessageType::MsgHeartbeatResponse, 2);
    for _ in 0..2 {
        leader.step(heartbeat.clone()).unwrap();
        let sent = settle(&mut leader);
        let sent: Vec<_> = sent.iter().filter(|one| one.msg_type == MessageType::MsgSnapshot as i32).collect();
        assert_eq!(sent.len(), 1);
        assert!(leader.sends_snapshot_to(2) && leader.snapshot_wishes().is_empty());
        assert_eq!(leader.matched_by_active(), Some(2));
        leader.snapshot_failed(2);
        assert!(!leader.sends_snapshot_to(2));
        settle(&mut leader);
    }
    // A log that was cut further does not go on from it.
    leader.offer_snapshot(None);
    leader.step(heartbeat).unwrap();
    settle(&mut leader);
    assert_eq!(leader.snapshot_wishes(), [2]);
}

#[test]
fn a_snapshot_resets_the_log_and_its_leader_hears_of_it_after_the_sync() {
    let mut group = group(1, &[1, 2, 3]);
    group.step(append(2, 1, 1, vec![entry(2, 2, b"old"), entry(3, 2, b"older")])).unwrap();
    settle(&mut group);
    let last = EntryId::new(9, 4);
    let offer = group.offered(snapshot_message(5, last, &7_u64.to_be_bytes())).unwrap().unwrap();
    assert_eq!(offer, Offer { from: 2, id: 7, last });
    let conf_state = ConfState { voters: vec![1, 2, 4], ..ConfState::default() };
    let meta = SnapshotMeta { id: 7, last, conf_state: conf_state.clone() };
    assert!(!group.install(&SnapshotMeta { conf_state: ConfState::default(), ..meta.clone() }), "it is not in it");
    group.step(message(MessageType::MsgHeartbeat, 5)).unwrap();
    settle(&mut group);
    assert!(group.install(&meta));
    let work = group.work().unwrap();
    let write = work.write.unwrap();
    assert_eq!((write.reset, write.entries.len(), group.is_resetting()), (Some(last), 0, true));
    assert_eq!(write.hard_state.map(|state| (state.term, state.commit)), Some((5, 9)));
    assert!(work.messages.is_empty(), "nothing is promised before the sync");
    let answers = group.synced(write.number);
    assert_eq!(answers.iter().map(|answer| (answer.to, answer.index)).collect::<Vec<_>>(), [(2, 9)]);
    assert_eq!((group.commit(), group.cache().before(), group.is_resetting()), (9, 9, false));
    assert_eq!(group.conf_state().voters.iter().copied().collect::<std::collections::BTreeSet<_>>(), [1, 2, 4].into());
    group.step(append(5, 9, 4, vec![entry(10, 5, b"new")])).unwrap();
    settle(&mut group);
    group.step(Message { commit: 10, ..append(5, 10, 5, vec![]) }).unwrap();
    settle(&mut group);
    assert_eq!(group.commit(), 10);
}

#[test]
fn a_snapshot_that_brings_nothing_new_is_answered_and_one_that_makes_no_sense_is_refused() {
    let mut group = group(1, &[1, 2, 3]);
    group.step(append(2, 1, 1, vec![entry(2, 2, b"a"), entry(3, 2, b"b")])).unwrap();
    settle(&mut group);
    for (last, answer) in [(EntryId::new(1, 1), 1), (EntryId::new(3, 2), 3)] {
        assert_eq!(group.offered(snapshot_message(2, last, &[0; 8])), Ok(None));
        let answers = settle(&mut group);
        assert_eq!(answers.iter().map(|one| (one.to, one.index)).collect::<Vec<_>>(), [(2, answer)]);
    }
    for bad in [
        snapshot_message(2, EntryId::new(9, 3), &[0; 8]),
        snapshot_message(2, EntryId::new(0, 0), &[0; 8]),
        snapshot_message(2, EntryId::new(9, 2), b"short"),
        snapshot_message(2, EntryId::new(u64::MAX, 2), &[0; 8]),
        message(MessageType::MsgSnapshot, 2),
    ] {
        assert!(matches!(group.offered(bad), Err(Refused::Malformed { .. })));
    }
    assert_eq!(group.commit(), 3);
}

#[test]
fn nobody_campaigns_over_a_log_whose_reset_is_not_synced() {
    let mut group = group(1, &[1, 2, 3]);
    group.step(message(MessageType::MsgHeartbeat, 4)).unwrap();
    settle(&mut group);
    let conf_state = ConfState { voters: vec![1, 2, 3], ..ConfState::default() };
    assert!(group.install(&SnapshotMeta { id: 7, last: EntryId::new(9, 3), conf_state }));
    let reset = group.work().unwrap().write.unwrap();
    assert_eq!(reset.reset, Some(EntryId::new(9, 3)));
    (0..50).for_each(|_| group.tick());
    group.step(message(MessageType::MsgTimeoutNow, 4)).unwrap();
    assert_eq!(settle(&mut group), []);
    assert_eq!(group.standing(), Standing { term: 4, role: Role::Follower, leader: 2 });
    group.synced(reset.number);
    (0..20).for_each(|_| group.tick());
    let asks = settle(&mut group);
    assert!(asks.iter().all(|ask| (ask.get_msg_type(), ask.index) == (MessageType::MsgRequestPreVote, 9)), "{asks:?}");
    assert_eq!(asks.len(), 2);
}

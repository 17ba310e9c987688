//! A leader and a member that cannot take the snapshot that it is offered.

use std::mem;

use bytes::Bytes;
use raft::eraftpb::{
    ConfChangeTransition, ConfChangeType, ConfState, Message, MessageType, Snapshot, SnapshotMetadata,
};

use super::super::{
    CoreOptions, RetentionOptions, Role,
    tests::{Bench, change, options},
};
use crate::{
    log::EntryId,
    raft::{Offer, SnapshotMeta},
    store::Store,
};

/// What member 2 answers, which takes everything.
fn answer(message: &Message) -> Option<Message> {
    use MessageType as Kind;

    let kind = match MessageType::from_i32(message.msg_type)? {
        Kind::MsgRequestPreVote => Kind::MsgRequestPreVoteResponse,
        Kind::MsgRequestVote => Kind::MsgRequestVoteResponse,
        Kind::MsgAppend => Kind::MsgAppendResponse,
        Kind::MsgHeartbeat => Kind::MsgHeartbeatResponse,
        _ => return None,
    };
    let index = message.entries.last().map_or(message.index, |last| last.index);
    let context = message.context.clone();
    let mut answer = Message { from: 2, to: 1, term: message.term, index, context, ..Message::default() };
    answer.set_msg_type(kind);
    Some(answer)
}

impl Bench {
    /// Goes on until there is nothing left to do; member 2 answers. Gives what the others were sent.
    fn run_with_second(&mut self) -> Vec<Message> {
        let mut others = Vec::new();
        loop {
            self.run();
            let sent = mem::take(&mut self.messages);
            if sent.is_empty() {
                return others;
            }
            for message in sent {
                match answer(&message).filter(|_| message.to == 2) {
                    Some(answer) => self.core.step(answer).unwrap(),
                    None => others.push(message),
                }
            }
        }
    }

    /// Member 3 says that it is there.
    fn third_speaks(&mut self) {
        let term = self.core.status().standing.term;
        let mut heartbeat = Message { from: 3, to: 1, term, ..Message::default() };
        heartbeat.set_msg_type(MessageType::MsgHeartbeatResponse);
        self.core.step(heartbeat).unwrap();
    }

    /// The same. Gives the numbers of the snapshots that it is offered.
    fn third_is_there(&mut self) -> Vec<u64> {
        self.third_speaks();
        numbers_offered(&self.run_with_second())
    }

    /// Ticks after which member 3 is offered a snapshot, and its number.
    fn ticks_until_offered(&mut self) -> (u64, u64) {
        for ticks in 0..100 {
            if let [id] = self.third_is_there()[..] {
                return (ticks, id);
            }
            self.core.tick();
            self.run_with_second();
        }
        panic!("nothing is offered");
    }

    fn make_snapshot(&mut self, id: u64) {
        assert!(mem::take(&mut self.core.out.checkpoint), "none is wanted");
        let (index, term) = self.core.state().applied();
        let conf_state = self.core.conf_state();
        self.core.checkpointed(Some(&SnapshotMeta { id, last: EntryId::new(index, term), conf_state }));
    }
}

fn numbers_offered(sent: &[Message]) -> Vec<u64> {
    sent.iter().filter_map(|message| Some(Offer::of(message)?.id)).collect()
}

/// A leader of three whose log was cut while member 3 was away.
fn leader_with_cut_log(options: CoreOptions) -> Bench {
    let retention =
        RetentionOptions { snapshot_count: 5, catchup_commands: 1, flush_ticks_min: 0, ..RetentionOptions::default() };
    let mut bench = Bench::new(&[1, 2, 3], CoreOptions { retention, ..options });
    for _ in 0..100 {
        if bench.core.status().standing.role == Role::Leader {
            break;
        }
        bench.core.tick();
        bench.run_with_second();
    }
    for _ in 0..20 {
        bench.put();
        bench.run_with_second();
    }
    assert!(mem::take(&mut bench.core.out.flush), "20 commands are more than 5");
    bench.store.flush().unwrap();
    bench.core.flushed(bench.core.state().persisted_applied().unwrap());
    assert!(bench.core.out.purge.take().is_some());
    bench
}

#[test]
fn a_snapshot_that_a_member_says_did_not_come_is_offered_again_at_once_then_later_and_then_made_anew() {
    let mut bench = leader_with_cut_log(options());
    assert_eq!(bench.third_is_there(), [0; 0]);
    bench.make_snapshot(77);
    assert_eq!(bench.third_is_there(), [77]);
    assert_eq!(bench.third_is_there(), [0; 0], "it is on its way");
    bench.core.snapshot_unfetched(3, 76);
    bench.core.snapshot_unfetched(2, 77);
    assert_eq!(bench.third_is_there(), [0; 0], "that is another one's");

    bench.core.snapshot_unfetched(3, 77);
    assert_eq!(bench.ticks_until_offered(), (0, 77));
    bench.core.snapshot_unfetched(3, 77);
    bench.core.snapshot_unfetched(3, 77);
    assert_eq!(bench.ticks_until_offered(), (4, 77), "said twice is failed once");
    bench.core.snapshot_unfetched(3, 77);
    assert_eq!(bench.core.out.discard, [0; 0]);
    for _ in 0..8 {
        assert!(!bench.core.out.checkpoint);
        bench.core.tick();
        assert_eq!(bench.third_is_there(), [0; 0]);
    }
    assert_eq!(mem::take(&mut bench.core.out.discard), [77]);
    bench.make_snapshot(78);
    assert_eq!(bench.ticks_until_offered(), (0, 78));

    for pause in [16, 32] {
        bench.core.snapshot_unfetched(3, 78);
        assert_eq!(bench.ticks_until_offered(), (pause, 78));
    }
    // Never later than without a word.
    bench.core.snapshot_unfetched(3, 78);
    for _ in 0..options().snapshot_silence_ticks {
        assert!(!bench.core.out.checkpoint);
        bench.core.tick();
        assert_eq!(bench.third_is_there(), [0; 0]);
    }
    bench.make_snapshot(79);
    assert_eq!(bench.ticks_until_offered(), (0, 79));
}

#[test]
fn a_snapshot_that_is_gone_before_its_offer_can_be_sent_is_made_anew_once_the_member_says_so() {
    const IDLE_TICKS: u64 = 2;
    let mut bench = leader_with_cut_log(CoreOptions { snapshot_idle_ticks: IDLE_TICKS, ..options() });
    assert_eq!(bench.third_is_there(), [0; 0]);
    // Member 2 is removed: nobody is told anything until that is synced.
    let removal = change(&[(2, ConfChangeType::RemoveNode)], ConfChangeTransition::Auto);
    bench.core.propose_conf_change(900, removal, &Bytes::new(), 900);
    bench.turn();
    bench.sync();
    for message in mem::take(&mut bench.messages).iter().filter(|message| message.to == 2) {
        bench.core.step(answer(message).unwrap()).unwrap();
    }
    bench.turn();
    assert_eq!(bench.unsynced.len(), 1, "the removal is to be known for good");
    bench.make_snapshot(77);
    bench.third_speaks();
    bench.turn();
    for _ in 0..=IDLE_TICKS {
        bench.core.tick();
        bench.turn();
    }
    assert_eq!(numbers_offered(&mem::take(&mut bench.messages)), [0; 0], "the offer waits");
    assert_eq!(mem::take(&mut bench.core.out.discard), [77], "nobody seems to need it");
    bench.sync();
    assert_eq!(numbers_offered(&mem::take(&mut bench.messages)), [77]);

    bench.core.snapshot_unfetched(3, 77);
    assert_eq!(bench.third_is_there(), [0; 0]);
    bench.make_snapshot(78);
    assert_eq!(bench.third_is_there(), [78]);
}

#[test]
fn a_member_that_could_not_take_a_snapshot_tells_whoever_offered_it() {
    let mut bench = Bench::new(&[1, 2], options());
    let conf_state = ConfState { voters: vec![1, 2], ..ConfState::default() };
    let metadata = SnapshotMetadata { index: 9, term: 2, conf_state: Some(conf_state) };
    let snapshot = Snapshot { metadata: Some(metadata), data: 77_u64.to_be_bytes().to_vec() };
    let mut offer = Message { from: 2, to: 1, term: 2, snapshot: Some(snapshot), ..Message::default() };
    offer.set_msg_type(MessageType::MsgSnapshot);
    bench.core.step(offer.clone()).unwrap();
    assert_eq!(bench.core.out.receive.take().map(|offer| offer.id), Some(77));
    bench.core.received(76, None);
    assert_eq!(bench.core.out.snapshot_failed, None);
    bench.core.received(77, None);
    assert_eq!(bench.core.out.snapshot_failed.take(), Some((2, 77)));
    bench.core.step(offer).unwrap();
    assert!(bench.core.out.receive.is_some(), "it takes the next one");
}

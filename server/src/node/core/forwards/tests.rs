//! What becomes of forwarded commands: three cores in one thread.

use cairn_proto::{etcdserverpb as pb, mvccpb::KeyValue};
use prost::Message as _;

use super::*;
use crate::{
    node::core::tests::cluster::{Cluster, ELECTION_TICKS},
    state::{auth::Authorizer, command::Request},
};

/// A cluster of three with its leader, and its two followers.
fn three() -> (Cluster, usize, [usize; 2]) {
    let cluster = Cluster::new(3);
    let leader = cluster.leader().unwrap();
    (cluster, leader, [(leader + 1) % 3, (leader + 2) % 3])
}

/// How often a key was written, at each member.
fn versions(cluster: &Cluster) -> Vec<i64> {
    let version = |at: &usize| {
        let reader = cluster.cores[*at].state().reader();
        let request = pb::RangeRequest { key: "k".into(), ..pb::RangeRequest::default() };
        let rows = reader.range(&reader.pin(&Authorizer::default().own(), 0).unwrap(), &request).unwrap();
        rows.kvs.first().map_or(0, |kv| KeyValue::decode(&kv[..]).unwrap().version)
    };
    (0..cluster.cores.len()).collect::<Vec<_>>().iter().map(version).collect()
}

fn term(cluster: &Cluster, at: usize) -> u64 {
    cluster.cores[at].standing.term
}

fn dropped(cluster: &Cluster, at: usize, reason: DropReason) -> u64 {
    cluster.cores[at].status().drops[reason as usize]
}

/// Cuts the leader off and waits for another one. Gives its number.
fn succeed(cluster: &mut Cluster, leader: usize) -> usize {
    cluster.cut_off[leader] = true;
    cluster.until(|cluster| {
        let next = cluster.leader();
        next.is_some_and(|next| next != leader && cluster.cores[next].applied.1 == term(cluster, next))
    });
    cluster.leader().unwrap()
}

/// Lets a leader that was cut off come back, and all members catch up.
fn heal(cluster: &mut Cluster) {
    cluster.cut_off.fill(false);
    for _ in 0..3 * ELECTION_TICKS {
        cluster.tick();
    }
}

#[test]
fn a_write_that_a_dead_leader_was_sent_is_forwarded_anew_when_the_next_one_begins() {
    for through in 0..2 {
        let (mut cluster, leader, followers) = three();
        cluster.cut_off[leader] = true;
        // It is lost on its way.
        let put = cluster.put(followers[through]);
        assert!(!cluster.answered.contains(&put));
        // The follower may be the one that leads next, or not.
        let next = succeed(&mut cluster, leader);
        cluster.settle();
        assert!(cluster.answered.contains(&put), "through {} where {next} leads", followers[through]);
        heal(&mut cluster);
        assert_eq!(versions(&cluster), [1, 1, 1]);
        assert!(cluster.refused.is_empty());
    }
}

#[test]
fn what_a_deposed_leader_had_proposed_itself_and_what_waited_there_is_handed_on() {
    let (mut cluster, leader, _) = three();
    cluster.cut_off[leader] = true;
    // Some are in its log, some in its queue.
    let puts: Vec<u64> = (0..5).map(|_| cluster.put(leader)).collect();
    succeed(&mut cluster, leader);
    assert!(puts.iter().all(|put| !cluster.answered.contains(put)));
    heal(&mut cluster);
    assert!(puts.iter().all(|put| cluster.answered.contains(put)), "{:?}", cluster.refused);
    assert_eq!(versions(&cluster), [5, 5, 5]);
}

#[test]
fn what_was_applied_before_the_later_term_began_is_not_forwarded_anew() {
    let (mut cluster, leader, [follower, other]) = three();
    // The leader's entry reaches all, but neither follower hears that it is committed before the leader dies.
    cluster.holds_forwards = true;
    let put = cluster.put(follower);
    let (at, forward) = cluster.held.pop().unwrap();
    cluster.holds_forwards = false;
    cluster.arrive(at, forward);
    cluster.cores[leader].advance().unwrap();
    let appends = std::mem::take(&mut cluster.cores[leader].out.messages);
    cluster.cut_off[leader] = true;
    for append in appends.into_iter().filter(|append| [follower, other].contains(&(append.to as usize - 1))) {
        let to = append.to as usize - 1;
        cluster.cores[to].step(append).unwrap();
    }
    cluster.settle();
    assert!(!cluster.answered.contains(&put));
    succeed(&mut cluster, leader);
    assert!(cluster.answered.contains(&put));
    heal(&mut cluster);
    assert_eq!(versions(&cluster), [1, 1, 1]);
}

#[test]
fn only_the_leader_of_its_own_term_proposes_a_command_and_others_say_so() {
    let (mut cluster, leader, [follower, other]) = three();
    cluster.holds_forwards = true;
    let put = cluster.put(follower);
    let (at, late) = cluster.held.pop().unwrap();
    cluster.holds_forwards = false;
    // The leader leads again, in a later term.
    cluster.cores[leader].transfer_leader(other as u64 + 1);
    cluster.until(|cluster| cluster.leader() == Some(other));
    cluster.cores[other].transfer_leader(leader as u64 + 1);
    cluster.until(|cluster| cluster.leader() == Some(leader));
    assert!(term(&cluster, leader) > late.term);
    assert!(cluster.answered.contains(&put), "it was forwarded anew");
    for to in [leader, other, follower] {
        cluster.arrive(at, Forward { to: to as u64 + 1, ..late.clone() });
        cluster.settle();
        assert_eq!(dropped(&cluster, to, DropReason::OtherTerm), 1);
    }
    heal(&mut cluster);
    assert_eq!(versions(&cluster), [1, 1, 1]);
}

#[test]
fn the_term_is_looked_at_when_a_command_is_proposed_and_not_only_when_it_arrives() {
    let (mut cluster, leader, [follower, other]) = three();
    cluster.holds_forwards = true;
    let put = cluster.put(follower);
    let (_, forward) = cluster.held.pop().unwrap();
    cluster.holds_forwards = false;
    cluster.loses_refusals = true;
    // It waits in the queue while leadership is handed over, and the refusal is lost.
    let core = &mut cluster.cores[leader];
    core.transfer_leader(other as u64 + 1);
    core.forwarded(forward.term, forward.command);
    assert_eq!(core.status().drops, Drops::default());
    cluster.until(|cluster| cluster.leader() == Some(other));
    assert_eq!(dropped(&cluster, leader, DropReason::OtherTerm), 1);
    heal(&mut cluster);
    assert!(cluster.answered.contains(&put));
    assert_eq!(versions(&cluster), [1, 1, 1]);
}

#[test]
fn a_leader_that_leads_no_more_is_asked_nothing_more_in_that_term() {
    let (mut cluster, leader, [follower, _]) = three();
    cluster.holds_forwards = true;
    let put = cluster.put(follower);
    let (_, forward) = cluster.held.pop().unwrap();
    let refused =
        RefusedForward { nonce: 9, counter: forward.counter, term: forward.term, why: ForwardRefusal::NotLeading };
    for wrong in [RefusedForward { nonce: 8, ..refused }, RefusedForward { term: forward.term - 1, ..refused }] {
        cluster.cores[follower].forward_refused(wrong);
        cluster.settle();
        assert!(cluster.cores[follower].queue.is_empty(), "it is about something else");
    }
    cluster.cores[follower].forward_refused(refused);
    let second = cluster.put(follower);
    assert!(cluster.held.is_empty(), "{:?}", cluster.held);
    cluster.holds_forwards = false;
    succeed(&mut cluster, leader);
    cluster.settle();
    assert!(cluster.answered.contains(&put) && cluster.answered.contains(&second));
    heal(&mut cluster);
    assert_eq!(versions(&cluster), [2, 2, 2]);
}

#[test]
fn a_full_leader_refuses_and_the_client_is_told_at_once() {
    let mut cluster = Cluster::with_options(3, |options| options.queue_commands_max = 2);
    let leader = cluster.leader().unwrap();
    let follower = (leader + 1) % 3;
    // It waits for its disk: two writes are on their way, two commands in the queue.
    cluster.stalled[leader] = true;
    for _ in 0..4 {
        cluster.put(leader);
    }
    let put = cluster.put(follower);
    assert_eq!(cluster.refused, [(put, ProposeError::TooManyRequests)]);
    assert_eq!(dropped(&cluster, leader, DropReason::QueueFull), 1);
    cluster.stalled[leader] = false;
    cluster.until(|cluster| cluster.answered.len() == 4);
    assert_eq!(versions(&cluster)[leader], 4, "the refused one never takes effect");
}

#[test]
fn what_cannot_be_sent_and_what_comes_without_a_leader_waits_and_goes_on() {
    let (mut cluster, leader, [follower, _]) = three();
    cluster.has_no_way = true;
    let put = cluster.put(follower);
    cluster.tick();
    assert!(cluster.answered.is_empty());
    cluster.has_no_way = false;
    cluster.settle();
    assert!(cluster.answered.is_empty(), "it is tried again at the next tick");
    cluster.tick();
    assert_eq!(cluster.answered, [put]);
    // There is no leader: neither of the two hears the other one.
    cluster.cut_off.fill(true);
    cluster.until(|cluster| cluster.cores[follower].standing.leader == 0);
    let waits = cluster.put(follower);
    cluster.cut_off.fill(false);
    cluster.cut_off[leader] = true;
    cluster.until(|cluster| cluster.answered.contains(&waits));
    assert!(cluster.refused.is_empty());
}

#[test]
fn a_command_that_is_forwarded_anew_keeps_its_deadline() {
    let (mut cluster, leader, [follower, other]) = three();
    cluster.holds_forwards = true;
    let put = cluster.put(follower);
    let asked_at = cluster.cores[follower].now;
    cluster.cores[leader].transfer_leader(other as u64 + 1);
    cluster.until(|cluster| cluster.leader() == Some(other));
    assert_eq!(cluster.held.len(), 2, "it was forwarded anew, and got lost again");
    let ticks = cluster.cores[follower].options.request_ticks;
    cluster.until(|cluster| !cluster.refused.is_empty());
    assert_eq!(cluster.refused[0].0, put);
    assert_eq!(cluster.cores[follower].now - asked_at, ticks);
    assert_eq!(cluster.cores[follower].status().pending, 0);
}

#[test]
fn what_a_member_of_an_earlier_build_was_sent_is_never_forwarded_anew() {
    let (mut cluster, leader, [follower, other]) = three();
    cluster.earlier[leader] = true;
    cluster.holds_forwards = true;
    let put = cluster.put(follower);
    let (at, forward) = cluster.held.pop().unwrap();
    cluster.cores[leader].transfer_leader(other as u64 + 1);
    cluster.until(|cluster| cluster.leader() == Some(other));
    assert!(cluster.held.is_empty() && !cluster.answered.contains(&put));
    // It comes late, and that leader hands it on.
    cluster.holds_forwards = false;
    cluster.arrive(at, forward);
    cluster.settle();
    assert!(cluster.answered.contains(&put));
    heal(&mut cluster);
    assert_eq!(versions(&cluster), [1, 1, 1]);
}

#[test]
fn what_a_member_of_an_earlier_build_forwards_is_taken_in_every_term() {
    let (mut cluster, leader, [follower, other]) = three();
    cluster.earlier[follower] = true;
    cluster.holds_forwards = true;
    let put = cluster.put(follower);
    let (at, forward) = cluster.held.pop().unwrap();
    cluster.holds_forwards = false;
    cluster.cores[leader].transfer_leader(other as u64 + 1);
    cluster.until(|cluster| cluster.leader() == Some(other));
    cluster.arrive(at, forward);
    cluster.settle();
    assert!(cluster.answered.contains(&put), "it is handed on to who leads now");
    assert_eq!(versions(&cluster)[leader], 1);
}

#[test]
fn a_membership_change_of_a_deposed_leader_is_not_made_again() {
    let (mut cluster, leader, _) = three();
    cluster.cut_off[leader] = true;
    let change = crate::node::core::tests::change(
        &[(7, raft::eraftpb::ConfChangeType::AddLearnerNode)],
        raft::eraftpb::ConfChangeTransition::Auto,
    );
    cluster.cores[leader].propose_conf_change(700, change, &Bytes::new(), 700);
    cluster.settle();
    succeed(&mut cluster, leader);
    heal(&mut cluster);
    assert_eq!(cluster.refused, [(700, ProposeError::LeaderChanged)]);
    assert!(cluster.cores.iter().all(|core| core.state().conf_state().learners.is_empty()));
}

#[test]
fn other_kinds_of_commands_are_forwarded_anew_alike() {
    let (mut cluster, leader, [follower, _]) = three();
    cluster.cut_off[leader] = true;
    let grant = cluster.propose(follower, Request::LeaseGrant(pb::LeaseGrantRequest { id: 5, ttl: 60 }));
    succeed(&mut cluster, leader);
    cluster.settle();
    assert!(cluster.answered.contains(&grant));
}

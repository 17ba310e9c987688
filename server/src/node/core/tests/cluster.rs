//! Several cores whose messages arrive at once.

use std::{mem, sync::Arc};

use cairn_proto::etcdserverpb as pb;
use raft::eraftpb::{Message, MessageType};

use crate::{
    node::{
        ProposeError,
        core::{ANY_TERM, Core, CoreOptions, Forward, ReadIndexError, log_of_new_cluster},
    },
    raft::{InFlight, RaftOptions, Role},
    state::{
        Membership, State, StateOptions,
        auth::Actor,
        command::{COMMAND_LEVEL, Command, Request, RequestId, encode},
    },
    store::{MemStore, Store},
};

pub(in super::super) const ELECTION_TICKS: u64 = 10;
/// Ticks within which everything that must come true does.
const SOON_TICKS: u64 = 100;
const TICK_MS: u64 = 100;

/// Members whose messages arrive at once, and whose disks sync at once unless they are stalled.
pub(in super::super) struct Cluster {
    pub(in super::super) cores: Vec<Core<u64, u64>>,
    unsynced: Vec<Vec<InFlight>>,
    pub(in super::super) stalled: Vec<bool>,
    /// Members that nothing arrives at and nothing comes from.
    pub(in super::super) cut_off: Vec<bool>,
    /// Messages that tell a member to campaign do not arrive.
    pub(in super::super) loses_hand_overs: bool,
    pub(in super::super) now: u64,
    counter: u64,
    pub(in super::super) answered: Vec<u64>,
    /// What was refused, and why.
    pub(in super::super) refused: Vec<(u64, ProposeError)>,
    /// These are of an earlier build, which knows nothing of terms.
    pub(in super::super) earlier: Vec<bool>,
    /// Forwarded commands do not arrive, but are kept here.
    pub(in super::super) holds_forwards: bool,
    pub(in super::super) held: Vec<(usize, Forward)>,
    /// Refusals do not arrive.
    pub(in super::super) loses_refusals: bool,
    /// Forwarded commands cannot be sent.
    pub(in super::super) has_no_way: bool,
    pub(in super::super) reads: Vec<(u64, Result<(), ReadIndexError>)>,
}

impl Cluster {
    pub(in super::super) fn new(count: u64) -> Self {
        Self::with_options(count, |_| {})
    }

    pub(in super::super) fn with_options(count: u64, choose: impl Fn(&mut CoreOptions)) -> Self {
        let members: Vec<_> = (1..=count).map(|id| pb::Member { id, ..pb::Member::default() }).collect();
        let core = |id: u64| {
            let store: Arc<dyn Store> = Arc::new(MemStore::new());
            let options = StateOptions { answers_for: Some((id, 9)), ..StateOptions::default() };
            let mut state = State::open(store, options).unwrap();
            state.bootstrap(&Membership { cluster_id: 7, members: members.clone() }, 1, 1).unwrap();
            let mut options = CoreOptions::new(RaftOptions::new(id, id), 9);
            choose(&mut options);
            Core::start(options, state, log_of_new_cluster()).unwrap()
        };
        let each = count as usize;
        let mut cluster = Self {
            cores: (1..=count).map(core).collect(),
            unsynced: (0..each).map(|_| Vec::new()).collect(),
            stalled: vec![false; each],
            cut_off: vec![false; each],
            loses_hand_overs: false,
            now: 0,
            counter: 0,
            answered: Vec::new(),
            refused: Vec::new(),
            earlier: vec![false; each],
            holds_forwards: false,
            held: Vec::new(),
            loses_refusals: false,
            has_no_way: false,
            reads: Vec::new(),
        };
        assert_eq!(cluster.cores[0].options.raft.election_ticks as u64, ELECTION_TICKS);
        cluster.until(|cluster| cluster.leader().is_some_and(|at| cluster.cores[at].applied.1 > 1));
        cluster
    }

    /// The member that leads in the newest term.
    pub(in super::super) fn leader(&self) -> Option<usize> {
        let leads = |at: &usize| self.cores[*at].standing.role == Role::Leader;
        (0..self.cores.len()).filter(leads).max_by_key(|&at| self.cores[at].standing.term)
    }

    pub(in super::super) fn tick(&mut self) {
        self.now += TICK_MS;
        for core in &mut self.cores {
            core.time_is(self.now);
            core.tick();
        }
        self.settle();
    }

    pub(in super::super) fn until(&mut self, holds: impl Fn(&Self) -> bool) -> u64 {
        (0..SOON_TICKS)
            .find(|_| {
                self.tick();
                holds(self)
            })
            .expect("it comes true soon")
    }

    /// Everything happens that can happen without time.
    pub(in super::super) fn settle(&mut self) {
        loop {
            let mut messages: Vec<Message> = Vec::new();
            let mut forwards = Vec::new();
            let mut refusals = Vec::new();
            for at in 0..self.cores.len() {
                let core = &mut self.cores[at];
                core.advance().unwrap();
                while core.apply().unwrap() {
                    core.advance().unwrap();
                }
                core.advance().unwrap();
                self.unsynced[at].append(&mut core.out.writes);
                if !self.stalled[at] {
                    for write in mem::take(&mut self.unsynced[at]) {
                        core.synced(write.number);
                    }
                }
                let sent = mem::take(&mut core.out.messages);
                messages.extend(sent.into_iter().filter(|_| !self.cut_off[at]));
                forwards.extend(core.out.forwards.drain(..).map(|forward| (at, forward)));
                refusals.append(&mut core.out.refusals);
                for (waiter, answer) in core.out.answers.drain(..) {
                    match answer {
                        Ok(_) => self.answered.push(waiter),
                        Err(error) => self.refused.push((waiter, error)),
                    }
                }
                self.reads.append(&mut core.out.reads);
            }
            if messages.is_empty() && forwards.is_empty() && refusals.is_empty() {
                break;
            }
            for message in messages {
                let to = message.to as usize - 1;
                let lost = self.loses_hand_overs && message.msg_type == MessageType::MsgTimeoutNow as i32;
                if !self.cut_off[to] && !lost {
                    self.cores[to].step(message).unwrap();
                }
            }
            for (at, forward) in forwards {
                self.send(at, forward);
            }
            for (to, refused) in refusals {
                if !self.loses_refusals && !self.cut_off[to as usize - 1] {
                    self.cores[to as usize - 1].forward_refused(refused);
                }
            }
        }
    }

    pub(in super::super) fn propose(&mut self, at: usize, request: Request) -> u64 {
        self.counter += 1;
        let id = RequestId { member: at as u64 + 1, nonce: 9, counter: self.counter };
        let command = encode(&Command { id, actor: Actor::Anonymous, request }, COMMAND_LEVEL);
        self.cores[at].propose(self.counter, command, self.counter);
        self.settle();
        self.counter
    }

    pub(in super::super) fn put(&mut self, at: usize) -> u64 {
        self.propose(at, Request::Put(pb::PutRequest { key: "k".into(), ..pb::PutRequest::default() }))
    }

    /// Sends a forwarded command, as the connections between members do.
    fn send(&mut self, at: usize, forward: Forward) {
        let to = forward.to as usize - 1;
        if self.has_no_way {
            self.cores[at].unsent(forward);
        } else {
            if self.earlier[at] || self.earlier[to] {
                self.cores[at].sent_loosely(forward.counter);
            }
            if self.holds_forwards {
                self.held.push((at, forward));
            } else if !self.cut_off[at] {
                self.arrive(at, forward);
            }
        }
    }

    /// Lets a forwarded command arrive, unless the member is cut off.
    pub(in super::super) fn arrive(&mut self, at: usize, forward: Forward) {
        let Forward { to, term, command, .. } = forward;
        let to = to as usize - 1;
        let term = if self.earlier[at] || self.earlier[to] { ANY_TERM } else { term };
        if !self.cut_off[to] {
            self.cores[to].forwarded(term, command);
        }
    }
}

//! Leases: the clock hears of what was applied, and what is due goes into the log.
//!
//! What the clock decides is packed by the leader itself, straight into an entry of its own term: it never stands in the queue, so it is neither
//! forwarded to another leader nor proposed in another term. One such entry is under way at a time.

use std::sync::Arc;

use bytes::Bytes;
use cairn_proto::etcdserverpb::{LeaseCheckpoint, LeaseCheckpointRequest};
use parking_lot::Mutex;

use super::{Core, NodeError};
use crate::{
    lease::{Due, DueLimits, LeaseClock},
    raft::Role,
    state::{
        auth::Actor,
        command::{self, Command, ENTRY_COMMANDS_MAX, Request, RequestId},
    },
};

/// What of expired leases and remaining times goes into one entry. Applying it takes a few milliseconds, in which nobody's write is applied.
const LIMITS: DueLimits = DueLimits { expired: ENTRY_COMMANDS_MAX - 1, keys: 1024, remaining: 1000 };

/// The counter of commands that nobody waits for.
const NOBODY: u64 = 0;

/// The leases' part of a core.
#[derive(Debug)]
pub(super) struct Leases {
    pub(super) clock: Arc<Mutex<LeaseClock>>,
    /// Something may be due.
    look: bool,
    /// The entry with what was due last.
    last_entry: u64,
}

impl Leases {
    pub(super) fn new(clock: LeaseClock) -> Self {
        Self { clock: Arc::new(Mutex::new(clock)), look: false, last_entry: 0 }
    }

    /// Time has passed.
    pub(super) fn tick(&mut self) {
        self.look = true;
    }
}

impl<W, R> Core<W, R> {
    /// Tells the time that leases live by, in milliseconds. It never goes back.
    pub fn time_is(&mut self, now_ms: u64) {
        self.leases.clock.lock().pass(now_ms);
    }

    /// The clock over leases. Whoever else uses it holds it for microseconds only.
    pub fn lease_clock(&self) -> &Arc<Mutex<LeaseClock>> {
        &self.leases.clock
    }

    /// Notes that a client's command goes into entry `index`.
    pub(super) fn see_grant(&mut self, index: u64, command: &Bytes) {
        if let Some(id) = command::granted_lease(command) {
            self.leases.clock.lock().proposed_grant(index, id);
        }
    }

    /// Puts what is due into an entry.
    pub(super) fn pack_leases(&mut self) -> Result<(), NodeError> {
        if !self.leases.look || self.leases.last_entry > self.applied.0 || !self.may_propose() {
            return Ok(());
        }
        let due = {
            let mut clock = self.leases.clock.lock();
            if clock.leads() != Some(self.standing.term) {
                return Ok(());
            }
            clock.due(LIMITS, |id| self.state.lease_keys(id))
        };
        if due.is_empty() {
            self.leases.look = false;
            return Ok(());
        }
        for request in requests(due, self.standing.term) {
            let id = RequestId { member: self.options.raft.member, nonce: self.options.nonce, counter: NOBODY };
            let command = command::encode(&Command { id, actor: Actor::Server, request }, self.state.command_level());
            if !self.builder.push(&command) {
                self.close_entry()?;
                let alone = self.builder.push(&command);
                debug_assert!(alone, "an empty entry takes any one command");
            }
        }
        self.close_entry()?;
        self.leases.last_entry = self.group.last_index();
        Ok(())
    }

    /// Lets the clock know what was applied, and that this member leads, once it does. Before anybody is answered.
    pub(super) fn leases_applied(&mut self) {
        let changes = self.state.take_lease_changes();
        let leads = self.standing.role == Role::Leader && self.applied.1 == self.standing.term;
        let mut clock = self.leases.clock.lock();
        clock.applied(self.applied.0, &changes);
        if leads && clock.leads() != Some(self.standing.term) {
            clock.lead(self.standing.term, self.state.views().leases.all());
            self.leases.look = true;
        }
        drop(clock);
        self.out.lease_changes.extend(changes);
    }

    /// Lets the clock know that this member does not lead any more.
    pub(super) fn leases_standing(&mut self) {
        let mut clock = self.leases.clock.lock();
        if self.standing.role != Role::Leader || clock.leads().is_some_and(|term| term != self.standing.term) {
            clock.follow();
            // That entry may be lost; what follows it in the log is applied before this member leads again.
            self.leases.last_entry = 0;
        }
    }
}

fn requests(due: Due, term: u64) -> impl Iterator<Item = Request> {
    let Due { expired, remaining } = due;
    let record = (!remaining.is_empty()).then(|| {
        let checkpoints =
            remaining.into_iter().map(|(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl }).collect();
        Request::LeaseCheckpoint(LeaseCheckpointRequest { checkpoints })
    });
    let revokes = expired.into_iter().map(move |id| Request::LeaseRevoke { id, expired_in_term: Some(term) });
    revokes.chain(record)
}

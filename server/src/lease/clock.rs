//! The clock: expiries, and what is due.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    time::Duration,
};

use crate::state::{Lease, LeaseChange};

/// Time after which an expired lease that is still there is revoked again. Only an alarm keeps a revoke from taking effect.
const REVOKE_AGAIN_MS: u64 = 3_000;
/// Entries of the queue for leases that are gone already, before the queue is built anew.
const STALE_MIN: usize = 1024;

/// What becomes of a keep-alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease has its whole time again: this many seconds.
    Renewed(i64),
    /// Its remaining time is, or is about to be, recorded in the log. The whole time has to be recorded before it may be renewed.
    Recorded,
    /// It has run out, and is about to be revoked.
    Expired,
    /// There is no such lease.
    Unknown,
}

/// This member does not lead, or has not applied an entry of its own term yet: it knows no times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this member does not lead")]
pub struct NotLeading;

/// How long a lease has been given and has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLeft {
    /// Seconds granted.
    pub ttl: i64,
    /// Milliseconds left, 0 for one that has run out.
    pub left_ms: u64,
}

/// What is to be written to the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// Leases that have run out, to be revoked.
    pub expired: Vec<i64>,
    /// Leases whose remaining seconds are to be recorded.
    pub remaining: Vec<(i64, i64)>,
}

impl Due {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.expired.is_empty() && self.remaining.is_empty()
    }
}

/// How much [`LeaseClock::due`] gives at once.
#[derive(Debug, Clone, Copy)]
pub struct DueLimits {
    /// Leases to revoke.
    pub expired: usize,
    /// Keys that hang on them; one lease is always given, however many keys it has.
    pub keys: usize,
    /// Remaining times to record.
    pub remaining: usize,
}

/// One lease.
#[derive(Debug)]
struct Timer {
    ttl: i64,
    expiry: u64,
    /// Which one it was of all times that were set.
    set: u64,
    /// When it stands in the queue.
    due: u64,
    /// The log says how long it has left.
    recorded: bool,
    /// A record of that is on its way through the log.
    recording: bool,
}

/// The times of all leases, while this member leads. All times are milliseconds from the same beginning.
#[derive(Debug)]
pub struct LeaseClock {
    /// The term in which this member leads.
    term: Option<u64>,
    now: u64,
    /// Times that were set by grants and renewals.
    set: u64,
    checkpoint_ms: u64,
    timers: HashMap<i64, Timer>,
    /// When to look at which lease. An entry counts if its time is the lease's `due`.
    queue: BinaryHeap<Reverse<(u64, i64)>>,
    /// Grants in the log that are not applied: index and id, and how many of each id.
    grants: VecDeque<(u64, i64)>,
    granting: HashMap<i64, u32>,
}

fn ttl_ms(ttl: i64) -> u64 {
    u64::try_from(ttl).unwrap_or(0).saturating_mul(1000)
}

/// The end of a time that began within the millisecond `now`.
fn end_of(now: u64, ttl: i64) -> u64 {
    now.saturating_add(ttl_ms(ttl)).saturating_add(1)
}

impl LeaseClock {
    /// A clock of a member that does not lead. The remaining time of leases that are longer is recorded after each `checkpoint` without a renewal.
    pub fn new(checkpoint: Duration) -> Self {
        Self {
            term: None,
            now: 0,
            set: 0,
            checkpoint_ms: u64::try_from(checkpoint.as_millis()).unwrap_or(u64::MAX).max(1),
            timers: HashMap::new(),
            queue: BinaryHeap::new(),
            grants: VecDeque::new(),
            granting: HashMap::new(),
        }
    }

    /// Tells the time. It never goes back.
    pub fn pass(&mut self, now: u64) {
        self.now = self.now.max(now);
    }

    /// The term in which this member leads, once it has applied an entry of it.
    pub fn leads(&self) -> Option<u64> {
        self.term
    }

    /// Leases it keeps the time of.
    pub fn len(&self) -> usize {
        self.timers.len()
    }

    /// Whether it keeps the time of none.
    pub fn is_empty(&self) -> bool {
        self.timers.is_empty()
    }

    /// Entries of its queue.
    #[cfg(test)]
    pub(super) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// This member leads and has applied an entry of `term`: every lease gets its whole time, or what was recorded of it.
    pub fn lead(&mut self, term: u64, leases: Vec<Lease>) {
        self.term = Some(term);
        self.timers = HashMap::with_capacity(leases.len());
        let mut queue = Vec::with_capacity(leases.len());
        for Lease { id, ttl, remaining } in leases {
            let left = if remaining > 0 { remaining.min(ttl) } else { ttl };
            let mut timer = Timer {
                ttl,
                expiry: end_of(self.now, left),
                set: 0,
                due: 0,
                recorded: remaining > 0,
                recording: false,
            };
            timer.due = self.next_due(&timer, self.now);
            queue.push(Reverse((timer.due, id)));
            self.timers.insert(id, timer);
        }
        self.queue = queue.into();
    }

    /// This member does not lead any more: it forgets every time.
    pub fn follow(&mut self) {
        self.term = None;
        self.timers = HashMap::new();
        self.queue = BinaryHeap::new();
        self.grants = VecDeque::new();
        self.granting = HashMap::new();
    }

    /// Notes a grant that entry `index` will apply.
    pub fn proposed_grant(&mut self, index: u64, id: i64) {
        self.grants.push_back((index, id));
        *self.granting.entry(id).or_default() += 1;
    }

    /// Takes what the state machine did, up to entry `index`.
    pub fn applied(&mut self, index: u64, changes: &[LeaseChange]) {
        while let Some((_, id)) = self.grants.pop_front_if(|(granted, _)| *granted <= index) {
            if let Some(count) = self.granting.get_mut(&id) {
                *count -= 1;
                if *count == 0 {
                    self.granting.remove(&id);
                }
            }
        }
        if self.term.is_none() {
            return;
        }
        for change in changes {
            match *change {
                LeaseChange::Granted { id, ttl } => self.granted(id, ttl),
                LeaseChange::Revoked { id, .. } => self.revoked(id),
                LeaseChange::Checkpointed { id, remaining } => {
                    if let Some(timer) = self.timers.get_mut(&id) {
                        timer.recorded = remaining > 0;
                        timer.recording &= remaining == 0;
                    }
                }
            }
        }
    }

    fn granted(&mut self, id: i64, ttl: i64) {
        self.set += 1;
        let (expiry, set) = (end_of(self.now, ttl), self.set);
        let mut timer = Timer { ttl, expiry, set, due: 0, recorded: false, recording: false };
        timer.due = self.next_due(&timer, self.now);
        self.queue.push(Reverse((timer.due, id)));
        self.timers.insert(id, timer);
    }

    fn revoked(&mut self, id: i64) {
        self.timers.remove(&id);
        if self.queue.len() > 2 * self.timers.len() + STALE_MIN {
            self.timers.shrink_to(2 * self.timers.len());
            self.queue = self.timers.iter().map(|(&id, timer)| Reverse((timer.due, id))).collect();
        }
    }

    /// When a lease has to be looked at next, if it was last at `now`.
    fn next_due(&self, timer: &Timer, now: u64) -> u64 {
        let is_long = ttl_ms(timer.ttl) > self.checkpoint_ms;
        if is_long { timer.expiry.min(now.saturating_add(self.checkpoint_ms)) } else { timer.expiry }
    }

    /// Gives a lease its whole time from `now` on. To be called after a read index that was asked for after the request came.
    pub fn renew(&mut self, id: i64, now: u64) -> Result<Renewal, NotLeading> {
        self.pass(now);
        if self.term.is_none() {
            return Err(NotLeading);
        }
        let Some(timer) = self.timers.get_mut(&id) else { return Ok(Renewal::Unknown) };
        if timer.expiry <= self.now {
            return Ok(Renewal::Expired);
        }
        if timer.recorded || timer.recording {
            return Ok(Renewal::Recorded);
        }
        self.set += 1;
        (timer.expiry, timer.set) = (end_of(self.now, timer.ttl), self.set);
        Ok(Renewal::Renewed(timer.ttl))
    }

    /// How long a lease has left, if it exists.
    pub fn time_left(&mut self, id: i64, now: u64) -> Result<Option<TimeLeft>, NotLeading> {
        self.pass(now);
        if self.term.is_none() {
            return Err(NotLeading);
        }
        let left = |timer: &Timer| TimeLeft { ttl: timer.ttl, left_ms: timer.expiry.saturating_sub(self.now) };
        Ok(self.timers.get(&id).map(left))
    }

    /// When each lease runs out, a number that tells which of several in one millisecond was granted or renewed first, and its id; in no order.
    pub fn expiries(&self) -> Result<Vec<(u64, u64, i64)>, NotLeading> {
        if self.term.is_none() {
            return Err(NotLeading);
        }
        Ok(self.timers.iter().map(|(&id, timer)| (timer.expiry, timer.set, id)).collect())
    }

    /// Takes what is due, the oldest first, within `limits`; `keys` tells how many keys hang on a lease. The next call comes when what this one gave was
    /// applied.
    pub fn due(&mut self, limits: DueLimits, keys: impl Fn(i64) -> usize) -> Due {
        let mut due = Due::default();
        let mut keys_given = 0;
        while due.expired.len() < limits.expired && due.remaining.len() < limits.remaining {
            let Some(Reverse((time, id))) = self.queue.pop_if_due(self.now) else { break };
            let granting = self.granting.contains_key(&id);
            let Some(timer) = self.timers.get_mut(&id).filter(|timer| timer.due == time) else { continue };
            if granting {
                // Whatever is decided about this lease now might hit the one that is being granted.
                timer.due = self.now.saturating_add(1);
            } else if timer.expiry <= self.now {
                let more_keys = keys(id);
                if !due.expired.is_empty() && keys_given + more_keys > limits.keys {
                    self.queue.push(Reverse((time, id)));
                    break;
                }
                keys_given += more_keys;
                due.expired.push(id);
                timer.due = self.now.saturating_add(REVOKE_AGAIN_MS);
            } else {
                let left_ms = timer.expiry - self.now;
                let renewed_at = timer.expiry.saturating_sub(ttl_ms(timer.ttl));
                let mut since = renewed_at;
                if renewed_at.saturating_add(self.checkpoint_ms) <= self.now.saturating_add(1) {
                    if !timer.recording {
                        timer.recording = true;
                        due.remaining.push((id, i64::try_from(left_ms.div_ceil(1000)).unwrap_or(i64::MAX)));
                    }
                    since = self.now;
                }
                let is_long = ttl_ms(timer.ttl) > self.checkpoint_ms;
                let checkpoint = since.saturating_add(self.checkpoint_ms).max(self.now + 1);
                timer.due = if is_long { timer.expiry.min(checkpoint) } else { timer.expiry };
            }
            self.queue.push(Reverse((timer.due, id)));
        }
        due
    }
}

/// A queue of times.
trait Queue {
    /// Takes the first entry if its time has come.
    fn pop_if_due(&mut self, now: u64) -> Option<Reverse<(u64, i64)>>;
}

impl Queue for BinaryHeap<Reverse<(u64, i64)>> {
    fn pop_if_due(&mut self, now: u64) -> Option<Reverse<(u64, i64)>> {
        if self.peek().is_some_and(|Reverse((time, _))| *time <= now) { self.pop() } else { None }
    }
}

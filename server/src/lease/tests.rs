//! The clock by hand, and against a model of a log, a table and what holders were told.

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::state::{Lease, LeaseChange};

const LIMITS: DueLimits = DueLimits { expired: 100, keys: 1000, remaining: 100 };
const CHECKPOINT_MS: u64 = 10_000;

fn leading(leases: &[(i64, i64, i64)]) -> LeaseClock {
    let mut clock = LeaseClock::new(Duration::from_millis(CHECKPOINT_MS));
    clock.lead(1, leases.iter().map(|&(id, ttl, remaining)| Lease { id, ttl, remaining }).collect());
    clock
}

fn due_at(clock: &mut LeaseClock, now: u64) -> Due {
    clock.pass(now);
    clock.due(LIMITS, |_| 1)
}

fn revoked(clock: &mut LeaseClock, ids: &[i64]) {
    let changes: Vec<_> = ids.iter().map(|&id| LeaseChange::Revoked { id, expired: true }).collect();
    clock.applied(0, &changes);
}

#[test]
fn a_lease_outlives_an_election() {
    let min = |heartbeat, election| ttl_min(Duration::from_millis(heartbeat), Duration::from_millis(election));
    assert_eq!(min(100, 1000), 2);
    assert_eq!(min(10, 50), 1);
    assert_eq!(min(1000, 50_000), 75);
    assert_eq!(min(300, 1000), 2, "three ticks are an election, four and a half of them four");
}

#[test]
fn a_lease_is_due_when_its_time_is_over_and_not_before() {
    let mut clock = leading(&[(1, 5, 0)]);
    assert!(due_at(&mut clock, 5_000).is_empty(), "it began within the first millisecond");
    assert_eq!(due_at(&mut clock, 5_001).expired, [1]);
    assert_eq!(clock.renew(1, 5_001), Ok(Renewal::Expired));
    assert_eq!(clock.time_left(1, 6_000), Ok(Some(TimeLeft { ttl: 5, left_ms: 0 })));
    assert!(due_at(&mut clock, 6_000).is_empty(), "once");
    revoked(&mut clock, &[1]);
    assert_eq!(clock.renew(1, 6_000), Ok(Renewal::Unknown));
    assert_eq!(clock.time_left(1, 6_000), Ok(None));
}

#[test]
fn what_could_not_be_revoked_is_due_again() {
    let mut clock = leading(&[(1, 5, 0)]);
    assert_eq!(due_at(&mut clock, 5_001).expired, [1]);
    assert!(due_at(&mut clock, 8_000).is_empty());
    assert_eq!(due_at(&mut clock, 8_001).expired, [1]);
}

#[test]
fn a_renewal_begins_the_time_anew() {
    let mut clock = leading(&[(1, 5, 0)]);
    assert_eq!(clock.renew(1, 4_000), Ok(Renewal::Renewed(5)));
    assert!(due_at(&mut clock, 9_000).is_empty());
    assert_eq!(due_at(&mut clock, 9_001).expired, [1]);
}

#[test]
fn who_does_not_lead_knows_nothing() {
    let mut clock = leading(&[(1, 5, 0)]);
    clock.follow();
    assert_eq!(clock.renew(1, 0), Err(NotLeading));
    assert_eq!(clock.time_left(1, 0), Err(NotLeading));
    assert_eq!(clock.expiries(), Err(NotLeading));
    assert!(due_at(&mut clock, u64::MAX).is_empty());
    clock.applied(7, &[LeaseChange::Granted { id: 2, ttl: 1 }]);
    clock.lead(2, vec![Lease { id: 2, ttl: 1, remaining: 0 }]);
    assert_eq!(clock.len(), 1);
}

#[test]
fn the_time_left_of_a_long_lease_is_recorded_after_each_interval_without_a_renewal() {
    let mut clock = leading(&[(1, 60, 0)]);
    assert!(due_at(&mut clock, 9_999).is_empty());
    assert_eq!(due_at(&mut clock, 10_000).remaining, [(1, 51)]);
    assert_eq!(clock.renew(1, 10_001), Ok(Renewal::Recorded), "the record is on its way");
    clock.applied(1, &[LeaseChange::Checkpointed { id: 1, remaining: 51 }]);
    assert_eq!(clock.renew(1, 10_002), Ok(Renewal::Recorded));
    assert_eq!(due_at(&mut clock, 20_000).remaining, [(1, 41)]);
    clock.applied(2, &[LeaseChange::Checkpointed { id: 1, remaining: 41 }]);
    clock.applied(3, &[LeaseChange::Checkpointed { id: 1, remaining: 0 }]);
    assert_eq!(clock.renew(1, 21_000), Ok(Renewal::Renewed(60)));
    assert!(due_at(&mut clock, 30_999).is_empty(), "it was renewed meanwhile");
    assert_eq!(due_at(&mut clock, 31_001).remaining, [(1, 50)]);
}

#[test]
fn a_lease_that_is_kept_alive_and_a_short_one_are_never_recorded() {
    let mut clock = leading(&[(1, 60, 0), (2, 10, 0)]);
    for second in 1..300 {
        assert_eq!(due_at(&mut clock, second * 1_000).remaining, []);
        if second % 9 == 0 {
            assert_eq!(clock.renew(1, second * 1_000), Ok(Renewal::Renewed(60)));
            clock.renew(2, second * 1_000).unwrap();
        }
    }
}

#[test]
fn a_new_leader_gives_the_whole_time_or_what_was_recorded_of_it() {
    let mut clock = leading(&[(1, 60, 0), (2, 60, 7), (3, 60, 99)]);
    let left = |clock: &mut LeaseClock, id| clock.time_left(id, 0).unwrap().map(|left| left.left_ms);
    assert_eq!([1, 2, 3].map(|id| left(&mut clock, id)), [Some(60_001), Some(7_001), Some(60_001)]);
    assert_eq!(clock.renew(2, 0), Ok(Renewal::Recorded));
    assert_eq!(due_at(&mut clock, 7_001).expired, [2]);
}

#[test]
fn a_grant_in_the_log_keeps_back_what_is_due_for_its_id() {
    let mut clock = leading(&[(1, 5, 0), (2, 5, 0)]);
    clock.proposed_grant(8, 1);
    assert_eq!(due_at(&mut clock, 5_001).expired, [2]);
    clock.applied(7, &[]);
    assert!(due_at(&mut clock, 5_500).is_empty());
    clock.applied(8, &[]);
    assert_eq!(due_at(&mut clock, 5_600).expired, [1]);
}

#[test]
fn what_is_due_comes_in_pieces_by_leases_and_by_keys() {
    let leases: Vec<_> = (1..=10).map(|id| (id, id, 0)).collect();
    let mut clock = leading(&leases);
    clock.pass(60_000);
    let limits = DueLimits { expired: 4, keys: 5, remaining: 1 };
    let keys = |id: i64| [0, 9, 1, 1, 3, 2, 2, 0, 0, 0, 0][id as usize];
    let mut pieces = Vec::new();
    loop {
        let due = clock.due(limits, keys);
        if due.is_empty() {
            break;
        }
        revoked(&mut clock, &due.expired);
        pieces.push(due.expired);
    }
    assert_eq!(pieces, [vec![1], vec![2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]]);
}

#[test]
fn leases_that_were_revoked_leave_nothing_behind() {
    let mut clock = leading(&[]);
    for id in 0..100_000 {
        clock.applied(0, &[LeaseChange::Granted { id, ttl: TTL_MAX }]);
        revoked(&mut clock, &[id]);
    }
    assert!(clock.is_empty() && clock.queued() < 2_000, "{}", clock.queued());
}

/// A command in the model's log.
#[derive(Debug, Clone)]
enum Command {
    Grant { id: i64, ttl: i64 },
    Revoke { id: i64 },
    Expire { id: i64, term: u64 },
    Record { id: i64, remaining: i64 },
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Grant {
        id: i64,
        ttl: i64,
    },
    Revoke(i64),
    Renew(i64),
    Look,
    Apply(usize),
    /// Another leader, after this many entries of the log that are left are lost.
    Elect(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let id = 1..6i64;
    prop_oneof![
        4 => (0..8_000u64).prop_map(Step::Pass),
        3 => (id.clone(), 1..40i64).prop_map(|(id, ttl)| Step::Grant { id, ttl }),
        1 => id.clone().prop_map(Step::Revoke),
        5 => id.prop_map(Step::Renew),
        6 => Just(Step::Look),
        6 => (0..4usize).prop_map(Step::Apply),
        1 => (0..4usize).prop_map(Step::Elect),
    ]
}

/// A lease of the model's table.
#[derive(Debug)]
struct Held {
    ttl: i64,
    remaining: i64,
    /// The holder was told that it lives at least until then.
    promised: u64,
}

struct Model {
    clock: LeaseClock,
    term: u64,
    now: u64,
    table: BTreeMap<i64, Held>,
    log: VecDeque<(u64, Command)>,
    last: u64,
    applied: u64,
    last_due: u64,
}

impl Model {
    fn new() -> Self {
        Self {
            clock: leading(&[]),
            term: 1,
            now: 0,
            table: BTreeMap::new(),
            log: VecDeque::new(),
            last: 0,
            applied: 0,
            last_due: 0,
        }
    }

    fn propose(&mut self, command: Command) {
        self.last += 1;
        if let Command::Grant { id, .. } = command {
            self.clock.proposed_grant(self.last, id);
        }
        self.log.push_back((self.last, command));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Pass(ms) => {
                self.now += ms;
                self.clock.pass(self.now);
            }
            Step::Grant { id, ttl } => self.propose(Command::Grant { id, ttl }),
            Step::Revoke(id) => self.propose(Command::Revoke { id }),
            Step::Renew(id) => self.renew(id),
            Step::Look => self.look(),
            Step::Apply(count) => (0..count).for_each(|_| self.apply()),
            Step::Elect(lost) => {
                self.clock.follow();
                let kept = self.log.len().saturating_sub(lost);
                self.log.truncate(kept);
                while !self.log.is_empty() {
                    self.apply();
                }
                self.term += 1;
                let lease = |(&id, held): (&i64, &Held)| Lease { id, ttl: held.ttl, remaining: held.remaining };
                self.clock.lead(self.term, self.table.iter().map(lease).collect());
                self.last_due = 0;
            }
        }
    }

    fn renew(&mut self, id: i64) {
        let renewal = self.clock.renew(id, self.now).unwrap();
        match (renewal, self.table.get_mut(&id)) {
            (Renewal::Renewed(ttl), Some(held)) => {
                assert_eq!(ttl, held.ttl);
                held.promised = self.now + ttl_ms(ttl);
            }
            (Renewal::Recorded, Some(_)) => self.propose(Command::Record { id, remaining: 0 }),
            (Renewal::Expired, Some(held)) => assert!(held.promised <= self.now),
            (Renewal::Unknown, None) => {}
            (renewal, held) => panic!("{renewal:?} of {held:?}"),
        }
    }

    fn look(&mut self) {
        if self.last_due > self.applied {
            return;
        }
        let Due { expired, remaining } = self.clock.due(DueLimits { expired: 2, keys: 100, remaining: 2 }, |_| 1);
        assert!(expired.len() <= 2 && remaining.len() <= 2);
        let before = self.last;
        for id in expired {
            self.propose(Command::Expire { id, term: self.term });
        }
        for (id, remaining) in remaining {
            self.propose(Command::Record { id, remaining });
        }
        if self.last > before {
            self.last_due = self.last;
        }
    }

    fn apply(&mut self) {
        let Some((index, command)) = self.log.pop_front() else { return };
        self.applied = index;
        let change = match command {
            Command::Grant { id, .. } if self.table.contains_key(&id) => None,
            Command::Grant { id, ttl } => {
                self.table.insert(id, Held { ttl, remaining: 0, promised: self.now + ttl_ms(ttl) });
                Some(LeaseChange::Granted { id, ttl })
            }
            Command::Revoke { id } => self.table.remove(&id).map(|_| LeaseChange::Revoked { id, expired: false }),
            Command::Expire { id, term } if term == self.term => self.table.remove(&id).map(|held| {
                assert!(
                    held.promised <= self.now,
                    "lease {id} is promised until {}, it is {}",
                    held.promised,
                    self.now
                );
                LeaseChange::Revoked { id, expired: true }
            }),
            Command::Expire { .. } => None,
            Command::Record { id, remaining } => self.table.get_mut(&id).map(|held| {
                held.remaining = remaining;
                LeaseChange::Checkpointed { id, remaining }
            }),
        };
        self.clock.applied(index, change.as_slice());
    }
}

fn ttl_ms(ttl: i64) -> u64 {
    ttl as u64 * 1000
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn no_lease_ends_before_its_holder_was_told_and_every_lease_ends(steps in prop::collection::vec(step(), 1..120)) {
        let mut model = Model::new();
        for step in &steps {
            model.step(step);
        }
        // Without renewals everything ends: the longest lease, and a few looks.
        for _ in 0..200 {
            model.step(&Step::Pass(500));
            model.step(&Step::Look);
            while !model.log.is_empty() {
                model.apply();
            }
        }
        prop_assert!(model.table.is_empty() && model.clock.is_empty());
    }
}

#[test]
fn leases_of_one_millisecond_run_out_in_the_order_of_their_grants_and_renewals() {
    let mut clock = leading(&[]);
    clock.applied(0, &[103, -6, 7].map(|id| LeaseChange::Granted { id, ttl: 10 }));
    assert_eq!(clock.renew(103, 0), Ok(Renewal::Renewed(10)));
    let mut expiries = clock.expiries().unwrap();
    expiries.sort_unstable();
    assert_eq!(expiries.into_iter().map(|(_, _, id)| id).collect::<Vec<_>>(), [-6, 7, 103]);
}

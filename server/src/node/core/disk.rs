//! A leader whose disk does not finish a write.
//!
//! It can acknowledge nothing: what it applies has to be synced here, and what it may propose is bounded by what is not. So
//! leadership goes to a member whose disk works, as long as the others are a majority without this one, and only then:
//! without them nothing would be gained.
//!
//! ```text
//!   a write was begun ---- an election time-out ----> leadership is handed over ---- another one ----> it steps down
//!                                                     to who has most of the log                       and the others elect
//! ```
//! The hand-over takes a moment, because the successor need not wait until it misses its leader. It is the last thing that
//! needs this member: its own answers to votes wait for the disk, like every promise. Reads that wait here for what is not
//! applied go on waiting, and leases are revoked by entries of the log, of which there are none to come.

use super::Core;
use crate::raft::Role;

/// How the disk is doing.
#[derive(Debug, Default)]
pub(super) struct DiskWatch {
    /// The oldest write that is not synced.
    oldest: Option<u64>,
    /// The tick since which it has been that, or since which this member has led.
    since: u64,
    given_away: bool,
    stalls: u64,
}

impl DiskWatch {
    /// How often leadership was given away so far.
    pub(super) fn stalls(&self) -> u64 {
        self.stalls
    }
}

impl<W, R> Core<W, R> {
    /// Gives leadership away if the disk has not finished a write for an election time-out. Once a tick.
    pub(super) fn watch_disk(&mut self) {
        let oldest = self.group.oldest_unsynced();
        if oldest.is_none() || oldest != self.disk.oldest || self.standing.role != Role::Leader {
            self.disk = DiskWatch { oldest, since: self.now, given_away: false, stalls: self.disk.stalls };
            return;
        }
        let patience_ticks = self.options.raft.election_ticks as u64;
        let waited_ticks = self.now - self.disk.since;
        if waited_ticks < patience_ticks || !self.group.others_are_quorum() {
            return;
        }
        if !self.disk.given_away {
            self.disk.given_away = true;
            self.disk.stalls += 1;
            if let Some(successor) = self.group.successor() {
                let successor_hex = format_args!("{successor:x}");
                tracing::warn!(
                    waited_ticks,
                    successor = successor_hex,
                    "the disk does not finish a write to the raft log; handing leadership over"
                );
                self.group.transfer_leader(successor);
            }
        } else if waited_ticks >= 2 * patience_ticks {
            tracing::warn!(waited_ticks, "the disk still does not finish a write to the raft log; leading no more");
            self.group.step_down();
            self.see_standing();
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_proto::etcdserverpb as pb;

    use crate::{
        lease::Renewal,
        node::core::tests::cluster::{Cluster, ELECTION_TICKS},
        state::command::Request,
    };

    #[test]
    fn a_leader_whose_disk_stalls_hands_over_and_what_it_has_not_answered_is_answered_when_the_disk_goes_on() {
        let mut cluster = Cluster::new(3);
        let stalled = cluster.leader().unwrap();
        cluster.stalled[stalled] = true;
        let waits = cluster.put(stalled);
        cluster.cores[stalled].read_index(77);
        let ticks = cluster.until(|cluster| cluster.leader() != Some(stalled));
        assert!(ticks <= ELECTION_TICKS + 2, "after {ticks} ticks");
        let next = cluster.leader().unwrap();
        let through_follower = cluster.put(3 - stalled - next);
        let through_leader = cluster.put(next);
        cluster.tick();
        assert!(cluster.answered.contains(&through_leader) && cluster.answered.contains(&through_follower));
        assert!(!cluster.answered.contains(&waits), "it is not durable there");
        assert!(cluster.reads.iter().all(|(_, outcome)| outcome.is_err()), "nothing new is read there");
        assert_eq!(cluster.cores[stalled].status().disk_stalls, 1);
        let term = cluster.cores[next].standing.term;
        // It can neither vote nor campaign: nothing that it says is durable.
        for _ in 0..3 * ELECTION_TICKS {
            cluster.tick();
        }
        assert_eq!((cluster.leader(), cluster.cores[next].standing.term), (Some(next), term));
        cluster.stalled[stalled] = false;
        cluster.until(|cluster| cluster.answered.contains(&waits));
        let applied = |at: usize| cluster.cores[at].applied;
        assert!(applied(0) == applied(1) && applied(1) == applied(2));
    }

    #[test]
    fn a_write_that_takes_less_than_an_election_or_many_of_them_change_nothing() {
        let mut cluster = Cluster::new(3);
        let leader = cluster.leader().unwrap();
        for _ in 0..10 {
            cluster.stalled[leader] = true;
            cluster.put(leader);
            for _ in 0..ELECTION_TICKS - 2 {
                cluster.tick();
            }
            cluster.stalled[leader] = false;
            cluster.settle();
        }
        assert_eq!((cluster.leader(), cluster.cores[leader].status().disk_stalls), (Some(leader), 0));
    }

    #[test]
    fn if_the_successor_does_not_hear_of_it_the_leader_steps_down_and_the_rest_elects() {
        let mut cluster = Cluster::new(3);
        cluster.loses_hand_overs = true;
        let stalled = cluster.leader().unwrap();
        cluster.stalled[stalled] = true;
        cluster.put(stalled);
        let ticks = cluster.until(|cluster| cluster.leader() != Some(stalled));
        assert!((2 * ELECTION_TICKS - 2..2 * ELECTION_TICKS + 2).contains(&ticks), "after {ticks} ticks");
        cluster.until(|cluster| cluster.leader().is_some());
        let next = cluster.leader().unwrap();
        assert_ne!(next, stalled);
        let put = cluster.put(next);
        cluster.tick();
        assert!(cluster.answered.contains(&put));
    }

    #[test]
    fn without_a_majority_of_others_nothing_would_be_gained() {
        let mut cluster = Cluster::new(3);
        let leader = cluster.leader().unwrap();
        let (lost, other) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.cut_off[lost] = true;
        cluster.stalled[leader] = true;
        let put = cluster.put(leader);
        for _ in 0..4 * ELECTION_TICKS {
            cluster.tick();
        }
        assert_eq!((cluster.leader(), cluster.cores[leader].status().disk_stalls), (Some(leader), 0));
        cluster.stalled[leader] = false;
        cluster.until(|cluster| cluster.answered.contains(&put));
        assert_eq!(cluster.cores[other].standing.leader, leader as u64 + 1);
    }

    #[test]
    fn an_ex_leader_with_a_stalled_disk_revokes_no_lease() {
        let mut cluster = Cluster::new(3);
        let stalled = cluster.leader().unwrap();
        let granted = cluster.propose(stalled, Request::LeaseGrant(pb::LeaseGrantRequest { id: 5, ttl: 2 }));
        cluster.until(|cluster| cluster.answered.contains(&granted));
        cluster.stalled[stalled] = true;
        cluster.put(stalled);
        cluster.until(|cluster| cluster.leader() != Some(stalled));
        let next = cluster.leader().unwrap();
        // It is renewed where it is led; the ex-leader's own clock would have had it expire.
        for _ in 0..6 * ELECTION_TICKS {
            cluster.tick();
            let mut clock = cluster.cores[next].lease_clock().lock();
            assert!(matches!(clock.renew(5, cluster.now), Ok(Renewal::Renewed(_))), "it lives on");
        }
        cluster.stalled[stalled] = false;
        for _ in 0..ELECTION_TICKS {
            cluster.tick();
        }
        for core in &cluster.cores {
            assert!(core.state().views().leases.all().iter().any(|lease| lease.id == 5), "it was revoked");
        }
    }
}

//! What clients were told of leases, against what became of them.
//!
//! Whoever is told that a lease has T seconds counts them from when the request was sent: until then, no leader may decide
//! that the lease has run out, however leadership moves and whoever restarts. A client's own revoke ends it at once; then
//! nobody may be told any more that it lives. Lease ids are used once.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use cairn_server::state::LeaseChange;

use super::clock::{MS, SECOND};

#[derive(Debug, Default)]
struct Fate {
    /// Whether some client knows that it was granted.
    known: bool,
    /// Until when some client was told that it lives.
    told_until: u64,
    /// Whether some client asked for its end.
    revoke_asked: bool,
    /// When the first member applied its grant.
    granted_at: Option<u64>,
    /// When the first member applied its end, and whether that was an expiry.
    ended: Option<(u64, bool)>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Leases {
    fates: BTreeMap<i64, Fate>,
    /// Expiries so far.
    pub(super) expired: u64,
}

impl Leases {
    /// A client asks for the end of a lease.
    pub(super) fn revoke_asked(&mut self, id: i64) {
        self.fates.entry(id).or_default().revoke_asked = true;
    }

    /// A client that asked at `asked` is told at `now` that a lease has `left_ms`.
    pub(super) fn told(&mut self, id: i64, asked: u64, left_ms: u64) -> Result<()> {
        let fate = self.fates.entry(id).or_default();
        fate.known = true;
        let until = asked + left_ms * MS;
        if let Some((at, expired)) = fate.ended {
            ensure!(
                at > asked,
                "lease {id} is said to live, after it had ended at {at}, before the question at {asked}"
            );
            ensure!(!expired || at >= until, "lease {id} is said to live until {until}, but it ran out at {at}");
        }
        fate.told_until = fate.told_until.max(until);
        Ok(())
    }

    /// A client is told that there is no such lease.
    pub(super) fn told_gone(&self, id: i64) -> Result<()> {
        let alive = self.fates.get(&id).is_some_and(|fate| fate.known && fate.ended.is_none());
        ensure!(!alive, "lease {id} is said not to exist, but it was granted and never ended");
        Ok(())
    }

    /// A member applied changes at `now`; only the first one counts.
    pub(super) fn applied(&mut self, now: u64, changes: &[LeaseChange]) -> Result<()> {
        for change in changes {
            match *change {
                LeaseChange::Granted { id, .. } => {
                    self.fates.entry(id).or_default().granted_at.get_or_insert(now);
                }
                LeaseChange::Checkpointed { .. } => {}
                LeaseChange::Revoked { id, expired } => {
                    let fate = self.fates.entry(id).or_default();
                    if fate.ended.is_some() {
                        continue;
                    }
                    fate.ended = Some((now, expired));
                    self.expired += u64::from(expired);
                    ensure!(expired || fate.revoke_asked, "lease {id} was revoked, which nobody asked for");
                    let until = fate.told_until;
                    ensure!(!expired || until <= now, "lease {id} ran out at {now}, it was said to live until {until}");
                }
            }
        }
        Ok(())
    }

    /// Leases that were granted and have not ended.
    pub(super) fn living(&self) -> Vec<i64> {
        let living = self.fates.iter().filter(|(_, fate)| fate.granted_at.is_some() && fate.ended.is_none());
        living.map(|(id, _)| *id).collect()
    }
}

/// The shortest time to live that leases are granted with, in seconds, and the longest.
pub(super) const TTL: std::ops::RangeInclusive<i64> = 2..=8;
/// Once nothing is renewed any more, every lease has run out after this time with a leader.
pub(super) const ALL_RUN_OUT: u64 = (*TTL.end() as u64 + 4) * SECOND;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_early_expiry_is_caught_whichever_comes_first() {
        let expired = [LeaseChange::Revoked { id: 7, expired: true }];
        let mut leases = Leases::default();
        leases.told(7, 100, 2000).unwrap();
        assert!(leases.applied(100 + 2000 * MS - 1, &expired).is_err());
        let mut leases = Leases::default();
        leases.applied(500, &expired).unwrap();
        assert!(leases.told(7, 400, 1).is_err(), "it was told to live beyond its end");
        assert!(leases.told(7, 600, 0).is_err(), "it had ended before the question");
    }

    #[test]
    fn a_revoke_needs_somebody_who_asked_for_it() {
        let mut leases = Leases::default();
        assert!(leases.applied(5, &[LeaseChange::Revoked { id: 7, expired: false }]).is_err());
        leases.revoke_asked(8);
        leases.applied(5, &[LeaseChange::Revoked { id: 8, expired: false }]).unwrap();
        assert!(leases.told_gone(8).is_ok());
    }

    #[test]
    fn a_living_lease_is_not_said_to_be_gone() {
        let mut leases = Leases::default();
        assert!(leases.told_gone(9).is_ok());
        leases.told(9, 0, 1000).unwrap();
        assert!(leases.told_gone(9).is_err());
    }
}

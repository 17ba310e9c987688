//! The alarm of full disks, as a register that clients raise and lower: what needs room must be refused while it is
//! certainly raised, and must not be while it certainly is not.
//!
//! A change took effect at some moment between its being asked for and its answer; without an answer at any moment since,
//! or never. It is certainly raised when a raise has been answered, and every lowering had ended before that raise was
//! asked for; and the other way around.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

#[derive(Debug)]
struct Change {
    raises: bool,
    asked: u64,
    /// When it was answered; `None`: it may take effect yet.
    ended: Option<u64>,
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Alarms {
    /// By the numbers of requests.
    changes: BTreeMap<u64, Change>,
}

impl Alarms {
    /// Somebody asks for a change.
    pub(super) fn asked(&mut self, number: u64, raises: bool, now: u64) {
        self.changes.insert(number, Change { raises, asked: now, ended: None });
    }

    /// A change has taken effect.
    pub(super) fn done(&mut self, number: u64, now: u64) {
        if let Some(change) = self.changes.get_mut(&number) {
            change.ended = Some(now);
        }
    }

    /// A change was not carried out, and will not be.
    pub(super) fn refused(&mut self, number: u64) {
        self.changes.remove(&number);
    }

    /// Whether it certainly was raised, or was not, from `since` on.
    fn certainly(&self, raised: bool, since: u64) -> bool {
        let mut others = self.changes.values().filter(|change| change.raises != raised);
        let settles = |change: &&Change| change.raises == raised && change.ended.is_some_and(|ended| ended < since);
        match self.changes.values().filter(settles).map(|change| change.asked).max() {
            Some(asked) => others.all(|other| other.ended.is_some_and(|ended| ended < asked)),
            None => !raised && others.next().is_none(),
        }
    }

    /// What was asked for at `asked` and needs room was refused for the alarm, or was not.
    pub(super) fn seen(&self, raised: bool, asked: u64) -> Result<()> {
        ensure!(
            !self.certainly(!raised, asked),
            "a request of {asked} met an alarm that was {}: {:?}",
            if raised { "not raised" } else { "raised, and went through" },
            self.changes
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_certain_is_held_against_an_answer() {
        let mut alarms = Alarms::default();
        assert!(alarms.seen(false, 5).is_ok() && alarms.seen(true, 5).is_err(), "nobody raised it");
        alarms.asked(1, true, 10);
        assert!(alarms.seen(false, 20).is_ok() && alarms.seen(true, 20).is_ok(), "it may be raised at any moment");
        alarms.done(1, 30);
        assert!(alarms.seen(false, 25).is_ok(), "this one was asked for before");
        assert!(alarms.seen(false, 31).is_err() && alarms.seen(true, 31).is_ok());
        alarms.asked(2, false, 40);
        assert!(alarms.seen(false, 41).is_ok() && alarms.seen(true, 41).is_ok());
        alarms.done(2, 50);
        assert!(alarms.seen(true, 51).is_err() && alarms.seen(false, 51).is_ok());
        alarms.asked(3, true, 60);
        alarms.refused(3);
        assert!(alarms.seen(true, 70).is_err());
    }
}

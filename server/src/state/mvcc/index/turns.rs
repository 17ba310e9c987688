//! When the keys of a stretch of the tree came to life and died.
//!
//! The tree knows how many of them live now. How many lived at an older revision is that, less the births since, plus the deaths since. So a turn costs
//! four bytes and names no key: where one stretch becomes two, both learn theirs from their keys' histories again.

use super::{
    Revision,
    history::{History, Kind},
    keys::reserve,
};

/// Events that are looked through to learn turns, at most: it is done while a key is written.
const LEARNT_EVENTS_MAX: usize = 1 << 16;
/// Room for so many turns, and for an eighth more than there are, is made at a time.
const STEP: usize = 16;

/// What a change of a history is to those who count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// A key came to life at this main revision.
    Birth(i64),
    /// A key died at this main revision.
    Death(i64),
    /// The past of a key became known: what was there before this main revision is not what it was.
    Past(i64),
}

impl Turn {
    /// What became of a history which was live (or not), had its newest event at some revision and had so many events.
    pub fn since((live, newest, len): (bool, Revision, usize), now: &History) -> Option<Self> {
        let at = now.newest_at();
        if at > newest {
            let turn = if now.is_live() { Self::Birth } else { Self::Death };
            return (live != now.is_live()).then(|| turn(at.main));
        }
        (len != now.len()).then_some(Self::Past(at.main))
    }
}

/// See the module's text.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// All turns after this main revision are known.
    floor: i64,
    /// Main revisions of births, and of deaths, from `floor` on, in order.
    births: Vec<u32>,
    deaths: Vec<u32>,
}

impl Turns {
    /// Those of `histories` after main revision `floor`, or later ones if it takes too much to learn them.
    pub fn of<'a>(histories: impl Iterator<Item = &'a History> + Clone, mut floor: i64) -> Self {
        if histories.clone().map(History::len).sum::<usize>() > LEARNT_EVENTS_MAX {
            let newest = histories.map(|history| history.newest_at().main).max();
            return Self { floor: floor.max(newest.unwrap_or(floor)), ..Self::default() };
        }
        let (mut births, mut deaths) = (Vec::new(), Vec::new());
        for history in histories {
            let mut live = false;
            for event in history.events() {
                let lives = event.kind != Kind::Tombstone;
                if lives != live && event.at.main > floor {
                    if lives { &mut births } else { &mut deaths }.push(event.at.main);
                }
                live = lives;
            }
        }
        births.sort_unstable();
        deaths.sort_unstable();
        for last in [births.last(), deaths.last()].into_iter().flatten() {
            floor = floor.max(last - i64::from(u32::MAX));
        }
        let pack = |mains: &[i64]| {
            mains[mains.partition_point(|main| *main <= floor)..].iter().map(|main| (main - floor) as u32).collect()
        };
        Self { floor, births: pack(&births), deaths: pack(&deaths) }
    }

    /// The main revision after which all turns are known.
    pub fn floor(&self) -> i64 {
        self.floor
    }

    /// Takes a turn into account.
    pub fn take(&mut self, turn: Turn) {
        let main = match turn {
            Turn::Birth(main) | Turn::Death(main) => main,
            Turn::Past(main) => return self.forget_to(main),
        };
        if main <= self.floor {
            return;
        }
        if main - self.floor > i64::from(u32::MAX) {
            self.forget_to(main - 1);
        }
        let place = (main - self.floor) as u32;
        let turns = if matches!(turn, Turn::Birth(_)) { &mut self.births } else { &mut self.deaths };
        reserve(turns, 1, turns.len() / 8 + STEP);
        // Nearly always at the end.
        let at = if turns.last().is_none_or(|last| *last <= place) {
            turns.len()
        } else {
            turns.partition_point(|turn| *turn <= place)
        };
        turns.insert(at, place);
    }

    /// Forgets what nobody will ask for: turns up to main revision `main`.
    pub fn forget_to(&mut self, main: i64) {
        if main <= self.floor {
            return;
        }
        let past = main - self.floor;
        self.floor = main;
        for turns in [&mut self.births, &mut self.deaths] {
            turns.drain(..turns.partition_point(|turn| i64::from(*turn) <= past));
            // What is left is later, so `past` fits.
            for turn in turns.iter_mut() {
                *turn -= past as u32;
            }
            if turns.capacity() > 2 * turns.len() + STEP {
                turns.shrink_to_fit();
            }
        }
    }

    /// Takes those of a neighbour.
    pub fn append(&mut self, mut other: Self) {
        self.forget_to(other.floor);
        other.forget_to(self.floor);
        for (turns, others) in [(&mut self.births, &mut other.births), (&mut self.deaths, &mut other.deaths)] {
            turns.append(others);
            turns.sort_unstable();
        }
    }

    /// Births less deaths after `at`, if that is known.
    pub fn net_after(&self, at: Revision) -> Option<i64> {
        // The order within a revision is not known.
        let splits = at != Revision::whole(at.main);
        let main = at.main.checked_sub(self.floor).filter(|main| *main >= i64::from(splits))?;
        let until = |turns: &[u32], main| turns.partition_point(|turn| i64::from(*turn) <= main);
        let [births, deaths] = [&self.births, &self.deaths].map(|turns| {
            let before = until(turns, main);
            let split = splits && before != until(&turns[..before], main - 1);
            (!split).then_some((turns.len() - before) as i64)
        });
        Some(births? - deaths?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// What happens to turns.
    #[derive(Debug, Clone)]
    enum Step {
        Take { after: i64, birth: bool },
        Forget { back: i64 },
        Append(Vec<(i64, bool)>),
    }

    fn distance() -> impl Strategy<Value = i64> {
        prop_oneof![8 => 0..20i64, 1 => Just(i64::from(u32::MAX)), 1 => 1..1i64 << 34]
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (distance(), any::<bool>()).prop_map(|(after, birth)| Step::Take { after, birth }),
            1 => distance().prop_map(|back| Step::Forget { back }),
            1 => vec((distance(), any::<bool>()), 0..20).prop_map(Step::Append),
        ]
    }

    fn turn(main: i64, birth: bool) -> Turn {
        if birth { Turn::Birth(main) } else { Turn::Death(main) }
    }

    proptest! {
        #[test]
        fn turns_are_a_list_of_births_and_deaths(steps in vec(step(), 0..80), early in 1..60i64) {
            let (mut turns, mut all, mut main) = (Turns::default(), vec![(early, true)], 1_i64);
            turns.take(turn(early, true));
            for step in steps {
                match step {
                    Step::Take { after, birth } => {
                        main += after;
                        all.push((main, birth));
                        turns.take(turn(main, birth));
                    }
                    Step::Forget { back } => turns.forget_to(main - back),
                    Step::Append(others) => {
                        let (mut other, mut main) = (Turns::default(), 1);
                        for (after, birth) in others {
                            main += after;
                            all.push((main, birth));
                            other.take(turn(main, birth));
                        }
                        turns.append(other);
                    }
                }
                let newest = all.iter().map(|(main, _)| *main).max().unwrap_or(0);
                prop_assert!(turns.floor() < newest.max(main) + 1);
                for at in all.iter().flat_map(|(main, _)| [main - 1, *main]).chain([newest + 1]) {
                    let after = all.iter().filter(|(main, _)| *main > at);
                    let net: i64 = after.map(|(_, birth)| if *birth { 1 } else { -1 }).sum();
                    let known = turns.net_after(Revision::whole(at));
                    prop_assert_eq!(known, (at >= turns.floor()).then_some(net), "after {}", at);
                    let within = all.iter().any(|(main, _)| *main == at);
                    let known = turns.net_after(Revision::new(at, 3));
                    prop_assert_eq!(known, (at > turns.floor() && !within).then_some(net), "after {}/3", at);
                }
            }
        }
    }

    #[test]
    fn what_takes_too_long_to_learn_is_left_unknown() {
        let put = |main| super::super::history::Event {
            at: Revision::new(main, 0),
            kind: Kind::Put { created: 2, version: main },
        };
        let mut history = History::new(put(2), 0);
        let long = LEARNT_EVENTS_MAX as i64 + 10;
        (3..long).for_each(|main| history.push(put(main), 0));
        let turns = Turns::of([&history].into_iter(), 0);
        assert_eq!(turns.net_after(Revision::whole(5)), None);
        assert_eq!(turns.net_after(Revision::whole(long)), Some(0));
    }
}

//! Whole clusters in one thread: every fault that can be drawn, and the bugs that must not pass unseen.

use cairn_jepsen::sim::{Plan, Plant, STEPS, Summary, Zone, regression, simulate, simulate_many};

/// Seeds within which every planted bug has to be caught.
const SEEDS_TO_CATCH: u64 = 400;
/// Bugs that show seldom, and a seed in which each does while members serve from their start on: these are tried first.
const SELDOM: [(Plant, u64); 1] = [(Plant::ReadContextReused, 36)];

fn clean(members: u64, seeds: u64, steps: u64) -> Summary {
    clean_in(Zone::Usual, members, seeds, steps)
}

fn clean_in(zone: Zone, members: u64, seeds: u64, steps: u64) -> Summary {
    let summary = simulate_many(&Plan { seed: 1, members, steps, zone, plant: None, ungated: false }, seeds, 8);
    println!("{}", summary.coverage);
    println!("{} runs of {members} members, climate {zone}, in {:.1} s", summary.runs, summary.seconds);
    assert!(summary.failure.is_none(), "{}", summary.failure.expect("there is one"));
    assert_eq!(summary.runs, seeds);
    summary
}

#[test]
fn three_members_keep_every_promise() {
    let covered = clean(3, 60, STEPS).coverage;
    assert!(covered.answered > 3_000 && covered.reads > 500 && covered.unknown > 50, "{covered}");
    assert!(covered.crashes > 200 && covered.disk_faults > 5 && covered.partitions > 100, "{covered}");
    assert!(covered.elections > 200 && covered.transfers > 20 && covered.fetched > 50, "{covered}");
    assert!(covered.snapshots > 80 && covered.installed > 50 && covered.finished > 1, "{covered}");
    assert!(covered.forwarded > 4_000 && covered.forwards_refused > 50, "{covered}");
    assert!(covered.members > 5 && covered.promoted > 5 && covered.removed > 20, "{covered}");
    assert!(covered.handed_over > 10 && covered.parted > 10, "{covered}");
    assert!(covered.renewed > 50 && covered.expired > 50 && covered.no_space > 20, "{covered}");
    assert!(covered.told > 1_000 && covered.bookmarks > 100 && covered.catch_ups > 100, "{covered}");
}

#[test]
fn five_members_keep_every_promise() {
    let covered = clean(5, 25, STEPS).coverage;
    assert!(covered.answered > 800 && covered.elections > 80 && covered.crashes > 80, "{covered}");
    assert!(covered.installed > 10, "{covered}");
}

#[test]
fn a_single_member_keeps_every_promise() {
    let covered = clean(1, 15, 2_000).coverage;
    assert!(covered.answered > 1_000 && covered.crashes > 40, "{covered}");
}

#[test]
fn every_promise_is_kept_in_every_climate() {
    let of = |zone, members| clean_in(zone, members, 20, STEPS).coverage;
    let covered = of(Zone::LoneVoter, 1);
    assert!(covered.members > 4 && covered.disk_faults > 20 && covered.promoted == 0, "{covered}");
    let covered = of(Zone::CatchingUp, 3);
    assert!(covered.snapshots > 20 && covered.installed > 10 && covered.partitions > 100, "{covered}");
    let covered = of(Zone::Restless, 3);
    assert!(covered.transfers > 200 && covered.elections > 100, "{covered}");
    let covered = of(Zone::Pairs, 2);
    assert!(covered.parted > 10 && covered.members > 20 && covered.promoted > 5, "{covered}");
}

#[test]
fn seeds_that_found_something_are_clean_now() {
    for found in regression::FOUND {
        let outcome = simulate(&found.plan(), false);
        assert!(outcome.is_ok(), "{} ({}): {}", found.what, found.mend, outcome.expect_err("it is an error"));
    }
}

#[test]
fn every_planted_bug_is_caught() {
    for named in Plant::ALL {
        let (zone, plant) = (Zone::Usual, Some(named));
        let plan = |seed, ungated| Plan { seed, members: 3, steps: STEPS, zone, plant, ungated };
        let known = SELDOM.iter().filter(|(seldom, _)| *seldom == named).map(|(_, seed)| plan(*seed, true));
        let plans = known.chain((1..=SEEDS_TO_CATCH).map(|seed| plan(seed, false)));
        let caught = { plans }.find_map(|plan| simulate(&plan, false).err());
        let caught = caught.unwrap_or_else(|| panic!("{named} passes {SEEDS_TO_CATCH} seeds unseen"));
        println!("{named}: seed {}: {}", caught.plan.seed, caught.what);
    }
}

#[test]
fn a_failure_names_the_command_that_repeats_it() {
    let (zone, plant) = (Zone::Restless, Some(Plant::SyncSkipped));
    let plan = |seed| Plan { seed, members: 3, steps: STEPS, zone, plant, ungated: false };
    let failure = (1..=SEEDS_TO_CATCH).find_map(|seed| simulate(&plan(seed), false).err()).expect("the bug is planted");
    let (shown, plan) = (failure.to_string(), plan(failure.plan.seed));
    let which = format!("--members 3 --first-seed {} --seeds 1 --climate restless --plant sync-skipped", plan.seed);
    let command = format!("cairn-jepsen sim {which} --trace");
    assert!(shown.ends_with(&command) && failure.lines.len() > 10, "{shown}");
    let again = simulate(&plan, false).expect_err("the bug is planted");
    assert_eq!((failure.what, failure.lines), (again.what, again.lines));
}

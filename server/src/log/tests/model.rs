//! Random histories of appends, truncations, purges, resets, crashes and faults against a plain model.
//!
//! The model holds what must be there (everything that a call reported as synced) and, after a call that failed, what
//! may be there instead: the whole of what that call was to make durable. Nothing else is right, and in particular no
//! mixture.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use proptest::prelude::*;

use super::*;
use crate::log::{Change, EntryId, Fault};

/// The log, with segments that begin small and grow.
fn open(disk: &SimDisk, after: u64) -> Result<(Log, Recovered), LogError> {
    let options = LogOptions { segment_bytes: 24 << 10, first_segment_bytes: 8 << 10, ..options() };
    Log::open(Arc::new(disk.clone()), &options, after)
}

#[derive(Clone, Debug)]
enum Op {
    Append { overwrite: usize, sizes: Vec<usize>, vote: bool, commit: usize },
    Purge { pick: usize },
    Reset { ahead: u64 },
    PrepareSpare,
    Crash { power: bool, after: usize, fault: Option<(u64, Fault)> },
    Fault { nth: u64, fault: Fault },
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![20 => 0..300usize, 5 => 300..3000usize, 1 => 9000..20_000usize];
    let overwrite = prop_oneof![4 => Just(0), 1 => 0..20usize];
    let append = (overwrite, prop::collection::vec(size, 0..5), any::<bool>(), 0..8usize)
        .prop_map(|(overwrite, sizes, vote, commit)| Op::Append { overwrite, sizes, vote, commit });
    let fault = prop_oneof![
        4 => Just(Fault::PowerCut),
        2 => Just(Fault::SyncLost),
        1 => Just(Fault::HalfDone),
        1 => Just(Fault::Error(ErrorKind::Other)),
    ];
    let nth_fault = (1..12u64, fault);
    let crash = (any::<bool>(), any::<usize>(), prop::option::of(nth_fault.clone()))
        .prop_map(|(power, after, fault)| Op::Crash { power, after, fault });
    prop_oneof![
        20 => append,
        3 => any::<usize>().prop_map(|pick| Op::Purge { pick }),
        1 => (1..50u64).prop_map(|ahead| Op::Reset { ahead }),
        1 => Just(Op::PrepareSpare),
        4 => crash,
        3 => nth_fault.prop_map(|(nth, fault)| Op::Fault { nth, fault }),
    ]
}

/// A log as a map.
#[derive(Clone, Debug, PartialEq)]
struct Model {
    base: EntryId,
    entries: BTreeMap<u64, Entry>,
    hard_state: HardState,
}

impl Model {
    fn last(&self) -> EntryId {
        self.entries.last_key_value().map_or(self.base, |(&index, entry)| EntryId::new(index, entry.term))
    }

    fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index { Some(self.base.term) } else { self.entries.get(&index).map(|entry| entry.term) }
    }

    fn purge(&mut self, to: EntryId) {
        assert_eq!(self.term(to.index), Some(to.term));
        self.base = to;
        self.entries = self.entries.split_off(&(to.index + 1));
    }

    /// The model after a restart that found its first entry after `base`, if that is possible.
    fn after_restart(&self, base: EntryId) -> Option<Self> {
        let mut model = self.clone();
        if self.term(base.index)? != base.term {
            return None;
        }
        model.purge(base);
        model.hard_state.commit = model.hard_state.commit.max(base.index);
        Some(model)
    }
}

struct Run {
    disk: SimDisk,
    log: Log,
    /// What is staged included: the commit index of the last hard state may be ahead of the disk.
    now: Model,
    durable: Model,
    next_tag: u8,
}

impl Run {
    fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let (log, _) = open(&disk, 0).unwrap();
        let empty = Model { base: EntryId::default(), entries: BTreeMap::new(), hard_state: HardState::default() };
        Self { disk, log, now: empty.clone(), durable: empty, next_tag: 0 }
    }

    fn step(&mut self, op: &Op) {
        match op {
            Op::Append { overwrite, sizes, vote, commit } => self.append(*overwrite, sizes, *vote, *commit),
            Op::Purge { pick } => self.purge(*pick),
            Op::Reset { ahead } => self.reset(*ahead),
            Op::PrepareSpare => {
                if let Some(job) = self.log.spare_job() {
                    let spare = job.run();
                    let failed = spare.is_err();
                    self.log.add_spare(spare.ok());
                    if failed {
                        self.restart(true, 0, None, vec![self.durable.clone()]);
                    }
                }
            }
            Op::Crash { power, after, fault } => self.restart(*power, *after, *fault, vec![self.durable.clone()]),
            Op::Fault { nth, fault } => self.disk.fault_at(self.disk.operations() + nth, *fault),
        }
        self.check_reads();
    }

    fn append(&mut self, overwrite: usize, sizes: &[usize], vote: bool, commit: usize) {
        let mut next = self.now.clone();
        let last = next.last().index;
        let floor = next.base.index.max(next.hard_state.commit);
        let overwrite = if sizes.is_empty() { 0 } else { (overwrite as u64).min(last - floor) };
        let first = last - overwrite + 1;
        if overwrite > 0 || vote {
            next.hard_state.term += 1;
            next.hard_state.vote = u64::from(vote);
        }
        let term = next.hard_state.term.max(next.last().term);
        next.hard_state.term = term;
        next.entries.split_off(&first);
        let mut entries = Vec::new();
        for (index, &size) in (first..).zip(sizes) {
            self.next_tag = self.next_tag.wrapping_add(1);
            let mut entry = entry(index, term, vec![self.next_tag; size]);
            entry.entry_type = (index % 3) as i32;
            entry.context = vec![1; size % 5];
            next.entries.insert(index, entry.clone());
            entries.push(entry);
        }
        let last = next.last().index;
        next.hard_state.commit = (next.hard_state.commit + commit as u64).min(last);
        let change = Change { entries: &entries, hard_state: Some(&next.hard_state), reset: None };
        self.finish(next.clone(), |log| {
            log.stage(&change)?;
            if log.needs_sync() { log.sync().map(|_| true) } else { Ok(false) }
        });
    }

    fn reset(&mut self, ahead: u64) {
        let last = self.now.last();
        let to = EntryId::new(last.index + ahead, last.term + 1);
        let term = self.now.hard_state.term.max(to.term);
        let hard_state = HardState { term, vote: 0, commit: to.index };
        let next = Model { base: to, entries: BTreeMap::new(), hard_state: hard_state.clone() };
        self.finish(next, |log| log.reset(to, Some(&hard_state)).map(|()| true));
    }

    fn purge(&mut self, pick: usize) {
        let committed = self.now.hard_state.commit.max(self.now.base.index);
        let index = self.now.base.index + pick as u64 % (committed - self.now.base.index + 1);
        let before = self.log.terms().base();
        if let Ok(to) = self.log.purge(index) {
            assert!(to.index <= index.max(before.index));
            if to != before {
                self.now.purge(to);
                self.durable = self.now.clone();
            }
        } else {
            // How far it would have gone is the log's business; a restart tells.
            let candidates = vec![self.durable.clone(), self.now.clone()];
            self.restart(true, 0, None, candidates);
        }
    }

    /// Runs a call that makes `next` the log's content, durably if it returns true.
    fn finish(&mut self, next: Model, call: impl FnOnce(&mut Log) -> Result<bool, LogError>) {
        if let Ok(synced) = call(&mut self.log) {
            self.now = next.clone();
            if synced {
                self.durable = next;
            }
        } else {
            assert!(matches!(self.log.sync(), Err(LogError::Poisoned { .. })));
            let candidates = vec![self.durable.clone(), next];
            // A kill shows what the page cache holds; a power failure after it must not take that back.
            let kill_first = self.next_tag.is_multiple_of(2) && self.disk_works();
            self.restart(!kill_first, 0, None, candidates);
        }
    }

    fn disk_works(&self) -> bool {
        use crate::log::Disk;
        self.disk.list().is_ok()
    }

    /// Crashes, starts again (with a fault while starting, if there is one) and compares what is found with what may be
    /// there.
    fn restart(&mut self, mut power: bool, after: usize, mut fault: Option<(u64, Fault)>, candidates: Vec<Model>) {
        let after = after as u64 % (self.now.last().index + 3);
        let recovered = loop {
            power |= !self.disk_works();
            self.disk = if power { self.disk.power_failure() } else { self.disk.kill() };
            if let Some((nth, fault)) = fault.take() {
                self.disk.fault_at(self.disk.operations() + nth, fault);
            }
            match open(&self.disk, after) {
                Ok((log, recovered)) => {
                    self.log = log;
                    break recovered;
                }
                Err(LogError::Io { source, .. }) if source.to_string().starts_with("simulated") => {}
                Err(other) => panic!("{other}"),
            }
        };
        let base = recovered.terms.base();
        let mut candidates = candidates.into_iter().filter_map(|model| model.after_restart(base));
        let found = candidates.find(|model| {
            let entries: Vec<Entry> = model.entries.range(after + 1..).map(|(_, entry)| entry.clone()).collect();
            model.base == base
                && model.last() == recovered.terms.last()
                && model.hard_state == recovered.hard_state
                && entries == recovered.entries
        });
        let Some(found) = found else {
            panic!("this was never to be made durable: {recovered:?}");
        };
        assert!(!recovered.created);
        self.now = found.clone();
        self.durable = found;
    }

    fn check_reads(&self) {
        let (first, last) = (self.now.base.index + 1, self.now.last().index);
        let terms = self.log.terms();
        assert_eq!((terms.base(), terms.last()), (self.now.base, self.now.last()));
        for index in first - 1..=last {
            assert_eq!(terms.term(index), self.now.term(index));
        }
        let reader = self.log.reader();
        let all: Vec<Entry> = self.now.entries.values().cloned().collect();
        assert_eq!(reader.entries(first, last + 1, u64::MAX).unwrap(), all);
        if let Some(low) = (first..=last).nth(usize::from(self.next_tag)) {
            let some = reader.entries(low, last + 1, 2000).unwrap();
            assert!(!some.is_empty());
            assert_eq!(some, all[(low - first) as usize..][..some.len()]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn what_was_synced_is_recovered_and_nothing_is_invented(seed: u64, ops in prop::collection::vec(op(), 1..80)) {
        let mut run = Run::new(seed);
        for op in &ops {
            run.step(op);
        }
        run.restart(true, 0, None, vec![run.durable.clone()]);
    }
}

#[test]
fn the_same_seed_and_operations_leave_the_same_bytes() {
    use crate::log::Disk;
    let run = || {
        let mut run = Run::new(99);
        for nth in 0..60usize {
            run.step(&Op::Append { overwrite: nth % 7, sizes: vec![nth * 13, 5], vote: nth % 5 == 0, commit: 1 });
            if nth % 9 == 8 {
                run.step(&Op::Fault { nth: 1 + nth as u64 % 3, fault: Fault::PowerCut });
            }
            if nth % 20 == 19 {
                run.step(&Op::Purge { pick: nth });
            }
        }
        let names = run.disk.list().unwrap();
        names.into_iter().map(|name| (run.disk.content(&name), name)).collect::<Vec<_>>()
    };
    assert!(run() == run());
}

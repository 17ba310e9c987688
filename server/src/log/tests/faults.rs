//! Disks that fail, and callers that ask for nonsense.

use std::io::ErrorKind;

use super::*;
use crate::log::{Change, Disk, EntryId, Fault};

/// The log after its next changing operation number `nth` failed in an append.
fn fail(nth: u64, fault: Fault) -> (SimDisk, Log, LogError) {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=3, 1);
    disk.fault_at(disk.operations() + nth, fault);
    // Large enough that half of the pages written is not all of it.
    let error = log.append(&[entry(4, 1, vec![4; 3900])], None).unwrap_err();
    (disk, log, error)
}

#[test]
fn after_a_failed_sync_nothing_is_written_any_more() {
    let (disk, mut log, error) = fail(2, Fault::Error(ErrorKind::Other));
    assert!(error.to_string().contains("cannot fdatasync simulated/log-0000000000000001"), "{error}");
    let before = disk.operations();
    assert!(matches!(log.append(&[entry(4, 1, "x")], None), Err(LogError::Poisoned { .. })));
    assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
    let poisoned = log.purge(1).unwrap_err().to_string();
    assert!(poisoned.contains("cannot fdatasync") && poisoned.contains("restart"), "{poisoned}");
    assert!(log.spare_job().is_none());
    assert_eq!(disk.operations(), before);
    assert_eq!(indexes(&log.reader().entries(1, 4, u64::MAX).unwrap()), [1, 2, 3], "what is durable can be read");
}

#[test]
fn after_a_failed_write_nothing_is_written_any_more() {
    let (disk, mut log, error) = fail(1, Fault::HalfDone);
    assert!(error.to_string().contains("cannot write"), "{error}");
    assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
    let (_, recovered) = open(&disk.kill(), 0).unwrap();
    assert_eq!(indexes(&recovered.entries), [1, 2, 3]);
}

#[test]
fn what_a_restart_after_a_lost_sync_reports_is_durable() {
    let (disk, _, _) = fail(2, Fault::SyncLost);
    let disk = disk.kill();
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(indexes(&recovered.entries), [1, 2, 3, 4], "the page cache still shows it");
    let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(indexes(&recovered.entries), [1, 2, 3, 4]);
}

#[test]
fn a_full_disk_is_named_and_loses_nothing() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    disk.limit_space(20 << 10);
    let mut index = 1;
    let error = loop {
        match log.append(&[kib_entry(index, 1)], None) {
            Ok(()) => index += 1,
            Err(error) => break error,
        }
    };
    let message = error.to_string();
    assert!(matches!(error, LogError::NoSpace { .. }));
    assert!(message.contains("cannot create simulated/tmp-") && message.contains("no space left"), "{message}");
    assert_eq!(index, 8 + 1, "the first segment holds two pages of records");
    assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
    // Even with the disk still full it can be opened; with room again it goes on.
    let disk = disk.power_failure();
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(recovered.terms.last().index, 8);
    disk.limit_space(u64::MAX);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 9..=20, 1);
}

#[test]
fn a_spare_that_cannot_be_made_ahead_is_no_error() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=5, 1);
    disk.limit_space(20 << 10);
    let job = log.spare_job().unwrap();
    assert!(matches!(job.run(), Err(LogError::NoSpace { .. })));
    log.add_spare(None);
    disk.limit_space(u64::MAX);
    fill(&mut log, 6..=20, 1);
}

#[test]
fn a_crash_anywhere_in_the_creation_of_a_log_leaves_an_empty_one() {
    for nth in 1..20 {
        for seed in 0..10 {
            let disk = SimDisk::new(seed);
            disk.fault_at(nth, Fault::PowerCut);
            if open(&disk, 0).is_ok() {
                assert!(nth > 5, "creating takes some operations");
                continue;
            }
            let disk = disk.power_failure();
            let (_, recovered) = open(&disk, 0).unwrap();
            assert!(recovered.entries.is_empty());
            assert!(disk.list().unwrap().len() <= 3);
        }
    }
}

#[test]
fn a_directory_that_cannot_be_synced_is_an_error() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=7, 1);
    // create, write the header, sync it, rename, sync the directory
    disk.fault_at(disk.operations() + 5, Fault::Error(ErrorKind::Other));
    let error = log.append(&[kib_entry(8, 1)], None).unwrap_err().to_string();
    assert!(error.contains("cannot fsync simulated"), "{error}");
    let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.terms.last().index, 7);
}

#[test]
fn changes_that_make_no_sense_are_refused() {
    let committed = hard_state(2, 1, 2);
    let refuse = |what: &str, change: &dyn Fn(&mut Log) -> Result<(), LogError>| {
        let disk = SimDisk::new(1);
        let (mut log, _) = open(&disk, 0).unwrap();
        log.append(&[entry(1, 1, "a"), entry(2, 2, "b"), entry(3, 2, "c")], Some(&committed)).unwrap();
        let error = change(&mut log).unwrap_err();
        assert!(matches!(error, LogError::Misuse(_)), "{what}: {error}");
        assert!(error.to_string().contains(what), "{what}: {error}");
        assert!(matches!(log.sync(), Err(LogError::Poisoned { .. })));
        let (_, recovered) = open(&disk.kill(), 0).unwrap();
        assert_eq!(recovered.entries.len(), 3);
    };
    refuse("leaves a gap", &|log| log.append(&[entry(5, 2, "")], None));
    refuse("overwrite a committed one", &|log| log.append(&[entry(2, 3, "")], None));
    refuse("lower term", &|log| log.append(&[entry(4, 1, "")], None));
    refuse("unknown type", &|log| log.append(&[Entry { entry_type: 3, ..entry(4, 2, "") }], None));
    refuse("hard state of term 1", &|log| log.append(&[], Some(&hard_state(1, 1, 2))));
    refuse("commit index 4", &|log| log.append(&[], Some(&hard_state(2, 1, 4))));
    refuse("commit index 2", &|log| log.reset(EntryId::new(1, 1), None));
    refuse("purge up to entry 4", &|log| log.purge(4).map(|_| ()));
    refuse("commit index 2", &|log| log.stage(&Change { reset: Some(EntryId::new(1, 1)), ..Change::default() }));
}

#[test]
fn a_reader_of_a_recycled_segment_learns_that_its_entries_are_gone() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=40, 1);
    let reader = log.reader();
    log.purge(40).unwrap();
    fill(&mut log, 41..=80, 1);
    assert!(matches!(reader.entries(1, 10, u64::MAX), Err(LogError::Purged { .. })));
    assert!(disk.list().unwrap().len() > 2);
}

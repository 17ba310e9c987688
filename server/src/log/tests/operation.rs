//! What the log does while nothing goes wrong.

use super::*;
use crate::log::{Change, Disk, EntryId};

#[test]
fn a_new_log_is_empty_and_says_that_it_is_new() {
    let disk = SimDisk::new(1);
    let (log, recovered) = open(&disk, 0).unwrap();
    assert!(recovered.created);
    assert_eq!(recovered.last_batch, 0);
    assert_eq!(log.terms().last(), EntryId::default());
    let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert!(!recovered.created);
    assert_eq!(recovered.hard_state, HardState::default());
    assert!(recovered.entries.is_empty());
}

#[test]
fn entries_and_hard_state_come_back() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    let entries = [entry(1, 1, "one"), entry(2, 1, ""), entry(3, 2, vec![3; 5000])];
    log.append(&entries, Some(&hard_state(2, 9, 2))).unwrap();
    let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.entries, entries);
    assert_eq!(recovered.hard_state, hard_state(2, 9, 2));
    assert_eq!(recovered.last_batch, 1);
    assert_eq!(recovered.terms.term(3), Some(2));
}

#[test]
fn only_entries_after_the_given_index_are_returned_but_all_terms_are_known() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=10, 1);
    fill(&mut log, 11..=20, 2);
    drop(log);
    let (_, recovered) = open(&disk.kill(), 17).unwrap();
    assert_eq!(indexes(&recovered.entries), [18, 19, 20]);
    assert_eq!(recovered.terms.base(), EntryId::default());
    assert_eq!((recovered.terms.term(10), recovered.terms.term(17)), (Some(1), Some(2)));
    let (_, recovered) = open(&disk.kill(), 99).unwrap();
    assert!(recovered.entries.is_empty());
    assert_eq!(recovered.terms.last(), EntryId::new(20, 2));
}

#[test]
fn the_later_write_of_an_index_wins_and_everything_above_is_gone() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    log.append(&[entry(1, 1, "a"), entry(2, 1, "b"), entry(3, 1, "c")], None).unwrap();
    log.append(&[entry(2, 2, "B")], None).unwrap();
    assert_eq!(log.reader().entries(1, 3, u64::MAX).unwrap(), [entry(1, 1, "a"), entry(2, 2, "B")]);
    let (log, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.entries, [entry(1, 1, "a"), entry(2, 2, "B")]);
    assert_eq!(log.terms().last(), EntryId::new(2, 2));
}

#[test]
fn a_commit_index_alone_is_not_written_until_it_has_company() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    log.append(&[entry(1, 1, "a"), entry(2, 1, "b")], Some(&hard_state(1, 1, 0))).unwrap();
    let before = disk.operations();
    log.append(&[], Some(&hard_state(1, 1, 1))).unwrap();
    assert!(!log.needs_sync());
    assert_eq!(disk.operations(), before);
    log.append(&[entry(3, 1, "c")], None).unwrap();
    let (mut log, recovered) = open(&disk.kill(), 0).unwrap();
    assert_eq!(recovered.hard_state.commit, 1);
    // A new vote alone does need a sync.
    log.stage(&Change { hard_state: Some(&hard_state(1, 2, 1)), ..Change::default() }).unwrap();
    assert!(log.needs_sync());
}

#[test]
fn a_clean_stop_can_write_the_commit_index() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    log.append(&[entry(1, 1, "a")], Some(&hard_state(1, 1, 0))).unwrap();
    log.append(&[], Some(&hard_state(1, 1, 1))).unwrap();
    log.sync().unwrap();
    assert_eq!(open(&disk.power_failure(), 0).unwrap().1.hard_state.commit, 1);
}

#[test]
fn several_staged_changes_are_one_batch() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    let before = disk.operations();
    for index in 1..=5 {
        let entries = [entry(index, 1, "x")];
        log.stage(&Change { entries: &entries, hard_state: Some(&hard_state(1, 1, index - 1)), reset: None }).unwrap();
    }
    assert_eq!(log.sync().unwrap(), 1);
    assert_eq!(disk.operations(), before + 2, "one write and one sync");
    let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(indexes(&recovered.entries), [1, 2, 3, 4, 5]);
    assert_eq!(recovered.hard_state.commit, 4);
    assert_eq!(recovered.last_batch, 1);
}

#[test]
fn a_purge_gives_back_whole_segments_and_keeps_the_term_before_the_first_entry() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=30, 3);
    let size = log.size_bytes();
    assert_eq!(log.purge(3).unwrap(), EntryId::default(), "no whole segment");
    assert_eq!(log.size_bytes(), size);
    let gone = log.purge(25).unwrap();
    assert!(gone.index > 15 && gone.index <= 25 && gone.term == 3, "{gone:?}");
    assert!(log.size_bytes() < size);
    let reader = log.reader();
    assert!(matches!(reader.entries(gone.index, 30, 1), Err(LogError::Purged { .. })));
    assert_eq!(indexes(&reader.entries(gone.index + 1, 31, u64::MAX).unwrap()).len() as u64, 30 - gone.index);
    let (log, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.terms.base(), gone);
    assert_eq!(recovered.entries[0].index, gone.index + 1);
    assert_eq!(log.terms().last(), EntryId::new(30, 3));
    // The hard state was in segments that are gone.
    assert_eq!(recovered.hard_state, hard_state(3, 1, 29));
}

#[test]
fn purged_segments_are_used_again_and_do_not_pile_up() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    for round in 0..20 {
        let first = round * 30 + 1;
        fill(&mut log, first..=first + 29, 1);
        log.purge(first + 28).unwrap();
        let names = disk.list().unwrap();
        assert!(names.len() <= 4, "{names:?}");
        assert!(names.iter().any(|name| name.starts_with("spare-")));
    }
    let disk = disk.power_failure();
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(recovered.terms.last(), EntryId::new(600, 1));
}

#[test]
fn what_a_recycled_segment_held_before_does_not_come_back() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    // Batches of one size, so that old records begin exactly where the new ones end.
    let batch = |index: u64| [entry(index, 1, vec![index as u8; 968])];
    for index in 1..=40 {
        log.append(&batch(index), None).unwrap();
    }
    log.purge(40).unwrap();
    for index in 41..=43 {
        log.append(&batch(index), None).unwrap();
    }
    // Until one of the recycled files is the active segment, and little of it overwritten.
    let mut index = 43;
    loop {
        let names = disk.list().unwrap();
        let active = names.iter().filter(|name| name.starts_with("log-")).max().unwrap();
        let content = disk.content(active);
        if content[8192..].iter().any(|&byte| byte != 0) && content[4096 + 32] == index as u8 {
            break;
        }
        index += 1;
        log.append(&batch(index), None).unwrap();
        assert!(index < 100, "no recycled segment with old bytes behind its first batch");
    }
    let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.terms.last().index, index);
}

#[test]
fn a_batch_larger_than_a_segment_gets_a_segment_of_its_own() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=3, 1);
    let large = [entry(4, 1, vec![4; 100_000]), entry(5, 1, vec![5; 50_000])];
    log.append(&large, None).unwrap();
    fill(&mut log, 6..=20, 1);
    assert_eq!(log.reader().entries(4, 6, u64::MAX).unwrap(), large);
    let (mut log, recovered) = open(&disk.power_failure(), 3).unwrap();
    assert_eq!(recovered.entries[..2], large);
    assert_eq!(recovered.entries.len(), 17);
    let size = log.size_bytes();
    log.purge(20).unwrap();
    assert!(log.size_bytes() < size - 150_000);
}

#[test]
fn a_reset_begins_again_after_the_snapshot() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=25, 1);
    log.reset(EntryId::new(100, 4), Some(&hard_state(5, 0, 100))).unwrap();
    assert_eq!(log.terms().base(), EntryId::new(100, 4));
    assert!(matches!(log.reader().entries(25, 26, 1), Err(LogError::Purged { first_index: 101, .. })));
    log.append(&[entry(101, 5, "a")], None).unwrap();
    let disk = disk.power_failure();
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(recovered.terms.base(), EntryId::new(100, 4));
    assert_eq!(recovered.entries, [entry(101, 5, "a")]);
    assert_eq!(recovered.hard_state, hard_state(5, 0, 100));
    assert_eq!(disk.list().unwrap().iter().filter(|name| name.starts_with("log-")).count(), 1);
}

#[test]
fn a_reset_without_a_hard_state_leaves_a_commit_index_that_fits() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    log.reset(EntryId::new(1, 1), None).unwrap();
    let (mut log, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.hard_state, hard_state(0, 0, 1));
    fill(&mut log, 2..=40, 1);
    let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.terms.last().index, 40);
}

#[test]
fn a_snapshot_with_entries_after_it_is_one_batch() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=5, 1);
    let entries = [entry(51, 2, "x")];
    log.stage(&Change { reset: Some(EntryId::new(50, 2)), entries: &entries, hard_state: Some(&hard_state(2, 0, 50)) })
        .unwrap();
    log.sync().unwrap();
    let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.entries, entries);
    assert_eq!(recovered.terms.base(), EntryId::new(50, 2));
}

#[test]
fn the_first_segment_may_overwrite_entries_of_one_that_is_gone() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    // Nothing is committed beyond entry 3 while a new leader's entries overwrite those from 4 on, in a later segment.
    for index in 1..=20 {
        log.append(&[kib_entry(index, 1)], Some(&hard_state(1, 1, index.min(3)))).unwrap();
    }
    for index in 4..=40 {
        log.append(&[kib_entry(index, 2)], Some(&hard_state(2, 1, index - 1))).unwrap();
    }
    let gone = log.purge(12).unwrap();
    assert!((3..=12).contains(&gone.index), "{gone:?}");
    assert_eq!(gone.term, if gone.index == 3 { 1 } else { 2 });
    let expected = log.reader().entries(gone.index + 1, 41, u64::MAX).unwrap();
    let (log, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.terms.base(), gone);
    assert_eq!(recovered.entries, expected);
    assert_eq!(log.reader().entries(gone.index + 1, 41, u64::MAX).unwrap(), expected);
}

#[test]
fn a_segment_in_which_everything_was_overwritten_is_given_back_at_the_next_start() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill_uncommitted(&mut log, 1..=12, 1);
    fill_uncommitted(&mut log, 1..=3, 2);
    let mut disk = disk;
    for _ in 0..2 {
        disk = disk.power_failure();
        let (_, recovered) = open(&disk, 0).unwrap();
        assert_eq!(recovered.terms.base(), EntryId::default());
        assert_eq!(recovered.entries, [kib_entry(1, 2), kib_entry(2, 2), kib_entry(3, 2)]);
    }
}

fn fill_uncommitted(log: &mut Log, indexes: std::ops::RangeInclusive<u64>, term: u64) {
    for index in indexes {
        log.append(&[kib_entry(index, term)], Some(&hard_state(term, 1, 0))).unwrap();
    }
}

#[test]
fn reads_are_limited_by_bytes_but_return_at_least_one_entry() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=30, 1);
    let reader = log.reader();
    assert_eq!(indexes(&reader.entries(5, 31, 0).unwrap()), [5]);
    assert_eq!(indexes(&reader.entries(5, 31, 3 * 992).unwrap()), [5, 6, 7]);
    assert_eq!(indexes(&reader.entries(29, 31, u64::MAX).unwrap()), [29, 30]);
    assert!(reader.entries(7, 7, u64::MAX).unwrap().is_empty());
    assert!(matches!(reader.entries(30, 32, 1), Err(LogError::OutOfRange { index: 31, last_index: 30 })));
    assert_eq!(reader.last(), EntryId::new(30, 1));
    assert_eq!((reader.term(30), reader.term(31), reader.first_index()), (Some(1), None, 1));
}

#[test]
fn a_prepared_file_is_used_for_the_next_segment() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    assert!(log.spare_job().is_none(), "the segment is still empty");
    fill(&mut log, 1..=5, 1);
    let spare = log.spare_job().expect("half of the segment is used").run().unwrap();
    assert!(log.spare_job().is_none(), "one is being made");
    assert_eq!(disk.list().unwrap(), ["log-0000000000000001", "spare-0000000000000002"]);
    log.add_spare(Some(spare));
    fill(&mut log, 6..=10, 1);
    assert_eq!(disk.list().unwrap(), ["log-0000000000000001", "log-0000000000000002"]);
}

#[test]
fn a_new_log_begins_small_and_its_segments_double_up_to_their_size() {
    let disk = SimDisk::new(1);
    let options = LogOptions { segment_bytes: 24 << 10, first_segment_bytes: 8 << 10, ..options() };
    let open = || Log::open(Arc::new(disk.clone()), &options, 0).unwrap();
    let size = |number: u64| disk.open(&format!("log-{number:016x}")).unwrap().size().unwrap();
    let (mut log, _) = open();
    fill(&mut log, 1..=10, 1);
    assert_eq!((size(1), size(2)), (8 << 10, 16 << 10));
    // What was prepared or found is used only if it is large enough.
    let spare = log.spare_job().expect("half of the segment is used").run().unwrap();
    log.add_spare(Some(spare));
    log.append(&[entry(11, 1, vec![0; 40 << 10])], None).unwrap();
    fill(&mut log, 12..=50, 1);
    assert!(size(3) > 40 << 10);
    assert_eq!((size(4), size(5)), (24 << 10, 24 << 10));
    log.purge(50).unwrap();
    drop(log);
    let (log, recovered) = open();
    assert_eq!(recovered.terms.last(), EntryId::new(50, 1));
    assert_eq!(indexes(&recovered.entries).last(), Some(&50));
    drop(log);
    let spares = disk.list().unwrap().into_iter().filter(|name| name.starts_with("spare-"));
    let spares: Vec<u64> = spares.map(|name| disk.open(&name).unwrap().size().unwrap()).collect();
    assert!(!spares.is_empty() && spares.iter().all(|&len| len == 24 << 10), "{spares:?}");
}

#[test]
fn spares_survive_a_restart_and_leftovers_do_not() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=40, 1);
    log.purge(40).unwrap();
    drop(log);
    for (name, len) in [("tmp-00000000000000ff", 12 << 10), ("spare-00000000000000f0", 4096), ("notes.txt", 5)] {
        disk.create(name, len).unwrap();
    }
    disk.sync_dir().unwrap();
    let disk = disk.power_failure();
    open(&disk, 0).unwrap();
    let names = disk.list().unwrap();
    assert_eq!(names.iter().filter(|name| name.starts_with("spare-")).count(), 2, "{names:?}");
    assert!(!names.iter().any(|name| name.ends_with("ff") || name.ends_with("f0")), "{names:?}");
    assert!(names.contains(&"notes.txt".to_owned()));
}

#[test]
fn a_purge_beyond_the_recorded_commit_index_records_it() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    let entries: Vec<Entry> = (1..=30).map(|index| kib_entry(index, 1)).collect();
    for entry in &entries {
        log.append(std::slice::from_ref(entry), None).unwrap();
    }
    let gone = log.purge(30).unwrap();
    let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
    assert_eq!(recovered.hard_state.commit, gone.index);
}

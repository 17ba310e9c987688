//! Directories that no crash leaves: each is refused with an error that says where and why, and nothing is changed. And
//! torn ends, which are not.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::log::record::BatchBuffer;
use crate::log::segment::{FileName, SegmentHeader};
use crate::log::{Disk, EntryId};

/// A batch's place: the file's name, begin and end.
type Place = (String, u64, u64);

/// Ten batches of one to three entries, in several segments.
fn log_of_ten(disk: &SimDisk) -> Vec<Place> {
    let (mut log, _) = open(disk, 0).unwrap();
    let mut places = Vec::new();
    let mut index = 1;
    for batch in 0..10 {
        let entries: Vec<Entry> = (index..=index + batch % 3).map(|index| kib_entry(index, 1)).collect();
        index += batch % 3 + 1;
        let (before, from) = log.end();
        log.append(&entries, Some(&hard_state(1, 1, index - 2))).unwrap();
        let (after, to) = log.end();
        places.push(if before == after { (after, from, to) } else { (after, 4096, to) });
    }
    places
}

fn all_files(disk: &SimDisk) -> Vec<(String, Vec<u8>)> {
    disk.list().unwrap().into_iter().map(|name| (name.clone(), disk.content(&name))).collect()
}

fn flip(disk: &SimDisk, name: &str, at: u64, mask: u8) {
    let byte = disk.content(name)[at as usize];
    disk.patch(name, at, &[byte ^ mask]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_changed_byte_in_any_batch_but_the_last_is_refused(batch in 0usize..9, at: prop::sample::Index, mask in 1u8..) {
        let disk = SimDisk::new(1);
        let places = log_of_ten(&disk);
        let disk = disk.kill();
        let (name, from, to) = &places[batch];
        flip(&disk, name, from + at.index((to - from) as usize) as u64, mask);
        let before = all_files(&disk);
        match refused(&disk) {
            LogError::Damaged { path, offset, batch: number, later_batch, .. } => {
                prop_assert_eq!((path, offset, number), (disk.path(name), *from, batch as u64 + 1));
                prop_assert!(later_batch > number);
            }
            other => panic!("{other}"),
        }
        prop_assert!(before == all_files(&disk), "nothing is changed");
    }

    #[test]
    fn a_changed_byte_in_the_last_batch_is_a_torn_end(at: prop::sample::Index, mask in 1u8..) {
        let disk = SimDisk::new(1);
        let places = log_of_ten(&disk);
        let disk = disk.kill();
        let (name, from, to) = &places[9];
        flip(&disk, name, from + at.index((to - from) as usize) as u64, mask);
        let (mut log, recovered) = open(&disk, 0).unwrap();
        prop_assert_eq!(recovered.last_batch, 9);
        let last = recovered.terms.last().index;
        prop_assert_eq!(last, recovered.entries.len() as u64);
        log.append(&[entry(last + 1, 1, "next")], None).unwrap();
        let (_, recovered) = open(&disk.power_failure(), 0).unwrap();
        prop_assert_eq!(recovered.last_batch, 10);
        prop_assert_eq!(&recovered.entries[last as usize], &entry(last + 1, 1, "next"));
    }

    #[test]
    fn a_last_batch_that_ends_anywhere_is_a_torn_end(at: prop::sample::Index) {
        let disk = SimDisk::new(1);
        let places = log_of_ten(&disk);
        let disk = disk.kill();
        let (name, from, to) = &places[9];
        let cut = from + at.index((to - from) as usize) as u64;
        let before = disk.content(name);
        disk.patch(name, cut, &vec![0; (to - cut) as usize]);
        let is_cut = disk.content(name) != before;
        let (_, recovered) = open(&disk, 0).unwrap();
        prop_assert_eq!(recovered.last_batch, if is_cut { 9 } else { 10 });
        prop_assert!(recovered.torn || cut < from + 32 || !is_cut);
    }

    #[test]
    fn a_changed_byte_in_a_segment_header_is_refused(segment in 1u64..=3, at in 0u64..512, mask in 1u8..) {
        let disk = SimDisk::new(1);
        log_of_ten(&disk);
        let disk = disk.kill();
        flip(&disk, &FileName::Log(segment).to_string(), at, mask);
        match refused(&disk) {
            LogError::BadHeader { .. } => {}
            LogError::NewerFormat { .. } => prop_assert!((8..12).contains(&at)),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn garbage_behind_the_end_does_no_harm(garbage in prop::collection::vec(any::<u8>(), 1..2000)) {
        let disk = SimDisk::new(1);
        let places = log_of_ten(&disk);
        let disk = disk.kill();
        let (name, _, to) = &places[9];
        let room = disk.content(name).len() - *to as usize;
        disk.patch(name, *to, &garbage[..garbage.len().min(room)]);
        let (_, recovered) = open(&disk, 0).unwrap();
        prop_assert_eq!(recovered.last_batch, 10);
    }
}

#[test]
fn the_message_about_damage_names_file_offset_batches_and_a_way_out() {
    let disk = SimDisk::new(1);
    let places = log_of_ten(&disk);
    let disk = disk.kill();
    let (name, from, _) = &places[1];
    flip(&disk, name, *from, 1);
    let message = refused(&disk).to_string();
    for part in [&**name, &format!("damaged at byte {from}: batch 2"), "goes on with batch 5", "restore this member"] {
        assert!(message.contains(part), "{part} is not in: {message}");
    }
}

#[test]
fn a_missing_segment_is_refused_wherever_it_was() {
    for gone in 1..=2 {
        let disk = SimDisk::new(1);
        log_of_ten(&disk);
        let disk = disk.kill();
        disk.remove(&FileName::Log(gone).to_string()).unwrap();
        match refused(&disk) {
            LogError::MissingSegment { path } => assert_eq!(path, disk.path(&FileName::Log(gone).to_string())),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn a_missing_first_segment_is_noticed_after_purges_too() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    fill(&mut log, 1..=60, 1);
    log.purge(15).unwrap();
    fill(&mut log, 61..=70, 1);
    drop(log);
    let disk = disk.kill();
    let first = disk.list().unwrap().into_iter().find(|name| name.starts_with("log-")).unwrap();
    disk.remove(&first).unwrap();
    match refused(&disk) {
        LogError::MissingSegment { path } => assert_eq!(path, disk.path(&first)),
        other => panic!("{other}"),
    }
}

#[test]
fn a_log_of_another_cluster_or_member_is_refused() {
    let disk = SimDisk::new(1);
    open(&disk, 0).unwrap();
    for (what, cluster_id, member_id) in
        [("cluster c1, but this is cluster 99", 0x99, 0x3e), ("member 3e, but this is member 99", 0xc1, 0x99)]
    {
        let theirs = LogOptions { identity: Identity { cluster_id, member_id }, ..options() };
        let error = Log::open(Arc::new(disk.clone()), &theirs, 0).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
    open(&disk, 0).unwrap();
}

#[test]
fn a_newer_format_is_refused_by_its_number() {
    let disk = SimDisk::new(1);
    open(&disk, 0).unwrap();
    let name = FileName::Log(1).to_string();
    disk.patch(&name, 8, &2u32.to_le_bytes());
    assert!(matches!(refused(&disk), LogError::NewerFormat { found: 2, supported: 1, .. }));
}

#[test]
fn a_renamed_segment_is_refused() {
    let disk = SimDisk::new(1);
    open(&disk, 0).unwrap();
    disk.rename(&FileName::Log(1).to_string(), &FileName::Log(5).to_string()).unwrap();
    assert!(refused(&disk).to_string().contains("header of segment 1"));
}

/// Puts a batch of records at the end of the log, whatever they say.
fn forge(disk: &SimDisk, fill: impl FnOnce(&mut BatchBuffer)) {
    let (log, recovered) = open(disk, 0).unwrap();
    let (name, end) = log.end();
    let header = SegmentHeader::decode(&disk.content(&name)).unwrap();
    let mut buffer = BatchBuffer::default();
    fill(&mut buffer);
    disk.patch(&name, end, buffer.finish(recovered.last_batch + 1, header.seed()));
}

#[test]
fn a_commit_index_beyond_the_last_entry_is_refused() {
    let disk = SimDisk::new(1);
    log_of_ten(&disk);
    let disk = disk.kill();
    forge(&disk, |batch| {
        batch.push_hard_state(&hard_state(1, 1, 1000));
    });
    assert!(matches!(refused(&disk), LogError::CommitBeyondEnd { commit: 1000, .. }));
}

#[test]
fn records_that_verify_but_make_no_sense_are_refused() {
    let forgeries: [fn(&mut BatchBuffer); 4] = [
        |batch| _ = batch.push_entry(&entry(1000, 1, "gap")),
        |batch| _ = batch.push_entry(&entry(0, 1, "before the first")),
        |batch| _ = batch.push_purge(EntryId::new(1000, 1)),
        |batch| _ = batch.push_purge(EntryId::new(3, 77)),
    ];
    for forgery in forgeries {
        let disk = SimDisk::new(1);
        log_of_ten(&disk);
        let disk = disk.kill();
        forge(&disk, forgery);
        assert!(matches!(refused(&disk), LogError::Inconsistent { batch: 11, .. }));
    }
}

#[test]
fn remains_of_two_torn_batches_of_one_number_do_not_make_a_batch() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    let batch = |tag: u8| [entry(1, 1, vec![tag; 456]), entry(2, 1, vec![tag; 456])];
    let (name, from) = log.end();
    log.append(&batch(1), None).unwrap();
    let first = disk.content(&name);
    let second_record = from + 512;
    // The first record never reached the disk.
    let disk = disk.kill();
    disk.patch(&name, from, &[0; 512]);
    let (mut log, recovered) = open(&disk, 0).unwrap();
    assert!(recovered.torn && recovered.entries.is_empty());
    // In its place a batch of the same number and shape is written, of which only the first record reaches the disk.
    log.append(&batch(2), None).unwrap();
    let disk = disk.kill();
    disk.patch(&name, second_record, &first[second_record as usize..second_record as usize + 512]);
    let (_, recovered) = open(&disk, 0).unwrap();
    assert!(recovered.torn);
    assert_eq!(recovered.entries, []);
    assert_eq!(recovered.last_batch, 0);
}

#[test]
fn a_value_that_looks_like_a_record_of_another_nonce_is_no_proof_of_damage() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 0).unwrap();
    let mut forged = BatchBuffer::default();
    forged.push_entry(&entry(9, 9, "boo"));
    // The client guesses segment and batch, but not the nonce.
    let header = SegmentHeader {
        identity: options().identity,
        number: 1,
        nonce: options().nonce + 1,
        file_len: 0,
        first_batch: 1,
        previous_end: 0,
        base: EntryId::default(),
        last: EntryId::default(),
        hard_state: HardState::default(),
    };
    let value = forged.finish(5, header.seed()).clone();
    let (name, from) = log.end();
    log.append(&[entry(1, 1, value)], None).unwrap();
    drop(log);
    let disk = disk.kill();
    flip(&disk, &name, from, 1);
    let (_, recovered) = open(&disk, 0).unwrap();
    assert_eq!(recovered.last_batch, 0);
    assert_eq!(disk.path(&name), PathBuf::from("simulated").join(name));
}

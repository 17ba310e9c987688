//! Tests of the log as a whole, on the simulated disk and on files.

mod damage;
mod faults;
mod files;
mod model;
mod operation;
mod thread;

use std::sync::Arc;

use raft::eraftpb::{Entry, HardState};

use super::{Identity, Log, LogError, LogOptions, LogStore, Recovered, SimDisk};

/// Segments as small as they get: one page of header and two of records.
fn options() -> LogOptions {
    LogOptions { segment_bytes: 12 << 10, ..LogOptions::new(Identity { cluster_id: 0xc1, member_id: 0x3e }, 7) }
}

fn open(disk: &SimDisk, after: u64) -> Result<(Log, Recovered), LogError> {
    Log::open(Arc::new(disk.clone()), &options(), after)
}

fn entry(index: u64, term: u64, data: impl Into<Vec<u8>>) -> Entry {
    Entry { index, term, data: data.into(), ..Entry::default() }
}

/// An entry whose record takes 1 KiB.
fn kib_entry(index: u64, term: u64) -> Entry {
    entry(index, term, vec![index as u8; 1024 - 32 - 24])
}

fn hard_state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit }
}

/// Appends 1 KiB entries one by one, committing each with the next.
fn fill(log: &mut Log, indexes: std::ops::RangeInclusive<u64>, term: u64) {
    for index in indexes {
        log.append(&[kib_entry(index, term)], Some(&hard_state(term, 1, index - 1))).unwrap();
    }
}

fn indexes(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.index).collect()
}

/// The error of an open that must fail.
fn refused(disk: &SimDisk) -> LogError {
    open(disk, 0).map(|_| ()).unwrap_err()
}

//! The durable raft log: entries and hard state in segment files, one write and one `fdatasync` a batch.
//!
//! The node hands over what raft wants to have persisted ([`Batch`]) to the one thread that writes ([`LogThread`]) and
//! acknowledges nothing before that reports it as synced. At start [`Log::open`] reads everything back. Only `node/`
//! may call this; nothing here knows about keys, raft's rules, time or the network. The one invariant: **what was
//! reported as synced is there after any crash, and what is there was once handed over.**
//!
//! # On the disk
//!
//! ```text
//! <dir>/log-0000000000000007     a segment: header, then batches of records, then zeros or remains of an earlier use
//!       log-0000000000000008     the active one
//!       spare-0000000000000003   a purged or prepared file, to become log-…9
//!
//! segment   | header, 4096 bytes | batch 81 | batch 82 | batch 83 | (not used yet)             |
//! batch     | record | record | record |        entries, then the hard state if it changed
//! record    | header, 32 bytes: crc, body crc, batch, length, chain, kind, flags | body | padding to 8 |
//! ```
//!
//! The modules `segment` and `record` hold the layouts, byte by byte; docs/format.md repeats them. Segments are files
//! whose blocks are allocated and written before use, because growing a file or writing an allocated block for the first
//! time costs a journal commit with every sync. When one is full, the next number begins; when all its entries are
//! purged, its file becomes a spare and later, by rename, another segment. A batch never spans segments; one that is too
//! large for an ordinary segment gets a segment of its own size.
//!
//! A new log begins with a small segment, and each following one is twice as large as the one before until they have
//! their full size: writing zeros over a whole one before a new member serves would be most of its start, and a log that
//! stays small takes little room. Only files of the full size are used again.
//!
//! Entries are overwritten as raft demands by writing them again: the later record of an index wins, and everything
//! above it is gone. Purging is a record too; it says from where the log counts (with the term of the entry before),
//! and only then the files go, oldest first. So does installing a snapshot.
//!
//! # Crashes
//!
//! Batches are numbered, without gaps, and **batch N+1 is written only when N is synced**. So at most the very last
//! batch can be incomplete, and:
//!
//! * In every segment but the last, batches must verify up to the place that the next segment's header names.
//! * In the last one, the first batch that does not verify is the end of the log, if no record header of a *later*
//!   batch verifies anywhere behind it. That is what a crash during a write leaves, and the next batch, of the same
//!   number, is written over it.
//! * Otherwise it is damage: the batch had been synced, perhaps acknowledged. The member refuses to start and says
//!   where, and what to do.
//!
//! Old bytes cannot pass for new ones: the checksums of a segment's records start from its number and a random nonce,
//! numbers only rise, and the records of a batch are chained, so that not even the remains of two torn batches of one
//! number fit together. A value a client chose cannot contain a record, as the client does not know the nonce.
//!
//! What recovery has read is made durable before it is relied on: a killed process leaves written but unsynced bytes in
//! the page cache, and a failed sync leaves pages that look clean; the last batch is therefore written and synced
//! again.
//!
//! An error of a write or a sync is final. The kernel may have thrown the data away, so nothing is retried and every
//! later call fails (`Poisoned`).
//!
//! # The commit index
//!
//! A hard state in which only the commit index moved is kept in memory and goes with the next batch. It is no more than
//! a hint after a restart, and never worth a sync. The purge point is always committed, so after a restart the commit
//! index is at least that.
//!
//! # Testing
//!
//! The log works on a [`Disk`]: files ([`FileDisk`]) or a simulation ([`SimDisk`]) that loses what was not synced,
//! tears writes, fails on demand and repeats itself exactly for the same seed. For tests with real files and killed
//! processes, [`FileDisk::open_recording_syncs`] and [`cut_back`] destroy what no completed sync has covered.
//!
//! # Caveats
//!
//! * Damage within the last batch cannot be told from a torn write: nothing after it proves that it was complete. It is
//!   dropped, though it may have been acknowledged; the cluster has it, this member does not. Likewise if somebody
//!   removes the last segment files. The state's applied index catches most of this at start.
//! * A sector is taken to be written whole or not at all, as disks promise. One that a power failure leaves unreadable
//!   is an I/O error at start.
//! * Reading entries back ([`EntryReader`]) goes from one point every 64 KiB and checks everything on the way; it is
//!   made for followers that catch up, not for single entries.
//! * raft's deprecated `sync_log` field of an entry is not kept.

#![deny(clippy::disallowed_methods)]

mod disk;
mod error;
mod file_disk;
mod layout;
mod lock;
mod log_store;
mod reader;
mod record;
mod recovery;
mod scan;
mod segment;
mod sim_disk;
mod spare;
mod sync_record;
mod terms;
mod thread;
mod writer;

#[cfg(test)]
mod tests;

pub use disk::{Disk, DiskFile};
pub use error::{LogError, Result};
pub use file_disk::FileDisk;
pub use lock::{DataDirLock, LockError};
pub use log_store::{Change, EntryReader, LogStore, SyncTimes};
pub use segment::Identity;
pub use sim_disk::{Fault, SimDisk};
pub use spare::{Spare, SpareJob};
pub use sync_record::{CutBack, Unsynced, cut_back};
pub use terms::{EntryId, Terms};
pub use thread::{
    AppendHereError, Batch, LogEvent, LogSender, LogStopped, LogThread, LogThreadOptions, OnEvent, OnSync, SyncReport,
    TryAppendError,
};
pub use writer::{Log, LogOptions, Recovered};

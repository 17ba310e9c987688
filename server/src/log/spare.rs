//! Files that wait to become segments.
//!
//! A spare is a file of a segment's size, allocated and written all over: with zeros, or with the records of a purged
//! segment, which do not verify any more. So appending to it changes blocks, not metadata, and a sync costs no journal
//! commit. Zeroing a segment takes a while: [`SpareJob`] can be run by another thread while the log is written.

use std::collections::VecDeque;
use std::sync::Arc;

use super::disk::{Disk, DiskFile};
use super::error::{LogError, Result};
use super::segment::FileName;

/// A prepared file.
pub struct Spare {
    pub(crate) name: FileName,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) len: u64,
}

/// The preparation of one spare file.
pub struct SpareJob {
    disk: Arc<dyn Disk>,
    number: u64,
    len: u64,
}

impl SpareJob {
    /// Creates the file: zeroed, synced and under its own name.
    pub fn run(self) -> Result<Spare> {
        let made = make(self.disk.as_ref(), self.number, self.len)?;
        let name = FileName::Spare(self.number);
        rename(self.disk.as_ref(), made.name, name)?;
        Ok(Spare { name, ..made })
    }
}

/// Creates a file that nobody may use yet.
fn make(disk: &dyn Disk, number: u64, len: u64) -> Result<Spare> {
    let name = FileName::Tmp(number);
    let file = disk
        .create(&name.to_string(), len)
        .map_err(|source| LogError::io("create", disk.path(&name.to_string()), source))?;
    Ok(Spare { name, file, len })
}

/// Renames and makes it durable.
pub(crate) fn rename(disk: &dyn Disk, from: FileName, to: FileName) -> Result<()> {
    let to = to.to_string();
    disk.rename(&from.to_string(), &to).map_err(|source| LogError::io("rename a file to", disk.path(&to), source))?;
    sync_names(disk)
}

/// Removes and makes it durable.
fn remove(disk: &dyn Disk, name: FileName) -> Result<()> {
    let name = name.to_string();
    disk.remove(&name).map_err(|source| LogError::io("remove", disk.path(&name), source))?;
    sync_names(disk)
}

pub(crate) fn sync_names(disk: &dyn Disk) -> Result<()> {
    disk.sync_dir().map_err(|source| LogError::io("fsync", disk.path(""), source))
}

/// The spares of a log.
pub(crate) struct Spares {
    disk: Arc<dyn Disk>,
    /// Size of a full-grown segment; used files and those found at start are not kept if they have another one.
    len: u64,
    keep_max: usize,
    ready: VecDeque<Spare>,
    /// Numbers names: two files never have the same.
    next_number: u64,
    job_is_out: bool,
}

impl Spares {
    /// Takes over what is in the directory: spares that can be used; the rest, and files whose preparation was
    /// interrupted, are removed.
    pub(crate) fn open(disk: Arc<dyn Disk>, len: u64, keep_max: usize, files: &[FileName]) -> Result<Self> {
        let numbers = files.iter().filter_map(|name| match name {
            FileName::Spare(number) | FileName::Tmp(number) => Some(*number),
            FileName::Log(_) => None,
        });
        let next_number = numbers.max().map_or(1, |number| number + 1);
        let mut spares = Self { disk, len, keep_max, ready: VecDeque::new(), next_number, job_is_out: false };
        for &name in files {
            match name {
                FileName::Spare(_) => spares.reuse(name)?,
                FileName::Tmp(_) => remove(spares.disk.as_ref(), name)?,
                FileName::Log(_) => {}
            }
        }
        Ok(spares)
    }

    fn reuse(&mut self, name: FileName) -> Result<()> {
        let text = name.to_string();
        let error = |source| LogError::io("open", self.disk.path(&text), source);
        let file = self.disk.open(&text).map_err(error)?;
        let len = file.size().map_err(error)?;
        if len == self.len && self.ready.len() < self.keep_max {
            self.ready.push_back(Spare { name, file, len });
            return Ok(());
        }
        remove(self.disk.as_ref(), name)
    }

    /// A file of at least `len` bytes to make a segment of: a spare if one fits, otherwise a new one.
    pub(crate) fn take(&mut self, len: u64) -> Result<Spare> {
        // Segments only grow: what is too small for an ordinary one now will not be used again.
        while len <= self.len
            && let Some(nth) = self.ready.iter().position(|spare| spare.len < len)
        {
            let small = self.ready.remove(nth).map(|spare| spare.name);
            small.map_or(Ok(()), |name| remove(self.disk.as_ref(), name))?;
        }
        let fits = self.ready.iter().position(|spare| spare.len >= len);
        if let Some(spare) = fits.and_then(|nth| self.ready.remove(nth)) {
            return Ok(spare);
        }
        let number = self.number();
        make(self.disk.as_ref(), number, len)
    }

    fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// A segment that is not needed any more: kept as a spare if there are not enough, otherwise removed.
    pub(crate) fn recycle(&mut self, segment: u64, file: Arc<dyn DiskFile>, len: u64) -> Result<()> {
        let from = FileName::Log(segment);
        if len != self.len || self.ready.len() >= self.keep_max {
            return remove(self.disk.as_ref(), from);
        }
        let name = FileName::Spare(self.number());
        rename(self.disk.as_ref(), from, name)?;
        self.ready.push_back(Spare { name, file, len });
        Ok(())
    }

    /// Work for another thread, if there is no spare of `len` bytes and none is being made.
    pub(crate) fn job(&mut self, len: u64) -> Option<SpareJob> {
        if self.ready.iter().any(|spare| spare.len >= len) || self.job_is_out || self.keep_max == 0 {
            return None;
        }
        self.job_is_out = true;
        Some(SpareJob { disk: Arc::clone(&self.disk), number: self.number(), len })
    }

    /// What came of the job.
    pub(crate) fn add(&mut self, spare: Option<Spare>) {
        self.job_is_out = false;
        self.ready.extend(spare);
    }
}

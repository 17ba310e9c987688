//! [`Log`]: the raft log on a [`Disk`]. Opening, staging, writing batches, beginning segments, purging.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;
use raft::eraftpb::{Entry, HardState};

use super::disk::Disk;
use super::error::{LogError, Result};
use super::file_disk::FileDisk;
use super::layout::{Layout, Position, Segment};
use super::log_store::{Change, EntryReader, LogStore, SyncTimes};
use super::reader::LogReader;
use super::record::{BODY_BYTES_MAX, BatchBuffer};
use super::recovery::{self, Found};
use super::segment::{DATA_START, FileName, Identity, SegmentHeader};
use super::spare::{self, Spare, SpareJob, Spares};
use super::terms::{EntryId, Terms};

/// Batches are written up to the next multiple of this, with zeros after the last record: a page that is written whole
/// need not be read before.
const PAGE_BYTES: u64 = 4096;
/// The largest batch. One that does not fit an ordinary segment gets a segment of its own size.
const BATCH_BYTES_MAX: usize = 1 << 30;
/// The largest raft entry type.
const ENTRY_TYPE_MAX: i32 = 2;

/// How a log is laid out, and whose it is.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Cluster and member; a log of others is refused.
    pub identity: Identity,
    /// Size of a segment file; rounded up to whole pages, at least two. Segments there already keep theirs.
    pub segment_bytes: u64,
    /// Size of a new log's first segment, so that a new member need not fill a whole one with zeros before it serves.
    /// Each following one is twice as large as the one before, up to `segment_bytes`.
    pub first_segment_bytes: u64,
    /// Purged segments and prepared files kept for use, at most.
    pub spares_max: usize,
    /// A random number, another one at each start. It makes the checksums of this run's segments unlike all others';
    /// clients must not know it.
    pub nonce: u64,
}

impl LogOptions {
    /// Size of a segment file, unless told otherwise: two spares and the one in use are most of what a log takes on the disk.
    pub const SEGMENT_BYTES: u64 = 16 << 20;

    /// The defaults: segments of 16 MiB, the first one of 4 MiB, two spares.
    pub fn new(identity: Identity, nonce: u64) -> Self {
        Self { identity, segment_bytes: Self::SEGMENT_BYTES, first_segment_bytes: 4 << 20, spares_max: 2, nonce }
    }

    /// The same with sizes that files can have.
    fn rounded(&self) -> Self {
        let whole_pages = |bytes: u64| bytes.next_multiple_of(PAGE_BYTES).max(DATA_START + PAGE_BYTES);
        let segment_bytes = whole_pages(self.segment_bytes);
        Self {
            segment_bytes,
            first_segment_bytes: whole_pages(self.first_segment_bytes).min(segment_bytes),
            ..self.clone()
        }
    }

    /// Size of the segment after one of `len` bytes.
    fn next_segment_bytes(&self, len: u64) -> u64 {
        len.saturating_mul(2).min(self.segment_bytes)
    }
}

/// What a log held when it was opened.
#[derive(Clone, Debug, PartialEq)]
pub struct Recovered {
    /// Whether there was no log before.
    pub created: bool,
    /// The last hard state; its commit index is at least the base's index.
    pub hard_state: HardState,
    /// The entries after the index asked for, without gaps up to the last one.
    pub entries: Vec<Entry>,
    /// The terms of all entries there are. Its base is the entry before the first one; the first can be beyond the
    /// index asked for.
    pub terms: Terms,
    /// Number of the last batch; 0 if there is none.
    pub last_batch: u64,
    /// Whether the end of the log was torn by a crash while a batch was being written.
    pub torn: bool,
}

/// The log as the writer and its readers share it: what is durable.
pub(crate) type SharedLayout = Arc<RwLock<Layout>>;

/// The raft log on a [`Disk`]; see the [module](super) for how it works.
pub struct Log {
    disk: Arc<dyn Disk>,
    options: LogOptions,
    shared: SharedLayout,
    /// A copy of the layout's last segment.
    active: Segment,
    spares: Spares,
    next_batch: u64,
    /// As on the disk.
    written: HardState,
    /// As it will be after the next sync, if different.
    pending: Option<HardState>,
    /// With what is staged.
    terms: Terms,
    buffer: BatchBuffer,
    /// What the staged batch does to the layout, with places counted from the start of the batch.
    steps: Vec<Step>,
    last_sync: Option<SyncTimes>,
    poison: Option<String>,
}

#[derive(Clone, Copy)]
enum Step {
    Append(EntryId, usize),
    Reset(EntryId),
    Purge(EntryId),
}

impl Log {
    /// Whose log is on `disk`; none if there is no log. [`Log::open`] refuses the log of others and looks at all of it.
    pub fn identity(disk: &dyn Disk) -> Result<Option<Identity>> {
        recovery::identity(disk)
    }

    /// Opens the log in the directory `dir`, or creates it. See [`Log::open`].
    pub fn open_dir(dir: &Path, options: &LogOptions, after: u64) -> Result<(Self, Recovered)> {
        let disk = FileDisk::open(dir).map_err(|source| LogError::io("open", dir.to_owned(), source))?;
        Self::open(Arc::new(disk), options, after)
    }

    /// Opens the log on `disk`, or creates it, and returns the entries with an index above `after`.
    ///
    /// What is returned is durable: a process that was killed may have left a batch that is written but not synced, so
    /// the last batch is written again and synced. If anything does not verify that a crash can not explain, this is an
    /// error and nothing is changed.
    pub fn open(disk: Arc<dyn Disk>, options: &LogOptions, after: u64) -> Result<(Self, Recovered)> {
        let options = options.rounded();
        let names = disk.list().map_err(|source| LogError::io("list", disk.path(""), source))?;
        let mut files: Vec<FileName> = names.iter().filter_map(|name| FileName::parse(name)).collect();
        files.sort_by_key(ToString::to_string);
        let segments: Vec<u64> = files
            .iter()
            .filter_map(|name| match name {
                FileName::Log(number) => Some(*number),
                _ => None,
            })
            .collect();
        let found = if segments.is_empty() {
            None
        } else {
            Some(recovery::recover(disk.as_ref(), &segments, options.identity, after)?)
        };
        if let Some(found) = &found {
            harden(disk.as_ref(), found)?;
        }
        let spares = Spares::open(Arc::clone(&disk), options.segment_bytes, options.spares_max, &files)?;
        match found {
            Some(found) => Self::resume(disk, options, spares, found),
            None => Self::create(disk, options, spares),
        }
    }

    fn create(disk: Arc<dyn Disk>, options: LogOptions, mut spares: Spares) -> Result<(Self, Recovered)> {
        let mut layout = Layout::new(EntryId::default());
        let header = SegmentHeader {
            identity: options.identity,
            number: 1,
            nonce: options.nonce,
            file_len: 0,
            first_batch: 1,
            previous_end: 0,
            base: EntryId::default(),
            last: EntryId::default(),
            hard_state: HardState::default(),
        };
        let active = begin_segment(disk.as_ref(), &mut spares, options.first_segment_bytes, header)?;
        layout.begin_segment(active.clone());
        let recovered = Recovered {
            created: true,
            hard_state: HardState::default(),
            entries: Vec::new(),
            terms: layout.terms().clone(),
            last_batch: 0,
            torn: false,
        };
        let log = Self {
            disk,
            options,
            active,
            spares,
            next_batch: 1,
            written: HardState::default(),
            pending: None,
            terms: layout.terms().clone(),
            shared: Arc::new(RwLock::new(layout)),
            buffer: BatchBuffer::default(),
            steps: Vec::new(),
            last_sync: None,
            poison: None,
        };
        Ok((log, recovered))
    }

    fn resume(disk: Arc<dyn Disk>, options: LogOptions, spares: Spares, found: Found) -> Result<(Self, Recovered)> {
        let Found { layout, active, hard_state: written, entries, next_batch, torn, last_batch_start: _ } = found;
        let terms = layout.terms().clone();
        // What was purged or came as a snapshot was committed; the record of that may have been waiting for a sync that
        // never came.
        let mut hard_state = written.clone();
        hard_state.commit = hard_state.commit.max(terms.base().index);
        if torn {
            let file = active.path.display();
            tracing::warn!(%file, offset = active.end, batch = next_batch, "raft log: dropped a write torn by a crash");
        }
        let recovered = Recovered {
            created: false,
            hard_state: hard_state.clone(),
            entries,
            terms: terms.clone(),
            last_batch: next_batch - 1,
            torn,
        };
        let mut log = Self {
            disk,
            options,
            shared: Arc::new(RwLock::new(layout)),
            active,
            spares,
            next_batch,
            pending: (hard_state != written).then_some(hard_state),
            written,
            terms,
            buffer: BatchBuffer::default(),
            steps: Vec::new(),
            last_sync: None,
            poison: None,
        };
        // A crash may have come between a purge and the removal of its segments.
        log.recycle_obsolete()?;
        Ok((log, recovered))
    }

    /// Runs `operation` unless an earlier one failed, and remembers if this one does.
    fn guarded<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if let Some(cause) = &self.poison {
            return Err(LogError::Poisoned { cause: cause.clone() });
        }
        let outcome = operation(self);
        if let Err(error) = &outcome {
            self.poison = Some(error.to_string());
        }
        outcome
    }

    /// Name of the active segment and where its last batch ends.
    #[cfg(test)]
    pub(crate) fn end(&self) -> (String, u64) {
        (FileName::Log(self.active.number).to_string(), self.active.end)
    }

    /// The hard state with what is staged.
    fn hard_state(&self) -> &HardState {
        self.pending.as_ref().unwrap_or(&self.written)
    }

    fn stage_change(&mut self, change: &Change<'_>) -> Result<()> {
        if let Some(to) = change.reset {
            self.buffer.push_reset(to);
            self.terms.reset(to);
            self.steps.push(Step::Reset(to));
        }
        for entry in change.entries {
            self.stage_entry(entry)?;
        }
        if let Some(hard_state) = change.hard_state {
            if hard_state.term < self.hard_state().term {
                return Err(LogError::Misuse(format!(
                    "hard state of term {} after one of term {}",
                    hard_state.term,
                    self.hard_state().term
                )));
            }
            self.pending = Some(hard_state.clone());
        }
        let (commit, last) = (self.hard_state().commit, self.terms.last().index);
        if commit > last {
            return Err(LogError::Misuse(format!("commit index {commit} in a log that ends at entry {last}")));
        }
        Ok(())
    }

    fn stage_entry(&mut self, entry: &Entry) -> Result<()> {
        let id = EntryId { index: entry.index, term: entry.term };
        let (base, last, commit) = (self.terms.base(), self.terms.last(), self.hard_state().commit);
        let refused = |why: &str| {
            Err(LogError::Misuse(format!(
                "entry {} of term {} {why}; the log goes from {} to {} (term {}), committed up to {commit}",
                id.index,
                id.term,
                base.index + 1,
                last.index,
                last.term
            )))
        };
        if id.index > last.index + 1 {
            return refused("leaves a gap");
        }
        if id.index <= base.index.max(commit) {
            return refused("would overwrite a committed one");
        }
        if self.terms.term(id.index - 1).is_none_or(|before| before > id.term) {
            return refused("has a lower term than the one before it");
        }
        if !(0..=ENTRY_TYPE_MAX).contains(&entry.entry_type) {
            return refused("is of an unknown type");
        }
        let bytes = entry.data.len() + entry.context.len();
        if bytes > BODY_BYTES_MAX / 2 || bytes + self.buffer.len() > BATCH_BYTES_MAX {
            return refused("is too large");
        }
        let at = self.buffer.push_entry(entry);
        self.terms.append(id);
        self.steps.push(Step::Append(id, at));
        Ok(())
    }

    fn sync_staged(&mut self) -> Result<u64> {
        self.last_sync = None;
        if let Some(hard_state) = self.pending.as_ref().filter(|pending| **pending != self.written) {
            self.buffer.push_hard_state(hard_state);
        }
        if self.buffer.is_empty() {
            self.pending = None;
            return Ok(self.next_batch - 1);
        }
        let len = self.buffer.len() as u64;
        if self.active.end + len > self.active.file_len {
            self.begin_next_segment(len)?;
        }
        let active = &mut self.active;
        let end = active.end + len;
        let bytes = self.buffer.finish(self.next_batch, active.seed);
        let whole_pages = end.next_multiple_of(PAGE_BYTES).min(active.file_len);
        bytes.resize((whole_pages - active.end) as usize, 0);
        let began = now();
        active.file.write_at(bytes, active.end).map_err(|source| LogError::io("write", active.path.clone(), source))?;
        let written = now();
        active.file.sync().map_err(|source| LogError::io("fdatasync", active.path.clone(), source))?;
        self.last_sync = Some(SyncTimes { write: written - began, fdatasync: written.elapsed() });

        let mut frees = false;
        let mut layout = self.shared.write();
        for step in self.steps.drain(..) {
            match step {
                Step::Append(id, at) => {
                    layout.append(id, Position { segment: active.number, offset: active.end + at as u64 });
                }
                Step::Reset(to) => layout.reset(to),
                Step::Purge(to) => layout.purge(to.index),
            }
            frees |= !matches!(step, Step::Append(..));
        }
        layout.set_end(end);
        drop(layout);
        active.end = end;
        self.buffer.clear();
        if let Some(hard_state) = self.pending.take() {
            self.written = hard_state;
        }
        self.next_batch += 1;
        if frees {
            self.recycle_obsolete()?;
        }
        Ok(self.next_batch - 1)
    }

    /// The active segment is full: the next one begins with the state as it is on the disk.
    fn begin_next_segment(&mut self, batch_len: u64) -> Result<()> {
        let (base, last) = {
            let layout = self.shared.read();
            (layout.terms().base(), layout.terms().last())
        };
        let header = SegmentHeader {
            identity: self.options.identity,
            number: self.active.number + 1,
            nonce: self.options.nonce,
            file_len: 0,
            first_batch: self.next_batch,
            previous_end: self.active.end,
            base,
            last,
            hard_state: self.written.clone(),
        };
        let ordinary = self.options.next_segment_bytes(self.active.file_len);
        let len = ordinary.max((DATA_START + batch_len).next_multiple_of(PAGE_BYTES));
        self.active = begin_segment(self.disk.as_ref(), &mut self.spares, len, header)?;
        self.shared.write().begin_segment(self.active.clone());
        Ok(())
    }

    /// Segments without a needed entry become spares or go, the oldest first, each durably before the next: never is
    /// there a gap between those left.
    fn recycle_obsolete(&mut self) -> Result<()> {
        loop {
            let Some(gone) = self.shared.write().pop_obsolete() else { return Ok(()) };
            self.spares.recycle(gone.number, gone.file, gone.file_len)?;
        }
    }

    fn purge_up_to(&mut self, index: u64) -> Result<EntryId> {
        let last = self.terms.last().index;
        if index > last {
            return Err(LogError::Misuse(format!("purge up to entry {index} in a log that ends at entry {last}")));
        }
        if !self.buffer.is_empty() {
            self.sync_staged()?;
        }
        let purgeable = self.shared.read().purgeable(index);
        let Some(to) = purgeable else {
            // Segments can also be of no use because everything in them was overwritten, or came before a snapshot.
            self.recycle_obsolete()?;
            return Ok(self.terms.base());
        };
        // The caller has applied these entries, so they are committed, even if the hard state that says so was never
        // synced.
        if self.hard_state().commit < to.index {
            self.pending = Some(HardState { commit: to.index, ..self.hard_state().clone() });
        }
        self.buffer.push_purge(to);
        self.terms.purge(to.index);
        self.steps.push(Step::Purge(to));
        self.sync_staged()?;
        Ok(to)
    }
}

#[expect(clippy::disallowed_methods, reason = "how long a sync takes is measured, and decides nothing")]
fn now() -> Instant {
    Instant::now()
}

/// Makes a file with this header the next segment: header first, then the name, each durable before the next step.
fn begin_segment(disk: &dyn Disk, spares: &mut Spares, len: u64, header: SegmentHeader) -> Result<Segment> {
    let spare = spares.take(len)?;
    let header = SegmentHeader { file_len: spare.len, ..header };
    let from = disk.path(&spare.name.to_string());
    let mut page = vec![0; DATA_START as usize];
    let bytes = header.encode();
    page[..bytes.len()].copy_from_slice(&bytes);
    spare.file.write_at(&page, 0).map_err(|source| LogError::io("write", from.clone(), source))?;
    spare.file.sync().map_err(|source| LogError::io("fdatasync", from, source))?;
    let name = FileName::Log(header.number);
    spare::rename(disk, spare.name, name)?;
    Ok(Segment::new(&header, spare.file, disk.path(&name.to_string())))
}

/// Makes durable what recovery has read.
///
/// The last batch is written again with the same bytes: a process that ended because a sync failed leaves pages which
/// the kernel shows to readers and takes for clean, so that syncing them again would do nothing. Only the last batch
/// can be in that state, the one before it was synced when it was written. If there is none in the last segment, the
/// same goes for the segment's header.
fn harden(disk: &dyn Disk, found: &Found) -> Result<()> {
    let active = &found.active;
    let error = |action| move |source| LogError::io(action, active.path.clone(), source);
    let start = found.last_batch_start.unwrap_or(0);
    let mut bytes = vec![0; (active.end - start) as usize];
    let read = active.file.read_at(&mut bytes, start).map_err(error("read"))?;
    active.file.write_at(&bytes[..read], start).map_err(error("write"))?;
    active.file.sync().map_err(error("fdatasync"))?;
    spare::sync_names(disk)
}

impl LogStore for Log {
    fn stage(&mut self, change: &Change<'_>) -> Result<()> {
        self.guarded(|log| log.stage_change(change))
    }

    fn needs_sync(&self) -> bool {
        let HardState { term, vote, .. } = self.written;
        !self.buffer.is_empty()
            || self.pending.as_ref().is_some_and(|pending| (pending.term, pending.vote) != (term, vote))
    }

    fn staged_bytes(&self) -> usize {
        self.buffer.len()
    }

    fn sync(&mut self) -> Result<u64> {
        self.guarded(Self::sync_staged)
    }

    fn last_sync(&self) -> Option<SyncTimes> {
        self.last_sync
    }

    fn purge(&mut self, index: u64) -> Result<EntryId> {
        self.guarded(|log| log.purge_up_to(index))
    }

    fn terms(&self) -> &Terms {
        &self.terms
    }

    fn size_bytes(&self) -> u64 {
        self.shared.read().used_bytes()
    }

    fn reader(&self) -> Arc<dyn EntryReader> {
        Arc::new(LogReader::new(Arc::clone(&self.shared)))
    }

    fn spare_job(&mut self) -> Option<SpareJob> {
        // Not before half of the segment is used: a small log shall not take the room of two segments.
        if self.poison.is_some() || self.active.end < self.active.file_len / 2 {
            return None;
        }
        self.spares.job(self.options.next_segment_bytes(self.active.file_len))
    }

    fn add_spare(&mut self, spare: Option<Spare>) {
        self.spares.add(spare);
    }
}

//! Reading the log at start: every batch of every segment in order, and the verdict on where it ends.
//!
//! Each segment's header says where the segment before it ended and which batch comes first, so in all segments but the
//! last there is nothing to guess: every batch must verify up to exactly that place. In the last one the first batch
//! that does not verify is the end of the log, *unless* the header of a record with a higher batch number verifies
//! anywhere after it: then the batch had been synced before that record was written, so it is damaged and not torn.
//!
//! Nothing is changed here; [`Log::open`](super::Log::open) does what has to be done before the log can be written
//! again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use raft::eraftpb::{Entry, HardState};

use super::disk::{Disk, DiskFile};
use super::error::{LogError, Result};
use super::layout::{Layout, Position, Segment};
use super::record::{self, Record};
use super::scan::{RecordScanner, Step, search_remains};
use super::segment::{self, DATA_START, FileName, HeaderError, Identity, SegmentHeader};
use super::terms::EntryId;

/// Segments are read in pieces of this size.
const PIECE_BYTES: usize = 1 << 20;

/// The term of a base of which only the index is known yet; no entry has it.
const UNKNOWN_TERM: u64 = 0;

/// What was found.
pub(crate) struct Found {
    pub(crate) layout: Layout,
    /// The last segment, which will be written on.
    pub(crate) active: Segment,
    /// As written last.
    pub(crate) hard_state: HardState,
    pub(crate) entries: Vec<Entry>,
    pub(crate) next_batch: u64,
    /// Where the last batch begins, if there is one in the last segment.
    pub(crate) last_batch_start: Option<u64>,
    /// Whether a torn batch was found after the last one.
    pub(crate) torn: bool,
}

/// A segment file with its decoded header.
struct Opened {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    header: SegmentHeader,
}

/// Reads the segments `numbers` (sorted, not empty). Entries up to `after` are not kept in memory.
pub(crate) fn recover(disk: &dyn Disk, numbers: &[u64], identity: Identity, after: u64) -> Result<Found> {
    let mut opened = Vec::with_capacity(numbers.len());
    for (&number, expected) in numbers.iter().zip(numbers[0]..) {
        if number != expected {
            return Err(LogError::MissingSegment { path: disk.path(&FileName::Log(expected).to_string()) });
        }
        opened.push(open_segment(disk, number, identity)?);
    }

    let first = &opened[0].header;
    let mut replay = Replay {
        layout: Layout::new(first.last),
        base: first.base,
        covered: first.base == first.last,
        hard_state: first.hard_state.clone(),
        entries: Vec::new(),
        after,
        next_batch: first.first_batch,
        batch: Vec::new(),
    };
    let mut last_batch_start = None;
    let mut torn = false;
    for (nth, segment) in opened.iter().enumerate() {
        if nth > 0 {
            replay.check_continues(&segment.header, segment)?;
        }
        let header = &segment.header;
        replay.layout.begin_segment(Segment::new(header, Arc::clone(&segment.file), segment.path.clone()));
        let next = opened.get(nth + 1);
        let end = replay.read_segment(segment, next)?;
        last_batch_start = end.last_batch_start;
        torn |= end.torn;
    }
    let last = &opened[opened.len() - 1];
    replay.finish(disk, numbers[0], &last.path)?;
    let Some(active) = replay.layout.active().cloned() else {
        unreachable!("a segment was begun above for each number, and there is one")
    };
    Ok(Found {
        layout: replay.layout,
        active,
        hard_state: replay.hard_state,
        entries: replay.entries,
        next_batch: replay.next_batch,
        last_batch_start,
        torn,
    })
}

/// Whose log is on the disk, by the header of its first segment, if there is a log. Nothing else is looked at.
pub(crate) fn identity(disk: &dyn Disk) -> Result<Option<Identity>> {
    let names = disk.list().map_err(|source| LogError::io("list", disk.path(""), source))?;
    let number = |name: String| match FileName::parse(&name) {
        Some(FileName::Log(number)) => Some(number),
        _ => None,
    };
    match names.into_iter().filter_map(number).min() {
        Some(number) => Ok(Some(read_header(disk, number)?.header.identity)),
        None => Ok(None),
    }
}

fn read_header(disk: &dyn Disk, number: u64) -> Result<Opened> {
    let name = FileName::Log(number).to_string();
    let path = disk.path(&name);
    let file = disk.open(&name).map_err(|source| LogError::io("open", path.clone(), source))?;
    let mut bytes = [0; segment::HEADER_BYTES];
    let read = file.read_at(&mut bytes, 0).map_err(|source| LogError::io("read", path.clone(), source))?;
    let header = SegmentHeader::decode(&bytes[..read]).map_err(|error| match error {
        HeaderError::Invalid(why) => LogError::BadHeader { path: path.clone(), why: why.to_owned() },
        HeaderError::Newer(found) => {
            LogError::NewerFormat { path: path.clone(), found, supported: segment::FORMAT_VERSION }
        }
    })?;
    Ok(Opened { file, path, header })
}

fn open_segment(disk: &dyn Disk, number: u64, identity: Identity) -> Result<Opened> {
    let Opened { file, path, header } = read_header(disk, number)?;
    let read_error = |source| LogError::io("read", path.clone(), source);
    let bad = |why: String| LogError::BadHeader { path: path.clone(), why };
    for (what, expected, found) in [
        ("cluster", identity.cluster_id, header.identity.cluster_id),
        ("member", identity.member_id, header.identity.member_id),
    ] {
        if expected != found {
            return Err(LogError::WrongIdentity { path, what, expected, found });
        }
    }
    if header.number != number {
        return Err(bad(format!("it is the header of segment {}; the file was renamed", header.number)));
    }
    let len = file.size().map_err(read_error)?;
    if len < header.file_len {
        return Err(bad(format!("the file was cut from {} to {len} bytes", header.file_len)));
    }
    Ok(Opened { file, path, header })
}

fn in_its_place(header: &record::Header) -> String {
    format!("a record of batch {} is in its place", header.batch)
}

/// A change to the state, waiting for its batch to be complete.
enum Change {
    Entry { id: EntryId, entry: Option<Entry>, offset: u64 },
    HardState(HardState),
    Purge(EntryId),
    Reset(EntryId),
}

/// Where a segment's records end.
struct SegmentEnd {
    last_batch_start: Option<u64>,
    torn: bool,
}

/// The state of the log as of the batches read so far.
struct Replay {
    layout: Layout,
    /// The purge point on record.
    base: EntryId,
    /// Whether the layout begins at the purge point. It does not while only a later record says that the entries before
    /// the first segment were purged.
    covered: bool,
    hard_state: HardState,
    entries: Vec<Entry>,
    after: u64,
    next_batch: u64,
    batch: Vec<Change>,
}

impl Replay {
    /// A segment's header repeats the state in which the one before it was left.
    fn check_continues(&self, header: &SegmentHeader, segment: &Opened) -> Result<()> {
        if self.base != header.base || self.layout.terms().last() != header.last || self.hard_state != header.hard_state
        {
            return Err(LogError::Inconsistent {
                path: segment.path.clone(),
                offset: 0,
                batch: header.first_batch,
                why: format!(
                    "its header says base {:?}, last {:?}, {:?}, but the segments before it end with base {:?}, last \
                     {:?}, {:?}",
                    header.base,
                    header.last,
                    header.hard_state,
                    self.base,
                    self.layout.terms().last(),
                    self.hard_state
                ),
            });
        }
        Ok(())
    }

    /// Reads all batches of `segment`, which must end where `next` says; the last segment ends where its batches end.
    fn read_segment(&mut self, segment: &Opened, next: Option<&Opened>) -> Result<SegmentEnd> {
        let limit = next.map_or(segment.header.file_len, |next| next.header.previous_end);
        let read_error = |source: io::Error| LogError::io("read", segment.path.clone(), source);
        let mut scanner =
            RecordScanner::new(segment.file.as_ref(), segment.header.seed(), DATA_START, limit, PIECE_BYTES);
        let mut batch_start = DATA_START;
        let mut last_batch_start = None;
        let mut chain = 0;
        loop {
            let why = match scanner.next().map_err(read_error)? {
                Step::Record { offset, header, body } => {
                    if header.batch != self.next_batch {
                        in_its_place(&header)
                    } else if header.is_first() != self.batch.is_empty() || header.chain != chain {
                        "its records do not belong together".to_owned()
                    } else {
                        chain = if header.is_last() { 0 } else { header.crc };
                        let inconsistent = |why| LogError::Inconsistent {
                            path: segment.path.clone(),
                            offset,
                            batch: header.batch,
                            why,
                        };
                        let record = Record::decode(header.kind, body).map_err(inconsistent)?;
                        let change = self.change(record, offset);
                        self.batch.push(change);
                        if header.is_last() {
                            self.apply_batch(segment.header.number).map_err(inconsistent)?;
                            last_batch_start = Some(batch_start);
                            batch_start = scanner.position();
                            self.layout.set_end(batch_start);
                        }
                        continue;
                    }
                }
                Step::Broken { header: Some(header), .. } if header.batch != self.next_batch => in_its_place(&header),
                Step::Broken { why, .. } => why.to_owned(),
                Step::End => "the segment ends here".to_owned(),
            };
            self.batch.clear();
            let damaged = |later_batch, later_path, later_offset| LogError::Damaged {
                path: segment.path.clone(),
                offset: batch_start,
                batch: self.next_batch,
                why,
                later_batch,
                later_path,
                later_offset,
            };
            if let Some(next) = next {
                if batch_start == limit && self.next_batch == next.header.first_batch {
                    return Ok(SegmentEnd { last_batch_start, torn: false });
                }
                return Err(damaged(next.header.first_batch, next.path.clone(), 0));
            }
            let remains =
                search_remains(segment.file.as_ref(), segment.header.seed(), batch_start, limit, self.next_batch)
                    .map_err(read_error)?;
            if let Some((batch, offset)) = remains.later {
                return Err(damaged(batch, segment.path.clone(), offset));
            }
            return Ok(SegmentEnd { last_batch_start, torn: remains.torn });
        }
    }

    fn change(&self, record: Record<'_>, offset: u64) -> Change {
        match record {
            Record::Entry(body) => {
                Change::Entry { id: body.id, entry: (body.id.index > self.after).then(|| body.to_entry()), offset }
            }
            Record::HardState(hard_state) => Change::HardState(hard_state),
            Record::Purge(to) => Change::Purge(to),
            Record::Reset(to) => Change::Reset(to),
        }
    }

    /// The batch is complete: what it says counts.
    fn apply_batch(&mut self, segment: u64) -> std::result::Result<(), String> {
        for change in std::mem::take(&mut self.batch) {
            match change {
                Change::Entry { id, entry, offset } => self.apply_entry(id, entry, Position { segment, offset })?,
                Change::HardState(hard_state) => self.hard_state = hard_state,
                Change::Purge(to) => self.apply_purge(to)?,
                Change::Reset(to) => {
                    self.layout.reset(to);
                    self.entries.clear();
                    self.base = to;
                    self.covered = true;
                }
            }
        }
        self.next_batch += 1;
        Ok(())
    }

    fn apply_entry(&mut self, id: EntryId, entry: Option<Entry>, at: Position) -> std::result::Result<(), String> {
        let (base, last) = (self.layout.terms().base(), self.layout.terms().last());
        if id.index > last.index + 1 || id.index <= self.base.index {
            return Err(format!(
                "entry {} does not fit a log that goes from {} to {}",
                id.index,
                self.base.index + 1,
                last.index
            ));
        }
        if id.index <= base.index {
            // It overwrites entries of a segment that is gone, so what comes before it is gone too. Either it was
            // purged by what is on record, or a purge later in the log must say so.
            self.covered = id.index == self.base.index + 1;
            let unknown = EntryId { index: id.index - 1, term: UNKNOWN_TERM };
            self.layout.lower_base(if self.covered { self.base } else { unknown });
        }
        self.layout.append(id, at);
        let keep = self.entries.partition_point(|entry| entry.index < id.index);
        self.entries.truncate(keep);
        self.entries.extend(entry);
        Ok(())
    }

    fn apply_purge(&mut self, to: EntryId) -> std::result::Result<(), String> {
        let terms = self.layout.terms();
        let (base, last) = (terms.base(), terms.last());
        if to.index > last.index || to.index < self.base.index {
            return Err(format!(
                "a purge up to entry {} in a log that goes from {} to {}",
                to.index,
                self.base.index + 1,
                last.index
            ));
        }
        self.base = to;
        if to.index < base.index && !self.covered {
            return Ok(());
        }
        if to.index == base.index && base.term == UNKNOWN_TERM {
            self.layout.set_base_term(to.term);
        }
        if self.layout.terms().term(to.index) != Some(to.term) {
            return Err(format!("a purge up to entry {} of term {}, which has another term", to.index, to.term));
        }
        self.covered = true;
        self.layout.purge(to.index);
        let gone = self.entries.partition_point(|entry| entry.index <= to.index);
        self.entries.drain(..gone);
        Ok(())
    }

    /// The end: what was read must stand on its own.
    fn finish(&self, disk: &dyn Disk, first_segment: u64, last_path: &Path) -> Result<()> {
        if !self.covered {
            return Err(LogError::MissingSegment { path: disk.path(&FileName::Log(first_segment - 1).to_string()) });
        }
        let last = self.layout.terms().last().index;
        if self.hard_state.commit > last {
            return Err(LogError::CommitBeyondEnd { path: last_path.to_owned(), commit: self.hard_state.commit, last });
        }
        Ok(())
    }
}

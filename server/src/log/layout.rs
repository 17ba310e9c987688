//! Where the entries of the log are: the segments, and a sparse list of points to read from.
//!
//! A *point* says: from this place on, entry `index` and those after it are written. There is one at the first entry of
//! each segment, one at each entry that overwrote others, and one about every 64 KiB. Each truncation drops the points
//! at or above its index, so between a point and the next one the first record of each index below the next point's is
//! the current one, and what else lies there (entries at or above the next point's index) has been overwritten later.
//! That makes 24 bytes for 64 KiB of log.
//!
//! Writer and recovery both drive this structure with the same calls in the same order, so after a restart it is what
//! it was before.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use super::disk::DiskFile;
use super::record::Seed;
use super::segment::{DATA_START, SegmentHeader};
use super::terms::{EntryId, Terms};

/// Distance between points when nothing else calls for one.
const POINT_BYTES: u64 = 64 << 10;

/// A place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) segment: u64,
    pub(crate) offset: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    index: u64,
    at: Position,
}

/// A segment in use.
#[derive(Clone)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) seed: Seed,
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) path: PathBuf,
    /// Length of the file.
    pub(crate) file_len: u64,
    /// Where its last batch ends.
    pub(crate) end: u64,
    /// All current entries in this segment and the later ones have at least this index.
    pub(crate) begin_index: u64,
}

impl Segment {
    /// The segment with this header, without batches.
    pub(crate) fn new(header: &SegmentHeader, file: Arc<dyn DiskFile>, path: PathBuf) -> Self {
        Self {
            number: header.number,
            seed: header.seed(),
            file,
            path,
            file_len: header.file_len,
            end: DATA_START,
            begin_index: 0,
        }
    }
}

/// A stretch of a segment to read entries from.
#[derive(Clone)]
pub(crate) struct Span {
    pub(crate) segment: Segment,
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The first entry there.
    pub(crate) first_index: u64,
    /// Entries at or above this index are elsewhere.
    pub(crate) stop_index: u64,
}

/// The current entries and their places.
pub(crate) struct Layout {
    terms: Terms,
    points: VecDeque<Point>,
    segments: VecDeque<Segment>,
}

impl Layout {
    /// Nothing after `base`, and no segment yet.
    pub(crate) fn new(base: EntryId) -> Self {
        Self { terms: Terms::new(base), points: VecDeque::new(), segments: VecDeque::new() }
    }

    pub(crate) fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The segment being written. There is none only before the first [`Layout::begin_segment`].
    pub(crate) fn active(&self) -> Option<&Segment> {
        self.segments.back()
    }

    /// Bytes of the log in use, headers included.
    pub(crate) fn used_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.end).sum()
    }

    /// A new segment, empty, is the active one from now on.
    pub(crate) fn begin_segment(&mut self, segment: Segment) {
        let begin_index = self.terms.last().index + 1;
        self.segments.push_back(Segment { begin_index, ..segment });
    }

    /// The active segment is written up to `end`.
    pub(crate) fn set_end(&mut self, end: u64) {
        if let Some(active) = self.segments.back_mut() {
            active.end = end;
        }
    }

    /// Entry `id` was written at `at`; see [`Terms::append`].
    pub(crate) fn append(&mut self, id: EntryId, at: Position) {
        let overwrites = id.index <= self.terms.last().index;
        self.terms.append(id);
        if overwrites {
            while self.points.back().is_some_and(|point| point.index >= id.index) {
                self.points.pop_back();
            }
            for segment in &mut self.segments {
                segment.begin_index = segment.begin_index.min(id.index);
            }
        }
        let near = |point: &Point| point.at.segment == at.segment && at.offset - point.at.offset < POINT_BYTES;
        if overwrites || !self.points.back().is_some_and(near) {
            self.points.push_back(Point { index: id.index, at });
        }
    }

    /// The log goes on after `base` and has no entries now.
    pub(crate) fn reset(&mut self, base: EntryId) {
        self.terms.reset(base);
        self.points.clear();
        for segment in &mut self.segments {
            segment.begin_index = base.index + 1;
        }
    }

    /// Used by recovery when the first segment there is overwrites entries of segments purged since: the log begins at
    /// `base` then, whose term comes later.
    pub(crate) fn lower_base(&mut self, base: EntryId) {
        self.reset(base);
    }

    /// Used by recovery: the base of a lowered log has this term.
    pub(crate) fn set_base_term(&mut self, term: u64) {
        self.terms.set_base_term(term);
    }

    /// Entries up to `index` are no longer wanted. Their segments stay until [`Layout::pop_obsolete`].
    pub(crate) fn purge(&mut self, index: u64) {
        self.terms.purge(index);
        self.drop_points();
    }

    /// Points wholly before the first entry are of no use; the one that covers it is.
    fn drop_points(&mut self) {
        let first = self.terms.first_index();
        while self.points.get(1).is_some_and(|second| second.index <= first) {
            self.points.pop_front();
        }
        if self.terms.last().index < first {
            self.points.clear();
        }
    }

    /// What could be purged if entries up to `index` were not needed: whole segments, never the active one. Returns the
    /// last entry in them.
    pub(crate) fn purgeable(&self, index: u64) -> Option<EntryId> {
        let keep = self.segments.iter().rposition(|segment| segment.begin_index <= index + 1)?;
        let to = self.segments[keep].begin_index - 1;
        let term = self.terms.term(to)?;
        (keep > 0 && to > self.terms.base().index).then_some(EntryId { index: to, term })
    }

    /// Takes out the first segment if nothing in it is needed.
    pub(crate) fn pop_obsolete(&mut self) -> Option<Segment> {
        let next = self.segments.get(1)?;
        if next.begin_index > self.terms.first_index() {
            return None;
        }
        let gone = self.segments.pop_front();
        let first = self.segments.front().map_or(0, |segment| segment.number);
        while self.points.front().is_some_and(|point| point.at.segment < first) {
            self.points.pop_front();
        }
        gone
    }

    /// Where to read the entries from `low` up to but without `high`; both must be there.
    pub(crate) fn spans(&self, low: u64, high: u64) -> Vec<Span> {
        let mut spans = Vec::new();
        let from = self.points.partition_point(|point| point.index <= low).saturating_sub(1);
        let mut points = self.points.iter().skip(from).peekable();
        while let Some(point) = points.next() {
            if point.index >= high {
                break;
            }
            let Ok(at) = self.segments.binary_search_by_key(&point.at.segment, |segment| segment.number) else { break };
            let segment = self.segments[at].clone();
            let next = points.peek();
            let stop_index = next.map_or(self.terms.last().index + 1, |next| next.index);
            let end = match next {
                Some(next) if next.at.segment == point.at.segment => next.at.offset,
                _ => segment.end,
            };
            spans.push(Span { start: point.at.offset, end, first_index: point.index, stop_index, segment });
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::disk::Disk;
    use crate::log::sim_disk::SimDisk;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn begin(layout: &mut Layout, disk: &SimDisk, number: u64) {
        let name = number.to_string();
        let file = disk.create(&name, 1).unwrap();
        let seed = Seed::new(number, 0);
        layout.begin_segment(Segment {
            number,
            seed,
            file,
            path: name.into(),
            file_len: 1 << 20,
            end: DATA_START,
            begin_index: 0,
        });
    }

    /// Reads as `LogReader` does, from a plain list of what was written where.
    fn read(layout: &Layout, written: &[(Position, EntryId)], low: u64, high: u64) -> Vec<EntryId> {
        let mut found = Vec::new();
        for span in layout.spans(low, high) {
            let mut want = span.first_index;
            for (at, id) in written {
                if at.segment == span.segment.number
                    && at.offset >= span.start
                    && at.offset < span.end
                    && id.index == want
                    && want < span.stop_index
                {
                    want += 1;
                    if (low..high).contains(&id.index) {
                        found.push(*id);
                    }
                }
            }
        }
        found
    }

    proptest! {
        #[test]
        fn spans_lead_to_the_current_entries(ops in prop::collection::vec((0..10u8, 0..10_000u64), 1..300)) {
            let disk = SimDisk::new(1);
            let mut layout = Layout::new(EntryId::default());
            begin(&mut layout, &disk, 1);
            let mut at = Position { segment: 1, offset: DATA_START };
            let mut written = Vec::new();
            let mut model: BTreeMap<u64, EntryId> = BTreeMap::new();
            let (mut base, mut term) = (0, 1);
            for (kind, pick) in ops {
                let last = model.last_key_value().map_or(base, |(&index, _)| index);
                match kind {
                    0 => {
                        at = Position { segment: at.segment + 1, offset: DATA_START };
                        begin(&mut layout, &disk, at.segment);
                    }
                    1 => {
                        if let Some(to) = layout.purgeable(base + pick % (last - base + 1)) {
                            layout.purge(to.index);
                            while layout.pop_obsolete().is_some() {}
                            prop_assert!(to.index >= base);
                            base = to.index;
                            model = model.split_off(&(base + 1));
                        }
                    }
                    _ => {
                        let index = if kind == 2 { base + 1 + pick % (last - base + 1) } else { last + 1 };
                        term += u64::from(kind == 2);
                        let id = EntryId { index, term };
                        model.split_off(&index);
                        model.insert(index, id);
                        layout.append(id, at);
                        written.push((at, id));
                        at.offset += 8 * (1 + pick);
                        layout.set_end(at.offset);
                    }
                }
                let last = model.last_key_value().map_or(base, |(&index, _)| index);
                prop_assert_eq!(layout.terms().base().index, base);
                prop_assert_eq!(layout.terms().last().index, last);
                let low = base + 1 + pick % (last - base + 1);
                let expected: Vec<EntryId> = model.range(low..).map(|(_, id)| *id).collect();
                prop_assert_eq!(read(&layout, &written, low, last + 1), expected);
            }
        }
    }
}

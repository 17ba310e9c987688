//! Reading entries back, for followers that are too far behind for the entries in memory.
//!
//! A reader works beside the writer: it takes the places to read from under a short lock and reads without one. Batches
//! are only ever added behind what it reads, so an overwritten entry is still where it was. A segment that is purged
//! meanwhile may be in use again: its old records do not verify any more, and the read ends in [`LogError::Purged`].

use raft::eraftpb::Entry;

use super::error::{LogError, Result};
use super::layout::Span;
use super::log_store::EntryReader;
use super::record::Record;
use super::scan::{RecordScanner, Step};
use super::terms::EntryId;
use super::writer::SharedLayout;

/// Files are read in pieces of this size; one more than the distance of the points makes no sense.
const PIECE_BYTES: usize = 64 << 10;
/// What an entry counts for besides its context and data.
const ENTRY_BYTES: u64 = 24;

/// Reads the entries of a [`Log`](super::Log).
pub(crate) struct LogReader {
    shared: SharedLayout,
}

impl LogReader {
    pub(crate) fn new(shared: SharedLayout) -> Self {
        Self { shared }
    }

    fn spans(&self, low: u64, high: u64) -> Result<Vec<Span>> {
        let layout = self.shared.read();
        let (first_index, last_index) = (layout.terms().first_index(), layout.terms().last().index);
        if low < first_index {
            return Err(LogError::Purged { index: low, first_index });
        }
        if high > last_index + 1 {
            return Err(LogError::OutOfRange { index: high - 1, last_index });
        }
        Ok(layout.spans(low, high))
    }

    /// Something unreadable is either gone by now or damaged.
    fn unreadable(&self, span: &Span, low: u64, offset: u64, why: String) -> LogError {
        let first_index = self.first_index();
        if low < first_index {
            return LogError::Purged { index: low, first_index };
        }
        LogError::Unreadable { path: span.segment.path.clone(), offset, why }
    }
}

/// Entries being collected.
struct Collector {
    low: u64,
    high: u64,
    bytes_left: u64,
    entries: Vec<Entry>,
}

impl Collector {
    /// Takes an entry; false if it or what follows is not wanted any more.
    fn take(&mut self, entry: impl FnOnce() -> Entry, id: EntryId) -> bool {
        if id.index >= self.high {
            return false;
        }
        if id.index < self.low {
            return true;
        }
        let entry = entry();
        let bytes = (entry.data.len() + entry.context.len()) as u64 + ENTRY_BYTES;
        if bytes > self.bytes_left && !self.entries.is_empty() {
            return false;
        }
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        self.entries.push(entry);
        true
    }
}

impl EntryReader for LogReader {
    fn entries(&self, low: u64, high: u64, bytes_max: u64) -> Result<Vec<Entry>> {
        let mut collector = Collector { low, high, bytes_left: bytes_max, entries: Vec::new() };
        if low >= high {
            return Ok(collector.entries);
        }
        for span in self.spans(low, high)? {
            let mut scanner =
                RecordScanner::new(span.segment.file.as_ref(), span.segment.seed, span.start, span.end, PIECE_BYTES);
            let mut want = span.first_index;
            while want < span.stop_index {
                let at = scanner.position();
                match scanner.next().map_err(|source| LogError::io("read", span.segment.path.clone(), source))? {
                    Step::Record { header, body, .. } => {
                        let record =
                            Record::decode(header.kind, body).map_err(|why| self.unreadable(&span, low, at, why))?;
                        let Record::Entry(entry) = record else { continue };
                        if entry.id.index != want {
                            return Err(self.unreadable(
                                &span,
                                low,
                                at,
                                format!("entry {} instead of entry {want}", entry.id.index),
                            ));
                        }
                        want += 1;
                        if !collector.take(|| entry.to_entry(), entry.id) {
                            return Ok(collector.entries);
                        }
                    }
                    Step::Broken { why, .. } => return Err(self.unreadable(&span, low, at, why.to_owned())),
                    Step::End => return Err(self.unreadable(&span, low, at, format!("it ends before entry {want}"))),
                }
            }
        }
        Ok(collector.entries)
    }

    fn term(&self, index: u64) -> Option<u64> {
        self.shared.read().terms().term(index)
    }

    fn first_index(&self) -> u64 {
        self.shared.read().terms().first_index()
    }

    fn last(&self) -> EntryId {
        self.shared.read().terms().last()
    }
}
